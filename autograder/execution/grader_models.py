"""Answer a student's calls to the models and functions that a test passes as arguments. Entry point: `GraderModels`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autograder.protocol import messages as m
from autograder.protocol.encoding import KeptGraph, Outgoing, decode_tensors
from autograder.sandbox.errors import LimitExceeded, ServerLost, WorkerDied
from autograder.sandbox.walls.rlimits import address_space, limited_memory


class Codec(Protocol):
    """Converts the values of calls: `student.Connection`."""

    def encode(self, value: Any, out: Outgoing, sent: list[Tensor] | None = None) -> m.Data: ...

    def decode(self, data: m.Data, tensors: list[Any], name: str) -> Any: ...


# Maximum number of bytes that the models may use for all calls in one exercise, including kept graphs. Limits on a
# call's inputs are not enough, because small inputs can broadcast to huge results.
MAX_MEMORY = 1 << 30


class GraderModels:
    """The models and functions that a test passes to the student's code, which calls them. They run in this process."""

    def __init__(self) -> None:
        self._graphs: dict[int, KeptGraph] = {}
        # Keeps every model alive, so that no id is reused while the worker still refers to it.
        self.by_id: dict[int, Callable[..., Any]] = {}
        self.answering = False
        self.failure: AssertionError | None = None  # an assertion that failed inside a model
        self._memory: int | None = None  # the limit on this process's address space during calls

    def encode(self, model: nn.Module) -> m.Model:
        """Register a model and describe its public methods and plain attributes."""
        self.by_id[id(model)] = model
        attributes = [
            (name, _plain(value))
            for name, value in [*vars(model).items(), *model.named_children()]
            if not name.startswith("_")
            and name != "training"
            and isinstance(value, bool | int | float | str | list | nn.ModuleList)
        ]
        return m.Model(id(model), _methods(model), attributes, model.training)

    def set_modes(self, modes: list[tuple[int, bool, bool]]) -> None:
        """Put each model and its submodules into the training or evaluation mode that the student's code last set."""
        # A forged list may contain a model many times.
        for id_, training, inner in {entry[0]: entry for entry in modes}.values():
            model = self.by_id.get(id_)
            # If nothing changed, submodules keep their modes, which may differ from the model's.
            if not isinstance(model, nn.Module) or training == inner == model.training:
                continue
            model.training = training
            for child in model.children():
                child.train(inner)

    def forget_graphs(self) -> None:
        """Free the autograd graphs of all calls to the models."""
        self._graphs.clear()

    def answer(
        self, question: m.Ask | m.AskBackward, payload: bytearray, codec: Codec
    ) -> tuple[m.Reply, Outgoing]:
        """Call a model, or compute the gradients for an earlier call.

        An exception inside the model is re-raised in the student's code. An AssertionError is also stored in `failure`.
        """
        out = Outgoing()
        self.answering = True
        try:
            with self._limited_memory():
                return m.Reply(self._result(question, payload, codec, out)), out
        except (m.WireError, LimitExceeded, WorkerDied, ServerLost):
            raise
        except AssertionError as error:
            self.failure = error
            return m.Reply(m.Data(None, []), "the grader rejected this call"), Outgoing()
        except Exception as error:
            kind = type(error).__name__
            is_function = isinstance(question, m.Ask) and not question.method
            text = str(error) or kind if is_function else f"{kind}: {error}"
            kind = kind if is_function else "RuntimeError"
            return m.Reply(m.Data(None, []), text[: m.MAX_TEXT], kind), Outgoing()
        finally:
            self.answering = False

    def _limited_memory(self) -> AbstractContextManager[None]:
        """Limit this process's memory. The limit includes the memory that earlier calls still occupy."""
        if self._memory is None and Path("/proc/self/statm").exists():
            self._memory = address_space() + MAX_MEMORY
        return nullcontext() if self._memory is None else limited_memory(self._memory)

    def _result(
        self, question: m.Ask | m.AskBackward, payload: bytearray, codec: Codec, out: Outgoing
    ) -> m.Data:
        if isinstance(question, m.AskBackward):
            return codec.encode(self._gradients(question, payload, codec), out)
        outputs: list[Tensor] = []
        result, inputs = self._call(question, payload, codec)
        data = codec.encode(result, out, outputs)
        if question.keep:
            self._graphs[question.keep] = KeptGraph(inputs, outputs)
        return data

    def _call(self, question: m.Ask, payload: bytearray, codec: Codec) -> tuple[Any, list[Tensor]]:
        model = self.by_id.get(question.model)
        methods = _methods(model) if isinstance(model, nn.Module) else [""]
        if model is None or question.method not in methods:
            raise m.WireError("the worker called a model or method that the grader did not send")
        tensors = decode_tensors(question.arguments, payload)
        for tensor, meta in zip(tensors, question.arguments.tensors, strict=True):
            if meta.requires_grad and tensor.is_floating_point():
                tensor.requires_grad_()
        decoded = codec.decode(question.arguments, tensors, question.method)
        match decoded:
            case [list(args), dict(kwargs)]:
                pass
            case _:
                raise m.WireError("the worker sent call arguments that are not a list and a dict")
        inputs = [tensor for tensor in tensors if isinstance(tensor, Tensor)]
        if not isinstance(model, nn.Module):
            with torch.set_grad_enabled(question.grad):
                return model(*args, **kwargs), inputs
        was_training = model.training
        if was_training != question.training:
            model.train(question.training)
        with torch.set_grad_enabled(question.grad):
            result = getattr(model, question.method)(*args, **kwargs)
        if model.training != was_training:
            model.train(was_training)
        return result, inputs

    def _gradients(
        self, question: m.AskBackward, payload: bytearray, codec: Codec
    ) -> list[Tensor | None]:
        graph = self._graphs.get(question.keep)
        upstream = codec.decode(question.upstream, decode_tensors(question.upstream, payload), "")
        if graph is None or not isinstance(upstream, list) or len(upstream) != len(graph.outputs):
            raise m.WireError("the worker sent gradients that do not match the call")
        return graph.gradients(upstream)


def _plain(value: Any) -> m.Value:
    """Encode a plain attribute of a model. For a list, such as the model's blocks, send only its length."""
    return m.Items([None] * len(value)) if isinstance(value, list | nn.ModuleList) else value


def _methods(model: nn.Module) -> list[str]:
    """Return the names of the public methods that the grader's model class defines."""
    return sorted(
        {
            name
            for class_ in type(model).__mro__
            if class_ not in nn.Module.__mro__
            for name, value in vars(class_).items()
            if inspect.isfunction(value) and not name.startswith("_")
        }
    )
