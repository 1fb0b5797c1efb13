"""Define a course whose two days share chapters and differ only in what `grading.toml` selects. Entry point: `make`."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conftest import ROOT

# Day 1 contains only the core exercises. Day 2 is worth 77 points and has a given and an optional exercise.
DAYS = {
    "day1": ('include = "core"', {}),
    "day2": ("total_points = 77", {"shift": "given = true", "count": "optional = true"}),
}
EXERCISES = {
    "shift": ("numbers", 1, False),
    "spread": ("numbers", 2, True),
    "count": ("numbers", 4, False),
    "flip": ("signs", 8, False),
    "halve": ("signs", 16, True),
    "mirror": ("extra", 32, False),
}
SOLUTIONS = {
    "shift": "x + 1",
    "spread": "shift(x) * 3",
    "count": "x.cumsum(-1)",
    "flip": "-x",
    "halve": "x / 2",
    "mirror": "x.flip(-1)",
}
EXERCISE = """
# %% [markdown]
# ## `{name}`
# ★★☆☆☆ · 10 minutes
#
# A text about {name}. It uses your
# `shift`.
#
# Not allowed: a loop in {name}.

# %%
def {name}(x):
    ### BEGIN SOLUTION
    return {solution}
    ### END SOLUTION

# %%
if __name__ == "__main__":

    @visible_check
    def check_{name}():
        x = torch.tensor([1.0, 2.0])
        assert {name}(x) is not None, "It returns nothing."
        print("{name}: all visible checks pass.")

    check_{name}()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A hint about {name}.
# </details>
"""
GRADER = '''

class Test{title}:
    exercise = "{name}"

    def test_values(self, student, seed):
        """The values of {name} are right."""
        x = Draw(seed).normal(2, 5)
        close(student.{name}(x), {expected})
'''
EXPECTED = {**SOLUTIONS, "spread": "(x + 1) * 3"}
OPENING = """
# %% [markdown]
# ### Timetable
#
# {{ timetable
#   Introduction: 5
#   chapters
# }}
#
# {{ exercises }} exercises in {{ chapters }} chapters, {{ points }} points. {{ workload }}
"""


def make(root: Path) -> Path:
    """Write the course to a folder without building it."""
    toml = ""
    for day, (key, flags) in DAYS.items():
        toml += f'[{day}]\ntitle = "A day"\n{key}\n'
        for name, (chapter, weight, is_core) in EXERCISES.items():
            toml += f'[{day}.exercises.{name}]\nchapter = "{chapter}"\npoints = {weight}\n'
            toml += "core = true\n" * is_core + f"{flags.get(name, '')}\n"
        _write_day(root, day)
    (root / "grading.toml").write_text(toml, encoding="utf-8")
    shutil.copy(ROOT / "nbgrader_config.py", root)
    return root


def _write_day(root: Path, day: str) -> None:
    solutions, graders = root / "solutions" / day, root / "graders" / day
    solutions.mkdir(parents=True)
    graders.mkdir(parents=True)
    for chapter in dict.fromkeys(chapter for chapter, _, _ in EXERCISES.values()):
        own = [name for name, (home, _, _) in EXERCISES.items() if home == chapter]
        text = (
            f"# %% [markdown]\n# # {chapter.title()}\n#\n# *Chapter 1 of 1*\n\n# %%\nimport torch\n"
        )
        text += "from solutions.opening import visible_check\n"
        text += "".join(EXERCISE.format(name=n, solution=SOLUTIONS[n]) for n in own)
        tests = "from autograder.execution.checks import Draw, close\n" + "".join(
            GRADER.format(title=n.title(), name=n, expected=EXPECTED[n]) for n in own
        )
        (solutions / f"{chapter}.py").write_text(text, encoding="utf-8")
        (graders / f"test_{chapter}.py").write_text(tests, encoding="utf-8")
    (solutions / "opening.py").write_text(OPENING, encoding="utf-8")
    (solutions / "README.md").write_text(
        "{{ exercises }} exercises, {{ points }} points\n", "utf-8"
    )
    (solutions / "requirements.txt").write_text("torch\n", encoding="utf-8")
