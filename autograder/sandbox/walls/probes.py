"""Tries what student code must not be able to do, from behind the wall, and says what it saw.

The policy is a matter of effects: which layers give them does not matter.
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
    """What lies outside of the wall: a file, a folder, and sockets that answer; the process that made them."""

    file: str
    folder: str
    tcp: int
    udp: int
    abstract: bytes
    process: int


@dataclass(frozen=True)
class Probe:
    """One attempt: it returns where it succeeds, and raises where it is refused. `isolates` names what the policy asks it for."""

    name: str
    tried: str
    run: Callable[[Targets], None]
    isolates: str = ""


@dataclass(frozen=True)
class Seen:
    """Whether an attempt was stopped, and by what."""

    name: str
    stopped: bool
    text: str


@contextlib.contextmanager
def targets() -> Iterator[Targets]:
    """Open what the probes try to reach; to be called before the wall is put up."""
    abstract = b"\0autograder-%d" % os.getpid()
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
        yield Targets(
            file=autograder.__file__,
            folder="/tmp",
            tcp=tcp.getsockname()[1],
            udp=udp.getsockname()[1],
            abstract=abstract,
            process=os.getpid(),
        )


def _read_file(targets: Targets) -> None:
    with open(targets.file, "rb") as file:
        file.read(1)


def _write_file(targets: Targets) -> None:
    path = f"{targets.folder}/autograder-probe-{os.getpid()}-{time.monotonic_ns()}"
    with open(path, "x"):
        os.unlink(path)


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
        # Holds the wire, so that whether it survives shows there; goes when the other end does.
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
    try:
        for _ in range(1000):
            threading.Thread(target=done.wait, daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from None
    finally:
        done.set()


PROBES = (
    Probe("read", "read a file of the autograder", _read_file, "files"),
    Probe("write", "made a file in /tmp", _write_file, "files"),
    Probe("find", "looked for a file of the autograder by its path", _find_file),
    Probe("list", "listed /", _list_root),
    Probe("tcp", "opened a TCP connection to 127.0.0.1", _connect, "network"),
    Probe("udp", "sent a UDP datagram to 127.0.0.1", _send_datagram, "network"),
    Probe(
        "abstract",
        "connected to an abstract Unix socket of this machine",
        _connect_abstract,
        "network",
    ),
    Probe("signal", "sent a signal to a process outside", _signal, "processes"),
    Probe("memory", "took more memory than is allowed", _take_memory, "memory"),
    Probe("threads", "started 1000 threads", _start_threads),
    Probe("fork", "started a process", _fork),
)
SURVIVOR = "survivor"
TRIED = {probe.name: probe.tried for probe in PROBES}
TRIED[SURVIVOR] = "started a process that outlives the kill"
ISOLATES = {probe.name: probe.isolates for probe in PROBES if probe.isolates}
ISOLATES[SURVIVOR] = "processes"


def observe(wall: Wall, outside: Targets) -> list[Seen]:
    """Run all probes in a process behind the wall, and kill it; what they saw, and whether anything survived."""
    ours, theirs = socket.socketpair()
    with ours:
        pid = wall.fork(theirs.fileno(), MEMORY, 60)
        if pid == 0:
            _report_all(outside)
        theirs.close()
        ours.settimeout(SECONDS)
        # The last probe may have forked: what came by then is all, the end of the wire is not.
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
            # A survivor would hold the other end of the wire.
            ended = ours.recv(1) == b""
        except TimeoutError:
            ended = False
    seen = [Seen(*each) for each in json.loads(text or b"[]")]
    answered = {each.name for each in seen}
    seen += [Seen(p.name, False, "no answer") for p in PROBES if p.name not in answered]
    return [*seen, Seen(SURVIVOR, ended, "it died" if ended else "it lived on")]


def _report_all(outside: Targets) -> None:
    try:
        seen = [[p.name, *_result(p, outside)] for p in PROBES]
        with socket.socket(fileno=3) as wire:
            wire.sendall(json.dumps(seen).encode() + b"\n")
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
    return False, "it worked"


def holes(seen: Sequence[Seen]) -> list[str]:
    """What the policy asks for and was not stopped, in words."""
    return [
        f"{ISOLATES[each.name]}: {TRIED[each.name]}, and {each.text}"
        for each in seen
        if each.name in ISOLATES and not each.stopped
    ]


def main(layers: Sequence[str]) -> None:
    """Put these layers up and print for each probe what was tried, whether it was stopped, and what was seen, as JSON."""
    wall = Wall(layers)
    with targets() as outside:
        wall.around_server()
        try:
            seen = observe(wall, outside)
        finally:
            wall.close()
    print(json.dumps({each.name: [TRIED[each.name], each.stopped, each.text] for each in seen}))
