"""What the tests of an exercise ask, recorded on one solution and asked again of another, whose answers can then be compared."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor, nn

from autograder.execution.connection import Process
from autograder.execution.references import ReferenceProcess
from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing, decode_tensors
from autograder.sandbox.process import Reply

# Relative and absolute; wider than the graders': two ways to write one mistake round differently, far positions' angles most.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}

KIND = " kind"  # after the place of a tensor: what it is, whatever its values are
ASKED = "asked"  # of the grader's models: in which modes, and with what
WITH = f"with {ASKED}"
RAISED = REFUSED, FAILED = "ValueError", "failed"  # what is kept of an exception
READ = "read"  # of parameters, which may begin as one likes
# Bytes of all answers of a submission's code, which are kept at once; those of a reference or a known mistake are far fewer.
MAX_ANSWERS = 64 << 20
LEAF = 400  # of a leaf besides its tensor: its place, its kind

Leaf = Tensor | bool | int | float | str | None
Leaves = dict[str, Leaf]


@dataclass(frozen=True)
class Exchange:
    """One request of a test with its response, and the grader's models that it hands over as they were before.

    The models themselves are `kept`, so that no other one is given their number.
    """

    request: m.Request
    payload: Outgoing
    number: int
    response: m.Answer | m.Failure
    models: Mapping[int, nn.Module]
    kept: Sequence[nn.Module]
    leaves: Leaves


class Recorder:
    """A process that writes down what it is asked."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._asking = False
        self.exchanges: list[Exchange] = []
        self.student = Student(self)

    def request(
        self, request: m.Request, payload: Outgoing, reply: Reply
    ) -> tuple[int, m.Answer | m.Failure, bytearray]:
        """See `process.Process.request`."""
        # A model of the grader asks again when it is called again; when memory is given back is chance.
        if self._asking or isinstance(request, m.Forget):
            return self._process.request(request, payload, reply)
        models = {id_: self._copy(id_) for id_ in _models(request)}
        overheard = _Overheard(reply)
        self._asking = True
        try:
            number, response, data = self._process.request(request, payload, overheard)
        finally:
            self._asking = False
        leaves = _answer(response, data, overheard, models)
        leaves = _comparable(leaves, {}, request)
        kept = [self.student.connection.models.by_id[id_] for id_ in models]
        self.exchanges.append(Exchange(request, payload, number, response, models, kept, leaves))
        return number, response, data

    def _copy(self, id_: int) -> nn.Module:
        # Handles that a model holds refer to the student, which must stay one.
        return copy.deepcopy(
            self.student.connection.models.by_id[id_],
            {id(self.student.connection): self.student.connection},
        )

    def stop(self) -> int:
        """End the process."""
        return self._process.stop()


