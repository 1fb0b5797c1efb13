"""Run each day's demonstrations with short training loops, and check the figures and numbers that they produce."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from autograder.course import config as courses
from autograder.course.config import Course
from autograder.release.build import with_short_training
from bench.demonstrations import demonstrate
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

COURSE = courses.load(ROOT)
# Only the chapters of Day 1 and the warm-up may lack measurements.
MEASURED = {chapter.name for chapter in COURSE.day("day2").chapters} - {"bug_hunt"}
# Replacements that make the demonstrations of Day 2 compute less. Each text to replace occurs once in its chapter.
LESS = {
    "family": {
        "range(8, 14)]": "range(8, 12)]",  # shorter sequences
        "LONGEST + 1, GROUP)[:512]": "LONGEST + 1, GROUP)[:32]",
    },
    "language_model": {
        "len(TOPIC_TEXT) * 9 // 10": "len(TOPIC_TEXT) * 99 // 100",  # fewer held-out characters
        "lengths = [64, 128, 256, 512]": "lengths = [4, 8, 16, 32]",
    },
    "memory": {
        "STORE = 40_000": "STORE = 1_000",
        "LOOKUPS = 512": "LOOKUPS = 64",
        "read_text(model, TOPIC_TRAINING, True)": "read_text(model, TOPIC_TRAINING[:20_000], True)",
    },
    "music": {
        'CHORALES.glob("bwv*.mxl")': 'CHORALES.glob("bwv3*.mxl")',
        "temperature=0.8, seed=0)": "temperature=0.8, seed=0, length=64)",
    },
    "vision": {  # compare the models' layers on fewer images
        "vit.blocks], digit_test[0])": "vit.blocks], digit_test[0][:30])",
        "list(cnn[:4]), digit_test[0])": "list(cnn[:4]), digit_test[0][:30])",
        "F.one_hot(digit_test[1])": "F.one_hot(digit_test[1][:30])",
    },
}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """Return a copy of the course whose demonstrations do less computation."""
    root = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "solutions", root / "solutions")
    shutil.copy(ROOT / courses.GRADING_TOML, root)
    for chapter, changes in LESS.items():
        file = root / "solutions" / "day2" / f"{chapter}.py"
        text = file.read_text(encoding="utf-8")
        for before, after in changes.items():
            assert text.count(before) == 1, f"{before!r} does not occur exactly once in {chapter}"
            text = text.replace(before, after)
        file.write_text(text, encoding="utf-8")
    return courses.load(root)


def picture_in(file: Path) -> io.BytesIO:
    """Return a figure's picture. A page of `look` contains one."""
    if file.suffix == ".png":
        return io.BytesIO(file.read_bytes())
    found = re.search('src="data:image/png;base64,([^"]+)"', file.read_text(encoding="utf-8"))
    assert found
    return io.BytesIO(base64.b64decode(found[1]))


@pytest.mark.parametrize("day", COURSE.days)
def test_the_demonstrations_run(
    day: str, course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more threads do not help with models this small
    for run in demonstrate(course.day(day), tmp_path, steps=3):
        assert run.pictures
        for picture in run.pictures:
            with Image.open(picture_in(tmp_path / picture)) as image:
                assert min(image.size) > 100
                assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 5, (
                    "the figure is blank"
                )
        printed = (tmp_path / f"{run.chapter}.txt").read_bytes()
        assert printed
        assert b"\r" not in printed
        assert run.numbers or run.chapter not in MEASURED


def test_only_the_number_of_training_steps_changes() -> None:
    source = "A_STEPS, B = 500, 64\nSTEPS = 7\nsteps = 9\nx = A_STEPS"
    assert (
        with_short_training(source, 3) == "A_STEPS, B = (3, 64)\nSTEPS = 3\nsteps = 9\nx = A_STEPS"
    )
    assert with_short_training("steps   =   9", 3) == "steps   =   9"
