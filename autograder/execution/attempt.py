"""Run the hidden tests for one exercise on one student's code. Entry point: `Attempt`."""

from __future__ import annotations

import builtins
import hmac
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from autograder.course.config import UNITS, Exercise
from autograder.execution.candidates import Candidates, Implementations
from autograder.execution.collect import Test
from autograder.execution.differences import Mismatch, without_results
from autograder.execution.references import ReferenceProcess, reference_process
from autograder.execution.source import Source, load_request
from autograder.execution.student import MAX_NAME, NotAllowed, Student, StudentError
from autograder.in_notebook.error_advice import advice
from autograder.marks.model import Status, Values
from autograder.protocol import messages as m
from autograder.protocol.limits import Budget, Excess
from autograder.sandbox.client import Server
from autograder.sandbox.errors import (
    LimitExceeded,
    MustRunAlone,
    ServerLost,
    WorkerDied,
    retry_if_server_lost,
)
from autograder.sandbox.process import Process

TRIES = 3


@dataclass(frozen=True)
class Outcome:
    """The result of one test.

    If `compared` is set, the message may reveal expected values. `safe` is the message without anything that the code
    computed, so that it may be shown although reference solutions were used. If the test itself raised an exception,
    `test_line` is the location in the test's file.
    """

    passed: bool
    message: str
    status: Status = "failed"
    compared: bool = False
    values: Values | None = None
    safe: str = ""
    test_line: str = ""


# Function to call after each test in each run of an exercise. Arguments: the exercises that this run replaces with
# references, the test, its message ("" if it passed), and the student's process (None if it has exited).
Observer = Callable[[Sequence[str], Test, str, Student | None], None]


@dataclass(frozen=True)
class RunSettings:
    """The settings for a run: the seed for the inputs, the submission's budget, and a function to call after each test.

    Unless the submission `is_alone`, its code must run again if it sleeps for too long or is killed; see `MustRunAlone`. If
    `has_low_limits` is set, each call gets at most two CPU seconds, and the run ends at the first timeout or crash in a test.
    """

    seed: str
    budget: Budget | None = None
    observe: Observer | None = None
    is_alone: bool = True
    has_low_limits: bool = False


