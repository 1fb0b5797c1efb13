"""Launch fork servers. Entry points: `launch`, and `STANDBY` for a server that is launched before it is needed.

A fork server takes longer to start than anything else in a command, so a command that grades launches one first.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from autograder.sandbox.command import ENVIRONMENT, GRADING, LAYERS, SERVER


class AdoptedProcess:
    """A fork server that another process launched, with the methods of `subprocess.Popen` that `Server` calls."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return None while the server is running, and 0 once it has exited. Only its parent learns the exit code."""
        return 0 if self._has_ended(0.0) else None

    def kill(self) -> None:
        """Kill the server."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the server has exited.

        Raises:
            subprocess.TimeoutExpired: The server is still running after `timeout` seconds.
        """
        if not self._has_ended(timeout):
            raise subprocess.TimeoutExpired("the fork server", timeout or 0.0)
        return 0

    def _has_ended(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))


@dataclass(frozen=True)
class LaunchedServer:
    """A fork server that may still be starting: its process, and the grader's end of its control socket."""

    process: subprocess.Popen[bytes] | AdoptedProcess
    control: socket.socket
    services: Sequence[str]
    layers: Sequence[str]

    @classmethod
    def adopt(
        cls, pid: int, control: socket.socket, services: Sequence[str], layers: Sequence[str]
    ) -> Self:
        """Return a server that another process launched."""
        return cls(AdoptedProcess(pid), control, services, layers)


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
    return LaunchedServer(process, ours, tuple(services), tuple(layers))


class Standby:
    """Holds at most one fork server that was launched before it is needed.

    Pickling this object for a new process moves the server there. Later copies are empty.
    """

    def __init__(self) -> None:
        self._launched: LaunchedServer | None = None
        self._moved: LaunchedServer | None = None

    def launch(self) -> None:
        """Launch a server for grading in the full sandbox. It never receives Ctrl-C."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._launched = launch(GRADING, LAYERS)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def take(self, services: Sequence[str], layers: Sequence[str]) -> LaunchedServer | None:
        """Return the server if it has these services and layers. The caller then owns it."""
        found = self._launched
        if found is None or (found.services, found.layers) != (tuple(services), tuple(layers)):
            return None
        self._launched = None
        return found

    def receive(self, other: Standby) -> None:
        """Take over another object's server."""
        self._launched, other._launched = other._launched, None

    def forget_moved(self) -> None:
        """Close this process's end of a server that was moved. Call this once the other process has started."""
        if self._moved is not None:
            self._moved.control.close()

    def discard(self) -> None:
        """Kill the server if it was neither taken nor moved."""
        if self._launched is not None:
            self._launched.control.close()
            self._launched.process.kill()
            self._launched.process.wait()
            self._launched = None

    def __reduce__(self) -> tuple[Any, ...]:
        launched, self._launched = self._launched, None
        if launched is None:
            return Standby, ()
        self._moved = launched  # its process must not be reaped, and its socket is still needed
        return _with_server, (
            launched.process.pid,
            launched.control,
            launched.services,
            launched.layers,
        )


def _with_server(*launched: Any) -> Standby:
    standby = Standby()
    # If the server cannot be adopted, this process will launch another one.
    with contextlib.suppress(OSError, AttributeError):
        standby._launched = LaunchedServer.adopt(*launched)
    return standby


STANDBY = Standby()
