"""Test the reference solutions that student code calls: they behave like local functions and modules but reveal no code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from autograder.execution import answer_key
from autograder.execution.answer_key import load_solution
from autograder.execution.references import reference_process
from autograder.execution.source import describe_reference, join_units, load_request
from autograder.execution.student import Student, StudentError
from autograder.grading.grader import Grader
from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing
from autograder.protocol.limits import Limits
from autograder.sandbox.client import Server
from autograder.sandbox.process import Process
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell
from solutions.day1.layers import EncoderLayer

pytestmark = pytest.mark.slow

LIMITS = Limits(5, 30, 2 << 30)
Load = Callable[[str, str, str, list[str]], Student]


@pytest.fixture
def load(graders: Callable[[str], Grader], server: Server) -> Iterator[Load]:
    """Return a function that loads code into a worker and replaces some of a day's exercises with reference solutions."""
    started: list[Any] = []

    def load(day: str, wanted: str, code: str, replaced: list[str]) -> Student:
        grader = graders(day)
        units, problems = parse_units([Cell(1, "code", code)])
        assert not problems
        source = join_units([*grader.key.given, *units], grader.key.references(replaced))
        process = Process(server, LIMITS)
        references = reference_process(source, server, LIMITS, None, process)
        started.extend([process, references])
        student = Student(process, references)
        exercise = grader.day.exercises[0]
        request = load_request(exercise, source, 1)
        student.load(
            type(request)(request.source, request.pieces, wanted, 1, references=request.references)
        )
        return student

    yield load
    for process in started:
        process.stop()


