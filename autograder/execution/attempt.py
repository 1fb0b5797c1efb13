"""An exercise's code in its process: joined from its units, loaded, asked, and started anew where it hangs or dies."""

from __future__ import annotations
import __future__ as future

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from autograder.course import forbidden
from autograder.course.config import Exercise
from autograder.execution.collect import Test
from autograder.execution.differences import Mismatch
from autograder.execution.references import References, Replaced
from autograder.execution.student import NotAllowed, Student, StudentError
from autograder.execution.turns import Turns
from autograder.marks.model import Status, Values
from autograder.protocol import messages as m
from autograder.protocol.limits import Budget, Limits
from autograder.sandbox.client import Server
from autograder.sandbox.errors import LimitExceeded, ServerLost, WorkerDied, retry_if_server_lost
from autograder.sandbox.process import Process

RESTARTS = 2
SHOWN = 70  # characters of a line of code in a message


class Statement(Protocol):
    """A top-level statement, the cell and line that it comes from, and whether the course gives it."""

    @property
    def source(self) -> str: ...
    @property
    def cell(self) -> int: ...
    @property
    def line(self) -> int: ...
    @property
    def given(self) -> bool: ...


@dataclass(frozen=True)
class Source:
    """The units of one exercise joined into one text, where each line comes from, and which names references answer for."""

    text: str
    pieces: tuple[tuple[int, int], ...]
    units: tuple[Statement, ...]
    flags: int = 0
    replaced: Replaced | None = None

    def place(self, line: int) -> str:
        """The student's cell and line for a line of the joined text, in words; empty for the course's own."""
        for (first, last), unit in zip(self.pieces, self.units, strict=True):
            if first <= line <= last:
                where = f"cell {unit.cell}, line {unit.line + line - first}"
                return "" if unit.given else where
        return ""

    def place_and_code(self, line: int) -> str:
        """The student's cell and line with what stands there, so that nobody has to count cells."""
        place = self.place(line)
        code = " ".join(self.text.split("\n")[line - 1].split()).replace("`", "'") if place else ""
        code = code if len(code) <= SHOWN else f"{code[: SHOWN - 1]}…"
        return f"{place}: `{code}`" if code else place

    def without(self, line: int) -> Source:
        """The same without the unit at this line."""
        kept = [u for p, u in zip(self.pieces, self.units, strict=True) if not p[0] <= line <= p[1]]
        return joined(kept, self.replaced)


def joined(units: Sequence[Statement], replaced: Replaced | None = None) -> Source:
    """Join units into one text, a blank line between them."""
    lines: list[str] = []
    pieces: list[tuple[int, int]] = []
    for unit in units:
        own = unit.source.split("\n")
        pieces.append((len(lines) + 1, len(lines) + len(own)))
        lines += [*own, ""]
    postponed = any("from __future__ import annotations" in unit.source for unit in units)
    flags = future.annotations.compiler_flag if postponed else 0
    return Source("\n".join(lines), tuple(pieces), tuple(units), flags, replaced)


@dataclass(frozen=True)
class Outcome:
    """What became of one test; where answers were `compared`, the message may say what is right."""

    passed: bool
    message: str
    status: Status = "failed"
    compared: bool = False
    values: Values | None = None


