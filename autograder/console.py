"""Print messages and tables in the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer
from rich.console import Console
from rich.text import Text

from autograder.plain_text import counted, escaped, format_number
from autograder.sandbox.client import Sandbox

if TYPE_CHECKING:
    from autograder.grading.session import GradedClass
    from autograder.marks.model import SubmissionMarks


MAX_WIDTH = 10_000  # maximum line length in a file or pipe


def output() -> Console:
    """Return a console for stdout. If stdout is a file or pipe, lines are not wrapped."""
    console = plain_console()
    return console if console.is_terminal else plain_console(width=MAX_WIDTH)


def plain_console(width: int | None = None, stderr: bool = False) -> Console:
    """Return a console that prints strings as they are. Names from students may look like Rich's markup or emoji codes."""
    return Console(width=width, stderr=stderr, markup=False, emoji=False)


def print_text(text: object, file: TextIO | None = None) -> None:
    """Print text, escaping control characters, because names and paths from students may contain them."""
    print(escaped(str(text), keep="\n\t"), file=file)


@contextlib.contextmanager
def exit_on_interrupt(is_stored: bool) -> Iterator[None]:
    """Exit with a message on Ctrl-C. `is_stored` is True if marks are stored as they are computed."""
    try:
        yield
    except KeyboardInterrupt:
        print_error(
            "stopped. All marks so far are stored; run the same command again to continue."
            if is_stored
            else "stopped. No marks were stored."
        )
        raise typer.Exit(130) from None


def print_error(message: object) -> None:
    """Print one line to stderr about a failure that makes the exit code nonzero."""
    print_text(f"autograder: error: {message}", sys.stderr)


def print_warning(message: object) -> None:
    """Print one line to stderr about a risk that does not stop the command."""
    print_text(f"autograder: warning: {message}", sys.stderr)


def print_note(message: object) -> None:
    """Print one line of information to stderr, such as which submission counts."""
    print_text(f"autograder: note: {message}", sys.stderr)


def print_errors_once() -> Callable[[Exception], None]:
    """Return a function that prints an error unless it has printed the same message before."""
    printed: set[str] = set()

    def print_once(error: Exception) -> None:
        if str(error) not in printed:
            printed.add(str(error))
            print_error(error)

    return print_once


def warn_without_sandbox(sandbox: Sandbox) -> None:
    """Print a warning if student code runs without isolation."""
    if sandbox == "none":
        user = "root" if os.geteuid() == 0 else "you"
        print_warning(
            f"WITHOUT ISOLATION: student code can read and change every file that {user} can, and can send data over the network"
        )


def print_summary(console: Console, graded: GradedClass, json: Path | None) -> None:
    """Print how many marks were reused, and any problems that the TA should check."""
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
