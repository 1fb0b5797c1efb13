"""Run a worker in this process without a sandbox. Use this module only for the course's own code, never for submissions."""

from __future__ import annotations

import itertools
import warnings

from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing
from autograder.sandbox.process import AnswerQuestion
from autograder.sandbox.worker.worker import Worker


def _join(out: Outgoing) -> bytearray:
    return bytearray().join(out.payload)


class LocalProcess:
    """A worker that runs in this process, without limits. Its interface is the same as that of `process.Process`."""

    end: Exception | None = None

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._worker = Worker(self._ask, lambda running: None)
        self._reply: AnswerQuestion | None = None

    def request(
        self, request: m.Request, payload: Outgoing, reply: AnswerQuestion
    ) -> tuple[int, m.Answer | m.Failure, bytearray]:
        """Send a request to the worker in this process. See `process.Process.request`."""
        number = next(self._numbers)
        outer, self._reply = self._reply, reply
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                response, out = self._worker.handle(number, request, _join(payload))
        finally:
            self._reply = outer  # `reply` may have sent requests in the meantime
        assert isinstance(response, (m.Answer, m.Failure))
        return number, response, _join(out)

    def _ask(self, question: m.Response, out: Outgoing) -> tuple[m.Reply, bytearray]:
        assert isinstance(question, (m.Ask, m.Refer, m.AskBackward))
        assert self._reply is not None
        answer, payload = self._reply(question, _join(out))
        return answer, _join(payload)

    def stop(self) -> None:
        """Do nothing, because there is no process to kill."""
