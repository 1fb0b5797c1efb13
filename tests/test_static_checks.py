"""Test that breaking a course in common ways gives a message with file, line and reason, before any of its code runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.course import new_course
from autograder.course.config import CourseError
from autograder.release import static_checks

CHAPTER = "solutions/day1/cleaning.py"
GRADER = "graders/day1/test_cleaning.py"
STAND_INS = "solutions/day1/stand_ins.py"
MISTAKE = "mistakes/day1/standardize.md"
AT_END = "\x00"  # add the new text to the end of the file

# What is broken → file, old text, new text, and the beginning of the message with the file's path and the line of the new text.
BREAKS: dict[str, tuple[str, str, str, str]] = {
    "a typo in a key": ("grading.toml", "\npoints", "\nponts", "grading.toml, line 8: day1.exercises.standardize.ponts"),
    "invalid TOML": ("grading.toml", "]", "", "{root}/grading.toml is not valid TOML"),
    "an exercise that no chapter contains": (
        "grading.toml", AT_END, '[day1.exercises.nothing]\nchapter = "cleaning"\npoints = 1\n',
        "{path}: nothing has 0 exercise cells instead of 1",
    ),
    "a missing chapter": ("grading.toml", '"cleaning"', '"clean"', "{root}/solutions/day1/clean.py"),
    "a missing END SOLUTION": (CHAPTER, "    ### END SOLUTION\n", "", "{path}, cell 4: mark the solution"),
    "a syntax error in a chapter": (CHAPTER, "return standardize(x).abs() >", "return >", "{path}:{line}: invalid syntax"),
    "two cells with one exercise": (
        CHAPTER, AT_END, "# %%\ndef standardize(x):\n    return x\n", "{path}: standardize has 2 exercise cells",
    ),
    "a missing visible check": (CHAPTER, "def check_standardize", "def look_standardize", "{path}: standardize needs one cell"),
    "a check without an exercise": (
        CHAPTER, AT_END, '# %%\nif __name__ == "__main__":\n    def check_x(): ...\n', "{path}, cell 11: x is not an exercise",
    ),
    "a missing import in a solution": (
        CHAPTER, "standardize(x).abs()", "np.abs(standardize(x))", "{path}:{line}: np is not defined. Import",
    ),
    "a missing import in a check": (CHAPTER, "z = standardize(x)", "z = np.asarray(x)", "{path}:{line}: np is not defined"),
    "a missing import in given code": (
        CHAPTER, AT_END, "# %%\ndef given():\n    return np.pi\n", "{path}:{line}: np is not defined",
    ),
    "a missing import in a support cell": (
        CHAPTER, AT_END, '# %% tags=["support"]\ndef given():\n    return np.pi\n', "{path}:{line}: np is not defined",
    ),
    "a typo in a demonstration": (
        CHAPTER, "print(f\"{int(find_outliers(", "print(f\"{int(find_outlier(", "{path}:{line}: find_outlier is not defined",
    ),
    "a solution that uses a later exercise": (
        CHAPTER, "mean = x.mean(1", "mean = find_outliers(x).mean(1", "{path}:{line}: find_outliers is used before",
    ),
    "a check that uses a later exercise": (
        CHAPTER, "z = standardize(x)", "z = find_outliers(x)", "{path}:{line}: find_outliers is used before",
    ),
    "a stand-in for code that was deleted": (
        STAND_INS, AT_END, "def standardize(x):\n    return scale(x)\n", "{path}:{line}: scale is not defined",
    ),
    "a syntax error in a stand-in": (STAND_INS, AT_END, "def standardize(x)\n", "{path}:1: expected ':'"),
    "a syntax error in a grader": (GRADER, "student.standardize(", "student..standardize(", "{path}"),
    "a missing grader": (GRADER, 'exercise = "standardize"', 'name = "standardize"', "day1: standardize has no grader"),
    "a mistake that does not apply": (MISTAKE, "-mean = ", "-median = ", "{path}: "),
    "a mistake of another exercise": ("mistakes/day1/other.md", AT_END, "# other\n", "{path}: the file name should be"),
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    new_course.create(tmp_path / "course")
    return tmp_path / "course"


def change(file: Path, old: str, new: str) -> int:
    """Change a file and return the line of the last changed line that is not blank."""
    text = file.read_text() if file.exists() else ""
    if old == AT_END:
        file.write_text(f"{text}\n{new}" if text else new)
        return len(file.read_text().rstrip().split("\n"))
    before, _, after = text.partition(old)
    assert after, f"{file} lacks {old!r}"
    file.write_text(before + new + after)
    return before.count("\n") + 1


def message(root: Path) -> str:
    with pytest.raises(CourseError) as error:
        static_checks.check([courses.load(root).day("day1")])
    return str(error.value)


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_reported_with_its_place(name: str, root: Path) -> None:
    file, old, new, expected = BREAKS[name]
    line = change(root / file, old, new)
    file = CHAPTER if file == "grading.toml" else file
    assert message(root).startswith(expected.format(root=root, path=f"{root}/{file}", line=line))


def test_a_new_course_has_no_problems(root: Path) -> None:
    static_checks.check([courses.load(root).day("day1")])


def test_an_exercise_that_was_deleted_is_reported_wherever_it_is_used(root: Path) -> None:
    text = (root / CHAPTER).read_text()
    start, end = (
        text.index("# %% [markdown]\n# ## `standardize`"),
        text.index("# %% [markdown]\n# ## `find_outliers`"),
    )
    (root / CHAPTER).write_text(
        text[:start] + text[end:] + '# %%\nif __name__ == "__main__":\n    standardize(1)\n'
    )
    (root / STAND_INS).write_text(
        "def find_outliers(x, limit=2.0):\n    return standardize(x) > limit\n"
    )
    settings = (root / "grading.toml").read_text()
    start, end = (
        settings.index("[day1.exercises.standardize]"),
        settings.index("[day1.exercises.find_outliers]"),
    )
    (root / "grading.toml").write_text(settings[:start] + settings[end:])
    grader = root / GRADER
    text = grader.read_text()
    start, end = text.index("class TestStandardize"), text.index("class TestFindOutliers")
    grader.write_text(text[:start] + text[end:])
    (root / MISTAKE).unlink()
    lines = message(root).split("\n")
    files = [line.partition(": standardize is not defined")[0].partition(":")[0] for line in lines]
    assert files == [f"{root}/{CHAPTER}", f"{root}/{CHAPTER}", f"{root}/{STAND_INS}"]


def test_the_problems_of_all_cells_and_files_are_reported_together(root: Path) -> None:
    for name in (
        "a mistake that does not apply",
        "a typo in a demonstration",
        "a missing import in given code",
    ):
        change(root / BREAKS[name][0], *BREAKS[name][1:3])
    assert len(message(root).split("\n")) == 3
