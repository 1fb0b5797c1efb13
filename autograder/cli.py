"""Command line: parse the arguments, call the packages that do the work, and print the results.

Exit codes: 0, every submission was graded; 1, something could not be read or written; 2, a usage error or an error in
the course; 3, this machine cannot isolate student code. Each command imports its own dependencies to keep `--help` fast.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from autograder import delivery_commands, ta_commands
from autograder.console import (
    check_file,
    check_folder,
    print_error,
    print_errors_once,
    print_summary,
    read_marks,
    warn_without_sandbox,
    write_marks,
)
from autograder.options import (
    DayArgument,
    GroupOption,
    JobsOption,
    PathsArgument,
    SandboxOption,
    SeedOption,
)
from autograder.sandbox.clock import cpu_count
from autograder.sandbox.errors import NoIsolation, ServerLost

if TYPE_CHECKING:
    from autograder.course.config import Course
    from autograder.marks.model import SubmissionMarks

CORES = cpu_count()
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def autograder() -> None:
    """Build, release and grade the exercises of the course."""


@app.command()
def build(
    days: Annotated[
        list[str] | None, typer.Argument(metavar="[DAY]...", help="days to build (default: all)")
    ] = None,
    solutions: Annotated[
        bool, typer.Option("--solutions", help="also build the notebook with the solutions")
    ] = False,
) -> None:
    """Build the release in assignments/ from the chapters, and check it."""
    from autograder.course.consistency import check_day
    from autograder.release import build as builder

    course = _course()
    for name in days or list(course.days):
        day = course.day(name)
        check_day(day)
        for file in builder.build(day, solutions):
            print(file)


@app.command()
def grade(
    day: DayArgument,
    paths: PathsArgument = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write the marks to this file")
    ] = None,
    feedback: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="write a feedback page per student to this folder"),
    ] = None,
    jobs: JobsOption = CORES,
    sandbox: SandboxOption = "required",
    seed: SeedOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="also grade submissions that have not changed")
    ] = False,
    group: GroupOption = "latest",
    use_store: Annotated[
        bool,
        typer.Option("--store/--no-store", help="whether to reuse stored marks and store new ones"),
    ] = True,
) -> None:
    """Grade a class. Submissions that have not changed keep their stored marks.

    If no PATH is given, grade submitted/ and copy the marks into nbgrader's gradebook.
    """
    from autograder.feedback import terminal_table
    from autograder.grading.session import open_session, submitted_folders

    chosen = _course().day(day)
    class_paths = paths or submitted_folders(chosen)
    check_file(json)
    check_folder(feedback)
    warn_without_sandbox(sandbox)
    stderr = Console(stderr=True)

    def watch(marks: Iterator[SubmissionMarks]) -> Iterator[SubmissionMarks]:
        return terminal_table.progress(marks, stderr) if stderr.is_terminal else marks

    with open_session(chosen, jobs, sandbox, print_errors_once(), use_store) as session:
        by_hand = ta_commands.adjustments_or_warning(chosen, quiet=not paths)
        graded = session.grade(class_paths, seed, force, watch, group, by_hand.apply)
        copied = None
        if not paths:
            from autograder.nbgrader_plugin import gradebook

            copied = gradebook.copy(chosen, class_paths, graded.submissions, session.reader, force)
    console = Console()
    console.print(terminal_table.table(graded.rows))
    console.print(terminal_table.LEGEND, style="dim", highlight=False)
    ta_commands.print_overrides(graded.submissions)
    print_summary(console, graded, json)
    if json:
        write_marks(json, day, graded.submissions)
    problems: list[str] = []
    if feedback:
        from autograder.feedback import sentences, student_page

        _, problems = student_page.write(graded.submissions, sentences.read(chosen), feedback)
    if copied:
        summary = f"nbgrader's gradebook: {copied.copied} submissions copied, {copied.unchanged} unchanged"
        console.print(summary, highlight=False)
        problems += copied.problems
    for problem in problems:
        print_error(problem)
    if graded.ungraded or graded.unstored or not graded.submissions or problems:
        raise typer.Exit(1)


@app.command()
def regrade(
    day: DayArgument,
    write: Annotated[
        bool, typer.Option("--write", help="replace the current marks with the new ones")
    ] = False,
    jobs: JobsOption = CORES,
    sandbox: SandboxOption = "required",
) -> None:
    """Regrade the submissions in the store, and show whose points change, by how much, and why."""
    from autograder.grading.session import open_session
    from autograder.marks.regrade import report

    chosen = _course().day(day)
    warn_without_sandbox(sandbox)
    with open_session(chosen, jobs, sandbox, print_errors_once()) as session:
        changes, gone = session.regrade()
        for line in report(changes, day):
            print(line)
        for marks in gone:
            print_error(
                f"{marks.path} ({marks.student}) no longer exists; its {marks.earned:g} points are kept"
            )
        if write:
            session.regrade(is_current=True)  # uses the marks that were just stored
        else:
            print(
                "\nThe current marks are unchanged. Run the command with --write to replace them."
            )
    if gone:
        raise typer.Exit(1)


app.command()(ta_commands.explain)
app.command()(ta_commands.override)


@app.command()
def report(
    day: DayArgument,
    file: Annotated[Path, typer.Argument(metavar="MARKS.json", help="marks from `grade --json`")],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="default: report-DAY")] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="replace students' names with numbers")
    ] = False,
) -> None:
    """Write a report about the class for the instructor: one page, and its tables as CSV files."""
    from autograder.course import config as courses
    from autograder.feedback import class_analysis, class_page, sentences

    chosen = _course().day(day)
    folder = out or Path(f"report-{day}")
    check_folder(folder)
    marks = read_marks(file, day)
    fingerprint = courses.fingerprint(chosen)
    analysis = class_analysis.analyse(marks, sentences.read(chosen), fingerprint, anonymous)
    for written in class_page.write(analysis, folder):
        print(written)


app.command()(delivery_commands.export)


@app.command()
def demo(
    day: DayArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="default: demo/DAY in the course")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="limit each training loop to this many steps")
    ] = None,
) -> None:
    """Run the day's demonstrations. Save their figures and output, and print their measurements."""
    from autograder.release.demonstrations import demonstrate, table

    chosen = _course().day(day)
    folder = out or chosen.root / "demo" / day
    Console().print(table(list(demonstrate(chosen, folder, steps))))
    print(f"figures and output: {folder}")


@app.command()
def doctor() -> None:
    """Show which isolation layers work on this machine, and how each one was tested."""
    from autograder.sandbox.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'✓' if finding.passed else '✗'} {finding.layer}: {finding.tried}: {finding.seen}")
    # Other layers can make up for a missing one, so only the probes of all layers together set the exit code.
    if not all(finding.passed for finding in findings if finding.layer == "all"):
        raise typer.Exit(3)


def _course() -> Course:
    from autograder.course import config as courses

    return courses.load(courses.find_root(Path.cwd()))


def main() -> None:
    """Run a command. Print expected errors as one line, without a traceback."""
    from autograder.course.config import CourseError
    from autograder.course.state_folder import StoreError
    from autograder.grading.errors import WorkerKilled

    try:
        app()
    except NoIsolation as error:
        print_error(error)
        sys.exit(3)
    except (CourseError, StoreError, WorkerKilled, ServerLost, ConnectionError) as error:
        print_error(error)
        sys.exit(2)


if __name__ == "__main__":
    main()
