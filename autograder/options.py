"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from autograder.sandbox.client import Sandbox

DayArgument = Annotated[str, typer.Argument(metavar="DAY", help="day1 or day2")]
PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATH]...", help="notebooks, scripts, folders or archives (default: submitted/)"
    ),
]
JobsOption = Annotated[
    int, typer.Option(min=1, help="number of processes (default: one for each core)")
]
SandboxOption = Annotated[Sandbox, typer.Option(help="`none` runs student code without isolation")]
SeedOption = Annotated[
    str | None,
    typer.Option(
        metavar="HEX", help="the seed of an earlier run, to use the same test inputs again"
    ),
]
GroupOption = Annotated[
    Literal["latest", "best"],
    typer.Option(help="which submission counts if several members of a group submitted"),
]
