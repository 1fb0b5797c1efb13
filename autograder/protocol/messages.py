"""What may pass through the wall: the types of messages and of the values in them.

encoding.py makes such values of Python's and back, frames.py sends and receives messages.
"""

from __future__ import annotations

import msgspec

MAX_TEXT = 2000


class WireError(Exception):
    """What came through the wall is not a message of this protocol."""


# ---- values


class Tagged(msgspec.Struct, frozen=True, tag=True, tag_field="message"):
    """Carries its class name on the wire."""


class TensorAt(Tagged, frozen=True):
    """The tensor of this number in the message's list."""

    index: int


class Items(Tagged, frozen=True):
    items: list[Value]


class Pairs(Tagged, frozen=True):
    items: list[tuple[str, Value]]


class Handle(Tagged, frozen=True):
    """An `nn.Module`, or another object of a class that the code defines, that stays behind the wall."""

    id: int
    type: str
    module: bool = True


class Generator(Tagged, frozen=True):
    """A `torch.Generator` that had this seed when it was first sent; it goes on from call to call."""

    id: int
    seed: int


class Model(Tagged, frozen=True):
    """An `nn.Module` of the grader, seen from behind the wall as its methods and plain attributes."""

    id: int
    methods: list[str]
    attributes: list[tuple[str, Value]]
    training: bool


class Opaque(Tagged, frozen=True):
    """A value that cannot pass, and what it is in words."""

    type: str

    def __str__(self) -> str:
        return self.type


class Named(Tagged, frozen=True):
    """A dtype or a device."""

    kind: str
    name: str


Value = (
    None
    | bool
    | int
    | float
    | str
    | TensorAt
    | Items
    | Pairs
    | Handle
    | Generator
    | Model
    | Opaque
    | Named
)


class TensorMeta(msgspec.Struct, array_like=True, frozen=True):
    dtype: str
    shape: list[int]
    strides: list[int]
    start: int
    requires_grad: bool
    meta: bool = False


class Data(msgspec.Struct, frozen=True):
    """A value with the tensors that it refers to."""

    value: Value
    tensors: list[TensorMeta]


# ---- messages: requests of the grader, answers of the worker, and the worker's questions


class Reference(Tagged, frozen=True):
    """A name that another process answers for the code: a function, or a class with these methods."""

    name: str
    methods: list[str] | None = None


class Load(Tagged, frozen=True):
    """Run these pieces of one source, each from a first to a last line, as one module that has handles for the references."""

    source: str
    pieces: list[tuple[int, int]]
    wanted: str
    seed: int
    flags: int = 0
    operators: list[str] = []
    attributes: list[str] = []
    references: list[Reference] = []


class Call(Tagged, frozen=True):
    """Call a function of the module by name, or a method of a kept module."""

    target: str | int
    method: str
    arguments: Data
    keep: bool
    grad: bool
    measure: bool = False


class Make(Tagged, frozen=True):
    """Make an object of a class of the module; the answer is its number and its parts, for a handle to be built from."""

    target: str
    arguments: Data


class Apply(Tagged, frozen=True):
    """Call a method of an object that was made, as if the parameters, buffers and modes sent with the arguments were its own."""

    target: int
    method: str
    arguments: Data
    keep: bool
    grad: bool


class Backward(Tagged, frozen=True):
    """The gradients of a kept call, for its inputs and for the named parameters of its module."""

    call: int
    upstream: Data
    parameters: list[str]


class Weights(Tagged, frozen=True):
    module: int
    weights: Data


class Read(Tagged, frozen=True):
    """Read `parameters`, `state`, the `attribute` or the `length` at a dotted path."""

    module: int
    what: str
    path: str = ""


class Set(Tagged, frozen=True):
    module: int
    training: bool | None = None
    dtype: str | None = None


class Forget(Tagged, frozen=True):
    calls: list[int]


class Reply(Tagged, frozen=True):
    """The grader's answer to a question; an `error` is raised where the question was asked, as the built-in `type`."""

    answer: Data
    error: str = ""
    type: str = "RuntimeError"


class Answer(Tagged, frozen=True):
    """A result; which arguments the call changed in place; the mode in which it left the grader's models; what it took."""

    result: Data
    changed: list[str] = []
    modes: list[tuple[int, bool]] = []
    forbidden: list[str] = []
    operations: int = 0
    largest: int = 0


class Running(Tagged, frozen=True):
    """The piece of code at this line is about to run; no answer is expected."""

    line: int


class Failure(Tagged, frozen=True):
    """What went wrong: `raised` by the student's code, or `missing` there."""

    kind: str
    type: str
    text: str
    bases: list[str] = []
    line: int = 0
    forbidden: list[str] = []
    modes: list[tuple[int, bool]] = []
    meta_read: bool = False  # torch refused to read values on `meta`


class Ask(Tagged, frozen=True):
    """The student's code calls a model of the grader."""

    model: int
    method: str
    arguments: Data
    training: bool
    grad: bool
    keep: int = 0


class Refer(Tagged, frozen=True):
    """The student's code calls a reference: a function or class by name, or a method of an object by its number.

    The arguments are `[args, kwargs]`, and of a method `[args, kwargs, tensors by name, modes by name]`.
    """

    target: str | int
    method: str
    arguments: Data
    grad: bool
    keep: int = 0


class AskBackward(Tagged, frozen=True):
    """The gradients of an `Ask` or `Refer` that had this number as `keep`."""

    keep: int
    upstream: Data


Request = Load | Call | Make | Apply | Backward | Weights | Read | Set | Forget | Reply
Question = Ask | Refer | AskBackward
Response = Answer | Failure | Ask | Refer | AskBackward | Running


class Numbered(msgspec.Struct, frozen=True):
    number: int
    request: Request


class NumberedResponse(msgspec.Struct, frozen=True):
    number: int
    response: Response


def encodable(text: str) -> str:
    """The text, with lone surrogates (from `os.fsdecode`, or "\\ud800") as escapes: there is no UTF-8 for them."""
    return text.encode("utf-8", "backslashreplace").decode()
