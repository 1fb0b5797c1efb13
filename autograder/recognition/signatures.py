"""Determine from observations whether code contains a known mistake.

Entry points: `make_signature`, `find_match` and `exact_matches`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from torch import Tensor

from autograder.execution.references import ReferenceProcess
from autograder.execution.student import Channel, Student
from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing
from autograder.recognition.observations import (
    ATTRIBUTE,
    EXCEPTIONS,
    FAILURE,
    FURTHER,
    MODEL_INPUTS,
    MODEL_MODES,
    PARAMETER,
    STRING,
    TOLERANCE,
    TYPE,
    Observation,
    Observations,
    normalize,
    observe,
    same,
    size_of,
)
from autograder.sandbox.process import AnswerQuestion

T = TypeVar("T")
MIN_RANDOM = 16  # Results with fewer entries may be equal in two runs by chance.


@dataclass(frozen=True)
class Signature:
    """The evidence that identifies a known mistake: the tests that it causes to fail and the observations in those tests.

    `deterministic` observations do not depend on random numbers. `distinctive` observations differ from the reference
    solution's. `tie_breakers` are observations that may vary between correct solutions, such as the inputs of model
    calls and the initial values of parameters.
    """

    failed_tests: list[str]
    deterministic: Observations
    tie_breakers: Observations
    distinctive: Observations
    # Keys of `distinctive` that show incorrect values, shapes or dtypes, or missing names.
    conclusive: list[str]
    is_random: bool  # whether any observations depend on random numbers
    random: list[str]  # keys of results that depend on random numbers, such as those of dropout
    newly_random: list[str]  # keys of `random` that are not random in the reference solution

    @property
    def observations(self) -> Observations:
        """Return all observations in the signature."""
        return self.deterministic | self.tie_breakers | self.distinctive


def make_signature(
    failed_tests: list[str],
    first: Observations,
    second: Observations,
    reference: Observations,
    reference_again: Observations,
) -> Signature:
    """Make a signature from two runs of a mistake and two of the reference solution, with different random numbers."""
    stable = {key: value for key, value in first.items() if _same(value, second, key)}
    tie_breakers = {k: v for k, v in stable.items() if _is_tie_breaker(k, v, reference)}
    deterministic = {key: value for key, value in stable.items() if key not in tie_breakers}
    distinctive = {
        key: value
        for key, value in first.items()
        if not _same(value, reference, key, 4)
        and not (key.endswith(PARAMETER) and _is_tie_breaker(key, value, reference))
    }
    conclusive = [
        key
        for key, value in distinctive.items()
        if key in deterministic and _is_conclusive(key, value, reference)
    ]
    is_random = len(stable) < len(first)
    random = [key for key, v in first.items() if _is_large(key, v) and not _same(v, second, key)]
    return Signature(
        failed_tests,
        deterministic,
        tie_breakers,
        distinctive,
        conclusive,
        is_random,
        random,
        newly_random=[
            k for k in random if k in reference and _same(reference[k], reference_again, k)
        ],
    )


def _is_large(key: str, value: Observation) -> bool:
    """Return whether a value is no parameter, and so large that two random ones are never equal by chance."""
    if not isinstance(value, Tensor) or key.endswith(PARAMETER):
        return False
    return value.is_floating_point() and value.numel() >= MIN_RANDOM


def is_specific(signature: Signature, test_count: int) -> bool:
    """Return whether code with a different mistake is unlikely to match the signature by chance.

    A signature is specific if it contains a conclusive value, or if a test fails even though every observation is
    correct. Exceptions and NaN are specific only if code with the mistake passes some of the `test_count` tests.
    """
    if not signature.distinctive:
        return not signature.is_random
    return bool(signature.conclusive) or len(signature.failed_tests) < test_count


def find_match(
    signatures: Mapping[str, Signature],
    failed_tests: Sequence[str],
    seen: Observations,
    again: Observations | None = None,
) -> str | None:
    """Return the known mistake that matches the failed tests and observations, or None if there is no unique match.

    If several mistakes match, use the tie-breakers. If none match, look for a mistake plus one additional fault. `again`
    contains observations of the same code with different random numbers. If it is given, results that are random for a
    mistake must differ between `seen` and `again`.
    """
    names = exact_matches(signatures, failed_tests, seen, again)
    if len(names) > 1:
        names = [name for name in names if contains(seen, signatures[name].tie_breakers)]
    elif not names:
        names = [
            name
            for name, signature in signatures.items()
            if not _lacks_randomness(signature, seen, again)
            and _matches_with_another_fault(signature, failed_tests, seen)
        ]
    return names[0] if len(names) == 1 else None


def exact_matches(
    signatures: Mapping[T, Signature],
    failed_tests: Sequence[str],
    seen: Observations,
    again: Observations | None = None,
) -> list[T]:
    """Return the keys of the signatures that match all failed tests and observations. See `find_match`."""
    return [
        name
        for name, signature in signatures.items()
        if signature.failed_tests == failed_tests
        and _matches(signature, seen)
        and not _lacks_randomness(signature, seen, again)
    ]


def contributes(signature: Signature, seen: Observations) -> bool:
    """Return whether some incorrect value is the mistake's, so that it may be one of several mistakes in the code."""
    return any(_same(signature.distinctive[key], seen, key) for key in signature.conclusive)


def contains(seen: Observations, expected: Observations) -> bool:
    """Return whether all expected observations were made, within the tolerance."""
    return all(_same(value, seen, key) for key, value in expected.items())


