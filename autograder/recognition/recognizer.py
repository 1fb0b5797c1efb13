"""Identify the known mistake in an incorrect answer from its test results. Entry point: `Recognizer`."""

from __future__ import annotations

import io
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from autograder.course.config import CourseError, Exercise
from autograder.course.state_folder import compute_once, course_folder, write_cache
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import derive_seed
from autograder.execution.catalogue import Mistake, combine, known_mistakes
from autograder.execution.collect import Test
from autograder.execution.references import ReferenceProcess, reference_process
from autograder.execution.source import Source, load_request
from autograder.execution.student import NotAllowed, Student, StudentError
from autograder.marks.model import MISTAKE_SEPARATOR
from autograder.protocol import messages as m
from autograder.protocol.encoding import raw_bytes
from autograder.protocol.limits import Budget
from autograder.recognition.observations import Observations, size_of
from autograder.recognition.signatures import (
    MAX_SIZE,
    RecordedCall,
    Recorder,
    Signature,
    contains,
    contributes,
    exact_matches,
    find_match,
    is_specific,
    make_signature,
    replay,
)
from autograder.sandbox.client import Server
from autograder.sandbox.errors import LimitExceeded, ServerLost, WorkerDied, retry_if_server_lost
from autograder.sandbox.process import Process

# No mistake is recognised if running the code raises one of these exceptions.
FAILURES = (LimitExceeded, WorkerDied, m.WireError, NotAllowed, StudentError)
# Random numbers or an additional fault may make code deviate from its known mistake in up to this many tests.
MAX_DIFFERENT_TESTS = 2
# All submissions get the same inputs so that their results can be compared. Changing this string changes the inputs.
SEED = "one for all submissions, so that answers can be compared"


