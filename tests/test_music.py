"""Check the reference solutions for music: relative attention, the chorale corpus, and the MIDI and audio output."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import music21
import pytest
import torch
from torch import Tensor

from graders.day2 import test_music as graders
from solutions.day2 import music, results

pytestmark = pytest.mark.slow

Notes = list[tuple[int, int, int]]


@pytest.fixture(scope="module")
def chorales() -> dict[str, Tensor]:
    found: dict[str, Tensor] = music.read_chorales()
    return found


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_skew_matches_direct_lookup(n: int) -> None:
    """Compare `skew` with an implementation that looks up a vector for every pair of positions."""
    torch.manual_seed(n)
    query, relative = torch.randn(2, 3, n, 4).double(), torch.randn(3, n, 4).double()
    skewed = music.skew(query @ relative.mT)
    for i, j in itertools.product(range(n), repeat=2):
        if j <= i:
            naive = (query[:, :, i] * relative[:, n - 1 - (i - j)]).sum(dim=-1)
            torch.testing.assert_close(skewed[:, :, i, j], naive)


def test_graders_use_the_same_token_range() -> None:
    assert graders.N_TOKENS == music.N_TOKENS


def test_passion_chorale_begins_with_its_melody(chorales: dict[str, Tensor]) -> None:
    voices = music.chorale_notes(chorales["bwv244.54"])
    names = [
        " ".join(music21.pitch.Pitch(midi=pitch).nameWithOctave for pitch, _, _ in notes[:7])
        for notes in voices
    ]
    assert names[0] == "A4 D5 C5 B-4 A4 G4 A4"
    assert len(voices) == 4


@pytest.mark.parametrize("name", ["bwv244.54", "bwv227.7", "bwv276"])
def test_voices_match_music21(name: str) -> None:
    """Compare the pitch at every eighth note, and the onsets of all notes, with those that music21 reads from the same file."""
    tokens = music.read_chorale(music.CHORALES / f"{name}.mxl")
    assert tokens is not None
    score: Any = music21.converter.parse(music.CHORALES / f"{name}.mxl")
    parts = score.parts
    assert len(parts) == 4
    for voice, part in enumerate(parts):
        pitches = music.sounding_pitches(tokens)[:, voice].tolist()
        expected, onsets = [0] * len(pitches), set()
        for note in part.stripTies().flatten().notes:
            start, end = 2 * note.offset, 2 * (note.offset + note.quarterLength)
            within = [t for t in range(len(pitches)) if start <= t < end]
            onsets |= set(within[:1])
            for time in within:
                expected[time] = note.pitch.midi
        assert pitches == expected
        assert {start for _, start, _ in music.chorale_notes(tokens)[voice]} == onsets


def test_every_chorale_can_be_transposed_by_three_semitones(chorales: dict[str, Tensor]) -> None:
    assert len(chorales) > 250
    for tokens, semitones in itertools.product(chorales.values(), (-3, 3)):
        moved = music.transpose(tokens, semitones)
        assert (moved == 1).equal(tokens == 1)


def test_held_out_chorales_are_not_in_the_training_set(chorales: dict[str, Tensor]) -> None:
    training, windows = music.split_chorales(chorales)
    assert windows.shape[1] == music.CHORALE_LENGTH

    def without_key(window: Tensor) -> Tensor:
        """Transpose a window so that its highest pitch is always the same. This makes the result independent of the key."""
        return torch.where(window > 1, window - window.max() + 100, window)

    beginnings = torch.stack([without_key(piece[: music.CHORALE_LENGTH]) for piece in training])
    for window in windows:
        assert (beginnings == without_key(window)).float().mean(dim=1).max() < 0.9


def test_midi_round_trip_preserves_notes(tmp_path: Path) -> None:
    eighths = [[40, 33, 28, 21], [1, 35, 1, 0], [42, 1, 1, 1], [42, 1, 29, 17], [1, 0, 1, 1]]
    tokens = torch.tensor(eighths).flatten()
    expected: list[Notes] = [
        [(71, 0, 2), (73, 2, 1), (73, 3, 2)],
        [(64, 0, 1), (66, 1, 3)],
        [(59, 0, 3), (60, 3, 2)],
        [(52, 0, 1), (48, 3, 2)],
    ]
    assert music.chorale_notes(tokens) == expected
    file = tmp_path / "chorale.mid"
    music.write_midi(tokens, file)
    assert file.read_bytes()[:4] == b"MThd"
    score: Any = music21.converter.parse(file)
    seen = [
        [(n.pitch.midi, 2 * n.offset, 2 * n.quarterLength) for n in part.flatten().notes]
        for part in score.parts
    ]
    assert seen == expected


def test_sound_has_the_written_pitch() -> None:
    a4 = 69 - music.LOWEST_NOTE + music.FIRST_PITCH
    tokens = torch.tensor([a4, 0, 0, 0] + [1, 0, 0, 0] * 7)
    sound = torch.from_numpy(music.chorale_sound(tokens, rate=16_000))
    assert sound.abs().max() == pytest.approx(1)
    # For one second of sound, the FFT has one bin per hertz.
    spectrum = torch.fft.rfft(sound[:16_000]).abs()
    assert int(spectrum.argmax()) == 440


def test_the_performances_are_those_that_the_script_saved() -> None:
    saved = json.loads((results.FOLDER / "chorales.json").read_text(encoding="utf-8"))
    assert {title: saved[title] for title in music.PERFORMANCES} == music.PERFORMANCES
    assert all(len(text) % 128 == 0 for text in music.PERFORMANCES.values())


@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_a_lengthened_model_is_the_same_up_to_the_old_length(kind: str) -> None:
    torch.manual_seed(0)
    model = music.ChoraleModel(kind)
    tokens = torch.randint(music.N_TOKENS, (1, music.CHORALE_LENGTH + 4))
    with torch.no_grad():
        expected = model(tokens[:, : music.CHORALE_LENGTH])
        seen = music.lengthened(model, music.CHORALE_LENGTH + 4)(tokens)
    torch.testing.assert_close(seen[:, : music.CHORALE_LENGTH], expected)


def test_skew_needs_less_memory_than_a_vector_for_each_pair() -> None:
    query, relative = torch.randn(64, 32), torch.randn(64, 32)
    with music.LargestAllocation() as direct:
        music.direct_logits(query, relative)
    with music.LargestAllocation() as skewed:
        music.skewed_logits(query, relative)
    assert direct.bytes == 64 * 64 * 32 * 4
    assert skewed.bytes == 64 * 65 * 4
