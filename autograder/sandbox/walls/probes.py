"""Attempt forbidden actions from inside the sandbox and report whether they were blocked.

The policy defines which actions must be blocked, not which layer must block them. Entry points: `targets`, `observe`,
`unblocked` and `main`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import autograder
from autograder.sandbox.walls.wall import Wall

MEMORY = 1 << 30
SECONDS = 10.0


@dataclass(frozen=True)
class Targets:
    """Targets outside the sandbox that probes try to reach: a file, a path for a new file, listening sockets and the server."""

    file: str
    new_file: str
    tcp: int
    udp: int
    abstract: bytes
    process: int


@dataclass(frozen=True)
class Probe:
    """An attempt to escape the sandbox. `run` raises an exception if the attempt is blocked.

    `isolates` names the protected resource.
    """

    name: str
    tried: str
    run: Callable[[Targets], None]
    isolates: str = ""


@dataclass(frozen=True)
class ProbeResult:
    """Whether an attempt was blocked, and what happened."""

    name: str
    blocked: bool
    text: str


@contextlib.contextmanager
def targets() -> Iterator[Targets]:
    """Open the targets that the probes try to reach. Enter this context before the sandbox is set up."""
    abstract = b"\0autograder-%d" % os.getpid()
    new_file = f"/tmp/autograder-probe-{os.getpid()}-{time.monotonic_ns()}"
    with (
        socket.socket() as tcp,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as local,
    ):
        for listener, address in ((tcp, ("127.0.0.1", 0)), (udp, ("127.0.0.1", 0))):
            listener.bind(address)
        local.bind(abstract)
        tcp.listen()
        local.listen()
        try:
            yield Targets(
                file=autograder.__file__,
                new_file=new_file,
                tcp=tcp.getsockname()[1],
                udp=udp.getsockname()[1],
                abstract=abstract,
                process=os.getpid(),
            )
        finally:
            # The probe cannot remove the file itself, because seccomp ignores `unlink`.
            with contextlib.suppress(OSError):
                os.unlink(new_file)


def _read_file(targets: Targets) -> None:
    with open(targets.file, "rb") as file:
        file.read(1)


def _write_file(targets: Targets) -> None:
    open(targets.new_file, "x").close()


def _find_file(targets: Targets) -> None:
    os.stat(targets.file)


def _list_root(targets: Targets) -> None:
    os.listdir("/")


def _connect(targets: Targets) -> None:
    with socket.create_connection(("127.0.0.1", targets.tcp), SECONDS):
        pass


def _send_datagram(targets: Targets) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.sendto(b"?", ("127.0.0.1", targets.udp))


def _connect_abstract(targets: Targets) -> None:
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(targets.abstract)


def _signal(targets: Targets) -> None:
    os.kill(targets.process, 0)


def _fork(targets: Targets) -> None:
    if os.fork() == 0:
        # The child keeps the socket open to show that it survived, and exits when the other end closes.
        os.setsid()
        for ignored in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(ignored, signal.SIG_IGN)
        with socket.socket(fileno=3) as wire:
            wire.settimeout(SECONDS)
            wire.recv(1)
        os._exit(0)


def _take_memory(targets: Targets) -> None:
    mmap.mmap(-1, MEMORY + (256 << 20)).close()


def _start_threads(targets: Targets) -> None:
    done = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(1000):
            thread = threading.Thread(target=done.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from None
    finally:
        done.set()
        for thread in started:  # otherwise, the next probe could reach the same limit
            thread.join()


PROBES = (
    Probe("read", "read one of the autograder's files", _read_file, "files"),
    Probe("write", "create a file in /tmp", _write_file, "files"),
    Probe("find", "find one of the autograder's files by its path", _find_file),
    Probe("list", "list /", _list_root),
    Probe("tcp", "open a TCP connection to 127.0.0.1", _connect, "network"),
    Probe("udp", "send a UDP datagram to 127.0.0.1", _send_datagram, "network"),
    Probe(
        "abstract",
        "connect to an abstract Unix socket outside the sandbox",
        _connect_abstract,
        "network",
    ),
    Probe("signal", "send a signal to a process outside the sandbox", _signal, "processes"),
    Probe("memory", "allocate more memory than the limit", _take_memory, "memory"),
    Probe("threads", "start 1000 threads", _start_threads),
    Probe("fork", "start a process", _fork),
)
SURVIVOR = "survivor"
TRIED = {probe.name: probe.tried for probe in PROBES}
TRIED[SURVIVOR] = "start a process that outlives its parent"
ISOLATES = {probe.name: probe.isolates for probe in PROBES if probe.isolates}
ISOLATES[SURVIVOR] = "processes"


def observe(wall: Wall, outside: Targets) -> list[ProbeResult]:
    """Run all probes in a sandboxed process, kill it and return the results, including whether a child process survived."""
    ours, theirs = socket.socketpair()
    with ours:
        pid = wall.fork(theirs.fileno(), MEMORY, 60)
        if pid == 0:
            _report_all(outside)
        theirs.close()
        ours.settimeout(SECONDS)
        # Do not wait for the end of the stream, because a child of the last probe may keep the socket open.
        text = b""
        with contextlib.suppress(TimeoutError):
            while not text.endswith(b"\n"):
                piece = ours.recv(1 << 16)
                if not piece:
                    break
                text += piece
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        wall.forget(pid)
        ours.settimeout(1.0)
        try:
            # A surviving child keeps the other end of the socket open.
            ended = ours.recv(1) == b""
        except TimeoutError:
            ended = False
    results = [ProbeResult(*each) for each in json.loads(text or b"[]")]
    answered = {each.name for each in results}
    results += [ProbeResult(p.name, False, "no answer") for p in PROBES if p.name not in answered]
    return [
        *results,
        ProbeResult(SURVIVOR, ended, "the child died" if ended else "the child survived"),
    ]


def _report_all(outside: Targets) -> None:
    try:
        results = [[p.name, *_result(p, outside)] for p in PROBES]
        with socket.socket(fileno=3) as wire:
            wire.sendall(json.dumps(results).encode() + b"\n")
            wire.recv(1)
    finally:
        os._exit(0)


def _result(probe: Probe, outside: Targets) -> tuple[bool, str]:
    try:
        probe.run(outside)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        return True, f"refused, {os.strerror(error.errno or 0).lower()} ({name})"
    except MemoryError:
        return True, "refused, out of memory"
    return False, "the attempt succeeded"


def unblocked(results: Sequence[ProbeResult]) -> list[str]:
    """Return a description of each forbidden attempt that was not blocked."""
    return [
        f"{TRIED[each.name]} (isolation of {ISOLATES[each.name]}): {each.text}"
        for each in results
        if each.name in ISOLATES and not each.blocked
    ]


def main(layers: Sequence[str]) -> None:
    """Enable the given layers and print as JSON what each probe tried, whether it was blocked, and what happened."""
    wall = Wall(layers)
    with targets() as outside:
        wall.enclose_server()
        try:
            results = observe(wall, outside)
        finally:
            wall.close()
    print(json.dumps({each.name: [TRIED[each.name], each.blocked, each.text] for each in results}))
