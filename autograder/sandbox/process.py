"""The grader's end of one worker: asks it, waits no longer than is allowed, and believes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from autograder import frames
from autograder import messages as m
from autograder.encoding import DTYPES, MAX_AXES, Outgoing, check
from autograder.sandbox.client import Limits, Server

Reply = Callable[[m.Question, bytearray], tuple[m.Reply, Outgoing]]
# Of one message of the worker: tensors, and bytes of all of them spread out.
MAX_TENSORS = 4096
MAX_BYTES = 16 << 20
# Of one call of a model of the grader, which is answered here and can not be interrupted; and of all calls whose graphs are kept.
MAX_ASKED = 1 << 17
MAX_ASKED_AXIS = 512
MAX_KEPT = 1 << 20


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
        self, question: m.Question, data: bytearray, reply: Reply
    ) -> tuple[m.Reply, Outgoing]:
        asked = question.upstream if isinstance(question, m.AskBackward) else question.arguments
        _check_size(asked)
        elements = sum(math.prod(meta.shape) for meta in asked.tensors)
        if isinstance(question, m.Ask) and question.keep:
            self._kept += elements
        axis = max((n for meta in asked.tensors for n in meta.shape), default=0)
        refers = isinstance(question, m.Refer)  # to a process that has limits of its own
        if not refers and (elements > MAX_ASKED or axis > MAX_ASKED_AXIS or self._kept > MAX_KEPT):
            text = f"the model was called on {elements} numbers, far more than is needed: does a loop go on too long?"
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
    check(data)
    if len(data.tensors) > MAX_TENSORS:
        raise m.WireError("too many tensors")
    size = 0
    for meta in data.tensors:
        if len(meta.shape) > MAX_AXES or any(n < 0 for n in meta.shape):
            raise m.WireError("a tensor of an impossible shape")
        elements = math.prod(meta.shape)
        itemsize = DTYPES[meta.dtype].itemsize if meta.dtype in DTYPES else 8
        size += 0 if meta.meta else itemsize * elements
        if itemsize * elements >= 1 << 62 or size > MAX_BYTES:
            raise m.WireError("tensors that are too large")
