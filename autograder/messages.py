"""What may pass through the wall.

A message is a frame: two lengths, a MessagePack header that msgspec checks against the types below, and a payload of raw tensor
bytes. A tensor is dtype, shape, strides and bytes; no object is ever rebuilt from a name. Both ends treat what comes in as
hostile: sizes, depth, dtypes, shapes and strides are checked before anything is allocated.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import torch

MAX_HEADER = 1 << 20
MAX_PAYLOAD = 24 << 20
MAX_ELEMENTS = 1 << 22
MAX_DEPTH = 16
MAX_AXES = 16
MAX_TEXT = 2000
MAX_STRING = 10_000
ALIGNMENT = 64
LENGTHS = struct.Struct("<QQ")

DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float32", "float64"),
        *("bool", "uint8", "int8", "int16", "int32", "int64"),
    )
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


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
    """A `torch.Generator` with this seed."""

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


class Load(Tagged, frozen=True):
    """Run these pieces of one source, each from a first to a last line, as one module."""

    source: str
    pieces: list[tuple[int, int]]
    wanted: str
    seed: int
    flags: int = 0
    operators: list[str] = []
    attributes: list[str] = []


class Call(Tagged, frozen=True):
    """Call a function of the module by name, or a method of a kept module."""

    target: str | int
    method: str
    arguments: Data
    keep: bool
    grad: bool
    measure: bool = False


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
    """The grader's answer to `Ask`."""

    answer: Data
    error: str = ""


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


class Ask(Tagged, frozen=True):
    """The student's code calls a model of the grader."""

    model: int
    method: str
    arguments: Data
    training: bool
    grad: bool
    keep: int = 0


class AskBackward(Tagged, frozen=True):
    keep: int
    upstream: Data


Request = Load | Call | Backward | Weights | Read | Set | Forget | Reply
Response = Answer | Failure | Ask | AskBackward | Running


class Numbered(msgspec.Struct, frozen=True):
    number: int
    request: Request


class NumberedResponse(msgspec.Struct, frozen=True):
    number: int
    response: Response


