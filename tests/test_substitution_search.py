"""Test which exercises are replaced with reference solutions, and in how many runs, without running any code."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from autograder.grading.exercise_grader import GradedExercise
from autograder.grading.follow_up import substitute_references
from autograder.marks import model as marks_model
from autograder.marks.model import ExerciseMarks
from autograder.slicing.slicer import Slice


def graded(replaced: Sequence[str], reached: Sequence[str], points: float) -> GradedExercise:
    """Return a result with one test."""
    test = marks_model.TestMarks("test", points, 1.0, points == 1, f"{points}")
    marks = ExerciseMarks("f", points, 1.0, "partial", "", None, [], 0.0, [test])
    code = Slice("f", "written", (), tuple(reached), (), ())
    return GradedExercise(marks, code, (), tuple(replaced), messages=(f"{points}",))


def search(
    needs: set[str],
    keeps: set[str],
    wrong: Sequence[str],
    empty: Sequence[str],
    further: Sequence[str] = (),
) -> tuple[GradedExercise, int]:
    """Return the result for an exercise, and the number of runs.

    The exercise is right if those in `needs` are replaced and those in `keeps` are not.
    """
    reached, runs = [*empty, *wrong, *further], []

    def grade(code: Slice, replaced: Sequence[str]) -> GradedExercise:
        runs.append(replaced)
        is_right = needs <= {*replaced} and keeps.isdisjoint(replaced)
        return graded(replaced, reached, float(is_right))

    def slice_with(replaced: Sequence[str]) -> Slice:
        return graded(replaced, reached, 0).code

    original = grade(slice_with(()), ())
    lost = [*empty, *wrong]
    found = substitute_references(original, lost, further, empty, {"test": ""}, slice_with, grade)
    assert len({*map(frozenset, runs)}) == len(runs)
    return found, len(runs)


@pytest.mark.parametrize("empty", [(), ("x", "y")])
def test_a_search_finds_every_choice_of_up_to_three_wrong_exercises(empty: Sequence[str]) -> None:
    for count in (1, 2, 3):
        wrong = "abc"[:count]
        for fates in itertools.product(("needs", "keeps", ""), repeat=count):
            needs, keeps = (
                {n for n, fate in zip(wrong, fates, strict=True) if fate == wanted}
                for wanted in ("needs", "keeps")
            )
            found, runs = search({*needs, *empty}, keeps, wrong, empty)
            assert found.marks.points == 1, (needs, keeps)
            assert runs <= (16 if count > 1 else 2 + bool(empty))


@pytest.mark.parametrize("count", [4, 6, 9])
def test_a_search_finds_the_exercise_that_must_be_kept_or_replaced(count: int) -> None:
    wrong = "abcdefghi"[:count]
    for name in wrong:
        rest = {*wrong} - {name}
        kept, runs = search({*rest, "x"}, {name}, wrong, ["x"])
        assert (kept.marks.points, {*kept.marks.reference_for}) == (1, {*rest, "x"})
        assert runs <= 16
        if count <= 6:
            assert search({name}, rest, wrong, [])[0].marks.reference_for == [name]


def test_hopeless_searches_are_short() -> None:
    """The ordinary cases need no more runs than a single replacement of all exercises."""
    never = {"never"}
    assert search(never, set(), "", [])[1] == 1
    assert search(never, set(), "a", [])[1] == 2
    assert search(never, set(), "a", [], ["d", "e"])[1] == 3
    assert search(never, set(), "", ["x", "y"])[1] == 2
    assert search(never, set(), "abcdefgh", ["x"], ["d"])[1] == 16


def test_a_wrong_exercise_is_replaced_together_with_those_that_compensate_for_it() -> None:
    found, _ = search({"a", "d", "x"}, set(), "ab", ["x"], ["d"])
    assert found.marks.points == 1


def test_a_known_mistake_is_looked_for_where_no_other_wrong_exercise_runs() -> None:
    """With a reference to `m`, the code no longer calls the exercises that only `m` calls."""
    called = "abc"

    def slice_with(replaced: Sequence[str]) -> Slice:
        reached = ["m"] if "m" in replaced else ["m", *called]
        return graded(replaced, reached, 0).code

    def grade(code: Slice, replaced: Sequence[str]) -> GradedExercise:
        helps = "m" in replaced or {*called} <= {*replaced}
        return graded(replaced, code.reached, 0.5 if helps else 0.0)

    original = grade(slice_with(()), ())
    wrong = [*called, "m"]
    found = substitute_references(original, wrong, (), (), {"test": ""}, slice_with, grade)
    assert found.replaced == ("m",)