def test_only_the_newest_sets_of_references_are_kept(
    graders: Callable[[str], Grader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_key, "MAX_REFERENCE_SETS", 2)
    key = replace(graders("day1").key, _references={})
    sets = [key.references([name]) for name in ("softmax", "attention", "causal_mask")]
    assert list(key._references) == [("attention",), ("causal_mask",)]
    assert key.references(["softmax"]) == sets[0]
    assert key.references(["causal_mask"]) is sets[2]


def test_a_reference_function_is_differentiable_and_returns_a_tuple(load: Load) -> None:
    student = load(
        "day1",
        "f",
        """
def f(q, k, v):
    result = attention(q, key=k, value=v)
    assert type(result) is tuple
    return result[0]
""",
        ["attention"],
    )
    q, k, v = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    seen = student.f(q, k, v)
    expected = (q @ k.mT / 2).softmax(-1) @ v
    assert torch.allclose(seen, expected)
    upstream = torch.randn_like(expected)
    for own, other in zip(
        torch.autograd.grad(seen, (q, k, v), upstream),
        torch.autograd.grad(expected, (q, k, v), upstream),
        strict=True,
    ):
        assert torch.allclose(own, other)


def test_code_can_modify_the_results_of_references_in_place(load: Load) -> None:
    student = load(
        "day1",
        "f",
        """
def f(q, k, v, hidden):
    scores = attention_scores(q, k)
    scores[hidden] = -1e4
    output, weights = attention(q, k, v)
    output += softmax(scores).masked_fill_(hidden, 0) @ v
    return output.mul_(weights.sum())
""",
        ["softmax", "attention_scores", "attention"],
    )
    q, k, v = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    hidden = torch.ones(2, 3, 3, dtype=torch.bool).triu(1)
    scores = q @ k.mT / 2
    expected = 6 * (scores.softmax(-1) + scores.masked_fill(hidden, -1e4).softmax(-1)) @ v
    seen = student.f(q, k, v, hidden)
    assert torch.allclose(seen, expected)
    upstream = torch.randn_like(expected)
    for own, other in zip(
        torch.autograd.grad(seen, (q, k, v), upstream),
        torch.autograd.grad(expected, (q, k, v), upstream),
        strict=True,
    ):
        assert torch.allclose(own, other)


MODULE = """
import copy

class Twice(MultiHeadAttention):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return 2 * output, weights

class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(8, 2, 16, dropout=0.5) for _ in range(2)])

    def forward(self, x, mask=None):
        for layer in self.layers:
            x = layer(x, mask)
        return x

def twice(d, h):
    return Twice(d, h)

def layers():
    return Layers()

def same_after_deepcopy(x):
    layer = EncoderLayer(8, 2, 16).eval()
    other = copy.deepcopy(layer)
    with torch.no_grad():
        before = layer(x)
        for p in other.parameters():
            p.zero_()
        assert torch.equal(layer(x), before), "the copy shares its parameters"
        assert not torch.equal(other(x), before)
        other.load_state_dict(layer.state_dict())
        return torch.equal(other(x), before)

def in_double(x):
    return EncoderLayer(8, 2, 16).double().eval()(x.double())

def modes(x):
    layer = EncoderLayer(8, 2, 16, dropout=0.5)
    layer.eval()
    still = torch.equal(layer(x), layer(x))
    layer.train()
    moving = not torch.equal(layer(x), layer(x))
    return still and moving

def tied(x):
    first, second = LayerNorm(8), LayerNorm(8)
    second.weight = first.weight
    with torch.no_grad():
        first.weight.fill_(3.0)
    return second(x) / LayerNorm(8)(x)

def learns(x):
    layer = FeedForward(8, 16)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = (layer(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses

def replaced_part(x):
    layer = EncoderLayer(8, 2, 16)
    layer.norm1 = nn.Identity()
    return layer(x)

def encoded(x):
    model = Transformer(5, 5, d_model=8, n_heads=2, n_layers=1, d_ff=8, max_length=7)
    assert model.pad_id == 0 and len(model.encoder) == 1
    return model.eval().encode(x), isinstance(model.encoder[0], EncoderLayer)

def refused():
    try:
        split_heads(torch.zeros(1, 2, 5), 2)
    except ValueError as error:
        return str(error)

def table(n):
    encoding = PositionalEncoding(4, 10)
    assert not encoding.state_dict() and not list(encoding.parameters())
    return encoding(torch.zeros(1, n, 4))
"""
NAMES = ["PositionalEncoding", "split_heads", "MultiHeadAttention", "LayerNorm", "FeedForward"]
NAMES += ["EncoderLayer", "DecoderLayer", "Transformer"]


@pytest.fixture
def modules(load: Load) -> Student:
    return load("day1", "layers", MODULE, NAMES)


def test_a_reference_class_can_be_subclassed_and_its_weights_loaded(
    modules: Student, graders: Callable[[str], Grader]
) -> None:
    grader = graders("day1")
    right = load_solution(
        grader.day, "MultiHeadAttention", grader.key.solutions, grader.key.given
    ).MultiHeadAttention(8, 2)
    module = modules.twice(8, 2)
    weights = right.weights()
    module.load(weights)
    own = module.weights()
    assert own.keys() == weights.keys()
    x = torch.randn(2, 3, 8)
    mask = torch.ones(3, 3, dtype=torch.bool).tril()
    seen, expected = module(x, x, x, mask)[0], 2 * right(x, x, x, mask)[0]
    assert torch.allclose(seen, expected, atol=1e-6)
    seen.sum().backward()
    expected.sum().backward()
    for name, weight in own.items():
        assert torch.allclose(weight.grad, weights[name].grad, atol=1e-5), name


def test_reference_modules_work_inside_a_module_list(modules: Student) -> None:
    stack = modules.layers()
    assert stack.length("layers") == 2
    assert "layers.1.self_attention.query.weight" in stack.weights()
    x = torch.randn(2, 5, 8)
    stack.eval()
    assert torch.equal(stack(x), stack(x))
    stack.train()
    assert not torch.equal(stack(x), stack(x))
    stack.to(torch.float64).eval()
    assert stack(x.double()).dtype == torch.float64


def test_reference_modules_support_what_ordinary_modules_do(modules: Student) -> None:
    x = torch.randn(2, 3, 8)
    assert modules.same_after_deepcopy(x) is True
    assert modules.in_double(x).dtype == torch.float64
    assert modules.modes(x) is True
    assert torch.allclose(modules.tied(x), torch.tensor(3.0))
    losses = modules.learns(x)
    assert losses[-1] < losses[0]
    assert modules.table(3).shape == (1, 3, 4)
    encoded, is_layer = modules.encoded(torch.tensor([[1, 2, 3]]))
    assert encoded.shape == (1, 3, 8)
    assert is_layer is False, (
        "submodules of a reference module should not be instances of classes that student code can access"
    )


def test_a_reference_draws_the_random_numbers_that_local_code_would_draw(load: Load) -> None:
    code = """
def drawn(x):
    torch.manual_seed(7)
    layer = EncoderLayer(8, 2, 16, dropout=0.5)
    return layer(x), torch.rand(3)
"""
    x = torch.randn(2, 3, 8)
    names: dict[str, Any] = {"torch": torch, "EncoderLayer": EncoderLayer}
    exec(code, names)
    seen, local = load("day1", "drawn", code, ["EncoderLayer"]).drawn(x), names["drawn"](x)
    assert torch.allclose(seen[0], local[0], atol=1e-6)
    assert torch.equal(seen[1], local[1])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("left", "position"), [(624, 624), (0, 1)])
