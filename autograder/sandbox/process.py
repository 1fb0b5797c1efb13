"""Send requests to one sandboxed worker, enforce limits and validate every response. Entry point: `Process`."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable

from autograder.protocol import frames
from autograder.protocol import messages as m
from autograder.protocol.encoding import ITEM_SIZES, MAX_AXES, Outgoing, check
from autograder.protocol.limits import Budget, Excess, Limits
from autograder.sandbox.client import Server
from autograder.sandbox.errors import LimitExceeded, ServerLost, WorkerDied
from autograder.sandbox.meter import Meter

AnswerQuestion = Callable[[m.Question, bytearray], tuple[m.Reply, Outgoing]]
# Limits on one message from the worker: the number of tensors and the total size of the rebuilt tensors in bytes.
MAX_TENSORS = 4096
MAX_BYTES = 16 << 20
MAX_CHANGED = 100  # number of arguments that one call can change
# The grader runs its own models and cannot interrupt a call. The first three constants limit the number of tensors, the
# number of elements and the longest axis in one call. The fourth limits the total number of elements in all calls whose
# graphs are kept. Each of these calls adds at least `MIN_KEPT_ELEMENTS` to the total, because every graph uses memory.
MAX_CALL_TENSORS = 256
MAX_CALL_ELEMENTS = 1 << 17
MAX_CALL_AXIS = 512
MAX_KEPT_ELEMENTS = 1 << 20
MIN_KEPT_ELEMENTS = 16
# The kernel sends these signals to kill a process that exceeds its CPU time limit.
OUT_OF_TIME = (-signal.SIGKILL, -signal.SIGXCPU)


class Process:
    """A sandboxed worker that answers one request at a time.

    The worker's time is charged to `budget`. The default is a new budget for all calls in one exercise. If
    `charges_grader` is set, `budget` is also charged for the grader's time.
    """

    def __init__(
        self,
        fork_server: Server,
        limits: Limits,
        budget: Budget | None = None,
        charges_grader: bool = True,
    ) -> None:
        self._server = fork_server
        self._charges_grader = charges_grader
        self._number = 0
        self._kept = 0
        self._answering = False
        self.end: Exception | None = None  # why the process ended, or None if `stop` ended it
        self._connection, self._worker = fork_server.start(limits)
        self._meter = Meter(
            fork_server.clock(self._worker),
            limits.cpu_seconds,
            limits.call_idle_seconds,
            budget or Budget(limits.allowance, "exercise"),
        )

    def request(
        self, request: m.Request, payload: Outgoing, reply: AnswerQuestion
    ) -> tuple[int, m.Answer | m.Failure, bytearray]:
        """Send a request and answer the worker's own requests with `reply` until the response arrives.

        `reply` may itself send requests about the objects in the worker's request. The worker must respond to these
        without sending further requests. The CPU time that the grader needs for the worker's requests and progress reports
        is charged to the budget (see `charges_grader`), but not to the call.

        Returns: The request's number, the response and its payload.

        Raises:
            LimitExceeded: The worker did not respond within its limits.
            WorkerDied: The process ended or sent an invalid message.
            ServerLost: The process died along with its fork server.

            In each case, the process has been killed, and later requests raise the same error.
        """
        if self.end is not None:
            raise self.end
        self._number += 1
        number = self._number
        outer = not self._answering
        # The worker runs the pieces of source code in passes. Each pass completes at least one piece.
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
                started = time.thread_time()
                response, data = self._receive(number)
                if isinstance(response, (m.Answer, m.Failure)):
                    return number, response, data
                if isinstance(response, m.Running):
                    line = response.line
                    running -= 1
                    if running < 0 or data:
                        raise m.WireError("received an unexpected progress report")
                    self._charge_grader(started)  # a hostile worker may send millions of reports
                    continue
                if not outer:
                    raise m.WireError("the message is a request, but a response was expected")
                self._send(number, *self._answer(response, data, reply))
                self._charge_grader(started)
        except (LimitExceeded, m.WireError, OSError) as error:
            raise self._explain(error, line) from None
        finally:
            self._meter.pause()

    def _charge_grader(self, started: float) -> None:
        if self._charges_grader:
            self._meter.charge_grader(time.thread_time() - started)

    def _ended(self, why: Exception) -> Exception:
        """Stop the process and return the error that ended it. Later calls return the same error."""
        self.stop()
        self.end = self.end or why
        return self.end

    def _explain(self, error: Exception, line: int) -> Exception:
        """Stop the process after an error during a request, and return the error that explains why it ended."""
        if isinstance(error, LimitExceeded):
            return self._limit_exceeded(error.excess, line)
        if isinstance(error, m.WireError):
            return self._ended(WorkerDied(0, f"the worker sent an invalid message: {error}"))
        return self._end_of_process(line)

    def _limit_exceeded(self, excess: Excess, line: int) -> Exception:
        if self.end is None and not self._server.serves(self._worker):
            # By now, the pid may belong to a different process.
            return self._ended(ServerLost())
        return self._ended(LimitExceeded(excess, line))

    def _end_of_process(self, line: int) -> Exception:
        """Return the error that explains why the process stopped responding."""
        if self._worker == 0:
            return self._ended(WorkerDied(0))
        self._connection.close()
        worker, self._worker = self._worker, 0
        try:
            ended = self._server.end(worker)
        except ServerLost as error:
            return self._ended(error)
        excess = self._meter.ended(ended.cpu)
        if excess is not None and ended.code in OUT_OF_TIME:
            return self._ended(LimitExceeded(excess, line))
        return self._ended(WorkerDied(ended.code))

    def _send(self, number: int, request: m.Request, payload: Outgoing) -> None:
        frames.send(
            self._connection, m.Numbered(number, request), payload, self._meter.seconds_to_wait
        )

    def _receive(self, number: int) -> tuple[m.Response, bytearray]:
        message, data = frames.receive(
            self._connection, frames.RESPONSES, self._meter.seconds_to_wait
        )
        if message.number != number:
            raise m.WireError("the message is a response to a different request")
        response: m.Response = message.response
        if isinstance(response, m.Answer):
            _check_size(response.result)
            if len(response.changed) > MAX_CHANGED:
                raise m.WireError("there are too many changed arguments")
        elif isinstance(response, m.Failure | m.Running) and data:
            raise m.WireError("the message contains unreferenced tensors")
        return response, data

    def _answer(
        self, question: m.Question, data: bytearray, reply: AnswerQuestion
    ) -> tuple[m.Reply, Outgoing]:
        arguments = question.upstream if isinstance(question, m.AskBackward) else question.arguments
        _check_size(arguments)
        tensors = arguments.tensors
        # A tensor without elements counts as one element, because it also takes time and memory.
        elements = sum(math.prod(meta.shape) or 1 for meta in tensors)
        axis = max((n for meta in tensors for n in meta.shape), default=0)
        if isinstance(question, m.Ask) and question.keep:
            self._kept += max(elements, MIN_KEPT_ELEMENTS)
        # Calls to references are answered by another process with its own limits.
        if not isinstance(question, m.Refer) and (
            len(tensors) > MAX_CALL_TENSORS
            or elements > MAX_CALL_ELEMENTS
            or axis > MAX_CALL_AXIS
            or self._kept > MAX_KEPT_ELEMENTS
        ):
            text = (
                f"the model was called with {elements} elements in {len(tensors)} tensors, far more than needed: "
                "is a loop running for too long?"
            )
            return m.Reply(m.Data(None, []), text), Outgoing()
        self._meter.pause()
        self._answering = True
        try:
            return reply(question, data)
        finally:
            self._answering = False
            self._meter.resume()

    def stop(self) -> None:
        """Kill the process. Do nothing if it has already been stopped."""
        if self._worker == 0:
            return
        self._meter.close()
        worker, self._worker = self._worker, 0
        self._connection.close()
        self._server.stop(worker)


def _check_size(data: m.Data) -> None:
    """Check the size of tensors before building them, because with zero strides a few bytes can describe gigabytes.

    Raises:
        WireError: There are too many tensors, or they are too large.
    """
    if len(data.tensors) > MAX_TENSORS:
        raise m.WireError("there are too many tensors")
    size = 0
    for meta in data.tensors:
        if len(meta.shape) > MAX_AXES or any(n < 0 for n in meta.shape):
            raise m.WireError("a tensor has an invalid shape")
        elements = math.prod(meta.shape)
        itemsize = ITEM_SIZES.get(meta.dtype, 8)
        size += 0 if meta.meta else itemsize * elements
        if itemsize * elements >= 1 << 62 or size > MAX_BYTES:
            raise m.WireError("the tensors are too large")
    check(data)
