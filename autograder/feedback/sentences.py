"""Read a day's feedback sentences: what each test checks, and an explanation of each known mistake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from autograder.course.config import Day
from autograder.course.fingerprint import fingerprint
from autograder.course.state_folder import read_json_cache, write_cache

Texts = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Sentences:
    """A day's feedback sentences, keyed by exercise and then by the name of the test or mistake."""

    day: Day
    tests: Mapping[str, Mapping[str, str]]
    mistakes: Mapping[str, Mapping[str, str]]


def read(day: Day) -> Sentences:
    """Read a day's feedback sentences. They are cached, because collecting the tests imports torch."""
    name = f"sentences-{day.name}-{fingerprint(day)[:16]}.json"
    texts = read_json_cache(day.root, name, tuple[Texts, Texts])
    if texts is None:
        from autograder.execution.catalogue import known_mistakes
        from autograder.execution.collect import collect

        tests = {name: {t.name: t.sentence for t in own} for name, own in collect(day).items()}
        mistakes = known_mistakes(day).items()
        texts = tests, {name: {k.name: k.sentence for k in own} for name, own in mistakes}
        write_cache(day.root, name, msgspec.json.encode(texts))
    return Sentences(day, *texts)
