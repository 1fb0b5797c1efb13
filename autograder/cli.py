"""The commands. Exit codes: 0 everything was graded; 1 something could not be read; 2 usage or the course; 3 no isolation."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autograder.sandbox.client import NoIsolation, Sandbox, cpu_count

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
DayArgument = Annotated[str, typer.Argument(metavar="DAY", help="day1 or day2")]
PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATH]...", help="notebooks, scripts, folders, archives; without one, submitted/"
    ),
]


@app.callback()
def autograder() -> None:
    """Build, release and grade the exercises of the course."""


@app.command()
def build(
    days: Annotated[list[str] | None, typer.Argument(metavar="[DAY]...")] = None,
    solutions: Annotated[bool, typer.Option("--solutions", help="the worked notebook too")] = False,
) -> None:
    """Build the release into assignments/, or say which cell is wrong."""
    from autograder import build as builder
    from autograder import course as courses

    course = courses.load(courses.find_root(Path.cwd()))
    for name in days or list(course.days):
        day = course.day(name)
        courses.check(day)
        for made in builder.build(day, solutions):
            print(made)


@app.command()
def grade(
    day: DayArgument,
    paths: PathsArgument = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="write the marks here")] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="processes; by default one a core")
    ] = cpu_count(),
    sandbox: Annotated[
        Sandbox, typer.Option(help="none: run student code without isolation")
    ] = "required",
    seed: Annotated[str | None, typer.Option(metavar="HEX", help="replay with this seed")] = None,
) -> None:
    """Grade a class: files, folders and archives."""
    from autograder import course as courses
    from autograder import grading, marks, store
    from autograder.report import table

    course = courses.load(courses.find_root(Path.cwd()))
    chosen = course.day(day)
    found = _paths(chosen.root, day, paths)
    if json and (json.is_dir() or not json.parent.is_dir()):
        raise typer.BadParameter(
            f"{json} can not be written: there is no such folder, or it is one"
        )
    console = Console()
    if sandbox == "none":
        user = "root" if os.geteuid() == 0 else "you"
        _say(
            f"WITHOUT ISOLATION: what students wrote can read, change and send whatever {user} can"
        )
    graded = grading.grade_class(chosen, found, store.secret(chosen.root), jobs, seed, sandbox)
    if console.is_terminal:
        graded = table.progress(graded, console)
    submissions = list(graded)
    if json:
        json.write_bytes(marks.encode(marks.Marks(marks.FORMAT, day, submissions)))
    console.print(table.table(submissions))
    console.print(table.LEGEND, style="dim", highlight=False)
    unread = [s for s in submissions if not s.exercises]
    for submission in unread:
        _say(f"{submission.path}: {'; '.join(submission.problems)}")
    if unread or not submissions:
        raise typer.Exit(1)


@app.command()
def explain(
    day: DayArgument,
    path: Annotated[Path, typer.Argument(metavar="PATH")],
    exercise: Annotated[str, typer.Argument(metavar="EXERCISE")],
    seed: Annotated[str | None, typer.Option(metavar="HEX", help="replay with this seed")] = None,
) -> None:
    """Show the code that was taken, each test, and the failing call with its inputs."""
    from autograder import course as courses
    from autograder.explain import explain as explained

    course = courses.load(courses.find_root(Path.cwd()))
    for line in explained(course.day(day), path, exercise, seed):
        print(line)


@app.command()
def doctor() -> None:
    """Show what isolation this machine gives: each layer with what was tried and seen."""
    from autograder.sandbox.doctor import doctor as examine

    findings = examine()
    for finding in findings:
        print(f"{'✓' if finding.holds else '✗'} {finding.layer}: {finding.tried}: {finding.seen}")
    # A missing layer is carried by the others; what counts is all of them together.
    if not all(finding.holds for finding in findings if finding.layer == "all"):
        raise typer.Exit(3)


def _paths(root: Path, day: str, paths: list[Path] | None) -> list[Path]:
    if paths:
        return paths
    handed_in = sorted((root / "submitted").glob(f"*/{day}"))
    if not handed_in:
        raise typer.BadParameter(f"no PATH was given, and {root / 'submitted'} holds no */{day}")
    return handed_in


def _say(text: str) -> None:
    print(f"autograder: {text}", file=sys.stderr)


def main() -> None:
    """Run a command; a fault of the course is one sentence and exit code 2."""
    from autograder.course import CourseError

    try:
        app()
    except CourseError as error:
        _say(str(error))
        sys.exit(2)
    except NoIsolation as error:
        _say(str(error))
        sys.exit(3)
    except ConnectionError as error:
        _say(f"{error}; what it said stands above")
        sys.exit(2)


if __name__ == "__main__":
    main()
