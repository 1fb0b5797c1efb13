# %% [markdown]
# # How do you know that it is right?
#
# *Chapter 7 of 7*
#
# Many mistakes in a Transformer raise no error: with a wrong scale or a leaking mask, it still
# trains, only worse. An assistant can write `masked_attention` in seconds. You write its test, with these
# ideas:
#
# * **A second way**: numbers by hand, a loop, or torch's own function.
# * **Rules** for any input: hidden keys change nothing, and reordering keys and values together
#   keeps the output.
# * **Different sizes** on every axis, so that a confused axis raises an error.
# * **Extreme inputs**, such as a query without allowed keys, and **gradients**, which can be NaN
#   although the results are right.

# %%
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from solutions.day1.masking import masked_attention
from solutions.opening import demonstration, predict, visible_check

# %% [markdown]
# ## `detects_broken_attention`
# ★★★☆☆ · 30 minutes
#
# Your test gets an implementation of `masked_attention` and returns whether it is broken. Inputs are
# float32, with a boolean mask.
#
# The grader calls it with correct implementations, and with broken ones that contain real students'
# mistakes. Each mistake that it notices earns points. If it rejects a correct implementation, it
# earns none, so compare floats with a tolerance, such as `atol=1e-4`. It cannot read an
# implementation, starts again for each one, and may call it at most 50 times.


# %%
def detects_broken_attention(attention) -> bool:
    """Return whether an implementation of `masked_attention` is broken.

    Args:
        attention: a function of (query, key, value, mask) that returns the pair (output, weights).

    Returns:
        True if it is broken, False if it is correct.
    """
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, 4, generator=generator, requires_grad=True)
    key = torch.randn(2, 5, 4, generator=generator)
    value = torch.randn(2, 5, 6, generator=generator)
    mask = torch.rand(2, 3, 5, generator=generator) < 0.6
    mask[0, 1] = False  # this query has no allowed keys
    output, weights = attention(query, key, value, mask)
    if output.shape != (2, 3, 6) or weights.shape != (2, 3, 5):
        return True
    # A second way. For the query without keys, some versions of torch return NaN instead of 0.
    expected = F.scaled_dot_product_attention(query, key, value, mask).nan_to_num(0.0)
    hidden_weights = weights.masked_select(~mask)
    (gradient,) = torch.autograd.grad(output.sum() + weights.square().sum(), query)
    is_correct = (
        torch.allclose(output, expected, atol=1e-4)
        and torch.allclose(weights @ value, expected, atol=1e-4)
        and bool((hidden_weights == 0).all())
        and bool(gradient.isfinite().all())
    )
    return not is_correct
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_detects_broken_attention():
        def ignores_the_mask(query, key, value, mask=None):
            return masked_attention(query, key, value)

        def tested(implementation, what):
            try:
                verdict = detects_broken_attention(implementation)
            except AssertionError:
                return True  # a test may also raise an error
            is_bool = isinstance(verdict, bool) or getattr(verdict, "dtype", None) == torch.bool
            assert is_bool, (
                f"Your test should return True or False; for {what}, it returns a "
                f"{type(verdict).__name__}."
            )
            return bool(verdict)

        assert not tested(masked_attention, "your own masked_attention"), (
            "Your test says that your own masked_attention is broken. "
            "If its check passes, your test is wrong: compare floats with a tolerance."
        )
        assert tested(ignores_the_mask, "attention without a mask"), (
            "Your test should notice an implementation that ignores the mask."
        )
        print("detects_broken_attention: all visible checks pass.")

    check_detects_broken_attention()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Start with inputs whose axes all have different sizes, and a mask with a different pattern in each
# row. Compute the expected weights in a second way, and compare both results with
# `torch.allclose`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Then read the docstring of `masked_attention` again. Each sentence under "Returns" is something to
# test: weights of exactly 0, queries without allowed keys, and gradients without NaN.
# </details>


# %% tags=["support"]
def broken_attention() -> dict[str, Any]:
    """Return four broken implementations of attention with a mask, by their mistakes."""

    def attend(scores, value, mask, hide_before=True, axis=-1):
        weights = scores.masked_fill(~mask & hide_before, -1e9).softmax(axis) * mask
        output = weights @ value
        return output, weights

    return {
        "no scale": lambda q, k, v, mask: attend(q @ k.mT, v, mask),
        "wrong axis": lambda q, k, v, mask: attend(q @ k.mT / q.shape[-1] ** 0.5, v, mask, axis=-2),
        "mask too late": lambda q, k, v, mask: attend(
            q @ k.mT / q.shape[-1] ** 0.5, v, mask, hide_before=False
        ),
        "mask inverted": lambda q, k, v, mask: attend(q @ k.mT / q.shape[-1] ** 0.5, v, ~mask),
    }


def notices(test: Any, implementation: Any) -> bool:
    """Return whether the student's test notices a broken implementation. It may also raise an exception."""
    try:
        return bool(test(implementation))
    except Exception:
        return True


def plot_broken_attention(found: dict[str, bool]) -> None:
    """Draw the weights of each broken implementation for the same inputs, with a causal mask."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 6, 4).unbind()
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    versions = {"correct": masked_attention, **broken_attention()}
    _, axes = plt.subplots(1, len(versions), figsize=(10, 2.3), layout="constrained")
    for axis, (name, implementation) in zip(axes, versions.items(), strict=True):
        axis.imshow(implementation(query, key, key, mask)[1].detach(), cmap="Blues", vmin=0, vmax=1)
        verdict = {True: "\nnoticed", False: "\nmissed"}.get(found.get(name), "\n")
        axis.set(title=name + verdict, xticks=[], yticks=[])
    plt.show()


# %%
if __name__ == "__main__":
    predict("How many of four broken versions will your test notice?", ...)

# %%
if __name__ == "__main__":
    with demonstration():
        found = {
            name: notices(detects_broken_attention, f) for name, f in broken_attention().items()
        }
        predict.reveal(
            "How many of four broken versions will your test notice?", sum(found.values())
        )
        plot_broken_attention(found)

# %% [markdown]
# **Read.** [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.2.1. [Weng, The Transformer Family
# v2](https://lilianweng.github.io/posts/2023-01-27-the-transformer-family-v2/): what would you test there?
#
# **Discuss.**
#
# 1. Your test accepts an implementation. What do you know about it?
# 2. Why is it not enough that a model trains well?
#
# <details><summary>Answers</summary>
#
# 1. It is correct for the inputs that you tried. Other sizes, dtypes and devices may still fail, so a
#    test should cover each promise of the docstring.
# 2. Training compensates for many mistakes, such as a wrong scale. Others show only in use: a leak
#    through the causal mask makes training look better, and generation worse.
# </details>
