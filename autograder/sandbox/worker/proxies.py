"""Create proxies in the student's process for the grader's models and for reference solutions in other processes.

Calling a proxy sends the arguments to the grader in a request. The result is differentiable with respect to the
tensors that were sent. Entry point: `Proxies`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autograder.protocol import messages as m
from autograder.protocol.autograd import make_differentiable
from autograder.protocol.decoding import decode_tensors, decode_value
from autograder.protocol.encoding import Outgoing
from autograder.sandbox.worker.describe import MODULE
from autograder.sandbox.worker.functional import modules_at, places, tensor_at

SendQuestion = Callable[[m.Response, Outgoing], tuple[m.Reply, bytearray]]
CallPart = Callable[[nn.Module, str, tuple[Any, ...], dict[str, Any]], Any]
ERRORS = (
    *("ArithmeticError", "AssertionError", "AttributeError", "IndexError", "KeyError", "LookupError"),
    *("NotImplementedError", "OverflowError", "RuntimeError", "TypeError", "ValueError"),
)  # fmt: skip


class ProxyPart(nn.Module):
    """A proxy for a submodule of a reference solution. Code in a subclass of the solution may call it."""

    def __init__(self, whole: nn.Module, path: str, call: CallPart) -> None:
        super().__init__()
        self._origin = (
            whole,
            path,
            call,
        )  # a tuple, so that torch does not register the whole as a submodule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Forward the call to the submodule."""
        whole, path, call = self._origin
        return call(whole, path, args, kwargs)


