"""Worker service: run a student's code as a module and answer requests. Entry points: `Worker` and `serve`.

Once student code has run, nothing in this process can be trusted, so this module does not try to resist attacks.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import io
import linecache
import math
import random
import socket
import struct
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autograder.plain_text import escape_surrogates, list_names
from autograder.protocol import frames
from autograder.protocol import messages as m
from autograder.protocol.encoding import (
    DTYPES,
    KeptGraph,
    Outgoing,
    decode_tensors,
    decode_value,
    random_state,
    set_random_state,
)
from autograder.sandbox.worker.describe import (
    MODULE,
    SUBMISSION_FILE,
    is_meta_read,
    kind_of,
    line_of,
    name_of,
    opaque,
    text_of,
)
from autograder.sandbox.worker.forbid import Forbidden, forbid
from autograder.sandbox.worker.proxies import (
    Proxies,
    SendQuestion,
    call_with_state,
    describe_module,
)
from autograder.sandbox.worker.warm_up import CostCounter

# The first four fields of the state of torch's Mersenne Twister. They are the seed, the number of words left before new
# words are generated (plus 1), whether the generator is seeded, and the position of the next word.
STATE = struct.Struct("=QiiQ")
MAX_POSITION = 625  # `left + next` after the first number is drawn; there are 624 words


def run_pieces(
    module: types.ModuleType,
    lines: Sequence[str],
    pieces: Sequence[tuple[int, int]],
    flags: int,
    announce: Callable[[int], None],
) -> list[tuple[int, BaseException]]:
    """Run pieces of a source file in a module. Pieces that raise NameError are rerun after the others.

    Args:
        module: The module whose namespace the pieces share.
        lines: The lines of the source file.
        pieces: The first and last line numbers of each piece, counted from 1.
        flags: The compiler flags for the source.
        announce: A function to call with a piece's first line number before each run of that piece.

    Returns:
        The exceptions raised by pieces that never succeeded, each with the piece's first line number.
    """
    pending = [
        (first, "\n" * (first - 1) + "".join(lines[first - 1 : last])) for first, last in pieces
    ]
    errors: list[tuple[int, BaseException]] = []
    while pending:
        postponed: list[tuple[int, str]] = []
        missing: list[tuple[int, BaseException]] = []
        for first, source in pending:
            announce(first)
            try:
                code = compile(source, SUBMISSION_FILE, "exec", flags, dont_inherit=True)
                exec(code, module.__dict__)
                _use_available_device()
            except NameError as error:
                postponed.append((first, source))
                missing.append((first, error))
            except BaseException as error:
                errors.append((first, error))
        if len(postponed) == len(pending):
            errors += missing
            break
        pending = postponed
    return errors


def _use_available_device() -> None:
    """Reset torch's default device if this machine lacks it. The student may have selected a GPU."""
    try:
        torch.empty(0)
    except Exception:
        torch.set_default_device(None)


def seed_everything(seed: int) -> None:
    """Seed every global random number generator that student code may use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # `torch.manual_seed` searches for other devices on each call.
    torch.default_generator.manual_seed(seed)


def set_torch_state(state: torch.Tensor) -> None:
    """Set torch's random state to a state received from another process.

    Raises:
        ValueError: The state is invalid. torch does not check this and would read past the end of the state.
    """
    _, left, seeded, position = STATE.unpack_from(state.contiguous().numpy().tobytes())
    if seeded != 1 or left < 1 or left + position > MAX_POSITION:
        raise ValueError("the random state is invalid")
    torch.set_rng_state(state)


class NotFound(Exception):
    """Raised when an object that the grader requested does not exist. The message states what is missing."""


def load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy tensors into a module's parameters by name.

    Raises:
        NotFound: There is no parameter with that name and shape.
    """
    named = _parameters(module)
    for name, weight in weights.items():
        if name not in named:
            found = list_names((f"`{n}`" for n in named), most=12) or "none"
            raise NotFound(f"there is no parameter `{name}`; the parameters are: {found}")
        shape = tuple(named[name].shape)
        if shape != tuple(weight.shape):
            raise NotFound(
                f"the parameter `{name}` should have shape {tuple(weight.shape)}, not {shape}"
            )
    with torch.no_grad():
        for name, weight in weights.items():
            named[name].copy_(weight)


