"""The grader's end of the fork server: starts it, and has processes started and stopped."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeVar

import msgspec

from autograder.protocol.limits import Limits
from autograder.sandbox import control
from autograder.sandbox.clock import Clock
from autograder.sandbox.control import LAYERS, WORKER

# Only a server that hangs is waited for so long: one that ends is seen at once, and a busy machine is slow.
START_SECONDS = 300.0
STARTS = 4
ADVICE = (
    "Run the grader on Linux 6.2 or later, or in the container that SECURITY.md describes; "
    "`autograder doctor` shows what is missing."
)
T = TypeVar("T", control.Ready, control.Started, control.Stopped)
R = TypeVar("R")


Sandbox = Literal["required", "none"]


class NoIsolation(Exception):
    """What this machine gives is not enough to run code that nobody trusts; the text says what is missing and what to do."""


class ServerLost(Exception):
    """The fork server ended, and the process with it, through no fault of the code in the process."""

    def __init__(self) -> None:
        super().__init__("the fork server of the sandbox ended")


def surviving(work: Callable[[], R]) -> R:
    """Do work that starts its own processes, again on a new server where one is lost.

    Raises:
        ServerLost: several servers were lost in a row.
    """
    for _ in range(STARTS - 1):
        with contextlib.suppress(ServerLost):
            return work()
    return work()


@dataclass
class _Child:
    """A process that was asked for; `pidfd` is -1 until the server has reported it."""

    request: control.Start
    wire: socket.socket
    pidfd: int = -1


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
        # No process of a later server has the number of an earlier one's.
        self._numbers = itertools.count(1)
        self._start()

    @property
    def isolation(self) -> list[str]:
        """The layers that hold what runs here; waits until the server knows.

        Raises:
            NoIsolation: they are not enough.
            ServerLost: several servers ended while they started.
        """
        for _ in range(STARTS):
            try:
                return list(self._await_ready().layers)
            except (OSError, msgspec.MsgspecError):
                self._replace()
        raise ServerLost

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-c", control.SERVER, str(theirs.fileno())),
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
        self._is_up = False
        self._ready: control.Ready | None = None
        self._ahead: _Child | None = None
        self._running: dict[int, int] = {}  # pidfds by number
        for request in self._prepared:
            self._send(request)

    def prepare(self, service: str, data: bytes) -> None:
        """Let a service of this server get ready with trusted data; a server that replaces this one gets it as well.

        Raises:
            ValueError: the server does not have this service.
        """
        if service not in self._services:
            raise ValueError(f"this fork server has no {service}; it has {self._services}")
        request = control.Prepare(service, data)
        self._prepared.append(request)
        self._send(request)

    def _send(self, request: control.Control) -> None:
        with contextlib.suppress(OSError):  # the next start replaces the server
            self._control.send(msgspec.msgpack.encode(request))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _replace(self) -> None:
        """Start another server; what the old one had started ends with it."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the server and everything that it started."""
        self._control.close()
        if self._ahead is not None:
            self._ahead.wire.close()
        while self._running:
            os.close(self._running.popitem()[1])
        if not self._is_up:  # it would notice only when it is
            self._process.kill()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def start(self, limits: Limits, service: str = WORKER) -> tuple[socket.socket, int]:
        """Fork a process of a service behind the wall; return the grader's end of its wire, and its number here.

        Raises:
            NoIsolation: there is no wall to be had, and nothing was started.
            ServerLost: several servers ended at once.
        """
        # Rounded up, as the grader's own deadline comes first and says more.
        seconds = math.ceil(limits.total_cpu_seconds) + 5
        kind = control.Start(0, service, limits.memory, seconds, limits.output)
        for _ in range(STARTS):
            try:
                self._await_ready()
                if self._process.poll() is not None:  # what it forked ahead is dying with it
                    raise ConnectionError("the fork server ended")
                child = self._started(kind)
                if not _has_ended(child.pidfd):
                    return child.wire, child.request.number
                # Nothing of a student has run in it: it was killed from outside, or the server was.
                self.stop(child.request.number)
                child.wire.close()
            except (OSError, msgspec.MsgspecError):
                self._replace()
        raise ServerLost

    def _started(self, kind: control.Start) -> _Child:
        """A process that runs: the one that was forked ahead, or one that none was forked ahead for."""
        ahead = self._ahead
        if ahead is not None:
            self._reported(ahead)  # its report comes first
        if kind.service != WORKER:
            return self._reported(self._ask_for(kind))
        self._ahead = None
        if ahead is not None and _kind(ahead.request) != kind:
            ahead.wire.close()
            self.stop(ahead.request.number)
            ahead = None
        child = ahead or self._reported(self._ask_for(kind))
        self._ahead = self._ask_for(kind)
        return child

    def _ask_for(self, kind: control.Start) -> _Child:
        ours, theirs = socket.socketpair()
        request = msgspec.structs.replace(kind, number=next(self._numbers))
        with theirs:
            socket.send_fds(self._control, [msgspec.msgpack.encode(request)], [theirs.fileno()])
        return _Child(request, ours)

    def _reported(self, child: _Child) -> _Child:
        """The same process, once the server has reported it."""
        if child.pidfd < 0:
            try:
                self._report(control.Started)
            except NoIsolation:
                child.wire.close()
                if child is self._ahead:
                    self._ahead = None
                raise
            child.pidfd = self._received
            self._running[child.request.number] = child.pidfd
        return child

    def clock(self, number: int) -> Clock:
        """The clock of a process, which the kernel keeps.

        Raises:
            ServerLost: the process ended with its server.
        """
        if number not in self._running:
            raise ServerLost
        return Clock(self._running[number], lambda: self.serves(number))

    def serves(self, number: int) -> bool:
        """Whether the server of a process that was started is still there."""
        return number in self._running and not _has_ended(self._control.fileno(), select.POLLHUP)

    def stop(self, number: int, wait: bool = False) -> int:
        """Kill a process and all that it started; its exit code, or minus the signal if it need not be awaited.

        Raises:
            ServerLost: the exit code is wanted, and the server has ended.
        """
        if wait:
            return self.end(number).code
        pidfd = self._running.pop(number, -1)
        if pidfd >= 0:
            os.close(pidfd)
            self._send(control.Stop(number, wait=False))
        return -signal.SIGKILL

    def end(self, number: int) -> control.Stopped:
        """Kill a process and wait until it has ended: its exit code, if it had ended before, and what it used.

        Raises:
            ServerLost: the server has ended, and the process through that or together with it.
        """
        if number not in self._running:
            raise ServerLost
        try:
            if self._ahead is not None:
                with contextlib.suppress(NoIsolation):  # the next start says so
                    self._reported(self._ahead)  # its report comes before that of the stop
            os.close(self._running.pop(number))
            self._control.send(msgspec.msgpack.encode(control.Stop(number, wait=True)))
            return self._report(control.Stopped)
        except (OSError, msgspec.MsgspecError):
            self._replace()
            raise ServerLost from None

    def _await_ready(self) -> control.Ready:
        if self._ready is None:
            ready = self._report(control.Ready)
            self._is_up = True
            if self._required and ready.holes:
                self.close()
                raise NoIsolation(_missing(ready))
            self._ready = ready
        return self._ready

    def _report(self, kind: type[T]) -> T:
        data, descriptors, _, _ = socket.recv_fds(self._control, control.MAX_CONTROL, 1)
        self._received = descriptors[0] if descriptors else -1
        if not data:
            raise ConnectionError("the fork server ended")
        report = control.REPORT.decode(data)
        if isinstance(report, control.Refused):
            raise NoIsolation(f"a process could not be walled in: {report.reason}. {ADVICE}")
        if not isinstance(report, kind):
            raise ConnectionError("the fork server is out of step")
        return report


def _kind(request: control.Start) -> control.Start:
    """What was asked for, whichever process it is."""
    return msgspec.structs.replace(request, number=0)


def _has_ended(descriptor: int, sign: int = select.POLLIN) -> bool:
    """Whether a process or the other end of a socket is gone."""
    poll = select.poll()
    poll.register(descriptor, sign)
    return any(seen & sign for _, seen in poll.poll(0))


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
