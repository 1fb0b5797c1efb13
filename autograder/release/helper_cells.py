"""Generate the code cells that the release adds to a notebook: helper code and data. Entry points: `helpers`, `data`."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType

from autograder.course.config import Day
from autograder.course.files import read_text
from autograder.in_notebook import (
    checks,
    error_advice,
    helper_names,
    hints,
    inputs,
    material,
    not_allowed,
    progress,
)
from autograder.recognition.catalogue import known_mistakes
from autograder.release import texts

HELPERS = (helper_names, hints, not_allowed, error_advice, checks, inputs, progress, material)
INTRODUCTION = f"""\
### Provided code

Run the next {len(HELPERS) + 1} cells. They define functions that run the checks, give hints on common mistakes, and
show your progress. They also provide stand-ins for exercises that you have not finished. You do not have to read the code."""
OWN_IMPORT = re.compile(r"^from (?:__future__|autograder)\b[^(\n]*(?:\([^)]*\))?\n", re.MULTILINE)
SECTION = "helper"  # cell IDs are helper-1, helper-2, …
OUTPUTS = re.compile(r'outputs="""([\w+/=\s]+)"""')
STAND_INS = re.compile(r'stand_ins="""([\w+/=\s]+)"""')
WIDTH = 100  # characters per line of packed data
DATA = """\
# Version {version}
load_material(
    exercises={{
{exercises}
    }},
    not_allowed={{
{not_allowed}
    }},
    stand_ins=\"\"\"
{stand_ins}
    \"\"\",
    outputs=\"\"\"
{outputs}
    \"\"\",
    helpers=\"\"\"
{helpers}
    \"\"\",
)"""


def helpers() -> Iterator[str]:
    """Yield the source of each helper module as a notebook cell, without imports from this package."""
    return map(_cell_source, HELPERS)


def data(day: Day, outputs: str) -> str:
    """Return the source of the notebook cell that contains a day's exercises, stand-ins and packed results (`outputs`)."""
    stand_ins = read_text(day.stand_ins) if day.stand_ins.is_file() else ""
    minutes = texts.exercise_minutes(day)
    titles = {
        chapter.name: json.dumps(texts.title(chapter), ensure_ascii=False)
        for chapter in day.chapters
    }
    exercises = [
        f'        "{e.name}": ({titles[e.chapter]}, {e.credit:.12g}, {minutes[e.name]}),'
        for e in day.exercises
    ]
    forbidden = {
        e.name: [name for name in e.forbidden.names if not name.startswith("_")]
        for e in day.exercises
    }
    # pytest adds names that are not identifiers.
    names = {name for module in HELPERS for name in vars(module) if name.isidentifier()}
    names = {name for name in names if not name.startswith("__")} - {"annotations"}
    return DATA.format(
        version=version(day),
        exercises="\n".join(exercises),
        not_allowed="\n".join(
            f'        "{name}": "{" ".join(names)}",' for name, names in forbidden.items() if names
        ),
        stand_ins=_wrapped(material.pack(_without_docstring(stand_ins))),
        outputs=_wrapped(outputs or material.pack({})),
        helpers=_wrapped(" ".join(sorted(names))),
    )


def packed_outputs(source: str, day: Day) -> str:
    """Extract the packed results of known mistakes from a notebook cell. Return "" if they are missing or out of date."""
    found = OUTPUTS.search(source)
    if found is None or f"# Version {version(day)}\n" not in source:
        return ""
    return "".join(found[1].split())


def packed_stand_ins(source: str) -> str:
    """Extract the stand-ins' code from a notebook cell. Return "" if the cell has none."""
    found = STAND_INS.search(source)
    return str(material.unpack(found[1])) if found else ""


def version(day: Day) -> str:
    """Return a hash of everything that affects the results of known mistakes."""
    digest = hashlib.sha256((_cell_source(hints) + _cell_source(checks)).encode())
    for cell in (cell for chapter in day.chapters for cell in chapter.cells):
        if cell.role in ("exercise", "checks", "given"):
            digest.update(cell.source.encode() + b"\0")
    for mistakes in known_mistakes(day).values():
        digest.update(repr(mistakes).encode())
    return digest.hexdigest()[:12]


def _cell_source(module: ModuleType) -> str:
    source = inspect.getsource(module)
    source = OWN_IMPORT.sub("", source)
    return re.sub(r"\n{4,}", "\n\n\n", source).strip()


def _without_docstring(source: str) -> str:
    """Remove a module's docstring and imports. The notebook already contains the imports."""
    source = re.sub(r'\A""".*?"""\n', "", source, flags=re.DOTALL)
    return re.sub(r"^(from|import) .*\n", "", source, flags=re.MULTILINE)


def _wrapped(packed: str) -> str:
    return textwrap.fill(packed, WIDTH, initial_indent="    ", subsequent_indent="    ")
