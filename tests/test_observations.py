"""Test that recognition describes any response from a worker in little time and memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest
import torch

from autograder.protocol import messages as m
from autograder.protocol.encoding import MAX_STRING, Outgoing, check
from autograder.recognition import signatures
from autograder.recognition.observations import (
    FURTHER,
    MODEL_INPUTS,
    Observations,
    normalize,
    observe,
)
from autograder.recognition.signatures import Recorder, find_match, make_signature
from autograder.sandbox.process import AnswerQuestion

KEY = "k" * MAX_STRING
SCALAR = m.TensorMeta("float32", [1] * 16, [0] * 16, 0, False)


def observed(value: m.Value, *tensors: m.TensorMeta) -> Observations:
    answer = m.Answer(m.Data(value, list(tensors)))
    check(answer.result)
    return observe(answer, bytearray(64), [], {})


def nested(value: m.Value, levels: int) -> m.Value:
    for _ in range(levels):
        value = m.Pairs([(KEY, value)])
    return value


@pytest.mark.parametrize(
    ("value", "tensors"),
    [
        (m.Pairs([(KEY, m.Items([m.Items([None] * 10_000)] * 4))]), []),
        (nested(m.Items([None] * 40_000), 15), []),
        (nested(m.Items([m.TensorAt(0)] * 30_000), 1), [SCALAR]),
    ],
    ids=["long key", "nested long keys", "repeated tensor"],
)
def test_repeated_parts_are_not_expanded(value: m.Value, tensors: list[m.TensorMeta]) -> None:
    tracemalloc.start()
    observed(value, *tensors)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20


def test_long_paths_remain_distinct() -> None:
    first, second = (nested(m.Pairs([(name, 1)]), 3) for name in "ab")
    assert observed(first).keys() != observed(second).keys()
    assert observed(first) == observed(first)
    assert "result.layers.0.weight" in observed(m.Pairs([("layers.0.weight", 1)]))


@pytest.mark.parametrize("value", [m.Model(1, [], [], True), m.Generator(1, 0)])
def test_a_value_that_only_the_grader_may_send_is_rejected(value: m.Value) -> None:
    with pytest.raises(m.WireError):
        observed(m.Items([value]))


class CallingModels:
    """A worker that calls one of the grader's models with 2,000 different inputs before it responds to a request."""

    def request(
        self, request: m.Request, payload: Outgoing, reply: AnswerQuestion
    ) -> tuple[int, m.Answer | m.Failure, bytearray]:
        for size in range(2000):
            meta = m.TensorMeta("float32", [size], [1], 0, False)
            reply(m.Ask(1, "forward", m.Data(m.TensorAt(0), [meta]), True, True), bytearray())
        return 1, m.Answer(m.Data(None, [])), bytearray()

    def stop(self) -> None:
        pass


def test_descriptions_of_model_inputs_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "MAX_INPUTS", 1000)
    recorder = Recorder(CallingModels())
    reply = m.Reply(m.Data(None, [])), Outgoing()
    recorder.request(m.Set(1, training=True), Outgoing(), lambda question, payload: reply)
    (call,) = recorder.calls
    assert len(str(call.observations[MODEL_INPUTS])) > 900
    assert sum(len(str(text)) for text in call.observations.values()) < 2000


def test_results_that_should_be_random_but_are_the_same_twice_do_not_match() -> None:
    def seen(random: torch.Tensor) -> Observations:
        return {"test 0 result": random, "test 1 result": torch.zeros(3)}

    first, second, right, again = (seen(torch.rand(4, 5)) for _ in range(4))
    right["test 1 result"] = again["test 1 result"] = torch.ones(3)
    known = {"dropped twice": make_signature(["test"], first, second, right, again)}
    dropped, again, constant = (
        seen(torch.rand(4, 5)),
        seen(torch.rand(4, 5)),
        seen(torch.ones(4, 5)),
    )
    assert find_match(known, ["test"], dropped, again) == "dropped twice"
    assert find_match(known, ["test"], constant, constant) is None


@pytest.mark.parametrize("solution_is_random", [False, True])
def test_results_that_only_a_mistake_makes_random_identify_it(solution_is_random: bool) -> None:
    def seen() -> Observations:
        return {"test 0 result": torch.rand(4, 5), "test 1 result": torch.zeros(3)}

    right = seen()
    again = seen() if solution_is_random else right
    known = {"dropped": make_signature(["test"], seen(), seen(), right, again)}
    expected = None if solution_is_random else "dropped"
    assert find_match(known, ["test"], seen(), seen()) == expected
    constant = seen()
    assert find_match(known, ["test"], constant, constant) is None
    other = seen() | {"test 1 result": torch.ones(3)}
    assert find_match(known, ["test"], other, seen()) is None


def test_a_dict_with_a_key_that_is_too_long_is_described() -> None:
    def encode(value: object) -> m.Data:
        return Outgoing().encode(value, lambda item: None)

    assert encode({KEY: 1}).value == m.Pairs([(KEY, 1)])
    assert str(encode({(KEY, 1): 1}).value) == "a dict with a tuple of length 2 as a key"
    data = encode({KEY + "k": torch.zeros(2)})
    assert encode({torch.zeros(2): 1}).tensors == []
    assert (str(data.value), data.tensors) == ("a dict with a str of 10001 characters as a key", [])


def test_keys_with_equal_hashes_are_limited() -> None:
    keys: list[m.Key] = [[-1 - (number >> bit & 1) for bit in range(11)] for number in range(2048)]
    with pytest.raises(m.WireError, match="same hash"):
        observed(m.Pairs([(key, None) for key in keys]))
    assert observed(m.Pairs([([x, y], 1) for x in range(-9, 9) for y in range(99)]))


def test_parameters_on_the_meta_device_are_compared() -> None:
    request = m.Read(1, "parameters")
    known = Observations({"result.weight": torch.arange(3.0)})
    reference = normalize(known, {}, request)
    for name in ("weight", "extra"):
        seen = known | {f"result.{name}": torch.empty(3, device="meta")}
        assert normalize(seen, reference, request)[FURTHER] is (name == "extra")


def test_thousands_of_aliases_are_not_compared_with_every_parameter() -> None:
    request = m.Read(1, "parameters")
    known = Observations({f"result.{name}": torch.randn(6, 6) for name in range(40)})
    reference = normalize(known, {}, request)
    aliases = {f"result.alias{n}": known["result.39"].clone() for n in range(3_000)}  # type: ignore[union-attr]
    few = dict(list(aliases.items())[:20])
    assert normalize(known | few, reference, request)[FURTHER] is False
    started = time.process_time()
    assert normalize(known | aliases, reference, request)[FURTHER] is True
    assert time.process_time() - started < 1
