"""Extract each exercise's code from a notebook, using a sandboxed reader process.

    course = prepare(server, day)                     # once per server and day
    with Slicer(server, course, cells) as slicer:
        slicer.slice_all()                             # every exercise
        slicer.slice_again("fit", ["predict"])

Raises `SlicingError` if the notebook exceeds a limit or the reader process sends an invalid response.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import msgspec
from msgspec.msgpack import Decoder

from autograder.course.config import Day
from autograder.course.fingerprint import released_code
from autograder.course.provided import provided_code
from autograder.plain_text import printable
from autograder.protocol.frames import MAX_PAYLOAD
from autograder.sandbox.client import Server
from autograder.sandbox.command import READER
from autograder.submissions.cell import Cell
from autograder.submissions.reader_client import ReaderProcess, ReadError, retry_reading
from autograder.submissions.reader_messages import (
    MAX_CODE,
    CoursePart,
    ReleasedCourse,
    ReleasedExercise,
    SliceAgain,
    SliceAll,
    Slices,
    State,
    Statement,
)

PART = 48_000  # bytes of encoded course data per message; messages are limited to 64 kB
TOO_LONG = (
    f"the code could not be run: with everything that it uses, it is longer than {MAX_CODE:,} bytes"
)
ANSWERS = Decoder(Slices)
T = TypeVar("T")


class SlicingError(Exception):
    """Raised when a notebook could not be sliced. The message gives the reason."""


@dataclass(frozen=True)
class Slice:
    """The code of one exercise: the statements to run, in order.

    `reached` contains the other exercises whose names the code reads, whether or not they are defined. `used` contains
    the forbidden functions that the code mentions. If the code is longer than `MAX_CODE`, `statements` is empty.
    """

    exercise: str
    state: State
    statements: tuple[Statement, ...]
    reached: tuple[str, ...]
    problems: tuple[str, ...]
    used: tuple[str, ...]

    @property
    def own(self) -> list[Statement]:
        """Return the student's statements."""
        return [statement for statement in self.statements if not statement.given]


@dataclass(frozen=True)
class NotebookSlices:
    """The slices of all exercises, the notebook's problems, and the number of the cell that defines each exercise."""

    slices: dict[str, Slice]
    problems: tuple[str, ...]
    defining_cells: dict[str, int]


@dataclass(frozen=True)
class SlicingCourse:
    """A course that has been sent to a server for slicing notebooks."""

    key: str
    exercises: tuple[str, ...]


def encode_course(day: Day) -> bytes:
    """Encode the parts of a day needed for slicing. The result contains nothing hidden from students."""
    cells = [cell for chapter in day.chapters for cell in chapter.cells]
    stubs = {cell.name: cell.stub for cell in cells if cell.role == "exercise"}
    given = [Cell(cell.number, "code", cell.source) for cell in cells if cell.role == "given"]
    exercises = [
        ReleasedExercise(
            e.name,
            stubs[e.name],
            e.forbidden.names,
            e.forbidden.libraries,
            e.forbidden.options,
        )
        for e in day.exercises
    ]
    unassigned = [exercise.name for exercise in day.unassigned]
    provided = [source for _, source in provided_code(day)]
    return msgspec.msgpack.encode(
        ReleasedCourse(exercises, unassigned, given, provided, released_code(day))
    )


def prepare(server: Server, day: Day) -> SlicingCourse:
    """Send a day to a server so that its reader processes can slice notebooks. Call this function once per server and day."""
    data = encode_course(day)
    key = hashlib.sha256(data).hexdigest()
    parts = [data[start : start + PART] for start in range(0, len(data), PART)]
    for number, part in enumerate(parts):
        server.prepare(READER, msgspec.msgpack.encode(CoursePart(key, number, len(parts), part)))
    return SlicingCourse(key, tuple(day.names))


class Slicer:
    """Client that slices one notebook in a single process, which it starts when first needed.

    After an error, later calls raise the same error, unless the failed call asked for a wide slice.
    """

    def __init__(self, server: Server, course: SlicingCourse, cells: Sequence[Cell]) -> None:
        self._server, self._course = server, course
        self._cells = [cell for cell in cells if cell.kind == "code"]
        self._process: ReaderProcess | None = None
        self._whole: NotebookSlices | None = None
        self._failure = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the process."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def slice_all(self) -> NotebookSlices:
        """Return the slices of all exercises. The result is cached. Raises SlicingError."""
        if self._whole is None:
            self._ask(lambda process: None)
        assert self._whole is not None
        return self._whole

    def slice_again(self, exercise: str, replaced: Sequence[str] = (), wide: bool = False) -> Slice:
        """Return the slice of one exercise, with reference solutions in place of the `replaced` exercises.

        Each reference solution is represented by a statement with the source `# NAME: the reference`. If `wide` is true, the
        slice contains all statements that may affect the exercise. Raises SlicingError.
        """

        def ask(process: ReaderProcess) -> Slice:
            answer = process.decode(
                process.ask(SliceAgain(exercise, list(replaced), wide)), ANSWERS
            )
            return self._slices(process, answer, [exercise])[exercise]

        return self._ask(ask, is_final=not wide)

    def _ask(self, ask: Callable[[ReaderProcess], T], is_final: bool = True) -> T:
        """Call `ask` with the process that sliced the notebook, or with a new process if the fork server died."""
        if self._failure:
            raise SlicingError(self._failure)
        try:
            return retry_reading(lambda: ask(self._running()))
        except ReadError as error:
            self.close()
            problem = printable(str(error))
            self._failure = problem if is_final else ""
            raise SlicingError(problem) from None

    def _running(self) -> ReaderProcess:
        if self._process is None or not self._process.is_running:
            body = msgspec.msgpack.encode(self._cells)
            if len(body) > MAX_PAYLOAD:
                raise ReadError(f"the notebook has more than {MAX_PAYLOAD:,} bytes of code")
            self._process = process = ReaderProcess(self._server)
            answer = process.decode(process.ask(SliceAll(self._course.key), body=body), ANSWERS)
            slices = self._slices(process, answer, self._course.exercises)
            if not answer.defining_cells.keys() <= slices.keys():
                raise process.reject()
            problems = tuple(map(printable, answer.problems))
            self._whole = NotebookSlices(slices, problems, answer.defining_cells)
        return self._process

    def _slices(
        self, process: ReaderProcess, answer: Slices, exercises: Sequence[str]
    ) -> dict[str, Slice]:
        """Check that a response contains valid slices for exactly the given exercises. Return the slices keyed by exercise."""
        if [chosen.exercise for chosen in answer.slices] != list(exercises):
            raise process.reject()
        found = {}
        for chosen in answer.slices:
            reached = set(chosen.reached)
            others = set(self._course.exercises) - {chosen.exercise}
            if not reached <= others or max(chosen.statements, default=-1) >= len(
                answer.statements
            ):
                raise process.reject()
            statements = tuple(answer.statements[number] for number in chosen.statements)
            # The course's statements can occur several times, but a large statement that occurs often would fill the memory.
            if sum(len(statement.source) for statement in statements) > MAX_CODE:
                raise process.reject()
            if sum(len(statement.text) for statement in statements) > MAX_CODE:
                statements = tuple(
                    msgspec.structs.replace(statement, normal="", lines=())
                    for statement in statements
                )
            found[chosen.exercise] = Slice(
                chosen.exercise,
                chosen.state,
                statements,
                tuple(chosen.reached),
                tuple(map(printable, chosen.problems)),
                tuple(map(printable, chosen.used)),
            )
        return found
