"""Make the result of a cross-process call differentiable in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    outputs: Sequence[Tensor],
    differentiable: Sequence[bool],
    gradients: Gradients,
) -> list[Tensor]:
    """Return copies of `outputs` whose backward pass runs in another process.

    The backward pass calls `gradients` with the upstream gradients. `gradients` must return the gradients with respect
    to `inputs`. Only outputs marked in `differentiable` get a backward pass.
    """
    return list(_Link.apply(gradients, outputs, differentiable, *inputs))  # type: ignore[no-untyped-call]


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
