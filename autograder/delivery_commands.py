"""Commands that deliver marks to other systems. `cli.py` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from autograder.console import check_file, check_folder, load_day, print_error, read_marks
from autograder.export import Format
from autograder.options import DayArgument, GroupOption
from autograder.ta_commands import stored_class


def export(
    day: DayArgument,
    to: Annotated[Format, typer.Option(help="the system that will import the file")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="file to write; for gradescope, a folder")
    ],
    marks: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="marks from `grade --json` (default: the store)"),
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(metavar="FILE", help="default: roster.csv in the course")
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Canvas gradebook or Moodle worksheet to fill in"),
    ] = None,
    column: Annotated[str, typer.Option(help="the assignment's title in Canvas")] = "",
    unreadable: Annotated[
        Literal["empty", "zero"],
        typer.Option(help="grade of submissions that could not be read: none, or 0 points"),
    ] = "empty",
    group: GroupOption = "latest",
) -> None:
    """Export the marks of a class, after late penalties, to a file that another system can import."""
    from autograder.export import write

    chosen = load_day(day)
    check_folder(out) if to == "gradescope" else check_file(out)
    class_ = read_marks(marks, day).submissions if marks else stored_class(chosen)
    points = 0.0 if unreadable == "zero" else None
    for note in write.export(chosen, to, class_, out, roster, into, column, points, group):
        print_error(note)
    print(out)
