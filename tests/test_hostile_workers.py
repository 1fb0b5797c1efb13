"""Test that no response from a worker can crash, deceive or block the grader."""

from __future__ import annotations

import gc
import os
import resource
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autograder.execution.references import reference_process
from autograder.execution.student import Connection
from autograder.protocol import frames
from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing
from autograder.protocol.limits import Budget, Limits
from autograder.sandbox import control
from autograder.sandbox import process as process_module
from autograder.sandbox.clock import Reading
from autograder.sandbox.errors import LimitExceeded, WorkerDied
from autograder.sandbox.process import Process
from tests.sandboxed_code import PATIENT

pytestmark = pytest.mark.slow

LIMITS = Limits(cpu_seconds=0.03, total_cpu_seconds=30, memory=1 << 30, idle_seconds=0.9)
SET = m.Set(1, training=True)
NOTHING = m.Answer(m.Data(None, []))


class Hostile:
    """A fake fork server. Its worker is a thread that calls `behaviour` with the worker's end of the socket."""

    def __init__(self, behaviour: Callable[[socket.socket], None]) -> None:
        self._behaviour = behaviour
        self.stopped = 0

    def start(self, limits: Limits) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._behave, args=(theirs,), daemon=True).start()
        return ours, 1

    def clock(self, number: int) -> Hostile:
        return self

    def read(self) -> Reading:
        return Reading()

    def serves(self, number: int) -> bool:
        return True

    def stop(self, number: int) -> None:
        self.stopped += 1

    def end(self, number: int) -> control.Stopped:
        self.stopped += 1
        return control.Stopped(-9, 0.0)

    def _behave(self, wire: socket.socket) -> None:
        with wire, suppress(OSError):  # the grader may close the connection first
            self._behaviour(wire)


def hostile(behaviour: Callable[[socket.socket], None], limits: Limits = LIMITS) -> Process:
    return Process(Hostile(behaviour), limits)  # type: ignore[arg-type]


def answering(data: bytes) -> Callable[[socket.socket], None]:
    """Return a function that answers one request with `data`, or closes the socket if `data` is empty."""

    def behaviour(wire: socket.socket) -> None:
        wire.recv(1 << 20)
        if data:
            wire.sendall(data)
            while wire.recv(1 << 20):
                pass

    return behaviour


def ask(process: Process, request: m.Request = SET) -> m.Answer | m.Failure:
    def reply(question: object, data: bytearray) -> tuple[m.Reply, Outgoing]:
        return m.Reply(m.Data(None, [])), Outgoing()

    return process.request(request, Outgoing(), reply)[1]


def frame(number: int, response: m.Response, payload: bytes = b"") -> bytes:
    header = msgspec.msgpack.encode(m.NumberedResponse(number, response))
    return frames.LENGTHS.pack(len(header), len(payload)) + header + payload


def tensor(shape: list[int], strides: list[int] | None = None, dtype: str = "float32") -> m.Answer:
    meta = m.TensorMeta(dtype, shape, strides or [0] * len(shape), 0, False)
    return m.Answer(m.Data(m.TensorAt(0), [meta]))


def deep(levels: int) -> m.Value:
    value: m.Value = None
    for _ in range(levels):
        value = m.Items([value])
    return value


