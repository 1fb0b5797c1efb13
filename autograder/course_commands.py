"""Define the commands that create, build and check a course, or check this machine. `cli.py` registers them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from autograder.arguments import DayArgument, load_course, load_day
from autograder.console import print_error, print_note
from autograder.course.config import Include


def new(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="NAME", help="folder to create for the new course, such as mycourse"
        ),
    ],
) -> None:
    """Create a starter course. It has one day with two exercises, hidden tests and known mistakes."""
    from autograder.course import new_course

    for file in new_course.create(folder):
        print(file)
    print(f"\nNow change to the folder and run `autograder build`:\n\n    cd {folder}")


def build(
    days: Annotated[
        list[str] | None, typer.Argument(metavar="[DAY]...", help="days to build (default: all)")
    ] = None,
    solutions: Annotated[
        bool,
        typer.Option(
            "--solutions", help="also write the notebook with solutions, source/DAY-solutions.ipynb"
        ),
    ] = False,
    include: Annotated[
        Include | None,
        typer.Option(help="which exercises students fill in; saved in grading.toml"),
    ] = None,
    new_version: Annotated[
        bool,
        typer.Option(
            "--new-version",
            help="add or remove exercises even if submissions have already been graded",
        ),
    ] = False,
    public_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="GitHub folder where you publish assignments/; adds a badge for Colab and prints a link for nbgitpuller",
        ),
    ] = "",
) -> None:
    """Build and check the release in assignments/. If a day's build fails, its existing files are kept."""
    from autograder.course.new_course import add_nbgrader_config
    from autograder.release import build as builder
    from autograder.release import static_checks
    from autograder.release.build import including

    course = load_course()
    for file in add_nbgrader_config(course.root):
        print(file)
    chosen = days or list(course.days)
    for name in chosen:
        course.day(name)  # report an unknown day before building anything
    if include is None:  # report the mistakes in all days before building anything
        static_checks.check(map(course.day, chosen))
    for name in chosen:
        edited = including(course.root, name, include) if include else nullcontext(course)
        with edited as current:
            day = current.day(name)
            if include:
                static_checks.check([day])
            for made in builder.build(day, solutions, new_version, public_url):
                print(made) if isinstance(made, Path) else print_note(made)


def try_(
    day: DayArgument,
    exercises: Annotated[
        list[str] | None,
        typer.Argument(metavar="[EXERCISE]...", help="exercises to try (default: all)"),
    ] = None,
) -> None:
    """Try out exercises while you write them.

    Run each exercise's checks and tests on its solution, on other correct answers and on known mistakes.
    """
    from autograder.release.trial import lines, try_exercises

    faulty = 0
    for trial in try_exercises(load_day(day), exercises or []):
        print("\n".join(lines(trial)), end="\n\n", flush=True)
        faulty += trial.has_faults
    if faulty:
        print_error(
            f"{faulty} exercise{' has' if faulty == 1 else 's have'} problems, which are marked ✗"
        )
        raise typer.Exit(1)


def doctor() -> None:
    """Show which isolation layers work on this machine. Also show how each one was tested."""
    from autograder.sandbox.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'✓' if finding.passed else '✗'} {finding.layer}: {finding.tried}: {finding.seen}")
    # Other layers can make up for a missing one, so the result depends only on the probes that test all layers together.
    is_isolated = all(finding.passed for finding in findings if finding.layer == "all")
    missing = [finding.layer for finding in findings if not finding.passed]
    without = f", even without {', '.join(dict.fromkeys(missing))}" if missing else ""
    if not is_isolated:
        print(
            "\nResult: this machine cannot isolate student code, so nothing can be graded. See docs/sandbox.md."
        )
        raise typer.Exit(3)
    print(
        f"\nResult: this machine can isolate student code{without}. You can grade submissions on it."
    )
