"""The walled process as the graders see it: its functions and modules, called as if they were here."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autograder.execution.handles import Module, Thing
from autograder.execution.references import References
from autograder.protocol import messages as m
from autograder.protocol.autograd import KeptGraph, make_differentiable
from autograder.protocol.encoding import Outgoing, decode_tensors, decode_value
from autograder.protocol.messages import Opaque
from autograder.sandbox.process import LimitExceeded, Reply, ServerLost, WorkerDied

__all__ = ["Cost", "Module", "NotAllowed", "Opaque", "Student", "StudentError", "Thing"]


NOT_DEFINED = (
    "; is it a variable of the notebook? Pass it as an argument, or keep it in an attribute"
)


class Process(Protocol):
    """Answers requests; `process.Process` behind the wall, `local.LocalProcess` without one."""

    def request(
        self, request: m.Request, payload: Outgoing, reply: Reply
    ) -> tuple[int, m.Answer | m.Failure, bytearray]: ...

    def stop(self) -> int: ...


class StudentError(Exception):
    """The student's code raised, or lacks what was asked for: `type` and `text`, and the `line` in the joined source."""

    def __init__(self, what: str, failure: m.Failure) -> None:
        self.type, self.text = failure.type[:200], failure.text[: m.MAX_TEXT]
        self.bases, self.line, self.meta_read = failure.bases, failure.line, failure.meta_read
        if failure.kind == "missing":
            super().__init__(f"`{what}`: {self.text}")
        else:
            hint = NOT_DEFINED if self.type == "NameError" else ""
            super().__init__(f"`{what}` raised {self.type}: {self.text}".rstrip(": ") + hint)


class NotAllowed(Exception):
    """The student's code called what the exercise does not allow."""

    def __init__(self, operators: list[str]) -> None:
        self.operators = [name[:200] for name in operators[:20]]
        super().__init__(", ".join(f"`{name}`" for name in self.operators))


@dataclass
class Cost:
    """What calls took, as only their process can tell: operators of torch, elements of the largest tensor that one gave."""

    operations: int = 0
    largest: int = 0


