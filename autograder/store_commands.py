"""Define the commands that list the current submissions in the store and delete a student's marks. `cli.py` registers them."""

from __future__ import annotations

from typing import Annotated

import typer

from autograder.arguments import load_day
from autograder.console import output, print_note, print_text
from autograder.options import DayArgument
from autograder.stored_marks import stored_class

StudentArgument = Annotated[
    str, typer.Argument(metavar="STUDENT", help="a student's name, id or email address")
]


def list_students(day: DayArgument) -> None:
    """List each student's current submission. Show its time, file, points and lateness."""
    from autograder.feedback import terminal_table
    from autograder.marks import class_list
    from autograder.marks.class_roster import roster_for

    chosen = load_day(day)
    class_, class_roster = stored_class(chosen), roster_for(chosen)
    rows, _ = class_list.rows(class_, chosen, class_roster)
    submitted = [row for row in rows if row.marks]
    output().print(terminal_table.list_rows(submitted, day, terminal_table.WIDE))
    for note in class_list.roster_problems(rows, class_, chosen, class_roster):
        print_note(note)


def forget(day: DayArgument, student: StudentArgument) -> None:
    """Delete a student's marks for a day from the store. Other members of the group keep theirs."""
    from autograder.marks import class_list, lookup
    from autograder.marks.class_roster import roster_for
    from autograder.marks.history import History
    from autograder.marks.overrides import read_times

    chosen = load_day(day)
    class_roster = roster_for(chosen)
    with History(chosen.root, read_times(chosen)) as history, history.lock(day):
        history.relabel(day, lambda class_: class_list.labels(class_, class_roster))
        found = lookup.find_stored(student, history.current(day), chosen, class_roster)
        for label in lookup.labels_of(student, found, class_roster):
            history.forget(day, label)
            print_text(f"{label}: the marks for {day} were deleted")
