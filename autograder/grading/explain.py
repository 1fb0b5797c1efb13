"""Explain marks, for example when a student appeals. Summarise a submission, or show one exercise in detail.

For stored marks, the test inputs are those of the original grading. The grader is imported only if a submission is graded
again. The fork server starts while the grader is imported. Entry point: `explain`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autograder.course import state_folder
from autograder.course.config import CourseError, Day
from autograder.course.late_policy import ON_TIME, Lateness
from autograder.execution.catalogue import known_mistakes
from autograder.marks import class_list, lookup
from autograder.marks.causes import order_by_cause
from autograder.marks.history import Current, History
from autograder.marks.model import ExerciseMarks, SubmissionMarks, TestMarks
from autograder.marks.overrides import describe_override, read_times
from autograder.marks.regrade import find_again
from autograder.plain_text import counted, format_number, list_with_count, sanitize
from autograder.sandbox.client import start_server
from autograder.submissions import roster as rosters
from autograder.submissions.reader_client import Reader
from autograder.submissions.roster import Roster
from autograder.submissions.submission import Submission, find_submissions

if TYPE_CHECKING:
    from autograder.execution.collect import Test
    from autograder.execution.student import Student
    from autograder.grading.grader import Grader
    from autograder.sandbox.client import Server
    from autograder.submissions.reader_messages import Statement

Adjust = Callable[[SubmissionMarks], SubmissionMarks]
MAX_ELEMENTS = 24  # maximum number of elements; the values of larger tensors are not shown
DIGITS = 6  # number of significant digits of the values
NOT_FOUND = "the submitted file no longer exists"
CHANGED_FILE = "the submitted file has changed since then"
CHANGED_COURSE = (
    "a new run gives a different result, because the course or the autograder has changed since then; "
    "`autograder regrade` shows whose points change"
)


def explain(
    day: Day,
    who: str,
    exercise: str = "",
    student: str = "",
    seed: str | None = None,
    adjust: Adjust = lambda marks: marks,
) -> Iterator[str]:
    """Yield lines of text that explain a submission's marks.

    Args:
        who: A student in the store or, if none matches, the path of a file, folder or download.
        exercise: The exercise to show in detail. If empty, all exercises are summarised.
        student: The student whose marks to explain, if the path `who` contains several students' submissions.
        seed: The seed for the test inputs, if they should differ from those of the original grading.
        adjust: A function that applies overrides.

    Raises:
        CourseError: The student, path or exercise does not exist, or the student is ambiguous.
    """
    if exercise:
        day.check_exercise(exercise)
    if student and not os.path.lexists(who):
        raise CourseError(
            f"there is no file or folder {who!r}. --student works only with the PATH of a file or folder "
            "that contains several submissions"
        )
    roster = rosters.for_course(day.root)
    with History(day.root, read_times(day)) as history:
        stored = history.current_with_paths(day.name)
    class_ = [current.marks for current in stored]
    question = _Question(day, exercise, seed, adjust, roster)
    found = [] if student else lookup.find(who, class_, day, roster)
    if found:
        for current in stored:
            if any(current.marks is marks for marks in found):
                yield from question.explain_stored(current)
    elif os.path.lexists(who):
        yield from question.explain_path(Path(who), student)
    else:
        near = lookup.closest(who, class_, day, roster)
        raise CourseError(
            f"{who!r} is neither a file nor a student with {day.name} marks in the store"
            + (f"; the closest name is {near}" if near else "")
        )


@dataclass(frozen=True)
class _Question:
    """A question about marks: what to explain."""

    day: Day
    exercise: str
    seed: str | None
    adjust: Adjust
    roster: Roster

    def explain_stored(self, stored: Current) -> Iterator[str]:
        """Yield lines that explain stored marks. Grade the submission again if the question is about one exercise."""
        day, exercise, marks = self.day, self.exercise, stored.marks
        if not exercise or not marks.exercises:
            yield from self._summarize(marks)
            return
        with start_server() as server, Reader() as reader:
            found = next(find_again([stored], day, reader, self.roster), None)
            grade_again = _start_grader(day, server)
            seed = self.seed or marks.seed
            run = grade_again(found, exercise, seed) if found else None
        difference = ""
        if found is None or run is None:
            difference = NOT_FOUND
        elif not run.marks.exercises:
            difference = "; ".join(run.marks.problems)
        elif self.seed:
            marks = run.marks
        elif found.sha256 != marks.sha256:
            difference = CHANGED_FILE
        elif _result(_named(run.marks, exercise)) != _result(_named(marks, exercise)):
            difference = CHANGED_COURSE
        yield from details(day, self.adjust(marks), exercise, run, difference)

    def explain_path(self, path: Path, student: str) -> Iterator[str]:
        """Grade the submissions in a file, folder or download, and yield lines that explain the marks."""
        day, exercise = self.day, self.exercise
        with start_server() as server, Reader() as reader:
            found = find_submissions([path], day, reader, self.roster)
            chosen = _choose(list(found), path, student, day, self.roster)
            grade_again = _start_grader(day, server, state_folder.secret(day.root))
            for submission in chosen:
                run = grade_again(submission, exercise, self.seed)
                if exercise and run.marks.exercises:
                    yield from details(day, self.adjust(run.marks), exercise, run)
                else:
                    yield from self._summarize(run.marks)
                if run.marks.seed:  # there is none after an internal error
                    yield f"\nTo repeat this run, add --seed {run.marks.seed}"

    def _summarize(self, marks: SubmissionMarks) -> Iterator[str]:
        marks = self.adjust(marks)
        (late,) = class_list.lateness_of_each([marks], self.day, self.roster)
        return summary(marks, late)


def _start_grader(
    day: Day, server: Server, secret: bytes = b""
) -> Callable[[Submission, str, str | None], Run]:
    """Import the grader, and return a function that grades a submission again and observes one exercise."""
    import autograder.grading.grader_imports  # noqa: F401
    from autograder.grading.grader import Grader

    return partial(Run.of, Grader(day, server, secret))


def _choose(
    submissions: Sequence[Submission], path: Path, student: str, day: Day, roster: Roster
) -> list[Submission]:
    found = lookup.find(student, submissions, day, roster) if student else list(submissions)
    students = list_with_count(list(dict.fromkeys(map(lookup.label, submissions))))
    if not found:
        raise CourseError(
            f"{path} contains no submission by {student!r}. It contains submissions by students {students}"
        )
    if len({lookup.label(submission) for submission in found}) > 1:
        raise CourseError(f"{path} contains several students; choose one with --student {students}")
    return found


# ---- one exercise


def _result(exercise: ExerciseMarks) -> list[Any]:
    tests = [(test.name, test.passed, test.points) for test in exercise.tests]
    return [exercise.points, exercise.status, list(exercise.reference_for), tests]


def _named(marks: SubmissionMarks, exercise: str) -> ExerciseMarks:
    """Return the marks for an exercise. Raises CourseError if there are none."""
    for one in marks.exercises:
        if one.name == exercise:
            return one
    raise CourseError(f"these marks do not include {exercise}. Grade the submission again.")


def details(
    day: Day, marks: SubmissionMarks, exercise: str, run: Run | None, difference: str = ""
) -> Iterator[str]:
    """Yield lines that show an exercise's result, its code and its tests.

    If reference solutions were used, also show the first run's tests, which used only the student's own code. If there is
    a `difference` between the run and the stored marks, show only the stored results.
    """
    result = _named(marks, exercise)
    yield from result_lines(day, marks, result)
    if run is None or difference:
        yield f"\nStored results (without the inputs: {difference}):\n"
        yield from counted_lines(result.tests)
        return
    yield from code_lines(run.statements)
    names = ", ".join(result.reference_for)
    counts = f" in the run that counts, with the course's own code for {names}" if names else ""
    yield f"\nTests{counts}:\n"
    observed = run.tests.get(tuple(result.reference_for), {})
    if not observed:
        yield f"  {result.message}"
    else:
        yield from counted_lines(result.tests, observed)
    if names and () in run.tests:
        yield "\nTests in the first run, with only the student's own code:\n"
        yield from first_run_lines(run.tests[()])
    elif names:
        yield f"\nThe student's own code for {names} was not run, because it is too long or uses something that is not allowed."


@dataclass(frozen=True)
class Observed:
    """What happened in a test: its message ("" if it passed), and the last call with its arguments."""

    sentence: str
    message: str
    call: Sequence[str] = ()


def _heading(marks: SubmissionMarks) -> Iterator[str]:
    yield f"{marks.label}: {marks.path}"
    yield from (f"  problem: {problem}" for problem in marks.problems)


def summary(marks: SubmissionMarks, late: Lateness = ON_TIME) -> Iterator[str]:
    """Yield one line per exercise, and the total before and after the late penalty."""
    yield from _heading(marks)
    if not marks.exercises:
        yield "\nThe submission could not be graded."
        return
    width = max(len(exercise.name) for exercise in marks.exercises)
    yield ""
    for exercise in marks.exercises:
        yield f"  {exercise.name:{width}}  {exercise.worth:>12}  {', '.join(_remarks(exercise))}"
    yield f"\n{format_number(marks.earned)} of {format_number(marks.max_points)} points"
    if late.percent:
        points = counted(late.reduce(marks.earned), "point")
        yield f"{counted(late.days, 'day')} late (−{format_number(late.percent)}%): {points}"
    if late.note:
        yield late.note


def _remarks(exercise: ExerciseMarks) -> Iterator[str]:
    yield exercise.status.replace("_", " ")
    if exercise.reference_for:
        yield f"graded with the course's own code for {', '.join(exercise.reference_for)}"
    yield from (f"known mistake: {name}" for name in exercise.mistakes)
    if exercise.override:
        yield f"override: {describe_override(exercise.override)}"


def code_lines(statements: Sequence[Statement]) -> Iterator[str]:
    """Yield each statement that the student wrote, preceded by its cell and line number."""
    own = [statement for statement in statements if not statement.given]
    if own:
        yield "\nGraded code, without course-provided code:"
    for statement in own:
        yield f"\n  cell {statement.cell}, line {statement.line}:\n"
        yield from (f"    {sanitize(line)}" for line in statement.source.split("\n"))


def result_lines(day: Day, marks: SubmissionMarks, result: ExerciseMarks) -> Iterator[str]:
    """Yield an exercise's points and status, and the reasons for them."""
    yield from _heading(marks)
    optional = "an optional exercise, " if result.optional else ""
    points = (
        f"{optional}{format_number(result.points)} of {format_number(result.max_points)} points"
    )
    yield f"\n{result.name}: {points}, {result.status.replace('_', ' ')}"
    if result.override:
        yield f"By hand: {describe_override(result.override)}"
    if result.reference_for:
        yield f"Graded again with the course's own code for {', '.join(result.reference_for)}; the better run counts."
    if result.mistakes:
        sentences = {m.name: m.sentence for m in known_mistakes(day)[result.name]}
        for name in result.mistakes:
            yield f"Known mistake: {name}. {sentences.get(name, '')}".rstrip()


