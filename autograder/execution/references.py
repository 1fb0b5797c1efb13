"""Run reference solutions when a student's code calls them. Entry point: `reference_process`.

The solutions run in a second worker. The grader checks each call from the student's worker, forwards it to the second
worker and returns the answer. Workers exchange only data. A solution's code never enters a worker that runs student code.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from autograder.execution.source import ReferenceSet, Source
from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing, decode_tensors
from autograder.protocol.limits import Budget, Limits
from autograder.sandbox.client import Server
from autograder.sandbox.process import Process


class UnsupportedValue(Exception):
    """Raised for a value that a reference solution cannot accept or return. The message names the value's type."""


def reference_process(
    source: Source, server: Server, limits: Limits, budget: Budget | None, student: Process
) -> ReferenceProcess | None:
    """Return a worker for the reference solutions that the code calls, or None if it calls none."""
    if source.references is None:
        return None
    return ReferenceProcess(source.references, server, limits, budget, student)


class ReferenceProcess:
    """A worker that runs the reference solutions. It starts on the first call.

    `student` is the worker that runs the student's code.
    """

    def __init__(
        self,
        references: ReferenceSet,
        server: Server,
        limits: Limits,
        budget: Budget | None,
        student: Process,
    ) -> None:
        self._references = references
        self._server, self._limits, self._budget = server, limits, budget
        self._student = student
        self._process: Process | None = None
        # Each dict maps a call's number in the calling worker to its number in the worker that ran it.
        self._reference_calls: dict[int, int] = {}
        self._object_calls: dict[int, int] = {}

    def start(self) -> Process:
        """Return a new worker for the reference solutions."""
        # The `Process` of the student's worker already charges the grader's time while that worker waits for a reference.
        return Process(self._server, self._limits, self._budget, charges_grader=False)

    def answer(self, question: m.Refer, payload: bytearray) -> tuple[m.Reply, Outgoing]:
        """Forward a call from the student's code to a reference solution."""
        try:
            arguments, out = self._forward(question.arguments, payload, self._given_object)
            number, response, data = self._request(self._call(question, arguments), out)
            if question.keep:
                self._reference_calls[question.keep] = number
            return self._reply(response, data)
        except UnsupportedValue as error:
            return m.Reply(m.Data(None, []), str(error), "TypeError"), Outgoing()

    def gradients(self, question: m.AskBackward, payload: bytearray) -> tuple[m.Reply, Outgoing]:
        """Ask the worker that runs the reference solutions for the gradients of an earlier call."""
        if question.keep not in self._reference_calls:
            raise m.WireError("the worker sent gradients for a call that was never made")
        upstream, out = self._forward(question.upstream, payload, _reject_object)
        call = self._reference_calls[question.keep]
        _, response, data = self._request(m.Backward(call, upstream, []), out)
        return self._reply(response, data)

    def owns(self, keep: int) -> bool:
        """Return whether the call with this number was a call to a reference solution."""
        return keep in self._reference_calls

    def stop(self) -> None:
        """Stop the worker that runs the reference solutions."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    # ---- calls from the student's worker

    def _call(self, question: m.Refer, arguments: m.Data) -> m.Request:
        keep = bool(question.keep)
        functions = self._references.functions
        if isinstance(question.target, int):
            is_own = any(question.method in (f.methods or ()) for f in functions)
            if not is_own and not question.method.endswith(".forward"):  # of a submodule
                raise m.WireError("the worker called a method that no reference solution has")
            return m.Apply(question.target, question.method, arguments, keep, question.grad)
        found = next((f for f in functions if f.name == question.target), None)
        if found is None:
            raise m.WireError(
                "the worker called the reference solution to an exercise that was not replaced"
            )
        if found.methods is None:
            return m.Call(found.name, "", arguments, keep, question.grad)
        return m.Make(found.name, arguments)

    def _request(
        self, request: m.Request, out: Outgoing
    ) -> tuple[int, m.Answer | m.Failure, bytearray]:
        if self._process is None:
            self._process = self.start()
            load = self._references.load
            _, loaded, _ = self._process.request(load, Outgoing(), self._answer_reference)
            if isinstance(loaded, m.Failure):
                raise RuntimeError(f"the reference solution could not be loaded: {loaded.text}")
        return self._process.request(request, out, self._answer_reference)

    def _reply(self, response: m.Answer | m.Failure, data: bytearray) -> tuple[m.Reply, Outgoing]:
        if isinstance(response, m.Failure):
            text = response.text or response.type
            return m.Reply(m.Data(None, []), text, response.type), Outgoing()
        result, out = self._forward(response.result, data, _reject_object)
        return m.Reply(result), out

    # ---- calls from the references' worker to objects in the student's worker

    def _given_object(self, item: m.Handle) -> m.Value:
        """Represent an instance of a course-provided class, such as a cache, as a model that reference solutions can call."""
        methods = self._references.given_methods
        if item.module or item.type not in methods:
            raise UnsupportedValue(
                f"a reference solution accepts only tensors and plain values, not a {item.type}"
            )
        return m.Model(item.id, list(methods[item.type]), [], False)

    def _answer_reference(
        self, question: m.Question, payload: bytearray
    ) -> tuple[m.Reply, Outgoing]:
        if isinstance(question, m.Ask):
            arguments, out = self._forward(question.arguments, payload, _reject_object)
            keep = bool(question.keep)
            request: m.Request = m.Call(
                question.model, question.method, arguments, keep, question.grad
            )
        elif isinstance(question, m.AskBackward):
            upstream, out = self._forward(question.upstream, payload, _reject_object)
            request = m.Backward(self._object_calls[question.keep], upstream, [])
        else:
            raise m.WireError("a reference solution called another reference solution")
        number, response, data = self._student.request(request, out, self._reject_question)
        if isinstance(question, m.Ask) and question.keep:
            self._object_calls[question.keep] = number
        return self._reply(response, data)

    def _reject_question(
        self, question: m.Question, payload: bytearray
    ) -> tuple[m.Reply, Outgoing]:
        raise m.WireError("the worker sent a request where a response was expected")

    def _forward(
        self, data: m.Data, payload: bytearray, convert: Callable[[m.Handle], m.Value]
    ) -> tuple[m.Data, Outgoing]:
        """Return the message to send to the other worker."""
        decode_tensors(data, payload)  # checks that the tensors are within the payload
        out = Outgoing()
        out.payload, out.size = [bytes(payload)], len(payload)
        return msgspec.structs.replace(data, value=_convert_handles(data.value, convert)), out


def _reject_object(item: m.Handle) -> m.Value:
    raise UnsupportedValue(
        f"a reference solution works only with tensors and plain values, not with a {item.type}"
    )


def _convert_handles(value: m.Value, convert: Callable[[m.Handle], m.Value]) -> m.Value:
    match value:
        case m.Items():
            return m.Items([_convert_handles(item, convert) for item in value.items])
        case m.Pairs():
            return m.Pairs([(key, _convert_handles(item, convert)) for key, item in value.items])
        case m.Handle():
            return convert(value)
        case m.Model() | m.Generator() | m.Function():
            raise m.WireError("the worker sent a value that only the grader may send")
    return value
