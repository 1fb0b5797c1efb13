"""Define the commands that explain or override the marks of individual students. `cli.py` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autograder.arguments import AllNotesOption, DayArgument, SeedOption, load_day
from autograder.console import add_note, output, print_text
from autograder.plain_text import format_number
from autograder.stored_marks import read_class, read_overrides

if TYPE_CHECKING:
    from autograder.course.config import Day
    from autograder.marks.overrides import Request


def explain(
    day: DayArgument,
    who: Annotated[
        str,
        typer.Argument(
            metavar="STUDENT|PATH",
            help="a graded student's name, id or email address, or the path of a submission",
        ),
    ],
    exercise: Annotated[
        str,
        typer.Argument(
            metavar="[EXERCISE]",
            help="exercise to show in detail (default: summarise all exercises)",
        ),
    ] = "",
    student: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="the student to show, if PATH contains submissions from several students",
        ),
    ] = "",
    seed: SeedOption = None,
) -> None:
    """Show why a submission got its points.

    For one exercise, show the graded code, the result of every test, and the inputs of failed tests.
    """
    from autograder.grading.explain import explain as explain_lines

    chosen = load_day(day)
    override = read_overrides(chosen).apply
    for line in explain_lines(chosen, who, exercise, student, seed, override):
        print_text(line)


def override(
    day: DayArgument,
    student: Annotated[
        str, typer.Argument(metavar="[STUDENT]", help="a student's name, id or email address")
    ] = "",
    exercise: Annotated[str, typer.Argument(metavar="[EXERCISE]", help="the exercise's name")] = "",
    points: Annotated[
        str,
        typer.Option(
            metavar="POINTS",
            help="the exercise's new points (not the change in points), before the late penalty",
        ),
    ] = "",
    comment: Annotated[str, typer.Option(metavar="TEXT", help="a comment for the student")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="remove the override")] = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV file of overrides, with the columns student,exercise,points,comment",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="the name that students see next to the points or comment (default: “your TA”)",
        ),
    ] = "",
    all_notes: AllNotesOption = False,
) -> None:
    """Override an exercise's points or comment. If you set only one, the other is unchanged. Regrading keeps both.

    Without STUDENT, list all overrides.
    """
    from autograder.marks.overrides import Request

    chosen = load_day(day, "override", all_notes)
    if csv and (student or remove or points or comment):
        raise typer.BadParameter("pass either --csv, or STUDENT and EXERCISE")
    if remove and (points or comment or by):
        raise typer.BadParameter("--remove cannot be combined with --points, --comment or --by")
    if csv:
        _add(chosen, _read_requests(csv), by)
    elif not student and (remove or points or comment or by):
        raise typer.BadParameter("STUDENT is missing")
    elif not student:
        _list(chosen)
    elif not exercise:
        raise typer.BadParameter("EXERCISE is missing")
    elif remove:
        _remove(chosen, student, exercise)
    else:
        _add(chosen, [Request(student, exercise, points, comment)], by)


def _read_requests(file: Path) -> list[Request]:
    from autograder.export import csv_table
    from autograder.marks.overrides import Request

    table = csv_table.read(file, "a table of overrides")
    columns = [table.column(name) for name in ("student", "exercise", "points", "comment")]
    requests = []
    for number, line in enumerate(table.rows, 2):
        student, exercise, points, comment = (line[column].strip() for column in columns)
        requests.append(Request(student, exercise, points, comment, f"{file}, row {number}: "))
    return requests


def _add(day: Day, requests: list[Request], by: str) -> None:
    from autograder.marks.history import History
    from autograder.marks.overrides import OverrideStore, read_stored, read_times, resolve
    from autograder.submissions import roster as rosters

    with History(day.root, read_times(day)) as history:
        class_ = history.current(day.name)
    stored = read_stored(day).stored
    students = rosters.for_course(day.root)
    new = resolve(requests, class_, day, students, by, stored)
    with OverrideStore(day.root) as store:
        store.add(day.name, new)
    _list(day, {(one.key, one.exercise) for one in new})


def _remove(day: Day, student: str, exercise: str) -> None:
    from autograder.course.config import CourseError
    from autograder.marks.history import History
    from autograder.marks.overrides import OverrideStore, find_keys, read_times
    from autograder.submissions import roster as rosters

    with History(day.root, read_times(day)) as history:
        class_ = history.current(day.name)
    with OverrideStore(day.root) as store:
        keys = find_keys(student, store.read(day.name), class_, day, rosters.for_course(day.root))
        if not store.remove(day.name, keys, exercise):
            raise CourseError(f"{student} has no override for {exercise}")
    print_text(f"{student}, {exercise}: the override was removed")


def _list(day: Day, only: set[tuple[str, str]] | None = None) -> None:
    """Print each override, and the student's total points. `only` contains keys and exercises."""
    from autograder.marks.overrides import describe, read_stored

    class_ = read_class(day)
    is_any = any(exercise.override for marks in class_ for exercise in marks.exercises)
    if not is_any and not read_stored(day).stored:
        print_text(f"{day.name} has no overrides")
    for marks in class_:
        total = (
            f"{format_number(marks.earned)} of {format_number(marks.max_points)} points in total"
        )
        for exercise in marks.exercises:
            keys = {(key, exercise.name) for key in marks.origin.keys}
            if exercise.override and (only is None or keys & only):
                print_text(f"{marks.label}: {describe(exercise)}; {total}")


StudentArgument = Annotated[
    str, typer.Argument(metavar="STUDENT", help="a student's name, id or email address")
]


def list_students(day: DayArgument, all_notes: AllNotesOption = False) -> None:
    """List each student's current submission. Show its time, file, points and lateness."""
    from autograder.feedback import terminal_table
    from autograder.marks import class_list, class_notes
    from autograder.submissions import roster as rosters

    chosen = load_day(day, "list", all_notes)
    class_, roster = read_class(chosen), rosters.for_course(chosen.root)
    results = class_list.results(class_, chosen, roster)
    submitted = [result for result in results if result.marks]
    output().print(terminal_table.list_rows(submitted, day, terminal_table.WIDE))
    for note in class_notes.roster_notes(results, chosen, roster):
        add_note(note)


def forget(day: DayArgument, student: StudentArgument) -> None:
    """Delete a student's marks for a day from the store. Other members of the group keep theirs."""
    from autograder.grading.results import ResultStore
    from autograder.live import timeline
    from autograder.marks import lookup
    from autograder.marks.history import History
    from autograder.submissions import roster as rosters

    chosen = load_day(day)
    roster = rosters.for_course(chosen.root)
    results = ResultStore(chosen.root)
    with History(chosen.root) as history, history.lock(day):
        found = lookup.find_stored(student, history.current(day), chosen, roster)
        for key, label in lookup.keys_of(student, found, chosen, roster).items():
            timeline.forget(chosen.root, day, key)
            history.forget(day, key)
            results.forget(day, key)
            print_text(f"{label}: the marks for {day} were deleted")
    for file in (chosen.root / ".autograder").glob(f"notes-*-{day}.txt"):
        file.unlink(missing_ok=True)  # may contain the student's name
