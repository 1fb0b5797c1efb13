"""All hostile classes: one for each case; the same in groups; and groups of the short cases for `make test`."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.classes import archives, identity, notebooks, slicing  # register their cases
from tests.attacks.classes.case import CASES, SECONDS, Case, scripts
from tests.attacks.classes.running import HostileClass, flat

__all__ = ["ALL", "ALONE", "GROUPED", "SHORT", "archives", "notebooks", "slicing"]

FOLDER = Path(__file__).parent / "scripts"
FAMILIES = ("references", "forwarding", "forging", "waiting", "machine")  # scripts
ALL: list[Case] = [*(one for name in FAMILIES for one in scripts(FOLDER / f"{name}.py")), *CASES]
ALONE: list[HostileClass] = [*(flat([one]) for one in ALL), *identity.CLASSES]
GROUP = 12
QUICK = [one for one in ALL if one.seconds <= SECONDS]
SLOW = [flat([one]) for one in ALL if one.seconds > SECONDS]


def _groups() -> list[HostileClass]:
    """All quick cases, a dozen in one class."""
    parts = [QUICK[at : at + GROUP] for at in range(0, len(QUICK), GROUP)]
    return [flat(part, f"from {part[0].name} to {part[-1].name}") for part in parts]


GROUPED: list[HostileClass] = [*_groups(), *SLOW, *identity.SHORT]
SHORT: list[HostileClass] = [
    flat([one for one in ALL if one.short and one.family in FAMILIES], "code"),
    flat([one for one in ALL if one.short and one.family not in FAMILIES], "files"),
    *identity.SHORT,
]