def counted_lines(
    tests: Sequence[TestMarks], observed: Mapping[str, Observed] | None = None
) -> Iterator[str]:
    """Yield the result of each test in the run that determined the points. Without `observed`, yield the stored results."""
    stored = {test.name: Observed("", "" if test.passed else test.message) for test in tests}
    shown = _fold_repeats(observed or stored)
    for test in tests:
        is_worthless = test.passed and test.max_points and not test.points
        reason = ", because a trivial answer also passes" if is_worthless else ""
        points = f"{format_number(test.points)} of {format_number(test.max_points)} points"
        yield from _test_lines(test.name, shown[test.name], f" ({points}){reason}")


def first_run_lines(observed: Mapping[str, Observed]) -> Iterator[str]:
    """Yield the result of each test in the first run, which did not determine the points."""
    for name, test in _fold_repeats(observed).items():
        yield from _test_lines(name, test)


def _fold_repeats(observed: Mapping[str, Observed]) -> dict[str, Observed]:
    """Replace each message that has the same cause as an earlier message with a short note."""
    messages = [test.message for test in observed.values()]
    folded = dict(order_by_cause(messages, visible=0, mark_repeats=True))
    return {
        name: replace(test, message=folded[n]) for n, (name, test) in enumerate(observed.items())
    }


