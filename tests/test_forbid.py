"""Test that forbidden operators raise an exception under every transform and for every kind of tensor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autograder.course.forbidden import union
from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.protocol.limits import Limits
from autograder.sandbox.client import Server
from autograder.sandbox.process import Process

pytestmark = pytest.mark.slow

# Each operator gets a 4 × 4 matrix. For attention, it is a batch of one head.
OPERATORS = """
import gc, torch
from concurrent.futures import ThreadPoolExecutor
from torch import func
from torch.autograd import forward_ad, functional
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

def heads(x):
    return x[None, None] if x.dim() == 2 else x

OPERATORS = {
    "softmax": lambda x: torch.softmax(x, -1),
    "_softmax": lambda x: torch._softmax(x, -1, False),
    "_safe_softmax": lambda x: torch._safe_softmax(x, -1),
    "sparse softmax": lambda x: torch.sparse.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "attention": lambda x: torch._C._nn.scaled_dot_product_attention(*[heads(x)] * 3).reshape(x.shape),
    "math": lambda x: torch._scaled_dot_product_attention_math(*[heads(x)] * 3)[0].reshape(x.shape),
    "layer_norm": lambda x: torch.layer_norm(x, [4]),
    "native_layer_norm": lambda x: torch.native_layer_norm(x, [4], None, None, 1e-5)[0],
    "rms_norm": lambda x: torch.rms_norm(x, [4]),
}

class Subclass(torch.Tensor):
    pass

class Wrapper(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, requires_grad=inner.requires_grad)
    def __init__(self, inner):
        self.inner = inner
    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        args = tree_map(lambda t: t.inner if isinstance(t, Wrapper) else t, args)
        return tree_map(lambda t: Wrapper(t) if isinstance(t, torch.Tensor) else t, function(*args, **(kwargs or {})))

class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))

class Function(torch.autograd.Function):
    generate_vmap_rule = True
    @staticmethod
    def forward(x):
        return Function.run(x)
    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

def inside(context, f, x):
    with context:
        return f(x)

def dual(f, x):
    with forward_ad.dual_level():
        return f(forward_ad.make_dual(x, torch.ones_like(x)))

def batched_gradients(f, x):
    y = f(x.requires_grad_())
    return torch.autograd.grad(y, x, torch.ones(3, *y.shape), is_grads_batched=True)

def function(f, x):
    Function.run = f
    return func.vmap(Function.apply)(x[None])

def fake(f, x):
    from torch._subclasses.fake_tensor import FakeTensorMode
    with FakeTensorMode() as mode:
        return f(mode.from_tensor(x))

def traced(f, x):
    from torch.fx.experimental.proxy_tensor import make_fx
    return make_fx(f)(x)(x)

def dispatched_in_python(f, x):
    from torch._dispatch.python import enable_python_dispatcher
    return inside(enable_python_dispatcher(), f, x)

def nested(x, **options):
    return torch.nested.nested_tensor([x, x], **options)