INVALID_RESPONSES = {
    "a different number": frame(2, NOTHING),
    "a header of two gigabytes": frames.LENGTHS.pack(1 << 31, 0),
    "a payload of two gigabytes": frames.LENGTHS.pack(4, 1 << 31),
    "noise": b"\xff" * 100,
    "a tensor of few bytes that describes gigabytes": frame(
        1, tensor([1 << 20, 1 << 20]), bytes(64)
    ),
    "many tensors that exceed the size limit together": frame(
        1,
        m.Answer(m.Data(None, [m.TensorMeta("float64", [1 << 20], [0], 0, False)] * 9)),
        bytes(64),
    ),
    "a deeply nested value": frame(1, m.Answer(m.Data(deep(40), []))),
    "a hundred thousand items": frame(1, m.Answer(m.Data(m.Items([None] * 100_000), []))),
    "a tensor that was not sent": frame(1, m.Answer(m.Data(m.Items([m.TensorAt(0)]), []))),
    "a meta tensor of exabytes": frame(
        1, m.Answer(m.Data(None, [m.TensorMeta("float64", [1 << 30, 1 << 31], [], 0, False, True)]))
    ),
    "a negative size": frame(1, tensor([-1, 5])),
    "fifty thousand axes": frame(1, tensor([2**62] * 50_000)),
    "too many tensors": frame(
        1, m.Answer(m.Data(None, [m.TensorMeta("bool", [], [], 0, False)] * 5000))
    ),
    "a key of a megabyte": frame(1, m.Answer(m.Data(m.Pairs([("k" * 900_000, None)]), []))),
    "a tensor that the value does not refer to": frame(
        1, m.Answer(m.Data(None, [m.TensorMeta("bool", [], [], 0, False)])), bytes(64)
    ),
    "progress outside a load": frame(1, m.Running(1)),
    "progress with a payload": frame(1, m.Running(1), bytes(64)),
    "too many changed arguments": frame(1, m.Answer(m.Data(None, []), ["x"] * 101)),
    "a failure with a payload": frame(1, m.Failure("raised", "E", "text"), bytes(64)),
    "the end of the stream": b"",
}


@pytest.mark.parametrize("name", INVALID_RESPONSES)
def test_an_invalid_response_ends_the_process(name: str) -> None:
    server = Hostile(answering(INVALID_RESPONSES[name]))
    process = Process(server, PATIENT)  # type: ignore[arg-type]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises(
        WorkerDied, match="invalid message" if INVALID_RESPONSES[name] else "exit code"
    ):
        ask(process)
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    process.stop()
    assert server.stopped == 1, "the process was not stopped exactly once"


def _silent(wire: socket.socket) -> None:
    wire.recv(1 << 20)
    wire.recv(1)


def _dripping(wire: socket.socket) -> None:
    while True:
        wire.sendall(b"\0")
        select.select([], [], [], 0.02)


def _lengths_only(wire: socket.socket) -> None:
    wire.sendall(frames.LENGTHS.pack(100, frames.MAX_PAYLOAD))
    wire.recv(1 << 20)
    wire.recv(1)


@pytest.mark.parametrize("behaviour", [_silent, _lengths_only])
def test_a_silent_worker_exceeds_its_limit(behaviour: Callable[..., None]) -> None:
    process = hostile(behaviour)
    started = time.monotonic()
    with pytest.raises(LimitExceeded):
        ask(process)
    assert time.monotonic() - started < 2


def test_single_bytes_do_not_extend_the_deadline() -> None:
    with pytest.raises((LimitExceeded, WorkerDied)):
        ask(hostile(_dripping))


def test_a_worker_that_does_not_read_exceeds_its_limit() -> None:
    out = Outgoing()
    data = out.encode([torch.zeros(1 << 20)], lambda item: None)

    def behaviour(wire: socket.socket) -> None:
        select.select([], [], [], 2)

    process = hostile(behaviour)
    with pytest.raises(LimitExceeded):
        process.request(m.Weights(1, data), out, lambda q, d: (m.Reply(data), out))


def test_time_spent_in_the_reply_is_not_charged_to_the_worker() -> None:
    def behaviour(wire: socket.socket) -> None:
        decoder = msgspec.msgpack.Decoder(m.Numbered)
        frames.receive(wire, decoder, time.monotonic() + 5)
        wire.sendall(frame(1, question([2, 5]), bytes(64)))
        frames.receive(wire, decoder, time.monotonic() + 5)
        wire.sendall(frame(1, NOTHING))

    def reply(question: object, data: bytearray) -> tuple[m.Reply, Outgoing]:
        time.sleep(LIMITS.idle_seconds)
        return m.Reply(m.Data(None, [])), Outgoing()

    assert hostile(behaviour).request(SET, Outgoing(), reply)[1] == NOTHING