def _test_lines(name: str, observed: Observed, points: str = "") -> Iterator[str]:
    sentence = f": {observed.sentence}" if observed.sentence else ""
    yield f"  {'failed' if observed.message else 'passed'}  {name}{points}{sentence}"
    if observed.message:
        indent = " " * 10
        yield indent + sanitize(observed.message).replace("\n", f"\n{indent}")
        yield from (indent + sanitize(line) for line in observed.call)


# ---- grading again


@dataclass
class Run:
    """The result of grading a submission again, and a record of what happened in each test of one exercise.

    Each key of `tests` lists the exercises that a run replaced with reference solutions; the first run's key is (). The
    value maps each test's name to what was observed in that run.
    """

    marks: SubmissionMarks
    statements: Sequence[Statement] = ()
    tests: dict[tuple[str, ...], dict[str, Observed]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, grader: Grader, submission: Submission, exercise: str, seed: str | None = None
    ) -> Run:
        """Grade a submission, and record what happens in the tests of one exercise."""
        tests: dict[tuple[str, ...], dict[str, Observed]] = {}

        def observe(
            replaced: Sequence[str], test: Test, message: str, student: Student | None
        ) -> None:
            if test.exercise == exercise:
                run = tests.setdefault(tuple(replaced), {})
                run[test.name] = _observe(test, message, student)

        run = cls(grader.grade_or_log(submission, seed, observe), (), tests)
        if exercise and run.marks.exercises:
            run.statements = _statements(
                grader, submission, next(e for e in run.marks.exercises if e.name == exercise)
            )
        return run