class Recognizer:
    """A recognizer for known mistakes. It learns the signatures of an exercise's mistakes when they are first needed."""

    def __init__(self, key: AnswerKey, server: Server) -> None:
        self._key, self._server = key, server
        self.mistakes = known_mistakes(key.day)
        self._recordings: dict[str, dict[str, list[RecordedCall]]] = {}
        self._signatures: dict[str, dict[str, Signature]] = {}
        self._references_again: dict[str, Observations] = {}

    def recognize(
        self,
        exercise: Exercise,
        source: Source,
        failed_tests: Sequence[str],
        budget: Budget | None = None,
    ) -> str | None:
        """Return the name of the known mistake in the code, or None if there is no unique match.

        If two mistakes together explain the results, return both names, separated by `MISTAKE_SEPARATOR`.

        `failed_tests` lists the tests that the code failed during grading. This method runs the code again with the
        inputs for which the mistakes' signatures were recorded, and charges the time to `budget`.

        Raises:
            CourseError: The exercise's solution fails a test.
        """
        if not self.mistakes[exercise.name]:
            return None
        known = self.signatures(exercise)
        similar = {
            name: signature
            for name, signature in known.items()
            if len(set(signature.failed_tests) ^ set(failed_tests)) <= MAX_DIFFERENT_TESTS
        }
        if not similar and not _pairs(known, failed_tests):
            return None
        needed = set(failed_tests).union(*(s.failed_tests for s in similar.values()))
        # If no mistake fails exactly these tests, or if some mistake fails these tests and more, the submission's inputs may
        # be the reason. In that case, run the tests again with the inputs that all submissions share.
        is_usual = any(s.failed_tests == list(failed_tests) for s in similar.values()) and not any(
            set(s.failed_tests) > set(failed_tests) for s in similar.values()
        )

        def recognize() -> str | None:
            with self._loaded(exercise, source, budget) as code:
                failed = list(failed_tests) if is_usual else code.failed_tests(needed)
                candidates = {
                    name: signature
                    for name, signature in similar.items()
                    if set(signature.failed_tests) <= set(failed)
                }
                pairs = _pairs(known, failed)
                possible = {*candidates, *itertools.chain.from_iterable(pairs)}
                seen = code.observe(failed, seed=1) if possible else {}
                is_random = any(known[name].random for name in possible)
                again = code.observe(failed, seed=2) if is_random else None
            if not exact_matches(candidates, failed, seen, again):
                both = self._combined(exercise, pairs, failed, seen, again)
                if both:
                    return MISTAKE_SEPARATOR.join(both)
            return find_match(candidates, failed, seen, again)

        try:
            return retry_if_server_lost(recognize)
        except FAILURES:
            return None

    def signatures(self, exercise: Exercise) -> dict[str, Signature]:
        """Return the signatures of an exercise's mistakes, keyed by name. Omit signatures that are not specific enough.

        The signatures are learned once per course and cached in the course's folder.
        """
        name, root = exercise.name, self._key.day.root
        if name not in self._signatures:
            file = f"mistakes-{self._key.day.name}-{name}-{self._key.version}.pt"

            def learn() -> dict[str, Any]:
                data = _serialize(self._learn(exercise))
                write_cache(root, file, data)
                learned: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
                return learned

            learned = compute_once(root, file, partial(_read, root, file), learn)
            self._signatures[name] = {key: Signature(**fields) for key, fields in learned.items()}
        return self._signatures[name]

    def source(self, mistake: Mistake) -> Source:
        """Return the code of a known mistake, plus the solutions that it depends on."""
        return self._key.replace_solution(mistake.exercise, mistake.source)

    def _combined(
        self,
        exercise: Exercise,
        pairs: Sequence[tuple[str, str]],
        failed: list[str],
        seen: Observations,
        again: Observations | None,
    ) -> list[str]:
        """Return the mistakes that all matching pairs have in common.

        A pair matches if the solution with the changes of both mistakes has the observed results. Only pairs in which one
        mistake alone explains an incorrect value are tried.
        """
        known = self.signatures(exercise)
        mistakes = {mistake.name: mistake for mistake in self.mistakes[exercise.name]}
        contributing = {name for name, signature in known.items() if contributes(signature, seen)}
        budget = Budget(exercise.limits.allowance, "exercise")
        tried: dict[tuple[str, str], Signature] = {}
        for pair in pairs:
            if contributing.isdisjoint(pair):
                continue
            source = combine(*(mistakes[name] for name in pair))
            with suppress(*FAILURES):
                if source and (s := self._try_pair(exercise, source, failed, seen, budget)):
                    tried[pair] = s
            if budget.excess:
                return []  # an untried pair might match as well
        matching = exact_matches(tried, failed, seen, again)
        return [name for name in known if matching and all(name in pair for pair in matching)]

    def _try_pair(
        self,
        exercise: Exercise,
        source: str,
        failed: list[str],
        seen: Observations,
        budget: Budget,
    ) -> Signature | None:
        """Return the signature of the solution with two mistakes, or None as soon as a result differs from what was seen."""
        references = self._references(exercise)
        first: Observations = {}
        second: Observations = {}
        combined = self._key.replace_solution(exercise.name, source)
        with self._loaded(exercise, combined, budget) as code:
            for test in failed:
                own, other = code.observe([test], seed=1), code.observe([test], seed=2)
                expected = make_signature([test], own, other, *references).deterministic
                if not contains(seen, expected):
                    return None
                first |= own
                second |= other
            if code.failed_tests() != failed:
                return None
        return make_signature(failed, first, second, *references)

    def _learn(self, exercise: Exercise) -> dict[str, Signature]:
        # The result is cached, so a busy machine must not cause mistakes to be left out.
        limits = replace(exercise.limits, cpu_seconds=60, total_cpu_seconds=300, idle_seconds=300)
        exercise = replace(exercise, limits=limits)
        test_count = len(self._record(exercise))
        signatures: dict[str, Signature] = {}
        for mistake in self.mistakes[exercise.name]:
            with suppress(*FAILURES):
                signature = self.signature(exercise, self.source(mistake))
                if is_specific(signature, test_count):
                    signatures[mistake.name] = signature
        return signatures

    def signature(self, exercise: Exercise, source: Source) -> Signature:
        """Run incorrect code and return its signature. May raise any of the exceptions in `FAILURES`."""

        def learn() -> Signature:
            with self._loaded(exercise, source) as code:
                failed = code.failed_tests()
                first = code.observe(failed, seed=1)
                second = code.observe(failed, seed=2)
            return make_signature(failed, first, second, *self._references(exercise))

        return retry_if_server_lost(learn)

    @contextmanager
    def _loaded(
        self, exercise: Exercise, source: Source, submission: Budget | None = None
    ) -> Iterator[_LoadedCode]:
        server, limits = self._server, exercise.limits
        budget = Budget(limits.allowance, "exercise", submission)
        process = Process(server, limits, budget)
        references = reference_process(source, server, limits, budget, process)
        try:
            load = load_request(exercise, source, 1)
            tests = self._key.tests[exercise.name]
            yield _LoadedCode(process, references, load, tests, self._record(exercise))
        finally:
            process.stop()
            if references is not None:
                references.stop()

    def _references(self, exercise: Exercise) -> tuple[Observations, Observations]:
        """Return the solution's observations in all tests, in two runs with different random numbers."""

        def repeat() -> Observations:
            with self._loaded(exercise, self._key.solution_source(exercise.name)) as code:
                return code.observe(list(recordings), seed=2)

        recordings = self._record(exercise)
        if exercise.name not in self._references_again:
            self._references_again[exercise.name] = retry_if_server_lost(repeat)
        first = _join({test: [c.observations for c in cs] for test, cs in recordings.items()})
        return first, self._references_again[exercise.name]

    def _record(self, exercise: Exercise) -> dict[str, list[RecordedCall]]:
        """Run an exercise's tests on the reference solution, and return each test's calls."""
        if exercise.name not in self._recordings:
            self._recordings[exercise.name] = retry_if_server_lost(lambda: self._run(exercise))
        return self._recordings[exercise.name]

    def _run(self, exercise: Exercise) -> dict[str, list[RecordedCall]]:
        recorder = Recorder(Process(self._server, exercise.limits))
        load = load_request(exercise, self._key.solution_source(exercise.name), 1)
        recordings: dict[str, list[RecordedCall]] = {}
        try:
            for test in self._key.tests[exercise.name]:
                recorder.student.load(load)
                recorder.calls = []
                try:
                    test.run(recorder.student, _seed(test))
                except (LimitExceeded, WorkerDied, ServerLost, m.WireError):
                    raise
                except Exception as error:  # The test may raise any exception if it is wrong.
                    raise CourseError(
                        f"the solution to {exercise.name} fails {test.name}: {type(error).__name__}: {error}"
                    ) from error
                recordings[test.name] = list(recorder.calls)
        finally:
            recorder.stop()
        return recordings


