"""Write a small starter course. Entry points: `create` and `add_nbgrader_config`.

The course is a copy of `template/`, in which the prefix `dot-` in file names is replaced with a dot.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from autograder.course.files import GRADING_TOML, CourseError, writing

TEMPLATE = Path(__file__).parent / "template"
NAME = re.compile(r"[^\W_][\w.-]{0,63}")
NBGRADER_CONFIG = "nbgrader_config.py"
PLACEHOLDER = "NAME_OF_THE_COURSE"
COMPILED = "__pycache__"  # pip creates this folder in the template when it installs the package


def create(folder: Path) -> list[Path]:
    """Write a new course to an empty or new folder, and return its files' paths.

    Raises:
        CourseError: The folder's name is invalid, or the folder is inside another course or is not empty.
        FileError: The folder cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    if not NAME.fullmatch(folder.name):
        raise CourseError(
            f"{folder.name!r} is not a valid course name. Use up to 64 letters, digits, hyphens, underscores and "
            "dots, beginning with a letter or a digit."
        )
    if not folder.parent.is_dir():
        raise CourseError(f"{folder} cannot be created: there is no folder {folder.parent}")
    outer = next((above for above in folder.parents if (above / GRADING_TOML).is_file()), None)
    if outer:
        raise CourseError(
            f"{folder} would be inside the course in {outer}. Create it outside that folder, for example with "
            f"`autograder new {outer.parent / folder.name}`."
        )
    if os.path.lexists(folder) and not folder.is_dir():
        raise CourseError(f"{folder} exists and is not a folder. Choose another name.")
    with writing(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise CourseError(f"the folder {folder} is not empty. Choose another name.")
        files = [file for file in TEMPLATE.rglob("*") if file.is_file()]
        return sorted(_copy_file(file, folder) for file in files if file.parent.name != COMPILED)


def add_nbgrader_config(root: Path) -> Iterator[Path]:
    """Write the default `nbgrader_config.py` to a course that has none, and yield its path."""
    file = root / NBGRADER_CONFIG
    if not file.exists():
        with writing(file):
            yield _copy_file(TEMPLATE / NBGRADER_CONFIG, root)


def _copy_file(file: Path, folder: Path) -> Path:
    parts = file.relative_to(TEMPLATE).parts
    target = folder.joinpath(*(re.sub("^dot-", ".", part) for part in parts))
    target.parent.mkdir(parents=True, exist_ok=True)
    # nbgrader_config.py contains the name as a Python string.
    name = re.sub(r"[^\w .-]", "_", folder.name)
    text = file.read_text(encoding="utf-8")
    target.write_text(text.replace(PLACEHOLDER, name), encoding="utf-8")
    return target
