"""Fork server: a single-threaded process that imports its services once and forks a sandboxed process for each request.

The grader starts it as `python -I -c command.SERVER FDS SERVICES LAYER...`. The environment contains only
`command.ENVIRONMENT`. SERVICES is a comma-separated list of module names. If possible, the server first restarts itself
from mounts whose paths do not reveal the course's folder. Then `load` runs, followed by `main`.

FDS are its control socket and, optionally, a listening socket. On the control socket, the server sends `Ready` once and
then accepts `Start`, `Stop` and `Prepare`. A `Start` request carries one end of the new process's socket. For each connection
to the listening socket, the server forks a duplicate of itself, whose control socket is that connection. The services are
therefore imported once for all graders. The server contains no secrets and is sandboxed before it forks.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from types import ModuleType
from typing import NoReturn

from autograder.sandbox.control import (
    CONTROL,
    ENCODE,
    MAX_CONTROL,
    Control,
    Prepare,
    Ready,
    Refused,
    Start,
    Started,
    Stop,
    Stopped,
)
from autograder.sandbox.walls import probes, relocation
from autograder.sandbox.walls.private_folders import WATCH_SECONDS
from autograder.sandbox.walls.wall import WIRE, Wall, WallError, refused_layers


def receive_control(control: socket.socket) -> tuple[Control | None, int]:
    """Receive a request and its file descriptor (-1 if there is none). The request is None if the grader has hung up."""
    room = socket.CMSG_SPACE(array.array("i", [0]).itemsize)
    data, ancillary, _, _ = control.recvmsg(MAX_CONTROL, room)
    if not data:
        return None, -1
    wire = -1
    for _, _, raw in ancillary:
        wire = array.array("i", raw[: array.array("i").itemsize])[0]
    return CONTROL.decode(data), wire


class ForkServer:
    """A server that answers one grader's requests. Its duplicates answer other graders' requests."""

    def __init__(
        self,
        wall: Wall,
        services: dict[str, ModuleType],
        ready: Ready,
        control: socket.socket,
        *listeners: socket.socket,
    ) -> None:
        self._wall, self._services, self._ready, self._control = wall, services, ready, control
        self._listeners = listeners  # at most one
        self._children: dict[int, int] = {}  # process ids by the grader's process numbers
        self._duplicates: list[int] = []  # process ids

    def serve(self) -> None:
        """Report that the server is ready, and answer requests until the grader hangs up. Then kill all processes.

        Duplicates keep running until their own graders hang up.
        """
        try:
            with contextlib.suppress(ConnectionError):  # the grader has hung up
                self._control.send(ENCODE(self._ready))
                self._answer_all()
        finally:
            for each in (self._control, *self._listeners):
                each.close()
            for pid in self._children.values():
                _kill(pid)
                _reap(pid)
                self._wall.forget(pid)
            for pid in self._duplicates:
                os.waitpid(pid, 0)
            self._wall.close()

    def _answer_all(self) -> None:
        while True:
            seconds = WATCH_SECONDS if self._wall.watches() and self._children else None
            ready = select.select([self._control, *self._listeners], [], [], seconds)[0]
            for pid in self._wall.excessive():
                _kill(pid)
            for listener in self._listeners:
                if listener in ready:
                    self._duplicate(listener)
            if self._control not in ready:
                continue
            request, wire = receive_control(self._control)
            match request:
                case None:
                    return
                case Start():
                    self._start(request, wire)
                case Stop():
                    self._stop(request)
                case Prepare():
                    self._services[request.service].prepare(request.data)

    def _start(self, request: Start, wire: int) -> None:
        try:
            pid = self._wall.fork(wire, request.memory, request.cpu)
        except (WallError, OSError) as error:
            self._control.send(ENCODE(Refused(str(error))))
        else:
            if pid == 0:
                _work(self._control, self._services[request.service])
            self._children[request.number] = pid
            _report_started(self._control, request.number, pid)
        os.close(wire)

    def _stop(self, request: Stop) -> None:
        pid = self._children.pop(request.number, None)
        if pid is None:
            return
        _kill(pid)
        ended = _reap(pid)
        if request.wait:
            self._control.send(ENCODE(ended))
        self._wall.forget(pid)

    def _duplicate(self, listener: socket.socket) -> None:
        # Reap the duplicates that have ended.
        self._duplicates = [p for p in self._duplicates if os.waitpid(p, os.WNOHANG)[0] == 0]
        control, _ = listener.accept()
        with control, contextlib.suppress(OSError):  # the grader sees that the socket is closed
            pid = self._wall.fork_server()
            if pid == 0:
                self._serve_duplicate(control)
            self._duplicates.append(pid)

    def _serve_duplicate(self, control: socket.socket) -> NoReturn:
        """Answer another grader's requests in a newly forked process."""
        try:
            for each in (self._control, *self._listeners):
                each.close()
            self._wall.separate()
            ForkServer(self._wall, self._services, self._ready, control).serve()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)


def _report_started(control: socket.socket, number: int, pid: int) -> None:
    handle = os.pidfd_open(pid)
    try:
        socket.send_fds(control, [ENCODE(Started(number))], [handle])
    finally:
        os.close(handle)


