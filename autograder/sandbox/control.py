"""Define the messages between the grader and its fork server.

This module can be imported on every platform.
"""

from __future__ import annotations

import msgspec

MAX_CONTROL = 1 << 16


class Start(msgspec.Struct, tag="start", frozen=True):
    """A request to fork a process for a service. The grader assigns a unique number to the process.

    `memory` is the number of bytes by which the process's address space may exceed the server's. `cpu` is the process's
    CPU time limit in seconds.
    """

    number: int
    service: str
    memory: int
    cpu: int


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """A request to kill a process. If `wait` is set, the server sends `Stopped` once the process has ended."""

    number: int
    wait: bool


class Prepare(msgspec.Struct, tag="prepare", frozen=True):
    """A request to pass trusted, public data to a service before its processes are forked. The server does not reply."""

    service: str
    data: bytes


class Started(msgspec.Struct, tag="started", frozen=True):
    """A report that a process is running. It is sent together with the process's pidfd."""

    number: int


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """A report that a process could not be sandboxed and was not started."""

    reason: str


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """A report that the server is up.

    It lists the isolation layers in use, the layers that this machine does not support, and any forbidden actions that
    were not blocked.
    """

    layers: list[str]
    unblocked: list[str]
    refused: dict[str, str]


class Stopped(msgspec.Struct, tag="stopped", frozen=True):
    """A report that a process ended, with its exit code or negated signal number and its CPU time in seconds."""

    code: int
    cpu: float


Control = Start | Stop | Prepare
Report = Ready | Started | Refused | Stopped
CONTROL = msgspec.msgpack.Decoder(Control)
REPORT = msgspec.msgpack.Decoder(Report)
ENCODE = msgspec.msgpack.Encoder().encode
