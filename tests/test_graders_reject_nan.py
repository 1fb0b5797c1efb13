"""Test that this course's graders reject NaN and infinity wherever they compare values with a custom tolerance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from autograder.execution.checks import Draw
from graders.day1.test_masking import as_bool
from graders.day2.test_decisions import check_returns
from graders.day2.test_family import check_mask

BAD = (math.nan, math.inf, -math.inf)


def returns(rewards: Tensor) -> Tensor:
    return rewards.flip(-1).cumsum(-1).flip(-1)


@pytest.mark.parametrize("bad", BAD)
def test_returns_to_go(bad: float) -> None:
    rewards = Draw(0).integers(-9, 10, 3, 5).float()
    check_returns(returns, rewards, "the result")
    with pytest.raises(AssertionError, match="instead of"):
        check_returns(lambda x: x * bad, rewards, "the result")
    with pytest.raises(AssertionError, match="1 of 15 values is wrong"):
        check_returns(
            lambda x: returns(x).index_put((torch.tensor(1), torch.tensor(2)), x.new_tensor(bad)),
            rewards,
            "the result",
        )


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks(bad: float, dtype: torch.dtype) -> None:
    mask = torch.ones(4, 4).tril()
    check_mask(mask.to(dtype), 4, 9)
    assert as_bool(mask.to(dtype), (4, 4)).equal(mask.bool())
    spoilt = mask.masked_fill(mask == 1, bad)
    with pytest.raises(AssertionError, match="finite"):
        check_mask(spoilt, 4, 9)
    with pytest.raises(AssertionError, match="finite"):
        as_bool(spoilt, (4, 4))
