"""Define the commands that grade submissions. `cli.py` registers them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autograder.arguments import (
    AllNotesOption,
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
    check_file,
    check_folder,
    check_submissions,
    load_day,
    submitted_folders,
    write_marks,
)
from autograder.console import (
    add_note,
    output,
    plain_console,
    print_error,
    print_errors_once,
    print_text,
    print_warning,
)
from autograder.plain_text import counted, format_number
from autograder.sandbox.client import Sandbox
from autograder.sandbox.clock import cpu_count
from autograder.stored_marks import print_overrides, read_overrides, remember_times

if TYPE_CHECKING:
    from autograder.course.config import Day
    from autograder.grading.session import GradedClass
    from autograder.marks.model import SubmissionMarks
    from autograder.marks.overrides import Overrides


CORES = cpu_count()


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
    all_notes: AllNotesOption = False,
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

    If no PATH is given, grade the submissions in submitted/ and copy the marks into nbgrader's gradebook. Marks computed with
    --seed or --no-store are not copied.
    """
    from autograder.grading.cluster import ClusterLocation
    from autograder.grading.open_session import open_session

    if not cluster and (tls_ca_file or tls_cert or tls_key):
        raise typer.BadParameter("--tls-ca-file, --tls-cert and --tls-key work only with --cluster")
    chosen = load_day(day, "grade", all_notes)
    check_file(json)
    check_folder(feedback)
    check_submissions(paths or [])
    class_paths = paths or submitted_folders(chosen)
    _warn_without_sandbox(sandbox)
    if worksheet:
        remember_times(chosen, worksheet)
    stderr = plain_console(stderr=True)
    location = ClusterLocation(cluster, tls_ca_file, tls_cert, tls_key) if cluster else None

    def watch(marks: Iterator[SubmissionMarks]) -> Iterator[SubmissionMarks]:
        from autograder.feedback import terminal_table

        return terminal_table.progress(marks, stderr)

    with (
        _exit_on_interrupt(is_stored=use_store),
        open_session(
            chosen, jobs, sandbox, print_errors_once(), use_store, location, force
        ) as session,
    ):
        # Without PATH, copying the marks into the gradebook will report the error.
        overrides = read_overrides(chosen, print_warning if paths else lambda error: None)
        graded = session.grade(
            class_paths, seed, force, watch, group, overrides.apply, corrects_times=bool(worksheet)
        )
        if session.history and overrides.stored:
            class_ = session.history.current(chosen.name)
            for note in overrides.unmatched(class_):
                add_note(note)
        copied = None
        if not paths and use_store and seed is None:
            from autograder.nbgrader_plugin import gradebook

            copied = gradebook.copy(chosen, class_paths, graded.submissions, session.reader, force)
    problems = _deliver(graded, overrides, chosen, json, feedback)
    if copied:
        print_text(
            f"nbgrader's gradebook: {counted(copied.copied, 'submission')} copied, {copied.unchanged} unchanged"
        )
        problems += copied.problems
    for problem in problems:
        print_error(problem)
    if graded.ungraded or graded.unstored or not graded.submissions or problems:
        raise typer.Exit(1)


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
    _warn_without_sandbox(sandbox)
    with (
        _exit_on_interrupt(is_stored=True),
        open_session(chosen, jobs, sandbox, print_errors_once()) as session,
    ):
        from autograder.marks.regrade import Change, report

        regraded = session.regrade()
        override = read_overrides(chosen, print_warning).apply
        changes = [Change(override(c.before), override(c.after)) for c in regraded.changes]
        for line in report(changes, day):
            print_text(line)
        for marks in regraded.gone:
            print_error(
                f"{marks.path} ({marks.label}) no longer exists; its {format_number(override(marks).earned)} points are kept"
            )
        print_ungraded(regraded.ungraded)
        if write:
            # This reuses the marks that the first call stored.
            regraded = session.regrade(is_current=True)
        else:
            print(
                "\nThe current marks are unchanged. Run the command with --write to replace them."
            )
    if regraded.unstored:
        print_error(
            f"the new marks of {counted(regraded.unstored, 'submission')} could not be stored. Run the command again"
        )
    if regraded.gone or regraded.ungraded or regraded.unstored:
        raise typer.Exit(1)


