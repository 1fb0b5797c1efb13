"""Convert Python values to message values and a payload of raw tensor bytes. Entry point: `Outgoing`.

A tensor or NumPy array is sent as its dtype, shape, strides and bytes. Nothing is pickled.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from autograder.plain_text import escape_surrogates, escaped
from autograder.protocol.messages import (
    MAX_TEXT,
    Bytes,
    Complex,
    Data,
    Function,
    Generator,
    Handle,
    Items,
    Key,
    Members,
    Model,
    Named,
    Opaque,
    Pairs,
    Plain,
    Random,
    TensorAt,
    TensorMeta,
    Value,
    WireError,
)

MAX_ELEMENTS = 1 << 22
MAX_DEPTH = 16
MAX_LENGTH = 10_000  # maximum number of items per list or dict
MAX_AXES = 16
ALIGNMENT = 64
DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float32", "float64"),
        *("bool", "uint8", "int8", "int16", "int32", "int64"),
    )
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ARRAY_DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}
ITEM_SIZES = {name: dtype.itemsize for name, dtype in (*ARRAY_DTYPES.items(), *DTYPES.items())}
MAX_ARRAY_BYTES = 16 << 20


def _contiguous_strides(shape: Sequence[int]) -> list[int]:
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return strides[::-1]


class Outgoing:
    """The payload of a message being encoded: the concatenated bytes of its tensors."""

    def __init__(self) -> None:
        self.payload: list[bytes] = []
        self.size = 0

    def encode(
        self,
        value: Any,
        convert: Callable[[Any], Value],
        sent: list[torch.Tensor] | None = None,
    ) -> Data:
        """Encode `value` and append its tensors to the payload.

        `convert` encodes values of types that this module does not handle, or converts them to plain values. Each
        tensor in `value` is appended to `sent`, without duplicates.
        """
        tensors: list[TensorMeta] = []
        seen: dict[int, int] = {}
        alive: list[Any] = []  # arrays, so that no id is used again
        kept = [] if sent is None else sent

        def walk(item: Any, depth: int) -> Value:
            if item is None or type(item) in (bool, int, float, str):
                return limited(item)
            if isinstance(item, torch.Tensor):
                if id(item) not in seen:
                    reason = _unsupported(item)
                    if reason:
                        return Opaque(reason)
                    seen[id(item)] = len(tensors)
                    kept.append(item)
                    tensors.append(self._tensor(item))
                return TensorAt(seen[id(item)])
            if type(item) is np.ndarray:
                if id(item) not in seen:
                    reason = _unsupported_array(item)
                    if reason:
                        return Opaque(reason)
                    seen[id(item)] = len(tensors)
                    alive.append(item)
                    tensors.append(self._array(item))
                return TensorAt(seen[id(item)])
            if type(item) is complex:
                return Complex(item.real, item.imag)
            if type(item) is bytes:
                return Bytes(item) if len(item) <= MAX_STRING else Opaque(f"{len(item)} bytes")
            if isinstance(item, (set, frozenset)):
                if len(item) > MAX_LENGTH:
                    return Opaque(f"a {type(item).__name__} of {len(item)} items")
                members = [encode_key(part, convert) for part in item]
                unsent = [part for part in members if isinstance(part, Opaque)]
                if unsent:
                    return Opaque(f"a {type(item).__name__} that contains {unsent[0]}")
                return Members([part for part in members if not isinstance(part, Opaque)])
            if isinstance(item, (list, tuple, dict)):
                if depth == MAX_DEPTH:
                    return Opaque(f"a {type(item).__name__} that is nested too deeply")
                if len(item) > MAX_LENGTH:
                    return Opaque(f"a {type(item).__name__} of {len(item)} items")
                if isinstance(item, dict):
                    keys: list[Key] = []
                    for key in item:
                        sent_key = encode_key(key, convert)
                        if isinstance(sent_key, Opaque):
                            return Opaque(f"a dict with {sent_key} as a key")
                        keys.append(sent_key)
                    # Encode the values last, because every tensor that is sent must be part of the message's value.
                    values = [walk(part, depth + 1) for part in item.values()]
                    return Pairs(list(zip(keys, values, strict=True)))
                return Items([walk(part, depth + 1) for part in item])
            if isinstance(item, torch.dtype):
                return Named("dtype", str(item).removeprefix("torch."))
            if isinstance(item, torch.device):
                return Named("device", str(item))
            converted = convert(item)
            return limited(converted) if isinstance(converted, Plain) else converted

        return Data(walk(value, 0), tensors)

    def _tensor(self, tensor: torch.Tensor) -> TensorMeta:
        dtype = NAMES[tensor.dtype]
        requires_grad = tensor.requires_grad
        tensor = tensor.detach()
        if tensor.is_meta:
            return TensorMeta(dtype, list(tensor.shape), [], 0, requires_grad, True)
        flat, strides = _flat(tensor)
        start = self._append(raw_bytes(flat) if flat.numel() else b"")
        return TensorMeta(dtype, list(tensor.shape), strides, start, requires_grad)

    def _array(self, array: np.ndarray[Any, Any]) -> TensorMeta:
        array = array.astype(ARRAY_DTYPES[array.dtype.name], copy=False)  # in native byte order
        raw, strides = _flat_array(array)
        start = self._append(raw)
        return TensorMeta(array.dtype.name, list(array.shape), strides, start, False, kind="array")

    def _append(self, raw: bytes) -> int:
        """Append bytes to the payload at an aligned offset, and return that offset."""
        padding = -self.size % ALIGNMENT
        self.payload += [bytes(padding), raw]
        start = self.size + padding
        self.size = start + len(raw)
        return start


def raw_bytes(flat: torch.Tensor) -> bytes:
    """Return the bytes of a contiguous tensor."""
    plain = flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat
    return plain.numpy().tobytes()


def _unsupported(tensor: torch.Tensor) -> str:
    if tensor.layout != torch.strided:
        return "a tensor with a layout other than torch.strided"
    if tensor.dtype not in NAMES:
        return f"a tensor of dtype {str(tensor.dtype).removeprefix('torch.')}"
    if not tensor.is_meta and tensor.numel() > MAX_ELEMENTS:
        return f"a tensor with {tensor.numel()} elements"
    if tensor.dim() > MAX_AXES:
        return f"a tensor with {tensor.dim()} axes"
    if not tensor.is_meta and math.prod(n or 1 for n in tensor.shape) > MAX_ELEMENTS:
        return f"an empty tensor of shape {tuple(tensor.shape)}"
    return ""


def _flat(tensor: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Return a flat contiguous tensor and the strides needed to rebuild `tensor` from it.

    A view keeps its strides unless it spans more than four times the memory of its elements.
    """
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


