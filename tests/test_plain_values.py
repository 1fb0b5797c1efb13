"""Test how hidden graders compare numbers, strings, lists and dicts with the expected values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from autograder.execution.checks import array, close, equal, finite, rows_like, signs_like
from autograder.execution.differences import Mismatch
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
    (1 + 2j, 1 + 2j),
    (2, np.float64(2)),
    (2.0, np.array(2)),
    (np.array(2.0), 2),
    (b"ab", b"ab"),
    ({1, "a", (2, 3)}, {1, "a", (2, 3)}),
    ({1}, frozenset({1})),
    (np.array([1.0, math.nan, math.inf]), np.array([1.0, math.nan, math.inf])),
    (np.array([[1, 2]], np.uint8), np.array([[1, 2]], np.uint8)),
    (np.array([1j, 2]), np.array([1j, 2])),
    ({"a": [np.ones(2)]}, {"a": [np.ones(2)]}),
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
    (2j, 1j, "the result: 0+2j instead of 0+1j"),
    (b"a", b"b", "the result: b'a' instead of b'b'"),
    (1, b"b", "the result should be a bytes object, but it is the int 1"),
    ({1}, {1, 2}, "the result lacks 2"),
    ({1, 3}, {1}, "the result contains 3, which it should not contain"),
    ([1], {1}, "the result should be a set, but it is a list or tuple of length 1"),
    ([1.0], np.ones(1), "the result should be an array, but it is a list or tuple of length 1"),
    (torch.ones(1), np.ones(1), "the result should be an array, but it is a tensor of shape (1,)"),
    (np.ones(1), torch.ones(1), "the result should be a tensor, but it is an array of shape (1,)"),
    (np.ones(1), [1], "the result should be a list, but it is an array of shape (1,)"),
    (np.ones((2, 1)), np.ones(2), "the result should have shape (2,); yours has shape (2, 1)"),
    (np.ones(2, int), np.ones(2), "the result should have dtype float64; yours has dtype int64"),
    (
        np.ones((2, 2)),
        np.eye(2),
        "the result: 2 of 4 values are wrong; for example, 1 instead of 0 at position (0, 1)",
    ),
    (
        np.array([1j]),
        np.array([1 + 0j]),
        "the result: the value is wrong: 0+1j instead of 1+0j at position 0",
    ),
    (
        np.array([math.nan]),
        np.ones(1),
        "the result: the value is wrong: nan instead of 1 at position 0",
    ),
    (
        np.array([2**53 + 1]),
        np.array([2**53]),
        "the result: the value is wrong: 9007199254740993 instead of",
    ),
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
    with pytest.raises(TypeError, match="the expected value is a object"):
        equal(1, object())


@pytest.mark.parametrize(
    ("dtype", "near", "far"),
    [
        ("float64", 1e-10, 1e-7),
        ("float32", 1e-6, 1e-3),
        ("float16", 1e-3, 0.1),
        ("complex128", 1e-10, 1e-7),
    ],
)
def test_the_tolerance_of_an_array_depends_on_its_dtype(
    dtype: str, near: float, far: float
) -> None:
    expected = np.ones(3, dtype)
    close(expected + np.array(near, dtype), expected)
    with pytest.raises(Mismatch, match="3 of 3 values are wrong"):
        close(expected + np.array(far, dtype), expected)
    close(expected + np.array(far, dtype), expected, atol=0.2)
    if near > 1e-8:
        return
    with pytest.raises(
        Mismatch, match=r"1\.0000000001\d* instead of 1|1\.0000000001\d*\+0j instead of 1\+0j"
    ):
        equal(expected + near, expected)


def test_the_largest_error_in_an_array_is_shown_with_its_surroundings() -> None:
    expected = np.zeros((3, 4))
    seen = expected.copy()
    seen[1, 2], seen[2, 0] = math.nan, 5
    with pytest.raises(
        Mismatch, match=r"2 of 12 values are wrong; for example, nan .*\(1, 2\)"
    ) as error:
        close(seen[::-1][::-1], expected)
    assert error.value.values is not None
    assert error.value.values.seen[1] == [0, 0, "NaN", 0]
    assert "nan" in error.value.safe


def test_an_array_of_another_dtype_is_close_if_the_test_asks_for_that_dtype() -> None:
    close(np.array([1 / 3], np.float32), np.array([1 / 3]), dtype=np.float32)
    array(np.ones((2, 3), np.int32), (2, 3), np.int32)
    with pytest.raises(Mismatch, match="should have dtype int32; yours has dtype int64"):
        array(np.ones(2, np.int64), (2,), np.int32)


def test_finite_accepts_arrays() -> None:
    finite(np.ones((2, 2)))
    with pytest.raises(Mismatch, match=r"should be finite, but it is inf at position \(0, 1\)"):
        finite(np.array([[1.0, math.inf]]))


def test_vectors_are_compared_up_to_their_signs() -> None:
    expected = np.array([[1.0, 2.0], [3.0, -4.0]])
    for signs in ([1, 1], [-1, 1], [1, -1], [-1, -1]):
        seen = expected * signs
        close(seen, signs_like(seen, expected, axis=0))
    close(-expected[0], signs_like(-expected[0], expected[0]))
    mixed = expected * [[1, -1], [-1, 1]]
    with pytest.raises(Mismatch, match="values are wrong"):
        close(mixed, signs_like(mixed, expected, axis=0))
    with pytest.raises(Mismatch, match="should have shape"):
        close(expected[0], signs_like(expected[0], expected, axis=0))
    with pytest.raises(Mismatch, match="should be an array"):
        close(None, signs_like(None, expected))


def test_rows_are_compared_in_any_order() -> None:
    expected = np.array([[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]])
    seen = expected[[2, 0, 1]] + 1e-12
    close(seen, rows_like(seen, expected))
    for wrong in (expected[[0, 0, 1]], seen + 1, np.full((3, 2), math.nan)):
        with pytest.raises(Mismatch, match="values are wrong"):
            close(wrong, rows_like(wrong, expected))
    with pytest.raises(Mismatch, match="should have shape"):
        close(expected[:2], rows_like(expected[:2], expected))
    close(np.array([True, False]), rows_like(np.array([True, False]), np.array([False, True])))
