"""Provide the README and requirements.txt that accompany the notebook. Entry points: `readme` and `requirements`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

from autograder.course.config import Day
from autograder.course.files import read_text

README = """\
# {title}

    pip install jupyterlab -r requirements.txt
    jupyter lab {name}.ipynb          # VS Code and Colab work as well

Work from top to bottom. Replace each `raise NotImplementedError` with your code and run the checks below it. When you are
done, submit `{name}.ipynb`.
"""
ALWAYS = ("torch",)  # packages that the given code in every notebook uses
NOT_INSTALLED = ("autograder", "solutions")  # packages that students do not install


def readme(day: Day) -> str:
    """Return the day's README, or a default README with the day's title."""
    file = day.root / "solutions" / day.name / "README.md"
    if file.is_file():
        return read_text(file)
    return README.format(title=day.title, name=day.name)


def requirements(day: Day) -> str:
    """Return the day's requirements.txt or, by default, the packages that the chapters import."""
    file = day.root / "solutions" / day.name / "requirements.txt"
    if file.is_file():
        return read_text(file)
    known = packages_distributions()
    imported = set(_imported(day)) - sys.stdlib_module_names - set(NOT_INSTALLED)
    packages = {known.get(name, [name])[0] for name in (*ALWAYS, *imported)}
    return "".join(f"{package}\n" for package in sorted(packages, key=str.lower))


def _imported(day: Day) -> Iterator[str]:
    """Yield the top-level package of each module that a day's chapters import."""
    cells = (cell for chapter in day.chapters for cell in chapter.cells if cell.role != "text")
    for cell in cells:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]
