"""Launch fork servers. Entry points: `launch`, and `STANDBY` for a server launched before it is needed.

A fork server takes longer to start and needs more memory than any other part of a command. `autograder grade` therefore
launches one before its own imports and gives each of its processes a duplicate of the server. If no standby
server is running, each process launches its own server.
"""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autograder.sandbox.command import ENVIRONMENT, GRADING, LAYERS, SERVER

CLOSE_SECONDS = 5.0  # time for a server to end its processes before it is killed


@dataclass(frozen=True)
class LaunchedServer:
    """A fork server that may still be starting: the grader's end of its control socket, and its process.

    The process is None for a duplicate of a server that another process launched.
    """

    control: socket.socket
    services: Sequence[str]
    layers: Sequence[str]
    process: subprocess.Popen[bytes] | None = None

    def close(self, is_up: bool) -> None:
        """Stop the server and every process that it forked."""
        self.control.close()
        if self.process is None:  # the duplicate exits because the socket is closed
            return
        if not is_up:  # the server does not read its control socket until it is up
            self.process.kill()
        try:
            self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def launch(services: Sequence[str], layers: Sequence[str]) -> LaunchedServer:
    """Launch a fork server for the given services with the given sandbox layers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-c", SERVER, str(theirs.fileno())),
                *(",".join(services), *layers),
            ],
            env=ENVIRONMENT,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
    return LaunchedServer(ours, tuple(services), tuple(layers), process)


class Standby:
    """A slot for at most one fork server, which uses all sandbox layers and offers all services needed for grading.

    Pickling this object for a new process gives that process a duplicate of the server.
    """

    def __init__(self, held: LaunchedServer | None = None) -> None:
        self._held = held
        self._sent: list[socket.socket] = []

    def launch(self) -> None:
        """Launch the server. It never receives Ctrl-C."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._held = launch(GRADING, LAYERS)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def take(self, services: Sequence[str], layers: Sequence[str]) -> LaunchedServer | None:
        """Return a duplicate of the server. If this object came from another process, return the server itself.

        Return None if there is no server, if it has exited, or if its services or layers do not match.
        """
        held = self._held
        if held is None or not set(services) <= {*held.services} or [*layers] != [*held.layers]:
            return None
        if held.process is not None:
            return _duplicate(held)
        self._held = None
        return held

    def receive(self, other: Standby) -> None:
        """Take ownership of the server held by another object."""
        self._held, other._held = other._held, None

    def close_sent(self) -> None:
        """Close this process's copies of the pickled sockets. Call this once the new process has started."""
        while self._sent:
            self._sent.pop().close()

    def discard(self) -> None:
        """Stop the server, its duplicates and all their processes."""
        if self._held is not None:
            self._held.close(is_up=_has_reported(self._held.control))
            self._held = None

    def __reduce__(self) -> tuple[Any, ...]:
        made = _duplicate(self._held) if self._held is not None else None
        if made is None:
            return Standby, ()
        self._sent.append(made.control)
        return _receive, (made.control, made.services, made.layers)


def _duplicate(server: LaunchedServer) -> LaunchedServer | None:
    """Request a duplicate of a server. Return None if the server has exited."""
    from autograder.sandbox.control import ENCODE, Duplicate  # slower to import than the rest

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            socket.send_fds(server.control, [ENCODE(Duplicate())], [theirs.fileno()])
        except OSError:
            ours.close()
            return None
    return LaunchedServer(ours, server.services, server.layers)


def _receive(control: socket.socket, services: Sequence[str], layers: Sequence[str]) -> Standby:
    return Standby(LaunchedServer(control, services, layers))


def _has_reported(control: socket.socket) -> bool:
    return bool(select.select([control], [], [], 0)[0])


STANDBY = Standby()
