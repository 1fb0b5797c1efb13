# %% [markdown]
# # Cleaning data
#
# Measurements can be compared only if they are on the same scale.

# %%
import torch
from torch import Tensor

from autograder.in_notebook.opening import demonstration, expecting, visible_check

# %% [markdown]
# ## `standardize`
# ★☆☆☆☆ · 10 minutes
#
# Subtract the mean of each row and divide by the row's standard deviation: $z = (x - \mu) / \sigma$. Here, $\sigma^2$
# is the mean of $(x - \mu)^2$.


# %%
def standardize(x: Tensor) -> Tensor:
    """Shift and scale each row of `x` to mean 0 and variance 1.

    `x` has the shape (rows, columns). The result has the same shape.
    """
    ### BEGIN SOLUTION
    mean = x.mean(1, keepdim=True)
    return (x - mean) / x.var(1, keepdim=True, correction=0).sqrt()
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_standardize() -> None:
        x = torch.tensor([[1.0, 3.0], [10.0, 50.0]])
        with expecting("standardize(x) should return a tensor with the shape of x, (2, 2)"):
            z = standardize(x)
        expected = [[-1.0, 1.0], [-1.0, 1.0]]
        assert z.tolist() == expected, f"Each row should be [-1, 1]; your result is {z}."
        print("standardize: all visible checks pass.")

    check_standardize()

# %% [markdown]
# <details><summary>Hint</summary>
#
# `keepdim=True` keeps the reduced axis with size 1, so each row's mean broadcasts over that row.
# </details>

# %% [markdown]
# ## `find_outliers`
# ★☆☆☆☆ · 5 minutes
#
# A value is an outlier if it is more than `limit` standard deviations away from the mean of its row.


# %%
def find_outliers(x: Tensor, limit: float = 2.0) -> Tensor:
    """Return a boolean tensor that is True wherever a value in `x` is an outlier in its row."""
    ### BEGIN SOLUTION
    return standardize(x).abs() > limit
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_find_outliers() -> None:
        x = torch.tensor([[1.0, 1.0, 1.0, 1.0, 9.0]])
        found = find_outliers(x, limit=1.5)
        expected = [[False, False, False, False, True]]
        assert found.tolist() == expected, (
            f"Only the 9 is an outlier; your result is {found.tolist()}."
        )
        print("find_outliers: all visible checks pass.")

    check_find_outliers()

# %%
if __name__ == "__main__":
    with demonstration():
        noise = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0))
        print(f"{int(find_outliers(noise).sum())} of 1,000 random numbers are outliers.")
