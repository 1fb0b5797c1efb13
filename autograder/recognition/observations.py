"""Describe the observable behaviour of a call so that two implementations can be compared.

Entry points: `observe` and `same`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autograder.protocol import messages as m
from autograder.protocol.encoding import decode_tensors

# Relative and absolute tolerances. These are looser than the graders' tolerances, because two implementations of the
# same mistake may round differently, especially the angles of distant positions.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}

# Suffixes of the keys that identify observations.
TYPE = " type"  # the dtype, shape and device of a tensor
ATTRIBUTE = " attribute"  # a plain attribute; correct solutions may differ
STRING = " string"  # a string that the code returned
PARAMETER = " parameter"  # a parameter's initial value; correct solutions may differ
FURTHER = "further"  # whether there are parameters that the reference lacks
MODEL_MODES = "model modes"  # the training modes of the grader's models when the code called them
MODEL_INPUTS = "model inputs"  # the input shapes in calls to the grader's models
FAILURE = "failure"
# Values that represent an exception. ValueError is the only exception type that exercises specify.
EXCEPTIONS = VALUE_ERROR, OTHER_ERROR = "ValueError", "failed"
OVERHEAD = 400  # estimated bytes per observation, excluding its tensor
MAX_OTHERS = 200  # maximum number of further parameters to compare with the reference's
MAX_PATH = 100  # maximum length of a path; a longer path is replaced by its hash

Observation = Tensor | bool | int | float | str | None
Observations = dict[str, Observation]


def observe(
    response: m.Answer | m.Failure,
    payload: bytearray,
    models: Collection[int],
    model_calls: Observations,
) -> Observations:
    """Return the tensors and plain values in a call's response, keyed by path, and the call's side effects.

    `models` contains the ids of the grader's models passed to the call. `model_calls` describes how the
    student's code called these models.
    """
    if isinstance(response, m.Failure):
        kind = VALUE_ERROR if VALUE_ERROR in response.bases else OTHER_ERROR
        is_missing = response.kind == "missing"
        return {FAILURE: response.text.split(";")[0] if is_missing else kind} | model_calls
    # Clone the tensors so that the rest of the message can be freed.
    received = decode_tensors(response.result, payload)
    tensors = [
        _as_tensor(each) if isinstance(each, np.ndarray) else each.clone() for each in received
    ]
    side_effects: Observations = {
        "changed": " ".join(sorted(response.changed)),
        "modes": " ".join(str(modes) for id_, *modes in response.modes if id_ in models),
    }
    if response.printed:
        side_effects[f"printed{STRING}"] = response.printed
    # Describe each tensor only once, because a value can refer to it many times.
    metas = response.result.tensors
    described = [
        (t, f"{t.dtype} {tuple(t.shape)} on {t.device}")
        if meta.kind == "tensor"
        else (t, f"array {meta.dtype} {tuple(meta.shape)}")
        for t, meta in zip(tensors, metas, strict=True)
    ]
    return dict(_flatten(response.result.value, described, "result")) | side_effects | model_calls


def _as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Return a copy of an array as a tensor whose dtype `same` can compare. Complex numbers become pairs."""
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], -1)
    return torch.from_numpy(array.astype(np.int64) if array.dtype.kind == "u" else array.copy())


def size_of(observations: Observations) -> int:
    """Return the approximate size of observations in bytes. Each tensor is counted only once."""
    tensors = {id(value): value for value in observations.values() if isinstance(value, Tensor)}
    texts = sum(len(value) for value in observations.values() if isinstance(value, str))
    texts += sum(map(len, observations))
    data = sum(tensor.nbytes for tensor in tensors.values() if not tensor.is_meta)
    return OVERHEAD * len(observations) + texts + data


