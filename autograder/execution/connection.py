"""Call functions and methods in a sandboxed worker and differentiate through the calls. Entry point: `Connection`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autograder.execution.grader_models import GraderModels
from autograder.execution.references import ReferenceProcess
from autograder.execution.remote import RemoteModule, RemoteObject
from autograder.plain_text import escaped
from autograder.protocol import messages as m
from autograder.protocol.autograd import make_differentiable
from autograder.protocol.encoding import Outgoing, decode_tensors, decode_value
from autograder.sandbox.process import AnswerQuestion

MAX_NAME = 200  # maximum length of a class's or operator's name


class Channel(Protocol):
    """A worker that answers requests: `process.Process` in the sandbox, or `in_process.LocalProcess` in this process."""

    def request(
        self, request: m.Request, payload: Outgoing, reply: AnswerQuestion
    ) -> tuple[int, m.Answer | m.Failure, bytearray]: ...

    def stop(self) -> None: ...


class StudentError(Exception):
    """Raised when the student's code raises an exception or does not define a name that a test needs.

    `type` and `text` describe the original exception and are safe to print. `line` is the line of `Source.text` that raised it.
    `lacks` says what the request needs and the code lacks, or is "".
    """

    def __init__(self, name: str, failure: m.Failure, request: m.Request) -> None:
        self.type = escaped(failure.type[:MAX_NAME])
        self.text = escaped(failure.text[: m.MAX_TEXT], keep="\n")
        self.bases, self.line, self.meta_read = failure.bases, failure.line, failure.meta_read
        self.lacks = next(filter(self.text.startswith, _needs(request)), "")
        if failure.kind == "missing":
            super().__init__(f"`{name}`: {self.text}")
        else:
            text = self.text
            if self.type == "NotImplementedError" and text.isidentifier():
                text = f"`{text}` is not finished"  # a stub's message is its name
            super().__init__(f"`{name}` raised {self.type}: {text}".rstrip(": "))


def _needs(request: m.Request) -> Iterator[str]:
    """Yield the beginnings of the messages that say what the code lacks. The code only chooses which one applies."""
    match request:
        case m.Weights(weights=m.Data(value=m.Pairs(items=items), tensors=tensors)):
            for (name, _), tensor in zip(items, tensors, strict=True):
                yield f"there is no parameter `{name}`"
                yield f"the parameter `{name}` should have shape {tuple(tensor.shape)}"
        case m.Call(method=path) | m.Read(path=path):
            yield f"there is no attribute `{path}`"
            yield f"`{path}` has no length"


class NotAllowed(Exception):
    """Raised when the student's code calls operators that the exercise forbids."""

    def __init__(self, operators: list[str]) -> None:
        self.operators = [escaped(name[:MAX_NAME]) for name in operators[:20]]
        super().__init__(", ".join(f"`{name}`" for name in self.operators))


@dataclass
class Cost:
    """The cost of calls: the number of torch operators that ran, and the number of elements in the largest tensor created."""

    operations: int = 0
    largest: int = 0


