"""Test how the grader handles hostile workers, and test each sandbox layer separately."""

from __future__ import annotations

import os
import pickle
import platform
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.execution.attempt import reference_process
from autograder.protocol import frames
from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing
from autograder.protocol.limits import Budget, Limits
from autograder.sandbox import control, doctor
from autograder.sandbox import process as process_module
from autograder.sandbox.client import Server
from autograder.sandbox.clock import Reading
from autograder.sandbox.command import READER
from autograder.sandbox.errors import LimitExceeded, NoIsolation, WorkerDied
from autograder.sandbox.process import Process
from autograder.sandbox.walls import (
    landlock,
    private_folders,
    privileges,
    seccomp,
    syscalls,
    trial,
    wall,
)
from tests.fork_server import kill, loaded

pytestmark = pytest.mark.slow

# The limit on idle time is ten times the limit on CPU time.
LIMITS = Limits(cpu_seconds=0.03, total_cpu_seconds=30, memory=1 << 30)
PATIENT = Limits(cpu_seconds=10, total_cpu_seconds=30, memory=1 << 30)
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

    def stop(self, number: int) -> int:
        self.stopped += 1
        return -9

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
    process = hostile(answering(INVALID_RESPONSES[name]), PATIENT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises(
        WorkerDied, match="invalid message" if INVALID_RESPONSES[name] else "exit code"
    ):
        ask(process)
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    assert process.stop() == 0, "the process was not stopped"


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
        time.sleep(3 * LIMITS.idle_seconds)
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
    """The student's process charges it, so the references' process does not."""

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


def question(shape: list[int], keep: int = 0) -> m.Ask:
    meta = m.TensorMeta("float32", shape, [0] * len(shape), 0, True)
    return m.Ask(1, "forward", m.Data(m.TensorAt(0), [meta]), False, True, keep)


def reply_errors(questions: list[m.Ask]) -> list[str]:
    """Send each question from a fake worker, and return the error in each reply of the grader, or "" if the model was called."""
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


# ---- the server


def test_no_process_starts_without_isolation() -> None:
    with Server(layers=["limits"], services=(READER,)) as server:
        with pytest.raises(NoIsolation) as caught:
            Process(server, PATIENT)
        text = str(caught.value)
        for word in ("files", "network", "processes", "doctor"):
            assert word in text
        assert "memory" not in text
        assert str(pickle.loads(pickle.dumps(caught.value))) == text


def test_a_dead_server_is_restarted(server: Server) -> None:
    with loaded(server, "def f(): return 1") as student:
        assert student.f() == 1
    kill(server)
    with loaded(server, "def f(): return 2") as student:
        assert student.f() == 2
    assert "seccomp" in server.isolation


def test_killing_the_grader_ends_its_processes() -> None:
    code = """
import os, signal, sys
from autograder.sandbox.client import Server
from autograder.sandbox.command import READER
from autograder.submissions.client import ReaderProcess
server = Server(services=(READER,))
process = ReaderProcess(server)
print(server._launched.process.pid, flush=True)
sys.stdin.read(1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as grader:
        assert grader.stdin is not None
        assert grader.stdout is not None
        watched = os.pidfd_open(int(grader.stdout.readline()))
        grader.stdin.write(b"x")
        grader.stdin.flush()
        # The server's outer process exits only after its inner process and all workers have exited.
        assert select.select([watched], [], [], 10)[0], "the fork server is still running"
        os.close(watched)
        assert grader.wait() == -signal.SIGKILL


# ---- sandbox layers


def test_the_doctor_finds_the_probe_that_only_one_layer_blocks() -> None:
    findings = doctor.examine()
    assert [f for f in findings if not f.passed] == []
    for layer, probe in doctor.ONLY_PROBE.items():
        last = [f for f in findings if f.layer == layer][-1]
        assert "with all layers except this one: the attempt succeeded" in last.seen, probe


def test_hidden_paths_in_readable_folders_cannot_be_read(tmp_path: Path) -> None:
    for name in ("autograder", "torch", "deep/autograder", "deep/torch"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "code.py").write_text(name)

    def look() -> None:
        hidden = [str(tmp_path / name / "autograder") for name in ("", "deep")]
        rules = landlock.readable(str(tmp_path), hidden)
        privileges.no_new_privileges()
        landlock.restrict(rules)
        for folder in (tmp_path, tmp_path / "deep"):
            assert (folder / "torch" / "code.py").read_text().endswith("torch")
            assert {"autograder", "torch"} <= set(os.listdir(folder))
            with pytest.raises(PermissionError):
                (folder / "autograder" / "code.py").read_text()

    assert trial.error_in_child(look) == ""


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Interpret a BPF filter as the kernel does, and return its action for a system call."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    at = value = 0
    while True:
        code, yes, no, k = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return int(k)
        if code == 0x20:
            value = struct.unpack_from("<I", data, k)[0]
        elif code == 0x54:
            value &= k
        else:
            assert code in (0x15, 0x35)
            at += yes if (value == k if code == 0x15 else value >= k) else no


ALLOW, REFUSE, UNKNOWN, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
PRETEND = 0x50000  # the system call does nothing and reports success
CALLS = {
    "read": ((), ALLOW),
    "openat": ((), ALLOW),
    "execve": ((), REFUSE),
    "ptrace": ((), REFUSE),
    "socket": ((), REFUSE),
    "clone": ((17,), REFUSE),  # flags used by fork()
    "clone ": ((0x3D0F00,), ALLOW),  # flags used to create a thread
    "clone  ": ((0x3D0F00 | 0x10000000,), REFUSE),
    "clone3": ((), UNKNOWN),
    "prlimit64": ((0, 9, 0), ALLOW),
    "prlimit64 ": ((0, 9, 1 << 40), REFUSE),
    "prlimit64  ": ((1, 9, 0), REFUSE),
    "tgkill": ((1, 2, 6), ALLOW),
    "tgkill ": ((2, 2, 6), REFUSE),
    "fcntl": ((5, 3), ALLOW),
    "fcntl ": ((5, 8, 77), REFUSE),
    "socketpair": ((1, 1 | 0x80000), ALLOW),
    "socketpair ": ((1, 2 | 0x80000), REFUSE),
    "sendto": ((3, 0, 0, 1), REFUSE),
    "fchmodat": ((), ALLOW),
}


ON_A_DISK = {
    "fchmodat": ((), PRETEND),
    "unlinkat": ((), PRETEND),
    "renameat2": ((), REFUSE),
    "openat": ((-100 & (1 << 64) - 1, 0, os.O_RDWR | os.O_CREAT), ALLOW),
    "openat ": ((-100 & (1 << 64) - 1, 0, os.O_RDWR | os.O_TMPFILE), REFUSE),
}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_allows_only_the_expected_calls(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    program = seccomp.worker_program(1, own_files=True)
    own = seccomp._ARCHITECTURES[machine]
    for name, (arguments, expected) in CALLS.items():
        number = syscalls.number(name.strip())
        assert number is not None
        assert verdict(program, own, number, *arguments) == expected, name
        assert verdict(program, own ^ 1, number, *arguments) == KILL
    without = seccomp.worker_program(1, own_files=False)
    for name, (arguments, expected) in ON_A_DISK.items():
        number = syscalls.number(name.strip())
        assert number is not None
        assert verdict(without, own, number, *arguments) == expected, name


def test_an_unknown_architecture_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match="riscv64"):
        seccomp.worker_program(1, own_files=True)


def test_a_folder_of_any_depth_and_mode_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for depth in range(1200):
        os.mkdir("d", dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        if depth % 7 == 0:
            os.fchmod(here, 0)
        os.close(here)
        here = inner
    os.close(here)
    private_folders.remove(str(top))
    assert not top.exists()


def test_a_folder_with_conflicting_names_is_removed(tmp_path: Path) -> None:
    for name in (".1", "1", "2", "deep/.1/1/1", "deep/2/1"):
        (tmp_path / "top" / name).mkdir(parents=True)
        (tmp_path / "top" / name / "file").touch()
    private_folders.remove(str(tmp_path / "top"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", ["bytes", "entries"])
def test_a_folder_beyond_its_limit_is_reported(limit: str) -> None:
    folders = private_folders.Folders(os.geteuid(), os.getegid())
    try:
        folder = Path(folders.create())
        folders.assign(str(folder), 7)
        assert folders.overfull() == []
        if limit == "bytes":
            (folder / "file").write_bytes(bytes(private_folders.BYTES + 1))
        else:
            for number in range(private_folders.ENTRIES + 1):
                (folder / str(number)).touch()
        assert folders.overfull() == [7]
    finally:
        folders.close()
    assert not os.path.exists(folders.root)


def test_an_old_landlock_is_not_used_without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = {"namespaces": "not here"}
    monkeypatch.setattr(wall, "_refusal", lambda layer: refusals.get(layer, ""))
    monkeypatch.setattr(landlock, "version", lambda: 2)
    assert set(wall.refused_layers()) == {"namespaces", "landlock"}
    refusals.clear()
    assert wall.refused_layers() == {}