class _LoadedCode:
    """Code loaded in a worker, where the exercise's tests can be run and recorded calls replayed."""

    def __init__(
        self,
        process: Process,
        references: ReferenceProcess | None,
        load: m.Load,
        tests: Sequence[Test],
        recordings: Mapping[str, Sequence[RecordedCall]],
    ) -> None:
        self._process, self._references = process, references
        self._tests, self._recordings = tests, recordings
        self._student = Student(process, references)
        self._student.load(load)
        # A load request without code or rules only resets the random number generators.
        self._reset = msgspec.structs.replace(
            load, pieces=[], operators=[], attributes=[], references=[]
        )

    def failed_tests(self, among: Collection[str] | None = None) -> list[str]:
        """Return the names of the tests that the code fails. If `among` is given, run only those tests."""
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

    def observe(self, tests: Sequence[str], seed: int) -> Observations:
        """Replay the given tests' calls with the given random seed and return the observations."""
        seen: dict[str, list[Observations]] = {}
        max_size = MAX_SIZE
        for test in tests:
            self._student.load(msgspec.structs.replace(self._reset, seed=seed))
            seen[test] = replay(self._recordings[test], self._process, self._references, max_size)
            max_size -= sum(map(size_of, seen[test]))
        return _join(seen)


def _pairs(
    signatures: Mapping[str, Signature], failed_tests: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the pairs of mistakes that together cause the given tests to fail, and at most `MAX_DIFFERENT_TESTS` others.

    A mistake can pass a test that it fails alone, because the other mistake hides it there.
    """
    failed = set(failed_tests)
    tests = {name: set(signature.failed_tests) for name, signature in signatures.items()}
    either = {pair: tests[pair[0]] | tests[pair[1]] for pair in itertools.combinations(tests, 2)}
    return [
        pair
        for pair, union in either.items()
        if failed <= union and len(union) <= len(failed) + MAX_DIFFERENT_TESTS
    ]


def _read(root: Path, file: str) -> dict[str, Any] | None:
    """Return the fields of cached signatures, or None if the file is missing or damaged."""
    # Stream the file, because its contents would otherwise remain in this process's memory.
    try:
        with (course_folder(root) / file).open("rb") as cached:
            learned: dict[str, Any] = torch.load(cached, weights_only=True)
    except Exception:  # torch raises many exception types for damaged data
        return None
    return learned


def _serialize(signatures: Mapping[str, Signature]) -> bytes:
    """Serialise signatures. Store equal tensors and strings only once, because mistakes share most observations."""
    unique: dict[Any, Any] = {}

    def share(value: Any) -> Any:
        if isinstance(value, dict):
            return {share(key): share(item) for key, item in value.items()}
        if isinstance(value, str):
            return unique.setdefault(value, value)
        if not isinstance(value, torch.Tensor) or value.is_meta:
            return value
        key = (value.dtype, value.shape, raw_bytes(value.contiguous()))
        return unique.setdefault(key, value)

    buffer = io.BytesIO()
    torch.save({name: share(vars(signature)) for name, signature in signatures.items()}, buffer)
    return buffer.getvalue()


def _seed(test: Test) -> int:
    return derive_seed(SEED, test.exercise, test.name)


def _join(observations: Mapping[str, Sequence[Observations]]) -> Observations:
    """Combine the observations of several tests in a dict with keys of the form "TEST CALL_NUMBER KEY"."""
    return {
        f"{test} {number} {key}": value
        for test, calls in observations.items()
        for number, call in enumerate(calls)
        for key, value in call.items()
    }
