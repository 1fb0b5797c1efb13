"""Record the calls that an exercise's tests make to one implementation and replay them on another.

Entry points: `Recorder` and `replay`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from torch import nn

from autograder.execution.connection import Channel
from autograder.execution.references import ReferenceProcess
from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing
from autograder.recognition.observations import (
    MODEL_INPUTS,
    MODEL_MODES,
    Observations,
    normalize,
    observe,
    size_of,
)
from autograder.sandbox.process import AnswerQuestion

# Maximum size in bytes of the observations for one submission. References and known mistakes need far less.
MAX_SIZE = 64 << 20
# Maximum total length of the descriptions of one call's inputs to the grader's models. Later inputs are ignored.
MAX_INPUTS = 1 << 20


@dataclass(frozen=True)
class RecordedCall:
    """A request made by a test, its response, and the observations (values and side effects) that identify a mistake.

    `models` contains copies of the grader's models that the test passed as arguments. The copies are made before the
    call. `kept` contains the original models, because Python could otherwise reuse their ids.
    """

    request: m.Request
    payload: Outgoing
    number: int
    response: m.Answer | m.Failure
    models: Mapping[int, nn.Module]
    kept: Sequence[nn.Module]
    observations: Observations


class Recorder:
    """A proxy for a sandboxed process. It records each request made through its `student` and forwards it to the process."""

    def __init__(self, process: Channel) -> None:
        self._process = process
        self._nested = False
        self.calls: list[RecordedCall] = []
        self.student = Student(self)

    def request(
        self, request: m.Request, payload: Outgoing, reply: AnswerQuestion
    ) -> tuple[int, m.Answer | m.Failure, bytearray]:
        """Forward and record a request. See `process.Process.request`."""
        # Do not record requests sent by a grader's model, because replaying the call repeats them. Do not record
        # `Forget` requests, because they occur at unpredictable times.
        if self._nested or isinstance(request, m.Forget):
            return self._process.request(request, payload, reply)
        connection = self.student.connection
        models = {
            # Proxies in the copied model must keep using the same connection.
            id_: copy.deepcopy(connection.models.by_id[id_], {id(connection): connection})
            for id_ in _model_ids(request)
        }
        observer = _ModelObserver(reply)
        self._nested = True
        try:
            number, response, data = self._process.request(request, payload, observer)
        finally:
            self._nested = False
        seen = observe(response, data, models, observer.observations())
        kept = [connection.models.by_id[id_] for id_ in models]
        call = RecordedCall(
            request, payload, number, response, models, kept, normalize(seen, {}, request)
        )
        self.calls.append(call)
        return number, response, data

    def stop(self) -> None:
        """Stop the process that runs the code."""
        self._process.stop()


class _ModelObserver:
    """A wrapper around a `reply` function. It records how student code calls the grader's models."""

    def __init__(self, reply: AnswerQuestion) -> None:
        self._reply = reply
        self._modes: set[str] = set()
        self._inputs: set[str] = set()
        self._size = 0

    def __call__(self, question: m.Question, payload: bytearray) -> tuple[m.Reply, Outgoing]:
        if isinstance(question, m.Ask):
            mode = f"{question.method} training={question.training} grad={question.grad}"
            self._modes.add(mode)
            shapes = [tuple(tensor.shape) for tensor in question.arguments.tensors]
            objects = list(_ids(question.arguments.value, m.Handle))
            distinct = f"{len(objects)} objects, {len(set(objects))} of them distinct"
            inputs = f"{question.method} {shapes} {distinct}"
            if inputs not in self._inputs and self._size < MAX_INPUTS:
                self._inputs.add(inputs)
                self._size += len(inputs)
        return self._reply(question, payload)

    def observations(self) -> Observations:
        return {
            MODEL_MODES: "; ".join(sorted(self._modes)),
            MODEL_INPUTS: "; ".join(sorted(self._inputs)),
        }


def replay(
    calls: Sequence[RecordedCall],
    process: Channel,
    references: ReferenceProcess | None,
    max_size: int,
) -> list[Observations]:
    """Replay recorded calls in another process and return each call's observations.

    A call has no observations if it needs an object that does not exist in that process.

    Raises:
        WireError: The observations are larger than `max_size` bytes, or a response is invalid.
        LimitExceeded, WorkerDied, ServerLost: See `process.Process.request`.
    """
    connection = Student(process, references).connection
    objects: dict[int, int] = {}
    numbers: dict[int, int] = {}
    replayed: list[Observations] = []
    for call in calls:
        try:
            request = _translate(call.request, objects, numbers)
        except KeyError:
            replayed.append({})
            continue
        connection.models.by_id |= {id_: copy.deepcopy(model) for id_, model in call.models.items()}
        observer = _ModelObserver(connection.reply)
        number, response, data = process.request(request, call.payload, observer)
        if isinstance(response, m.Answer) and isinstance(call.response, m.Answer):
            numbers[call.number] = number
            objects |= _match_objects(call.response.result.value, response.result.value)
        seen = observe(response, data, call.models, observer.observations())
        max_size -= size_of(seen)
        if max_size < 0:
            raise m.WireError(
                "the results use more memory than those of any known mistake, so no mistake can match"
            )
        replayed.append(normalize(seen, call.observations, call.request))
    process.request(m.Forget(None), Outgoing(), connection.reply)
    return replayed


def _translate(
    request: m.Request, objects: Mapping[int, int], numbers: Mapping[int, int]
) -> m.Request:
    """Replace the object ids and call numbers in a request with the corresponding ones in another process.

    Raises:
        KeyError: The object or call does not exist in the other process.
    """
    change = msgspec.structs.replace
    match request:
        case m.Call():
            target = request.target
            target = target if isinstance(target, str) else objects[target]
            value = _translate_value(request.arguments.value, objects)
            arguments = change(request.arguments, value=value)
            return change(request, target=target, arguments=arguments)
        case m.Backward():
            parameters = request.parameters
            if parameters:
                parameters = [str(objects[int(parameters[0])]), *parameters[1:]]
            return change(request, call=numbers[request.call], parameters=parameters)
        case m.Weights() | m.Read() | m.Set():
            return change(request, module=objects[request.module])
    raise TypeError(f"a test cannot send a request of type {type(request).__name__}")


def _translate_value(value: m.Value, objects: Mapping[int, int]) -> m.Value:
    match value:
        case m.Handle():
            return msgspec.structs.replace(value, id=objects[value.id])
        case m.Items():
            return m.Items([_translate_value(item, objects) for item in value.items])
        case m.Pairs():
            return m.Pairs([(name, _translate_value(item, objects)) for name, item in value.items])
    return value


def _match_objects(recorded: m.Value, seen: m.Value) -> dict[int, int]:
    """Map the object ids in a recorded result to the ids at the same positions in another result."""
    match recorded, seen:
        case m.Handle(), m.Handle():
            return {recorded.id: seen.id}
        case m.Items(), m.Items():
            found: dict[int, int] = {}
            for first, second in zip(recorded.items, seen.items, strict=False):
                found |= _match_objects(first, second)
            return found
    return {}


def _model_ids(request: m.Request) -> set[int]:
    """Return the ids of the grader's models in a request's arguments."""
    arguments = request.arguments.value if isinstance(request, m.Call) else None
    return set(_ids(arguments, m.Model))


def _ids(value: m.Value, kind: type[m.Model | m.Handle]) -> Iterator[int]:
    """Yield the ids of all models or objects in a value, depending on `kind`."""
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