def test_the_cpu_time_of_replies_counts_against_the_budget() -> None:
    def behaviour(wire: socket.socket) -> None:
        decoder = msgspec.msgpack.Decoder(m.Numbered)
        frames.receive(wire, decoder, time.monotonic() + 5)
        while True:
            wire.sendall(frame(1, question([2, 5]), bytes(64)))
            frames.receive(wire, decoder, time.monotonic() + 5)

    replies: list[object] = []

    def reply(question: object, data: bytearray) -> tuple[m.Reply, Outgoing]:
        replies.append(question)
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            pass
        return m.Reply(m.Data(None, [])), Outgoing()

    with pytest.raises(LimitExceeded) as caught:
        hostile(behaviour, replace(PATIENT, total_cpu_seconds=0.1)).request(SET, Outgoing(), reply)
    assert (caught.value.excess.kind, caught.value.excess.scope) == ("processor", "exercise")
    assert len(replies) <= 4


def test_time_that_a_reference_waits_for_the_student_is_charged_once() -> None:
    """While a reference waits for student code, CPU time counts only against the limits of the student's process."""

    def behaviour(wire: socket.socket) -> None:
        decoder = msgspec.msgpack.Decoder(m.Numbered)
        for _ in range(4):
            frames.receive(wire, decoder, time.monotonic() + 5)
            wire.sendall(frame(1, question([2, 5]), bytes(64)))
        frames.receive(wire, decoder, time.monotonic() + 5)
        wire.sendall(frame(1, NOTHING))

    def reply(question: object, data: bytearray) -> tuple[m.Reply, Outgoing]:
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            pass
        return m.Reply(m.Data(None, [])), Outgoing()

    limits = replace(PATIENT, total_cpu_seconds=0.1)
    budget = Budget(limits.allowance, "exercise")
    source: Any = Mock(references=Mock())
    server: Any = Hostile(behaviour)
    references = reference_process(source, server, limits, budget, server)
    assert references is not None
    assert references.start().request(SET, Outgoing(), reply)[1] == NOTHING
    assert budget.excess is None


@pytest.mark.parametrize(
    ("code", "cpu", "error"),
    [
        (-9, 31.0, LimitExceeded),
        (-24, 31.0, LimitExceeded),
        (-9, 1.0, WorkerDied),
        (-11, 31.0, WorkerDied),
        (3, 31.0, WorkerDied),
    ],
)
def test_a_process_killed_at_its_processor_limit_exceeded_it(
    code: int, cpu: float, error: type[Exception]
) -> None:
    process = hostile(answering(b""), PATIENT)
    process._server.end = lambda number: control.Stopped(code, cpu)  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(error):
            ask(process)


def test_a_second_response_does_not_answer_the_next_request() -> None:
    process = hostile(answering(frame(1, NOTHING) * 2))
    assert ask(process) == NOTHING
    with pytest.raises(WorkerDied, match="a different request"):
        ask(process)


def test_progress_reports_are_limited_by_the_number_of_pieces() -> None:
    load = m.Load("a\nb\n", [(1, 1), (2, 2)], "a", 1)
    report = frame(1, m.Running(1))
    assert ask(hostile(answering(report * 3 + frame(1, NOTHING))), load) == NOTHING
    with pytest.raises(WorkerDied, match="progress report"):
        ask(hostile(answering(report * 4 + frame(1, NOTHING))), load)


def test_the_time_that_progress_reports_take_counts_against_the_budget() -> None:
    pieces = [(1, 1)] * 4000

    def behaviour(wire: socket.socket) -> None:
        reports = frame(1, m.Running(1)) * 1000
        while True:
            wire.sendall(reports)

    process = hostile(behaviour, replace(PATIENT, total_cpu_seconds=0.1))
    with pytest.raises(LimitExceeded) as caught:
        ask(process, m.Load("a\n", pieces, "a", 1))
    assert (caught.value.excess.kind, caught.value.excess.scope) == ("processor", "exercise")


def question(shape: list[int], keep: int = 0) -> m.Ask:
    meta = m.TensorMeta("float32", shape, [0] * len(shape), 0, True)
    return m.Ask(1, "forward", m.Data(m.TensorAt(0), [meta]), False, True, keep)


