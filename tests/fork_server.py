"""Find and kill fork servers and the processes that they forked."""

from __future__ import annotations

import os
import select
import subprocess

from autograder.protocol.limits import Limits
from autograder.sandbox.client import Server
from autograder.sandbox.command import READER


def process_of(server: Server) -> subprocess.Popen[bytes]:
    """Return a fork server's process. The server must not be a duplicate of another server."""
    process = server._launched.process
    assert process is not None
    return process


def kill(server: Server) -> None:
    """Kill a fork server, which must not be a duplicate, and wait until it can no longer start processes."""
    process_of(server).kill()
    process_of(server).wait()
    poll = select.poll()
    poll.register(server._control, 0)
    assert poll.poll(10_000)


class SandboxedProcess:
    """A reader process, which ends when this object is deleted."""

    def __init__(self, server: Server) -> None:
        self._wire, number = server.start(Limits(5.0, 5.0, 1 << 30), service=READER)
        self._pidfd = os.dup(server._running[number])

    def __del__(self) -> None:
        os.close(self._pidfd)

    def has_ended(self, seconds: float) -> bool:
        """Return whether the process ends within this many seconds."""
        return bool(select.select([self._pidfd], [], [], seconds)[0])
