"""Find out which sandbox layers this machine supports. Entry point: `refused_layers`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from autograder.sandbox.command import LAYERS
from autograder.sandbox.walls import landlock
from autograder.sandbox.walls.child_process import error_in_child
from autograder.sandbox.walls.wall import Wall


def refused_layers(layers: Sequence[str] = LAYERS) -> dict[str, str]:
    """Return the layers that this machine does not support, with reasons. Each layer is tried separately in a child process."""
    found = {layer: _refusal(layer) for layer in layers}
    refused = {layer: reason for layer, reason in found.items() if reason}
    if "namespaces" in refused and "landlock" in layers and "landlock" not in refused:
        version = landlock.version()
        if version < landlock.SUFFICIENT_SINCE:
            refused["landlock"] = f"version {version} is too old to be used without namespaces"
    return refused


def _refusal(layer: str) -> str:
    return error_in_child(lambda: _put_up(layer))


def _put_up(layer: str) -> None:
    wall = Wall([layer])
    try:
        wall.enclose_server()
        pid = wall.fork(os.open(os.devnull, os.O_RDWR), 1 << 30, 60)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        wall.forget(pid)
    finally:
        wall.close()
