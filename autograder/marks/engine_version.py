"""Identify the code that computes marks from a submission. Entry point: `engine_version`."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from autograder.submissions.client import READER

GRADER = "autograder.grading.grader"
CHECKS = "autograder.execution.checks"  # the module that hidden graders import
ROOT = Path(__file__).parents[2]  # the folder that contains the package `autograder`


@cache
def engine_version() -> str:
    """Return a hash of torch's version and of every module in this package that can affect marks.

    Raises:
        FileNotFoundError: An imported module has no file, so the hash would not cover the module's code.
    """
    digest = hashlib.sha256(version("torch").encode())
    for file in engine_files():
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def engine_files() -> list[Path]:
    """Return the files in this package that can affect marks, sorted.

    Raises:
        FileNotFoundError: An imported module has no file.
    """
    # The fork server starts its services by name, so the grader does not import them.
    sandbox = (ROOT / "autograder" / "sandbox").rglob("*.py")
    modules = (GRADER, CHECKS, READER)
    return sorted({*(file for module in modules for file in imported_files(module)), *sandbox})


def imported_files(module: str) -> list[Path]:
    """Return the files in this package that a module imports directly or indirectly, sorted.

    Raises:
        FileNotFoundError: An imported module has no file.
    """
    found: set[Path] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        # `from package import name` may import a module or an object that the package defines.
        file = _file(name) or _file(name.rpartition(".")[0])
        if file is None:
            raise FileNotFoundError(f"The module {name} has no file in {ROOT}.")
        if file not in found:
            found.add(file)
            pending += _imports(file)
            # Add the package that contains the file.
            pending.append(".".join(file.parent.relative_to(ROOT).parts))
    return sorted(found)


def _file(module: str) -> Path | None:
    place = ROOT / module.replace(".", "/")
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _imports(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autograder"):
            names += [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("autograder")]
    return names