class _Overheard:
    """Answers for the grader's models, and notes in which modes they were asked, and for what."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.modes: set[str] = set()
        self.inputs: set[str] = set()

    def __call__(self, question: m.Question, payload: bytearray) -> tuple[m.Reply, Outgoing]:
        if isinstance(question, m.Ask):
            how = f"{question.method} training={question.training} grad={question.grad}"
            self.modes.add(how)
            shapes = [tuple(tensor.shape) for tensor in question.arguments.tensors]
            objects = list(_ids(question.arguments.value, m.Handle))
            different = f"{len(objects)} objects, {len(set(objects))} of them different"
            self.inputs.add(f"{question.method} {shapes} {different}")
        return self._reply(question, payload)


def replay(
    exchanges: Sequence[Exchange],
    process: Process,
    references: ReferenceProcess | None = None,
    most: int = MAX_ANSWERS,
) -> list[Leaves]:
    """Ask another process the same; an answer for each exchange, empty where that refers to what is not there.

    Raises:
        WireError: the answers are larger than `most` bytes. LimitExceeded, WorkerDied, WireError: as `process.Process.request`.
    """
    student = Student(process, references)
    objects: dict[int, int] = {}
    numbers: dict[int, int] = {}
    answers: list[Leaves] = []
    for exchange in exchanges:
        try:
            request = _addressed(exchange.request, objects, numbers)
        except KeyError:
            answers.append({})
            continue
        student.connection.models.by_id |= {
            id_: copy.deepcopy(model) for id_, model in exchange.models.items()
        }
        overheard = _Overheard(student.connection.reply)
        number, response, data = process.request(request, exchange.payload, overheard)
        if isinstance(response, m.Answer) and isinstance(exchange.response, m.Answer):
            numbers[exchange.number] = number
            objects |= _pairs(exchange.response.result.value, response.result.value)
        leaves = _answer(response, data, overheard, exchange.models)
        most -= size_of(leaves)
        if most < 0:
            raise m.WireError("answers that are larger than those of any known mistake")
        answers.append(_comparable(leaves, exchange.leaves, exchange.request))
    process.request(m.Forget(list(numbers.values())), Outgoing(), student.connection.reply)
    return answers


def _addressed(
    request: m.Request, objects: Mapping[int, int], numbers: Mapping[int, int]
) -> m.Request:
    """The request with the objects and call numbers of another process; KeyError where that has none."""
    change = msgspec.structs.replace
    match request:
        case m.Call():
            target = request.target
            target = target if isinstance(target, str) else objects[target]
            value = _readdressed(request.arguments.value, objects)
            arguments = change(request.arguments, value=value)
            return change(request, target=target, arguments=arguments)
        case m.Backward():
            parameters = request.parameters
            if parameters:
                parameters = [str(objects[int(parameters[0])]), *parameters[1:]]
            return change(request, call=numbers[request.call], parameters=parameters)
        case m.Weights() | m.Read() | m.Set():
            return change(request, module=objects[request.module])
    raise TypeError(f"a test does not send a {type(request).__name__}")


def _readdressed(value: m.Value, objects: Mapping[int, int]) -> m.Value:
    match value:
        case m.Handle():
            return msgspec.structs.replace(value, id=objects[value.id])
        case m.Items():
            return m.Items([_readdressed(item, objects) for item in value.items])
        case m.Pairs():
            return m.Pairs([(name, _readdressed(item, objects)) for name, item in value.items])
    return value


def _pairs(recorded: m.Value, seen: m.Value) -> dict[int, int]:
    """The objects of one answer and those at their places in another."""
    match recorded, seen:
        case m.Handle(), m.Handle():
            return {recorded.id: seen.id}
        case m.Items(), m.Items():
            found: dict[int, int] = {}
            for first, second in zip(recorded.items, seen.items, strict=False):
                found |= _pairs(first, second)
            return found
    return {}


def _models(request: m.Request) -> set[int]:
    """The grader's models among the arguments of a request."""
    arguments = request.arguments.value if isinstance(request, m.Call) else None
    return set(_ids(arguments, m.Model))


def _ids(value: m.Value, kind: type[m.Model | m.Handle]) -> Iterator[int]:
    """The numbers of all models, or objects, in a value."""
    match value:
        case m.Model() | m.Handle():
            if isinstance(value, kind):
                yield value.id
        case m.Items():
            for item in value.items:
                yield from _ids(item, kind)
        case m.Pairs():
            for _, item in value.items:
                yield from _ids(item, kind)


# ---- answers


def _answer(
    response: m.Answer | m.Failure,
    payload: bytearray,
    overheard: _Overheard,
    models: Collection[int],
) -> Leaves:
    """An answer as tensors and plain values by their place in it, with what else is seen of the call."""
    asked: Leaves = {
        f"modes {ASKED}": "; ".join(sorted(overheard.modes)),
        WITH: "; ".join(sorted(overheard.inputs)),
    }
    if isinstance(response, m.Failure):
        return {"failure": _kind(response)} | asked
    # Without the rest of their message; one that the answer holds in many places is kept once.
    tensors = [tensor.clone() for tensor in decode_tensors(response.result, payload)]
    seen: Leaves = {
        "changed": " ".join(sorted(response.changed)),
        "modes": " ".join(str(training) for id_, training in response.modes if id_ in models),
    }
    return dict(_leaves(response.result.value, tensors, "result")) | seen | asked


