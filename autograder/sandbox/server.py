"""The fork server: a process that holds torch, warm and with one thread, and forks a worker for each job.

Started as `python -I -m autograder.sandbox.server FD LAYER...` with an environment of `control.ENVIRONMENT` alone; it holds
nothing secret. On its control socket it says `Ready` once, and then takes `Start` (with one end of the job's wire as a
descriptor) and `Stop`. The walls stand before it forks a worker; what is imported after that comes from the walled root.
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
import warnings

from autograder.sandbox import pages, probes
from autograder.sandbox.control import (
    CONTROL,
    ENCODE,
    MAX_CONTROL,
    Control,
    Ready,
    Refused,
    Report,
    Start,
    Started,
    Stopped,
)
from autograder.sandbox.folders import WATCH_SECONDS
from autograder.sandbox.walls import WIRE, Wall, WallError, unavailable


def warm_up() -> None:
    """Import and touch what workers use, so that a fork has it ready.

    Forward passes and an optimizer step only: after a backward here, deep backwards crash in the workers.
    """
    # Extension modules that need libraries of the system, which the walled root does not have.
    for name in ("bz2", "ctypes", "hashlib", "lzma", "sqlite3", "ssl", "zlib", "encodings.idna"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import jaxtyping  # noqa: F401
    import torch
    import torch._dynamo
    import torch.distributions
    import torch.masked
    import torch.nn.attention.flex_attention
    from torch import nn

    # Behind the wall this project's own code is not there to be imported.
    import autograder.sandbox.worker  # noqa: F401
    from autograder.sandbox.measure import Measure

    torch.set_num_threads(1)
    # oneDNN compiles a kernel for each new shape, in each process anew, and another one for each processor.
    torch.backends.mkldnn.set_flags(_enabled=False)
    torch.manual_seed(0)
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings(action="ignore"):
        library.impl("relu", torch.relu, "CPU")  # the first override of a kernel warns, at length
    del library
    with torch.no_grad():
        model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
        x = torch.randn(2, 3, 8)
        model(x, x)
        with Measure():
            x.double() @ x.double().mT
        torch.einsum("bnd,bmd->bnm", x, x).softmax(-1)
        torch.nn.functional.cross_entropy(x, x.softmax(-1))
        torch.ones(2, 2, dtype=torch.bool, device="meta").tril()
        for dtype in (torch.float16, torch.bfloat16):
            # Asks /proc/cpuinfo what the processor can do, which is not there behind the wall.
            half = x.to(dtype)
            torch.nn.functional.linear(half, half[0]).exp() @ half
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(model.parameters()).step()


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


def serve(wall: Wall, control: socket.socket) -> None:
    """Answer the control socket until it is closed."""
    children: set[int] = set()
    try:
        _answer(wall, control, children)
    finally:
        for pid in children:
            _kill(pid)
            _reap(pid)
            wall.forget(pid)


def _answer(wall: Wall, control: socket.socket, children: set[int]) -> None:
    while True:
        if wall.watches() and children and not _readable(control):
            for pid in wall.overfull():
                _kill(pid)
            continue
        request, wire = receive_control(control)
        if request is None:
            break
        if isinstance(request, Start):
            report: Report
            try:
                pid = wall.fork(wire, request.memory, request.cpu)
            except (WallError, OSError) as error:
                report = Refused(str(error))
            else:
                if pid == 0:
                    _work(control, request)
                children.add(pid)
                report = Started(pid)
            os.close(wire)
            control.send(ENCODE(report))
        elif request.pid in children:
            children.discard(request.pid)
            _kill(request.pid)
            code = _reap(request.pid)
            if request.wait:
                control.send(ENCODE(Stopped(code)))
            wall.forget(request.pid)


def _work(control: socket.socket, start: Start) -> None:
    """Serve the wire in the process that was just forked; never returns."""
    code = 1
    try:
        control.detach()  # it is closed, and its number may be another's by now
        from autograder.sandbox.worker import serve as serve_wire

        serve_wire(socket.socket(fileno=WIRE), start.output)
        code = 0
    finally:
        os._exit(code)


def _readable(control: socket.socket) -> bool:
    return bool(select.select([control], [], [], WATCH_SECONDS)[0])


def _reap(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _kill(pid: int) -> None:
    """With namespaces all that it started goes too, without them what is in its session."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def main(descriptor: int, layers: list[str]) -> None:
    """Warm up, put up what layers there are to be had, say how it went, and serve."""
    control = socket.socket(fileno=descriptor)
    refused = unavailable(layers)
    wall = Wall([layer for layer in layers if layer not in refused])
    sys.dont_write_bytecode = True
    warm_up()
    gc.collect()
    gc.freeze()
    tasks = len(os.listdir("/proc/self/task"))
    if tasks != 1:
        raise RuntimeError(f"the fork server must have one thread, it has {tasks}")
    with probes.targets() as outside:
        memory = pages.private_memory()  # while there is a /proc to tell it
        wall.around_server()
        seen = probes.observe(wall, outside)
    pages.collapse(memory)
    try:
        with contextlib.suppress(ConnectionError):  # the grader has gone
            control.send(ENCODE(Ready(wall.layers, probes.holes(seen), refused)))
            serve(wall, control)
    finally:
        wall.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
