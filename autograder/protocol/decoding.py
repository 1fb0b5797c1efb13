"""Check messages, and convert message values and raw tensor bytes to Python values.

Both sides treat their input as hostile: they check sizes, depth, dtypes, shapes and strides before allocating any memory.
Objects are never rebuilt from a class name. Entry points: `check`, `decode_tensors` and `decode_value`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from autograder.plain_text import escaped
from autograder.protocol.encoding import ALIGNMENT, DTYPES, MAX_AXES, MAX_DEPTH, MAX_ELEMENTS
from autograder.protocol.keys import check_keys, decode_key
from autograder.protocol.messages import (
    MAX_TEXT,
    Data,
    Generator,
    Handle,
    Items,
    Model,
    Named,
    Opaque,
    Pairs,
    TensorAt,
    TensorMeta,
    Value,
    WireError,
)

MAX_ITEMS = 50_000  # maximum number of items per message


def decode_tensors(data: Data, payload: bytearray) -> list[torch.Tensor]:
    """Rebuild the tensors of `data` from `payload`, without gradients.

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


def _rebuild(meta: TensorMeta, payload: bytearray) -> torch.Tensor:
    extent = _extent(meta, len(payload))
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


def _extent(meta: TensorMeta, size: int) -> int:
    """Return how many elements a tensor spans in memory, after checking that it fits in a payload of `size` bytes."""
    dtype = DTYPES.get(meta.dtype)
    shape, strides = meta.shape, meta.strides
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
        count += 1
        if count + len(pending) > MAX_ITEMS:
            raise WireError("a value has too many items")
        if depth > MAX_DEPTH + 1:
            raise WireError("a value is nested too deeply")
        if isinstance(item, TensorAt):
            if not 0 <= item.index < len(data.tensors):
                raise WireError("a value refers to a tensor that was not sent")
            used.add(item.index)
        elif isinstance(item, Items):
            pending += [(part, depth + 1) for part in item.items]
        elif isinstance(item, Pairs):
            check_keys([key for key, _ in item.items])
            pending += [(part, depth + 1) for _, part in item.items]
    if len(used) < len(data.tensors):
        raise WireError("a message contains a tensor that its value does not refer to")


def decode_value(
    value: Value, tensors: Sequence[torch.Tensor], convert: Callable[[Value], Any]
) -> Any:
    """Rebuild a Python value from a message value and its tensors.

    `convert` decodes handles, generators, models and opaque values.

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
        if isinstance(item, (Handle, Generator, Model, Opaque)):
            return convert(item)
        return item

    return decode(value, 0)


def _named(item: Named) -> Any:
    if item.kind == "dtype" and item.name in DTYPES:
        return DTYPES[item.name]
    if item.kind == "device" and item.name in ("cpu", "meta"):
        return torch.device(item.name)
    return Opaque(escaped(f"the {item.kind} {item.name}"[:MAX_TEXT]))
