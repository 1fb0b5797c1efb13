"""Launch fork servers. Entry points: `launch`, and `STANDBY` for a server launched before it is needed.

A fork server takes longer to start and needs more memory than any other part of a command. `autograder grade` therefore
launches one before its own imports. Each of the command's processes connects to this server, which forks a duplicate of
itself for each connection. Without such a server, each process launches its own.
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

from autograder.sandbox.command import ENVIRONMENT, GRADING, LAYERS, SERVER

CLOSE_SECONDS = 5.0  # time for a server to end its processes before it is killed


@dataclass(frozen=True)
class LaunchedServer:
    """A fork server that may still be starting: the grader's end of its control socket, and its process.

    The process is None for a duplicate of the server on standby.
    """

    control: socket.socket
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


def launch(
    services: Sequence[str], layers: Sequence[str], listener: socket.socket | None = None
) -> LaunchedServer:
    """Launch a fork server for the given services with the given sandbox layers.

    The server forks a duplicate of itself for each connection that it accepts on `listener`.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        descriptors = [each.fileno() for each in (theirs, listener) if each]
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-c", SERVER, ",".join(map(str, descriptors))),
                *(",".join(services), *layers),
            ],
            env=ENVIRONMENT,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
    return LaunchedServer(ours, process)


class Standby:
    """At most one fork server, which uses all sandbox layers and offers all services needed for grading.

    `address` is the path at which it accepts connections, or "" if there is no server.
    """

    def __init__(self) -> None:
        self.address = ""
        self._server: LaunchedServer | None = None

    def launch(self) -> None:
        """Launch the server. It never receives Ctrl-C."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            folder = f"/tmp/.autograder-server-{os.urandom(16).hex()}"
            os.mkdir(folder, 0o700)  # no other user can connect
            self.address = f"{folder}/socket"
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(self.address)
                listener.listen()
                self._server = launch(GRADING, LAYERS, listener)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def connect(self, services: Sequence[str], layers: Sequence[str]) -> LaunchedServer | None:
        """Return a duplicate of the server. Return None if it has exited or does not match, or if there is no server."""
        if not self.address or not {*services} <= {*GRADING} or [*layers] != [*LAYERS]:
            return None
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            control.connect(self.address)
        except OSError:
            control.close()
            return None
        return LaunchedServer(control)

    def discard(self) -> None:
        """Stop the server, its duplicates and all their processes."""
        if self._server is not None:
            has_reported = bool(select.select([self._server.control], [], [], 0)[0])
            self._server.close(is_up=has_reported)
            self._server = None
        if self.address:
            with contextlib.suppress(OSError):
                os.unlink(self.address)
                os.rmdir(os.path.dirname(self.address))
            self.address = ""


STANDBY = Standby()
