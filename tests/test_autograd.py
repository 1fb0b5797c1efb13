"""Test that gradients returned by another process match those computed by torch."""

from __future__ import annotations

import pytest
import torch

from autograder.protocol.encoding import make_differentiable, vector_jacobian_product


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_gradients_equal_those_of_torch(dtype: torch.dtype) -> None:
    x = torch.randn(3, 4, dtype=dtype, requires_grad=True)
    square, total = x * x, (3 * x).sum()
    # In half precision, the product of output and gradient overflows, but the gradient does not.
    upstream = [1e4 * torch.randn(3, 4).to(dtype), torch.ones((), dtype=dtype)]
    seen = vector_jacobian_product(zip((square, total), upstream, strict=True), [x])
    expected = torch.autograd.grad([square, total], [x], upstream)
    assert seen[0] is not None
    assert seen[0].tolist() == expected[0].tolist()


def test_an_upstream_gradient_of_another_shape_is_refused() -> None:
    x = torch.ones(3, 4, requires_grad=True)
    with pytest.raises(ValueError, match=r"shape \(4,\) for an output of shape \(3, 4\)"):
        vector_jacobian_product([(x * 2, torch.ones(4))], [x])


@pytest.mark.parametrize("number", [1, 2])
def test_results_that_are_views_can_be_modified_in_place(number: int) -> None:
    x = torch.ones(3, requires_grad=True)
    received = torch.arange(6.0)
    results = make_differentiable(
        [x],
        list(received.view(2, 3)[:number]),
        [True] * number,
        lambda upstream: [torch.stack([grad for grad in upstream if grad is not None]).sum(0)],
    )
    for result in results:
        result.masked_fill_(torch.tensor([True, False, False]), -1.0).mul_(2)
    assert results[0].tolist() == [-2, 2, 4]
    torch.stack(results).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2 * number, 2 * number]
