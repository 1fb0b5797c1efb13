"""The grader's end of the fork server: starts it, and has processes started and stopped."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeVar

import msgspec

from autograder.sandbox import control
from autograder.sandbox.control import LAYERS, WORKER

START_SECONDS = 60.0
ADVICE = (
    "Run the grader on Linux 6.2 or later, or in the container that SECURITY.md describes; "
    "`autograder doctor` shows what is missing."
)
T = TypeVar("T", control.Ready, control.Started, control.Stopped)


@dataclass(frozen=True)
class Limits:
    """Of one process: seconds for a call, seconds for all calls, bytes of memory, characters of output."""

    seconds: float
    total_seconds: float
    memory: int
    output: int


Sandbox = Literal["required", "none"]


class NoIsolation(Exception):
    """What this machine gives is not enough to run code that nobody trusts; the text says what is missing and what to do."""


@dataclass
class _Ahead:
    """A process that was asked for ahead of its use; `pid` is 0 until the server has reported it."""

    request: control.Start
    wire: socket.socket
    pid: int = 0


class Server:
    """A running fork server; one for each process of the grader.

    While one process works the next is forked already, as most of its start is spent in the kernel.

    `sandbox="required"` runs nothing unless files, network, processes and memory are seen to be isolated; `"none"` runs with
    the `layers` given, by default limits alone.
    """

    def __init__(
        self,
        sandbox: Sandbox = "required",
        layers: Sequence[str] | None = None,
        services: Sequence[str] = (WORKER,),
    ) -> None:
        self._required = sandbox == "required"
        if self._required and not sys.platform.startswith("linux"):
            raise NoIsolation(f"student code is isolated with means of Linux only. {ADVICE}")
        self._layers = list(
            layers if layers is not None else LAYERS if self._required else ["limits"]
        )
        self._services = list(services)
        self._prepared: list[control.Prepare] = []
        self.starts = 0  # more than one: it died and was replaced
        self._start()

    @property
    def isolation(self) -> list[str]:
        """The layers that hold what runs here; waits until the server knows.

        Raises:
            NoIsolation: they are not enough.
        """
        return list(self._await_ready().layers)

    def _start(self) -> None:
        self.starts += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-m", control.SERVER, str(theirs.fileno())),
                    *(",".join(self._services), *self._layers),
                ],
                env=control.ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
            )
        self._control = ours
        self._control.settimeout(START_SECONDS)
        self._ready: control.Ready | None = None
        self._ahead: _Ahead | None = None
        for request in self._prepared:
            self._send(request)

    def prepare(self, service: str, data: bytes) -> None:
        """Let a service of this server get ready with trusted data; a server that replaces this one gets it as well."""
        request = control.Prepare(service, data)
        self._prepared.append(request)
        self._send(request)

    def _send(self, request: control.Control) -> None:
        with contextlib.suppress(ConnectionError):  # the next start replaces the server
            self._control.send(msgspec.msgpack.encode(request))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server and everything that it started."""
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def start(self, limits: Limits, service: str = WORKER) -> tuple[socket.socket, int]:
        """Fork a process of a service behind the wall; return the grader's end of its wire, and its number.

        Raises:
            NoIsolation: there is no wall to be had, and nothing was started.
        """
        # Rounded up, as the grader's own deadline comes first and says more.
        seconds = math.ceil(limits.total_seconds) + 5
        request = control.Start(service, limits.memory, seconds, limits.output)
        for attempt in (1, 2):
            try:
                self._await_ready()
                if self._process.poll() is not None:  # what it forked ahead is dying with it
                    raise ConnectionError("the fork server ended")
                if service != WORKER:
                    return self._start_beside(request)
                if self._ahead is not None and self._ahead.request != request:
                    self._drop()
                started = self._ahead or self._ask_for(request)
                pid = self._reported(started)
                self._ahead = self._ask_for(request)
                return started.wire, pid
            except (OSError, msgspec.MsgspecError):
                self.close()
                if attempt == 2:
                    raise
                self._start()
        raise AssertionError("unreachable")

    def _start_beside(self, request: control.Start) -> tuple[socket.socket, int]:
        """Start a process that none was forked ahead for, and keep the one that was."""
        ahead = self._ahead
        if ahead is not None:
            self._reported(ahead)  # its report comes first
        started = self._ask_for(request)
        pid = self._reported(started)
        self._ahead = ahead
        return started.wire, pid

    def _ask_for(self, request: control.Start) -> _Ahead:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [msgspec.msgpack.encode(request)], [theirs.fileno()])
        return _Ahead(request, ours)

    def _reported(self, process: _Ahead) -> int:
        """The number of a process that was asked for."""
        if not process.pid:
            self._ahead = None
            process.pid = self._report(control.Started).pid
        return process.pid

    def _drop(self) -> None:
        process, self._ahead = self._ahead, None
        if process is not None:
            process.wire.close()
            self.stop(self._reported(process), wait=False)

    def stop(self, pid: int, wait: bool) -> int:
        """Kill a process and all that it started; its exit code, or minus the signal if it need not be awaited."""
        try:
            if wait and self._ahead is not None:
                ahead = self._ahead  # its report comes before that of the stop
                self._reported(ahead)
                self._ahead = ahead
            self._control.send(msgspec.msgpack.encode(control.Stop(pid, wait)))
            return self._report(control.Stopped).code if wait else -signal.SIGKILL
        except (OSError, msgspec.MsgspecError):
            self.close()
            self._start()
            return -signal.SIGKILL

    def _await_ready(self) -> control.Ready:
        if self._ready is None:
            ready = self._report(control.Ready)
            if self._required and ready.holes:
                self.close()
                raise NoIsolation(_missing(ready))
            self._ready = ready
        return self._ready

    def _report(self, kind: type[T]) -> T:
        data = self._control.recv(control.MAX_CONTROL)
        if not data:
            raise ConnectionError("the fork server ended")
        report = control.REPORT.decode(data)
        if isinstance(report, control.Refused):
            raise NoIsolation(f"a process could not be walled in: {report.reason}. {ADVICE}")
        if not isinstance(report, kind):
            raise ConnectionError("the fork server is out of step")
        return report


def _missing(ready: control.Ready) -> str:
    holes = "; ".join(ready.holes)
    refused = "; ".join(f"no {layer} ({reason})" for layer, reason in ready.refused.items())
    why = f" This machine gives {refused}." if refused else ""
    return f"student code would not be isolated here. Behind the wall it {holes}.{why} {ADVICE}"


def cpu_count() -> int:
    """The processors that this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