def reply_errors(questions: list[m.Ask]) -> list[str]:
    """Send questions from a fake worker, and return the error in each reply, or "" if the grader called the model."""
    errors: list[str] = []

    def behaviour(wire: socket.socket) -> None:
        decoder = msgspec.msgpack.Decoder(m.Numbered)
        frames.receive(wire, decoder, time.monotonic() + 5)
        for each in questions:
            wire.sendall(frame(1, each, bytes(64)))
            message, _ = frames.receive(wire, decoder, time.monotonic() + 5)
            errors.append(message.request.error)
        wire.sendall(frame(1, NOTHING))

    ask(hostile(behaviour, PATIENT))
    return errors


def test_a_model_is_not_called_with_huge_inputs() -> None:
    large = [[1, 30_000], [1 << 18], [1000, 1000]]
    errors = reply_errors([question(shape) for shape in [[2, 5], *large]])
    assert errors[0] == ""
    assert all("far more than needed" in text for text in errors[1:])


def test_retained_graphs_are_limited() -> None:
    errors = reply_errors([question([256, 256], keep) for keep in range(1, 41)])
    assert errors[0] == ""
    assert "far more than needed" in errors[-1]


def test_tensors_without_elements_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = m.TensorMeta("float32", [0, 7], [7, 1], 0, True)
    many = m.Data(m.Items([m.TensorAt(n) for n in range(300)]), [meta] * 300)
    few = m.Data(m.Items([m.TensorAt(n) for n in range(200)]), [meta] * 200)
    errors = reply_errors([m.Ask(1, "forward", data, False, True) for data in (few, many)])
    assert errors[0] == ""
    assert "300 tensors, far more than needed" in errors[1]
    monkeypatch.setattr(process_module, "MAX_KEPT_ELEMENTS", 100)
    errors = reply_errors([question([0], keep) for keep in range(1, 9)])
    assert errors[0] == ""
    assert "far more than needed" in errors[-1]


class Broadcasting(nn.Module):
    """A model whose result is far larger than its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, None, None] + x[:, None] + x).sin()


def test_the_memory_of_models_is_limited() -> None:
    connection, model = Connection(Mock(), None), Broadcasting()
    models = connection.models
    models.encode(model)

    def error(n: int, keep: int = 0) -> str:
        meta = m.TensorMeta("float32", [n], [0], 0, True)
        arguments = m.Data(m.Items([m.Items([m.TensorAt(0)]), m.Pairs([])]), [meta])
        asked = m.Ask(id(model), "forward", arguments, False, True, keep)
        return models.answer(asked, bytearray(64), connection)[0].error

    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert error(100) == ""
    assert "can't allocate memory" in error(1000)  # 4 GB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    # Each call keeps two tensors of 16 MB.
    kept = [error(160, keep) for keep in range(1, 41)]
    assert kept[0] == ""
    assert "can't allocate memory" in kept[-1]
    models.forget_graphs()
    gc.collect()  # with some versions of torch, the error is part of a reference cycle
    assert error(160, 1) == ""
    assert resource.getrlimit(resource.RLIMIT_AS) == limits


def test_descriptors_sent_by_a_worker_are_not_kept() -> None:
    read, write = os.pipe()

    def behaviour(wire: socket.socket) -> None:
        wire.recv(1 << 20)
        socket.send_fds(wire, [frame(1, NOTHING)], [write] * 50)
        wire.recv(1)

    before = len(os.listdir("/proc/self/fd"))
    process = hostile(behaviour)
    assert ask(process) == NOTHING
    # The process holds at most two more descriptors, for the two ends of the socket pair.
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    for descriptor in (read, write):
        os.close(descriptor)


pieces = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(list(INVALID_RESPONSES.values())),
    st.builds(frame, st.integers(0, 3), st.sampled_from([NOTHING, m.Running(1), question([2])])),
    st.builds(
        lambda number, body: frames.LENGTHS.pack(len(body), 0) + body,
        st.integers(),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
            ),
            max_leaves=20,
        ).map(msgspec.msgpack.encode),
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces, max_size=4))
def test_the_grader_survives_random_responses(sent: list[bytes]) -> None:
    process = hostile(answering(b"".join(sent)), replace(LIMITS, cpu_seconds=0.005))
    with suppress(WorkerDied, LimitExceeded):
        assert isinstance(ask(process), (m.Answer, m.Failure))
