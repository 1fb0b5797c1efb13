"""Check mathematical properties of the solutions in the `memory` chapter, such as the unbiasedness of Performer features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solutions.day2.memory import RecurrentAttention, knn_probabilities, performer_features
from solutions.day2.music import RelativeSelfAttention


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 5, 9])
def test_recurrent_attention_without_memory_is_relative_attention(n: int) -> None:
    torch.manual_seed(n)
    relative, recurrent = (
        layer(8, 2, 9).double() for layer in (RelativeSelfAttention, RecurrentAttention)
    )
    recurrent.load_state_dict(relative.state_dict())
    x = normal(3, n, 8)
    torch.testing.assert_close(recurrent(x), relative(x))


@pytest.mark.parametrize("lengths", [(6, 6), (1, 11), (3, 4, 5)])
def test_segments_with_memory_give_what_the_whole_sequence_gives(lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = RecurrentAttention(8, 2, 12).double()
    x = normal(2, 12, 8)
    parts, start = [], 0
    for n in lengths:
        parts.append(layer(x[:, start : start + n], x[:, :start]))
        start += n
    torch.testing.assert_close(torch.cat(parts, dim=1), layer(x))


def test_knn_probabilities_are_a_distribution_that_prefers_near_tokens() -> None:
    keys, tokens = normal(50, 4), torch.arange(50) % 7
    probabilities = normal(6, 7, seed=1).softmax(dim=-1)
    mixed = knn_probabilities(probabilities, keys[:6], keys, tokens, 5, temperature=0.01, mix=0.5)
    torch.testing.assert_close(mixed.sum(dim=-1), torch.ones(6, dtype=torch.float64))
    assert mixed.argmax(dim=-1).tolist() == tokens[:6].tolist()


@pytest.mark.parametrize("d", [4, 16])
def test_performer_features_are_unbiased(d: int) -> None:
    """The mean of 2,000 independent estimates is within three standard errors of the softmax weight."""
    query, key, projections = normal(5, d, seed=2) / 2, normal(6, d, seed=3) / 2, normal(2000, 8, d)
    exact = (query @ key.T / d**0.5).exp()
    estimates = torch.stack(
        [performer_features(query, rows) @ performer_features(key, rows).T for rows in projections]
    )
    error = (estimates.mean(dim=0) - exact).abs()
    assert (error <= 3 * estimates.std(dim=0) / 2000**0.5).all()
