"""Read a day's feedback sentences: what each test checks, and an explanation of each known mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from autograder.course.config import Day
from autograder.course.fingerprint import fingerprint
from autograder.course.state_folder import read_json_cache, write_cache
from autograder.recognition.catalogue import known_mistakes

if TYPE_CHECKING:
    from autograder.execution.collect import Test


@dataclass(frozen=True)
class Sentences:
    """A day's feedback sentences, keyed by exercise and then by the name of the test or mistake."""

    day: Day
    tests: Mapping[str, Mapping[str, str]]
    mistakes: Mapping[str, Mapping[str, str]]


def read(day: Day, tests: Mapping[str, Sequence[Test]] | None = None) -> Sentences:
    """Read a day's feedback sentences. Pass `tests` if the day's tests have already been collected."""
    return Sentences(
        day,
        _test_sentences(day) if tests is None else _by_name(tests),
        {name: {k.name: k.sentence for k in own} for name, own in known_mistakes(day).items()},
    )


def _test_sentences(day: Day) -> Mapping[str, Mapping[str, str]]:
    """Return what each test checks. The result is cached, because collecting the tests imports torch."""
    name = f"tests-{day.name}-{fingerprint(day)[:16]}.json"
    cached = read_json_cache(day.root, name, dict[str, dict[str, str]])
    if cached is not None:
        return cached
    from autograder.execution.collect import collect

    found = _by_name(collect(day))
    write_cache(day.root, name, msgspec.json.encode(found))
    return found


def _by_name(tests: Mapping[str, Sequence[Test]]) -> Mapping[str, Mapping[str, str]]:
    return {name: {test.name: test.sentence for test in own} for name, own in tests.items()}
