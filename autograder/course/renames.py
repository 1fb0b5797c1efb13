"""Find exercises by their names in earlier releases. Entry points: `older_names`, `known_names` and `original_name_of`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autograder.course.config import Day, Exercise


def older_names(day: Day) -> dict[str, str]:
    """Map each older name of an exercise to the exercise's current name."""
    return {older: e.name for e in day.exercises for older in e.renamed_from}


def known_names(day: Day) -> tuple[str, ...]:
    """Return the current and older names of a day's exercises."""
    return (*day.names, *older_names(day))


def original_name_of(exercise: Exercise) -> str:
    """Return an exercise's original name. Seeds are derived from it, so a renamed exercise keeps its inputs."""
    return next(iter(exercise.renamed_from), exercise.name)
