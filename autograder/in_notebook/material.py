"""Load a notebook's data: the list of exercises, the stand-ins, and the results of known mistakes."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from typing import Any

from autograder.in_notebook.checks import STAND_INS, STAND_INS_FILE, noted_stand_in
from autograder.in_notebook.helper_names import EXERCISES, HELPERS
from autograder.in_notebook.hints import OUTPUTS
from autograder.in_notebook.not_allowed import NOT_ALLOWED


def pack(data: Any) -> str:
    """Return data as a compressed string."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpack(packed: str) -> Any:
    """Return the data in a compressed string."""
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def load_material(
    exercises: dict[str, tuple[str, float, int]],
    not_allowed: dict[str, str],
    stand_ins: str,
    outputs: str,
    helpers: str,
) -> None:
    """Load the notebook's exercises, compressed stand-ins and compressed results of known mistakes.

    `exercises` maps each name to its chapter, points and minutes. `not_allowed` maps exercises to the names that they
    forbid. `helpers` lists the names that the notebook's helpers use.
    """
    notebook = vars(sys.modules["__main__"])
    EXERCISES.update(exercises)
    for name in helpers.split():
        if name in notebook:  # keep the object that was found when this cell first ran
            HELPERS.setdefault(name, notebook[name])
    NOT_ALLOWED.update({name: frozenset(names.split()) for name, names in not_allowed.items()})
    OUTPUTS.update(unpack(outputs))
    loaded: dict[str, Any] = {}
    # Stand-ins call each other through the notebook, where a finished exercise replaces its stand-in.
    exec(compile(unpack(stand_ins), STAND_INS_FILE, "exec"), notebook, loaded)
    STAND_INS.update({n: noted_stand_in(n, loaded[n]) for n in exercises if n in loaded})