class Connection:
    """A connection to one worker. It converts values, keeps autograd graphs alive and answers calls from the worker."""

    def __init__(self, process: Channel, references: ReferenceProcess | None) -> None:
        self._process = process
        self._references = references
        # Keeps generators alive, because the id of a freed generator could be reused.
        self._generators: dict[int, torch.Generator] = {}
        self._graphs: set[int] = set()  # calls whose autograd graphs are still in the worker
        self._unreachable: list[int] = []  # calls whose graphs the worker may free
        self._has_objects = False  # whether the worker keeps objects for proxies in this process
        self.models = GraderModels()
        self.cost: Cost | None = None
        self.changed: list[str] = []
        self.last_call: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None

    # ---- requests

    def request(self, request: m.Request, out: Outgoing, name: str) -> Any:
        """Send a request and return the decoded answer. Error messages refer to the request's target as `name`.

        Raises:
            StudentError: The student's code raised an exception, or does not define the requested name.
            NotAllowed: The student's code called an operator that the exercise forbids.
            WireError, LimitExceeded, WorkerDied, ServerLost: See `process.Process.request`.
        """
        _, answer, payload = self._send(request, out, name)
        return self._decode_payload(answer.result, payload, name)

    def call(
        self,
        target: str | int,
        method: str,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        name: str,
        leaves: Mapping[str, Tensor] | None = None,
    ) -> Any:
        """Call a function (by name), an object (by id) or an object's method, and return the result.

        The result is differentiable with respect to the tensors in the arguments and in `leaves`, which contains the
        target's parameters. Raises the same exceptions as `request`.
        """
        leaves = leaves or {}
        args, kwargs = arguments
        if not self.models.answering:
            self.last_call = (name, args, kwargs)
            self._forget_graphs()
        out = Outgoing()
        sent: list[Tensor] = []
        data = self.encode([list(args), kwargs], out, sent)
        inputs = [*sent, *leaves.values()]
        grad = torch.is_grad_enabled()
        keep = grad and any(t.requires_grad for t in inputs)
        request = m.Call(target, method, data, keep, grad, measure=self.cost is not None)
        number, answer, payload = self._send(request, out, name)
        if not self.models.answering:
            self.changed = [escaped(name[:MAX_NAME]) for name in answer.changed]
        if self.cost is not None:
            self.cost.operations += answer.operations
            self.cost.largest = max(self.cost.largest, answer.largest)
        try:
            tensors = decode_tensors(answer.result, payload)
        except m.WireError:
            self._process.stop()
            raise
        if keep:
            flags = [
                meta.requires_grad and t.is_floating_point()
                for meta, t in zip(answer.result.tensors, tensors, strict=True)
            ]
            parameters = [str(target), *leaves] if leaves else []
            gradients = self._gradients(number, parameters, len(inputs), name)
            tensors = make_differentiable(inputs, tensors, flags, gradients)
        return self.decode(answer.result, tensors, name)

    def _gradients(
        self, call: int, parameters: list[str], inputs: int, name: str
    ) -> Callable[[list[Tensor | None]], list[Tensor | None]]:
        """Return a call's backward function. Once this function is garbage-collected, the worker may free the call's graph."""

        def gradients(upstream: list[Tensor | None]) -> list[Tensor | None]:
            out = Outgoing()
            found = self.request(
                m.Backward(call, self.encode(upstream, out), parameters), out, name
            )
            if not isinstance(found, list) or len(found) != inputs:
                raise m.WireError("the worker returned gradients that do not match the call")
            return [g if isinstance(g, Tensor) else None for g in found]

        self._graphs.add(call)
        weakref.finalize(gradients, self._unreachable.append, call)
        return gradients

    def start_test(self) -> None:
        """Let the worker free the objects and graphs of earlier tests, whose proxies can no longer be used."""
        if self._has_objects or self._graphs:
            self._has_objects = False
            self._graphs.clear()
            self._unreachable.clear()
            self.models.forget_graphs()
            self._send(m.Forget(None), Outgoing(), "")

    def _forget_graphs(self) -> None:
        if self._unreachable:
            calls, self._unreachable[:] = list(self._unreachable), []
            self._graphs -= set(calls)
            if not self._graphs:
                self.models.forget_graphs()
            self._send(m.Forget(calls), Outgoing(), "")

    def _send(
        self, request: m.Request, out: Outgoing, name: str
    ) -> tuple[int, m.Answer, bytearray]:
        models = self.models
        if not models.answering:
            models.failure = None
        number, response, payload = self._process.request(request, out, self.reply)
        models.set_modes(response.modes)
        if models.failure is not None and not models.answering:
            raise models.failure
        if response.forbidden:
            raise NotAllowed(response.forbidden)
        if isinstance(response, m.Failure):
            raise StudentError(name, response, request)
        return number, response, payload

    def reply(self, question: m.Question, payload: bytearray) -> tuple[m.Reply, Outgoing]:
        """Answer a call from the student's code to a reference solution or to one of the grader's models."""
        references = self._references
        if isinstance(question, m.Refer):
            if references is None:
                raise m.WireError(
                    "the worker called a reference solution, but no reference solutions are in use"
                )
            return references.answer(question, payload)
        if isinstance(question, m.AskBackward) and references and references.owns(question.keep):
            return references.gradients(question, payload)
        return self.models.answer(question, payload, self)

    # ---- values

    def encode(self, value: Any, out: Outgoing, sent: list[Tensor] | None = None) -> m.Data:
        """Encode a value from a test, and add its tensors to `out` and `sent`."""
        return out.encode(value, self._encode_object, sent)

    def decode(self, data: m.Data, tensors: list[Tensor], name: str) -> Any:
        """Decode a value from the worker, given its decoded tensors. Objects that remain in the sandbox become proxies."""

        def convert(item: m.Value) -> Any:
            self._has_objects |= isinstance(item, m.Handle)
            if isinstance(item, m.Handle) and item.module:
                # A method such as `half` returns the module itself, which keeps its class name.
                return RemoteModule(self, item.id, name.partition(".")[0])
            if isinstance(item, m.Handle):
                return RemoteObject(self, item.id, escaped(item.type[:MAX_NAME]))
            if isinstance(item, m.Opaque):
                return m.Opaque(escaped(item.type[: m.MAX_TEXT]))
            raise m.WireError("the worker sent a value that only the grader may send")

        return decode_value(data.value, tensors, convert)

    def _decode_payload(self, data: m.Data, payload: bytearray, name: str) -> Any:
        return self.decode(data, decode_tensors(data, payload), name)

    def _encode_object(self, item: Any) -> m.Value:
        if isinstance(item, RemoteModule | RemoteObject):
            return m.Handle(item.id, "")
        if isinstance(item, torch.Generator):
            self._generators[id(item)] = item
            return m.Generator(id(item), item.initial_seed())
        if isinstance(item, nn.Module):
            return self.models.encode(item)
        raise TypeError(f"a grader cannot send a {type(item).__name__} to the student's code")