class Attempt:
    """A worker that runs one exercise's code. After a timeout or a crash, it is restarted, up to `TRIES` runs in total.

    In a run with low limits, the worker is restarted only to leave out statements that were slow to load.
    """

    def __init__(
        self,
        server: Server,
        exercise: Exercise,
        source: Source,
        settings: RunSettings,
        implementations: Implementations | None = None,
    ) -> None:
        self._server = server
        self._exercise = exercise
        self._limits = exercise.limits
        self._tries = TRIES
        if settings.has_low_limits:
            self._limits = replace(self._limits, cpu_seconds=min(2.0, self._limits.cpu_seconds))
            self._tries = 1
        self._source = source
        self._settings = settings
        self._implementations = implementations
        self._budget = Budget(self._limits.allowance, "exercise", settings.budget)
        self._process: Process | None = None
        self._references: ReferenceProcess | None = None
        # If this is set, all remaining tests get this outcome without being run.
        self._final: Outcome | None = None
        self.student: Student | None = None
        self.problems: list[str] = []
        self.was_interrupted = False  # by a limit, a crash or the loss of the server
        self._failed_import = ""  # the message of the last import that failed

    def run_test(self, test: Test) -> Outcome:
        """Run one test. Raise MustRunAlone if the submission must be graded while no other submissions are."""
        return retry_if_server_lost(lambda: self._run(test))

    @property
    def seconds(self) -> tuple[float, float]:
        """Return the CPU time and the idle time that were charged so far."""
        return self._budget.cpu, self._budget.idle

    @property
    def has_ended(self) -> bool:
        """Return whether no more tests will run."""
        return self._final is not None

    def stop(self) -> None:
        """Stop the student's worker and the worker that runs the reference solutions."""
        if self._references is not None:
            self._references.stop()
            self._references = None
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _derive_seed(self, name: str, size: int = 7) -> int:
        return derive_seed(self._settings.seed, self._exercise.name, name, size=size)

    def _start(self) -> Outcome | None:
        """Start a worker and load the code. If loading fails, return an outcome that applies to all tests."""
        if self._budget.excess is not None:
            return _timed_out(self._budget.excess)
        limits = self._limits
        self._process = Process(self._server, limits, self._budget)
        self._references = reference_process(
            self._source, self._server, limits, self._budget, self._process
        )
        self.student = Student(self._process, self._references)
        self.student.connection.candidates = self._candidates()
        try:
            errors = self.student.load(self._load_request())
        except StudentError as error:
            location = self._source.location_with_code(error.line)
            reason = without_allocation(error.text, error.bases, limits.memory)
            text = f"the code could not be run: {error.type}: {reason}"
            return Outcome(False, f"{text} ({location})" if location else text, "error")
        except NotAllowed as error:
            return Outcome(False, not_allowed_message(error.operators), "not_allowed")
        except LimitExceeded as error:
            return self._load_timed_out(error)
        except (WorkerDied, m.WireError) as error:
            return self._interrupted(error)
        for line, kind, text in errors:
            if kind in ("ImportError", "ModuleNotFoundError"):
                self._failed_import = text[:MAX_NAME]
            if location := self._source.location(line):
                text = without_allocation(text, [kind], limits.memory)
                self.problems.append(f"{location}: {kind}: {text}")
        return None

    def _load_request(self) -> m.Load:
        seed = self._derive_seed("student", size=4)
        return load_request(self._exercise, self._source, seed)

    def _candidates(self) -> Candidates | None:
        if self._implementations is None:
            return None
        seed = self._derive_seed("candidates")
        return Candidates(self._exercise.name, self._implementations, self._further_worker, seed)

    @contextmanager
    def _further_worker(self, load: m.Load | None) -> Iterator[Student]:
        """Start a worker that runs `load`, or the student's code again. Stop it at the end of the `with` block."""
        process = Process(self._server, self._limits, self._budget, charges_grader=load is None)
        references = None
        if load is None:
            references = reference_process(
                self._source, self._server, self._limits, self._budget, process
            )
        try:
            student = Student(process, references)
            student.load(load or self._load_request())
            yield student
        finally:
            process.stop()
            if references is not None:
                references.stop()

    def _run(self, test: Test) -> Outcome:
        try:
            if self._final is None and self._process is None:
                self._final = self._start()
            return self._final or self._run_in_worker(test)
        except ServerLost:
            self.was_interrupted = True
            self.stop()
            raise

    def _run_in_worker(self, test: Test) -> Outcome:
        assert self.student is not None
        assert self._process is not None
        seed = self._derive_seed(test.name)
        process = self._process
        try:
            outcome = self._judge(test, self.student, seed)
        except (LimitExceeded, WorkerDied, ServerLost) as error:
            return self._interrupted(process.end or error)
        # The test may have caught the exception raised when the worker exited.
        return outcome if process.end is None else self._interrupted(process.end)

    def _judge(self, test: Test, student: Student, seed: int) -> Outcome:
        try:
            test.run(student, seed)
        except AssertionError as error:
            values = error.values if isinstance(error, Mismatch) else None
            return Outcome(False, str(error), "failed", True, values, without_results(error))
        except StudentError as error:
            location = self._source.location_with_code(error.line)
            text = with_hint(error, self._failed_import, self._limits.memory)
            is_builtin = location and hasattr(builtins, error.type)
            safe = f"your code raised {error.type} ({location})" if is_builtin else error.lacks
            return Outcome(False, f"{text} ({location})" if location else text, safe=safe)
        except NotAllowed as error:
            message = not_allowed_message(error.operators)
            self._final = Outcome(False, message, "not_allowed")
            return self._final
        except (LimitExceeded, WorkerDied, ServerLost):
            raise
        except m.WireError as error:
            return self._interrupted(error)
        except Exception as error:
            # The test itself raised an exception because the result was unexpected.
            safe = "the test could not process the result"
            text = f"{safe} ({type(error).__name__}: {error})"
            return Outcome(False, text, compared=True, safe=safe, test_line=test.line_of(error))
        return Outcome(True, "")

    def _load_timed_out(self, error: LimitExceeded) -> Outcome | None:
        """Reload the code without the statement that timed out, because the exercise may not need it."""
        location = self._source.location(error.line)
        if self._settings.has_low_limits:  # leaving out a statement does not use up the only try
            self._tries += 1
        outcome = self._interrupted(error)
        if not location or self._final is not None:
            self._final = self._final or outcome
            return self._final
        self.problems.append(
            f"{location}: the statement did not finish within {error.excess.amount}"
        )
        self._source = self._source.without(error.line)
        return self._start()

    def _interrupted(self, error: Exception) -> Outcome:
        """Stop the worker and return the test's outcome.

        If no restarts are left or the budget is used up, all later tests get the same outcome. This raises MustRunAlone if
        other submissions may be the cause, and ServerLost if the test must be rerun.
        """
        self.was_interrupted = True
        if isinstance(error, ServerLost):
            raise error
        idle = isinstance(error, LimitExceeded) and error.excess.kind == "idle"
        # Other submissions may have used up the machine's memory.
        killed = isinstance(error, WorkerDied) and error.was_killed
        if (idle or killed) and not self._settings.is_alone:
            raise MustRunAlone
        outcome = _failure(error)
        self.stop()
        self._tries -= 1
        if self._tries <= 0 or self._budget.excess is not None:
            self._final = outcome
        return outcome