def read(module: nn.Module, request: m.Read) -> Any:
    """Return a module's parameters, its state dict, the attribute at a dotted path, or that attribute's length.

    For a "member" of another object, return whether it is a method, and otherwise its value.
    """
    match request.what:
        case "member":
            member = attribute(module, request.path)
            return [True, None] if callable(member) else [False, member]
        case "parameters":
            return {name: value.detach() for name, value in _parameters(module).items()}
        case "state":
            return dict(module.state_dict())
        case "attribute":
            return attribute(module, request.path)
        case "length":
            part = attribute(module, request.path)
            try:
                return len(part)
            except TypeError:
                raise NotFound(f"`{request.path}` has no length") from None
    raise m.WireError("the grader sent a read request of an unknown kind")


def _parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return a module's parameters, keyed by name.

    Raises:
        NotFound: A parameter has no shape yet.
    """
    named = dict(module.named_parameters(remove_duplicate=False))
    for name, value in named.items():
        if isinstance(value, nn.parameter.UninitializedParameter):
            raise NotFound(
                f"the parameter `{name}` has no shape before the first call: replace the lazy layer, such as "
                "`nn.LazyLinear`, with one that takes both sizes, such as `nn.Linear`"
            )
    return named


def attribute(module: nn.Module, path: str) -> Any:
    """Return the attribute at a dotted path. Numbers in the path are indices.

    Raises:
        NotFound: The attribute does not exist.
    """
    target: Any = module
    for name in filter(None, path.split(".")):
        try:
            target = target[int(name)] if name.isdigit() else getattr(target, name)
        except (AttributeError, IndexError, TypeError, KeyError):
            raise NotFound(f"there is no attribute `{path}`") from None
    return target


def changed_arguments(
    function: Callable[..., Any],
    args: list[Any],
    kwargs: dict[str, Any],
    tensors: list[Any],
    before: list[Any],
) -> list[str]:
    """Return the names of arguments whose tensors or arrays the call changed in place."""
    changed = {
        id(tensor)
        for tensor, old in zip(tensors, before, strict=True)
        if old is not None and _is_changed(old, tensor)
    }
    if not changed:
        return []
    try:
        called = function.forward if isinstance(function, nn.Module) else function
        names = list(inspect.signature(called).parameters)
    except (TypeError, ValueError):
        names = []
    names += [f"argument {i + 1}" for i in range(len(names), len(args))]
    given = [*zip(names, args, strict=False), *kwargs.items()]
    return [escape_surrogates(str(name)[:200]) for name, value in given if id(value) in changed]


def _copy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    return None if value.is_meta else value.detach().clone()


def _is_changed(old: Any, new: Any) -> bool:
    if isinstance(old, np.ndarray):
        return bool(old.shape != new.shape or old.tobytes() != new.tobytes())
    return not torch.equal(old, new.detach())


class Worker:
    """One exercise's code, the objects that it created, and the calls whose graphs are kept."""

    def __init__(self, ask: SendQuestion, announce: Callable[[m.Running], None]) -> None:
        self._proxies = Proxies(ask, self._to_wire, self._from_wire)
        self._announce = announce
        self._module = types.ModuleType(MODULE)
        self._objects: dict[int, Any] = {}
        self._kept: dict[int, KeptGraph] = {}
        self._generators: dict[int, torch.Generator] = {}
        self._randoms: dict[int, np.random.Generator] = {}
        self._received: set[int] = set()  # the keys of `_randoms` in the current call's arguments
        self.hits: list[str] = []

    def handle(
        self, number: int, request: m.Request, payload: bytearray
    ) -> tuple[m.Response, Outgoing]:
        """Answer one request. Any exception raised by the student's code becomes a `Failure`."""
        out = Outgoing()
        try:
            return self._respond(number, request, payload, out), out
        except NotFound as error:
            return m.Failure("missing", "", text_of(error)), Outgoing()
        except BaseException as error:
            return self._failure(error), Outgoing()

    def _respond(
        self, number: int, request: m.Request, payload: bytearray, out: Outgoing
    ) -> m.Response:
        match request:
            case m.Load():
                return m.Answer(out.encode(self._load(request), opaque))
            case m.Call():
                return self._call(number, request, payload, out)
            case m.Make():
                return m.Answer(out.encode(self._make(request, payload), opaque))
            case m.Apply():
                return self._apply(number, request, payload, out)
            case m.Backward():
                return self._backward(request, payload, out)
            case m.Weights():
                weights = self._decode(request.weights, payload)
                load_weights(self._objects[request.module], weights)
            case m.Read():
                convert = self._to_wire if request.what == "member" else opaque
                return m.Answer(out.encode(read(self._objects[request.module], request), convert))
            case m.Set():
                module = self._objects[request.module]
                if request.training is not None:
                    module.train(request.training)
                if request.dtype is not None:
                    module.to(DTYPES[request.dtype])
            case m.Forget():
                self._forget(request.calls)
        return m.Answer(out.encode(None, opaque))

    # ---- code

    def _load(self, request: m.Load) -> list[list[Any]]:
        """Run the source and return an error for each piece that never ran successfully.

        An error consists of the failed piece's first line, the exception's type and its message.
        """
        seed_everything(request.seed)
        self._generators.clear()
        self._randoms.clear()
        forbid(request.operators, request.attributes, self.hits)
        sys.modules[MODULE] = self._module
        self._module.__file__ = SUBMISSION_FILE
        # `splitlines` would also split at form feeds and Unicode line separators, which are not line breaks in Python.
        lines = [f"{line}\n" for line in request.source.split("\n")]
        linecache.cache[SUBMISSION_FILE] = (len(request.source), None, lines, SUBMISSION_FILE)
        for reference in request.references:
            setattr(self._module, reference.name, self._proxies.reference(reference))
        errors = run_pieces(
            self._module,
            lines,
            request.pieces,
            request.flags,
            lambda line: self._announce(m.Running(line)),
        )
        if errors and not hasattr(self._module, request.wanted):
            raise errors[0][1]
        return [[first, type(error).__name__, text_of(error)] for first, error in errors]

    # ---- calls

    def _call(self, number: int, request: m.Call, payload: bytearray, out: Outgoing) -> m.Response:
        self._received.clear()
        tensors, (args, kwargs) = self._decode_arguments(request, payload)
        randoms = [*self._received]
        before = [_copy(tensor) for tensor in tensors]
        function = self._target(request)
        cost = CostCounter() if request.measure else contextlib.nullcontext()
        output = PrintedText()
        with torch.set_grad_enabled(request.grad), cost, contextlib.redirect_stdout(output):
            result = function(*args, **kwargs)
        return m.Answer(
            self._encode_result(number, request, tensors, result, out),
            changed_arguments(function, args, kwargs, tensors, before),
            self._proxies.modes(),
            self.hits,
            *((cost.operations, cost.largest) if isinstance(cost, CostCounter) else (0, 0)),
            escape_surrogates(output.text),
            [m.Random(id_, random_state(self._randoms[id_]) or b"") for id_ in randoms],
        )

    def _target(self, request: m.Call) -> Callable[..., Any]:
        if isinstance(request.target, str):
            try:
                target = getattr(self._module, request.target)
            except AttributeError:
                raise NotFound(f"`{request.target}` is not defined") from None
        else:
            target = self._objects[request.target]
            if request.method:
                target = attribute(target, request.method)
        if not callable(target):
            name = request.method or request.target
            raise NotFound(f"`{name}` is {m.Opaque(kind_of(target))}, not a function")
        return target  # type: ignore[no-any-return]

    def _make(self, request: m.Make, payload: bytearray) -> tuple[dict[str, Any], Tensor]:
        args, kwargs, random = self._decode(request.arguments, payload)
        set_torch_state(random)
        made = getattr(self._module, request.target)(*args, **kwargs)
        self._objects[id(made)] = made
        return describe_module(made), torch.get_rng_state()

    def _apply(
        self, number: int, request: m.Apply, payload: bytearray, out: Outgoing
    ) -> m.Response:
        tensors, (*arguments, random) = self._decode_arguments(request, payload)
        set_torch_state(random)
        with torch.set_grad_enabled(request.grad):
            result = call_with_state(self._objects[request.target], request.method, *arguments)
        returned = result, torch.get_rng_state()
        return m.Answer(self._encode_result(number, request, tensors, returned, out))

    def _backward(self, request: m.Backward, payload: bytearray, out: Outgoing) -> m.Response:
        kept = self._kept[request.call]
        upstream = self._decode(request.upstream, payload)
        parameters: list[Tensor] = []
        if request.parameters:
            module, *names = request.parameters
            named = dict(self._objects[int(module)].named_parameters(remove_duplicate=False))
            parameters = [named[name] for name in names]
        return m.Answer(out.encode(kept.gradients(upstream, parameters), opaque))

    def _forget(self, calls: list[int] | None) -> None:
        for call in calls or ():
            self._kept.pop(call, None)
        if calls is None:
            self._kept.clear()
            if self._objects:
                self._objects.clear()
                gc.collect()  # a module may be part of a reference cycle

    # ---- values

    def _decode_arguments(
        self, request: m.Call | m.Apply, payload: bytearray
    ) -> tuple[list[Any], Any]:
        tensors = decode_tensors(request.arguments, payload)
        for tensor, meta in zip(tensors, request.arguments.tensors, strict=True):
            if meta.requires_grad:
                tensor.requires_grad_()
        return tensors, decode_value(request.arguments.value, tensors, self._from_wire)

    def _encode_result(
        self,
        number: int,
        request: m.Call | m.Apply,
        inputs: list[Any],
        result: Any,
        out: Outgoing,
    ) -> m.Data:
        outputs: list[Tensor] = []
        data = out.encode(result, self._to_wire, outputs)
        if request.keep:
            tensors = [each for each in inputs if isinstance(each, Tensor)]
            self._kept[number] = KeptGraph(tensors, outputs)
        return data

    def _decode(self, data: m.Data, payload: bytearray) -> Any:
        return decode_value(data.value, decode_tensors(data, payload), self._from_wire)

    def _to_wire(self, item: Any) -> m.Value:
        module = isinstance(item, nn.Module)
        if module or type(item).__module__ == MODULE:
            self._objects[id(item)] = item
            return m.Handle(id(item), name_of(type(item)), module)
        if isinstance(item, np.random.Generator) and (state := random_state(item)):
            return m.Random(0, state)
        return opaque(item)

    def _from_wire(self, item: m.Value) -> Any:
        if isinstance(item, m.Handle):
            return self._objects[item.id]
        if isinstance(item, m.Generator):
            new = torch.Generator().manual_seed(item.seed)
            return self._generators.setdefault(item.id, new)
        if isinstance(item, m.Random):
            random = self._randoms.setdefault(item.id, np.random.default_rng(0))
            set_random_state(random, item.state)
            self._received.add(item.id)
            return random
        if isinstance(item, m.Model):
            return self._proxies.model(item)
        if isinstance(item, m.Function):
            return self._proxies.function(item)
        if isinstance(item, m.Opaque):
            raise TypeError(f"a grader cannot send {item} to the student's code")
        raise m.WireError("the message contains a value that the grader never sends")

    def _failure(self, error: BaseException) -> m.Failure:
        bases = [name_of(base) for base in type(error).__mro__][:20]
        kind = "forbidden" if isinstance(error, Forbidden) else "raised"
        return m.Failure(
            kind,
            name_of(type(error)),
            text_of(error),
            bases,
            line_of(error),
            self.hits[:20],
            self._proxies.modes(),
            is_meta_read(error),
        )


