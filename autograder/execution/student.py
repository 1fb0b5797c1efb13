"""Call one exercise's code in the sandbox and differentiate through the calls. Entry point: `Student`.

A hidden grader gets a `Student`. Its `Connection` sends requests to the worker, and answers the worker's own requests with
`GraderModels` or a `ReferenceProcess`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from autograder.execution.grader_models import GraderModels
from autograder.execution.references import ReferenceProcess
from autograder.plain_text import escaped
from autograder.protocol import messages as m
from autograder.protocol.encoding import (
    NAMES,
    Outgoing,
    decode_tensors,
    decode_value,
    make_differentiable,
    random_state,
    set_random_state,
)
from autograder.protocol.messages import Opaque
from autograder.sandbox.process import AnswerQuestion
from autograder.sandbox.worker.describe import opaque

__all__ = [
    "Cost",
    "NotAllowed",
    "Opaque",
    "RemoteModule",
    "RemoteObject",
    "Student",
    "StudentError",
]
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


class Student:
    """The functions and classes in one exercise's code, available as attributes. See graders/README.md."""

    def __init__(self, process: Channel, references: ReferenceProcess | None = None) -> None:
        self.connection = Connection(process, references)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.connection.call(name, "", (args, kwargs), name)

        return call

    @property
    def changed(self) -> list[str]:
        """Return the names of the arguments that the last call changed in place."""
        return self.connection.changed

    @property
    def printed(self) -> str:
        """Return what the last call printed, at most `MAX_PRINTED` characters."""
        return self.connection.printed

    @property
    def last_call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
        """Return the name and arguments of the last function or method call."""
        return self.connection.last_call

    def load(self, load: m.Load) -> list[tuple[int, str, str]]:
        """Run the exercise's code. Return the line, exception name and message for each failed piece of code.

        Raises:
            StudentError: The code does not define the exercise, because a piece of the code failed.
        """
        errors = self.connection.request(load, load.wanted)
        if not isinstance(errors, list) or not all(map(_is_error, errors)):
            raise m.WireError("the answer to a load request is not a list of errors")
        return [(line, kind, text) for line, kind, text in errors]

    @contextmanager
    def measuring(self) -> Iterator[Cost]:
        """Measure the total cost of calls in the `with` block."""
        self.connection.cost = cost = Cost()
        try:
            yield cost
        finally:
            self.connection.cost = None


def _is_error(item: Any) -> bool:
    """Return whether an item consists of a line number, an exception name and a message."""
    return isinstance(item, list) and [type(part) for part in item] == [int, str, str]


class _Remote:
    def __init__(self, caller: Connection, id_: int, name: str) -> None:
        self.id = id_
        self._caller = caller
        self._name = name
        self._leaves: dict[str, Tensor] = {}

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__"):
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            name = f"{self._name}.{method}"
            return self._caller.call(self.id, method, (args, kwargs), name, self._leaves)

        return call

    def _request(self, request: m.Request, out: Outgoing | None = None) -> Any:
        return self._caller.request(request, self._name, out)

    def _length(self, path: str = "") -> int:
        length = self._request(m.Read(self.id, "length", path))
        if not isinstance(length, int) or not 0 <= length < 1 << 31:
            raise m.WireError("the worker sent a length that is not a non-negative int")
        return length


class RemoteModule(_Remote):
    """A proxy for an `nn.Module` in the sandbox. Calls run in the sandbox but are differentiable in this process."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._caller.call(self.id, "", (args, kwargs), self._name, self._leaves)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Copy each tensor into the parameter with the same name."""
        self._leaves = {}
        out = Outgoing()
        detached = {name: weight.detach() for name, weight in weights.items()}
        self._request(m.Weights(self.id, self._caller.encode(detached, out)), out)

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters by name, as leaf tensors. Later calls to the module propagate gradients to them."""
        found = self._request(m.Read(self.id, "parameters"))
        if not isinstance(found, dict):
            raise m.WireError("the worker sent module parameters that are not a dict")
        self._leaves = {
            name: weight.requires_grad_(weight.is_floating_point())
            for name, weight in found.items()
            if isinstance(weight, Tensor)
        }
        return self._leaves

    def state(self) -> Any:
        """Return the module's `state_dict()`."""
        return self._request(m.Read(self.id, "state"))

    def get(self, path: str) -> Any:
        """Return the value of the plain attribute at a dotted path."""
        return self._request(m.Read(self.id, "attribute", path))

    def length(self, path: str) -> int:
        """Return the `len()` of the attribute at a dotted path."""
        return self._length(path)

    def train(self, mode: bool = True) -> RemoteModule:
        """Set training mode, as `nn.Module.train` does."""
        self._request(m.Set(self.id, training=mode))
        return self

    def eval(self) -> RemoteModule:
        """Set evaluation mode, as `nn.Module.eval` does."""
        return self.train(False)

    def to(self, target: torch.dtype | str) -> RemoteModule:
        """Convert the parameters to a dtype or move them to a device, as `nn.Module.to` does."""
        self._leaves = {}
        if isinstance(target, str):
            self._caller.call(self.id, "to", ((target,), {}), f"{self._name}.to")
        else:
            self._request(m.Set(self.id, dtype=NAMES[target]))
        return self


