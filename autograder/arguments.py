"""Load the course, and check, read and write the files named on the command line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from autograder.console import collect_notes
from autograder.sandbox.client import Sandbox

if TYPE_CHECKING:
    from autograder.course.config import Course, Day
    from autograder.marks.model import SubmissionMarks


def load_course() -> Course:
    """Load the course in the working directory. Raises CourseError if there is no course or if it is invalid."""
    from autograder.course import config as courses

    try:
        folder = Path.cwd()
    except FileNotFoundError:
        raise courses.CourseError("the working directory no longer exists") from None
    return courses.load(courses.find_root(folder))


def load_day(name: str, command: str = "", all_notes: bool = False) -> Day:
    """Load the course in the working directory and return the day with this name.

    If a command is given, collect its notes, and print all of them or only new decisions at the end.
    """
    from autograder.course.config import CourseError

    course = load_course()
    if name not in course.days and (os.sep in name or "." in name or os.path.lexists(name)):
        first = next(iter(course.days))
        raise CourseError(
            f"the day is missing before {name!r}. The course has the days {', '.join(course.days)}. "
            f"Example: autograder {sys.argv[1] if len(sys.argv) > 1 else 'grade'} {first} {name}"
        )
    day = course.day(name)
    if command:
        file = course.root / ".autograder" / f"notes-{command}-{name}.txt"
        collect_notes(file, all_notes)
    return day


def check_submissions(paths: Sequence[Path]) -> None:
    """Check that each path could contain submissions, so that a mistyped path is reported before grading starts."""
    from autograder.course.config import GRADING_TOML
    from autograder.submissions.file_types import is_gradable

    for path in paths:
        if not os.path.lexists(path):
            raise typer.BadParameter(f"there is no file or folder {str(path)!r}")
        if path.is_file() and not is_gradable(path.name) and not _is_notebook(path):
            raise typer.BadParameter(
                f"{str(path)!r} is not a notebook, a script, a folder or an archive"
            )
        try:
            is_empty = path.is_dir() and not os.listdir(path)
        except OSError as error:
            raise typer.BadParameter(
                f"the folder {str(path)!r} cannot be read: {error.strerror}"
            ) from None
        if is_empty:
            raise typer.BadParameter(f"the folder {str(path)!r} is empty")
        # An empty argument, such as an unset "$ZIP", means the working directory.
        if (path / GRADING_TOML).is_file():
            raise typer.BadParameter(f"the folder {str(path)!r} contains a course, not submissions")


def submitted_folders(day: Day) -> list[Path]:
    """Return the folders that nbgrader collected for a day: `submitted/STUDENT/DAY`."""
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


def write_marks(file: Path, day: str, submissions: Sequence[SubmissionMarks]) -> None:
    """Write marks as JSON."""
    from autograder.course.files import open_output
    from autograder.marks import model

    with open_output(file) as new:
        new.writelines(model.encode(day, submissions))


def check_file(file: Path | None) -> None:
    """Check that a file can be written, so that a wrong path is reported before any work is done."""
    if file and file.is_dir():
        raise typer.BadParameter(f"{file} cannot be written: it is a folder")
    if file and not file.parent.is_dir():
        raise typer.BadParameter(f"{file} cannot be written: there is no folder {file.parent}")


def check_folder(folder: Path | None) -> None:
    """Check that a folder exists or can be created, so that a wrong path is reported before any work is done."""
    if folder and folder.is_file():
        raise typer.BadParameter(f"{folder} cannot be created: it is a file")
    if folder and not folder.parent.is_dir():
        raise typer.BadParameter(f"{folder} cannot be created: there is no folder {folder.parent}")


def _day_names(incomplete: str) -> list[str]:
    """Return the course's days whose names begin with `incomplete`, for shell completion."""
    from autograder.course import config as courses

    try:
        names = courses.load(courses.find_root(Path.cwd())).days
    except courses.CourseError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def _check_seed(seed: str | None) -> str | None:
    """Return the seed in lower case. Raises typer.BadParameter if the seed is not a hexadecimal number."""
    if seed is not None and not re.fullmatch(r"[0-9a-fA-F]{1,64}", seed):
        raise typer.BadParameter(f"{seed!r} is not a hexadecimal number of at most 64 digits")
    return seed.lower() if seed else None


DayArgument = Annotated[
    str,
    typer.Argument(
        metavar="DAY", help="a day in grading.toml, such as day1", autocompletion=_day_names
    ),
]
PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATH]...",
        help="a platform's download, or notebooks, scripts, folders or archives (default: submitted/)",
    ),
]
JobsOption = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="number of submissions to grade in parallel (default: one per core)",
        show_default=False,
    ),
]
ClusterOption = Annotated[
    str,
    typer.Option(
        metavar="local|slurm|ADDRESS",
        help="grade on a Dask cluster: on this machine, in SLURM jobs, or through the scheduler at ADDRESS",
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca-file",
        metavar="FILE",
        help="the cluster's certificate authority (CA) certificate",
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", help="this machine's certificate for the cluster"),
]
KeyOption = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="the certificate's private key")
]
SandboxOption = Annotated[Sandbox, typer.Option(help="`none` runs student code without isolation")]
SeedOption = Annotated[
    str | None,
    typer.Option(
        metavar="HEX",
        help="the `seed` of earlier marks, to reuse their test inputs",
        callback=_check_seed,
    ),
]
AllNotesOption = Annotated[
    bool,
    typer.Option("--all-notes", help="print all notes, not only new decisions"),
]
GroupOption = Annotated[
    Literal["latest", "best"],
    typer.Option(help="which submission counts if several members of a group submitted"),
]