def _statements(
    grader: Grader, submission: Submission, exercise: ExerciseMarks
) -> tuple[Statement, ...]:
    """Return the code graded in the run that determined the points."""
    from autograder.grading.follow_up import own_statements
    from autograder.slicing.slicer import Slicer, SlicingError

    with (
        contextlib.suppress(SlicingError),  # grading has already reported this error
        Slicer(grader.server, grader.slicing_course, submission.cells) as slicer,
    ):
        for wide in (False, True):
            code = slicer.slice_again(exercise.name, exercise.reference_for, wide)
            # `statements` comes from the run that counts. It is empty unless the exercise lost points in the first run.
            if not exercise.statements or own_statements(code, grader.day) == exercise.statements:
                return code.statements
    return ()


def _observe(test: Test, message: str, student: Student | None) -> Observed:
    """Return what happened in a test. Copy the arguments, because the student's process ends after the run."""
    call: list[str] = []
    if message and student is not None and student.last_call:
        function, args, kwargs = student.last_call
        texts = [describe(value) for value in args]
        texts += [f"{name}={describe(value)}" for name, value in kwargs.items()]
        call = [f"last call: {function}({', '.join(texts)})"]
    return Observed(test.sentence, message, call)


def describe(value: Any) -> str:
    """Return an argument's type and shape, plus its values if it is small. Values are marked with ≈ if rounding changes them."""
    import numpy as np
    import torch

    if isinstance(value, np.ndarray):
        kind = f"{value.dtype} array {value.shape}"
        values = sanitize(np.array2string(value, precision=DIGITS, separator=", "))
        return kind if value.size > MAX_ELEMENTS else f"{kind} {' '.join(values.split())}"
    if not isinstance(value, torch.Tensor):
        return sanitize(repr(value))
    kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if value.is_meta or value.numel() > MAX_ELEMENTS:
        return kind
    exact = value.tolist()
    shown = _round(exact)
    return f"{kind} {'' if shown == exact else '≈ '}{shown}"


def _round(values: Any) -> Any:
    """Round all floats in nested lists to `DIGITS` significant digits."""
    if isinstance(values, list):
        return [_round(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if isinstance(values, float) else values
