"""Build the classes that contain hostile submissions.

`ALONE` contains one class for each case. `GROUPED` combines a dozen quick cases in each class. `SHORT` is a small selection
for `make test`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.attacks.classes import archives, identity, notebooks, slicing  # registers cases
from tests.attacks.classes.case import CASES, HONEST, SECONDS, Case, notebook, scripts
from tests.attacks.classes.running import HostileClass, flat, student

__all__ = ["ALL", "ALONE", "GROUPED", "SHORT", "archives", "notebooks", "slicing"]

FOLDER = Path(__file__).parent / "scripts"
FAMILIES = ("references", "forwarding", "forging", "waiting", "machine")  # scripts
ALL: list[Case] = [*(one for name in FAMILIES for one in scripts(FOLDER / f"{name}.py")), *CASES]
ALONE: list[HostileClass] = [*(flat([one]) for one in ALL), *identity.CLASSES]
GROUP = 12
QUICK = [one for one in ALL if one.seconds <= SECONDS]
SLOW = [flat([one]) for one in ALL if one.seconds > SECONDS]


def _groups() -> list[HostileClass]:
    """Return classes that each contain a dozen quick cases."""
    parts = [QUICK[at : at + GROUP] for at in range(0, len(QUICK), GROUP)]
    return [flat(part, f"from {part[0].name} to {part[-1].name}") for part in parts]


def whole(cases: Sequence[Case]) -> HostileClass:
    """Return a class in nbgrader's folder layout, which `autograder grade` finds, with one hostile student per case."""

    def write(root: Path) -> list[str]:
        for who in ("ada", "zoe"):
            place = root / "submitted" / who / "day1"
            place.mkdir(parents=True)
            (place / "day1.ipynb").write_text(notebook())
        for one in cases:
            place = root / "submitted" / student(one) / "day1"
            place.mkdir(parents=True)
            one.write(place / "day1")
        return []

    students = {"ada": HONEST, "zoe": HONEST, **{student(one): one.outcomes for one in cases}}
    seconds = max(SECONDS, 10.0 * len(cases))
    return HostileClass("nbgrader", write, students, seconds=seconds, is_whole=True)


WHOLE = whole([one for one in ALL if one.family in ("notebooks", "yaml") and one.short])
GROUPED: list[HostileClass] = [*_groups(), *SLOW, *identity.GROUPED, WHOLE]
SHORT: list[HostileClass] = [flat([one for one in ALL if one.short], "short"), identity.CLAIMED]