class Proxies:
    """The proxies in one worker. This class creates them and sends their requests to the grader."""

    def __init__(
        self,
        ask: SendQuestion,
        to_wire: Callable[[Any], m.Value],
        from_wire: Callable[[m.Value], Any],
    ) -> None:
        self._ask = ask
        self._to_wire = to_wire
        self._from_wire = from_wire
        self._kept = 0
        self._models: dict[int, nn.Module] = {}

    # ---- the grader's models

    def model(self, item: m.Model) -> nn.Module:
        """Return the proxy for one of the grader's models, switched to that model's mode (training or evaluation)."""
        if item.id not in self._models:
            self._models[item.id] = self._build_model(item)
        model = self._models[item.id]
        model.train(item.training)
        return model

    def modes(self) -> list[tuple[int, bool, bool]]:
        """Return each model's id, whether it is in training mode, and whether any of its submodules is."""
        return [
            (id_, model.training, any(map(_in_training, model.children())))
            for id_, model in self._models.items()
        ]

    def _build_model(self, model: m.Model) -> nn.Module:
        def method(name: str) -> Callable[..., Any]:
            def call(proxy: nn.Module, *args: Any, **kwargs: Any) -> Any:
                training, grad = _in_training(proxy), torch.is_grad_enabled()

                def question(data: m.Data, keep: int) -> m.Ask:
                    return m.Ask(model.id, name, data, training, grad, keep)

                return self._answer([list(args), kwargs], question)

            return call

        kind = type("Model", (nn.Module,), {name: method(name) for name in model.methods})
        proxy: nn.Module = kind()
        # Add a parameter and a submodule in case student code reads a parameter's dtype or sets a submodule's mode.
        proxy.weight = nn.Parameter(torch.zeros(1))
        proxy.part = nn.Identity()
        for name, value in model.attributes:
            setattr(proxy, name, decode_value(value, [], self._from_wire))
        return proxy

    # ---- references

    def reference(self, reference: m.Reference) -> Any:
        """Return a function or class that forwards its calls to the reference solution."""
        name, methods = reference.name, reference.methods
        if methods is None:
            return self._function(name, reference.parameters)
        space = {method: self._method(method, names) for method, names in methods.items()}
        init = self._init(name, reference.parameters)
        return type(name, (nn.Module,), {**space, "__init__": init, "__module__": MODULE})

    def _function(self, name: str, parameters: list[str] | None) -> Callable[..., Any]:
        def function(*args: Any, **kwargs: Any) -> Any:
            return self._refer(name, "", [list(args), _known(kwargs, parameters)])

        function.__name__ = function.__qualname__ = name
        function.__module__ = MODULE
        return function

    def _init(self, name: str, parameters: list[str] | None) -> Callable[..., None]:
        # A function, because `copy.deepcopy` would copy a method together with this object.
        def call_part(
            whole: nn.Module, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            return self._call_object(whole, f"{path}.forward", [list(args), kwargs])

        def __init__(proxy: nn.Module, *args: Any, **kwargs: Any) -> None:
            nn.Module.__init__(proxy)
            arguments = [list(args), _known(kwargs, parameters)]
            _build_proxy(proxy, self._refer_randomly(name, "", arguments), call_part)

        return __init__

    def _method(self, method: str, parameters: list[str] | None) -> Callable[..., Any]:
        def call(proxy: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self._call_object(proxy, method, [list(args), _known(kwargs, parameters)])

        call.__name__ = method
        return call

    def _call_object(self, proxy: nn.Module, method: str, arguments: list[Any]) -> Any:
        """Call a method of a reference object with the proxy's tensors and training modes."""
        made: dict[str, Any] = proxy._reference  # type: ignore[assignment]
        return self._refer_randomly(made["id"], method, [*arguments, *_proxy_state(proxy)])

    def _refer(self, target: str | int, method: str, arguments: list[Any]) -> Any:
        grad = torch.is_grad_enabled()

        def question(data: m.Data, keep: int) -> m.Refer:
            return m.Refer(target, method, data, grad, keep)

        result = self._answer(arguments, question)
        return tuple(result) if isinstance(result, list) else result

    def _refer_randomly(self, target: str | int, method: str, arguments: list[Any]) -> Any:
        """Call a reference solution with this process's random state and then adopt the resulting random state."""
        result, random = self._refer(target, method, [*arguments, torch.get_rng_state()])
        torch.set_rng_state(random)
        return tuple(result) if isinstance(result, list) else result

    # ---- requests to the grader

    def _answer(self, arguments: Any, question: Callable[[m.Data, int], m.Response]) -> Any:
        """Send a request to the grader. The returned result is differentiable with respect to the arguments."""
        out = Outgoing()
        inputs: list[Tensor] = []
        data = out.encode(arguments, self._to_wire, inputs)
        keep = 0
        if torch.is_grad_enabled() and any(t.requires_grad for t in inputs):
            self._kept += 1
            keep = self._kept
        reply, payload = self._send(question(data, keep), out)
        tensors = decode_tensors(reply.answer, payload)
        if keep:
            flags = [meta.requires_grad for meta in reply.answer.tensors]
            tensors = make_differentiable(
                inputs, tensors, flags, lambda upstream: self._gradients(keep, upstream)
            )
        return decode_value(reply.answer.value, tensors, self._from_wire)

    def _gradients(self, keep: int, upstream: list[Tensor | None]) -> list[Tensor | None]:
        out = Outgoing()
        reply, payload = self._send(m.AskBackward(keep, out.encode(upstream, self._to_wire)), out)
        tensors = decode_tensors(reply.answer, payload)
        return decode_value(reply.answer.value, tensors, self._from_wire)  # type: ignore[no-any-return]

    def _send(self, question: m.Response, out: Outgoing) -> tuple[m.Reply, bytearray]:
        reply, payload = self._ask(question, out)
        if reply.error:
            kind = reply.type if reply.type in ERRORS else "RuntimeError"
            raise getattr(builtins, kind)(reply.error)
        return reply, payload


def _known(kwargs: dict[str, Any], parameters: list[str] | None) -> dict[str, Any]:
    """Remove keyword arguments that the reference solution does not accept."""
    if parameters is None:
        return kwargs
    return {name: value for name, value in kwargs.items() if name in parameters}


def _build_proxy(proxy: nn.Module, made: dict[str, Any], call_part: CallPart) -> None:
    """Add the reference object's submodules, parameters, buffers and plain attributes to a proxy."""
    parts = {"": proxy}
    for path, is_list in made["modules"]:
        owner, _, name = path.rpartition(".")
        parts[path] = nn.ModuleList() if is_list else ProxyPart(proxy, path, call_part)
        parts[owner].add_module(name, parts[path])
    # Ensure that a parameter with two names is created only once.
    own: dict[int, nn.Parameter] = {}
    for path, tensor in made["parameters"].items():
        owner, _, name = path.rpartition(".")
        parameter = own.setdefault(
            id(tensor), nn.Parameter(tensor.clone(), tensor.is_floating_point())
        )
        parts[owner].register_parameter(name, parameter)
    for path, tensor in made["buffers"].items():
        owner, _, name = path.rpartition(".")
        parts[owner].register_buffer(name, tensor.clone(), path in made["persistent"])
    for path, value in made["attributes"].items():
        owner, _, name = path.rpartition(".")
        setattr(parts[owner], name, value)
    modules = [path for path, _ in made["modules"]]
    tensors = [*made["parameters"], *made["buffers"]]
    proxy._reference = {  # type: ignore[assignment]
        "id": made["id"],
        "modules": modules,
        "module_places": places(modules, modules),
        "tensors": tensors,
        "tensor_places": places(tensors, modules),
    }


def _proxy_state(proxy: nn.Module) -> tuple[list[Tensor], list[bool]]:
    """Return a proxy's tensors, and the training modes of the proxy and its submodules.

    Raises:
        RuntimeError: A submodule or parameter of the proxy was replaced or removed.
    """
    made: dict[str, Any] = proxy._reference  # type: ignore[assignment]
    _, *submodules = modules_at(proxy, made["module_places"])
    modules = [proxy]
    for path, module in zip(made["modules"], submodules, strict=True):
        if module is None or type(module) not in (ProxyPart, nn.ModuleList):
            raise RuntimeError(
                f"the submodule `{path}` of the reference solution was replaced; leave it unchanged"
            )
        modules.append(module)
    tensors = []
    for path, place in zip(made["tensors"], made["tensor_places"], strict=True):
        tensor = tensor_at(modules, place)
        if tensor is None:
            raise RuntimeError(
                f"the reference solution's parameter `{path}` was removed; leave it in place"
            )
        tensors.append(tensor)
    return tensors, [module.training for module in modules]


def _in_training(model: nn.Module) -> bool:
    """Return whether a model or any of its submodules is in training mode."""
    return any(part.training for part in model.modules())
