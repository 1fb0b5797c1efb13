"""Let a test call code that only supports some shapes. Entry points: `attention_like`, `leading_axes` and `later_axes`.

A solution that is right for the usual shapes should fail only the tests of other shapes. All other tests call the student's
function through one of these wrappers. If the function does not support the arguments, the wrapper calls it with equivalent ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autograder.execution.student import StudentError


def first_supported(calls: Sequence[Callable[[], Any]], n_axes: int) -> Any:
    """Return the first result with `n_axes` axes. If no call returns one, repeat the first call."""
    for call in calls:
        try:
            result = call()
        except StudentError as error:
            # Other shapes do not end a recursion, and each call of it may take seconds.
            if error.meta_read or error.type == "RecursionError":
                raise
        # A model raises an AssertionError, and results of the wrong shape cannot be converted back.
        except (AssertionError, RuntimeError):
            pass
        else:
            parts = _parts(result)
            if parts and parts[0].dim() == n_axes:
                return result
    return calls[0]()


def with_strides_of(x: Tensor, equivalent: Tensor) -> Tensor:
    """Return an equivalent argument that is contiguous only if `x` is, so that a test of strides still is one."""
    if x.is_contiguous():
        return equivalent.contiguous()
    order = tuple(range(equivalent.dim()))[::-1]
    return equivalent.permute(order).contiguous().permute(order)


def leading_axes(function: Callable[..., Any], axes: int, tensors: int = 1) -> Callable[..., Any]:
    """Wrap a function whose first `tensors` arguments have any number of leading axes, followed by `axes` others.

    The function returns a tensor, or several, with the same leading axes.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        leading = args[0].shape[:-axes]
        n = math.prod(leading)

        def reshape(x: Any, count: int) -> Any:
            """Merge the leading axes of a tensor into one, and add axes of size 1 until there are `count`."""
            if not isinstance(x, Tensor) or x.dim() < axes or (x.dim() == axes and leading):
                return x  # such as a mask without leading axes
            last = x.shape[-axes:]
            merged = x.expand(*leading, *last).reshape(n, *[1] * (count - 1), *last)
            return with_strides_of(x, merged)

        def equivalent(count: int) -> Any:
            given = [reshape(x, count) for x in args[:tensors]]
            rest = args[tensors:]
            if count:
                results = _parts(function(*given, *rest, **kwargs))
            else:
                rows = [[x[i] if _has_axes(x, axes + 1) else x for x in given] for i in range(n)]
                found = [_parts(function(*row, *rest, **kwargs)) for row in rows]
                results = [torch.stack(parts) for parts in zip(*found, strict=False)]
            kept = max(count, 1)
            if any(x.shape[:kept] != (n, *[1] * (kept - 1)) for x in results):
                return None
            restored = [x.reshape(*leading, *x.shape[kept:]) for x in results]
            return _unpacked(restored)

        # Code that forgets `keepdim=True` works for a single vector, but is wrong.
        others = [count for count in (1, 2, 0, 3) if count != len(leading) and (count or axes > 1)]
        calls = [partial(function, *args, **kwargs), *(partial(equivalent, c) for c in others)]
        return first_supported(calls, args[0].dim())

    return call


def attention_like(
    function: Callable[..., Any], has_leading_axes: bool = True
) -> Callable[..., Any]:
    """Wrap a function of queries, keys, values and a mask, or of the first few of these, for code that supports only some shapes.

    It may support only n = m, only values as wide as the keys or, with `has_leading_axes`, only some numbers of leading axes.
    """
    plain = leading_axes(function, 2, 4) if has_leading_axes else function

    def call(query: Tensor, key: Tensor, *rest: Any, **kwargs: Any) -> Any:
        n, m, d = query.shape[-2], key.shape[-2], key.shape[-1]
        rows = torch.arange(m) % n

        def square(*rest: Any) -> Any:
            """Repeat the queries until there are as many queries as keys."""
            given = [x[..., rows, :] if i and _is_mask_of(x, n) else x for i, x in enumerate(rest)]
            repeated = with_strides_of(query, query[..., rows, :])
            result = _parts(plain(repeated, key, *given, **kwargs))
            return _unpacked([part[..., :n, :] for part in result if part.shape[-2:-1] == (m,)])

        def narrow(attend: Callable[..., Any]) -> Any:
            """Split the values into pieces of d features, with zeros after the last one."""
            value, *mask = rest
            pieces = F.pad(value, (0, -value.shape[-1] % d)).split(d, dim=-1)
            found = [_parts(attend(with_strides_of(value, piece), *mask)) for piece in pieces]
            outputs = [parts[0] for parts in found if parts]
            if len(outputs) < len(pieces):
                return None
            return _unpacked([torch.cat(outputs, -1)[..., : value.shape[-1]], *found[0][1:]])

        def direct(*rest: Any) -> Any:
            return plain(query, key, *rest, **kwargs)

        calls = [partial(direct, *rest)]
        if n < m:
            calls.append(partial(square, *rest))
        if rest and rest[0].shape[-1] != d:
            calls += [partial(narrow, attend) for attend in (direct, square)[: 1 + (n < m)]]
        return first_supported(calls, query.dim())

    return call


def later_axes(function: Callable[..., Any], *places: int) -> Callable[..., Any]:
    """Wrap an elementwise function whose arguments at these places have one shape: a batch, and any number of later axes."""

    def call(*args: Any, **kwargs: Any) -> Any:
        shape = args[places[0]].shape

        def equivalent(count: int) -> Any:
            own = (shape[0], -1, *[1] * (count - 1))
            given = [
                with_strides_of(x, x.reshape(own)) if i in places else x for i, x in enumerate(args)
            ]
            result = function(*given, **kwargs)
            fits = isinstance(result, Tensor) and result.shape == given[places[0]].shape
            return result.reshape(shape) if fits else None

        others = [count for count in (3, 1, 2) if count != len(shape) - 1]
        calls = [partial(function, *args, **kwargs), *(partial(equivalent, c) for c in others)]
        return first_supported(calls, len(shape))

    return call


def _has_axes(x: Any, n: int) -> bool:
    return isinstance(x, Tensor) and x.dim() >= n


def _is_mask_of(x: Any, n_queries: int) -> bool:
    return _has_axes(x, 2) and x.shape[-2] == n_queries


def _unpacked(parts: list[Tensor]) -> Any:
    return parts[0] if len(parts) == 1 else parts


def _parts(result: Any) -> list[Tensor]:
    """Return the tensors that a result consists of, or [] if it has other parts."""
    parts = result if isinstance(result, list) else [result]
    return parts if all(isinstance(part, Tensor) for part in parts) else []