def _lacks_randomness(signature: Signature, seen: Observations, again: Observations | None) -> bool:
    """Return whether a result that is random for the mistake is the same in both runs of the code."""
    return again is not None and any(
        key in seen and _same(seen[key], again, key) for key in signature.random
    )


def _matches(signature: Signature, seen: Observations) -> bool:
    """Return whether the observations match a mistake's signature and include at least one of its distinctive observations.

    If a mistake makes results random, no value needs to be equal, because dropout elsewhere draws different numbers.
    """
    distinctive = signature.distinctive
    found = any(_same(value, seen, key) for key, value in distinctive.items())
    found = found or any(key in seen for key in signature.newly_random)
    return contains(seen, signature.deterministic) and (found or not distinctive)


def _matches_with_another_fault(
    signature: Signature, failed_tests: Sequence[str], seen: Observations
) -> bool:
    """Return whether the code contains the mistake and one additional fault.

    The additional fault may affect a single test. Code with only the mistake must either pass this test or, unlike the
    student's code, raise no exception in it. Alternatively, the additional fault may be an incorrect dtype, if the
    results differ from the mistake's results only in dtype. In both cases, a conclusive value must match in a test that
    the additional fault does not affect.
    """
    different = [k for k, value in signature.deterministic.items() if not _same(value, seen, k)]
    tests = {_test(key) for key in different}
    other_dtype = bool(different) and all(
        _differs_in_dtype_alone(signature, seen, k) for k in different
    )
    affected = tests | set(failed_tests) - set(signature.failed_tests)
    return (
        set(signature.failed_tests) <= set(failed_tests)
        and (len(affected) == 1 or (other_dtype and affected == tests))
        and (other_dtype or not any(_returned(key, seen) for key in different))
        and any(
            _test(key) not in affected and _same(signature.distinctive[key], seen, key)
            for key in signature.conclusive
        )
    )


def _differs_in_dtype_alone(signature: Signature, seen: Observations, key: str) -> bool:
    key = key.removesuffix(TYPE)
    mine, theirs = signature.deterministic.get(key), seen.get(key)
    if not isinstance(mine, Tensor) or not isinstance(theirs, Tensor) or mine.dtype == theirs.dtype:
        return False
    if theirs.is_meta or not mine.is_floating_point() or not theirs.is_floating_point():
        return mine.shape == theirs.shape and mine.device == theirs.device
    coarser = min(mine.dtype, theirs.dtype, key=lambda dtype: -TOLERANCE[dtype])
    return same(mine.to(coarser), theirs.to(coarser))


def _test(key: str) -> str:
    return key.split(" ")[0]


def _returned(key: str, seen: Observations) -> bool:
    """Return whether an observation belongs to a call that returned without raising an exception."""
    call = " ".join(key.split(" ")[:2])
    return f"{call} {FAILURE}" not in seen and f"{call} {MODEL_MODES}" in seen


def _is_tie_breaker(key: str, value: Observation, reference: Observations) -> bool:
    """Return whether an observation may differ between correct solutions.

    This is true for the inputs of model calls, and for models' training modes that match the reference solution's. It is
    also true for a parameter's initial value, unless the reference solution initialises it to a different constant.
    """
    if not key.endswith(PARAMETER):
        return key.endswith(MODEL_INPUTS) or (
            key.endswith(MODEL_MODES) and _same(value, reference, key)
        )
    other = reference.get(key)
    constant = isinstance(other, Tensor) and not other.is_meta and len(other.unique()) == 1
    return not constant or _same(value, reference, key)


def _is_conclusive(key: str, value: Observation, reference: Observations) -> bool:
    """Return whether a distinctive value is an incorrect finite number, string, shape or dtype, or a missing name."""
    if key.endswith(f" {FAILURE}"):
        return value not in EXCEPTIONS  # a missing name
    other = reference.get(key)
    if isinstance(value, int | float) and isinstance(other, int | float):
        return math.isfinite(value) and not key.endswith((ATTRIBUTE, FURTHER))
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        return key.endswith((TYPE, STRING)) and key in reference
    if value.shape != other.shape or value.is_meta or other.is_meta:
        return True
    finite = value.isfinite() & other.isfinite()
    return not same(value[finite], other[finite])


def _same(value: Observation, seen: Observations, key: str, factor: float = 1.0) -> bool:
    return key in seen and same(value, seen[key], factor)


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
    models: Mapping[int, Callable[..., Any]]
    kept: Sequence[Callable[..., Any]]
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
        # Do not record requests sent by a grader's model, because replaying the call repeats them. Do not record
        # `Forget` requests, because they occur at unpredictable times.
        if self._nested or isinstance(request, m.Forget):
            return self._process.request(request, payload, reply)
        connection = self.student.connection
        arguments = request.arguments.value if isinstance(request, m.Call) else None
        models = {
            # Proxies in the copied model must keep using the same connection.
            id_: copy.deepcopy(connection.models.by_id[id_], {id(connection): connection})
            for id_ in set(_ids(arguments, m.Model, m.Function))
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
    """Replay recorded calls in another process and return each call's observations, of at most `max_size` bytes in total.

    A call has no observations if it needs an object that does not exist in that process.
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
    """Replace the object ids and call numbers in a request with those in another process. Raise KeyError if one is missing."""
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


def _ids(value: m.Value, *kind: type[m.Model | m.Function | m.Handle]) -> Iterator[int]:
    """Yield the ids of all values of these kinds in a value."""
    match value:
        case m.Model() | m.Function() | m.Handle():
            if isinstance(value, kind):
                yield value.id
        case m.Items():
            for item in value.items:
                yield from _ids(item, *kind)
        case m.Pairs():
            for _, item in value.items:
                yield from _ids(item, *kind)