class Student:
    """The functions and classes of one exercise's code; see graders/README.md for what may be done with them."""

    def __init__(self, process: Process, references: References | None = None) -> None:
        self._process = process
        self._references = references
        self._models: dict[int, nn.Module] = {}
        # KeptGraph, so that no other gets their number.
        self._generators: dict[int, torch.Generator] = {}
        self._asks: dict[int, KeptGraph] = {}
        self._forgotten: list[int] = []
        self._alive: set[int] = set()
        self._raised: BaseException | None = None
        self._replying = False
        self._cost: Cost | None = None
        self.changed: list[str] = []
        self.last_call: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, "", args, kwargs, name)

        return call

    def load(self, load: m.Load) -> list[tuple[int, str, str]]:
        """Run the exercise's code; for each piece that failed its line, the exception's name and text."""
        response, payload = self._request(load, Outgoing(), load.wanted)
        errors = self._decode(response.result, payload, load.wanted)
        if not isinstance(errors, list) or not all(map(_is_error, errors)):
            raise m.WireError("errors that are none")
        return [(line, kind, text) for line, kind, text in errors]

    @contextmanager
    def measuring(self) -> Iterator[Cost]:
        """Add up what the calls inside take."""
        self._cost = Cost()
        try:
            yield self._cost
        finally:
            self._cost = None

    # ---- calls

    def _call(
        self,
        target: str | int,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        what: str,
        module: Module | None = None,
    ) -> Any:
        if not self._replying:
            self.last_call = (what, args, kwargs)
            self._forget()
        out = Outgoing()
        sent: list[Tensor] = []
        data = out.encode([list(args), kwargs], self._to_wire, sent)
        leaves = module.leaves() if module else {}
        inputs = [*sent, *leaves.values()]
        keep = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
        measure = self._cost is not None
        request = m.Call(target, method, data, keep, torch.is_grad_enabled(), measure)
        response, payload = self._request(request, out, what)
        if not self._replying:
            self.changed = [str(name) for name in response.changed]
        if self._cost is not None:
            self._cost.operations += response.operations
            self._cost.largest = max(self._cost.largest, response.largest)
        try:
            tensors = decode_tensors(response.result, payload)
        except m.WireError:
            self._process.stop()
            raise
        if keep:
            flags = [
                meta.requires_grad and t.is_floating_point()
                for meta, t in zip(response.result.tensors, tensors, strict=True)
            ]
            tensors = make_differentiable(
                inputs,
                tensors,
                flags,
                self._gradients(self._number, len(sent), leaves, what, module),
            )
        return self._value(response.result, tensors, what)

    def _gradients(
        self, call: int, sent: int, leaves: dict[str, Tensor], what: str, module: Module | None
    ) -> Callable[[list[Tensor | None]], list[Tensor | None]]:
        """The backward of a call: asks for its gradients there; when it is no longer needed, so is the graph there."""
        parameters = [str(module.id), *leaves] if module and leaves else []
        inputs = sent + len(leaves)

        def gradients(upstream: list[Tensor | None]) -> list[Tensor | None]:
            out = Outgoing()
            request = m.Backward(call, out.encode(upstream, self._to_wire), parameters)
            response, payload = self._request(request, out, what)
            found = self._decode(response.result, payload, what)
            if not isinstance(found, list) or len(found) != inputs:
                raise m.WireError("gradients that do not fit")
            return [g if isinstance(g, Tensor) else None for g in found]

        self._alive.add(call)
        weakref.finalize(gradients, self._forgotten.append, call)
        return gradients

    def _forget(self) -> None:
        if self._forgotten:
            calls, self._forgotten[:] = list(self._forgotten), []
            self._alive -= set(calls)
            if not self._alive:
                self._asks.clear()
            self._request(m.Forget(calls), Outgoing(), "")

    def _request(
        self, request: m.Request, payload: Outgoing, what: str
    ) -> tuple[m.Answer, bytearray]:
        if not self._replying:
            self._raised = None
        self._number, response, data = self._process.request(request, payload, self._reply)
        for id_, training in response.modes:
            # `train` walks through all parts, and most answers change no mode.
            if id_ in self._models and self._models[id_].training != training:
                self._models[id_].train(training)
        if self._raised is not None and not self._replying:
            raise self._raised
        if response.forbidden:
            raise NotAllowed(response.forbidden)
        if isinstance(response, m.Failure):
            raise StudentError(what, response)
        return response, data

    # ---- values

    def _to_wire(self, item: Any) -> m.Value:
        if isinstance(item, Module | Thing):
            return m.Handle(item.id, "")
        if isinstance(item, torch.Generator):
            self._generators[id(item)] = item
            return m.Generator(id(item), item.initial_seed())
        if isinstance(item, nn.Module):
            self._models[id(item)] = item
            attributes = [
                (name, _plain(value))
                for name, value in [*vars(item).items(), *item.named_children()]
                if not name.startswith("_")
                and name != "training"
                and isinstance(value, bool | int | float | str | list | nn.ModuleList)
            ]
            return m.Model(id(item), _methods(item), attributes, item.training)
        raise TypeError(f"a grader can not send a {type(item).__name__}")

    def _decode(self, data: m.Data, payload: bytearray, what: str) -> Any:
        return self._value(data, decode_tensors(data, payload), what)

    def _value(self, data: m.Data, tensors: list[Tensor], what: str) -> Any:
        def convert(item: m.Value) -> Any:
            if isinstance(item, m.Handle):
                module = Module(self, item.id, what)
                return module if item.module else Thing(self, item.id, item.type)
            if isinstance(item, m.Opaque):
                return item
            raise m.WireError("a value that a student's process does not send")

        return decode_value(data.value, tensors, convert)

    # ---- the grader's models

    def _reply(self, question: m.Question, payload: bytearray) -> tuple[m.Reply, Outgoing]:
        """Answer a call of a reference or of a model of the grader; what a test asserts inside the model fails the test."""
        references = self._references
        if isinstance(question, m.Refer):
            if references is None:
                raise m.WireError("a call of a reference where nothing is replaced")
            return references.answer(question, payload)
        if isinstance(question, m.AskBackward) and references and references.owns(question.keep):
            return references.gradients(question, payload)
        out = Outgoing()
        self._replying = True
        try:
            if isinstance(question, m.AskBackward):
                return m.Reply(
                    out.encode(self._ask_gradients(question, payload), self._to_wire)
                ), out
            outputs: list[Tensor] = []
            result, inputs = self._ask(question, payload)
            data = out.encode(result, self._to_wire, outputs)
            if question.keep:
                self._asks[question.keep] = KeptGraph(inputs, outputs)
            return m.Reply(data), out
        except (m.WireError, LimitExceeded, WorkerDied, ServerLost):
            raise
        except AssertionError as error:
            self._raised = error
            return m.Reply(m.Data(None, []), "the call was refused"), Outgoing()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[: m.MAX_TEXT]
            return m.Reply(m.Data(None, []), text), Outgoing()
        finally:
            self._replying = False

    def _ask(self, question: m.Ask, payload: bytearray) -> tuple[Any, list[Tensor]]:
        model = self._models.get(question.model)
        if model is None or question.method not in _methods(model):
            raise m.WireError("a call of a model that the grader did not send")
        tensors = decode_tensors(question.arguments, payload)
        for tensor, meta in zip(tensors, question.arguments.tensors, strict=True):
            if meta.requires_grad and tensor.is_floating_point():
                tensor.requires_grad_()
        decoded = self._value(question.arguments, tensors, question.method)
        match decoded:
            case [list(args), dict(kwargs)]:
                pass
            case _:
                raise m.WireError("arguments that are none")
        was = model.training
        if was != question.training:
            model.train(question.training)
        with torch.set_grad_enabled(question.grad):
            result = getattr(model, question.method)(*args, **kwargs)
        if model.training != was:
            model.train(was)
        return result, tensors

    def _ask_gradients(self, question: m.AskBackward, payload: bytearray) -> Any:
        kept = self._asks.get(question.keep)
        upstream = self._decode(question.upstream, payload, "")
        if kept is None or not isinstance(upstream, list) or len(upstream) != len(kept.outputs):
            raise m.WireError("gradients that do not fit")
        return kept.gradients(upstream)


def _is_error(item: Any) -> bool:
    """Whether an item is a line, the name of an exception and its text."""
    return isinstance(item, list) and [type(part) for part in item] == [int, str, str]


def _plain(value: Any) -> m.Value:
    """A plain attribute; of a list only its length is seen, as of a model's blocks."""
    return m.Items([None] * len(value)) if isinstance(value, list | nn.ModuleList) else value


def _methods(model: nn.Module) -> list[str]:
    """The public methods that the grader's model defines itself."""
    return sorted(
        {
            name
            for kind in type(model).__mro__
            if kind not in nn.Module.__mro__
            for name, value in vars(kind).items()
            if inspect.isfunction(value) and not name.startswith("_")
        }
    )
