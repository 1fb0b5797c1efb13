"""Define hostile submissions and their expected results, and write their files."""

from __future__ import annotations

import functools
import getpass
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RIGHT = """\
import torch
def causal_mask(n, device=None):
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()
"""
SCRIPT = f"# %%\n{RIGHT}"
FULL = 3.0
SECONDS = 60.0
SLOW = 600.0  # in seconds; covers a submission's limits on CPU time and idle time, and the start-up


# ---- expected results


@dataclass(frozen=True)
class Points:
    """An expected result: the submission is graded, and its points are between two bounds."""

    low: float = 0.0
    high: float | None = None

    def matches(self, marks: Mapping[str, Any]) -> bool:
        """Return whether a submission's marks match the expected result."""
        high = self.low if self.high is None else self.high
        return bool(marks["exercises"]) and self.low <= marks["points"] <= high


@dataclass(frozen=True)
class Unread:
    """An expected result: the submission has no marks, and its problems match a regular expression."""

    reason: str = ""

    def matches(self, marks: Mapping[str, Any]) -> bool:
        """Return whether a submission's marks match the expected result."""
        problems = "\n".join(marks["problems"])
        found = re.search(self.reason, problems, re.IGNORECASE) is not None
        return not marks["exercises"] and problems != "" and found


Outcome = Points | Unread
NOTHING = (Points(0.0),)
HONEST = (Points(FULL),)
LOST = (Points(0.0), Unread())  # either result is acceptable
HARMLESS = (Points(0.0), Points(FULL), Unread())  # only the other students' results matter


@dataclass(frozen=True)
class Case:
    """A hostile submission. `write` takes the file's path without a suffix. `make test` runs only the `short` cases."""

    name: str
    family: str
    write: Callable[[Path], object]
    outcomes: tuple[Outcome, ...]
    short: bool = False
    seconds: float = SECONDS


CASES: list[Case] = []


def case(
    family: str, *outcomes: Outcome, short: bool = False, seconds: float = SECONDS
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Return a decorator that registers a function that writes a hostile submission."""

    def register(write: Callable[[Path], object]) -> Callable[[Path], object]:
        CASES.append(Case(write.__name__, family, write, outcomes, short, seconds))
        return write

    return register


def scripts(file: Path) -> list[Case]:
    """Read the cases in a script. Each case begins with a `#### name` line, which is followed by `#:` lines.

    `#: points 0` or `#: points 0 to 2.5` gives the expected points. `#: or unread REASON` also accepts a submission that could
    not be read for this reason. `#: short` includes the case in `make test`, and `#: slow` allows more time. COURSE_PATH and
    USER_NAME are replaced with their actual values.
    """
    text = file.read_text(encoding="utf-8")
    shared, *parts = re.split(r"^#### ", text, flags=re.MULTILINE)
    prelude = re.sub(r"^# ruff:.*\n|^# fmt:.*\n", "", shared, flags=re.MULTILINE)
    return [_script(file.stem, prelude, part) for part in parts]


def _script(family: str, prelude: str, part: str) -> Case:
    name, _, body = part.partition("\n")
    options = re.findall(r"^#: (.*)$", body, re.MULTILINE)
    source = re.sub(r"^#: .*\n", "", body, flags=re.MULTILINE)
    for word, secret in (("COURSE_PATH", str(ROOT)), ("USER_NAME", getpass.getuser())):
        source = source.replace(word, secret)
    outcomes: list[Outcome] = []
    seconds, short = SECONDS, False
    for option in options:
        word, _, rest = option.partition(" ")
        if word == "points":
            low, _, high = rest.partition(" to ")
            outcomes.append(Points(float(low), float(high) if high else None))
        elif word == "or":
            outcomes.append(Unread(rest.removeprefix("unread").strip()))
        elif word == "slow":
            seconds = SLOW
        else:
            assert option == "short", f"{name}: {option}"
            short = True
    write = functools.partial(script, text=f"{prelude}\n{source}")
    return Case(name.strip().replace(" ", "_"), family, write, tuple(outcomes), short, seconds)


# ---- files


def script(path: Path, text: str) -> None:
    """Write a script in percent format."""
    path.with_name(f"{path.name}.py").write_text(text, encoding="utf-8")


def raw(path: Path, data: bytes | str, ending: str = ".ipynb") -> None:
    """Write a file with arbitrary content."""
    content = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    path.with_name(f"{path.name}{ending}").write_bytes(content)


def code(source: Any, **more: Any) -> dict[str, Any]:
    """Return a code cell."""
    cell: dict[str, Any] = {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    return {**cell, "source": source, **more}


def notebook(*cells: Any, **more: Any) -> str:
    """Return the JSON of a notebook with these cells. By default, the notebook contains the correct answer."""
    found = list(cells) or [code(RIGHT)]
    return json.dumps({"cells": found, "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more})


def zipped(
    files: Mapping[str, bytes | str] | Sequence[tuple[str, bytes | str]],
    method: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    pairs = files.items() if isinstance(files, Mapping) else files
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in pairs:
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(members: Sequence[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> bytes:
    """Return a tar archive with these headers and their data."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, data: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return the header and the data of a tar archive member; `more` contains additional header fields."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    for field, value in more.items():
        setattr(header, field, value)
    return header, data
