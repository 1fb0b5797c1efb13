"""Client for one sandboxed worker: sends requests, enforces limits and validates every response."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable

from autograder.protocol import frames
from autograder.protocol import messages as m
from autograder.protocol.encoding import DTYPES, MAX_AXES, Outgoing, check
from autograder.protocol.limits import Budget, Excess, Limits
from autograder.sandbox.client import Server, ServerLost
from autograder.sandbox.meter import Late, Meter

__all__ = ["Died", "Late", "Process", "Reply", "ServerLost"]

Reply = Callable[[m.Question, bytearray], tuple[m.Reply, Outgoing]]
# Of one message of the worker: tensors, and bytes of all of them spread out.
MAX_TENSORS = 4096
MAX_BYTES = 16 << 20
# Of one call of a model of the grader, which is answered here and can not be interrupted; and of all calls whose graphs are kept.
MAX_ASKED = 1 << 17
MAX_ASKED_AXIS = 512
MAX_KEPT = 1 << 20
# How the kernel ends a process that used more processor time than it may.
OUT_OF_TIME = (-signal.SIGKILL, -signal.SIGXCPU)


class Died(Exception):
    """The process ended, or sent what is no message; `code` is its exit code or minus a signal."""

    def __init__(self, code: int, why: str = "") -> None:
        super().__init__(why or f"exit code {code}")
        self.code = code


class Process:
    """One worker behind the wall, asked one request at a time.

    What it uses is charged to `budget`, by default one of what its limits allow to all calls.
    """

    def __init__(self, fork_server: Server, limits: Limits, budget: Budget | None = None) -> None:
        self._server = fork_server
        self._number = 0
        self._kept = 0
        self._answering = False
        self.end: Exception | None = None  # what ended it, besides `stop`
        self._connection, self._worker = fork_server.start(limits)
        self._meter = Meter(
            fork_server.clock(self._worker),
            limits.cpu_seconds,
            limits.idle_seconds,
            budget or Budget(limits.allowance, "exercise"),
        )

    def request(
        self, request: m.Request, payload: Outgoing, reply: Reply
    ) -> tuple[int, m.Answer | m.Failure, bytearray]:
        """Ask, and answer the questions that come back meanwhile; the request's number, the response, its payload.

        `reply` may ask in turn, of what the question handed over; such a request must be answered without a question.
        The time that `reply` takes is not the worker's.

        Raises:
            Late: no answer within the limits. Died: the process is gone or speaks nonsense.
            ServerLost: the process is gone because its fork server is.
            In each case it has been killed, and every further request raises the same.
        """
        if self.end is not None:
            raise self.end
        self._number += 1
        number = self._number
        outer = not self._answering
        # Each piece is tried again at most once for each other piece.
        pieces = len(request.pieces) if isinstance(request, m.Load) else 0
        running = pieces * (pieces + 1) // 2
        line = 0
        if outer:
            self._meter.begin()
        else:
            self._meter.resume()
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
        except Late as error:
            raise self._late(error.excess, line) from None
        except m.WireError as error:
            raise self._ended(Died(0, f"it sent what is no message: {error}")) from None
        except OSError:
            raise self._gone(line) from None
        finally:
            self._meter.pause()

    def _ended(self, why: Exception) -> Exception:
        """Stop the process; why it ended, which may be an error that was raised first."""
        self.stop()
        self.end = self.end or why
        return self.end

    def _late(self, excess: Excess, line: int) -> Exception:
        if self.end is None and not self._server.serves(self._worker):
            return self._ended(ServerLost())  # what was measured may be another process by now
        return self._ended(Late(excess, line))

    def _gone(self, line: int) -> Exception:
        """Why the process does not answer any more."""
        if self._worker == 0:
            return self._ended(Died(0))
        self._connection.close()
        worker, self._worker = self._worker, 0
        try:
            ended = self._server.end(worker)
        except ServerLost as error:
            return self._ended(error)
        excess = self._meter.ended(ended.cpu)
        if excess is not None and ended.code in OUT_OF_TIME:
            return self._ended(Late(excess, line))
        return self._ended(Died(ended.code))

    def _send(self, number: int, request: m.Request, payload: Outgoing) -> None:
        frames.send(self._connection, m.Numbered(number, request), payload, self._meter.patience)

    def _receive(self, number: int) -> tuple[m.Response, bytearray]:
        message, data = frames.receive(self._connection, frames.RESPONSES, self._meter.patience)
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
        self._meter.pause()
        self._answering = True
        try:
            return reply(question, data)
        finally:
            self._answering = False
            self._meter.resume()

    def stop(self) -> int:
        """Kill the process. Stopping again does nothing."""
        if self._worker == 0:
            return 0
        self._meter.close()
        worker, self._worker = self._worker, 0
        self._connection.close()
        return self._server.stop(worker)


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
