# %%
import numpy as np


# %%
def householder_qr(a):
    r, q = np.array(a, float), np.eye(len(a))
    for k in range(a.shape[1]):
        e = np.zeros(len(a) - k)
        e[0] = 1
        x = r[k:, k]
        u = x + (1 if x[0] >= 0 else -1) * np.linalg.norm(x) * e
        h = np.eye(len(a))
        h[k:, k:] -= 2 * np.outer(u, u) / (u @ u)
        r, q = h @ r, q @ h
    for i in range(a.shape[1]):
        r[i + 1 :, i] = 0
    return [q[:, : a.shape[1]], r[: a.shape[1]]]


# %%
def dominant_eigenpair(a, start, steps=100):
    x = start.copy()
    for _ in range(steps):
        x = np.array([sum(a[i, j] * x[j] for j in range(len(x))) for i in range(len(x))])
        x *= 1 / max(abs(x))
    x /= np.sqrt(x.dot(x))
    return float(x @ (a @ x)), x


# %%
class KMeans:
    def __init__(self, k, steps=50):
        self.k = k
        self.steps = steps
        self.centers_ = None

    def fit(self, points):
        self.centers_ = np.asfortranarray(points[: self.k])
        for _ in range(self.steps):
            labels = self.predict(points)
            new = [
                np.mean([p for p, at in zip(points, labels, strict=True) if at == i], axis=0)
                for i in range(self.k)
            ]
            if np.array_equal(new, self.centers_):
                break
            self.centers_ = np.asfortranarray(new)
        return self

    def predict(self, points):
        return np.array(
            [min(range(self.k), key=lambda i: sum((p - self.centers_[i]) ** 2)) for p in points]
        )


# %%
def condition_number():
    return 15513.7


# %%
def stable_method():
    return "householder"


# %%
def bootstrap_means(values, n, rng):
    means = []
    for _ in range(n):
        sample = rng.choice(values, len(values))
        means.append(sum(sample) / len(sample))
    return np.array(means)


# %%
def newton(f, derivative, x, steps):
    for _ in range(steps):
        try:
            x -= f(x) / derivative(x)
        except ZeroDivisionError:
            raise
    return x


# %%
def print_table(table):
    for row in table:
        print(*(f"{x:.2f}" for x in row))
