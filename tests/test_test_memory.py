"""Test that a hidden test cannot use much memory, whatever the student's code returns."""

from __future__ import annotations

import resource
import threading
from typing import Any

import pytest
import torch

from autograder.execution import collect
from autograder.execution.collect import MAX_MEMORY
from autograder.execution.student import Student
from autograder.protocol.encoding import MAX_ELEMENTS, Outgoing, decode_tensors
from autograder.protocol.messages import Data, Opaque, TensorAt, TensorMeta, WireError
from autograder.sandbox.walls.rlimits import address_space, limited_growth, limited_memory
from autograder.sandbox.worker.in_process import LocalProcess

TOO_MUCH = "can't allocate memory|bad_alloc"


def soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_AS)[0]


def run(function: Any) -> None:
    student = Student(LocalProcess())
    test = collect.Test("f", "test", "", 1.0, object, lambda self, student: function(student))
    test.run(student, 0)


def test_a_hidden_test_has_a_memory_limit() -> None:
    before = soft_limit()
    with pytest.raises(RuntimeError, match=TOO_MUCH):
        run(lambda student: torch.empty(2 * MAX_MEMORY, dtype=torch.uint8))
    run(lambda student: torch.empty(MAX_MEMORY // 4, dtype=torch.uint8))
    assert soft_limit() == before


def test_a_hidden_test_cannot_iterate_over_millions_of_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without the patch, this process would keep 1 GB of free memory, which would affect other tests of limits.
    monkeypatch.setattr(collect, "MAX_MEMORY", 64 << 20)
    rows = torch.zeros(1, 1).expand(MAX_ELEMENTS, 1)
    with pytest.raises((RuntimeError, MemoryError)):
        run(lambda student: list(rows))


def test_the_lowest_memory_limit_applies() -> None:
    before, size = soft_limit(), address_space()
    with limited_memory(size + (2 << 30)):
        with limited_memory(size + (1 << 30)), limited_memory(size + (3 << 30)):
            assert soft_limit() == size + (1 << 30)
        assert soft_limit() == size + (2 << 30)
        with limited_growth(1 << 40):
            assert soft_limit() == size + (2 << 30)
        assert soft_limit() == size + (2 << 30)
    assert soft_limit() == before


def test_overlapping_memory_limits_of_threads_end() -> None:
    before, size = soft_limit(), address_space()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with limited_memory(size + (2 << 30)):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with limited_memory(size + (3 << 30)):
        thread.start()
        entered.wait()
    assert soft_limit() == size + (2 << 30)
    leave.set()
    thread.join()
    assert soft_limit() == before


def test_an_empty_tensor_with_a_long_axis_is_described() -> None:
    def sent(*shape: int) -> Any:
        return Outgoing().encode(torch.empty(shape), lambda item: None).value

    assert sent(1 << 33, 0) == Opaque("an empty tensor of shape (8589934592, 0)")
    assert not isinstance(sent(MAX_ELEMENTS, 0), Opaque)
    assert not isinstance(sent(0, 7), Opaque)


def test_an_empty_tensor_with_a_long_axis_is_rejected() -> None:
    def received(*shape: int) -> torch.Tensor:
        meta = TensorMeta("float32", list(shape), [0] * len(shape), 0, False)
        tensor: torch.Tensor = decode_tensors(Data(TensorAt(0), [meta]), bytearray(64))[0]
        return tensor

    for shape in ((1 << 33, 0), (0, 1 << 33), (MAX_ELEMENTS, 0, 2)):
        with pytest.raises(WireError, match="invalid size"):
            received(*shape)
    assert received(MAX_ELEMENTS, 0).shape == (MAX_ELEMENTS, 0)
