"""Fork server: a single-threaded process that imports its services once and forks a sandboxed process for each request.

The grader starts it as `python -I -c command.SERVER FD SERVICES LAYER...`. The environment contains only
`command.ENVIRONMENT`. SERVICES is a comma-separated list of module names. If possible, the server first restarts itself
from mounts whose paths do not reveal the course's folder. Then `load` runs, followed by `main`.

On its control socket FD, the server sends `Ready` once and then accepts `Start`, `Stop` and `Prepare`. A `Start`
request carries one end of the new process's socket. The server contains no secrets and is sandboxed before it forks.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from types import ModuleType

from autograder.sandbox import memory
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


def serve(wall: Wall, control: socket.socket, services: dict[str, ModuleType]) -> None:
    """Answer requests on the control socket until the socket is closed, then kill all processes."""
    children: dict[int, int] = {}
    try:
        _answer(wall, control, services, children)
    finally:
        for pid in children.values():
            _kill(pid)
            _reap(pid)
            wall.forget(pid)


def _answer(
    wall: Wall, control: socket.socket, services: dict[str, ModuleType], children: dict[int, int]
) -> None:
    """Answer requests. `children` maps the grader's process numbers to process ids."""
    while True:
        if wall.watches() and children:
            for pid in wall.overfull():
                _kill(pid)
            if not _readable(control):
                continue
        request, wire = receive_control(control)
        if request is None:
            break
        if isinstance(request, Start):
            try:
                pid = wall.fork(wire, request.memory, request.cpu)
            except (WallError, OSError) as error:
                control.send(ENCODE(Refused(str(error))))
            else:
                if pid == 0:
                    _work(control, services[request.service], request)
                children[request.number] = pid
                _report_started(control, request.number, pid)
            os.close(wire)
        elif isinstance(request, Prepare):
            services[request.service].prepare(request.data)
        elif request.number in children:
            pid = children.pop(request.number)
            _kill(pid)
            ended = _reap(pid)
            if request.wait:
                control.send(ENCODE(ended))
            wall.forget(pid)


def _report_started(control: socket.socket, number: int, pid: int) -> None:
    handle = os.pidfd_open(pid)
    try:
        socket.send_fds(control, [ENCODE(Started(number))], [handle])
    finally:
        os.close(handle)


def _work(control: socket.socket, service: ModuleType, start: Start) -> None:
    """Run a service in a newly forked process. Never returns."""
    code = 1
    try:
        control.detach()  # the socket is already closed, and its descriptor may have been reused
        service.serve(socket.socket(fileno=WIRE))
        code = 0
    finally:
        os._exit(code)


def _readable(control: socket.socket) -> bool:
    return bool(select.select([control], [], [], WATCH_SECONDS)[0])


def _reap(pid: int) -> Stopped:
    _, status, used = os.wait4(pid, 0)
    return Stopped(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime)


def _kill(pid: int) -> None:
    """Kill a process and its descendants. Without namespaces, only descendants in the same session are killed."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def load(arguments: list[str]) -> tuple[socket.socket, Wall, dict[str, str], dict[str, ModuleType]]:
    """Determine the available sandbox layers and import the services.

    Returns:
        The control socket, the `Wall`, the unsupported layers with reasons, and the services by name.
    """
    descriptor, names, *layers = arguments
    gc.disable()  # garbage collection slows down imports
    control = socket.socket(fileno=int(descriptor))
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
    return control, wall, refused, services


def main(
    control: socket.socket, wall: Wall, refused: dict[str, str], services: dict[str, ModuleType]
) -> None:
    """Set up the sandbox, report the results of the probes, and answer requests."""
    memory.fill_gaps()
    gc.freeze()
    gc.enable()
    tasks = len(os.listdir("/proc/self/task"))
    if tasks != 1:
        raise RuntimeError(f"the fork server must have one thread, but it has {tasks} threads")
    memory.collapse(memory.private_memory())
    with probes.targets() as outside:
        wall.enclose_server()
        seen = probes.observe(wall, outside)
    try:
        with contextlib.suppress(ConnectionError):  # the grader has hung up
            control.send(ENCODE(Ready(wall.layers, probes.holes(seen), refused)))
            serve(wall, control, services)
    finally:
        wall.close()
