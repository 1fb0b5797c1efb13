"""Command-line interface: parse the arguments, call the packages that do the work, and print the results.

Each command imports its own dependencies to keep `--help` fast. Exit codes:

- 0: Every submission was graded.
- 1: A submission could not be read or graded, its marks could not be stored, or a feedback page was not written.
- 2: The arguments or the course are invalid, or a file of the course or of the user could not be read or written.
- 3: This machine cannot isolate student code.
- 130: The command was interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autograder import VERSION, course_commands, delivery_commands, store_commands, ta_commands
from autograder.console import (
    check_file,
    check_folder,
    check_submissions,
    exit_on_interrupt,
    load_day,
    output,
    plain_console,
    print_error,
    print_errors_once,
    print_summary,
    print_text,
    read_marks,
    submitted_folders,
    warn_without_sandbox,
    write_marks,
)
from autograder.options import (
    CaFileOption,
    CertificateOption,
    ClusterOption,
    DayArgument,
    GroupOption,
    JobsOption,
    KeyOption,
    PathsArgument,
    SandboxOption,
    SeedOption,
)
from autograder.protocol.plain_text import counted, format_number
from autograder.sandbox.clock import cpu_count
from autograder.sandbox.errors import NoIsolation, ServerLost

if TYPE_CHECKING:
    from autograder.marks.model import SubmissionMarks

CORES = cpu_count()
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"autograder {VERSION}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def autograder(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Build, release and grade the course's exercises."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def grade(
    day: DayArgument,
    paths: PathsArgument = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write the marks to this file")
    ] = None,
    feedback: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="write one feedback page per student to this folder"),
    ] = None,
    jobs: JobsOption = CORES,
    sandbox: SandboxOption = "required",
    seed: SeedOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="also regrade unchanged submissions")
    ] = False,
    group: GroupOption = "latest",
    worksheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="read submission times from this Moodle grading worksheet"
        ),
    ] = None,
    use_store: Annotated[
        bool,
        typer.Option("--store/--no-store", help="whether to reuse stored marks and store new ones"),
    ] = True,
    cluster: ClusterOption = "",
    tls_ca_file: CaFileOption = None,
    tls_cert: CertificateOption = None,
    tls_key: KeyOption = None,
) -> None:
    """Grade a class. Unchanged submissions keep their stored marks.

    If no PATH is given, grade the submissions in submitted/ and copy the marks into nbgrader's gradebook. Marks made with
    --seed or --no-store are not copied.
    """
    from autograder.grading.cluster.place import Place
    from autograder.grading.open_session import open_session

    if not cluster and (tls_ca_file or tls_cert or tls_key):
        raise typer.BadParameter("--tls-ca-file, --tls-cert and --tls-key work only with --cluster")
    chosen = load_day(day)
    check_file(json)
    check_folder(feedback)
    check_submissions(paths or [])
    class_paths = paths or submitted_folders(chosen)
    warn_without_sandbox(sandbox)
    if worksheet:
        ta_commands.remember_times(chosen, worksheet)
    stderr = plain_console(stderr=True)
    place = Place(cluster, tls_ca_file, tls_cert, tls_key) if cluster else None

    def watch(marks: Iterator[SubmissionMarks]) -> Iterator[SubmissionMarks]:
        from autograder.feedback import terminal_table

        return terminal_table.progress(marks, stderr)

    with (
        exit_on_interrupt(is_stored=use_store),
        open_session(chosen, jobs, sandbox, print_errors_once(), use_store, place) as session,
    ):
        by_hand = ta_commands.adjustments_or_warning(chosen, quiet=not paths)
        adjust = replace(by_hand, times=None).apply  # the session adds the times
        graded = session.grade(
            class_paths, seed, force, watch, group, adjust, corrects_times=bool(worksheet)
        )
        copied = None
        if not paths and use_store and seed is None:
            from autograder.nbgrader_plugin import gradebook

            copied = gradebook.copy(chosen, class_paths, graded.submissions, session.reader, force)
    pages: list[Path] = []
    problems: list[str] = []
    try:
        if json:
            write_marks(json, day, graded.submissions)
        if feedback:
            from autograder.feedback import sentences, student_page

            students = student_page.recipients(graded.with_tests())
            pages, problems = student_page.write(students, sentences.read(chosen), feedback)
    finally:
        from autograder.feedback import terminal_table

        console = output()
        width = terminal_table.NARROW if console.is_terminal else terminal_table.WIDE
        console.print(terminal_table.table(graded.rows, width))
        console.print(terminal_table.legend(graded.rows), style="dim", highlight=False)
        ta_commands.print_overrides(graded.submissions, by_hand)
        print_summary(console, graded, json)
    if feedback:
        print_text(f"wrote {counted(len(pages), 'feedback page')} to {feedback}")
    if copied:
        summary = f"nbgrader's gradebook: {counted(copied.copied, 'submission')} copied, {copied.unchanged} unchanged"
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
    """Regrade all submissions in the store. Show which students' points change, by how much, and why."""
    from autograder.grading.open_session import open_session

    chosen = load_day(day)
    warn_without_sandbox(sandbox)
    with open_session(chosen, jobs, sandbox, print_errors_once()) as session:
        from autograder.marks.regrade import report

        changes, gone = session.regrade()
        for line in report(changes, day):
            print_text(line)
        for marks in gone:
            print_error(
                f"{marks.path} ({marks.student}) no longer exists; its {format_number(marks.earned)} points are kept"
            )
        if write:
            session.regrade(is_current=True)  # reuses the marks that the first call stored
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
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MARKS.json]", help="marks written by `grade --json` (default: use the store)"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="output folder (default: report-DAY)")
    ] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="replace students' names with numbers")
    ] = False,
) -> None:
    """Write a class report as an HTML page and CSV files."""
    from autograder.course.fingerprint import fingerprint
    from autograder.feedback import class_analysis, class_page, sentences
    from autograder.marks import class_list, model
    from autograder.marks.class_roster import roster_for

    chosen = load_day(day)
    folder = out or Path(f"report-{day}")
    check_folder(folder)
    marks = (
        read_marks(file, chosen)
        if file
        else model.Marks(model.FORMAT, day, ta_commands.stored_class(chosen))
    )
    late = class_list.lateness_of_each(marks.submissions, chosen, roster_for(chosen))
    texts = sentences.read(chosen)
    analysis = class_analysis.analyse(marks, texts, fingerprint(chosen), anonymous, late)
    for written in class_page.write(analysis, folder):
        print_text(written)


app.command()(delivery_commands.export)
app.command()(delivery_commands.feedback)


for command in (
    course_commands.new,
    course_commands.build,
    course_commands.demo,
    course_commands.doctor,
):
    app.command()(command)
app.command("try")(course_commands.try_)
app.command("list")(store_commands.list_students)
app.command()(store_commands.forget)


def main() -> None:
    """Run a command. Print expected errors on one line, without a traceback."""
    from autograder.course.config import CourseError
    from autograder.course.state_folder import StoreError
    from autograder.grading.errors import ClusterError, WorkerKilled

    try:
        app(prog_name="autograder")
    except NoIsolation as error:
        print_error(error)
        sys.exit(3)
    except (
        CourseError,
        StoreError,
        WorkerKilled,
        ServerLost,
        ClusterError,
        ConnectionError,
    ) as error:
        print_error(error)
        sys.exit(2)


if __name__ == "__main__":
    main()
