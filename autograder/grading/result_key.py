"""Identify everything that determines the result of code. Entry points: `ResultKeys` and `places_in`."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

import msgspec
import torch

from autograder.course.config import Exercise
from autograder.course.files import reading
from autograder.course.fingerprint import imported_graders
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import RunSettings
from autograder.execution.source import Source, load_request
from autograder.marks.engine_version import engine_version
from autograder.sandbox.client import Server


class ResultKeys:
    """The keys of a day's results."""

    def __init__(self, key: AnswerKey, server: Server) -> None:
        self._key, self._server = key, server
        # The graders have just been imported; they may be edited later.
        self._of_course = {e.name: self._part_of_course(e) for e in key.day.exercises}

    def key(self, kind: str, exercise: Exercise, source: Source, settings: RunSettings) -> bytes:
        """Return a hash of the request that is sent to the worker and of everything else that determines the result.

        Of the notebook, this contains exactly the bytes that the worker gets, apart from the seed, which is hashed as well.
        """
        encode, references = msgspec.msgpack.encode, source.references
        parts = (
            kind,
            self._outside,
            self._of_course[exercise.name],
            settings.seed,
            settings.has_low_limits,
            encode(load_request(exercise, source, 0)),
            (encode(references.load), repr(references.given_methods)) if references else None,
        )
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest()

    @cached_property
    def _outside(self) -> str:
        """Return what can change a result, apart from the course and the code."""
        versions = platform.python_version(), torch.__version__, version("numpy")
        parts = engine_version(), versions, _processor(), self._server.isolation
        return repr(parts)

    def _part_of_course(self, exercise: Exercise) -> bytes:
        """Return a hash of the exercise's limits and tests, and of the graders that its tests import."""
        day = self._key.day
        modules = {test.owner.__module__ for test in self._key.tests[exercise.name]}
        own = {day.graders / f"{module.rpartition('.')[2]}.py" for module in modules}
        own |= {*day.graders.glob("*.py")} - {*day.graders.glob("test_*.py")}
        implementations = self._key.implementations.get(exercise.name)
        digest = hashlib.sha256(repr((day.name, exercise, implementations)).encode())
        for file in sorted({*own, *imported_graders(day.graders.parent, sorted(own))}):
            with reading(file):
                digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
        return digest.digest()


@cache
def _processor() -> str:
    """Return the processor's features, on which the last digits of results depend."""
    features = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    if os.path.exists("/proc/cpuinfo"):
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0]
        names = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        features += [line for line in text.split("\n") if line.startswith(names)]
    return "\n".join(features)


def places_in(source: Source) -> str:
    """Return a hash of the places and of the student's own text, which messages may show."""
    own = [(unit.cell, unit.line, unit.source) for unit in source.units if not unit.given]
    return hashlib.sha256(repr(own).encode("utf-8", "surrogatepass")).hexdigest()
