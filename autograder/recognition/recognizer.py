"""A mistake has a name: a wrong answer that does what a known mistake does, call by call, is told what it is."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from autograder.course.config import Exercise
from autograder.course.state_folder import course_folder
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import derive_seed, reference_process
from autograder.execution.collect import Test
from autograder.execution.references import ReferenceProcess
from autograder.execution.source import Source, load_request
from autograder.execution.student import NotAllowed, Student, StudentError
from autograder.protocol import messages as m
from autograder.protocol.encoding import raw_bytes
from autograder.protocol.limits import Budget
from autograder.recognition.catalogue import Mistake, known_mistakes
from autograder.recognition.recording import (
    MAX_ANSWERS,
    Exchange,
    Leaves,
    Recorder,
    replay,
    size_of,
)
from autograder.recognition.signatures import Known, named_by, tells, what_tells
from autograder.sandbox.client import Server
from autograder.sandbox.errors import LimitExceeded, ServerLost, WorkerDied, retry_if_server_lost
from autograder.sandbox.process import Process

LOST = (LimitExceeded, WorkerDied, m.WireError, NotAllowed, StudentError)
BY_CHANCE = 2  # tests that a mistake may fail with some random numbers alone, or with another fault
SEED = "one for all submissions, so that answers can be compared"


class _Run:
    """Code in its process, asked what the tests of its exercise ask.

    Raises:
        LOST: it hangs, dies, does what is not allowed, or can not be loaded.
    """

    def __init__(
        self,
        process: Process,
        references: ReferenceProcess | None,
        load: m.Load,
        tests: Sequence[Test],
        asked: Mapping[str, Sequence[Exchange]],
    ) -> None:
        self._process, self._load, self._tests, self._asked = process, load, tests, asked
        self._references = references
        self._student = Student(process, references)
        self._student.load(load)

    def failed(self, among: Collection[str] | None = None) -> list[str]:
        """Of these tests, or of all, those that the code fails."""
        failed: list[str] = []
        for test in self._tests:
            if among is not None and test.name not in among:
                continue
            try:
                test.run(self._student, _seed(test))
            except (LimitExceeded, WorkerDied, ServerLost, m.WireError, NotAllowed):
                raise
            except Exception:
                failed.append(test.name)
        return failed

    def answers(self, tests: Sequence[str], seed: int) -> Leaves:
        """What the code says to all that these tests ask, with the random numbers of this seed."""
        # Without code or rules all it does is to set the random numbers back.
        again = msgspec.structs.replace(
            self._load, pieces=[], operators=[], attributes=[], references=[], seed=seed
        )
        answers: dict[str, list[Leaves]] = {}
        most = MAX_ANSWERS
        for test in tests:
            self._student.load(again)
            answers[test] = replay(self._asked[test], self._process, self._references, most)
            most -= sum(map(size_of, answers[test]))
        return _joined(answers)


class Namer:
    """Finds the known mistake that a wrong answer equals; learns what each does when that is first needed."""

    def __init__(self, key: AnswerKey, server: Server) -> None:
        self._key, self._server = key, server
        self.mistakes = known_mistakes(key.day)
        self._version = _version(key.fingerprint)
        self._asked: dict[str, dict[str, list[Exchange]]] = {}
        self._known: dict[str, dict[str, Known]] = {}

    def name(
        self,
        exercise: Exercise,
        source: Source,
        failed: Sequence[str],
        budget: Budget | None = None,
    ) -> str | None:
        """The name of the one known mistake that does what this code does; None without one, and with two.

        `failed` are the tests that it failed with other random numbers. Running the code is charged to the budget.
        """
        near = {n: k for n, k in self.known(exercise).items() if _differing(k, failed) <= BY_CHANCE}
        if not near:
            return None
        in_doubt = set(failed).union(*(k.failed for k in near.values()))

        def name() -> str | None:
            with self._running(exercise, source, budget) as run:
                failed = run.failed(in_doubt)
                alike = {n: k for n, k in near.items() if set(k.failed) <= set(failed)}
                answers = run.answers(failed, seed=1) if alike else {}
            return named_by(alike, failed, answers)

        try:
            return retry_if_server_lost(name)
        except LOST:
            return None

    def known(self, exercise: Exercise) -> dict[str, Known]:
        """What tells each known mistake of an exercise; found once a course and kept, without those that nothing tells."""
        name, day = exercise.name, self._key.day
        if name not in self._known:
            file = course_folder(day.root) / f"mistakes-{day.name}-{name}-{self._version}.pt"
            if not file.is_file():
                learned = _sharing({k: vars(known) for k, known in self._learn(exercise).items()})
                _write(file, learned)
            kept = torch.load(file, weights_only=True)
            self._known[name] = {k: Known(**values) for k, values in kept.items()}
        return self._known[name]

    def _learn(self, exercise: Exercise) -> dict[str, Known]:
        # What is learned now is kept: a busy moment must not leave a gap.
        trusted = replace(
            exercise, limits=replace(exercise.limits, cpu_seconds=60, total_cpu_seconds=300)
        )
        asked = self._recorded(trusted)
        right = _joined({test: [e.leaves for e in exchanges] for test, exchanges in asked.items()})
        found: dict[str, Known] = {}
        for mistake in self.mistakes[exercise.name]:
            source = self.source(mistake)

            def learn(source: Source = source) -> Known:
                with self._running(trusted, source) as run:
                    failed = run.failed()
                    first = run.answers(failed, seed=1)
                    second = run.answers(failed, seed=2)
                return what_tells(failed, first, second, right)

            try:
                known = retry_if_server_lost(learn)
            except LOST:
                continue
            if tells(known, len(asked)):
                found[mistake.name] = known
        return found

    def source(self, mistake: Mistake) -> Source:
        """The code of a known mistake, with the references for what it calls."""
        return self._key.replace_solution(mistake.exercise, mistake.source)

    @contextmanager
    def _running(
        self, exercise: Exercise, source: Source, submission: Budget | None = None
    ) -> Iterator[_Run]:
        server, limits = self._server, exercise.limits
        budget = Budget(limits.allowance, "exercise", submission)
        process = Process(server, limits, budget)
        references = reference_process(source, server, limits, budget, process)
        try:
            load = load_request(exercise, source, 1)
            tests = self._key.tests[exercise.name]
            yield _Run(process, references, load, tests, self._recorded(exercise))
        finally:
            process.stop()
            if references is not None:
                references.stop()

    def _recorded(self, exercise: Exercise) -> dict[str, list[Exchange]]:
        """What each test of an exercise asks, and what the reference answers."""
        if exercise.name not in self._asked:
            self._asked[exercise.name] = retry_if_server_lost(lambda: self._record(exercise))
        return self._asked[exercise.name]

    def _record(self, exercise: Exercise) -> dict[str, list[Exchange]]:
        recorder = Recorder(Process(self._server, exercise.limits))
        load = load_request(exercise, self._key.solution_source(exercise.name), 1)
        asked: dict[str, list[Exchange]] = {}
        try:
            for test in self._key.tests[exercise.name]:
                recorder.student.load(load)
                recorder.exchanges = []
                test.run(recorder.student, _seed(test))
                asked[test.name] = list(recorder.exchanges)
        finally:
            recorder.stop()
        return asked


def _version(course: str) -> str:
    """Of what is kept: the course, and how mistakes are told apart."""
    here = Path(__file__)
    code = b"".join(
        here.with_name(name).read_bytes()
        for name in (here.name, "catalogue.py", "recording.py", "signatures.py")
    )
    return hashlib.sha256(course.encode() + code).hexdigest()[:16]


def _sharing(learned: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same, in which equal tensors and texts are one: mistakes have most answers in common, and a class keeps them all."""
    one: dict[Any, Any] = {}

    def shared(value: Any) -> Any:
        if isinstance(value, dict):
            return {shared(key): shared(item) for key, item in value.items()}
        if isinstance(value, str):
            return one.setdefault(value, value)
        if not isinstance(value, torch.Tensor) or value.is_meta:
            return value
        key = (value.dtype, value.shape, raw_bytes(value.contiguous()))
        return one.setdefault(key, value)

    return {name: shared(known) for name, known in learned.items()}


def _write(file: Path, what: Any) -> None:
    """Whole or not at all, as others may do the same at this moment."""
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        torch.save(what, part)
    os.replace(part.name, file)


def _seed(test: Test) -> int:
    return derive_seed(SEED, test.exercise, test.name)


def _differing(known: Known, failed: Sequence[str]) -> int:
    return len(set(known.failed) ^ set(failed))


def _joined(answers: Mapping[str, Sequence[Leaves]]) -> Leaves:
    """By the test, the number of the call and the place in its answer."""
    return {
        f"{test} {number} {place}": leaf
        for test, exchanges in answers.items()
        for number, leaves in enumerate(exchanges)
        for place, leaf in leaves.items()
    }
