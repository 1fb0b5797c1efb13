"""Define the messages that cross the sandbox boundary. `encoding` converts the values in these messages."""

from __future__ import annotations

from typing import Literal

import msgspec

MAX_TEXT = 2000
MAX_PRINTED = 64_000  # maximum number of characters that a call may print for the grader


class WireError(Exception):
    """Raised when data from the other side of the sandbox boundary violates this protocol."""


# ---- values


class Tagged(msgspec.Struct, frozen=True, tag=True, tag_field="message"):
    """A struct that is sent with its class name, so the receiver can distinguish message types."""


class TensorAt(Tagged, frozen=True):
    """A reference to a tensor or NumPy array by its index in `Data.tensors`."""

    index: int


class Items(Tagged, frozen=True):
    """A list or tuple."""

    items: list[Value]


class Pairs(Tagged, frozen=True):
    """A dict whose keys are plain values or tuples of plain values. Tuples are sent as lists."""

    items: list[tuple[Key, Value]]


class Members(Tagged, frozen=True):
    """A set or frozenset of plain values or tuples of plain values. Tuples are sent as lists."""

    items: list[Key]


class Complex(Tagged, frozen=True):
    """A complex number."""

    real: float
    imag: float


class Bytes(Tagged, frozen=True):
    """A bytes object."""

    data: bytes


class Handle(Tagged, frozen=True):
    """A reference to an `nn.Module` or to an instance of a class in the loaded code. The object itself stays in the sandbox."""

    id: int
    type: str
    module: bool = True


class Generator(Tagged, frozen=True):
    """A reference to a `torch.Generator`, with its initial seed. The generator's state persists between calls."""

    id: int
    seed: int


class Model(Tagged, frozen=True):
    """A reference to one of the grader's `nn.Module`s. Only its methods and plain attributes are visible in the sandbox."""

    id: int
    methods: list[str]
    attributes: list[tuple[str, Value]]
    training: bool


class Random(Tagged, frozen=True):
    """A `numpy.random.Generator` with its state. A call's answer contains the state of each generator that the call got."""

    id: int
    state: bytes


class Function(Tagged, frozen=True):
    """A reference to one of the grader's functions. Calls to it run in the grader's process."""

    id: int
    name: str


class Opaque(Tagged, frozen=True):
    """A description of a value that cannot be sent, such as an open file."""

    type: str

    def __str__(self) -> str:
        return self.type


class Named(Tagged, frozen=True):
    """A dtype or device, sent by name."""

    kind: str
    name: str


Plain = None | bool | int | float | str
Key = Plain | list[Plain]
Numeric = TensorAt | Complex | Random  # values of NumPy and torch
Containers = Items | Pairs | Members | Bytes
Value = Plain | Numeric | Containers | Handle | Generator | Model | Function | Opaque | Named


class TensorMeta(msgspec.Struct, array_like=True, frozen=True):
    """The position of a tensor's bytes in the payload, and the dtype and layout needed to read them.

    `kind` says whether to build a tensor or a NumPy array from them.
    """

    dtype: str
    shape: list[int]
    strides: list[int]
    start: int
    requires_grad: bool
    meta: bool = False
    kind: Literal["tensor", "array"] = "tensor"


class Data(msgspec.Struct, frozen=True):
    """A value and the tensors that it refers to."""

    value: Value
    tensors: list[TensorMeta]


# ---- messages: requests from the grader, responses from the worker, and the worker's own requests


class Reference(Tagged, frozen=True):
    """A function or class from the reference solution, with its parameters. Calls from student code run in another process."""

    name: str
    parameters: list[str] | None = None  # None if it accepts any
    methods: dict[str, list[str] | None] | None = None  # a class's methods with their parameters


class Load(Tagged, frozen=True):
    """Run source code as a module, piece by piece. Each piece is given by its first and last line.

    `wanted` is the exercise that the code must define. `operators` and `attributes` list what the code must not use. The
    module contains a proxy for each entry in `references`.
    """

    source: str
    pieces: list[tuple[int, int]]
    wanted: str
    seed: int
    flags: int = 0
    operators: list[str] = []
    attributes: list[str] = []
    references: list[Reference] = []