def _warn_without_sandbox(sandbox: Sandbox) -> None:
    """Print a warning if student code runs without isolation."""
    if sandbox == "none":
        user = "root" if os.geteuid() == 0 else "you"
        print_warning(
            f"WITHOUT ISOLATION: student code can read and change every file that {user} can, and can send data over the network"
        )


@contextlib.contextmanager
def _exit_on_interrupt(is_stored: bool) -> Iterator[None]:
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


def _deliver(
    graded: GradedClass, overrides: Overrides, day: Day, json: Path | None, feedback: Path | None
) -> list[str]:
    """Write the marks to `json` and feedback pages to `feedback`, and print the marks.

    Return a message for each page that could not be written because of an internal error.
    """
    pages: list[Path] = []
    problems: list[str] = []
    try:
        if json:
            write_marks(json, day.name, graded.submissions)
        if feedback:
            from autograder.feedback import sentences, student_page

            students = student_page.recipients(graded.with_tests())
            pages, problems = student_page.write(students, sentences.read(day), feedback)
    finally:
        print_marks(graded, overrides, json)
    if feedback:
        print_text(f"wrote {counted(len(pages), 'feedback page')} to {feedback}")
    return problems


def print_marks(graded: GradedClass, overrides: Overrides, json: Path | None) -> None:
    """Print the table of marks, the problems, the overrides, and the summary."""
    from autograder.feedback import terminal_table

    console = output()
    width = terminal_table.NARROW if console.is_terminal else terminal_table.WIDE
    console.print(terminal_table.table(graded.rows, width))
    console.print(terminal_table.legend(graded.rows), style="dim", highlight=False)
    for line in terminal_table.problem_lines(graded.rows):
        print_text(line)
    print_overrides(graded.submissions, overrides)
    print_summary(graded, json)


def print_summary(graded: GradedClass, json: Path | None) -> None:
    """Print how many submissions kept their stored marks, and any problems that the TA should check."""
    if graded.reused:
        of = f"{graded.reused} of {counted(len(graded.submissions), 'submission')}"
        print_text(
            f"{of} has not changed since it was graded; --force grades it again"
            if graded.reused == 1
            else f"{of} have not changed since they were graded; --force grades them again"
        )
    if graded.known:
        print_text(f"{graded.known} of {counted(graded.exercises, 'exercise')} were known")
    if graded.unstored:
        file = f"They appear only in this output and in {json}." if json else ""
        print_error(
            f"the marks of {counted(graded.unstored, 'submission')} could not be stored. "
            f"{file or 'Save them with --json FILE.'}"
        )
    if graded.resubmissions:
        changes = "; ".join(map(str, graded.resubmissions))
        number = len(graded.resubmissions)
        print_text(f"students who resubmitted ({number}), with final points: {changes}")
    for one in graded.replacements:
        if one.is_older:
            points = "none" if one.before.points is None else format_number(one.before.points)
            add_note(
                f"{one.after.label}: {one.after.path} is older than {one.before.path}, "
                f"which still counts ({points} points)"
            )
    for students in graded.identical:
        same = ", ".join(students)
        print_text(
            f"these students submitted identical code, apart from comments and whitespace: {same}"
        )
    for note in graded.notes:
        add_note(note)
    ungraded = graded.ungraded
    print_ungraded(ungraded)
    with_problems = sum(bool(marks.exercises and marks.problems) for marks in graded.submissions)
    number = len(graded.submissions) - len(ungraded)
    counts = [f"{counted(number, 'submission')} graded"]
    if with_problems:
        counts.append("with problems" if number == 1 else f"{with_problems} of them with problems")
    counts += [f"{len(ungraded)} could not be graded"] if ungraded else []
    print_text(", ".join(counts))


def print_ungraded(class_: Iterable[SubmissionMarks]) -> None:
    """Print why each of these submissions could not be graded."""
    for marks in class_:
        print_error(f"{marks.label} could not be graded: {marks.reason} ({marks.path})")