def _failure(error: Exception) -> Outcome:
    """Return the outcome of a test whose worker crashed or was stopped."""
    if isinstance(error, LimitExceeded):
        return _timed_out(error.excess)
    if isinstance(error, WorkerDied) and error.exited:
        text = (
            f"the code ended its Python process ({error}), for example with `os._exit`; {NO_EXIT}"
        )
        return Outcome(False, text, "crashed")
    if isinstance(error, WorkerDied):
        return Outcome(False, f"the code crashed its Python process ({error})", "crashed")
    return Outcome(False, "the grader could not decode what the code returned", "crashed")


def _timed_out(excess: Excess) -> Outcome:
    return Outcome(False, str(excess), "timed_out", safe=str(excess))


def not_allowed_message(names: Sequence[str]) -> str:
    """Return the message for code that uses `names`, which the exercise forbids."""
    listed = ", ".join(f"`{name}`" for name in names)
    return (
        f"this exercise does not allow {listed}, because that is what you are asked to implement. "
        "Use simpler operations so that the tests can run"
    )


def derive_seed(secret: str, *names: str, size: int = 7) -> int:
    """Derive a seed of `size` bytes from the secret and the names. The seed does not reveal the secret."""
    digest = hmac.digest(secret.encode(), "\0".join(names).encode(), "sha256")
    return int.from_bytes(digest[:size])


# torch raises this error only if the tensor requires gradients.
CHANGED_LEAF = re.compile(r"leaf Variable that requires grad .{0,40}in-place operation")
CHANGES_ARGUMENT = "the code changes an argument or a parameter in place"
MODIFIED = "modified by an inplace operation"
NEW_TENSOR = "compute a new tensor, for example with `x = x / y` instead of `x /= y`"
# torch's messages about a failed allocation, most of which are not a MemoryError
ALLOCATION = re.compile(
    r"enforce fail at alloc_cpu|an't allocate memory|Cannot allocate memory|bad_alloc"
)
OUT_OF_MEMORY = "the exercise used more than"
NOTEBOOK_VARIABLE = (
    "if this name is a notebook variable, pass it as an argument or store it in an attribute"
)
EXIT_NAME = re.compile(
    r"name '(exit|quit)' is not defined"
)  # only interactive Python defines these
NO_EXIT = "to leave a function, use `return` or raise an exception"


def without_allocation(text: str, bases: Sequence[str], memory: int) -> str:
    """Return an exception's message, or one that names the exercise's limit of `memory` bytes if memory ran out."""
    if "MemoryError" not in bases and not ALLOCATION.search(text):
        return text
    unit = next(unit for unit in reversed(UNITS) if memory >= UNITS[unit])
    return f"{OUT_OF_MEMORY} {memory / UNITS[unit]:g} {unit} of memory"


def with_hint(error: StudentError, failed_import: str, memory: int) -> str:
    """Return the error's message, followed by a possible cause if one is known.

    `failed_import` is the message of the last import that failed, or "". `memory` is the exercise's limit in bytes.
    """
    reason = without_allocation(error.text, error.bases, memory)
    if reason != error.text:
        return f"{str(error).removesuffix(error.text).rstrip(': ')}: {reason}"
    if error.type == "NameError" and failed_import:
        return f"{error}; an import failed: {failed_import}"
    if error.type == "SystemExit" or EXIT_NAME.search(error.text):
        return f"{error}; this call ends Python; {NO_EXIT}"
    text = advice(error.type, error.text)
    if error.type == "NameError":
        return f"{error}; {text}; {NOTEBOOK_VARIABLE}"
    if CHANGED_LEAF.search(error.text):
        return f"{str(error).rstrip('.')}; {CHANGES_ARGUMENT}"
    if MODIFIED in error.text:  # The rest of the message is about torch's internals.
        return f"{str(error).partition(MODIFIED)[0]}{MODIFIED}; {NEW_TENSOR}"
    return f"{str(error).rstrip('.')}; {text}" if text else str(error)