"""
TRANSFORMS = {
    "nothing": "f(x)",
    "gradients": "f(x.requires_grad_())",
    "no_grad": "inside(torch.no_grad(), f, x)",
    "inference_mode": "inside(torch.inference_mode(), f, x)",
    "autocast": "inside(torch.autocast('cpu', torch.bfloat16), f, x)",
    "vmap": "func.vmap(f)(x[None])",
    "vmap with gradients": "func.vmap(f)(x[None].requires_grad_())",
    "vmap in inference_mode": "inside(torch.inference_mode(), func.vmap(f), x[None])",
    "vmap under autocast": "inside(torch.autocast('cpu', torch.bfloat16), func.vmap(f), x[None])",
    "vmap with randomness": "func.vmap(f, randomness='different')(x[None])",
    "vmap in chunks": "func.vmap(f, chunk_size=1)(torch.stack([x, x]))",
    "vmap over another tensor": "func.vmap(lambda y: f(x) + y)(x[None])",
    "vmap twice": "func.vmap(func.vmap(f))(x[None, None])",
    "vmap of grad": "func.vmap(func.grad(lambda y: f(y).sum()))(x[None])",
    "grad": "func.grad(lambda y: f(y).sum())(x)",
    "grad of vmap": "func.grad(lambda y: func.vmap(f)(y).sum())(x[None])",
    "vjp": "func.vjp(f, x)",
    "jvp": "func.jvp(f, (x,), (x,))",
    "jacrev": "func.jacrev(f)(x)",
    "jacfwd": "func.jacfwd(f)(x)",
    "hessian": "func.hessian(f)(x)",
    "linearize": "func.linearize(f, x)",
    "functionalize": "func.functionalize(f)(x)",
    "functionalize without views": "func.functionalize(f, remove='mutations_and_views')(x)",
    "vmap of functionalize": "func.vmap(func.functionalize(f))(x[None])",
    "a dual tensor": "dual(f, x)",
    "batched gradients": "batched_gradients(f, x)",
    "jacobian": "functional.jacobian(f, x, vectorize=True)",
    "jacobian in forward mode": "functional.jacobian(f, x, vectorize=True, strategy='forward-mode')",
    "an autograd function": "function(f, x)",
    "a checkpoint": "checkpoint.checkpoint(f, x.requires_grad_(), use_reentrant=False)",
    "a compiled function": "torch.compile(f, backend='eager')(x)",
    "a scripted function": "torch.jit.trace(f, x, check_trace=False)(x)",
    "make_fx": "traced(f, x)",
    "another thread": "ThreadPoolExecutor(1).submit(f, x).result()",
    "below autograd": "inside(torch._C._AutoDispatchBelowAutograd(), f, x)",
    "the Python dispatcher": "dispatched_in_python(f, x)",
    "a dispatch mode": "inside(Mode(), f, x)",
    "a nested tensor": "f(nested(x[None]))",
    "a nested tensor with gradients": "f(nested(x[None], requires_grad=True))",
    "a nested tensor in inference_mode": "inside(torch.inference_mode(), f, nested(x[None]))",
    "a nested matrix": "f(nested(x))",
    "a jagged tensor": "f(nested(x, layout=torch.jagged))",
    "a jagged tensor with gradients": "f(nested(x, layout=torch.jagged, requires_grad=True))",
    "jagged heads": "f(nested(x, layout=torch.jagged).unsqueeze(2).transpose(1, 2))",
    "a sparse tensor": "f(x.to_sparse())",
    "a sparse tensor in inference_mode": "inside(torch.inference_mode(), f, x.to_sparse())",
    "a parameter": "f(torch.nn.Parameter(x))",
    "a masked tensor": "f(torch.masked.masked_tensor(x, x > 0))",
    "a fake tensor": "fake(f, x)",
    "a subclass": "f(x.as_subclass(Subclass))",
    "a wrapper": "f(Wrapper(x))",
    "a wrapper with gradients": "f(Wrapper(x.requires_grad_()))",
    "vmap over a wrapper": "func.vmap(f)(Wrapper(x[None]))",
    "a complex tensor": "f(torch.complex(x, x))",
    "a conjugate view": "f(torch.complex(x, x).conj())",
    "a negative view": "f(torch._neg_view(x))",
    "a tensor of zeros": "f(torch._efficientzerotensor(x.shape))",
    "float64": "f(x.double())",
    "float16": "f(x.half())",
    "a oneDNN tensor": "f(x.to_mkldnn())",
    "a oneDNN tensor in inference_mode": "inside(torch.inference_mode(), f, x.to_mkldnn())",
}
USE = """
x = torch.arange(16.0).reshape(4, 4).cos()
def works(f):
    try:
        TRANSFORM(f, x.clone())
    except Exception:
        return False
    return True
