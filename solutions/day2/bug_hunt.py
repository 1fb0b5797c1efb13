# %% [markdown]
# # Warm-up: a bug hunt
#
# *Chapter 1 of 8*
#
# An assistant wrote the attention weights of Day 1 in six ways. Each version looks right, and each has
# one bug. Yours is the version whose number is the remainder of your student number divided by 6,
# unless your teacher gives you another. For n queries and m keys with d features, it should compute
#
# $$A = \mathrm{softmax}(S) \qquad S_{ij} = \begin{cases} q_i \cdot k_j / \sqrt d & \text{if } M_{ij} \\
# -\infty & \text{otherwise} \end{cases} \qquad Q: n \times d \quad K: m \times d \quad M, A: n \times m$$
#
# The boolean mask M is True where a query may attend to a key: at least once in each row.

# %%
import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from solutions.opening import demonstration, expecting, look, predict, visible_check


# %%
def version_0(query, key, mask):
    scores = torch.einsum("nd,md->nm", query, key) / len(key) ** 0.5
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=1)


def version_1(query, key, mask):
    unnormalised = torch.exp(query @ key.T / query.shape[1] ** 0.5) * mask
    return unnormalised / unnormalised.sum(dim=1, keepdim=True)


def version_2(query, key, mask):
    weights = F.softmax(query @ key.T / query.shape[1] ** 0.5, dim=1)
    return torch.where(mask, weights, 0.0)


def version_3(query, key, mask):
    scores = query @ key.T / query.shape[1] ** 0.5
    return F.softmax(scores * mask, dim=1)


def version_4(query, key, mask):
    weights = torch.zeros(len(query), len(key))
    for i, allowed in enumerate(mask):
        scores = key[allowed] @ query[i] / query.shape[1] ** 0.5
        weights[i, : len(scores)] = scores.softmax(dim=0)
    return weights


def version_5(query, key, mask):
    hidden = torch.zeros(mask.shape).masked_fill(~mask[-1], float("-inf"))
    return F.softmax(query @ key.T / query.shape[1] ** 0.5 + hidden, dim=1)


VERSIONS = (version_0, version_1, version_2, version_3, version_4, version_5)


# %% tags=["support"]
def why_invalid(version, query, key, mask) -> str:
    """Return why these are not the number of a version and its inputs, or "" if they are."""
    if type(version) is not int or version not in range(len(VERSIONS)):
        return "the first value should be the number of a version, from 0 to 5"
    tensors = {"query": query, "key": key, "mask": mask}
    for name, x in tensors.items():
        dtype = torch.bool if name == "mask" else torch.float32
        if not isinstance(x, Tensor) or x.dtype != dtype or x.dim() != 2 or x.device.type != "cpu":
            return f"{name} should be a {str(dtype)[6:]} tensor with two axes, on the CPU"
        if not all(1 <= size <= 64 for size in x.shape):
            return f"each axis of {name} should have 1 to 64 elements"
        if name != "mask" and not bool((x.abs() <= 100).all()):
            return f"{name} should contain only numbers from −100 to 100"
    if query.shape[1] != key.shape[1]:
        return "query and key should have the same number of features"
    if mask.shape != (len(query), len(key)):
        return "mask should have one row per query and one column per key"
    if not bool(mask.any(dim=1).all()):
        return "each row of mask should allow at least one key"
    return ""


def largest_error(version, query, key, mask) -> float:
    """Return how far a version's weights are from the right ones, or infinity if they contain NaN."""
    query, key = query.detach(), key.detach()
    identity = torch.eye(len(key), dtype=torch.float64)
    right = F.scaled_dot_product_attention(query.double(), key.double(), identity, mask)
    error = (VERSIONS[version](query, key, mask) - right).abs().max().item()
    return math.inf if math.isnan(error) else error


# %% [markdown]
# ## `counterexample`
# ★★☆☆☆ · 5 minutes
#
# Before you fix a bug, show it. Return the number of your version and inputs for which its weights are
# wrong: some weight is NaN, or more than 0.01 from the right one. Small inputs are best.


