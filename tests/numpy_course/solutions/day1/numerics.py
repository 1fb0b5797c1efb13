# %% [markdown]
# # Numerical methods
#
# Decompositions, iterations and random numbers with NumPy.

# %%
from collections.abc import Callable

import numpy as np

from autograder.in_notebook.opening import visible_check

# %% [markdown]
# ## `householder_qr`
# ★★★☆☆ · 20 minutes
#
# Each reflection $I - 2vv^T$ maps the rest of a column to a multiple of the first unit vector.


# %%
def householder_qr(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Q with orthonormal columns and upper triangular R, so that Q R = `a`, which has at least as many rows as columns.

    The shapes of Q and R are those of `numpy.linalg.qr`.
    """
    ### BEGIN SOLUTION
    m, n = a.shape
    q, r = np.eye(m), a.astype(float)
    for k in range(n):
        v = r[k:, k].copy()
        v[0] += np.copysign(np.linalg.norm(v), v[0])
        v /= np.linalg.norm(v)
        r[k:] -= 2 * np.outer(v, v @ r[k:])
        q[:, k:] -= 2 * np.outer(q[:, k:] @ v, v)
    return q[:, :n], np.triu(r[:n])
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_householder_qr() -> None:
        q, r = householder_qr(np.array([[3.0, 1.0], [4.0, 2.0], [0.0, 5.0]]))
        assert q.shape == (3, 2), f"Q should have shape (3, 2); yours has shape {q.shape}."
        assert abs(abs(r[0, 0]) - 5) < 1e-9, (
            f"The first column has length 5; your R starts with {r[0, 0]}."
        )
        print("householder_qr: all visible checks pass.")

    check_householder_qr()

# %% [markdown]
# ## `dominant_eigenpair`
# ★★☆☆☆ · 10 minutes
#
# Multiply a vector by the matrix and normalise it, again and again.


# %%
def dominant_eigenpair(
    a: np.ndarray, start: np.ndarray, steps: int = 100
) -> tuple[float, np.ndarray]:
    """Return the eigenvalue of largest absolute value of a symmetric matrix, and a unit eigenvector, after power iteration."""
    ### BEGIN SOLUTION
    x = start / np.linalg.norm(start)
    for _ in range(steps):
        x = a @ x
        x = x / np.linalg.norm(x)
    return x @ a @ x, x
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_dominant_eigenpair() -> None:
        value, vector = dominant_eigenpair(np.diag([1.0, -3.0]), np.array([1.0, 1.0]))
        assert abs(value + 3) < 1e-9, f"The eigenvalue is -3; yours is {value}."
        assert np.allclose(np.abs(vector), [0, 1]), (
            f"The eigenvector is ±[0, 1]; yours is {vector}."
        )
        print("dominant_eigenpair: all visible checks pass.")

    check_dominant_eigenpair()

# %% [markdown]
# ## `KMeans`
# ★★★☆☆ · 20 minutes
#
# Alternate between assigning each point to its nearest center and moving each center to the mean of its points.


# %%
class KMeans:
    """Cluster points. After `fit`, the attribute `centers_` contains the centers as an array of shape (k, d)."""

    def __init__(self, k: int, steps: int = 50) -> None:
        self.k = k
        self.steps = steps

    def fit(self, points: np.ndarray) -> "KMeans":
        """Start with the first k points as centers, and return the object."""
        ### BEGIN SOLUTION
        self.centers_ = points[: self.k].astype(float)
        for _ in range(self.steps):
            labels = self.predict(points)
            for i in set(labels.tolist()):
                self.centers_[i] = points[labels == i].mean(0)
        return self
        ### END SOLUTION

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Return the index of the nearest center of each point."""
        ### BEGIN SOLUTION
        return ((points[:, None] - self.centers_) ** 2).sum(-1).argmin(1)
        ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_KMeans() -> None:
        points = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 2.0], [10.0, 2.0]])
        labels = KMeans(2).fit(points).predict(points)
        assert labels.tolist() == [0, 1, 0, 1], (
            f"The labels should be [0, 1, 0, 1]; yours are {labels}."
        )
        print("KMeans: all visible checks pass.")

    check_KMeans()

# %% [markdown]
# ## `condition_number`
# ★☆☆☆☆ · 5 minutes
#
# What is the condition number of the 4 × 4 Hilbert matrix in the 2-norm?


# %%
def condition_number() -> float:
    """Return the condition number of the 4 × 4 Hilbert matrix, with at least 6 digits."""
    ### BEGIN SOLUTION
    return 15513.73873892924
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_condition_number() -> None:
        assert condition_number() > 1, "A condition number is at least 1."
        print("condition_number: your answer is a possible condition number.")

    check_condition_number()

# %% [markdown]
# ## `stable_method`
# ★☆☆☆☆ · 5 minutes
#
# Which method keeps the columns of Q orthogonal for the matrix above: "gram-schmidt", "normal equations" or "householder"?


# %%
def stable_method() -> str:
    """Return the name of the method."""
    ### BEGIN SOLUTION
    return "householder"
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_stable_method() -> None:
        assert isinstance(stable_method(), str), "The answer should be a string."
        print("stable_method: your answer is a string.")

    check_stable_method()

# %% [markdown]
# ## `bootstrap_means`
# ★★☆☆☆ · 10 minutes
#
# A bootstrap sample has as many values as the data, drawn with replacement by `rng.choice`.


# %%
def bootstrap_means(values: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return the means of `n` bootstrap samples. Draw one sample after the other with `rng.choice`."""
    ### BEGIN SOLUTION
    return np.array([rng.choice(values, len(values)).mean() for _ in range(n)])
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_bootstrap_means() -> None:
        means = bootstrap_means(np.array([2.0, 2.0, 2.0]), 4, np.random.default_rng(0))
        assert means.tolist() == [2, 2, 2, 2], (
            f"The mean of equal values is that value; yours are {means}."
        )
        print("bootstrap_means: all visible checks pass.")

    check_bootstrap_means()

# %% [markdown]
# ## `newton`
# ★★☆☆☆ · 10 minutes
#
# Repeat $x - f(x) / f'(x)$.


# %%
def newton(
    f: Callable[[float], float], derivative: Callable[[float], float], x: float, steps: int
) -> float:
    """Return the approximate root of `f` after a number of Newton steps from `x`.

    Raises ZeroDivisionError if the derivative is 0.
    """
    ### BEGIN SOLUTION
    for _ in range(steps):
        slope = derivative(x)
        if slope == 0:
            raise ZeroDivisionError("the derivative is 0")
        x = x - f(x) / slope
    return x
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_newton() -> None:
        x = newton(lambda x: x**2 - 4, lambda x: 2 * x, 4.0, 1)
        assert x == 2.5, f"One step from 4 leads to 2.5; yours leads to {x}."
        print("newton: all visible checks pass.")

    check_newton()

# %% [markdown]
# ## `print_table`
# ★☆☆☆☆ · 5 minutes
#
# Print one line per row, with two decimals and a space between the columns.


# %%
def print_table(table: np.ndarray) -> None:
    """Print a matrix."""
    ### BEGIN SOLUTION
    for row in table:
        print(" ".join(f"{value:.2f}" for value in row))
    ### END SOLUTION


# %%
if __name__ == "__main__":

    @visible_check
    def check_print_table() -> None:
        assert print_table(np.eye(2)) is None, "The function should print, not return."
        print("print_table: the printed matrix should be\n1.00 0.00\n0.00 1.00")

    check_print_table()
