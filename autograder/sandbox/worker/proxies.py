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
# The description of the whole proxy, and the position in it: 0 for the whole, or that of a submodule.
Origin = tuple[dict[str, Any], int]
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
        made, position = origin
        path = ["", *made["modules"]][position]
        called = f"{path}.{method}".lstrip(".")
        return self._refer_randomly(made["id"], called, [*arguments, *_proxy_state(proxy, origin)])

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
    modules = [path for path, _ in made["modules"]]
    tensors = [*made["parameters"], *made["buffers"]]
    reference = {
        "id": made["id"],
        "modules": modules,
        "module_places": places(modules, modules),
        "tensors": tensors,
        "tensor_places": places(tensors, modules),
    }
    proxy._origin = reference, 0  # type: ignore[assignment]
    parts = {"": proxy}
    for position, (path, is_list) in enumerate(made["modules"], start=1):
        owner, _, name = path.rpartition(".")
        parts[path] = nn.ModuleList() if is_list else ProxyPart((reference, position), call_part)
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


def _proxy_state(proxy: nn.Module, origin: Origin) -> tuple[list[Tensor | None], list[bool | None]]:
    """Return the tensors and training modes that a call of a proxy or of a submodule's proxy uses.

    For tensors and modules outside the called submodule, the lists contain None.

    Raises:
        RuntimeError: A submodule or parameter of the proxy was replaced or removed.
    """
    made, position = origin
    modules = modules_at(proxy, made["module_places"], position)
    start = ["", *made["modules"]][position]
    modes: list[bool | None] = []
    for path, module in zip(["", *made["modules"]], modules, strict=True):
        used = not start or path == start or path.startswith(f"{start}.")
        if used and path != start and type(module) not in (ProxyPart, nn.ModuleList):
            raise RuntimeError(
                f"the submodule `{path}` of the reference solution was replaced; leave it unchanged"
            )
        modes.append(module.training if used and module is not None else None)
    tensors: list[Tensor | None] = []
    for path, place in zip(made["tensors"], made["tensor_places"], strict=True):
        owner = modules[place[0]]
        tensor = None if owner is None else tensor_at(owner, place[1])
        if tensor is None and modes[place[0]] is not None:
            raise RuntimeError(
                f"the reference solution's parameter `{path}` was removed; leave it in place"
            )
        tensors.append(tensor)
    return tensors, modes


def _in_training(model: nn.Module) -> bool:
    """Return whether a model or any of its submodules is in training mode."""
    return any(part.training for part in model.modules())


PLAIN = (bool, int, float, str)
# The index of the owner in the list of modules, where the root has index 0, and the attribute's name within the owner.
Place = tuple[int, str]


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


def places(paths: Sequence[str], modules: Sequence[str]) -> list[Place]:
    """Split each dotted path into its owner's index and the attribute name. `modules` lists the paths of all submodules."""
    positions = {path: position for position, path in enumerate(["", *modules])}
    split = (path.rpartition(".") for path in paths)
    return [(positions[owner], name) for owner, _, name in split]


def modules_at(
    root: nn.Module, submodules: Sequence[Place], position: int = 0
) -> list[nn.Module | None]:
    """Return all modules below `root` by position, with None for modules that are missing or not below it.

    `position` is the position of `root`. Parents must come before their submodules.
    """
    found: list[nn.Module | None] = [root if position == 0 else None]
    for owner, name in submodules:
        parent = found[owner]
        child = None if parent is None else parent._modules.get(name)
        found.append(root if len(found) == position else child)
    return found


def tensor_at(owner: nn.Module, name: str) -> Tensor | None:
    """Return a module's own parameter or buffer with this name, or None if it does not exist."""
    found = owner._parameters.get(name)
    return owner._buffers.get(name) if found is None else found


class FunctionalModule:
    """A module whose parameters, buffers and training modes are replaced before each call."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        parts = dict(module.named_modules(remove_duplicate=False))
        self._modules = list(parts.values())
        tensors = [
            *dict(module.named_parameters(remove_duplicate=False)),
            *dict(module.named_buffers(remove_duplicate=False)),
        ]
        self._tensors = places(tensors, list(parts)[1:])

    def call(
        self,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        tensors: Sequence[Tensor | None],
        modes: Sequence[bool | None],
    ) -> Any:
        """Call a method with the given parameters, buffers and training modes.

        `tensors` and `modes` are in the same order as in the result of `describe_module`. They contain None for parts that
        the method does not use. `method` is a method of the module or of one of its submodules, such as "norm1.forward".
        """
        for part, training in zip(self._modules, modes, strict=True):
            if training is not None:
                part.training = training
        for (position, name), tensor in zip(self._tensors, tensors, strict=True):
            if tensor is None:
                continue
            owner = self._modules[position]
            kind: dict[str, Any] = (
                owner._parameters if name in owner._parameters else owner._buffers
            )
            kind[name] = tensor
        path, _, name = method.rpartition(".")
        module = self._module.get_submodule(path)
        called = module if name == "forward" else getattr(module, name)
        return called(*args, **kwargs)