def normalize(seen: Observations, reference: Observations, request: m.Request) -> Observations:
    """Remove from a request's observations everything that may differ between correct solutions.

    `reference` contains the reference solution's observations for the same request. It is empty if `seen` itself comes
    from the reference solution.
    """
    match request:
        case m.Read(what="parameters" | "state"):
            return _normalize_parameters(seen, reference)
        case m.Read():
            return {k + ATTRIBUTE * _is_plain_result(k, v): v for k, v in seen.items()}
        case m.Backward():
            # A gradient of zeros is equivalent to no gradient.
            tensors = {key: value for key, value in seen.items() if isinstance(value, Tensor)}
            zeros = {key for key, value in tensors.items() if not value.is_meta and not value.any()}
            types = {key + TYPE for key in zeros}
            return {k: None if k in zeros else v for k, v in seen.items() if k not in types}
    if seen.get(FAILURE) == VALUE_ERROR and reference and FAILURE not in reference:
        # The call should have succeeded, so the exception's type does not matter.
        return seen | {FAILURE: OTHER_ERROR}
    return seen


def _is_plain_result(key: str, value: Observation) -> bool:
    return key.startswith("result") and not key.endswith(TYPE) and not isinstance(value, Tensor)


def _normalize_parameters(seen: Observations, reference: Observations) -> Observations:
    """Keep only the parameters and buffers that the reference solution also has.

    Additional parameters may have arbitrary names, so record only whether they exist.
    """
    renamed = {f"{k}{PARAMETER}" if isinstance(v, Tensor) else k: v for k, v in seen.items()}
    if not reference:
        return renamed | {FURTHER: False}
    known = {key: value for key, value in renamed.items() if key in reference}
    others = {
        id(value): value
        for key, value in renamed.items()
        if key not in reference and isinstance(value, Tensor)
    }
    # A hostile module may have thousands of further parameters, each equal to the reference's last one.
    further = len(others) > MAX_OTHERS or any(
        not _is_alias(value, list(known.values())) for value in others.values()
    )
    return known | {FURTHER: further}


def _is_alias(value: Tensor, known: Sequence[Observation]) -> bool:
    """Return whether a tensor is an alias of a known parameter. Constant tensors never count as aliases."""
    if value.is_meta:
        return False
    varied = value.numel() > 1 and bool((value != value.flatten()[0]).any())
    return varied and any(isinstance(other, Tensor) and same(value, other) for other in known)


def _flatten(
    value: m.Value, tensors: Sequence[tuple[Tensor, str]], path: str
) -> Iterator[tuple[str, Observation]]:
    """Yield each tensor and plain value in a nested value, with its path. `tensors` pairs each tensor with its description."""
    match value:
        case m.Items():
            yield path, f"{len(value.items)} items"
            for index, item in enumerate(value.items):
                yield from _flatten(item, tensors, _extend(path, str(index)))
        case m.Pairs():
            for name, item in value.items:
                yield from _flatten(item, tensors, _extend(path, str(name)))
        case m.TensorAt():
            tensor, description = tensors[value.index]
            yield path, tensor
            yield f"{path}{TYPE}", description
        case m.Handle():
            yield path, "an object"
        case m.Members():
            yield f"{path}{STRING}", repr(sorted(map(repr, value.items)))
        case m.Complex():
            yield from ((f"{path}.real", value.real), (f"{path}.imag", value.imag))
        case m.Bytes():
            yield f"{path}{STRING}", repr(value.data)
        case m.Random():
            yield f"{path}{STRING}", value.state.hex()
        case m.Model() | m.Generator() | m.Function():
            raise m.WireError("the worker sent a value that only the grader may send")
        case str():
            yield f"{path}{STRING}", value
        case None | bool() | int() | float():
            yield path, value
        case _:
            yield path, str(value)


def _extend(path: str, name: str) -> str:
    """Append a name to a path. If the path gets too long, replace it with a hash, because it is part of every nested path."""
    longer = f"{path}.{name}"
    if len(longer) <= MAX_PATH:
        return longer
    return f"result.{hashlib.sha256(longer.encode()).hexdigest()}"


def same(first: Observation, second: Observation, factor: float = 1.0) -> bool:
    """Return whether two values are equal within `factor` times the tolerance. NaN is considered equal to NaN."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if (first.dtype, first.shape, first.device) != (second.dtype, second.shape, second.device):
            return False
        if first.is_meta:
            return True
        if not first.is_floating_point():
            return torch.equal(first, second)
        tolerance = factor * TOLERANCE[first.dtype]
        return torch.allclose(
            first.double(), second.double(), rtol=tolerance, atol=tolerance, equal_nan=True
        )
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-6) or first != first != second
    return type(first) is type(second) and first == second