def test_a_crafted_random_state_is_refused(load: Load, when: str, left: int, position: int) -> None:
    code = f"""
import struct
real = torch.get_rng_state
def crafted():
    state = real()
    state[8:24] = torch.tensor(list(struct.pack("=iiQ", {left}, 1, {position})), dtype=torch.uint8)
    return state
def drawn(x):
    torch.get_rng_state = crafted if "{when}" == "before" else real
    layer = EncoderLayer(8, 2, 16, dropout=0.5)
    torch.get_rng_state = crafted
    return layer(x)
"""
    student = load("day1", "drawn", code, ["EncoderLayer"])
    with pytest.raises(StudentError, match="random state is invalid"):
        student.drawn(torch.randn(2, 3, 8))


def test_an_error_in_a_reference_is_raised_in_the_calling_code(modules: Student) -> None:
    assert "n_heads" in modules.refused()


def test_a_subclass_of_a_reference_can_call_its_submodules(load: Load) -> None:
    code = """
def inherited(x):
    class Layer(EncoderLayer):
        def forward(self, x):
            attended, _ = self.self_attention(x, x, value=x)
            return self.norm1(x + self.dropout(attended))
    torch.manual_seed(0)
    layer = Layer(8, 2, 16, dropout=0.5)
    dropped, result = layer(x), copy.deepcopy(layer).eval()(x)
    layer.eval()(x).pow(3).sum().backward()
    return dropped, result, layer.self_attention.query.weight.grad
"""
    x = torch.randn(2, 3, 8)
    names: dict[str, Any] = {"copy": copy, "torch": torch, "EncoderLayer": EncoderLayer}
    exec(code, names)
    seen = load("day1", "inherited", f"import copy\n{code}", ["EncoderLayer"]).inherited(x)
    for own, local in zip(seen, names["inherited"](x), strict=True):
        assert torch.allclose(own, local, atol=1e-6)


def test_a_subclass_of_a_reference_can_replace_and_remove_submodules_that_it_does_not_call(
    load: Load,
) -> None:
    code = """
def inherited(x):
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0
    class Layer(EncoderLayer, Cross):
        def __init__(self):
            super().__init__(8, 2, 16)
            del self.self_attention
            self.norm1 = nn.Identity()
            self.first = self.norm2
            self.norm2 = copy.deepcopy(self.norm2)
            nn.init.constant_(self.first.weight, 3.0)
        def forward(self, x):
            self.calls += 1
            return self.first(x) + self.norm2(self.feed_forward(self.norm1(x)))
    torch.manual_seed(0)
    layer = Layer()
    result = layer(x)
    result.pow(3).sum().backward()
    gradients = [layer.first.weight.grad, layer.feed_forward.linear1.weight.grad]
    return result, layer.norm2.weight, *gradients, torch.tensor(layer.calls)
"""
    x = torch.randn(2, 3, 8)
    names: dict[str, Any] = {"copy": copy, "nn": nn, "torch": torch, "EncoderLayer": EncoderLayer}
    exec(code, names)
    seen = load("day1", "inherited", f"import copy\n{code}", ["EncoderLayer"]).inherited(x)
    for own, local in zip(seen, names["inherited"](x), strict=True):
        assert torch.allclose(own, local, atol=1e-5)


