# %%
import numpy as np


# %%
def householder_qr(a):
    q, r = np.linalg.qr(a)
    signs = np.where(np.diag(r) < 0, -1.0, 1.0)
    return q * signs, np.triu(r * signs[:, None])


# %%
def dominant_eigenpair(a, start, steps=100):
    x = np.linalg.matrix_power(a, steps) @ start
    x /= -np.sqrt(np.sum(x**2))
    return np.array(x.T @ a @ x), x


# %%
class KMeans:
    def __init__(self, k, steps=50):
        self.k, self.steps, self.history = k, steps, []

    def fit(self, points):
        self.centers_ = np.array(points[: self.k], dtype=np.float64)
        for _ in range(self.steps):
            nearest = self.predict(points)
            self.centers_ = np.stack([points[nearest == i].mean(axis=0) for i in range(self.k)])
        return self

    def predict(self, points):
        return (
            np.linalg.norm(points[:, np.newaxis] - self.centers_[np.newaxis], axis=2)
            .argmin(axis=1)
            .astype(np.int32)
        )


# %%
def condition_number():
    return np.linalg.cond(1 / (np.arange(4)[:, None] + np.arange(4) + 1))


# %%
def stable_method():
    return np.str_("householder")


# %%
def bootstrap_means(values, n, rng):
    means = np.empty(n)
    for i in range(n):
        means[i] = np.mean(rng.choice(values, size=values.size, replace=True))
    return means


# %%
def newton(f, derivative, x, steps):
    x = np.float64(x)
    while steps:
        x, steps = x - f(x) / float(derivative(x)), steps - 1
    return x


# %%
def print_table(table):
    print("\n".join("{:.2f} {:.2f}".format(*row) for row in table.tolist()))