# %%
def counterexample() -> tuple[int, Float[Tensor, "n d"], Float[Tensor, "m d"], Bool[Tensor, "n m"]]:
    """Return inputs for which one of the six versions is wrong.

    Returns:
        The version's number, query, key and mask. Query and key are float32, with numbers from −100 to
        100. The mask is boolean, and each row allows at least one key. No axis has more than 64 elements.
    """
    ### BEGIN SOLUTION
    query = torch.tensor([[3.0, 0.0]])
    key = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    return 0, query, key, torch.tensor([[True, True, True]])
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_counterexample():
        with expecting("counterexample() should return (number, query, key, mask)"):
            number, query, key, mask = counterexample()
        reason = why_invalid(number, query, key, mask)
        assert not reason, f"This is not a valid input, because {reason}."
        error = largest_error(number, query, key, mask)
        assert error > 0.01, (
            f"For your inputs, version {number} is right: its largest error is {error:.2g}. Which line "
            "of its code looks unusual, and for which inputs does this line matter?"
        )
        n_numbers = query.numel() + key.numel() + mask.numel()
        print(f"Version {number} is wrong for your {n_numbers} numbers. Do fewer suffice?")
        print("counterexample: all visible checks pass.")

    check_counterexample()

# %% [markdown]
# <details><summary>Hint</summary>
#
# Vary one thing at a time: how many keys there are, the size of the scores, where the mask has gaps,
# and whether its rows differ.
# </details>

# %% [markdown]
# ## `repaired_weights`
# ★★☆☆☆ · 5 minutes
#
# Now repair your version, with few changes.
#
# Not allowed: `scaled_dot_product_attention`, `MultiheadAttention`, `flex_attention`.


# %%
def repaired_weights(
    query: Float[Tensor, "n d"], key: Float[Tensor, "m d"], mask: Bool[Tensor, "n m"]
) -> Float[Tensor, "n m"]:
    """Return the attention weights of each query.

    Each row of the mask allows at least one key. Hidden keys get a weight of exactly 0, and the weights
    of each row sum to 1. Scores may be large.

    Source: Vaswani et al. (2017), section 3.2.1.
    """
    ### BEGIN SOLUTION
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return torch.softmax(scores.where(mask, -torch.inf), dim=-1)
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_repaired_weights():
        # With d = 4, equal features give scores of ln 1, ln 2, ln 3 and ln 9.
        key = torch.tensor([1.0, 2, 3, 9]).log()[:, None].expand(4, 4) / 2
        mask = torch.tensor([[True, True, False, False], [False, True, False, True]])
        with expecting(
            "A query of shape (2, 4) and a key of shape (4, 4) should give (2, 4) weights"
        ):
            seen = repaired_weights(torch.ones(2, 4), key, mask)
        wanted = torch.tensor([[1 / 3, 2 / 3, 0, 0], [0, 2 / 11, 0, 9 / 11]])
        assert getattr(seen, "shape", None) == (2, 4), (
            "The weights should be a tensor of shape (2, 4): one row per query."
        )
        assert torch.allclose(seen, wanted, atol=1e-5), (
            f"The weights should be\n{wanted}\nyours are\n{seen}\n"
            "Each row has its own mask. Do the allowed keys of each row have weights that sum to 1?"
        )
        seen = repaired_weights(torch.full((2, 4), 30.0), torch.full((4, 4), 30.0), mask)
        wanted = mask / 2
        assert torch.allclose(seen, wanted, atol=1e-5), (
            f"If all scores are 1800, the weights should be\n{wanted}\nyours are\n{seen}\n"
            "Does an exponential overflow?"
        )
        print("repaired_weights: all visible checks pass.")

    check_repaired_weights()

# %% [markdown]
# <details><summary>Hint</summary>
#
# Compare your version with the formula, symbol by symbol: the divisor, the row of the mask, the place
# of each weight, and what happens before softmax and after it.
# </details>

# %%
if __name__ == "__main__":
    predict("For how many of the six versions are your inputs a counterexample?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        number, query, key, mask = counterexample()
        errors = [largest_error(version, query, key, mask) for version in range(6)]
        predict.reveal(
            "For how many of the six versions are your inputs a counterexample?",
            sum(error > 0.01 for error in errors),
        )
        shown = {"repaired": repaired_weights(query, key, mask)}
        for version, error in enumerate(errors):
            verdict = "NaN" if error == math.inf else "wrong" if error > 0.01 else "right"
            weights = VERSIONS[version](query, key, mask)
            shown[f"version {version}: {verdict}"] = weights.nan_to_num(0.0)
        look(shown, range(len(query)), range(len(key)))

# %% [markdown]
# **Read.** [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.2.1.
#
# **Discuss.**
#
# 1. Which versions are right for every causal mask, and which for every padding mask?
# 2. Which of the bugs would you notice from a training loss?
#
# <details><summary>Answers</summary>
#
# 1. Version 4 is right for causal masks, because the allowed keys come first. Version 5 is right
#    for padding masks, because all rows are equal. A test with only one kind of mask misses a bug.
# 2. Version 1, if the scores become large: the loss is NaN. The others train. With a causal mask,
#    versions 3 and 5 leak the future, so their loss is even lower.
# </details>
