"""Read a day's feedback sentences: what each test checks, and an explanation of each known mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autograder.course.config import Day
from autograder.execution.collect import Test, collect
from autograder.recognition.catalogue import known_mistakes


@dataclass(frozen=True)
class Texts:
    """A day's feedback sentences, by exercise and then by the name of the test or mistake."""

    day: Day
    tests: Mapping[str, Mapping[str, str]]
    mistakes: Mapping[str, Mapping[str, str]]


def read(day: Day, tests: Mapping[str, Sequence[Test]] | None = None) -> Texts:
    """Read a day's feedback sentences. Pass `tests` if the day's tests have already been collected."""
    return Texts(
        day,
        {name: {t.name: t.sentence for t in own} for name, own in (tests or collect(day)).items()},
        {name: {k.name: k.sentence for k in own} for name, own in known_mistakes(day).items()},
    )
