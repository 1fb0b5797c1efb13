"""Test how NumPy values, sets, functions and printed text cross the sandbox boundary, also if they misbehave."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from autograder.execution.checks import describe
from autograder.execution.student import Opaque, Student, StudentError
from autograder.protocol import messages as m
from autograder.protocol.encoding import (
    ARRAY_DTYPES,
    Outgoing,
    check,
    decode_tensors,
    decode_value,
    set_random_state,
)
from autograder.sandbox.client import Server
from autograder.sandbox.worker.in_process import LocalProcess
from tests.sandboxed_code import loaded_in

SOURCE = """
import sys
import numpy as np
import torch

def same(x):
    return x

def layout(x):
    return x.dtype.name, x.shape, x.strides, x.flags.writeable

def shared(pair):
    pair[0][0] = 9
    return pair[0] is pair[1], pair[1]

def fill(a, b, c):
    a[0], b[...], c.shape = 5, np.nan, (2, 1)
    return a.sum()

def draw(rng, other=None):
    return rng.normal(size=3), rng.integers(10, dtype=np.int32), rng is other

def generators():
    return np.random.default_rng(5), np.random.Generator(np.random.MT19937(5))

def show(n, text="line", end="\\n"):
    for i in range(n):
        print(text, end=end)
    print("hidden", file=sys.stderr)
    if n < 0:
        raise ValueError("n is negative")

def flood():
    for _ in range(1000):
        print("x" * 10**6)

def apply(f, *args, **kwargs):
    try:
        return f(*args, **kwargs)
    except LookupError as error:
        return f"{type(error).__name__}: {error}"

def half_torch(x, y):
    return y, x * 2, y + 1

class Model:
    limit = 3

    def __init__(self):
        self.get = 4
        self.id_ = 7

    def fit(self, x):
        self.centers_, self.parts_ = x + 1, {"inner": Part()}
        return self

    def __len__(self):
        return 2

    @property
    def broken(self):
        raise KeyError("no")

class Part:
    size = 2.5

class Sub(np.ndarray):
    shape = property(lambda self: (10**9, 10**9))
    dtype = property(lambda self: np.dtype("float64"))

class Converting:
    def __array__(self, *args, **kwargs):
        raise SystemExit("__array__ ran")

def recursive():
    made = [1]
    made.append((made, {"a": made}))
    return made

def hostile():
    return [
        np.array([{}, None]), np.ones(2).view(Sub), Converting(), np.ma.array([1]), np.matrix([1]),
        np.zeros(2, [("a", int)]), np.array(["a"]), np.array("2020", "M8[D]"), np.longdouble(1),
        np.broadcast_to(1.0, (1 << 20, 1 << 20)), np.empty((0, 1 << 40)), np.ones((1,) * 20),
    ]

def huge_set():
    return set(range(10**7))

def odd_sets():
    return {1, (2, "a"), None}, {Part}, {(1, (2, 3))}, {"x" * 20_000}, {frozenset()}

def mapped():
    return np.memmap("numbers", dtype=float, mode="w+", shape=3)