class RemoteObject(_Remote):
    """A proxy for an object in the sandbox that is not an `nn.Module`, such as a cache.

    Its attributes are those of the object, and each of its methods runs in the sandbox.
    """

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)
        match self._request(m.Read(self.id, "member", name)):
            case [bool(is_method), value]:
                return method if is_method else value
        raise m.WireError("the worker sent an attribute in an invalid form")

    @property
    def type(self) -> str:
        """Return the name of the object's class."""
        return self._name

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return self._length()


class Connection:
    """A connection to one worker. It converts values, keeps autograd graphs alive and answers calls from the worker."""

    def __init__(self, process: Channel, references: ReferenceProcess | None = None) -> None:
        self._process = process
        self._references = references
        # Keeps generators alive, because the id of a freed generator could be reused.
        self._generators: dict[int, torch.Generator | np.random.Generator] = {}
        self._randoms: set[int] = set()  # the NumPy generators in the current call's arguments
        self._graphs: set[int] = set()  # calls whose autograd graphs are still in the worker
        self._unreachable: list[int] = []  # calls whose graphs the worker may free
        self._has_objects = False  # whether the worker keeps objects for proxies in this process
        self.models = GraderModels()
        # Implementations that the student's code tests, if the exercise is to write a test.
        self.candidates: Any = None
        self.cost: Cost | None = None
        self.changed: list[str] = []
        self.printed = ""
        self.last_call: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None

    # ---- requests

    def request(self, request: m.Request, name: str, out: Outgoing | None = None) -> Any:
        """Send a request and return the decoded answer. Error messages refer to the request's target as `name`.

        This raises StudentError, NotAllowed, WireError, and the exceptions of `process.Process.request`.
        """
        _, answer, payload = self._send(request, name, out)
        return self.decode(answer.result, decode_tensors(answer.result, payload), name)

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
        target's parameters. This raises the same exceptions as `request`.
        """
        leaves = leaves or {}
        args, kwargs = arguments
        if not self.models.answering:
            self.last_call = (name, args, kwargs)
            self.printed = ""
            self._randoms.clear()
            self._forget_graphs()
        out = Outgoing()
        sent: list[Tensor] = []
        data = self.encode([list(args), kwargs], out, sent)
        inputs = [*sent, *leaves.values()]
        grad = torch.is_grad_enabled()
        keep = grad and any(t.requires_grad for t in inputs)
        request = m.Call(target, method, data, keep, grad, measure=self.cost is not None)
        number, answer, payload = self._send(request, name, out)
        if not self.models.answering:
            self.changed = [escaped(name[:MAX_NAME]) for name in answer.changed]
            self.printed = answer.printed[: m.MAX_PRINTED]
            self._advance_randoms(answer.randoms)
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

    def _advance_randoms(self, randoms: list[m.Random]) -> None:
        """Set the NumPy generators in the last call's arguments to the states in which the call left them."""
        for random in randoms:
            generator = self._generators.get(random.id)
            if random.id not in self._randoms or not isinstance(generator, np.random.Generator):
                raise m.WireError("the worker sent the state of a generator that it did not get")
            set_random_state(generator, random.state)

    def _gradients(
        self, call: int, parameters: list[str], inputs: int, name: str
    ) -> Callable[[list[Tensor | None]], list[Tensor | None]]:
        """Return a call's backward function. Once this function is garbage-collected, the worker may free the call's graph."""

        def gradients(upstream: list[Tensor | None]) -> list[Tensor | None]:
            out = Outgoing()
            request = m.Backward(call, self.encode(upstream, out), parameters)
            found = self.request(request, name, out)
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
            self._send(m.Forget(None))

    def _forget_graphs(self) -> None:
        if self._unreachable:
            calls, self._unreachable[:] = list(self._unreachable), []
            self._graphs -= set(calls)
            if not self._graphs:
                self.models.forget_graphs()
            self._send(m.Forget(calls))

    def _send(
        self, request: m.Request, name: str = "", out: Outgoing | None = None
    ) -> tuple[int, m.Answer, bytearray]:
        models = self.models
        if not models.answering:
            models.failure = None
        number, response, payload = self._process.request(request, out or Outgoing(), self.reply)
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
            if isinstance(item, m.Random):
                generator = np.random.default_rng(0)
                set_random_state(generator, item.state)
                return generator
            if isinstance(item, m.Opaque):
                return m.Opaque(escaped(item.type[: m.MAX_TEXT]))
            raise m.WireError("the worker sent a value that only the grader may send")

        return decode_value(data.value, tensors, convert)

    def _encode_object(self, item: Any) -> m.Value:
        if isinstance(item, RemoteModule | RemoteObject):
            return m.Handle(item.id, "")
        if isinstance(item, torch.Generator):
            self._generators[id(item)] = item
            return m.Generator(id(item), item.initial_seed())
        if isinstance(item, np.random.Generator) and (state := random_state(item)):
            self._generators[id(item)] = item
            self._randoms.add(id(item))
            return m.Random(id(item), state)
        if isinstance(item, np.number | np.bool_):
            return opaque(item)
        if isinstance(item, nn.Module):
            return self.models.encode(item)
        if callable(item) and not isinstance(item, type):
            self.models.by_id[id(item)] = item
            return m.Function(id(item), getattr(item, "__name__", "function"))
        raise TypeError(f"a grader cannot send a {type(item).__name__} to the student's code")
