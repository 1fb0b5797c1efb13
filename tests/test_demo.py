"""Run each day's demonstrations with short training loops, and check the figures and numbers that they produce."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from autograder.course import config as courses
from autograder.release.demonstrations import demonstrate, with_short_training
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

COURSE = courses.load(ROOT)
# Only the chapters of Day 1 may lack measurements.
MEASURED = {chapter.name for chapter in COURSE.day("day2").chapters}


@pytest.mark.parametrize("day", COURSE.days)
def test_the_demonstrations_run(day: str, tmp_path: Path) -> None:
    for run in demonstrate(COURSE.day(day), tmp_path, steps=3):
        assert run.output.pictures
        for picture in run.output.pictures:
            with Image.open(tmp_path / picture) as image:
                assert min(image.size) > 100
                assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 5, (
                    "the figure is blank"
                )
        assert (tmp_path / f"{run.chapter}.txt").stat().st_size > 0
        assert bool(run.output.numbers) == (run.chapter in MEASURED)


def test_only_the_number_of_training_steps_changes() -> None:
    source = "A_STEPS, B = 500, 64\nSTEPS = 7\nsteps = 9\nx = A_STEPS"
    assert (
        with_short_training(source, 3) == "A_STEPS, B = (3, 64)\nSTEPS = 3\nsteps = 9\nx = A_STEPS"
    )
    assert with_short_training("steps   =   9", 3) == "steps   =   9"
