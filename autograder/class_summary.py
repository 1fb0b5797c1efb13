"""Print the marks of a graded class. Entry points: `print_marks`, `print_summary` and `print_ungraded`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from autograder.console import output, print_error, print_note, print_text
from autograder.plain_text import counted, escaped, format_number
from autograder.stored_marks import print_overrides

if TYPE_CHECKING:
    from autograder.grading.session import GradedClass
    from autograder.marks.adjustments import Adjustments
    from autograder.marks.model import SubmissionMarks


def print_marks(graded: GradedClass, by_hand: Adjustments, json: Path | None) -> None:
    """Print the table of marks, the problems, the points that TAs gave by hand, and the summary."""
    from autograder.feedback import terminal_table

    console = output()
    width = terminal_table.NARROW if console.is_terminal else terminal_table.WIDE
    console.print(terminal_table.table(graded.rows, width))
    console.print(terminal_table.legend(graded.rows), style="dim", highlight=False)
    for line in terminal_table.problem_lines(graded.rows):
        print_text(line)
    print_overrides(graded.submissions, by_hand)
    print_summary(console, graded, json)


def print_summary(console: Console, graded: GradedClass, json: Path | None) -> None:
    """Print how many submissions kept their stored marks, and any problems that the TA should check."""
    if graded.reused:
        of = f"{graded.reused} of {counted(len(graded.submissions), 'submission')}"
        console.print(
            f"{of} has not changed since it was graded; --force grades it again"
            if graded.reused == 1
            else f"{of} have not changed since they were graded; --force grades them again",
            highlight=False,
        )
    if graded.unstored:
        where = (
            f"They appear only in this output and in {json}."
            if json
            else "Save them with --json FILE."
        )
        print_error(
            f"the marks of {counted(graded.unstored, 'submission')} could not be stored. {where}"
        )
    if graded.resubmissions:
        changes = "; ".join(map(str, graded.resubmissions))
        number = len(graded.resubmissions)
        console.print(
            Text(escaped(f"students who resubmitted ({number}), with final points: {changes}"))
        )
    for one in graded.replacements:
        if one.is_older:
            print_note(
                f"{one.student}: {one.after.path} is older than {one.before.path}, "
                f"which still counts ({_points(one.before)} points)"
            )
    for students in graded.identical:
        same = ", ".join(students)
        note = (
            f"these students submitted identical code, apart from comments and whitespace: {same}"
        )
        console.print(Text(escaped(note)))
    for note in graded.notes:
        print_note(note)
    print_ungraded(graded.ungraded)
    with_problems = sum(bool(marks.exercises and marks.problems) for marks in graded.submissions)
    number = len(graded.submissions) - len(graded.ungraded)
    counts = [f"{counted(number, 'submission')} graded"]
    if with_problems:
        counts.append("with problems" if number == 1 else f"{with_problems} of them with problems")
    counts += [f"{len(graded.ungraded)} could not be graded"] if graded.ungraded else []
    console.print(", ".join(counts), highlight=False)


def print_ungraded(class_: Iterable[SubmissionMarks]) -> None:
    """Print why each of these submissions could not be graded."""
    for marks in class_:
        print_error(f"{marks.label} could not be graded: {marks.reason} ({marks.path})")


def _points(marks: SubmissionMarks) -> str:
    return "none" if marks.points is None else format_number(marks.points)
