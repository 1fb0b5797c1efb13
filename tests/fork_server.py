"""Find the process of a fork server, to kill or inspect it."""

from __future__ import annotations

import subprocess

from autograder.sandbox.client import Server


def process_of(server: Server) -> subprocess.Popen[bytes]:
    """Return the process of a server that is not a duplicate."""
    process = server._launched.process
    assert process is not None
    return process
