"""The fork server: a process that holds torch, warm and with one thread, and forks a worker for each job.

Started as `python -I -m autograder.sandbox.server FD` with an environment of `ENVIRONMENT` alone; it holds nothing secret.
On its control socket it takes `Start` (with one end of the job's wire as a descriptor) and `Stop`.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from typing import Any

import msgspec

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "PYTHONHASHSEED": "0",
    "HOME": "/nonexistent",
    "PATH": "/nonexistent",
    "LANG": "C.UTF-8",
}
WIRE = 3
MAX_CONTROL = 1 << 16


class Start(msgspec.Struct, tag="start", frozen=True):
    """Fork a worker; `memory` is address space beyond the server's own, `cpu` seconds, `output` characters."""

    memory: int
    cpu: int
    output: int


class Stop(msgspec.Struct, tag="stop", frozen=True):
    pid: int


class Started(msgspec.Struct, tag="started", frozen=True):
    pid: int


class Stopped(msgspec.Struct, tag="stopped", frozen=True):
    """`code` is the exit code, or minus the signal that ended the worker."""

    code: int


Control = Start | Stop
Report = Started | Stopped
CONTROL = msgspec.msgpack.Decoder(Control)
REPORT = msgspec.msgpack.Decoder(Report)


def warm_up() -> None:
    """Import and touch what workers use, so that a fork has it ready.

    Forward passes and an optimizer step only: after a backward here, deep backwards crash in the workers.
    """
    import dataclasses  # noqa: F401
    import functools  # noqa: F401
    import typing  # noqa: F401

    import jaxtyping  # noqa: F401
    import torch
    import torch._dynamo
    from torch import nn

    torch.set_num_threads(1)
    with torch.no_grad():
        model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
        x = torch.randn(2, 3, 8)
        model(x, x)
        x.double() @ x.double().mT
        torch.einsum("bnd,bmd->bnm", x, x).softmax(-1)
        torch.nn.functional.cross_entropy(x, x.softmax(-1))
        torch.ones(2, 2, dtype=torch.bool, device="meta").tril()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(model.parameters()).step()


def fork_worker(start: Start, control: socket.socket, wire: int) -> int:
    """Fork; the child serves `wire` and never returns."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        control.close()
        connection = _only_descriptor(wire)
        os.setsid()
        limit(start)
        from autograder.sandbox.worker import serve

        serve(connection, start.output)
        code = 0
    finally:
        os._exit(code)


def _only_descriptor(wire: int) -> socket.socket:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(wire, WIRE) if wire != WIRE else None
    for standard in range(3):
        os.dup2(null, standard)
    os.closerange(WIRE + 1, 1 << 16)
    return socket.socket(fileno=WIRE)


def limit(start: Start) -> None:
    """Bound memory, processor time, files and descriptors of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    for what, value in (
        (resource.RLIMIT_AS, used + start.memory),
        (resource.RLIMIT_CPU, start.cpu),
        (resource.RLIMIT_FSIZE, 64 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))


def stop_worker(pid: int) -> int:
    """Kill and reap; what the worker started in its session goes too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


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


def main(descriptor: int) -> None:
    """Serve the control socket until it is closed."""
    control = socket.socket(fileno=descriptor)
    warm_up()
    gc.collect()
    gc.freeze()
    tasks = len(os.listdir("/proc/self/task"))
    if tasks != 1:
        raise RuntimeError(f"the fork server must have one thread, it has {tasks}")
    encode: Any = msgspec.msgpack.Encoder().encode
    control.send(encode(Started(os.getpid())))
    children: set[int] = set()
    while True:
        request, wire = receive_control(control)
        if request is None:
            break
        if isinstance(request, Start):
            pid = fork_worker(request, control, wire)
            os.close(wire)
            children.add(pid)
            control.send(encode(Started(pid)))
        elif request.pid in children:
            children.discard(request.pid)
            control.send(encode(Stopped(stop_worker(request.pid))))
    for pid in children:
        stop_worker(pid)


if __name__ == "__main__":
    main(int(sys.argv[1]))
