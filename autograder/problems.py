"""Bounds for what is said about one submission: how many sentences, and how long each is."""

from __future__ import annotations

from collections.abc import Iterable

MAX_PROBLEMS = 50
LONGEST = 300  # characters of one sentence


def bounded(problems: Iterable[str]) -> list[str]:
    """Return the problems without repetitions, the long ones cut; of too many, one sentence says how many more there are."""
    found = list(dict.fromkeys(problems))
    if len(found) > MAX_PROBLEMS:
        more = len(found) - (MAX_PROBLEMS - 1)
        found = [*found[: MAX_PROBLEMS - 1], f"and {more:,} more problems"]
    return [p if len(p) <= LONGEST else f"{p[: LONGEST - 1]}…" for p in found]
