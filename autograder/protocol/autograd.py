"""Makes the answer of a call on the other side of the wall differentiable on this side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Gradients = Callable[[list[Tensor | None]], list[Tensor | None]]


class _Link(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gradients: Gradients, outputs: Sequence[Tensor], flags: Sequence[bool], *_: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.gradients = gradients
        ctx.set_materialize_grads(False)
        fixed = [out for out, flag in zip(outputs, flags, strict=True) if not flag]
        ctx.mark_non_differentiable(*fixed)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        return None, None, None, *ctx.gradients(list(upstream))


def link(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    differentiable: Sequence[bool],
    gradients: Gradients,
) -> list[Tensor]:
    """The `outputs` again, with a backward that gives `gradients` the upstream ones and takes those of `inputs`."""
    return list(_Link.apply(gradients, outputs, differentiable, *inputs))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Kept:
    """A call whose graph is kept: where its gradients start and where they end."""

    inputs: list[Tensor]
    outputs: list[Tensor]

    def gradients(
        self, upstream: Sequence[Tensor | None], more: Sequence[Tensor] = ()
    ) -> list[Tensor | None]:
        """Gradients for the inputs and for `more`; None where nothing flows."""
        wanted = [*self.inputs, *more]
        pairs = [
            (out, grad)
            for out, grad in zip(self.outputs, upstream, strict=True)
            if grad is not None and out.requires_grad
        ]
        into = [t for t in wanted if t.requires_grad]
        if not pairs or not into:
            return [None] * len(wanted)
        outputs, grads = zip(*pairs, strict=True)
        found = iter(
            torch.autograd.grad(outputs, into, grads, retain_graph=True, allow_unused=True)
        )
        return [next(found) if t.requires_grad else None for t in wanted]
