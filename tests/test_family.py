"""Check the reference solutions in the `family` chapter against independent implementations."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solutions.day2.family import (
    GROUP,
    LONGEST,
    full_attention,
    grouped_query_attention,
    linear_attention,
    loss_by_position,
    rotary_embedding,
    sliding_window_mask,
    window_attention,
)
from solutions.day2.language_model import TOPIC_SYMBOLS
from tests.conftest import ROOT


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rotary_embedding_matches_complex_multiplication() -> None:
    x, positions = normal(2, 3, 7, 10), torch.tensor([0, 10_000, 3, 3, 512, 9_999, 1])
    speeds = 500.0 ** (-torch.arange(0, 10, 2, dtype=torch.float64) / 10)
    phases = torch.polar(torch.ones(7, 5, dtype=torch.float64), torch.outer(positions, speeds))
    expected = torch.view_as_real(torch.view_as_complex(x.view(2, 3, 7, 5, 2)) * phases).flatten(-2)
    torch.testing.assert_close(rotary_embedding(x, positions, base=500.0), expected)


@pytest.mark.parametrize("causal", [False, True])
def test_linear_attention_matches_its_quadratic_form(causal: bool) -> None:
    m = 9 if causal else 13
    query, key, value = normal(2, 9, 4), 3 * normal(2, m, 4, seed=1), normal(2, m, 5, seed=2)
    weights = (F.elu(query) + 1) @ (F.elu(key) + 1).mT
    if causal:
        weights = weights.tril()
    expected = weights / weights.sum(dim=-1, keepdim=True) @ value
    torch.testing.assert_close(linear_attention(query, key, value, causal), expected)


ADDRESS_SPACE = """
import resource, sys, torch
from solutions.day2.family import linear_attention

x = torch.ones(8192, 4)
linear_attention(x[:1], x[:1], x[:1])
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
limit = taken + 200_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
if sys.argv[1] == "matrix":
    (x @ x.T).tril()
else:
    print(linear_attention(x, x, x, causal=sys.argv[1] == "causal").sum().item())
"""


def in_200_megabytes(what: str) -> subprocess.CompletedProcess[str]:
    """Run a script with 200 MB of free address space, which is too little for an 8192 × 8192 float32 matrix."""
    command = [sys.executable, "-c", ADDRESS_SPACE, what]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["all", "causal"])
def test_linear_attention_of_8192_positions_fits_in_memory(what: str) -> None:
    done = in_200_megabytes(what)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(8192 * 4)


@pytest.mark.slow
def test_matrix_of_8192_positions_does_not_fit_in_memory() -> None:
    done = in_200_megabytes("matrix")
    assert done.returncode != 0
    assert "allocate" in done.stderr


@pytest.mark.parametrize("g", [1, 2, 3, 6])
def test_grouped_query_attention_matches_repeated_keys(g: int) -> None:
    query, key, value = normal(2, 6, 5, 4), normal(2, g, 7, 4, seed=1), normal(2, g, 7, 3, seed=2)
    mask = normal(2, 6, 5, 7, seed=3) > 0
    mask[..., 0] = True
    expected = F.scaled_dot_product_attention(
        query,
        key.repeat_interleave(6 // g, dim=1),
        value.repeat_interleave(6 // g, dim=1),
        attn_mask=mask,
    )
    torch.testing.assert_close(grouped_query_attention(query, key, value, mask), expected)


def test_window_attention_in_blocks_matches_a_mask() -> None:
    query, key, value = normal(3, 60, 4)
    mask = sliding_window_mask(60, 12)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(window_attention(query, key, value, 12), expected)


def test_full_attention_matches_torch() -> None:
    query, key, value = normal(3, 9, 4)
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(full_attention(query, key, value), expected)


class NextAfterLast(nn.Module):
    """A model whose predictions depend only on the current character."""

    def __init__(self) -> None:
        super().__init__()
        self.table = normal(len(TOPIC_SYMBOLS), len(TOPIC_SYMBOLS))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table[tokens]


def test_the_loss_at_all_positions_is_measured_on_the_same_characters() -> None:
    losses = loss_by_position(NextAfterLast())
    assert len(losses) == LONGEST // GROUP
    torch.testing.assert_close(losses, losses[:1].expand_as(losses), rtol=0, atol=1e-10)
