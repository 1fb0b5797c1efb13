"""Test handles to objects in the worker, calls that pass models or generators as arguments, and the measured cost of calls."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograder.execution.grader_models import GraderModels
from autograder.execution.student import Student, StudentError
from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing, check_keys
from autograder.sandbox.client import Server
from autograder.sandbox.errors import WorkerDied
from tests.sandboxed_code import loaded_in
from tests.test_hostile_workers import frame, hostile

SOURCE = """
import enum

import numpy as np
import torch

class Cache:
    def __init__(self):
        self.values = []

    def append(self, values):
        self.values.append(values)
        return torch.cat(self.values, -1)

    def __len__(self):
        return sum(values.shape[-1] for values in self.values)

def continued(model, prompt):
    caches = [Cache(), Cache()]
    model(prompt, caches)
    model(prompt[:, :1], caches)
    return len(caches[0]), caches[1]

def parts(model):
    return len(model.blocks), model.n_layers, [b for b in model.layers]

def drawn(generator):
    return torch.rand(3, generator=generator), torch.rand(3, generator=generator)

def flagged(model, prompt):
    model.training = False
    return model(prompt)

class Layer(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("no")

class Unfinished(torch.nn.Module):
    def forward(self, x):
        raise NotImplementedError("Unfinished")

class Table(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.zeros(2)

    def _apply(self, fn):  # torch's method has another argument, which only `to_empty` passes
        self.table = fn(self.table)
        return super()._apply(fn)

    def forward(self, x):
        return x + self.table

class Buffer(Table):
    _apply = torch.nn.Module._apply

    def to(self, *args):
        self.table = self.table.to(*args)
        return super().to(*args)

def scripted():
    return torch.jit.script(torch.nn.Linear(2, 2))

def called(model):
    model(torch.ones(1, 1))

def half_restored(model):
    model.eval()
    model.training = True

def outer(x):
    return (x[:, None] * x).sum(-1)

def rows(x):
    return torch.stack([row.sum() for row in x[:, None] * x])

def keyed():
    return {1: "int", "1": "str", True and 2: "two", (0, "a"): "tuple", None: 0.5, np.int64(7): 7}

def keyed_by_objects():
    return {Cache: 1}, {((0, 1), 2): 1}, {"x" * 20_000: 1}, {2**70: 1}

class Kind(str, enum.Enum):
    X = "x"

class Big(enum.IntEnum):
    X = 2**70
    Y = 5

Kind.__module__ = Big.__module__ = "library"

Odd = type("\\x1b]0;owned\\x07" + "x" * 10_000, (), {"method": lambda self: 1 / 0})

def odd_objects():
    return [Odd(), type("\\u202e", (), {"__module__": "\\x9b31m"})()]

def odd_error():
    raise type("\\x1b[2J", (Exception,), {})("\\x1b[1;1H\\na")

def subclasses():
    return [Kind.X, Big.Y, np.str_("a"), Big.X, np.str_("x" * 20_000), np.str_("\\ud800")]
"""


@pytest.fixture(params=["in process", "sandboxed"])
def student(request: pytest.FixtureRequest, server: Server) -> Iterator[Student]:
    with loaded_in(request.param, server, SOURCE, "continued") as student:
        yield student


class Model(nn.Module):
    """A model that appends its input to each cache and records the cache's previous length."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[list[int]] = []

    def forward(self, tokens: Tensor, caches: list[Any]) -> Tensor:
        self.lengths.append([len(cache) for cache in caches])
        return torch.stack([cache.append(tokens).sum() for cache in caches])


class ModeRecorder(nn.Module):
    """A model that records on each call whether it is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, tokens: Tensor) -> Tensor:
        self.modes.append(self.training)
        return tokens


def test_a_model_uses_handles_in_its_arguments(student: Student) -> None:
    model = Model()
    length, cache = student.continued(model, torch.ones(2, 3))
    assert model.lengths == [[0, 0], [3, 3]]
    assert (length, len(cache)) == (4, 4)


def test_a_model_exposes_numbers_and_the_length_of_its_lists(student: Student) -> None:
    model = Model()
    model.blocks = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    model.n_layers = 2  # type: ignore[assignment]
    model.layers = [7, 8, 9]  # type: ignore[assignment]
    assert student.parts(model) == [2, 2, [None] * 3]


def test_a_handle_keeps_its_object_and_calls_its_methods(student: Student) -> None:
    cache = student.Cache()
    assert len(cache) == 0
    assert cache, "a handle to an empty cache should be truthy"
    cache.append(torch.tensor([1.0, 2.0]))
    assert cache.append(torch.tensor([3.0])).tolist() == [1, 2, 3]
    with pytest.raises(StudentError, match="no attribute `pop`"):
        cache.pop()


def test_a_module_that_a_method_returns_keeps_its_name(student: Student) -> None:
    layer = student.Layer().half()
    with pytest.raises(StudentError, match=r"^`Layer` raised RuntimeError"):
        layer(torch.ones(2))


def test_a_stub_that_is_left_in_a_class_is_named(student: Student) -> None:
    model = student.Unfinished()
    with pytest.raises(StudentError, match="`Unfinished` is not finished"):
        model(torch.ones(2))


@pytest.mark.parametrize("kind", ["Table", "Buffer", "scripted"])
def test_modules_move_to_another_device_in_their_own_way(student: Student, kind: str) -> None:
    x = torch.ones(2, device="meta")
    assert getattr(student, kind)().to("meta")(x).is_meta


def test_a_generator_starts_from_the_same_seed(student: Student) -> None:
    here = torch.Generator().manual_seed(7)
    first, second = student.drawn(torch.Generator().manual_seed(7))
    assert torch.equal(first, torch.rand(3, generator=here))
    assert torch.equal(second, torch.rand(3, generator=here))


def test_a_generator_continues_across_calls(student: Student) -> None:
    here, there, another = (torch.Generator().manual_seed(7) for _ in range(3))
    expected = [torch.rand(3, generator=here) for _ in range(4)]
    seen = [*student.drawn(there), *student.drawn(there)]
    assert torch.equal(torch.stack(seen), torch.stack(expected))
    assert torch.equal(student.drawn(another)[0], expected[0]), (
        "a new generator should start from its own seed"
    )


def test_setting_the_training_flag_alone_leaves_submodules_in_training(student: Student) -> None:
    """If student code sets `model.training = False` without calling `eval()`, the model's dropout layers remain
    active."""
    model = ModeRecorder().train()
    student.flagged(model, torch.ones(1, 2))
    assert model.modes == [True]


def test_setting_the_training_flag_alone_leaves_submodules_in_evaluation(student: Student) -> None:
    model = nn.Sequential(nn.Linear(1, 1)).train()
    student.half_restored(model)
    assert (model.training, model[0].training) == (True, False)


def test_a_submodule_in_a_different_mode_keeps_it(student: Student) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout()).train()
    model[1].eval()
    student.called(model)
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


def test_the_cost_of_calls_is_measured(student: Student) -> None:
    with student.measuring() as few:
        student.outer(torch.ones(30))
    with student.measuring() as many:
        student.rows(torch.ones(30))
    assert few.largest == many.largest == 900
    assert few.operations < 10 < 30 < many.operations
    student.outer(torch.ones(40))
    assert few.largest == 900, "calls made after the measurement should not be counted"


def test_a_worker_cannot_answer_a_request_with_a_request() -> None:
    """If a worker could answer requests with requests, it could nest them until the grader's stack overflowed."""
    question = m.Ask(1, "forward", m.Data(None, []), False, False)

    def behaviour(wire: Any) -> None:
        for number in range(1, 100):
            if not wire.recv(1 << 20):
                return
            wire.sendall(frame(number, question))

    process = hostile(behaviour)

    def reply(*_: object) -> Any:
        process.request(m.Read(1, "length"), Outgoing(), reply)

    with pytest.raises(WorkerDied, match="a request, but a response was expected"):
        process.request(m.Read(1, "length"), Outgoing(), reply)


def test_dict_keys_keep_their_types(student: Student) -> None:
    expected = {1: "int", "1": "str", 2: "two", (0, "a"): "tuple", None: 0.5, 7: 7}
    assert student.keyed() == expected


def test_a_dict_may_have_some_keys_with_the_same_hash() -> None:
    check_keys([list(key) for key in itertools.product((-2, -1, 0), repeat=7)])
    with pytest.raises(m.WireError, match="same hash"):
        check_keys([list(key) for key in itertools.product((-2, -1), repeat=12)])


def test_a_dict_with_other_keys_is_described(student: Student) -> None:
    assert [str(found) for found in student.keyed_by_objects()] == [
        "a dict with a type as a key",
        "a dict with a nested tuple as a key",
        "a dict with a str of 20000 characters as a key",
        "a dict with an int of more than 64 bits as a key",
    ]


def test_subclasses_of_plain_types_have_the_limits_of_these_types(student: Student) -> None:
    *plain, big, long, half = student.subclasses()
    assert plain == ["x", 5, "a"]
    assert str(big) == "an int of more than 64 bits"
    assert str(long) == "a str of 20000 characters"
    assert half == "\\ud800"


def test_names_and_messages_from_the_worker_are_escaped_and_bounded(student: Student) -> None:
    own, other = student.odd_objects()
    assert own.type.startswith(r"\x1b]0;owned\x07x")
    assert len(own.type) < 250
    assert str(other) == r"a \x9b31m.\u202e"
    with pytest.raises(StudentError, match=r"`\\x1b\]0;owned\\x07x*.method` raised ZeroDivision"):
        own.method()
    assert student.last_call is not None
    assert student.last_call[0] == f"{own.type}.method"
    with pytest.raises(StudentError) as error:
        student.odd_error()
    assert str(error.value) == "`odd_error` raised \\x1b[2J: \\x1b[1;1H\na"


def test_a_forged_list_of_modes_changes_a_model_only_once() -> None:
    class Counting(nn.Module):
        switches = 0

        def train(self, mode: bool = True) -> Counting:
            Counting.switches += 1
            return super().train(mode)

    models = GraderModels()
    model = nn.Sequential(Counting())
    models.encode(model)
    off, on = (id(model), False, False), (id(model), True, True)
    models.set_modes([off, on] * 50 + [off])
    assert (model.training, model[0].training, Counting.switches) == (False, False, 1)
