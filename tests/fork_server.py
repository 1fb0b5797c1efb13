"""Find and kill fork servers and the processes that they forked."""

from __future__ import annotations

import os
import select
import subprocess

from autograder.protocol.limits import Limits
from autograder.sandbox.client import Server
from autograder.sandbox.command import READER


def process_of(server: Server) -> subprocess.Popen[bytes]:
    """Return the process of a server that is not a duplicate."""
    process = server._launched.process
    assert process is not None
    return process


def kill(server: Server) -> None:
    """Kill a server that is not a duplicate, and wait until it can start no more processes."""
    process_of(server).kill()
    process_of(server).wait()
    poll = select.poll()
    poll.register(server._control, 0)
    assert poll.poll(10_000)


def start_process(server: Server) -> int:
    """Start a sandboxed process and return a pidfd, which becomes readable when the process has ended."""
    wire, number = server.start(Limits(5.0, 5.0, 1 << 30), service=READER)
    wire.detach()  # the process ends when the wire is closed
    return os.dup(server._running[number])


def has_ended(pidfd: int, seconds: float) -> bool:
    """Return whether a process ends within some time."""
    return bool(select.select([pidfd], [], [], seconds)[0])
