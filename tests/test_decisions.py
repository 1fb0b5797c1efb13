"""Check the reference solutions in the `decisions` chapter."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from solutions.day2.decisions import CausalBlock, DecisionTransformer, returns_to_go


def test_a_causal_block_hides_later_positions() -> None:
    torch.manual_seed(0)
    block, x = CausalBlock(8, 2), torch.randn(2, 6, 8)
    changed = x.clone()
    changed[:, 4] += 1
    for mode in (block.train(), block.eval()):
        moved = (mode(changed) - mode(x)).abs().amax(dim=(0, 2)) > 1e-6
        assert moved.tolist() == [False] * 4 + [True] * 2


def test_a_decision_transformer_learns_whom_to_imitate() -> None:
    """Two episodes have equal states but different returns and actions. The model learns which action goes with which return."""
    torch.manual_seed(0)
    model = DecisionTransformer(2, 2, 3, 16, n_heads=2, n_layers=1)
    actions = torch.tensor([[0, 0, 0], [1, 1, 1]])
    returns = returns_to_go(torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]))
    states = torch.zeros(2, 3, dtype=torch.long)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        loss = F.cross_entropy(model(returns, states, actions).flatten(0, 1), actions.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model(returns, states, actions).argmax(dim=-1).tolist() == actions.tolist()
