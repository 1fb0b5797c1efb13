"""What the grader and its fork server say to one another; needs nothing that only Linux has."""

from __future__ import annotations

import msgspec

LAYERS = ("namespaces", "landlock", "seccomp", "limits")
# Two steps: the code of a function that runs cannot forget where it came from.
SERVER = "import sys; import autograder.sandbox.server as s; s.main(*s.load(sys.argv[1:]))"
# Services are modules with `warm_up()`, `prepare(data)` and `serve(connection, output)`; this one runs student code.
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
    """Fork a process of a service under a number that the grader gives no other one.

    `memory` is address space beyond the server's own, `cpu` seconds, `output` characters.
    """

    number: int
    service: str
    memory: int
    cpu: int
    output: int


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """Kill a process; reported with `wait` alone, as the grader need not wait until its memory is freed."""

    number: int
    wait: bool


class Prepare(msgspec.Struct, tag="prepare", frozen=True):
    """Let a service get ready for what its processes will need; the data is trusted and public. There is no report."""

    service: str
    data: bytes


class Started(msgspec.Struct, tag="started", frozen=True):
    """A process runs; its pidfd comes with this report."""

    number: int


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """The wall of a worker could not be put up, and nothing runs."""

    reason: str


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """The layers of the wall, what of the policy was seen not to hold behind them, and the layers that the machine refused."""

    layers: list[str]
    holes: list[str]
    refused: dict[str, str]


class Stopped(msgspec.Struct, tag="stopped", frozen=True):
    """`code` is the exit code, or minus the signal that ended the process; `cpu` the processor seconds that it used."""

    code: int
    cpu: float


Control = Start | Stop | Prepare
Report = Ready | Started | Refused | Stopped
CONTROL = msgspec.msgpack.Decoder(Control)
REPORT = msgspec.msgpack.Decoder(Report)
ENCODE = msgspec.msgpack.Encoder().encode
