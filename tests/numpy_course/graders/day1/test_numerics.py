import numpy as np

from autograder.execution.checks import (
    array,
    close,
    equal,
    pair,
    rows_like,
    signs_like,
    unchanged,
    weight,
)
from autograder.execution.student import StudentError


def matrix(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


class TestHouseholderQR:
    exercise = "householder_qr"

    @weight(2)
    def test_factors(self, student, seed):
        """Q and R are the factors of the matrix, up to the signs of Q's columns."""
        a = matrix(seed, 5, 3)
        q, r = pair(student.householder_qr(a), "Q", "R")
        expected_q, expected_r = np.linalg.qr(a)
        close(q, signs_like(q, expected_q, axis=0), "Q")
        close(r, signs_like(r, expected_r, axis=1), "R")

    def test_triangular(self, student, seed):
        """R is exactly 0 below its diagonal."""
        _, r = pair(student.householder_qr(matrix(seed, 4, 4)), "Q", "R")
        equal(
            np.tril(array(r, (4, 4), what="R"), -1),
            np.zeros((4, 4)),
            "the part of R below its diagonal",
        )

    def test_argument(self, student, seed):
        """The function does not change its argument."""
        student.householder_qr(matrix(seed, 4, 2))
        unchanged(student)


class TestDominantEigenpair:
    exercise = "dominant_eigenpair"

    def test_pair(self, student, seed):
        """The eigenvalue may be negative, and the eigenvector has length 1."""
        q, _ = np.linalg.qr(matrix(seed, 4, 4))
        a = q @ np.diag([-7.0, 2.0, 1.0, 0.5]) @ q.T
        value, x = pair(
            student.dominant_eigenpair(a, q.sum(1)), "the eigenvalue", "the eigenvector"
        )
        close(value, -7.0, "the eigenvalue")
        close(x, signs_like(x, q[:, 0]), "the eigenvector", atol=1e-8)

    def test_steps(self, student, seed):
        """The number of steps is an argument."""
        x = student.dominant_eigenpair(np.diag([3.0, 1.0]), np.ones(2), 2)[1]
        expected = np.array([9.0, 1.0]) / np.sqrt(82)
        close(x, signs_like(x, expected), "the eigenvector after two steps")


class TestKMeans:
    exercise = "KMeans"

    def test_centers(self, student, seed):
        """The centers are the means of well-separated clusters."""
        points = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]]).repeat(7, 0) + 0.1 * matrix(
            seed, 21, 2
        )
        model = student.KMeans(3).fit(points[[0, 7, 14, *range(21)]])
        expected = np.array([points[[i, *range(i, i + 7)]].mean(0) for i in (0, 7, 14)])
        close(model.centers_, rows_like(model.centers_, expected), "centers_")
        close(model.k, 3, "k")

    def test_labels(self, student, seed):
        """Each point gets the index of its nearest center, also points that `fit` did not see."""
        shift = np.random.default_rng(seed).uniform()
        model = student.KMeans(2)
        model.fit(np.array([[0.0], [1.0], [9.0], [10.0], [11.0]]) + shift)
        labels = array(model.predict(np.array([[-3.0], [20.0], [4.5]]) + shift), (3,))
        equal(labels.tolist(), [0, 1, 0])


class TestConditionNumber:
    exercise = "condition_number"

    def test_value(self, student):
        """The condition number is right."""
        close(student.condition_number(), 15513.73873892924, rtol=1e-5)


class TestStableMethod:
    exercise = "stable_method"

    def test_name(self, student):
        """The method is the stable one."""
        equal(student.stable_method(), "householder")


class TestBootstrapMeans:
    exercise = "bootstrap_means"

    def test_draws(self, student, seed):
        """The samples are drawn one after the other from the generator."""
        rng, own = np.random.default_rng(seed), np.random.default_rng(seed)
        values = matrix(seed, 9)
        close(
            student.bootstrap_means(values, 3, rng),
            np.array([own.choice(values, 9).mean() for _ in range(3)]),
        )
        close(rng.normal(), own.normal(), "the next number of the generator")


class TestNewton:
    exercise = "newton"

    def test_root(self, student, seed):
        """The steps lead to the root, and use the derivative at the current point."""
        root, points = np.random.default_rng(seed).uniform(2, 3), []

        def derivative(x):
            points.append(x)
            return 3 * x**2

        close(student.newton(lambda x: x**3 - root**3, derivative, 4.0, 30), root)
        assert len(points) >= 30, f"30 steps need 30 derivatives; your code asks for {len(points)}"

    def test_zero(self, student):
        """A derivative of 0 raises a ZeroDivisionError."""
        raised = "nothing"
        try:
            student.newton(np.cos, lambda x: np.float64(0), 1.0, 3)
        except StudentError as error:
            raised = error.type
        assert raised == "ZeroDivisionError", f"your code raises {raised}"


class TestPrintTable:
    exercise = "print_table"

    def test_lines(self, student, seed):
        """Each row is a line of numbers with two decimals."""
        table = np.round(matrix(seed, 3, 2), 1)
        student.print_table(table)
        expected = "".join(f"{a:.2f} {b:.2f}\n" for a, b in table)
        equal(student.printed, expected, "what your function prints")
