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

import torch

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.execution.answer_key import AnswerKey, load_locally
from autograder.execution.source import join_units
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
    key = AnswerKey.read(day)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        _seconds(key, files[0])
        gc.freeze()  # as in the server: workers collect garbage after each test
        return statistics.mean(_seconds(key, file) for file in files)


def _seconds(key: AnswerKey, file: Path) -> float:
    units, _ = parse_units(read_cells(file.read_bytes(), file.name)[0])
    seconds = 0.0
    for exercise in key.day.exercises:
        code = join_units(key.slice_for(exercise.name, units).units)
        before = time.process_time()
        tested = key.implementations.get(exercise.name)
        student = load_locally(code, exercise.name, tested)
        for test in key.tests[exercise.name]:
            test.run(student, 0)
        seconds += time.process_time() - before
    return seconds
