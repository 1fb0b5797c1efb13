"""Format the lines of text that `autograder explain` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autograder.course.config import Day
from autograder.course.late_policy import ON_TIME, Lateness
from autograder.marks.causes import order_by_cause
from autograder.marks.model import ExerciseMarks, SubmissionMarks, TestMarks
from autograder.marks.overrides import describe_override
from autograder.plain_text import counted, format_number, sanitize
from autograder.recognition.catalogue import known_mistakes

if TYPE_CHECKING:
    from autograder.submissions.reader_messages import Statement


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
