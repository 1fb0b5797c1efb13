"""Measure the cost of running only the hidden graders, on correct submissions in one warm process without a sandbox."""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec
import torch

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.execution.answer_key import given_units
from autograder.execution.collect import Test, collect
from autograder.execution.source import join_units, load_request
from autograder.execution.student import Student
from autograder.sandbox.worker.in_process import LocalProcess
from autograder.slicing.dependencies import slice_for
from autograder.slicing.statements import parse_units
from autograder.submissions.cell_reader import read_cells


def processor_seconds(day: Day, files: Sequence[Path], jobs: int) -> float:
    """Return the mean CPU seconds per submission for these files.

    As when grading a class, `jobs` processes run at the same time, because two hyperthreads on one core slow each other
    down. The submissions must be correct and harmless.
    """
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return statistics.mean(
            pool.map(_mean, [day.root] * jobs, [day.name] * jobs, [files] * jobs)
        )


def _mean(root: Path, name: str, files: Sequence[Path]) -> float:
    torch.set_num_threads(1)
    day = courses.load(root).day(name)
    tests = collect(day)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        _seconds(day, tests, files[0])
        gc.freeze()  # as in the server: workers collect garbage after each test
        return statistics.mean(_seconds(day, tests, file) for file in files)


def _seconds(day: Day, tests: dict[str, list[Test]], file: Path) -> float:
    units, _ = parse_units(read_cells(file.read_bytes(), file.name)[0])
    given, seconds = given_units(day), 0.0
    for exercise in day.exercises:
        code = slice_for(exercise.name, units, given, day.names)
        assert code is not None, file
        # Forbid nothing, because functions would remain forbidden in this process for later exercises.
        load = msgspec.structs.replace(
            load_request(exercise, join_units(code.units), 0), operators=[], attributes=[]
        )
        before = time.process_time()
        student = Student(LocalProcess())
        student.load(load)
        for test in tests[exercise.name]:
            test.run(student, 0)
        seconds += time.process_time() - before
    return seconds
