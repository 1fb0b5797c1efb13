"""The grader's end: starts the fork server, and processes that answer requests."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeVar

import msgspec

from autograder import frames
from autograder import messages as m
from autograder.encoding import DTYPES, MAX_AXES, Outgoing
from autograder.sandbox import control
from autograder.sandbox.control import LAYERS

Reply = Callable[[m.Ask | m.AskBackward, bytearray], tuple[m.Reply, Outgoing]]
START_SECONDS = 60.0
# Of one message of the worker: tensors, and bytes of all of them spread out.
MAX_TENSORS = 4096
MAX_BYTES = 16 << 20
# Of one call of a model of the grader, which is answered here and can not be interrupted; and of all calls whose graphs are kept.
MAX_ASKED = 1 << 17
MAX_ASKED_AXIS = 512
MAX_KEPT = 1 << 20
ADVICE = (
    "Run the grader on Linux 6.2 or later, or in the container that SECURITY.md describes; "
    "`autograder doctor` shows what is missing."
)
T = TypeVar("T", control.Ready, control.Started, control.Stopped)


class Died(Exception):
    """The process ended, or sent what is no message; `code` is its exit code or minus a signal."""

    def __init__(self, code: int, why: str = "") -> None:
        super().__init__(why or f"exit code {code}")
        self.code = code


class Late(Exception):
    """The process did not answer in time; `line` is the line of its code that it was loading, or 0."""

    def __init__(self, line: int = 0) -> None:
        super().__init__("no answer in time")
        self.line = line


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
    ) -> None:
        self._required = sandbox == "required"
        if self._required and not sys.platform.startswith("linux"):
            raise NoIsolation(f"student code is isolated with means of Linux only. {ADVICE}")
        self._layers = list(
            layers if layers is not None else LAYERS if self._required else ["limits"]
        )
        self._start()

    @property
    def isolation(self) -> list[str]:
        """The layers that hold what runs here; waits until the server knows.

        Raises:
            NoIsolation: they are not enough.
        """
        return list(self._await_ready().layers)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", control.SERVER, str(theirs.fileno()), *self._layers],
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

    def start(self, limits: Limits) -> tuple[socket.socket, int]:
        """Fork a process behind the wall; the grader's end of its wire, and its number.

        Raises:
            NoIsolation: there is no wall to be had, and nothing was started.
        """
        # Rounded up, as the grader's own deadline comes first and says more.
        seconds = math.ceil(limits.total_seconds) + 5
        request = control.Start(limits.memory, seconds, limits.output)
        for attempt in (1, 2):
            try:
                self._await_ready()
                if self._process.poll() is not None:  # what it forked ahead is dying with it
                    raise ConnectionError("the fork server ended")
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
            if self._ahead is not None:
                ahead = self._ahead  # its report comes before that of the stop
                self._reported(ahead)
                self._ahead = ahead
            self._control.send(msgspec.msgpack.encode(control.Stop(pid, wait)))
            return self._report(control.Stopped).code
        except (OSError, msgspec.MsgspecError):
            self.close()
            self._start()
            return -9

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


class Process:
    """One worker behind the wall, asked one request at a time."""

    def __init__(self, fork_server: Server, limits: Limits) -> None:
        self._server = fork_server
        self._limits = limits
        self.left = limits.total_seconds
        self._number = 0
        self._kept = 0
        self._deadline = 0.0
        self._answering = False
        self._connection, self._pid = fork_server.start(limits)

    def request(
        self, request: m.Request, payload: Outgoing, reply: Reply
    ) -> tuple[int, m.Answer | m.Failure, bytearray]:
        """Ask, and answer the questions that come back meanwhile; the request's number, the response, its payload.

        `reply` may ask in turn, of what the question handed over; such a request must be answered without a question.

        Raises:
            Late: no answer within the limits. Died: the process is gone or speaks nonsense.
            Either way it has been killed, and can not be asked again.
        """
        self._number += 1
        number = self._number
        started = time.monotonic()
        outer = not self._answering
        if outer:
            self._deadline = started + min(self._limits.seconds, self.left)
        line = 0
        # Each piece is tried again at most once for each other piece.
        pieces = len(request.pieces) if isinstance(request, m.Load) else 0
        running = pieces * (pieces + 1) // 2
        try:
            self._send(number, request, payload)
            while True:
                response, data = self._receive(number)
                if isinstance(response, (m.Answer, m.Failure)):
                    return number, response, data
                if isinstance(response, m.Running):
                    line = response.line
                    running -= 1
                    if running < 0 or data:
                        raise m.WireError("progress where there is none")
                    continue
                if not outer:
                    raise m.WireError("a question in the place of an answer")
                self._send(number, *self._answer(response, data, reply))
        except TimeoutError:
            self.stop()
            raise Late(line) from None
        except m.WireError as error:
            self.stop()
            raise Died(0, f"it sent what is no message: {error}") from None
        except OSError:
            raise Died(self.stop(wait=True)) from None
        finally:
            if outer:
                self.left -= time.monotonic() - started

    def _send(self, number: int, request: m.Request, payload: Outgoing) -> None:
        frames.send(self._connection, m.Numbered(number, request), payload, self._deadline)

    def _receive(self, number: int) -> tuple[m.Response, bytearray]:
        message, data = frames.receive(self._connection, frames.RESPONSES, self._deadline)
        if message.number != number:
            raise m.WireError("an answer to another question")
        response: m.Response = message.response
        if isinstance(response, m.Answer):
            _check_size(response.result)
        elif isinstance(response, m.Failure | m.Running) and data:
            raise m.WireError("tensors that nothing refers to")
        return response, data

    def _answer(
        self, question: m.Ask | m.AskBackward, data: bytearray, reply: Reply
    ) -> tuple[m.Reply, Outgoing]:
        asked = question.arguments if isinstance(question, m.Ask) else question.upstream
        _check_size(asked)
        elements = sum(math.prod(meta.shape) for meta in asked.tensors)
        if isinstance(question, m.Ask) and question.keep:
            self._kept += elements
        axis = max((n for meta in asked.tensors for n in meta.shape), default=0)
        if elements > MAX_ASKED or axis > MAX_ASKED_AXIS or self._kept > MAX_KEPT:
            text = f"a model was called with tensors that are too large ({elements} elements)"
            return m.Reply(m.Data(None, []), text), Outgoing()
        self._answering = True
        try:
            return reply(question, data)
        finally:
            self._answering = False

    def stop(self, wait: bool = False) -> int:
        """Kill the process; minus the signal, or with `wait` the code with which it had ended. Stopping again does nothing."""
        if self._pid == 0:
            return 0
        pid, self._pid = self._pid, 0
        self._connection.close()
        return self._server.stop(pid, wait)


def _check_size(data: m.Data) -> None:
    """Before anything is built from it: a few bytes with strides of zero can stand for gigabytes."""
    if len(data.tensors) > MAX_TENSORS:
        raise m.WireError("too many tensors")
    size = 0
    for meta in data.tensors:
        if len(meta.shape) > MAX_AXES or any(n < 0 for n in meta.shape):
            raise m.WireError("a tensor of an impossible shape")
        elements = math.prod(meta.shape)
        itemsize = DTYPES[meta.dtype].itemsize if meta.dtype in DTYPES else 8
        size += 0 if meta.meta else itemsize * elements
        if elements >= 1 << 62 or size > MAX_BYTES:
            raise m.WireError("tensors that are too large")


def cpu_count() -> int:
    """The processors that this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