def _unsupported_array(array: np.ndarray[Any, Any]) -> str:
    if array.dtype.name not in ARRAY_DTYPES:
        return f"an array of dtype {array.dtype}"[:MAX_TEXT]
    if array.nbytes > MAX_ARRAY_BYTES or math.prod(n or 1 for n in array.shape) > MAX_ELEMENTS:
        return f"an array of shape {array.shape}"
    return f"an array with {array.ndim} axes" if array.ndim > MAX_AXES else ""


def _flat_array(array: np.ndarray[Any, Any]) -> tuple[bytes, list[int]]:
    """Return the bytes and strides needed to rebuild `array`. As in `_flat`, a sparse view is sent as a contiguous array.

    So is a view whose axes are reversed or repeated.
    """
    if not array.flags.c_contiguous and array.size and min(array.strides) > 0:
        size = array.itemsize
        extent = 1 + sum(
            (n - 1) * s // size for n, s in zip(array.shape, array.strides, strict=True)
        )
        if extent <= 4 * array.size and not any(s % size for s in array.strides):
            flat = as_strided(array, (extent,), (size,))
            return flat.tobytes(), [s // size for s in array.strides]
    return array.tobytes(), _contiguous_strides(array.shape)


MAX_STRING = 10_000  # maximum number of characters in a string or in a key
# Building a dict takes quadratic time if all its keys have the same hash, and tuples of numbers can be chosen to collide.
# Some collisions are normal, because hash(-1) == hash(-2).
MAX_EQUAL_HASHES = 1_000


def limited(item: Plain) -> Plain | Opaque:
    """Convert a plain value to the form in which it is sent. If it is too large, return a description instead."""
    if isinstance(item, str):
        is_short = len(item) <= MAX_STRING
        return escape_surrogates(item) if is_short else Opaque(f"a str of {len(item)} characters")
    is_huge = isinstance(item, int) and not -(2**63) <= item < 2**63
    return Opaque("an int of more than 64 bits") if is_huge else item


def encode_key(key: Any, convert: Callable[[Any], Value]) -> Key | Opaque:
    """Convert a dict key to the form in which it is sent. If it cannot be sent, return a description instead."""
    found: Key | Opaque
    if isinstance(key, tuple):
        parts = [_plain(part, convert) for part in key]
        plain = [part for part in parts if isinstance(part, Plain)]
        found = plain if len(plain) == len(parts) else Opaque("a nested tuple")
    else:
        found = _plain(key, convert)
    if not isinstance(found, Opaque) and _length(found) > MAX_STRING:
        return Opaque(f"a {type(key).__name__} of length {len(key)}")
    return found


def _plain(item: Any, convert: Callable[[Any], Value]) -> Plain | Opaque:
    if isinstance(item, tuple):
        return Opaque("a tuple")
    found = item if item is None or type(item) in (bool, int, float, str) else convert(item)
    if isinstance(found, Plain):
        return limited(found)
    return found if isinstance(found, Opaque) else Opaque("an object")


def _length(key: Key) -> int:
    """Return the number of characters in a key. Numbers and empty strings count as one character."""
    parts = key if isinstance(key, list) else [key]
    return sum(len(part) or 1 if isinstance(part, str) else 1 for part in parts)


def check_keys(keys: Sequence[Key]) -> None:
    """Check a dict's keys before the dict is built.

    Raises:
        WireError: A key is too long, or many keys have the same hash.
    """
    if any(_length(key) > MAX_STRING for key in keys):
        raise WireError("a dict has a key that is too long")
    hashes = Counter(hash(decode_key(key)) for key in keys)
    if max(hashes.values(), default=0) > MAX_EQUAL_HASHES:
        raise WireError("a dict has many keys with the same hash")


def decode_key(key: Key) -> Any:
    """Return a key as a plain value or a tuple of plain values."""
    return tuple(key) if isinstance(key, list) else key


MAX_ITEMS = 50_000  # maximum number of items per message


def decode_tensors(data: Data, payload: bytearray) -> list[Any]:
    """Rebuild the tensors of `data` from `payload`, without gradients. Arrays are views of the payload.

    Raises:
        WireError: A dtype, shape, stride or offset is invalid.
    """
    return [_rebuild(meta, payload) for meta in data.tensors]


def check_tensors(data: Data, size: int) -> None:
    """Check that the tensors of `data` are valid and within a payload of `size` bytes.

    Raises:
        WireError: A dtype, shape, stride or offset is invalid.
    """
    for meta in data.tensors:
        _extent(meta, size)


def _rebuild(meta: TensorMeta, payload: bytearray) -> Any:
    extent = _extent(meta, len(payload))
    if meta.kind == "array":
        return _rebuild_array(meta, payload, extent)
    dtype, shape = DTYPES[meta.dtype], meta.shape
    try:
        if meta.meta or extent == 0:
            return torch.empty(shape, dtype=dtype, device="meta" if meta.meta else None)
        raw = torch.uint8 if dtype == torch.bool else dtype
        flat = torch.frombuffer(payload, dtype=raw, count=extent, offset=meta.start)
        if dtype == torch.bool:
            flat = flat.ne(0)
        return flat.as_strided(shape, meta.strides)
    except RuntimeError as error:
        raise WireError(f"torch rejected a tensor: {error}") from None


def _rebuild_array(meta: TensorMeta, payload: bytearray, extent: int) -> Any:
    dtype = ARRAY_DTYPES[meta.dtype]
    if extent == 0:
        return np.empty(meta.shape, dtype)
    raw = np.dtype("uint8") if meta.dtype == "bool" else dtype
    flat = np.frombuffer(payload, raw, extent, meta.start)
    flat = flat != 0 if meta.dtype == "bool" else flat
    return as_strided(flat, meta.shape, [stride * dtype.itemsize for stride in meta.strides])


def _extent(meta: TensorMeta, size: int) -> int:
    """Return how many elements a tensor spans in memory, after checking that it fits in a payload of `size` bytes."""
    is_array = meta.kind == "array"
    dtype = ARRAY_DTYPES.get(meta.dtype) if is_array else DTYPES.get(meta.dtype)
    shape, strides = meta.shape, meta.strides
    if is_array and (meta.meta or meta.requires_grad):
        raise WireError("an array has no values or requires gradients")
    if (
        dtype is None
        or len(shape) > MAX_AXES
        or (shape and not 0 <= min(shape) <= max(shape) <= 1 << 40)
    ):
        raise WireError("a tensor has an invalid dtype or shape")
    numel = math.prod(shape)
    if math.prod(n or 1 for n in shape) * dtype.itemsize > 1 << 62:
        raise WireError("a tensor has an invalid size")
    if meta.meta:
        return 0
    # A tensor without elements may still have a long axis, over which a test could iterate.
    if math.prod(n or 1 for n in shape) > MAX_ELEMENTS or len(strides) != len(shape):
        raise WireError("a tensor has an invalid size")
    if strides and not 0 <= min(strides) <= max(strides) <= MAX_ELEMENTS:
        raise WireError("a tensor has invalid strides")
    if numel == 0:
        return 0
    extent: int = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if meta.start < 0 or meta.start % ALIGNMENT:
        raise WireError("a tensor is not aligned")
    if meta.start + extent * dtype.itemsize > size:
        raise WireError("a tensor extends beyond the end of its message")
    return extent


def check(data: Data) -> None:
    """Check the size, depth, keys and tensor references of a worker's value before decoding it.

    Raises:
        WireError: The value has too many items, is nested too deeply or has a key that is too long. This error is also
            raised if a tensor was not sent, or was sent but is not used.
    """
    pending: list[tuple[Value, int]] = [(data.value, 0)]
    count = 0
    used: set[int] = set()
    while pending:
        item, depth = pending.pop()
        count += 1 + (len(item.items) if isinstance(item, Members) else 0)
        if count + len(pending) > MAX_ITEMS:
            raise WireError("a value has too many items")
        if depth > MAX_DEPTH + 1:
            raise WireError("a value is nested too deeply")
        if isinstance(item, TensorAt):
            if not 0 <= item.index < len(data.tensors):
                raise WireError("a value refers to a tensor that was not sent")
            used.add(item.index)
        elif isinstance(item, Members):
            check_keys(item.items)
        elif isinstance(item, Items):
            pending += [(part, depth + 1) for part in item.items]
        elif isinstance(item, Pairs):
            check_keys([key for key, _ in item.items])
            pending += [(part, depth + 1) for _, part in item.items]
    if len(used) < len(data.tensors):
        raise WireError("a message contains a tensor that its value does not refer to")


def decode_value(value: Value, tensors: Sequence[Any], convert: Callable[[Value], Any]) -> Any:
    """Rebuild a Python value from a message value and its tensors.

    `convert` decodes handles, generators, models, functions and opaque values.

    Raises:
        WireError: The value is nested too deeply or refers to a tensor that was not sent.
    """

    def decode(item: Value, depth: int) -> Any:
        if depth > MAX_DEPTH + 1:
            raise WireError("a value is nested too deeply")
        if isinstance(item, TensorAt):
            if not 0 <= item.index < len(tensors):
                raise WireError("a value refers to a tensor that was not sent")
            return tensors[item.index]
        if isinstance(item, Items):
            return [decode(part, depth + 1) for part in item.items]
        if isinstance(item, Pairs):
            return {decode_key(key): decode(part, depth + 1) for key, part in item.items}
        if isinstance(item, Named):
            return _named(item)
        if isinstance(item, Members):
            return set(map(decode_key, item.items))
        if isinstance(item, Complex):
            return complex(item.real, item.imag)
        if isinstance(item, Bytes):
            return item.data
        if isinstance(item, (Handle, Generator, Random, Model, Function, Opaque)):
            return convert(item)
        return item

    return decode(value, 0)


def _named(item: Named) -> Any:
    if item.kind == "dtype" and item.name in DTYPES:
        return DTYPES[item.name]
    if item.kind == "device" and item.name in ("cpu", "meta"):
        return torch.device(item.name)
    return Opaque(escaped(f"the {item.kind} {item.name}"[:MAX_TEXT]))


# The state of NumPy's default generator, PCG64: two integers of 128 bits and a cached number, if there is one.
PCG64 = struct.Struct("<16s16s?I")


def random_state(generator: np.random.Generator) -> bytes | None:
    """Return a generator's state, or None if its bit generator is not that of `numpy.random.default_rng`."""
    state: Any = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        return None
    words = (state["state"][name].to_bytes(16) for name in ("state", "inc"))
    return PCG64.pack(*words, state["has_uint32"], state["uinteger"])


def set_random_state(generator: np.random.Generator, packed: bytes) -> None:
    """Set a generator's state, as returned by `random_state`.

    Raises:
        WireError: The state is invalid.
    """
    if len(packed) != PCG64.size:
        raise WireError("the state of a generator is invalid")
    state, increment, is_cached, cached = PCG64.unpack(packed)
    words = {"state": int.from_bytes(state), "inc": int.from_bytes(increment)}
    generator.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": words,
        "has_uint32": int(is_cached),
        "uinteger": cached,
    }


