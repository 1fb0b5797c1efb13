"""Messages between the grader and its fork server, and how the server is started. Importable on every platform."""

from __future__ import annotations

import msgspec

LAYERS = ("namespaces", "landlock", "seccomp", "limits")
# Two calls, because `load` removes file paths from functions, and a running function would keep its own.
SERVER = "import sys; import autograder.sandbox.server as s; s.main(*s.load(sys.argv[1:]))"
# A service is a module with `warm_up()`, `prepare(data)` and `serve(connection)`. This one runs student code.
WORKER = "autograder.sandbox.worker.worker"
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
MAX_CONTROL = 1 << 16


class Start(msgspec.Struct, tag="start", frozen=True):
    """A request to fork a process of a service. The grader chooses a unique number.

    `memory` is the address space in bytes beyond the server's own, and `cpu` the processor time in seconds.
    """

    number: int
    service: str
    memory: int
    cpu: int


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """A request to kill a process. Only with `wait` does the server send `Stopped`, once the process has ended."""

    number: int
    wait: bool


class Prepare(msgspec.Struct, tag="prepare", frozen=True):
    """A request to prepare a service for its processes. The data is trusted and public. No report follows."""

    service: str
    data: bytes


class Started(msgspec.Struct, tag="started", frozen=True):
    """A report that a process runs. The process's pidfd accompanies it."""

    number: int


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """A report that the wall around a process could not be put up and that nothing runs."""

    reason: str


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """A report that the server is up: the layers of its wall, the holes that probes found, and the layers that were refused."""

    layers: list[str]
    holes: list[str]
    refused: dict[str, str]


class Stopped(msgspec.Struct, tag="stopped", frozen=True):
    """A report that a process ended, with its exit code or negated signal and its processor time in seconds."""

    code: int
    cpu: float


Control = Start | Stop | Prepare
Report = Ready | Started | Refused | Stopped
CONTROL = msgspec.msgpack.Decoder(Control)
REPORT = msgspec.msgpack.Decoder(Report)
ENCODE = msgspec.msgpack.Encoder().encode
