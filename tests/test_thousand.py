"""Grade a class of 28 submissions, some of them hostile. `make bench` does the same for a larger class."""

from __future__ import annotations

import ast
import random
from collections import Counter

import pytest

from autograder.course import config as courses
from autograder.course.config import Day
from bench import thousand
from bench.simulated import works
from bench.thousand import Measurement
from bench.variants import VARIANTS, rename_locals, split_cells
from tests.chosen_mistakes import CHOSEN
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

# One submission of each of 19 kinds, three hostile ones, and six correct answers for which the graders load nothing new, so
# that their memory should not grow.
COUNT, BLOCKS = 28, 1
ALONE = 4  # correct submissions used to measure the cost of running only the hidden graders


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    day, folder = courses.load(ROOT).day("day1"), tmp_path_factory.mktemp("class")
    return thousand.measure(day, COUNT, 2, folder, BLOCKS, ALONE, CHOSEN["day1"])


def test_every_submission_has_one_current_set_of_marks(result: Measurement) -> None:
    # Exit code 1 is expected if some truncated submissions cannot be read.
    assert result.exit_code in (0, 1), result.errors
    assert "Traceback" not in result.errors
    students = [marks.student for marks in result.marks]
    assert len(students) == len(set(students)) == COUNT


def test_only_correct_answers_get_full_points(result: Measurement) -> None:
    kinds = Counter(student.rpartition("-")[2] for student in (m.student for m in result.marks))
    assert kinds["right"] == 15
    assert kinds["wrong"] == 7
    assert kinds["hostile"] == 3
    assert thousand.right_without_full_points(result.marks) == []
    wrong = [m for m in result.marks if m.student.endswith("-wrong")]
    assert [m.student for m in wrong if m.points == m.max_points] == []


def test_hostile_submissions_have_no_side_effects(result: Measurement) -> None:
    assert result.side_effects == []


def test_overhead_and_memory_growth_are_limited(result: Measurement) -> None:
    # The limits are loose, because the machine may be busy and the class is small.
    assert result.cost_ratio <= 4
    assert result.memory_growth <= 20


def test_simulated_submissions_are_varied_and_reproducible(day1: Day) -> None:
    made = works(day1, 250)
    assert len({repr(work) for work in made if work.kind == "right"}) >= 12
    assert len({repr(work) for work in made if work.kind != "right"}) > 100
    assert made[0].data(1) != made[0].data(2)
    assert works(day1, 5) == made[:5]


def test_variants_change_how_code_is_written() -> None:
    cell = "def f(x):\n    y = x + 1\n    return y\n\nf(2)"
    draw = random.Random(0)
    for variant in VARIANTS:
        space: dict[str, object] = {}
        for made in variant([cell], draw):
            if "torch" not in made:
                exec(made, space)
        assert space["f"](2) == 3  # type: ignore[operator]
    assert rename_locals([cell], draw) == ["def f(x):\n    my_y = x + 1\n    return my_y\nf(2)"]
    assert len(split_cells([cell], draw)) == len(ast.parse(cell).body)
