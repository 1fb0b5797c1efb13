"""Create proxies in the student's process for the grader's models and for reference solutions in other processes.

Calling a proxy sends the arguments to the grader in a request. The result is differentiable with respect to the
tensors that were sent. Entry point: `Proxies`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing, decode_tensors, decode_value, make_differentiable
from autograder.sandbox.worker.describe import MODULE

SendQuestion = Callable[[m.Response, Outgoing], tuple[m.Reply, bytearray]]
# The reference object's id, the paths of its modules and tensors, and the path of the proxied module, which is "" for the whole.
Origin = tuple[int, list[str], list[str], str]
CallPart = Callable[[nn.Module, list[Any]], Any]
ERRORS = (
    *("ArithmeticError", "AssertionError", "AttributeError", "IndexError", "KeyError", "LookupError"),
    *("NotImplementedError", "OverflowError", "RuntimeError", "TypeError", "ValueError"),
)  # fmt: skip


class ProxyPart(nn.Module):
    """A proxy for a submodule of a reference solution. Code in a subclass of the solution may call it.

    It does not need the whole proxy, whose other submodules may be replaced or removed.
    """

    def __init__(self, origin: Origin, call: CallPart) -> None:
        super().__init__()
        self._origin = origin
        self._call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Forward the call to the submodule."""
        return self._call(self, [list(args), kwargs])


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

    def function(self, item: m.Function) -> Callable[..., Any]:
        """Return a function that forwards its calls to one of the grader's functions."""

        def function(*args: Any, **kwargs: Any) -> Any:
            grad = torch.is_grad_enabled()

            def question(data: m.Data, keep: int) -> m.Ask:
                return m.Ask(item.id, "", data, False, grad, keep)

            return self._answer([list(args), kwargs], question)

        function.__name__ = function.__qualname__ = item.name
        return function

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
        proxy_class = self._class(reference)
        for method, parameters in methods.items():
            setattr(proxy_class, method, self._method(method, parameters))
        return proxy_class

    def _function(self, name: str, parameters: list[str] | None) -> Callable[..., Any]:
        def function(*args: Any, **kwargs: Any) -> Any:
            return self._refer(name, "", [list(args), _known(kwargs, parameters)])

        function.__name__ = function.__qualname__ = name
        function.__module__ = MODULE
        return function

    def _class(self, reference: m.Reference) -> type[nn.Module]:
        proxies = self

        # A function, because `copy.deepcopy` would copy a method together with the `Proxies`.
        def call_part(part: nn.Module, arguments: list[Any]) -> Any:
            return proxies._call_object(part, "forward", arguments)

        class Proxy(nn.Module):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__()
                arguments = [list(args), _known(kwargs, reference.parameters)]
                made = proxies._refer_randomly(reference.name, "", arguments)
                _build_proxy(self, made, call_part)

        Proxy.__name__ = Proxy.__qualname__ = reference.name
        Proxy.__module__ = MODULE
        return Proxy

    def _method(self, method: str, parameters: list[str] | None) -> Callable[..., Any]:
        def call(proxy: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self._call_object(proxy, method, [list(args), _known(kwargs, parameters)])

        call.__name__ = method
        return call

    def _call_object(self, proxy: nn.Module, method: str, arguments: list[Any]) -> Any:
        """Call a method of a reference object or of its submodule with the proxy's tensors and training modes."""
        origin: Origin = proxy._origin  # type: ignore[assignment]
        id_, _, _, path = origin
        called = f"{path}.{method}".lstrip(".")
        return self._refer_randomly(id_, called, [*arguments, *_proxy_state(proxy, origin)])

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
    modules = ["", *(path for path, _ in made["modules"])]
    whole = made["id"], modules, [*made["parameters"], *made["buffers"]]
    proxy._origin = *whole, ""  # type: ignore[assignment]
    parts = {"": proxy}
    for path, is_list in made["modules"]:
        owner, _, name = path.rpartition(".")
        parts[path] = nn.ModuleList() if is_list else ProxyPart((*whole, path), call_part)
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


def _proxy_state(proxy: nn.Module, origin: Origin) -> tuple[dict[str, Tensor], dict[str, bool]]:
    """Return the tensors and training modes, by path, that a call of a proxy or of a submodule's proxy uses.

    Raises RuntimeError if a submodule or parameter of the proxy was replaced or removed.
    """
    _, paths, tensor_paths, start = origin
    modules: dict[str, nn.Module] = {start: proxy}
    for path in paths:  # parents come before their submodules
        owner, _, name = path.rpartition(".")
        if path == start or owner not in modules:
            continue
        module = modules[owner]._modules.get(name)
        if type(module) not in (ProxyPart, nn.ModuleList):
            raise RuntimeError(
                f"the submodule `{path}` of the reference solution was replaced; leave it unchanged"
            )
        modules[path] = module  # type: ignore[assignment]
    tensors: dict[str, Tensor] = {}
    for path in tensor_paths:
        owner, _, name = path.rpartition(".")
        if owner in modules:
            found: Tensor | None = modules[owner]._parameters.get(name)
            found = modules[owner]._buffers.get(name) if found is None else found
            if found is None:
                raise RuntimeError(
                    f"the reference solution's parameter `{path}` was removed; leave it in place"
                )
            tensors[path] = found
    return tensors, {path: module.training for path, module in modules.items()}


def _in_training(model: nn.Module) -> bool:
    """Return whether a model or any of its submodules is in training mode."""
    return any(part.training for part in model.modules())


PLAIN = (bool, int, float, str)


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Return the data needed to build a proxy: submodules, parameters and buffers by name, and plain attributes."""
    parts = dict(module.named_modules(remove_duplicate=False))
    return {
        "id": id(module),
        "modules": [
            [path, isinstance(part, nn.ModuleList)] for path, part in parts.items() if path
        ],
        "parameters": dict(module.named_parameters(remove_duplicate=False)),
        "buffers": dict(module.named_buffers(remove_duplicate=False)),
        "persistent": list(module.state_dict()),
        "attributes": {
            f"{path}.{name}".lstrip("."): value
            for path, part in parts.items()
            for name, value in vars(part).items()
            if type(value) in PLAIN and not name.startswith("_") and name != "training"
        },
    }


def call_with_state(
    module: nn.Module,
    method: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    modes: Mapping[str, bool],
) -> Any:
    """Call a method of a module, or of one of its submodules, after setting parameters, buffers and training modes by path.

    The method of a submodule has a dotted name, such as "norm1.forward".
    """
    parts = dict(module.named_modules(remove_duplicate=False))
    for path, training in modes.items():
        parts[path].training = training
    for path, tensor in tensors.items():
        owner, _, name = path.rpartition(".")
        own: dict[str, Any] = parts[owner]._parameters
        (own if name in own else parts[owner]._buffers)[name] = tensor
    path, _, name = method.rpartition(".")
    called = parts[path] if name == "forward" else getattr(parts[path], name)
    return called(*args, **kwargs)
