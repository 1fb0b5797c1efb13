"""Hidden tests. If a test fails, the student sees the test's docstring."""

from autograder.execution.checks import Draw, close, equal, shaped, unchanged, weight


class TestStandardize:
    exercise = "standardize"

    def test_one_row(self, student, seed):
        """The function subtracts a row's mean and divides by the row's standard deviation."""
        x = Draw(seed).normal(1, 7)
        close(student.standardize(x), (x - x.mean()) / x.std(correction=0))

    @weight(2)
    def test_each_row(self, student, seed):
        """Each row is standardized with its own mean and standard deviation."""
        x = Draw(seed).normal(3, 7) * 5 + 2
        rows = [(row - row.mean()) / row.std(correction=0) for row in x]
        result = shaped(student.standardize(x), (3, 7))
        for number, row in enumerate(result):
            close(row, rows[number], f"row {number}")

    def test_argument(self, student, seed):
        """The function does not change its argument."""
        student.standardize(Draw(seed).normal(3, 7))
        unchanged(student)


class TestFindOutliers:
    exercise = "find_outliers"

    def test_above(self, student, seed):
        """A value far above the mean is an outlier."""
        x = Draw(seed).normal(2, 9)
        x[0, 3] += 50
        z = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0)
        equal(student.find_outliers(x), z.abs() > 2)

    def test_below(self, student, seed):
        """A value far below the mean is an outlier."""
        x = Draw(seed).normal(2, 9)
        x[1, 5] -= 50
        z = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0)
        equal(student.find_outliers(x), z.abs() > 2)

    def test_limit(self, student, seed):
        """The function uses the value of the argument `limit`."""
        x = Draw(seed).normal(4, 9)
        z = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0)
        equal(student.find_outliers(x, 0.9), z.abs() > 0.9)