Gradients = Callable[[list[Tensor | None]], list[Tensor | None]]


class _Link(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gradients: Gradients, outputs: Sequence[Tensor], flags: Sequence[bool], *_: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.gradients = gradients
        ctx.set_materialize_grads(False)
        # The outputs are views of the received bytes. Autograd lets code modify copies in place, but not such views.
        outputs = [out.clone() for out in outputs]
        fixed = [out for out, flag in zip(outputs, flags, strict=True) if not flag]
        ctx.mark_non_differentiable(*fixed)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        return None, None, None, *ctx.gradients(list(upstream))


def make_differentiable(
    inputs: Sequence[Tensor],
    outputs: Sequence[Any],
    differentiable: Sequence[bool],
    gradients: Gradients,
) -> list[Any]:
    """Return copies of the tensors in `outputs` whose backward pass runs in another process. Arrays remain unchanged.

    The backward pass calls `gradients` with the upstream gradients. `gradients` must return the gradients with respect
    to `inputs`. Only outputs marked in `differentiable` get a backward pass.
    """
    pairs = zip(outputs, differentiable, strict=True)
    tensors = [(out, flag) for out, flag in pairs if isinstance(out, Tensor)]
    if not tensors:
        return list(outputs)
    linked = iter(_Link.apply(gradients, *map(list, zip(*tensors, strict=True)), *inputs))  # type: ignore[no-untyped-call]
    return [next(linked) if isinstance(out, Tensor) else out for out in outputs]


def vector_jacobian_product(
    pairs: Iterable[tuple[Tensor, Tensor]], inputs: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients with respect to `inputs`, given pairs of an output and its upstream gradient.

    The graph is kept. Passing `grad_outputs` to `torch.autograd.grad` would import sympy, which takes longer than most tests.

    Raises:
        ValueError: An upstream gradient does not have its output's shape.
    """
    with torch.enable_grad():
        products = [(out * _same_shape(grad, out).conj()).real.sum() for out, grad in pairs]
        total = torch.stack([one.double() for one in products]).sum()
    return torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True)


def _same_shape(grad: Tensor, out: Tensor) -> Tensor:
    if grad.shape != out.shape:
        shapes = f"{tuple(grad.shape)} for an output of shape {tuple(out.shape)}"
        raise ValueError(f"an upstream gradient has shape {shapes}")
    return grad


@dataclass(frozen=True)
class KeptGraph:
    """The inputs and outputs of a call, with its autograd graph."""

    inputs: list[Tensor]
    outputs: list[Tensor]

    def gradients(
        self, upstream: Sequence[Tensor | None], more: Sequence[Tensor] = ()
    ) -> list[Tensor | None]:
        """Return the gradients with respect to the inputs and the tensors in `more`, or None for tensors that get no gradient."""
        wanted = [*self.inputs, *more]
        pairs = [
            (out, grad)
            for out, grad in zip(self.outputs, upstream, strict=True)
            if grad is not None and out.requires_grad
        ]
        into = [t for t in wanted if t.requires_grad]
        if not pairs or not into:
            return [None] * len(wanted)
        found = iter(vector_jacobian_product(pairs, into))
        return [next(found) if t.requires_grad else None for t in wanted]
