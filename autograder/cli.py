"""The commands. Exit codes: 0 everything was graded; 1 something could not be read; 2 usage or the course; 3 no isolation."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from autograder.console import (
    check_file,
    check_folder,
    read_marks,
    say,
    saying_once,
    warn,
    write_marks,
)
from autograder.sandbox.client import Sandbox
from autograder.sandbox.clock import cpu_count
from autograder.sandbox.errors import NoIsolation

if TYPE_CHECKING:
    from autograder.grading.class_run import Run
    from autograder.marks.model import SubmissionMarks

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
CORES = cpu_count()
JobsOption = Annotated[int, typer.Option(min=1, help="processes; by default one a core")]
Format = Literal["canvas", "moodle", "gradescope", "nbgrader", "csv"]
SandboxOption = Annotated[Sandbox, typer.Option(help="none: run student code without isolation")]


@app.callback()
def autograder() -> None:
    """Build, release and grade the exercises of the course."""


@app.command()
def build(
    days: Annotated[list[str] | None, typer.Argument(metavar="[DAY]...")] = None,
    solutions: Annotated[bool, typer.Option("--solutions", help="the worked notebook too")] = False,
) -> None:
    """Build the release into assignments/, or say which cell is wrong."""
    from autograder.course import config as courses
    from autograder.release import build as builder

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
    feedback: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="write a page for each student here")
    ] = None,
    jobs: JobsOption = CORES,
    sandbox: SandboxOption = "required",
    seed: Annotated[str | None, typer.Option(metavar="HEX", help="replay with this seed")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="grade again what has not changed, too")
    ] = False,
    keep: Annotated[
        bool,
        typer.Option("--store/--no-store", help="look the marks up in the store and keep them"),
    ] = True,
    shard: Annotated[
        str | None, typer.Option(metavar="K/N", help="only the K-th of N parts of the class")
    ] = None,
) -> None:
    """Grade a class: files, folders and archives. What was graded before and has not changed is taken from the store.

    Without PATH, submitted/ is graded, and then copied into nbgrader's gradebook.
    """
    from autograder.course import config as courses
    from autograder.course import state_folder
    from autograder.feedback import sentences, terminal_table
    from autograder.feedback import student_page as pages
    from autograder.grading.class_run import Run
    from autograder.marks import class_list
    from autograder.marks.history import History
    from autograder.marks.model import CompressedMarks
    from autograder.submissions import roster
    from autograder.submissions.class_source import Shard, find_submissions
    from autograder.submissions.client import Reader

    course = courses.load(courses.find_root(Path.cwd()))
    chosen = course.day(day)
    given = _paths(chosen.root, day, paths)
    try:
        part = Shard.parse(shard) if shard else None
    except ValueError as error:
        raise typer.BadParameter(f"--shard {error}") from None
    if json:
        check_file(json)
    check_folder(feedback)
    console = Console()
    warn(sandbox)
    secret = state_folder.secret(chosen.root)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(Reader(sandbox))
        history = stack.enter_context(History(chosen.root)) if keep else None
        if history:
            stack.enter_context(history.lock(day))
        run = Run(chosen, secret, jobs, seed, sandbox, history, force, on_trouble=saying_once())
        class_roster = roster.for_course(chosen.root)
        graded = run.grade(find_submissions(given, day, reader, part, class_roster))
        progress = Console(stderr=True)
        if progress.is_terminal:
            total = sum(1 for _ in find_submissions(given, day, reader, part))
            graded = terminal_table.progress(graded, total, progress)
        submissions = CompressedMarks(graded)
        copied = None
        if not paths and not part:
            from autograder.nbgrader_plugin import gradebook

            copied = gradebook.copy(chosen, given, submissions, reader, force)
    lateness = class_list.lateness_of_each(submissions, chosen, class_roster)
    notes = [] if part else class_list.roster_notes(submissions, chosen, class_roster)
    console.print(terminal_table.table(submissions, lateness))
    console.print(terminal_table.LEGEND, style="dim", highlight=False)
    unread = [s for s in submissions if not s.exercises]
    notes += [f"{marks.path}: {'; '.join(marks.problems)}" for marks in unread]
    _tell_of_store(console, run, len(submissions), json)
    for note in notes:
        say(note)
    if json:
        write_marks(json, day, submissions)
    faults: list[str] = []
    if feedback:
        _, faults = pages.write(submissions, sentences.read(chosen), feedback)
        for fault in faults:
            say(fault)
    if copied:
        told = f"copied into nbgrader's gradebook: {copied.new}; there as they are: {copied.known}"
        console.print(told, highlight=False)
        for problem in copied.problems:
            say(problem)
    if unread or run.unstored or not submissions or faults or (copied and copied.problems):
        raise typer.Exit(1)


def _tell_of_store(console: Console, run: Run, count: int, json: Path | None) -> None:
    if run.known:
        console.print(
            f"{run.known} of {count} had been graded before and have not changed; --force grades them again",
            highlight=False,
        )
    if run.unstored:
        where = f"only here and in {json}" if json else "only here; --json FILE writes them"
        say(f"the marks of {run.unstored} submissions are not in the store: {where}")


@app.command()
def regrade(
    day: DayArgument,
    write: Annotated[
        bool, typer.Option("--write", help="let the new marks count, after they are shown")
    ] = False,
    jobs: JobsOption = CORES,
    sandbox: SandboxOption = "required",
) -> None:
    """Grade what is in the store by the present course, and show who gets other points, by how much and why."""
    from autograder.course import config as courses
    from autograder.course import state_folder
    from autograder.grading.class_run import Run
    from autograder.marks import regrade as again
    from autograder.marks.history import History
    from autograder.submissions import roster
    from autograder.submissions.client import Reader

    chosen = courses.load(courses.find_root(Path.cwd())).day(day)
    warn(sandbox)
    secret = state_folder.secret(chosen.root)
    with (
        Reader(sandbox) as reader,
        History(chosen.root) as history,
        history.lock(day),
    ):
        stored = history.current_with_paths(day)
        if not stored:
            raise typer.BadParameter(f"the store has no marks of {day}; `autograder grade` first")

        def run(is_current: bool) -> list[SubmissionMarks]:
            a_run = Run(
                chosen,
                secret,
                jobs,
                sandbox=sandbox,
                history=history,
                is_current=is_current,
                on_trouble=saying_once(),
            )
            class_roster = roster.for_course(chosen.root)
            return list(a_run.grade(again.find_again(stored, day, reader, class_roster)))

        changes, gone = again.compare(stored, run(is_current=False))
        for line in again.report(changes, day):
            print(line)
        for marks in gone:
            say(f"{marks.path} of {marks.student} is gone; its {marks.points:g} points stay")
        if write:
            run(is_current=True)  # what was graded just now is known, and not graded again
        else:
            print("\nNothing is changed; `--write` lets the new marks count.")
    if gone:
        raise typer.Exit(1)


@app.command()
def merge(
    day: DayArgument,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="what --json wrote")],
    json: Annotated[Path, typer.Option(metavar="FILE", help="write the marks of all here")],
) -> None:
    """Put the marks of shards, or of several machines, into one file."""
    from autograder.course import config as courses
    from autograder.marks.merging import merged

    courses.load(courses.find_root(Path.cwd())).day(day)
    check_file(json)
    parts = {file: read_marks(file, day) for file in files}
    whole = merged(parts, day)
    write_marks(json, day, whole.submissions)
    print(f"{json}: {len(whole.submissions)} submissions")


@app.command()
def explain(
    day: DayArgument,
    path: Annotated[Path, typer.Argument(metavar="PATH")],
    exercise: Annotated[str, typer.Argument(metavar="EXERCISE")],
    seed: Annotated[str | None, typer.Option(metavar="HEX", help="replay with this seed")] = None,
) -> None:
    """Show the code that was taken, each test, and the failing call with its inputs."""
    from autograder.course import config as courses
    from autograder.grading.explain import explain as explained

    course = courses.load(courses.find_root(Path.cwd()))
    for line in explained(course.day(day), path, exercise, seed):
        print(line)


@app.command()
def report(
    day: DayArgument,
    file: Annotated[Path, typer.Argument(metavar="MARKS.json", help="from grade --json")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="by default report-DAY, here")
    ] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="numbers in the place of names")
    ] = False,
) -> None:
    """Show what the class did not understand: a page for the instructor, and CSV beside it."""
    from autograder.course import config as courses
    from autograder.feedback import class_analysis, class_page, sentences

    chosen = courses.load(courses.find_root(Path.cwd())).day(day)
    folder = out or Path(f"report-{day}")
    check_folder(folder)
    held = read_marks(file, day)
    course = courses.fingerprint(chosen)
    found = class_analysis.analyse(held, sentences.read(chosen), course, anonymous)
    for made in class_page.write(found, folder):
        print(made)


@app.command()
def export(
    day: DayArgument,
    to: Annotated[Format, typer.Option(help="the system that takes the file")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="a folder for gradescope")],
    marks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="from grade --json; by default the store's")
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(metavar="FILE", help="by default roster.csv of the course")
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Canvas's gradebook or Moodle's worksheet to fill in"),
    ] = None,
    column: Annotated[str, typer.Option(help="the assignment's title in Canvas")] = "",
) -> None:
    """Write the marks of a class as Canvas, Moodle, Gradescope or nbgrader takes them, after the late policy."""
    from autograder.course import config as courses
    from autograder.export import write
    from autograder.marks.history import History

    chosen = courses.load(courses.find_root(Path.cwd())).day(day)
    check_folder(out) if to == "gradescope" else check_file(out)
    class_ = read_marks(marks, day).submissions if marks else History(chosen.root).current(day)
    if not class_:
        raise typer.BadParameter(f"there are no marks of {day}; `autograder grade {day}` first")
    for note in write.export(chosen, to, class_, out, roster, into, column):
        say(note)
    print(out)


@app.command()
def demo(
    day: DayArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="by default demo/DAY of the course")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="of each training, to see that all runs")
    ] = None,
) -> None:
    """Run the day's demonstrations: pictures into a folder, and what they measure as a table."""
    from autograder.course import config as courses
    from autograder.release.demonstrations import demonstrate, table

    chosen = courses.load(courses.find_root(Path.cwd())).day(day)
    folder = out or chosen.root / "demo" / day
    Console().print(table(list(demonstrate(chosen, folder, steps))))
    print(f"pictures, and what was printed: {folder}")


@app.command()
def doctor() -> None:
    """Show what isolation this machine gives: each layer with what was tried and seen."""
    from autograder.sandbox.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'✓' if finding.passed else '✗'} {finding.layer}: {finding.tried}: {finding.seen}")
    # A missing layer is carried by the others; what counts is all of them together.
    if not all(finding.passed for finding in findings if finding.layer == "all"):
        raise typer.Exit(3)


def _paths(root: Path, day: str, paths: list[Path] | None) -> list[Path]:
    if paths:
        return paths
    handed_in = sorted((root / "submitted").glob(f"*/{day}"))
    if not handed_in:
        raise typer.BadParameter(f"no PATH was given, and {root / 'submitted'} holds no */{day}")
    return handed_in


def main() -> None:
    """Run a command; a fault of the course is one sentence and exit code 2."""
    from autograder.course.config import CourseError
    from autograder.course.state_folder import StoreError
    from autograder.grading.class_run import Ended

    try:
        app()
    except (CourseError, StoreError, Ended) as error:
        say(str(error))
        sys.exit(2)
    except NoIsolation as error:
        say(str(error))
        sys.exit(3)
    except ConnectionError as error:
        say(f"{error}; what it said stands above")
        sys.exit(2)


if __name__ == "__main__":
    main()
