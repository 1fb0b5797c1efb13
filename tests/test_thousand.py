"""The short form of the class of a thousand that `make bench` grades: 41 submissions, the hostile among them."""

from __future__ import annotations

import ast
import random
from collections import Counter

import pytest

from autograder.course.config import Day
from bench import thousand
from bench.simulated import works
from bench.thousand import Measurement
from bench.variants import VARIANTS, rename_locals, split_cells

pytestmark = pytest.mark.slow

COUNT = 41


@pytest.fixture(scope="module")
def result(day1: Day, tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    return thousand.measure(day1, COUNT, 2, tmp_path_factory.mktemp("class"), blocks=2)


def test_every_submission_has_one_current_set_of_marks(result: Measurement) -> None:
    # 1: of some that were cut off nothing can be read.
    assert result.exit_code in (0, 1), result.errors
    assert "Traceback" not in result.errors
    students = [marks.student for marks in result.marks]
    assert len(students) == len(set(students)) == COUNT


def test_right_answers_have_all_points_in_any_style_and_wrong_ones_have_not(
    result: Measurement,
) -> None:
    kinds = Counter(student.rpartition("-")[2] for student in (m.student for m in result.marks))
    assert kinds["right"] >= 18
    assert kinds["wrong"] >= 14
    assert kinds["hostile"] == 3
    assert thousand.right_without_full_points(result.marks) == []
    wrong = [m for m in result.marks if m.student.endswith("-wrong")]
    assert [m.student for m in wrong if m.points == m.max_points] == []


def test_the_hostile_leave_nothing_outside(result: Measurement) -> None:
    assert result.side_effects == []


def test_it_costs_little_beside_the_graders_and_memory_stays(result: Measurement) -> None:
    # On a busy machine, and so short a class; `make bench` says what it should be.
    assert result.cost_ratio <= 3
    assert result.memory_growth <= 50


def test_a_class_is_of_many_different_works_and_no_two_are_the_same(day1: Day) -> None:
    made = works(day1, 250)
    assert len({work.data(0) for work in made if work.kind == "right"}) >= 12
    assert len({work.data(0) for work in made if work.kind != "right"}) > 100
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