"""


@pytest.fixture(params=["in process", "sandboxed"])
def student(request: pytest.FixtureRequest, server: Server) -> Iterator[Student]:
    with loaded_in(request.param, server, SOURCE, "same") as student:
        yield student


ARRAYS = [
    *(np.arange(6).astype(dtype).reshape(2, 3) for dtype in ARRAY_DTYPES),
    np.array(3.5),
    np.array([math.nan, -0.0, math.inf]),
    np.zeros((3, 0, 2)),
    np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(20)[3:15:2],
    np.arange(100.0)[::50],
    np.arange(6)[::-1],
    np.broadcast_to(np.arange(3), (2, 3)),
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.array([1 + 2j, math.nan], np.complex64),
]


@pytest.mark.parametrize("sent", ARRAYS, ids=lambda a: f"{a.dtype} {a.shape} {a.strides}")
def test_arrays_keep_their_values_shape_and_dtype(student: Student, sent: Any) -> None:
    seen = student.same(sent)
    native = sent.dtype.newbyteorder("=")
    assert type(seen) is np.ndarray
    assert (seen.shape, seen.dtype) == (sent.shape, native)
    assert seen.tobytes() == sent.astype(native).tobytes()
    assert student.layout(sent)[0] == sent.dtype.name
    assert student.changed == []


def test_strides_survive_unless_a_view_is_sparse_or_reversed(student: Student) -> None:
    assert student.layout(np.ones((3, 2)).T) == ["float64", [2, 3], [8, 16], True]
    assert student.layout(np.ones((4, 6))[::2, ::2])[2] == [96, 16]
    assert student.layout(np.ones(100)[::50])[2] == [8]
    assert student.layout(np.ones(4)[::-1])[2] == [8]


def test_an_array_that_is_sent_twice_is_one_array(student: Student) -> None:
    x = np.arange(3)
    same, second = student.shared([x, x])
    assert same
    assert second.tolist() == [9, 1, 2]
    assert x.tolist() == [0, 1, 2], "the grader's own array changed"


def test_arrays_changed_in_place_are_named(student: Student) -> None:
    a, b, c = np.ones(3), np.array([1.0, math.nan]), np.ones(2)
    assert student.fill(a, b, c) == 7
    assert student.changed == ["a", "b", "c"]
    student.same(np.array([math.nan]))
    assert student.changed == []


VALUES: list[Any] = [
    1j,
    complex(math.inf, -0.0),
    {1, "a", (2, "b"), None},
    set(),
    b"a\0\xff",
    b"",
    {1.5: {2}},
]


@pytest.mark.parametrize("value", VALUES)
def test_other_values_cross(student: Student, value: Any) -> None:
    seen = student.same(value)
    assert seen == value
    assert type(seen) is type(value)


def test_numbers_of_numpy_become_numbers_of_python(student: Student) -> None:
    sent = [np.float32(2), np.int8(3), np.bool_(True), np.complex64(1j), np.uint64(7)]
    seen = student.same(sent)
    assert seen == [2.0, 3, True, 1j, 7]
    assert [type(each) for each in seen] == [float, int, bool, complex, int]


def test_generators_continue_in_the_sandbox_and_come_back(student: Student) -> None:
    sent, own = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(2):
        numbers, integer, same = student.draw(sent, sent)
        assert same
        assert numbers.tolist() == own.normal(size=3).tolist()
        assert integer == own.integers(10, dtype=np.int32)
        assert sent.bit_generator.state == own.bit_generator.state
    sent.normal()
    own.normal()
    assert student.draw(sent)[0].tolist() == own.normal(size=3).tolist()
    made, other = student.generators()
    assert made.normal() == np.random.default_rng(5).normal()
    assert isinstance(other, Opaque)
    with pytest.raises(TypeError, match="cannot send a Generator"):
        student.draw(np.random.Generator(np.random.MT19937(5)))


def test_printed_text_is_kept_up_to_a_limit(student: Student) -> None:
    student.show(2)
    assert student.printed == "line\nline\n"
    student.show(3, "\ud800é\x1b[31m", "")
    assert student.printed == "\\ud800é\x1b[31m" * 3
    student.flood()  # a gigabyte
    assert student.printed == "x" * m.MAX_PRINTED
    with pytest.raises(StudentError, match="n is negative"):
        student.show(-1)
    assert student.printed == ""
    student.same(1)
    assert student.printed == ""


def test_functions_run_in_the_grader(student: Student) -> None:
    calls: list[Any] = []

    def keep(x: Any, factor: int = 1) -> Any:
        calls.append(x)
        return x * factor

    class Adder:
        total = 0

        def add(self, x: int) -> int:
            self.total += x
            return self.total

        __call__ = add

    adder = Adder()
    assert student.apply(keep, np.arange(2), factor=3).tolist() == [0, 3]
    assert calls[0].tolist() == [0, 1]
    assert [student.apply(adder.add, 2), student.apply(adder, 3), adder.total] == [2, 5, 5]
    assert student.apply(np.sin, 0.0) == 0
    assert (
        student.apply(lambda rng: rng.normal(), np.random.default_rng(1))
        == np.random.default_rng(1).normal()
    )


def test_errors_in_functions_are_raised_in_the_code_that_calls_them(student: Student) -> None:
    def fail(kind: str) -> None:
        if kind == "assert":
            raise AssertionError("called with assert")
        raise {"key": KeyError("k"), "value": ValueError(""), "odd": StopIteration("x")}[kind]

    assert student.apply(fail, "key") == "KeyError: \"'k'\""
    with pytest.raises(StudentError, match="ValueError: ValueError"):
        student.apply(fail, "value")
    with pytest.raises(StudentError, match="RuntimeError: x"):
        student.apply(fail, "odd")
    with pytest.raises(AssertionError, match="called with assert"):
        student.apply(fail, "assert")


@pytest.mark.parametrize(
    "value", [np.array([{}]), np.matrix([1]), np.array(["a"]), int, object(), np.ma.array([1])]
)
def test_a_grader_cannot_send_other_values(student: Student, value: Any) -> None:
    with pytest.raises((TypeError, StudentError), match="a grader cannot send a"):
        student.same(value)


def test_arrays_and_tensors_may_be_mixed(student: Student) -> None:
    x = torch.ones(2, requires_grad=True)
    y, doubled, more = student.half_torch(x, np.arange(2))
    doubled.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2, 2]
    assert (y.tolist(), more.tolist()) == ([0, 1], [1, 2])
    z = torch.ones(2, requires_grad=True)
    assert student.apply(lambda a, b: a * 3 + b.sum(), z, np.ones(2)).grad_fn is not None


def test_attributes_of_objects_are_read(student: Student) -> None:
    model = student.Model()
    fitted = model.fit(np.zeros((2, 2)))
    for one in (model, fitted):
        assert one.centers_.tolist() == [[1, 1], [1, 1]]
        assert (one.get, one.limit, one.id_, len(one)) == (4, 3, 7, 2)
        assert one.parts_["inner"].size == 2.5
    with pytest.raises(StudentError, match="there is no attribute `missing`"):
        model.missing  # noqa: B018
    with pytest.raises(StudentError, match="there is no attribute `broken`"):
        model.broken  # noqa: B018


def test_hostile_arrays_are_described(student: Student) -> None:
    seen = student.hostile()
    assert [describe(each) for each in seen] == [
        "an array of dtype object",
        "a Sub",
        "a Converting",
        "a numpy.ma.MaskedArray",
        "a numpy.matrix",
        "an array of dtype [('a', '<i8')]",
        "an array of dtype <U1",
        "an array of dtype datetime64[D]",
        "the float 1.0",
        "an array of shape (1048576, 1048576)",
        "an array of shape (0, 1099511627776)",
        "an array with 20 axes",
    ]


def test_other_hostile_values_are_described(student: Student) -> None:
    assert str(student.huge_set()) == "a set of 10000000 items"
    sets = student.odd_sets()
    assert sets[0] == {1, (2, "a"), None}
    assert [str(each) for each in sets[1:]] == [
        "a set that contains a type",
        "a set that contains a nested tuple",
        "a set that contains a str of 20000 characters",
        "a set that contains a frozenset",
    ]
    deepest = student.recursive()
    while isinstance(deepest, list):
        deepest = deepest[1]
    assert "nested too deeply" in str(deepest) or isinstance(deepest, dict)


def array(**changes: Any) -> m.Data:
    fields: dict[str, Any] = {
        "dtype": "float64",
        "shape": [2],
        "strides": [1],
        "start": 0,
        "requires_grad": False,
    }
    return m.Data(m.TensorAt(0), [m.TensorMeta(**{**fields, "kind": "array", **changes})])


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "bfloat16"},
        {"dtype": "object"},
        {"dtype": "float128"},
        {"dtype": "<f8"},
        {"shape": [3]},
        {"shape": [-1]},
        {"shape": [1 << 30], "strides": [0]},
        {"shape": [0, 1 << 40], "strides": [1, 1]},
        {"shape": [1] * 17, "strides": [1] * 17},
        {"strides": [-1]},
        {"strides": [2]},
        {"strides": []},
        {"start": 8},
        {"start": -64},
        {"start": 64},
        {"meta": True},
        {"requires_grad": True},
        {"dtype": "complex128"},
    ],
)
def test_invalid_arrays_are_rejected(changes: dict[str, Any]) -> None:
    assert decode_tensors(array(), bytearray(16))[0].tolist() == [0, 0]
    with pytest.raises(m.WireError):
        decode_tensors(array(**changes), bytearray(16))


def test_bytes_other_than_0_and_1_are_true() -> None:
    (seen,) = decode_tensors(array(dtype="bool", shape=[3]), bytearray([0, 1, 2]))
    assert seen.view(np.uint8).tolist() == [0, 1, 1]


def test_invalid_sets_and_states_are_rejected() -> None:
    with pytest.raises(m.WireError, match="too many items"):
        check(m.Data(m.Members(list(range(60_000))), []))
    same_hash = [1 + i % 4 * (2**61 - 1) for i in range(2_000)]
    with pytest.raises(m.WireError, match="same hash"):
        check(m.Data(m.Members([*same_hash]), []))
    with pytest.raises(m.WireError, match="key that is too long"):
        check(m.Data(m.Members(["x" * 20_000]), []))
    for state in (b"", b"x" * 36, b"x" * 38):
        with pytest.raises(m.WireError, match="state of a generator is invalid"):
            set_random_state(np.random.default_rng(0), state)


def test_a_worker_cannot_set_the_state_of_other_generators() -> None:
    state = m.Random(1, bytes(37))

    class Forging(LocalProcess):
        def request(self, request: Any, payload: Any, reply: Any) -> Any:
            number, _, data = super().request(request, payload, reply)
            return number, m.Answer(m.Data(None, []), randoms=[state]), data

    student = Student(Forging())
    with pytest.raises(m.WireError, match="a generator that it did not get"):
        student.same(np.random.default_rng(1))


def test_values_without_their_array_are_rejected() -> None:
    out = Outgoing()
    data = out.encode([np.ones(2)], lambda item: None)
    with pytest.raises(m.WireError, match="not sent"):
        decode_value(data.value, [], lambda item: None)
    with pytest.raises(m.WireError, match="does not refer to"):
        check(m.Data(None, data.tensors))
