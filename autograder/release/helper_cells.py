"""Generate the provided cell, which defines everything in a notebook that students do not write. Entry point: `provided_cell`."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from autograder.course.config import Day
from autograder.course.files import read_text
from autograder.course.provided import module_source, modules, provided_code
from autograder.execution.catalogue import known_mistakes
from autograder.release import texts

INTRODUCTION = """\
### Provided code

Run the next cell first: it defines the checks, the plots and `progress()`, whose code `progress??` shows."""
SECTION = "helper"  # the cell's ID is helper-2
# After the call of a check. If the check is not defined, the error shows this line.
ORIGIN = '  # from the cell "Provided code"'
CELL = """\
# @title Provided code
def run_provided(version, packed):
    import __future__, base64, json, linecache, zlib
    code, material = json.loads(zlib.decompress(base64.b64decode(packed)))
    for name, source in code.items():
        file = f"<provided: {{name}}>"
        linecache.cache[file] = len(source), None, source.splitlines(True), file
        exec(compile(source, file, "exec", __future__.annotations.compiler_flag), globals())
    load_material(version, **material)

run_provided("{version}", "{packed}")"""
PACKED = re.compile(r'^run_provided\("\w+", "([\w+/=]+)"\)$', re.MULTILINE)


def provided_cell(day: Day, outputs: Mapping[str, Any]) -> str:
    """Return the source of the provided cell: the day's provided code, its exercises, its stand-ins and `outputs`."""
    code: dict[str, str] = {}
    for name, source in provided_code(day):
        code[name] = f"{code[name]}\n\n\n{source}" if name in code else source
    stand_ins = read_text(day.stand_ins) if day.stand_ins.is_file() else ""
    minutes = texts.exercise_minutes(day)
    titles = {chapter.name: texts.title(chapter) for chapter in day.chapters}
    forbidden = {
        e.name: [name for name in e.forbidden.names if not name.startswith("_")]
        for e in day.exercises
    }
    material = {
        "exercises": {
            e.name: (titles[e.chapter], e.credit, minutes[e.name]) for e in day.exercises
        },
        "not_allowed": {name: names for name, names in forbidden.items() if names},
        "stand_ins": _without_docstring(stand_ins),
        "outputs": outputs,
        "outputs_version": outputs_version(day),
        "helpers": sorted(_helper_names(day)),
    }
    return packed_cell(code, material)


def packed_cell(code: Mapping[str, str], material: Mapping[str, Any]) -> str:
    """Return the source of a provided cell with this code and material. `unpacked` is the inverse."""
    text = json.dumps((code, material), separators=(",", ":"), ensure_ascii=False)
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return CELL.format(version=hashlib.sha256(packed.encode()).hexdigest()[:12], packed=packed)


def unpacked(source: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the code and the material in a cell's source. Both are empty if it is not a provided cell."""
    found = PACKED.search(source)
    if found is None:
        return {}, {}
    code, material = json.loads(zlib.decompress(base64.b64decode(found[1])))
    return code, material


def recorded_outputs(source: str, day: Day) -> dict[str, Any] | None:
    """Return the results of known mistakes in a cell's source, or None if they are missing or out of date."""
    _, material = unpacked(source)
    is_current = material.get("outputs_version") == outputs_version(day)
    return material["outputs"] if is_current else None


def outputs_version(day: Day) -> str:
    """Return a hash of everything that affects the results of known mistakes."""
    digest = hashlib.sha256((module_source("hints") + module_source("checks")).encode())
    constant = set[str]()
    for cell in (cell for chapter in day.chapters for cell in chapter.cells):
        if cell.role in ("exercise", "checks", "given", "support"):
            digest.update(cell.source.encode() + b"\0")
        if cell.role == "exercise" and cell.is_constant:
            constant.add(cell.name)
    for name, mistakes in known_mistakes(day).items():
        if name not in constant:  # their results are not recorded
            digest.update(repr(mistakes).encode())
    return digest.hexdigest()[:12]


def _helper_names(day: Day) -> set[str]:
    """Return the names that the modules of the provided code use."""
    used = [importlib.import_module(f"autograder.in_notebook.{name}") for name in modules(day)]
    # pytest adds names that are not identifiers.
    names = {name for module in used for name in vars(module) if name.isidentifier()}
    return {name for name in names if not name.startswith("__")} - {"annotations"}


def _without_docstring(source: str) -> str:
    """Remove a module's docstring and imports. The notebook already contains the imports."""
    source = re.sub(r'\A""".*?"""\n', "", source, flags=re.DOTALL)
    return re.sub(r"^(from|import) .*\n", "", source, flags=re.MULTILINE)
