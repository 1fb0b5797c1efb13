"""The grader's end: starts the fork server, and processes that answer requests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from autograder import messages as m
from autograder.sandbox import server

Reply = Callable[[m.Ask | m.AskBackward, bytearray], tuple[m.Reply, m.Outgoing]]
START_SECONDS = 60.0
T = TypeVar("T", server.Started, server.Stopped)


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


class Server:
    """A running fork server; one for each process of the grader."""

    def __init__(self) -> None:
        self._start()

    @property
    def isolation(self) -> list[str]:
        """The layers that hold what runs here."""
        return ["limits"]

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", server.__name__, str(theirs.fileno())],
                env=server.ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
            )
        self._control = ours
        self._control.settimeout(START_SECONDS)
        self._ready = False

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
        """Fork a process; the grader's end of its wire, and its number."""
        request = server.Start(limits.memory, int(limits.total_seconds) + 5, limits.output)
        for attempt in (1, 2):
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    self._await_ready()
                    data = msgspec.msgpack.encode(request)
                    socket.send_fds(self._control, [data], [theirs.fileno()])
                    return ours, self._report(server.Started).pid
                except (ConnectionError, TimeoutError, msgspec.MsgspecError):
                    ours.close()
                    if attempt == 2:
                        raise
                    self.close()
                    self._start()
        raise AssertionError("unreachable")

    def stop(self, pid: int) -> int:
        """Kill a process and all that it started; its exit code, or minus the signal."""
        try:
            self._control.send(msgspec.msgpack.encode(server.Stop(pid)))
            return self._report(server.Stopped).code
        except (ConnectionError, TimeoutError, msgspec.MsgspecError):
            self.close()
            self._start()
            return -9

    def _await_ready(self) -> None:
        if not self._ready:
            self._report(server.Started)
            self._ready = True

    def _report(self, kind: type[T]) -> T:
        data = self._control.recv(server.MAX_CONTROL)
        if not data:
            raise ConnectionError("the fork server ended")
        report = server.REPORT.decode(data)
        if not isinstance(report, kind):
            raise ConnectionError("the fork server is out of step")
        return report


class Process:
    """One worker behind the wall, asked one request at a time."""

    def __init__(self, fork_server: Server, limits: Limits) -> None:
        self._server = fork_server
        self._limits = limits
        self.left = limits.total_seconds
        self._number = 0
        self._connection, self._pid = fork_server.start(limits)

    def request(
        self, request: m.Request, payload: m.Outgoing, reply: Reply
    ) -> tuple[int, m.Answer | m.Failure, bytearray]:
        """Ask, and answer the questions that come back meanwhile; the request's number, the response, its payload.

        Raises:
            Late: no answer within the limits. Died: the process is gone or speaks nonsense.
            Either way it has been killed, and can not be asked again.
        """
        self._number += 1
        started = time.monotonic()
        deadline = started + min(self._limits.seconds, self.left)
        line = 0
        try:
            m.send(self._connection, m.Numbered(self._number, request), payload, deadline)
            while True:
                message, data = m.receive(self._connection, m.RESPONSES, deadline)
                if message.number != self._number:
                    raise m.WireError("an answer to another question")
                response = message.response
                if isinstance(response, (m.Answer, m.Failure)):
                    return self._number, response, data
                if isinstance(response, m.Running):
                    line = response.line
                    continue
                answer, out = reply(response, data)
                m.send(self._connection, m.Numbered(self._number, answer), out, deadline)
        except TimeoutError:
            self.stop()
            raise Late(line) from None
        except (ConnectionError, BrokenPipeError):
            raise Died(self.stop()) from None
        except m.WireError as error:
            self.stop()
            raise Died(0, f"it sent what is no message: {error}") from None
        finally:
            self.left -= time.monotonic() - started

    def stop(self) -> int:
        """Kill the process; its exit code or minus its signal. Stopping again does nothing."""
        if self._pid == 0:
            return 0
        pid, self._pid = self._pid, 0
        self._connection.close()
        return self._server.stop(pid)


def cpu_count() -> int:
    """The processors that this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