def test_submodules_of_a_reference_cannot_be_replaced(modules: Student) -> None:
    x = torch.randn(2, 3, 8)
    with pytest.raises(StudentError, match="`norm1` of the reference solution was replaced"):
        modules.replaced_part(x)


CACHED = """
def pieces(x, cache):
    torch.manual_seed(0)
    layer = GPTBlock(8, 2, 16).eval()
    whole = layer(x)
    parts = torch.cat([layer(piece, cache) for piece in x.split([2, 1], dim=1)], dim=1)
    return whole, parts, len(cache)

def new_cache():
    return KeyValueCache()

def with_module(x):
    return guided_noise(nn.Identity(), x, x, x, 1.0, 0)
"""


def test_a_reference_fills_the_cache_of_the_calling_code(load: Load) -> None:
    student = load("day2", "pieces", CACHED, ["GPTBlock", "guided_noise"])
    x = torch.randn(2, 3, 8)
    whole, parts, length = student.pieces(x, student.new_cache())
    assert length == 3
    assert torch.allclose(whole, parts, atol=1e-5)
    with pytest.raises(StudentError, match="not a Identity"):
        student.with_module(x)


SPY = """
import gc, sys, types

def spy():
    try:
        LayerNorm(4)(torch.zeros(1, 4))
        softmax(torch.zeros(3))
    except Exception as error:
        return str(error)
    own = {n for n, v in globals().items() if isinstance(v, (types.FunctionType, type))}
    return [
        sorted(n for n in ("sinusoidal_encoding", "merge_heads") if n in own),
        [f for f in sys.modules if "solutions" in f],
        hasattr(softmax, "__wrapped__"),
    ]
"""


def test_the_proxy_of_a_reference_reveals_no_code(load: Load) -> None:
    assert load("day1", "spy", SPY, ["softmax", "LayerNorm"]).spy() == [[], [], False]


def test_only_replaced_exercises_can_be_called(load: Load) -> None:
    code = """
def ask(x):
    remote = softmax.__closure__
    self = next(c.cell_contents for c in remote if hasattr(c.cell_contents, "_refer"))
    return self._refer("masked_attention", "", [[x, x, x], {}])
"""
    with pytest.raises(Exception, match="an exercise that was not replaced"):
        load("day1", "ask", code, ["softmax"]).ask(torch.zeros(1, 2, 3))


@pytest.mark.parametrize(
    "answer",
    [[[float("inf"), "ValueError", "x"]], [[1, "ValueError"]], [[True, "E", "x"]], {"a": 1}, [7]],
)
def test_an_invalid_answer_to_a_load_request_is_rejected(answer: Any) -> None:
    """A compromised worker can send any value instead of the expected list of errors."""

    class Compromised:
        def request(self, *_: Any) -> Any:
            out = Outgoing()
            return 1, m.Answer(out.encode(answer, lambda item: None)), bytearray()

    with pytest.raises(m.WireError):
        Student(Compromised()).load(m.Load("", [], "f", 1))  # type: ignore[arg-type]


def test_arguments_that_only_the_students_version_accepts_are_left_out(load: Load) -> None:
    student = load(
        "day1",
        "f",
        """
def f(x):
    layer = MultiHeadAttention(d_model=4, n_heads=2, dropout=0.1)
    return layer(x, x, x, need_weights=True)[1], softmax(x, dim=-1, stable=True)
""",
        ["MultiHeadAttention", "softmax"],
    )
    weights, result = student.f(torch.ones(1, 3, 4))
    assert weights.shape == (1, 2, 3, 3)
    assert torch.allclose(result, torch.full((1, 3, 4), 0.25))


def test_parameters_of_references_are_found() -> None:
    source = "class A:\n    def __init__(self, x, *, y=1): ...\n    def f(self, **more): ...\n"
    assert describe_reference("A", source) == m.Reference("A", ["self", "x", "y"], {"f": None})
    assert describe_reference("f", "f = print") == m.Reference("f")
