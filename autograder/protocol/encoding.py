"""Convert Python values to message values and a payload of raw tensor bytes. Entry point: `Outgoing`.

A tensor is sent as its dtype, shape, strides and bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from autograder.protocol.keys import encode_key, limited
from autograder.protocol.messages import (
    Data,
    Items,
    Key,
    Named,
    Opaque,
    Pairs,
    Plain,
    TensorAt,
    TensorMeta,
    Value,
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
        padding = -self.size % ALIGNMENT
        if padding:
            self.payload.append(bytes(padding))
        start = self.size + padding
        if flat.numel():
            raw = raw_bytes(flat)
            self.payload.append(raw)
            self.size = start + len(raw)
        else:
            self.size = start
        return TensorMeta(dtype, list(tensor.shape), strides, start, requires_grad)


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