def size_of(leaves: Leaves) -> int:
    """Return the bytes that these take, tensors in several places counted once."""
    tensors = {id(leaf): leaf for leaf in leaves.values() if isinstance(leaf, Tensor)}
    texts = sum(len(leaf) for leaf in leaves.values() if isinstance(leaf, str))
    own = sum(tensor.nbytes for tensor in tensors.values() if not tensor.is_meta)
    return LEAF * len(leaves) + texts + own


def _comparable(seen: Leaves, recorded: Leaves, request: m.Request) -> Leaves:
    """An answer without what is free in right solutions, too; the reference's own beside nothing."""
    match request:
        case m.Read(what="parameters" | "state"):
            # Of further parameters or buffers only that there are some: their names are free.
            named = {f"{p} {READ}" if isinstance(v, Tensor) else p: v for p, v in seen.items()}
            others = named.keys() - recorded.keys() if recorded else set()
            known = [v for p, v in named.items() if p in recorded]
            further: Leaves = {"further": any(not _second(named[p], known) for p in others)}
            return {p: v for p, v in named.items() if p in recorded or not recorded} | further
        case m.Backward():
            nothing = {
                p
                for p, leaf in seen.items()
                if isinstance(leaf, Tensor) and not leaf.is_meta and not leaf.any()
            }
            kinds = {place + KIND for place in nothing}
            return {p: None if p in nothing else v for p, v in seen.items() if p not in kinds}
    if seen.get("failure") == REFUSED and recorded and "failure" not in recorded:
        return seen | {"failure": FAILED}  # refused or not, it should have been answered
    return seen


def _second(leaf: Leaf, known: Sequence[Leaf]) -> bool:
    """Whether this is a parameter under a second name, which the contract allows: its values tell, unless they are all alike."""
    if not isinstance(leaf, Tensor):
        return True  # its kind, or a plain value
    told = leaf.numel() > 1 and bool((leaf != leaf.flatten()[0]).any())
    return told and any(isinstance(other, Tensor) and same(leaf, other) for other in known)


def _leaves(value: m.Value, tensors: Sequence[Tensor], path: str) -> Iterator[tuple[str, Leaf]]:
    match value:
        case m.Items():
            yield path, f"{len(value.items)} items"
            for index, item in enumerate(value.items):
                yield from _leaves(item, tensors, f"{path}.{index}")
        case m.Pairs():
            for name, item in value.items:
                yield from _leaves(item, tensors, f"{path}.{name}")
        case m.TensorAt():
            tensor = tensors[value.index]
            yield path, tensor
            yield f"{path}{KIND}", f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        case m.Handle():
            yield path, "an object"
        case None | bool() | int() | float() | str():
            yield path, value
        case _:
            yield path, str(value)


def _kind(failure: m.Failure) -> str:
    """What is told apart: the exception that the contract names, and what is missing. How else code fails is chance."""
    if failure.kind == "missing":
        return failure.text.split(";")[0]
    return REFUSED if REFUSED in failure.bases else FAILED


def same(first: Leaf, second: Leaf, times: float = 1.0) -> bool:
    """Whether two values are equal within `times` the tolerance; NaN is equal to NaN."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if (first.dtype, first.shape, first.device) != (second.dtype, second.shape, second.device):
            return False
        if first.is_meta:
            return True
        if not first.is_floating_point():
            return torch.equal(first, second)
        tolerance = times * TOLERANCE[first.dtype]
        return torch.allclose(
            first.double(), second.double(), rtol=tolerance, atol=tolerance, equal_nan=True
        )
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-6) or first != first != second
    return type(first) is type(second) and first == second