def f(transform):
    global TRANSFORM
    TRANSFORM = eval("lambda f, x: " + transform, globals())
    found = [name for name, operator in OPERATORS.items() if works(operator)]
    # The grader accepts no result from code that has called a forbidden operator, so forget these calls.
    next(each for each in gc.get_objects() if type(each).__name__ == "Worker").hits.clear()
    return found
"""
FORBIDDEN = union(
    ("softmax", "log_softmax", "scaled_dot_product_attention", "layer_norm", "rms_norm"), {}
)
PATIENT = Limits(cpu_seconds=60, total_cpu_seconds=200, memory=2 << 30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def load(server: Server, source: str, operators: tuple[str, ...]) -> tuple[Student, Process]:
    process = Process(server, PATIENT)
    student = Student(process)
    pieces = [(1, source.count("\n") + 1)]
    student.load(m.Load(source, pieces, "f", 1, operators=list(operators)))
    return student, process


@pytest.fixture(scope="module")
def students(server: Server) -> Iterator[dict[bool, Student]]:
    """Two workers with the same code: one in which the operators are forbidden, and one in which they are not."""
    started = {
        forbidden: load(server, OPERATORS + USE, FORBIDDEN.operators if forbidden else ())
        for forbidden in (True, False)
    }
    yield {forbidden: student for forbidden, (student, _) in started.items()}
    for _, process in started.values():
        process.stop()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_forbidden_operator_raises(students: dict[bool, Student], transform: str) -> None:
    assert students[False].f(TRANSFORMS[transform]) != []
    assert students[True].f(TRANSFORMS[transform]) == []


ALLOWED = """
def block(x):
    y = torch.nn.functional.gelu(x @ x.mT).cumsum(-1)
    y = y.exp() / y.exp().sum(-1, keepdim=True)
    return torch.einsum("ij,jk->ik", y, x) + (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1).sqrt()
def f(transform):
    x = torch.arange(16.0, dtype=torch.double).reshape(4, 4).cos()
    results = eval("lambda f, x: " + transform, globals())(block, x)
    return [t.detach() for t in torch.utils._pytree.tree_leaves(results) if isinstance(t, torch.Tensor)]
"""
BY_DEFAULT_SOFTMAX = """
def f(transform):
    x = torch.arange(16.0).reshape(4, 4).cos()
    attention = lambda x: torch.nn.functional.scaled_dot_product_attention(*[heads(x)] * 3)
    result = eval("lambda f, x: " + transform, globals())(attention, x)
    return result.to_padded_tensor(0.0) if getattr(result, "is_nested", False) else result
"""
WITH_RESULTS = [
    *(
        "gradients",
        "vmap",
        "vmap twice",
        "vmap in inference_mode",
        "grad",
        "vmap of grad",
        "jacrev",
    ),
    *(
        "jacfwd",
        "hessian",
        "jvp",
        "functionalize",
        "batched gradients",
        "a negative view",
    ),
]


@pytest.mark.parametrize(
    ("source", "operators", "transforms"),
    [
        (ALLOWED, FORBIDDEN.operators, WITH_RESULTS),
        (
            BY_DEFAULT_SOFTMAX,
            union(("enable_gqa",), {}).operators,
            [
                *("nothing", "gradients", "vmap", "vmap with randomness", "vmap twice", "autocast"),
                *("vmap under autocast", "a nested tensor", "jagged heads", "inference_mode"),
            ],
        ),
    ],
    ids=["other operators", "without the forbidden option"],
)
def test_allowed_calls_give_the_same_results(
    server: Server, source: str, operators: tuple[str, ...], transforms: list[str]
) -> None:
    (checked, first), (free, second) = (
        load(server, OPERATORS + source, chosen) for chosen in (operators, ())
    )
    for name in transforms:
        expected, found = free.f(TRANSFORMS[name]), checked.f(TRANSFORMS[name])
        assert str(found) == str(expected), name
    first.stop()
    second.stop()