class DiscardedOutput(io.TextIOBase):
    """A text stream that discards everything written to it."""

    def write(self, text: str) -> int:
        return len(text)

    def writable(self) -> bool:
        return True


class PrintedText(DiscardedOutput):
    """A text stream that keeps only the beginning of what is written to it."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._left = m.MAX_PRINTED

    def write(self, text: str) -> int:
        if self._left:
            self._parts.append(text[: self._left])
            self._left -= len(self._parts[-1])
        return len(text)

    @property
    def text(self) -> str:
        """Return the text that was kept."""
        return "".join(self._parts)


def warm_up() -> None:
    """Import and initialise the libraries that workers use."""
    # The grader also imports this module, to run references, but does not need the warm-up.
    from autograder.sandbox.worker.warm_up import warm_up

    warm_up()


def prepare(data: bytes) -> None:
    """Do nothing, because workers need no data before they are forked."""


def serve(connection: socket.socket) -> None:
    """Answer requests until the grader hangs up."""
    number = 0

    def respond(response: m.Response, out: Outgoing) -> None:
        frames.send(connection, m.NumberedResponse(number, response), out, math.inf)

    def ask(question: m.Response, out: Outgoing) -> tuple[m.Reply, bytearray]:
        nonlocal number
        asked = number
        respond(question, out)
        while True:
            message, payload = frames.receive(connection, frames.REQUESTS, math.inf)
            number = message.number
            if isinstance(message.request, m.Reply):
                assert number == asked
                return message.request, payload
            # One of the grader's models is using an object in this process, such as a cache.
            respond(*worker.handle(number, message.request, payload))

    # torch recreates its thread pool after a fork. Trigger this now to prevent a race between student threads.
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr = DiscardedOutput()
    worker = Worker(ask, lambda running: respond(running, Outgoing()))
    with contextlib.suppress(ConnectionError):
        while True:
            message, payload = frames.receive(connection, frames.REQUESTS, math.inf)
            number = message.number
            respond(*worker.handle(number, message.request, payload))
