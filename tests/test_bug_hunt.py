"""Test the bug hunt: every version has a bug, and only valid inputs that show it count."""

from __future__ import annotations

import pytest
import torch

from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import RunSettings
from autograder.grading.runner import Runner
from autograder.sandbox.client import Server
from solutions.day2.bug_hunt import VERSIONS, largest_error, why_invalid
from tests.hidden_tests import COURSE, failed_tests

T, F = True, False
# For each version, inputs that show its bug: query, key and mask.
SHOWN = {
    0: (
        ([[3.0]], [[0.0], [1.0]], [[T, T]]),
        ([[1.0, 0]], [[5.0, 0]] + [[0.0, 0]] * 5, [[T] * 6]),
        ([[2.0, 2, 2, 2]], [[1.0, 0, 0, 0], [0.0] * 4], [[T, T]]),
    ),
    1: (
        ([[100.0]], [[100.0]], [[T]]),
        ([[-100.0]], [[100.0], [99.0]], [[T, T]]),
        ([[100.0, 100]], [[1.0, 1], [0.0, 0]], [[T, F]]),
    ),
    2: (
        ([[0.0]], [[0.0], [0.0]], [[T, F]]),
        ([[1.0]], [[1.0], [3.0]], [[F, T]]),
        ([[0.0], [0.0]], [[1.0], [1.0]], [[T, F], [T, T]]),
    ),
    3: (
        ([[0.0]], [[0.0], [0.0]], [[T, F]]),
        ([[1.0]], [[1.0], [-9.0]], [[T, F]]),
        ([[1.0], [1.0]], [[0.0], [-2.0]], [[T, F], [F, T]]),
    ),
    4: (
        ([[0.0]], [[0.0], [0.0]], [[F, T]]),
        ([[2.0]], [[2.0], [0.0], [1.0]], [[T, F, T]]),
        ([[0.0], [0.0]], [[0.0], [0.0]], [[T, F], [F, T]]),
    ),
    5: (
        ([[0.0], [0.0]], [[0.0], [0.0]], [[T, F], [T, T]]),
        ([[1.0], [2.0]], [[1.0], [2.0]], [[F, T], [T, F]]),
        ([[0.0]] * 3, [[0.0]] * 3, [[T, F, F], [T, T, F], [T, T, T]]),
    ),
}
RIGHT = "0, torch.zeros(1, 2), torch.ones(3, 2), torch.ones(1, 3).bool()"
# Results that are not valid inputs, with a part of the sentence that says why.
INVALID = {
    "None": "four values",
    "torch.zeros(2, 2)": "four values",
    RIGHT.replace("0,", "6,", 1): "number of a version",
    RIGHT.replace("0,", "True,", 1): "number of a version",
    RIGHT.replace("zeros(1, 2)", "zeros(2)"): "query should be a float32 tensor with two axes",
    RIGHT.replace("ones(3, 2)", "ones(3, 2).double()"): "key should be a float32 tensor",
    RIGHT.replace("zeros(1, 2)", "zeros(1, 2, device='meta')"): "on the CPU",
    RIGHT.replace("zeros(1, 2)", "zeros(1, 2) / 0"): "query should contain only numbers from",
    RIGHT.replace("ones(3, 2)", "full((3, 2), 1e30)"): "key should contain only numbers from",
    RIGHT.replace("zeros(1, 2)", "zeros(0, 2)"): "each axis of query should have 1 to 64 elements",
    RIGHT.replace("ones(3, 2)", "ones(65, 2)"): "each axis of key should have 1 to 64 elements",
    RIGHT.replace("zeros(1, 2)", "zeros(1, 4)"): "same number of features",
    RIGHT.replace(".bool()", ""): "mask should be a bool tensor",
    RIGHT.replace("ones(1, 3)", "ones(3, 1)"): "one row per query and one column per key",
    RIGHT.replace("ones(1, 3)", "zeros(1, 3)"): "each row of mask should allow at least one key",
}
USELESS = [f"{version}{RIGHT[1:]}" for version in range(len(VERSIONS))]


def returning(result: str) -> str:
    return f"def counterexample():\n    return {result}"


@pytest.mark.parametrize(("version", "number"), [(v, n) for v in SHOWN for n in range(3)])
def test_a_counterexample_earns_full_points(version: int, number: int) -> None:
    query, key, mask = map(torch.tensor, SHOWN[version][number])
    assert why_invalid(version, query, key, mask) == ""
    assert largest_error(version, query, key, mask) > 0.01
    values = ", ".join(f"torch.tensor({part})" for part in SHOWN[version][number])
    assert failed_tests("counterexample", returning(f"{version}, {values}")) == {}


@pytest.mark.parametrize("result", INVALID)
def test_invalid_inputs_fail_with_a_reason(result: str) -> None:
    failed = failed_tests("counterexample", returning(result))
    assert list(failed) == ["test_valid", "test_exposes"]
    assert all(INVALID[result] in message for message in failed.values())


@pytest.mark.parametrize("result", USELESS)
def test_inputs_for_which_the_version_is_right_do_not_count(result: str) -> None:
    failed = failed_tests("counterexample", returning(result))
    assert list(failed) == ["test_exposes"]
    assert f"version {result[0]} is right for your inputs" in failed["test_exposes"]


@pytest.mark.parametrize(
    "result",
    [
        RIGHT.replace("zeros(1, 2)", "zeros(1, 1).expand(60_000, 60_000)"),
        RIGHT.replace("zeros(1, 2)", "zeros(1, 2).to_sparse()"),
        RIGHT.replace("zeros(1, 2)", "zeros(1, 2, device='meta')"),
        RIGHT.replace("zeros(1, 2)", "zeros(1, 2, requires_grad=True)"),
        "[torch.zeros(1)] * 100_000",
        "version_0, *torch.zeros(3, 1, 1)",
    ],
)
def test_unusual_results_do_not_disturb_the_grader(server: Server, result: str) -> None:
    day = COURSE.day("day2")
    key = AnswerKey.read(day)
    (exercise,) = (e for e in day.exercises if e.name == "counterexample")
    source = key.replace_solution("counterexample", returning(result))
    outcomes = Runner(key, server).outcomes(exercise, source, RunSettings("0"))
    assert not outcomes[1].passed
    assert outcomes[1].message.startswith(
        ("the result should", "this is not a valid input, because", "version 0 is right")
    )


@pytest.mark.parametrize("version", range(len(VERSIONS)))
def test_a_version_that_is_not_repaired_fails(version: int) -> None:
    source = (
        f"def repaired_weights(query, key, mask):\n    return version_{version}(query, key, mask)"
    )
    assert failed_tests("repaired_weights", source)
