"""The short form of the fuzzers: the same inputs each time, less than a minute."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attacks.classes.running import MODES, Course
from tests.fuzz import batches, mutate, records

COUNT = 36
SEED = 17
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_neighbours_of_fuzzed_hand_ins_keep_their_marks() -> None:
    with tempfile.TemporaryDirectory() as folder:
        course = Course(Path(folder), MODES[0])
        said = batches.grade(course, batches.drawn(SEED, COUNT))
    assert not said, "\n".join(said)


def test_changed_marks_and_rows_are_refused_in_words_or_read() -> None:
    assert list(records.broken(SEED, 400)) == []


@settings(derandomize=True, deadline=None, max_examples=200)
@given(value=PLAIN)
def test_marks_of_any_json_are_refused_in_words(value: object) -> None:
    import msgspec

    records.read_marks(msgspec.json.encode(_encodable(value)))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(data=st.binary())
def test_marks_of_any_bytes_are_refused_in_words(data: bytes) -> None:
    records.read_marks(data)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(value=PLAIN, seed=st.integers(0, 1 << 20))
def test_the_mutator_leaves_what_it_is_given(value: object, seed: int) -> None:
    before = repr(value)
    mutate.changed(value, random.Random(seed))
    assert repr(value) == before


def test_a_hand_in_follows_from_its_seed_alone(tmp_path: Path) -> None:
    texts = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        for case in batches.drawn(SEED, 12):
            if case.family != "archives":  # they hold the time
                case.write(folder / case.name)
        texts.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert texts[0] == texts[1]


def _encodable(value: object) -> object:
    """Without integers that no number of JSON here can hold."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(min(value, 2**64 - 1), -(2**63))
    if isinstance(value, dict):
        return {key: _encodable(part) for key, part in value.items()}
    return [_encodable(part) for part in value] if isinstance(value, list) else value
