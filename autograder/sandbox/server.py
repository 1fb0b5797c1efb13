"""Fork server: a single-threaded process that has its services imported and warm, and forks a walled process per job.

Started as `python -I -c control.SERVER FD SERVICES LAYER...`, where SERVICES are module names with commas between them, with
an environment of `control.ENVIRONMENT` alone: `load`, then `main`. It holds nothing secret. On its control socket it sends
`Ready` once, then takes `Start` (with one end of the job's wire as a descriptor), `Stop` and `Prepare`. The wall is up before
it forks.
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

from autograder.sandbox import huge_pages
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
from autograder.sandbox.walls.wall import WIRE, Wall, WallError, unavailable


def receive_control(control: socket.socket) -> tuple[Control | None, int]:
    """One request and the descriptor that came with it (-1 for none); None when the grader has gone."""
    room = socket.CMSG_SPACE(array.array("i", [0]).itemsize)
    data, ancillary, _, _ = control.recvmsg(MAX_CONTROL, room)
    if not data:
        return None, -1
    wire = -1
    for _, _, raw in ancillary:
        wire = array.array("i", raw[: array.array("i").itemsize])[0]
    return CONTROL.decode(data), wire


def serve(wall: Wall, control: socket.socket, services: dict[str, ModuleType]) -> None:
    """Answer the control socket until it is closed."""
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
    """Serve requests; `children` are the processes by the grader's numbers."""
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
    """Serve the wire in the process that was just forked; never returns."""
    code = 1
    try:
        control.detach()  # it is closed, and its number may be another's by now
        service.serve(socket.socket(fileno=WIRE), start.output)
        code = 0
    finally:
        os._exit(code)


def _readable(control: socket.socket) -> bool:
    return bool(select.select([control], [], [], WATCH_SECONDS)[0])


def _reap(pid: int) -> Stopped:
    _, status, used = os.wait4(pid, 0)
    return Stopped(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime)


def _kill(pid: int) -> None:
    """With namespaces all that it started goes too, without them what is in its session."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def load(arguments: list[str]) -> tuple[socket.socket, Wall, dict[str, str], dict[str, ModuleType]]:
    """Find out what the machine offers, and import the services: the control socket, the wall, refusals, and the services.

    Where it can, it starts this program again from mounts whose paths tell nothing.
    """
    descriptor, names, *layers = arguments
    if "namespaces" in layers:
        relocation.relocate(arguments)
    control = socket.socket(fileno=int(descriptor))
    refused = unavailable(layers)
    wall = Wall([layer for layer in layers if layer not in refused])
    sys.dont_write_bytecode = True
    # Extension modules that need libraries of the system, which the walled root does not have.
    for name in ("bz2", "ctypes", "hashlib", "lzma", "sqlite3", "ssl", "zlib", "encodings.idna"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Behind the wall this project's own code cannot be imported.
    services = {name: importlib.import_module(name) for name in names.split(",")}
    for service in services.values():
        service.warm_up()
    relocation.forget_project()
    return control, wall, refused, services


def main(
    control: socket.socket, wall: Wall, refused: dict[str, str], services: dict[str, ModuleType]
) -> None:
    """Put up the wall, report, and serve."""
    gc.collect()
    gc.freeze()
    tasks = len(os.listdir("/proc/self/task"))
    if tasks != 1:
        raise RuntimeError(f"the fork server must have one thread, it has {tasks}")
    with probes.targets() as outside:
        memory = huge_pages.private_memory()  # while there is a /proc to tell it
        wall.around_server()
        seen = probes.observe(wall, outside)
    huge_pages.collapse(memory)
    try:
        with contextlib.suppress(ConnectionError):  # the grader has gone
            control.send(ENCODE(Ready(wall.layers, probes.holes(seen), refused)))
            serve(wall, control, services)
    finally:
        wall.close()
