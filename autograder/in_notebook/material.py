"""Load a notebook's data: the list of exercises, the stand-ins, and the results of known mistakes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from autograder.in_notebook.checks import STAND_INS, STAND_INS_FILE, noted_stand_in
from autograder.in_notebook.helper_names import EXERCISES, HELPERS
from autograder.in_notebook.hints import OUTPUTS
from autograder.in_notebook.not_allowed import NOT_ALLOWED


def load_material(
    version: str,
    exercises: dict[str, tuple[str, float, int]],
    not_allowed: dict[str, list[str]],
    stand_ins: str,
    outputs: dict[str, Any],
    helpers: Sequence[str],
    outputs_version: str = "",
) -> None:
    """Load the notebook's exercises, stand-ins and results of known mistakes.

    `exercises` maps each name to its chapter, points and minutes. `not_allowed` maps exercises to the names that they
    forbid. `helpers` lists the names that the notebook's helpers use.
    """
    notebook = vars(sys.modules["__main__"])
    earlier = notebook.get("provided_version", version)
    notebook["provided_version"] = version
    if earlier != version:
        print(
            f"Version {version} of the provided code replaces version {earlier}, which ran before it. Use the cells of only "
            "one version: restart the kernel and run all cells of the notebook that you want to hand in."
        )
    EXERCISES.update(exercises)
    for name in helpers:
        if name in notebook:  # keep the object that was found when this cell first ran
            HELPERS.setdefault(name, notebook[name])
    NOT_ALLOWED.update({name: frozenset(names) for name, names in not_allowed.items()})
    OUTPUTS.update(outputs)
    loaded: dict[str, Any] = {}
    # Stand-ins call each other through the notebook, where a finished exercise replaces its stand-in.
    exec(compile(stand_ins, STAND_INS_FILE, "exec"), notebook, loaded)
    STAND_INS.update({n: noted_stand_in(n, loaded[n]) for n in exercises if n in loaded})
