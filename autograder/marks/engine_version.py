"""Identify the code that computes marks from a submission. Entry point: `engine_version`."""

from __future__ import annotations

import hashlib
import platform
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path

from autograder.sandbox.command import READER

GRADER = "autograder.grading.grader"
CHECKS = "autograder.execution.checks"  # the module that hidden graders import
IMPORT = re.compile(
    r"^[ \t]*(?:from (autograder[\w.]*) import (\([^)]*\)|.*)|import (autograder[\w.]*))",
    re.MULTILINE,
)
ROOT = Path(__file__).parents[2]  # the folder that contains the package `autograder`


@cache
def engine_version() -> str:
    """Return a hash of the versions of Python and torch and of every module in this package that can affect marks."""
    digest = hashlib.sha256(f"{platform.python_version()} {version('torch')}".encode())
    for file in engine_files():
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def engine_files() -> list[Path]:
    """Return a sorted list of the files in this package that can affect marks."""
    # The fork server starts its services by name, so the grader does not import them.
    sandbox = (ROOT / "autograder" / "sandbox").rglob("*.py")
    return sorted({*imported_files(GRADER, CHECKS, READER), *sandbox})


def imported_files(*modules: str) -> list[Path]:
    """Return a sorted list of the files in this package that the modules import, directly or indirectly."""
    found: set[Path] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        # `from package import name` may import a module or an object that the package defines.
        file = _file(name) or _file(name.rpartition(".")[0])
        if file is None:
            raise FileNotFoundError(f"The module {name} has no file in {ROOT}.")
        if file not in found:
            found.add(file)
            pending += imports(file)
            # Add the package that contains the file.
            pending.append(".".join(file.parent.relative_to(ROOT).parts))
    return sorted(found)


def _file(module: str) -> Path | None:
    place = ROOT / module.replace(".", "/")
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def imports(file: Path) -> list[str]:
    """Return the names that a file imports from this package. A regular expression is much faster than parsing the file."""
    names = []
    for package, imported, module in IMPORT.findall(file.read_text(encoding="utf-8")):
        if module:
            names.append(module)
        else:
            objects = re.findall(r"\w+", re.sub(r"#.*| as \w+", "", imported))
            names += [package, *(f"{package}.{name}" for name in objects)]
    return names