def _work(control: socket.socket, service: ModuleType) -> NoReturn:
    """Run a service in a newly forked process."""
    code = 1
    try:
        control.detach()  # the socket is already closed, and its descriptor may have been reused
        service.serve(socket.socket(fileno=WIRE))
        code = 0
    finally:
        os._exit(code)


def _reap(pid: int) -> Stopped:
    _, status, used = os.wait4(pid, 0)
    return Stopped(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime)


def _kill(pid: int) -> None:
    """Kill a process and its descendants. Without namespaces, only descendants in the same session are killed."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def load(
    arguments: list[str],
) -> tuple[list[socket.socket], Wall, dict[str, str], dict[str, ModuleType]]:
    """Determine the available sandbox layers and import the services.

    Returns:
        The sockets, the `Wall`, the unsupported layers with reasons, and the services by name.
    """
    descriptors, names, *layers = arguments
    gc.disable()  # garbage collection slows down imports
    sockets = [socket.socket(fileno=int(each)) for each in descriptors.split(",")]
    refused = refused_layers(layers)
    wall = Wall([layer for layer in layers if layer not in refused])
    sys.dont_write_bytecode = True
    # These extension modules need system libraries that do not exist in the sandbox.
    for name in ("bz2", "ctypes", "hashlib", "lzma", "sqlite3", "ssl", "zlib", "encodings.idna"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # This project's code cannot be imported inside the sandbox.
    services = {name: importlib.import_module(name) for name in names.split(",")}
    for service in services.values():
        service.warm_up()
    relocation.forget_project()
    return sockets, wall, refused, services


def main(
    sockets: list[socket.socket],
    wall: Wall,
    refused: dict[str, str],
    services: dict[str, ModuleType],
) -> None:
    """Set up the sandbox, report the probes' results, and answer requests."""
    fill_gaps()
    gc.freeze()
    gc.enable()
    tasks = len(os.listdir("/proc/self/task"))
    if tasks != 1:
        raise RuntimeError(f"the fork server must have one thread, but it has {tasks} threads")
    collapse(private_memory())
    with probes.targets() as outside:
        wall.enclose_server()
        results = probes.observe(wall, outside)
    ready = Ready(wall.layers, probes.unblocked(results), refused)
    ForkServer(wall, services, ready, *sockets).serve()
    os._exit(0)  # skip Python's own cleanup, which is slow after so many imports


_HUGE = 2 << 20
_COLLAPSE = 25  # MADV_COLLAPSE, since Linux 6.1
_OVERHEAD = 8  # bytes that glibc adds to each block
_COLLAPSE_SECONDS = 0.1  # on fragmented memory, each huge page can take a long time
_BLOCK_SIZES = [1 << power for power in range(16, 5, -1)]
_MAX_BLOCKS = 1000  # maximum blocks to allocate before measuring again, because measuring is slow
_OBJECT_SIZES = range(48, 513, 16)  # object sizes, in bytes, for which Python keeps memory pools
_POOL_BYTES = 64 << 10  # bytes per size; after the imports, no pool has more free bytes
_fillers: list[bytes] = []


class _MallocInfo(ctypes.Structure):
    """The result of glibc's `mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def fill_gaps() -> None:
    """Fill the gaps in the heap, so workers allocate new memory instead of writing to shared pages."""
    _fillers.extend(
        bytes(size - b"".__sizeof__()) for size in _OBJECT_SIZES for _ in range(_POOL_BYTES // size)
    )
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):  # not glibc, or older than 2.33
        return
    libc.mallinfo2.restype = _MallocInfo
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p

    def gaps() -> int:
        """Return the number of free bytes in the heap, excluding those at its end."""
        info = libc.mallinfo2()
        return int(info.fordblks - info.keepcost)

    for size in _BLOCK_SIZES:
        free = gaps()
        before = free + size
        # Continue while the allocated blocks fill gaps instead of growing the heap.
        while size <= free <= before - size:
            for _ in range(min(free // size, _MAX_BLOCKS)):
                libc.malloc(size - _OVERHEAD)
            before, free = free, gaps()


def private_memory() -> list[range]:
    """Return the address ranges of the huge pages that lie entirely within this process's private memory."""
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            addresses, rights, _, _, _, *name = line.split()
            if rights == "rw-p" and name in ([], ["[heap]"]):
                first, last = (int(address, 16) for address in addresses.split("-"))
                found.append(range(-first // _HUGE * -_HUGE, last // _HUGE * _HUGE, _HUGE))
    return found


def collapse(memory: list[range]) -> None:
    """Move address ranges to huge pages, so a fork copies one page-table entry instead of 512.

    Ranges that the kernel cannot collapse, or for which there is no time left, are left unchanged.
    """
    madvise = ctypes.CDLL(None).madvise
    end = time.monotonic() + _COLLAPSE_SECONDS
    for addresses in memory:
        for address in addresses:
            if time.monotonic() > end:
                return
            madvise(ctypes.c_void_p(address), ctypes.c_size_t(_HUGE), _COLLAPSE)
