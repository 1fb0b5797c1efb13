"""Start the fork server that grading needs. Entry point: `start_server`."""

from __future__ import annotations

from collections.abc import Sequence

from autograder.sandbox.client import Sandbox, Server
from autograder.sandbox.command import GRADING


def start_server(sandbox: Sandbox = "required", layers: Sequence[str] | None = None) -> Server:
    """Start a fork server that can slice students' notebooks and run their code.

    Raises:
        NoIsolation: This machine does not run Linux.
    """
    return Server(sandbox, layers, GRADING)
