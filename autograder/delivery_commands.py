"""Define the commands that deliver marks: the class report, exports and feedback pages. `cli.py` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from autograder.arguments import (
    AllNotesOption,
    DayArgument,
    GroupOption,
    check_file,
    check_folder,
    load_course,
    load_day,
)
from autograder.console import add_note, print_error, print_note, print_text, print_warning
from autograder.export import Format, Target
from autograder.plain_text import counted
from autograder.stored_marks import read_class

IMPORTS = {
    "canvas": "In Canvas, open the gradebook and choose “Import”.",
    "moodle": "In Moodle, open the gradebook and choose “Import”.",
    "gradescope": (
        "Each file is named after its student. An autograder on Gradescope can copy it to "
        "/autograder/results/results.json. For a table of all points, use --to csv."
    ),
    "nbgrader": "It has the columns of `nbgrader export`.",
    "csv": "It has one row per student and one column per exercise.",
}
WORKSHEET = (
    "In Moodle, open the submissions and choose “Upload grading worksheet”. Moodle skips grades that changed there after you "
    "downloaded the worksheet, so export a correction into a new one."
)
HINTS = {
    "canvas": "In Canvas, open the assignment and choose “Upload Submissions”.",
    "moodle": "In Moodle, open the submissions and choose “Upload multiple feedback files in a zip”.",
    "folder": "Each file is named after its student.",
}


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
    all_notes: AllNotesOption = False,
) -> None:
    """Write a class report as an HTML page and CSV files, and a page about the last session that `live` followed."""
    from autograder.course.fingerprint import course_version
    from autograder.feedback import class_page, sentences
    from autograder.live import session_report
    from autograder.marks import model
    from autograder.marks.class_list import lateness_of_each
    from autograder.submissions import roster as rosters

    chosen = load_day(day, "report", all_notes)
    folder = out or Path(f"report-{day}")
    check_folder(folder)
    class_ = read_class(chosen, file)
    late = lateness_of_each(class_, chosen, rosters.for_course(chosen.root))
    marks = model.Marks(model.FORMAT, day, class_)
    texts = sentences.read(chosen)
    analysis = class_page.analyse(marks, texts, course_version(chosen), anonymous, late)
    for written in class_page.write(analysis, folder):
        print_text(f"wrote {written}")
    if session := session_report.write(chosen, texts, folder):
        print_text(f"wrote {session}")


def export(
    day: DayArgument,
    to: Annotated[Format, typer.Option(help="the system that will import the file")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="output file; for gradescope, a folder")
    ],
    marks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="marks written by `grade --json` (default: use the store)"
        ),
    ] = None,
    roster: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="roster file (default: roster.csv in the course)"),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Canvas gradebook or Moodle worksheet to fill in"),
    ] = None,
    column: Annotated[
        str,
        typer.Option(
            metavar="TITLE",
            help="the assignment's title in Canvas (default: the title that begins with the day's name)",
        ),
    ] = "",
    unreadable: Annotated[
        Literal["empty", "zero"],
        typer.Option(help="grade for submissions that could not be read: no grade, or 0 points"),
    ] = "empty",
    missing: Annotated[
        Literal["empty", "zero"],
        typer.Option(
            help="grade for students without a submission or an earlier grade: no grade, or 0 points"
        ),
    ] = "empty",
    group: GroupOption = "latest",
    all_notes: AllNotesOption = False,
) -> None:
    """Export marks for another system. Late penalties are applied."""
    from autograder.course.config import CourseError
    from autograder.export import write
    from autograder.marks import class_list, class_notes

    chosen = load_day(day, "export", all_notes)
    check_folder(out) if to == "gradescope" else check_file(out)
    if into and to not in ("canvas", "moodle"):
        raise CourseError(f"--into works only with canvas and moodle, not with {to}")
    if column and not (into and to == "canvas"):
        raise CourseError("--column works only with --to canvas and --into")
    if into and out.exists() and out.samefile(into):
        raise CourseError(f"--out would overwrite {into}, the --into file. Choose a different name")
    class_ = read_class(chosen, marks, into if to == "moodle" else None)
    is_from_canvas = any(one.origin.source == "canvas" for one in class_)
    gradebook = into if to == "canvas" and is_from_canvas else None
    students = write.choose_roster(chosen, roster, gradebook)
    points = 0.0 if unreadable == "zero" else None
    no_submission = 0.0 if missing == "zero" else None
    results = class_list.results(class_, chosen, students, points, group, no_submission)
    notes = [*class_notes.export_notes(results, chosen, students)]
    notes += write.export(results, chosen, to, out, into, column, group, missing == "zero")
    for note in notes:
        add_note(note)
    where = WORKSHEET if to == "moodle" and into else IMPORTS[to]
    print_text(f"wrote {out}. {where}")


def feedback(
    day: DayArgument,
    to: Annotated[
        Target, typer.Option("--for", help="where students will find their pages")
    ] = "folder",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="output folder or zip (default: feedback-DAY or feedback-DAY.zip)"
        ),
    ] = None,
    worksheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Moodle's grading worksheet, needed for group submissions"
        ),
    ] = None,
    changed: Annotated[
        bool,
        typer.Option(
            "--changed",
            help="write only pages that differ from the last one written for the student",
        ),
    ] = False,
    group: GroupOption = "latest",
    all_notes: AllNotesOption = False,
) -> None:
    """Write a feedback page for each student in the store. The output is a folder, or a zip for Canvas or Moodle."""
    from autograder.export import feedback_files
    from autograder.feedback import sentences
    from autograder.marks import class_list, class_notes
    from autograder.marks.overrides import OverrideStore
    from autograder.submissions import roster as rosters

    if worksheet and to != "moodle":
        raise typer.BadParameter("--worksheet works only with --for moodle")
    if changed and to == "folder":
        raise typer.BadParameter("--changed works only with --for canvas and --for moodle")
    chosen = load_day(day, "feedback", all_notes)
    place = out or Path(f"feedback-{day}" if to == "folder" else f"feedback-{day}.zip")
    check_folder(place) if to == "folder" else check_file(place)
    roster = rosters.for_course(chosen.root)
    rows = class_list.results(read_class(chosen), chosen, roster, group=group)
    for note in class_notes.roster_notes(rows, chosen, roster):
        add_note(note)
    with OverrideStore(chosen.root) as store:
        received = store.pages(day, to) if changed else None
        if changed and not received:
            print_text(f"no earlier pages for {to} are recorded, so a page is written for everyone")
        texts = sentences.read(chosen)
        done = feedback_files.deliver(rows, texts, to, place, worksheet, received, group)
        store.add_pages(day, to, done.received)
    for note in done.notes:
        print_warning(note)
    for problem in done.problems:
        print_error(problem)
    if done.pages:
        print_text(f"wrote {counted(done.pages, 'feedback page')} to {place}. {HINTS[to]}")
    if done.unchanged:
        print_text(f"left out {counted(done.unchanged, 'page')} that did not change")
    if not (done.pages or done.unchanged):
        print_error(f"there are no feedback pages to write, so {place} was not written")
    if done.problems or not (done.pages or done.unchanged):
        raise typer.Exit(1)


def roster(
    canvas: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a gradebook exported from Canvas")
    ] = None,
    moodle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DAY=FILE",
            help="Moodle's grading worksheet for a day; for several days, repeat the option",
        ),
    ] = None,
    gradescope: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a roster exported from Gradescope")
    ] = None,
    nbgrader: Annotated[
        Path | None, typer.Option(metavar="FILE", help="nbgrader's gradebook.db")
    ] = None,
) -> None:
    """Make roster.csv from what the platforms export, so that each student's ids on all platforms belong together.

    An existing roster.csv keeps its rows and columns. People who share no id or email address are joined by name, and listed.
    """
    from autograder.course.files import write_output
    from autograder.export import csv_table
    from autograder.export import roster as rosters
    from autograder.submissions.roster import FILE

    if not (canvas or moodle or gradescope or nbgrader):
        raise typer.BadParameter(
            "pass at least one of --canvas, --moodle, --gradescope and --nbgrader"
        )
    course = load_course()
    file = course.root / FILE
    sources = [("roster.csv", rosters.read_existing(file))] if file.exists() else []
    sources += [("Canvas", rosters.read_canvas(canvas))] if canvas else []
    for text in moodle or ():
        day, equals, sheet = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--moodle {text}: write DAY=FILE, such as day1={text}")
        sources.append((f"Moodle, {day}", rosters.read_moodle(Path(sheet), course.day(day).name)))
    sources += [("Gradescope", rosters.read_gradescope(gradescope))] if gradescope else []
    sources += [("nbgrader", rosters.read_nbgrader(nbgrader))] if nbgrader else []
    table, notes = rosters.join(sources)
    write_output(file, csv_table.to_csv(table).encode())
    for note in notes:
        print_note(note)
    print_text(f"wrote {counted(len(table) - 1, 'student')} to {file}")