def encodable(text: str) -> str:
    """The text, with lone surrogates (from `os.fsdecode`, or "\\ud800") as escapes: there is no UTF-8 for them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _contiguous_strides(shape: Sequence[int]) -> list[int]:
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return strides[::-1]


class Outgoing:
    """Collects the tensors of one message and lays their bytes out behind one another."""

    def __init__(self) -> None:
        self.payload: list[bytes] = []
        self.size = 0

    def data(
        self,
        value: Any,
        convert: Callable[[Any], Value],
        sent: list[torch.Tensor] | None = None,
    ) -> Data:
        """Encode `value`; what has no encoding here is given to `convert`. Its tensors, each once, are added to `sent`."""
        tensors: list[TensorMeta] = []
        seen: dict[int, int] = {}
        kept = [] if sent is None else sent

        def encode(item: Any, depth: int) -> Value:
            if item is None or type(item) in (bool, float):
                return item  # type: ignore[no-any-return]
            if type(item) is str:
                if len(item) > MAX_STRING:
                    return Opaque(f"a str of {len(item)} characters")
                return encodable(item)
            if type(item) is int:
                return item if -(2**63) <= item < 2**63 else Opaque("an int of over 64 bits")
            if isinstance(item, torch.Tensor):
                if id(item) not in seen:
                    reason = _unsupported(item)
                    if reason:
                        return Opaque(reason)
                    seen[id(item)] = len(tensors)
                    kept.append(item)
                    tensors.append(self._tensor(item))
                return TensorAt(seen[id(item)])
            if isinstance(item, (list, tuple, dict)):
                if depth == MAX_DEPTH:
                    return Opaque(f"a {type(item).__name__} that is nested too deeply")
                if len(item) > 10_000:
                    return Opaque(f"a {type(item).__name__} of {len(item)} items")
                if isinstance(item, dict):
                    return Pairs(
                        [(encodable(str(k)), encode(v, depth + 1)) for k, v in item.items()]
                    )
                return Items([encode(part, depth + 1) for part in item])
            if isinstance(item, torch.dtype):
                return Named("dtype", str(item).removeprefix("torch."))
            if isinstance(item, torch.device):
                return Named("device", str(item))
            return convert(item)

        return Data(encode(value, 0), tensors)

    def _tensor(self, tensor: torch.Tensor) -> TensorMeta:
        dtype = NAMES[tensor.dtype]
        requires_grad = tensor.requires_grad
        tensor = tensor.detach()
        if tensor.is_meta:
            return TensorMeta(dtype, list(tensor.shape), [], 0, requires_grad, True)
        flat, strides = _flat(tensor)
        padding = -self.size % ALIGNMENT
        if padding:
            self.payload.append(bytes(padding))
        start = self.size + padding
        if flat.numel():
            raw = _bytes(flat)
            self.payload.append(raw)
            self.size = start + len(raw)
        else:
            self.size = start
        return TensorMeta(dtype, list(tensor.shape), strides, start, requires_grad)


def _bytes(flat: torch.Tensor) -> bytes:
    plain = flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat
    return plain.numpy().tobytes()


def _unsupported(tensor: torch.Tensor) -> str:
    if tensor.layout != torch.strided:
        return "a tensor that is not dense"
    if tensor.dtype not in NAMES:
        return f"a tensor of {str(tensor.dtype).removeprefix('torch.')}"
    if not tensor.is_meta and tensor.numel() > MAX_ELEMENTS:
        return f"a tensor of {tensor.numel()} elements"
    if tensor.dim() > MAX_AXES:
        return f"a tensor with {tensor.dim()} axes"
    return ""


def _flat(tensor: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """The bytes of a tensor with its strides: a view is sent as it lies, unless it is spread out."""
    tensor = tensor.resolve_conj().resolve_neg()
    if tensor.is_contiguous():
        return tensor, _contiguous_strides(tensor.shape)
    if tensor.numel():
        strides = tensor.stride()
        extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, strides, strict=True))
        if extent <= 4 * tensor.numel():
            flat = tensor.as_strided((extent,), (1,), tensor.storage_offset())
            return flat.contiguous(), list(strides)
    return tensor.contiguous().reshape(-1), _contiguous_strides(tensor.shape)


def tensors_of(data: Data, payload: bytearray) -> list[torch.Tensor]:
    """Rebuild the tensors of `data` over `payload`, without gradients.

    Raises:
        WireError: a dtype, shape, stride or position that does not fit.
    """
    return [_rebuild(meta, payload) for meta in data.tensors]


def _rebuild(meta: TensorMeta, payload: bytearray) -> torch.Tensor:
    dtype = DTYPES.get(meta.dtype)
    shape, strides = meta.shape, meta.strides
    if (
        dtype is None
        or len(shape) > MAX_AXES
        or (shape and not 0 <= min(shape) <= max(shape) <= 1 << 40)
    ):
        raise WireError("a tensor of an impossible dtype or shape")
    numel = math.prod(shape)
    if math.prod(n or 1 for n in shape) > 1 << 62:
        raise WireError("a tensor of an impossible size")
    if meta.meta:
        return torch.empty(shape, dtype=dtype, device="meta")
    if numel > MAX_ELEMENTS or len(strides) != len(shape):
        raise WireError("a tensor of an impossible size")
    if strides and not 0 <= min(strides) <= max(strides) <= MAX_ELEMENTS:
        raise WireError("a tensor of impossible strides")
    if numel == 0:
        return torch.empty(shape, dtype=dtype)
    extent = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if meta.start < 0 or meta.start % ALIGNMENT:
        raise WireError("a tensor that is not aligned")
    if meta.start + extent * dtype.itemsize > len(payload):
        raise WireError("a tensor beyond the end of its message")
    raw = torch.uint8 if dtype == torch.bool else dtype
    flat = torch.frombuffer(payload, dtype=raw, count=extent, offset=meta.start)
    if dtype == torch.bool:
        flat = flat.ne(0)
    return flat.as_strided(shape, strides)


def value_of(value: Value, tensors: Sequence[torch.Tensor], convert: Callable[[Value], Any]) -> Any:
    """Rebuild a value around its tensors; handles and models are given to `convert`.

    Raises:
        WireError: a tensor number out of range, an unknown dtype or device, too deep a nesting.
    """

    def decode(item: Value, depth: int) -> Any:
        if depth > MAX_DEPTH + 1:
            raise WireError("a value that is nested too deeply")
        if isinstance(item, TensorAt):
            if not 0 <= item.index < len(tensors):
                raise WireError("a tensor that was not sent")
            return tensors[item.index]
        if isinstance(item, Items):
            return [decode(part, depth + 1) for part in item.items]
        if isinstance(item, Pairs):
            return {key: decode(part, depth + 1) for key, part in item.items}
        if isinstance(item, Named):
            return _named(item)
        if isinstance(item, (Handle, Generator, Model, Opaque)):
            return convert(item)
        return item

    return decode(value, 0)


def _named(item: Named) -> Any:
    if item.kind == "dtype" and item.name in DTYPES:
        return DTYPES[item.name]
    if item.kind == "device" and item.name in ("cpu", "meta"):
        return torch.device(item.name)
    return Opaque(f"the {item.kind} {item.name}"[:MAX_TEXT])


# ---- frames

_ENCODER = msgspec.msgpack.Encoder()
REQUESTS = msgspec.msgpack.Decoder(Numbered)
RESPONSES = msgspec.msgpack.Decoder(NumberedResponse)


def send(connection: socket.socket, message: Any, payload: Outgoing, deadline: float) -> None:
    """Send one frame.

    Raises:
        TimeoutError: the other side does not read.
        ConnectionError: the other side is gone.
    """
    header = _ENCODER.encode(message)
    parts = [memoryview(LENGTHS.pack(len(header), payload.size)), memoryview(header)]
    parts += [memoryview(part) for part in payload.payload]
    while parts:
        _wait(connection, deadline)
        sent = connection.sendmsg(parts[:64])
        while parts and sent >= len(parts[0]):
            sent -= len(parts[0])
            parts.pop(0)
        if sent:
            parts[0] = parts[0][sent:]


def receive(
    connection: socket.socket, decoder: msgspec.msgpack.Decoder[Any], deadline: float
) -> tuple[Any, bytearray]:
    """Receive one frame: the decoded header and the payload.

    Raises:
        TimeoutError: the deadline passed. ConnectionError: the other side is gone.
        WireError: what came is not a message.
    """
    lengths = _exactly(connection, LENGTHS.size, deadline)
    header_size, payload_size = LENGTHS.unpack(lengths)
    if header_size > MAX_HEADER or payload_size > MAX_PAYLOAD:
        raise WireError("a message that is too large")
    body = _exactly(connection, header_size + payload_size, deadline)
    header, payload = body[:header_size], body[header_size:]
    try:
        return decoder.decode(header), payload
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise WireError(f"not a message: {error}") from None


def _exactly(connection: socket.socket, size: int, deadline: float) -> bytearray:
    buffer = bytearray()
    while len(buffer) < size:
        _wait(connection, deadline)
        # In pieces, so that a length without the bytes allocates nothing.
        piece = connection.recv(min(size - len(buffer), 1 << 20))
        if not piece:
            raise ConnectionError("the connection ended")
        buffer += piece
    return buffer


def _wait(connection: socket.socket, deadline: float) -> None:
    if deadline == math.inf:
        connection.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
