"""Print messages to stderr, and read and write the files named on the command line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer
from rich.console import Console
from rich.text import Text

from autograder.protocol.plain_text import counted, escaped, format_number
from autograder.sandbox.client import Sandbox

if TYPE_CHECKING:
    from autograder.course.config import Course, Day
    from autograder.grading.session import GradedClass
    from autograder.marks.model import Marks, SubmissionMarks


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


def load_course() -> Course:
    """Load the course in the working directory. Raises CourseError if there is no course or if it is invalid."""
    from autograder.course import config as courses

    try:
        folder = Path.cwd()
    except FileNotFoundError:
        raise courses.CourseError("the working directory no longer exists") from None
    return courses.load(courses.find_root(folder))


def load_day(name: str) -> Day:
    """Load the course in the working directory and return the day with this name.

    Raises:
        CourseError: The course has no day with this name, or the course is invalid.
    """
    from autograder.course.config import CourseError

    course = load_course()
    if name not in course.days and (os.sep in name or "." in name or os.path.lexists(name)):
        first = next(iter(course.days))
        raise CourseError(
            f"the day is missing before {name!r}. The course has the days {', '.join(course.days)}. "
            f"Example: autograder {sys.argv[1] if len(sys.argv) > 1 else 'grade'} {first} {name}"
        )
    return course.day(name)


def check_submissions(paths: Sequence[Path]) -> None:
    """Check that each path could contain submissions, so that a mistyped path is reported before grading starts.

    Raises:
        typer.BadParameter: A path does not exist, is an empty folder or a course, or has an unsupported file type.
    """
    from autograder.course.config import FILE
    from autograder.submissions.filenames import is_gradable

    for path in paths:
        if not os.path.lexists(path):
            raise typer.BadParameter(f"there is no file or folder {str(path)!r}")
        if path.is_file() and not is_gradable(path.name) and not _is_notebook(path):
            raise typer.BadParameter(
                f"{str(path)!r} is not a notebook, a script, a folder or an archive"
            )
        if path.is_dir() and _is_empty(path):
            raise typer.BadParameter(f"the folder {str(path)!r} is empty")
        # An empty argument, such as an unset "$ZIP", means the working directory.
        if (path / FILE).is_file():
            raise typer.BadParameter(f"the folder {str(path)!r} contains a course, not submissions")


def _is_empty(folder: Path) -> bool:
    try:
        return not os.listdir(folder)
    except OSError as error:
        raise typer.BadParameter(
            f"the folder {str(folder)!r} cannot be read: {error.strerror}"
        ) from None


def submitted_folders(day: Day) -> list[Path]:
    """Return the folders that nbgrader collected for a day: `submitted/STUDENT/DAY`.

    Raises:
        CourseError: There are no submissions.
    """
    from autograder.course.config import CourseError

    folders = sorted((day.root / "submitted").glob(f"*/{day.name}"))
    if not folders:
        place = day.root / "submitted" / "*" / day.name
        raise CourseError(
            f"there are no submissions in {place}. Pass the PATH of the submissions to grade."
        )
    return folders


def _is_notebook(path: Path) -> bool:
    """Return whether a file without a known suffix could be a notebook or a zip archive."""
    try:
        with path.open("rb") as file:
            beginning = file.read(2)
    except OSError:
        return True  # grading will report that the file cannot be read
    return not path.suffix and (beginning.startswith(b"{") or beginning == b"PK")


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
    """Print one line about a failure, which makes the exit code nonzero, to stderr."""
    print_text(f"autograder: error: {message}", sys.stderr)


def print_warning(message: object) -> None:
    """Print one line about a risk, with which the command continues, to stderr."""
    print_text(f"autograder: warning: {message}", sys.stderr)


def print_note(message: object) -> None:
    """Print one line of information, such as which submission counts, to stderr."""
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


def read_marks(file: Path, day: Day) -> Marks:
    """Read marks written by `grade --json`, and replace older exercise names with the current ones.

    Raises:
        CourseError: The file cannot be read, or does not contain marks for this day.
    """
    from msgspec.structs import replace

    from autograder.course.config import CourseError
    from autograder.course.renames import older_names
    from autograder.marks import model
    from autograder.marks.renaming import rename_exercises
    from autograder.marks.submission_times import SubmissionTimes

    try:
        marks = model.decode(file.read_bytes(), day.name)
    except OSError as error:
        raise CourseError(f"{file} cannot be read: {error.strerror}") from None
    except model.InvalidMarks as error:
        raise CourseError(f"{file} {error}") from None
    current = older_names(day)
    renamed = [rename_exercises(one, current) for one in marks.submissions]
    # Moodle's times are interpreted in the time zone that grading.toml sets now.
    times = SubmissionTimes(zone=day.late.moodle_zone)
    timed = [replace(m, handed_in=times.added_to(m.handed_in, m.sha256)) for m in renamed]
    return model.Marks(marks.format, marks.day, timed)


def write_marks(file: Path, day: str, submissions: Sequence[SubmissionMarks]) -> None:
    """Write marks as JSON.

    Raises:
        StoreError: The file cannot be written.
    """
    from autograder.course.output_files import open_output
    from autograder.marks import model

    with open_output(file) as new:
        new.writelines(model.encode(day, submissions))


def check_file(file: Path | None) -> None:
    """Check that a file can be written, so that a wrong path is reported before any work is done.

    Raises:
        typer.BadParameter: The path is a folder, or its parent is not a folder.
    """
    if file is None:
        return
    if file.is_dir():
        raise typer.BadParameter(f"{file} cannot be written: it is a folder")
    if not file.parent.is_dir():
        raise typer.BadParameter(f"{file} cannot be written: there is no folder {file.parent}")


def check_folder(folder: Path | None) -> None:
    """Check that a folder exists or can be created, so that a wrong path is reported before any work is done.

    Raises:
        typer.BadParameter: The path is a file, or its parent is not a folder.
    """
    if folder is None:
        return
    if folder.is_file():
        raise typer.BadParameter(f"{folder} cannot be created: it is a file")
    if not folder.parent.is_dir():
        raise typer.BadParameter(f"{folder} cannot be created: there is no folder {folder.parent}")
