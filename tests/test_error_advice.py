"""Test the advice on common errors, using the errors that Python and the installed version of torch actually raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from autograder.in_notebook.error_advice import advice

X: Any = torch.ones(2, 3)
PAIR: Any = (X, X)


class WithoutSuper(nn.Module):
    def __init__(self) -> None:
        self.linear = nn.Linear(2, 2)


def nothing() -> Any:
    """Return None, like a function that lacks a `return` statement."""


def unpack(results: Any) -> Any:
    first, second = results
    return first + second


def unassigned() -> int:
    if X is None:
        value = 1
    return value


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: undefined, "`self.`"),  # type: ignore[name-defined]  # noqa: F821
        (unassigned, "before it assigns it"),
        (lambda: X.shpae, "spelling"),
        (WithoutSuper, "super().__init__()"),
        (lambda: nothing().shape, "None"),
        (lambda: X + nothing(), "None"),
        (lambda: nn.Linear(3, 2)(nothing()), "None"),
        (lambda: [*nothing()], "None"),
        (lambda: nn.Dropout()(PAIR), "tuple"),
        (lambda: nn.LayerNorm(3)(PAIR), "tuple"),
        (lambda: X + PAIR, "tuple"),
        (lambda: PAIR + X, "tuple"),
        (lambda: PAIR.shape, "tuple"),
        (lambda: unpack(torch.ones(3)), "different number"),
        (lambda: unpack((X,)), "different number"),
        (lambda: X.reshape(2, 6 / 2), "`//`"),
        (lambda: X.view(3, 4 / 2), "`//`"),
        (lambda: X.split(2 / 1), "`//`"),
        (lambda: range(6 / 2), "`//`"),  # type: ignore[call-overload]
        (lambda: X[: 4 / 2], "`//`"),
        (lambda: X and X, "`&`"),
        (lambda: X + torch.ones(2, 2), "broadcasting"),
        (lambda: X @ X, "matrix product"),
        (lambda: torch.ones(2, 3, 4) @ torch.ones(2, 3, 4), "matrix product"),
        (lambda: X.reshape(4, 2), "as many elements"),
        (lambda: X @ torch.ones(3, 2).double(), "dtype=x.dtype"),
        (lambda: nn.Linear(3, 2)(X.double()), "dtype=x.dtype"),
        (lambda: torch.cat([X, X[0]]), "unsqueeze"),
        (lambda: X.sum().backward(), ".detach()"),
        (lambda: X.sum(5), "fewer axes"),
        (lambda: X[0, 0, 0], "fewer axes"),
        (lambda: nn.Embedding(3, 2)(torch.tensor([3])), "embedding"),
    ],
)
def test_common_errors_have_advice(call: Callable[[], Any], part: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        call()
    assert part in advice(raised.type.__name__, str(raised.value))


@pytest.mark.parametrize(
    ("kind", "message"),
    [("ValueError", "d_model must be even"), ("RuntimeError", "my own message"), ("KeyError", "x")],
)
def test_other_errors_have_none(kind: str, message: str) -> None:
    assert advice(kind, message) == ""
