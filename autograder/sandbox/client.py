"""Start, watch and stop sandboxed processes through a fork server. Entry point: `Server`."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import select
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeVar

import msgspec

from autograder.protocol.limits import Limits
from autograder.sandbox import control
from autograder.sandbox.clock import Clock
from autograder.sandbox.command import GRADING, LAYERS, WORKER
from autograder.sandbox.errors import ADVICE, ATTEMPTS, NoIsolation, ServerLost
from autograder.sandbox.launch import STANDBY, LaunchedServer, launch

# Timeout in seconds for a server that hangs, long enough for busy machines. If the server exits, the client notices
# immediately.
START_SECONDS = 300.0
Sandbox = Literal["required", "none"]
T = TypeVar("T", control.Ready, control.Started, control.Stopped)


@dataclass
class _Child:
    """A process requested from the fork server. `pidfd` is -1 until the server reports that the process is running."""

    request: control.Start
    wire: socket.socket
    pidfd: int = -1


class Server:
    """A running fork server. Each grader has its own server, which may be a duplicate of another server (see launch.py).

    Most of a worker's startup time is spent in the kernel, so the server forks the next worker while the current one
    runs.

    With `sandbox="required"`, no code runs unless probes confirm that files, network, processes and memory are
    isolated. With `"none"`, only the given `layers` confine the code (by default, only `limits`).
    """

    def __init__(
        self,
        sandbox: Sandbox = "required",
        layers: Sequence[str] | None = None,
        services: Sequence[str] = (WORKER,),
    ) -> None:
        self._required = sandbox == "required"
        # Pidfds and /proc are needed even without isolation.
        if not sys.platform.startswith("linux"):
            raise NoIsolation(
                "student code can only run on Linux. Run the grader in the container that SECURITY.md describes."
            )
        self._layers = list(
            layers if layers is not None else LAYERS if self._required else ["limits"]
        )
        self._services = list(services)
        self._prepared: list[control.Prepare] = []
        # Process numbers are unique across restarts of the server.
        self._numbers = itertools.count(1)
        self._use(STANDBY.connect(self._services, self._layers) or self._launch())

    @property
    def isolation(self) -> list[str]:
        """Wait until the server is ready and return the isolation layers that it uses.

        Raises:
            NoIsolation: The layers do not isolate student code.
            ServerLost: Several servers in a row exited during startup.
        """
        for _ in range(ATTEMPTS):
            try:
                return list(self._await_ready().layers)
            except (OSError, msgspec.MsgspecError):
                self._replace()
        raise ServerLost

    def _launch(self) -> LaunchedServer:
        return launch(self._services, self._layers)

    def _use(self, launched: LaunchedServer) -> None:
        self._launched = launched
        self._control = launched.control
        self._control.settimeout(START_SECONDS)
        self._is_up = False
        self._ready: control.Ready | None = None
        self._ahead: _Child | None = None
        self._running: dict[int, int] = {}  # pidfds by process number
        for request in self._prepared:
            self._send(request)

    def prepare(self, service: str, data: bytes) -> None:
        """Pass trusted data to a service before forking its processes. A replacement server receives the same data.

        Raises:
            ValueError: The server does not offer this service.
        """
        if service not in self._services:
            raise ValueError(f"this fork server does not offer {service}, only {self._services}")
        request = control.Prepare(service, data)
        self._prepared.append(request)
        self._send(request)

    def _send(self, request: control.Control) -> None:
        # The next call to `start` replaces a server that has exited.
        with contextlib.suppress(OSError):
            self._control.send(msgspec.msgpack.encode(request))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _replace(self) -> None:
        """Close this server, which kills all its processes, and start a new one."""
        self.close()
        self._use(self._launch())

    def close(self) -> None:
        """Stop the server and every process that it forked."""
        if self._ahead is not None:
            self._ahead.wire.close()
        while self._running:
            os.close(self._running.popitem()[1])
        self._launched.close(self._is_up)

    def start(self, limits: Limits, service: str = WORKER) -> tuple[socket.socket, int]:
        """Fork a sandboxed process for a service. Return the grader's end of the process's socket and the process's number.

        Raises:
            NoIsolation: The sandbox could not be set up, and no process was started.
            ServerLost: Several servers in a row exited.
        """
        # The margin ensures that the grader's own deadline passes first, because its error message is more precise.
        seconds = math.ceil(limits.total_cpu_seconds) + 5
        kind = control.Start(0, service, limits.memory, seconds)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._await_ready()
                if self._has_hung_up():  # the server's processes died with it
                    raise ConnectionError("the fork server exited")
                child = self._take_child(kind)
                if not _has_ended(child.pidfd):
                    return child.wire, child.request.number
                # No student code has run in this process yet, so the process or the server was killed externally.
                self.stop(child.request.number)
                child.wire.close()
            except NoIsolation:
                # The server was ready, so the cause may be temporary, such as too little memory for another process.
                if self._ready is None or attempt == ATTEMPTS:
                    raise
                self._replace()
            except (OSError, msgspec.MsgspecError):
                self._replace()
        raise ServerLost

    def _take_child(self, kind: control.Start) -> _Child:
        """Return a running process: the one forked in advance if it matches the request, otherwise a new one."""
        ahead = self._ahead
        if ahead is not None:
            self._await_started(ahead)  # its report arrives before any other
        if kind.service != WORKER:
            return self._await_started(self._request_child(kind))
        self._ahead = None
        if ahead is not None and _without_number(ahead.request) != kind:
            ahead.wire.close()
            self.stop(ahead.request.number)
            ahead = None
        child = ahead or self._await_started(self._request_child(kind))
        self._ahead = self._request_child(kind)
        return child

    def _request_child(self, kind: control.Start) -> _Child:
        ours, theirs = socket.socketpair()
        request = msgspec.structs.replace(kind, number=next(self._numbers))
        with theirs:
            socket.send_fds(self._control, [msgspec.msgpack.encode(request)], [theirs.fileno()])
        return _Child(request, ours)

    def _await_started(self, child: _Child) -> _Child:
        """Wait until the server reports that a requested process has started, and return that process."""
        if child.pidfd < 0:
            try:
                self._receive_report(control.Started)
            except NoIsolation:
                child.wire.close()
                if child is self._ahead:
                    self._ahead = None
                raise
            child.pidfd = self._received
            self._running[child.request.number] = child.pidfd
        return child

    def clock(self, number: int) -> Clock:
        """Return a clock for a process's CPU time and run-queue time, as measured by the kernel.

        Raises:
            ServerLost: The process died along with its server.
        """
        if number not in self._running:
            raise ServerLost
        return Clock(self._running[number], lambda: self.serves(number))

    def serves(self, number: int) -> bool:
        """Return whether the server that forked this process is still running."""
        return number in self._running and not self._has_hung_up()

    def _has_hung_up(self) -> bool:
        """Return whether the server has exited."""
        return _has_ended(self._control.fileno(), select.POLLHUP)

    def stop(self, number: int) -> None:
        """Kill a process and everything that it started, without waiting for it to exit."""
        pidfd = self._running.pop(number, -1)
        if pidfd >= 0:
            os.close(pidfd)
            self._send(control.Stop(number, wait=False))

    def end(self, number: int) -> control.Stopped:
        """Kill a process, wait for it to exit, and return its exit code and CPU time.

        Raises:
            ServerLost: The server has exited, so it is unknown how the process ended.
        """
        if number not in self._running:
            raise ServerLost
        try:
            if self._ahead is not None:
                with contextlib.suppress(NoIsolation):  # the next call to `start` raises this error
                    self._await_started(self._ahead)  # its report arrives before any other
            os.close(self._running.pop(number))
            self._control.send(msgspec.msgpack.encode(control.Stop(number, wait=True)))
            return self._receive_report(control.Stopped)
        except (OSError, msgspec.MsgspecError):
            self._replace()
            raise ServerLost from None

    def _await_ready(self) -> control.Ready:
        if self._ready is None:
            ready = self._receive_report(control.Ready)
            self._is_up = True
            if self._required and ready.unblocked:
                self.close()
                raise NoIsolation(_isolation_problem(ready))
            self._ready = ready
        return self._ready

    def _receive_report(self, kind: type[T]) -> T:
        data, descriptors, _, _ = socket.recv_fds(self._control, control.MAX_CONTROL, 1)
        self._received = descriptors[0] if descriptors else -1
        if not data:
            raise ConnectionError("the fork server exited")
        report = control.REPORT.decode(data)
        if isinstance(report, control.Refused):
            raise NoIsolation(f"the sandbox could not be set up: {report.reason}. {ADVICE}")
        if not isinstance(report, kind):
            raise ConnectionError("the fork server sent an unexpected report")
        return report


def _without_number(request: control.Start) -> control.Start:
    """Return a copy of the request with its number set to 0."""
    return msgspec.structs.replace(request, number=0)


def _has_ended(descriptor: int, event: int = select.POLLIN) -> bool:
    """Return whether a process has ended, or the other end of a socket has been closed."""
    poll = select.poll()
    poll.register(descriptor, event)
    return any(seen & event for _, seen in poll.poll(0))


def _isolation_problem(ready: control.Ready) -> str:
    text = f"student code would not be isolated on this machine. These attempts were not blocked: {'; '.join(ready.unblocked)}."
    if ready.refused:
        layers = "; ".join(f"{layer} ({reason})" for layer, reason in ready.refused.items())
        text += f" Layers that this machine does not support: {layers}."
    return f"{text} {ADVICE}"


def start_server(sandbox: Sandbox = "required", layers: Sequence[str] | None = None) -> Server:
    """Start a fork server that can slice students' notebooks and run their code.

    Raises:
        NoIsolation: This machine does not run Linux.
    """
    return Server(sandbox, layers, GRADING)
