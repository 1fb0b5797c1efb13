"""Run the fuzzers for less than a minute, with the same inputs every time."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attacks.classes.running import MODES, Course
from tests.fuzz import batches, mutate, records

pytestmark = pytest.mark.slow

COUNT = 12
SEED = 17
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_honest_students_among_random_submissions_keep_their_marks() -> None:
    with tempfile.TemporaryDirectory() as folder:
        course = Course(Path(folder), MODES[0])
        complaints = batches.grade(course, batches.random_cases(SEED, COUNT))
    assert not complaints, "\n".join(complaints)


def test_changed_marks_and_rows_are_read_or_rejected_with_a_message() -> None:
    assert list(records.find_failures(SEED, 400)) == []


@settings(derandomize=True, deadline=None, max_examples=200)
@given(value=PLAIN)
def test_any_json_as_marks_is_rejected_with_a_message(value: object) -> None:
    import msgspec

    records.read_marks(msgspec.json.encode(_encodable(value)))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(data=st.binary())
def test_any_bytes_as_marks_are_rejected_with_a_message(data: bytes) -> None:
    records.read_marks(data)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(value=PLAIN, seed=st.integers(0, 1 << 20))
def test_change_value_does_not_modify_its_argument(value: object, seed: int) -> None:
    before = repr(value)
    mutate.change_value(value, random.Random(seed))
    assert repr(value) == before


def test_random_submissions_depend_only_on_the_seed(tmp_path: Path) -> None:
    texts = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        for case in batches.random_cases(SEED, 12):
            if case.family != "archives":  # archives contain the current time
                case.write(folder / case.name)
        texts.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert texts[0] == texts[1]


def _encodable(value: object) -> object:
    """Return a value with integers clamped to the range that msgspec can encode."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(min(value, 2**64 - 1), -(2**63))
    if isinstance(value, dict):
        return {key: _encodable(part) for key, part in value.items()}
    return [_encodable(part) for part in value] if isinstance(value, list) else value