class Call(Tagged, frozen=True):
    """Call a function in the loaded module, given its name, or a method of an object, given the object's id.

    `keep` keeps the autograd graph for a later `Backward`, `grad` enables gradients, and `measure` counts operators.
    """

    target: str | int
    method: str
    arguments: Data
    keep: bool
    grad: bool
    measure: bool = False


class Make(Tagged, frozen=True):
    """Create an instance from `[args, kwargs, random state]`. The result is `[data for its proxy, new random state]`."""

    target: str
    arguments: Data


class Apply(Tagged, frozen=True):
    """Call a method of an object that `Make` created, using the parameters, buffers and training modes in this message.

    The arguments are `[args, kwargs, tensors, modes, random state]`, where tensors and modes are dicts by path. The result is
    `[result, new random state]`.
    """

    target: int
    method: str
    arguments: Data
    keep: bool
    grad: bool


class Backward(Tagged, frozen=True):
    """Compute the gradients of a call whose graph was kept, with respect to its inputs and the named parameters of the module."""

    call: int
    upstream: Data
    parameters: list[str]


class Weights(Tagged, frozen=True):
    """Copy tensors into a module's parameters by name."""

    module: int
    weights: Data


class Read(Tagged, frozen=True):
    """Read a module's parameters, its state dict, the attribute at a dotted path, or that attribute's length."""

    module: int
    what: str
    path: str = ""


class Set(Tagged, frozen=True):
    """Set a module's training mode or dtype."""

    module: int
    training: bool | None = None
    dtype: str | None = None


class Forget(Tagged, frozen=True):
    """Free the autograd graphs of the listed calls. If `calls` is None, free all graphs and all objects behind handles."""

    calls: list[int] | None


class Reply(Tagged, frozen=True):
    """The grader's response to a `Question`.

    If `error` is set, the worker raises the built-in exception `type` with `error` as its message.
    """

    answer: Data
    error: str = ""
    type: str = "RuntimeError"


class Answer(Tagged, frozen=True):
    """The result of a request.

    `changed` lists the arguments changed in place. `modes` contains the id of each grader model, and whether the model
    and its submodules are now in training mode. `forbidden` lists the forbidden operators called. `operations` and
    `largest` measure the cost of the request. `printed` is the beginning of what the call printed, and `randoms` are the
    NumPy generators that the call got, with their new states.
    """

    result: Data
    changed: list[str] = []
    modes: list[tuple[int, bool, bool]] = []
    forbidden: list[str] = []
    operations: int = 0
    largest: int = 0
    printed: str = ""
    randoms: list[Random] = []


class Running(Tagged, frozen=True):
    """A notification that the piece of code at this line is about to run. The grader does not reply."""

    line: int


class Failure(Tagged, frozen=True):
    """An error in the student's code.

    `kind` is "missing" if the code does not define what was requested, "forbidden" for a forbidden operator, and
    "raised" otherwise.
    """

    kind: str
    type: str
    text: str
    bases: list[str] = []
    line: int = 0
    forbidden: list[str] = []
    modes: list[tuple[int, bool, bool]] = []
    meta_read: bool = False  # whether the code tried to read the values of a `meta` tensor


class Ask(Tagged, frozen=True):
    """A call from the student's code to one of the grader's models or, if `method` is "", to one of its functions."""

    model: int
    method: str
    arguments: Data
    training: bool
    grad: bool
    keep: int = 0


class Refer(Tagged, frozen=True):
    """A call from the student's code to a reference solution: a function or class (by name), or an object's method (by id).

    The grader translates the call into a `Call`, `Make` or `Apply` request with the same arguments.
    """

    target: str | int
    method: str
    arguments: Data
    grad: bool
    keep: int = 0


class AskBackward(Tagged, frozen=True):
    """A request for the gradients of an earlier call: the one whose `Ask` or `Refer` message had this `keep` number."""

    keep: int
    upstream: Data


Request = Load | Call | Make | Apply | Backward | Weights | Read | Set | Forget | Reply
Question = Ask | Refer | AskBackward  # requests from the worker to the grader
Response = Answer | Failure | Ask | Refer | AskBackward | Running


class Numbered(msgspec.Struct, frozen=True):
    """A request with its sequence number."""

    number: int
    request: Request


class NumberedResponse(msgspec.Struct, frozen=True):
    """A response with the number of its request."""

    number: int
    response: Response
