"""Test how hidden graders compare numbers, strings, lists and dicts with the expected values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from autograder.execution.checks import close, equal
from autograder.execution.student import Opaque

EQUAL: list[tuple[Any, Any]] = [
    (3, 3),
    (3.0, 3),
    (3, 3.0),
    (torch.tensor(3), 3),
    (torch.tensor(True), True),
    (10**30, 10**30),
    (math.inf, math.inf),
    (math.nan, math.nan),
    ("Ünïcode 注意", "Ünïcode 注意"),
    (None, None),
    ([1, [2.0, "a"], True], (1, (2, "a"), True)),
    ({"a": 1, "b": [torch.ones(2)]}, {"a": 1, "b": [torch.ones(2)]}),
    ([], []),
    ({1: "a", "1": "b", (0, 1): "c"}, {(0, 1): "c", "1": "b", 1: "a"}),
]
DIFFERENT: list[tuple[Any, Any, str]] = [
    (4, 3, "the result: 4 instead of 3"),
    (0.1 + 0.2, 0.3, "the result: 0.30000000000000004 instead of 0.3"),
    (2.5, 3, "the result: 2.5 instead of 3"),
    (True, 1, "the result should be a number, but it is the bool True"),
    (1, True, "the result should be True or False, but it is the int 1"),
    (None, 3, "the result should be a number, but it is None (is a `return` missing?)"),
    ("3", 3, "the result should be a number, but it is the str '3'"),
    (torch.ones(1), 1, "the result should be a number, but it is a tensor of shape (1,)"),
    (Opaque("a numpy.ndarray"), [1], "the result should be a list, but it is a numpy.ndarray"),
    ("abd", "abc", "the result: 'abd' instead of 'abc'"),
    ([1, 2], [1, 2, 3], "the result should have length 3; yours has length 2"),
    ([1, [2, 4]], [1, [2, 3]], "the result at position 1 at position 1: 4 instead of 3"),
    ({"a": 1}, {"a": 1, "b": 2}, "the result lacks the key 'b'"),
    ({"a": 1, "c": 1}, {"a": 1}, "the result has the key 'c', which it should not have"),
    ({"1": 1}, {1: 1}, "the result lacks the key 1"),
    ({None: 1}, {None: 1, "a": 2, 3: 4}, "the result lacks the key 'a'"),
    ({1: 1, (0, "a"): 2}, {1: 1}, "the result has the key (0, 'a'), which it should not have"),
    ({"a": 2}, {"a": 1}, "the result at 'a': 2 instead of 1"),
    ([torch.ones(2)], [torch.zeros(2)], "the result at position 0: 2 of 2 values are wrong"),
]


@pytest.mark.parametrize(("seen", "expected"), EQUAL)
def test_equal_values_pass(seen: Any, expected: Any) -> None:
    assert equal(seen, expected) is seen
    assert close(seen, expected) is seen


@pytest.mark.parametrize(("seen", "expected", "message"), DIFFERENT)
def test_different_values_fail(seen: Any, expected: Any, message: str) -> None:
    with pytest.raises(AssertionError) as error:
        equal(seen, expected)
    assert str(error.value).startswith(message)


def test_close_allows_rounding_in_floats_only() -> None:
    close(2.0 / 3, float(torch.tensor(2.0) / 3))
    close([0.5, {"a": 1e6 + 1}], [0.5, {"a": 1e6}])
    with pytest.raises(AssertionError, match="1000001 instead of 1000000"):
        close(1000001, 1000000)
    with pytest.raises(AssertionError, match="inf instead of 1"):
        close(math.inf, 1.0)
    with pytest.raises(AssertionError, match=r"0\.51 instead of 0\.5"):
        close(0.51, 0.5, atol=1e-3)


def test_close_compares_tensors_of_ints_exactly() -> None:
    close(torch.tensor([1, 2]), torch.tensor([1, 2]))
    close(torch.tensor([1, 4]), torch.tensor([1, 2]), atol=2)
    with pytest.raises(AssertionError, match="3 instead of 2"):
        close(torch.tensor([1, 3]), torch.tensor([1, 2]))
    with pytest.raises(AssertionError, match="9007199254740993 instead of 9007199254740992"):
        close(torch.tensor([2**53 + 1]), torch.tensor([2**53]))


@pytest.mark.parametrize("expected", [124_439_808, 2**53 + 1, 10**30])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_close_compares_an_expected_int_exactly_with_a_float(
    expected: int, as_tensor: bool
) -> None:
    def result(value: float) -> Any:
        return torch.tensor(value) if as_tensor else value

    for wrong in (expected * (1 + 1e-6), float(expected + 1) * (1 + 1e-7), math.inf, math.nan):
        with pytest.raises(AssertionError):
            close(result(wrong), expected)
    close(torch.tensor(float(124_439_808)), 124_439_808)


def test_close_accepts_a_float_that_equals_the_expected_int_up_to_rounding() -> None:
    close(3.0, 3)
    close(torch.tensor([3.0, 4.0]).norm(), 5)
    close(0.1 * 3 * 10, 3)
    close(1e-7, 0)
    close(float(torch.full((1000,), 0.1).sum()), 100)
    close(1003.2, 1000, rtol=0.01)
    close(0.7, 0, atol=1)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("plain", [False, True])
def test_only_the_same_infinity_or_nan_matches(value: float, plain: bool) -> None:
    def check(compare: Callable[..., Any], seen: float, expected: float) -> None:
        values = ([1.0, seen], [1.0, expected])
        compare(*values if plain else map(torch.tensor, values))

    for compare in (close, equal):
        check(compare, value, value)
        for other in {0.0, 1e38, math.inf, -math.inf, math.nan} - {value}:
            for seen, expected in ((value, other), (other, value)):
                with pytest.raises(AssertionError):
                    check(compare, seen, expected)


def test_a_long_string_is_cut_around_the_first_difference() -> None:
    with pytest.raises(AssertionError) as error:
        equal("a" * 500 + "b" + "a" * 500, "a" * 1001)
    assert len(str(error.value)) < 200
    assert "b" in str(error.value).partition(" instead of ")[0]


def test_a_value_that_no_student_can_return_is_a_fault_of_the_grader() -> None:
    with pytest.raises(TypeError, match="the expected value is a complex"):
        equal(1, 1j)