class Attempt:
    """An exercise's code in its process, started anew where it hangs or dies, at most twice.

    What it uses is charged to `budget`, that of the submission. `turns` are those of the course.
    """

    def __init__(
        self,
        server: Server,
        exercise: Exercise,
        source: Source,
        seed: str,
        budget: Budget | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._server = server
        self._exercise = exercise
        self._source = source
        self._seed = seed
        self._budget = Budget(exercise.limits.allowance, "exercise", budget)
        self._turns = turns or Turns(None)
        self._alone = False
        self._restarts = 0
        self._process: Process | None = None
        self._lost: Outcome | None = None
        self._references: References | None = None
        self.student: Student | None = None
        self.problems: list[str] = []

    def test(self, test: Test) -> Outcome:
        """Run one test, again where the fork server is lost, and once more alone where the code only slept or waited.

        Raises:
            ServerLost: several fork servers were lost in a row.
        """
        try:
            with self._turns.beside():
                return retry_if_server_lost(lambda: self._run(test))
        except LimitExceeded:
            self.stop()
        self._alone = True
        try:
            with self._turns.alone():
                return retry_if_server_lost(lambda: self._run(test))
        finally:
            self._alone = False

    def _run(self, test: Test) -> Outcome:
        """Run one test.

        Raises:
            LimitExceeded: the code slept or waited for too long while other tests may have run.
            ServerLost: the process ended with its fork server.
        """
        try:
            if self._lost is None and self._process is None:
                self._lost = self.start()
            return self._lost or self._answer(test)
        except ServerLost:
            self.stop()
            raise

    def _answer(self, test: Test) -> Outcome:
        assert self.student is not None
        assert self._process is not None
        seed = int.from_bytes(derived(self._seed, self._exercise.name, test.name)[:7])
        process = self._process
        try:
            outcome = self._judge(test, self.student, seed)
        except (LimitExceeded, WorkerDied, ServerLost) as error:
            return self._interrupted(process.end or error)
        # A test may have caught what ended the process.
        return outcome if process.end is None else self._interrupted(process.end)

    def _judge(self, test: Test, student: Student, seed: int) -> Outcome:
        try:
            test.run(student, seed)
        except Mismatch as error:
            return Outcome(False, str(error), compared=True, values=error.values)
        except AssertionError as error:
            return Outcome(False, str(error), compared=True)
        except StudentError as error:
            return Outcome(False, self._raised(error))
        except NotAllowed as error:
            self._lost = Outcome(False, refusal(error.operators), "not_allowed")
            return self._lost
        except (LimitExceeded, WorkerDied, ServerLost):
            raise
        except m.WireError as error:
            return self._interrupted(error)
        except Exception as error:
            # An answer so odd that the test's own arithmetic stumbled over it.
            text = f"the test cannot make sense of the answer ({type(error).__name__}: {error})"
            return Outcome(False, text, compared=True)
        return Outcome(True, "")

    def _raised(self, error: StudentError) -> str:
        place = self._source.place_and_code(error.line)
        return f"{error} ({place})" if place else str(error)

    def start(self) -> Outcome | None:
        """Start a process and load the code; what is lost if that fails."""
        if self._budget.excess is not None:
            return Outcome(False, str(self._budget.excess), "timed_out")
        limits = self._exercise.limits
        self._process = Process(self._server, limits, self._budget)
        self._references = references_of(
            self._source, self._server, limits, self._budget, self._process
        )
        self.student = Student(self._process, self._references)
        seed = int.from_bytes(derived(self._seed, self._exercise.name, "student")[:4])
        load = loading(self._exercise, self._source, seed)
        try:
            for line, kind, text in self.student.load(load):
                place = self._source.place(line)
                if place:
                    self.problems.append(f"{place}: {kind}: {text}")
        except StudentError as error:
            where = self._source.place_and_code(error.line)
            text = f"the code could not be run: {error.type}: {error.text}"
            return Outcome(False, f"{text} ({where})" if where else text, "error")
        except NotAllowed as error:
            return Outcome(False, refusal(error.operators), "not_allowed")
        except LimitExceeded as error:
            return self._late_loading(error)
        except (WorkerDied, m.WireError) as error:
            return self._interrupted(error)
        return None

    def _late_loading(self, error: LimitExceeded) -> Outcome | None:
        """Go on without the statement that did not end; the exercise may not need it."""
        place = self._source.place(error.line)
        outcome = self._interrupted(error)
        if not place or self._lost is not None:
            self._lost = self._lost or outcome
            return self._lost
        self.problems.append(f"{place}: did not end within {error.excess.amount}")
        self._source = self._source.without(error.line)
        return self.start()

    def _interrupted(self, error: Exception) -> Outcome:
        """The process is gone: this test is lost, and after two restarts, or when nothing is left to use, the rest.

        Raises:
            LimitExceeded: the test shall be run again, alone. ServerLost: it shall be run again.
        """
        if isinstance(error, ServerLost):
            raise error
        slept = isinstance(error, LimitExceeded) and error.excess.kind == "idle"
        if slept and not self._alone and self._budget.excess is None:
            raise error
        outcome = self._ended(error)
        self.stop()
        self._restarts += 1
        if self._restarts > RESTARTS or self._budget.excess is not None:
            self._lost = outcome
        return outcome

    def _ended(self, error: Exception) -> Outcome:
        if isinstance(error, LimitExceeded):
            return Outcome(False, str(error.excess), "timed_out")
        if isinstance(error, WorkerDied):
            return Outcome(False, f"the code stopped Python itself ({error})", "crashed")
        return Outcome(False, "the answer came back in a form that cannot be read", "crashed")

    def stop(self) -> None:
        """End the process, and that of the references."""
        if self._references is not None:
            self._references.stop()
            self._references = None
        if self._process is not None:
            self._process.stop()
            self._process = None


def references_of(
    source: Source, server: Server, limits: Limits, budget: Budget | None, student: Process
) -> References | None:
    """The references that the code of a student's process calls, if there are any."""
    if source.replaced is None:
        return None
    return References(source.replaced, lambda: Process(server, limits, budget), student)


def loading(exercise: Exercise, source: Source, seed: int) -> m.Load:
    """The request that runs an exercise's code in its process."""
    return m.Load(
        source=source.text,
        pieces=list(source.pieces),
        wanted=exercise.name,
        seed=seed,
        flags=source.flags,
        operators=forbidden.operators(exercise.not_allowed),
        attributes=forbidden.attributes(exercise.not_allowed),
        references=list(source.replaced.handles) if source.replaced else [],
    )


def refusal(names: Sequence[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names)
    why = f"this exercise does not allow {listed}: it would be the answer itself"
    return f"{why}. Write that part out in simpler steps, and all tests are run"


def derived(seed: str, *what: str) -> bytes:
    """A value that follows from the seed, and that the seed does not follow from."""
    return hmac.digest(seed.encode(), "\0".join(what).encode(), "sha256")
