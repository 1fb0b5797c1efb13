"""Define arguments and options that several commands share.

`__main__.py` reads `--jobs`, `--cluster` and `--sandbox` before this module is imported. If you rename one of them, rename it
there as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from autograder.sandbox.client import Sandbox


def _day_names(incomplete: str) -> list[str]:
    """Return the course's days whose names begin with `incomplete`, for shell completion."""
    from autograder.course import config as courses

    try:
        names = courses.load(courses.find_root(Path.cwd())).days
    except courses.CourseError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def _check_seed(seed: str | None) -> str | None:
    """Return the seed in lower case. Raises typer.BadParameter if the seed is not a hexadecimal number."""
    if seed is not None and not re.fullmatch(r"[0-9a-fA-F]{1,64}", seed):
        raise typer.BadParameter(f"{seed!r} is not a hexadecimal number of at most 64 digits")
    return seed.lower() if seed else None


DayArgument = Annotated[
    str,
    typer.Argument(
        metavar="DAY", help="a day in grading.toml, such as day1", autocompletion=_day_names
    ),
]
PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATH]...",
        help="a platform's download, or notebooks, scripts, folders or archives (default: submitted/)",
    ),
]
JobsOption = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="number of submissions to grade in parallel (default: one per core)",
        show_default=False,
    ),
]
ClusterOption = Annotated[
    str,
    typer.Option(
        metavar="local|slurm|ADDRESS",
        help="grade on a Dask cluster: on this machine, in SLURM jobs, or through the scheduler at ADDRESS",
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca-file",
        metavar="FILE",
        help="the cluster's certificate authority (CA) certificate",
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", help="this machine's certificate for the cluster"),
]
KeyOption = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="the certificate's private key")
]
SandboxOption = Annotated[Sandbox, typer.Option(help="`none` runs student code without isolation")]
SeedOption = Annotated[
    str | None,
    typer.Option(
        metavar="HEX",
        help="the `seed` of earlier marks, to reuse their test inputs",
        callback=_check_seed,
    ),
]
GroupOption = Annotated[
    Literal["latest", "best"],
    typer.Option(help="which submission counts if several members of a group submitted"),
]
