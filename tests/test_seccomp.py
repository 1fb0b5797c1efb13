"""Test which system calls the filter allows, by interpreting it as the kernel does."""

from __future__ import annotations

import os
import platform
import struct

import pytest

from autograder.sandbox.walls import seccomp, syscalls

pytestmark = pytest.mark.slow


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Interpret a BPF filter as the kernel does, and return its action for a system call."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    at = value = 0
    while True:
        code, yes, no, k = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return int(k)
        if code == 0x20:
            value = struct.unpack_from("<I", data, k)[0]
        elif code == 0x54:
            value &= k
        else:
            assert code in (0x15, 0x35)
            at += yes if (value == k if code == 0x15 else value >= k) else no


ALLOW, REFUSE, UNKNOWN, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
PRETEND = 0x50000  # the system call does nothing and reports success
CALLS = {
    "read": ((), ALLOW),
    "openat": ((), ALLOW),
    "execve": ((), REFUSE),
    "ptrace": ((), REFUSE),
    "socket": ((), REFUSE),
    "clone": ((17,), REFUSE),  # flags used by fork()
    "clone ": ((0x3D0F00,), ALLOW),  # flags used to create a thread
    "clone  ": ((0x3D0F00 | 0x10000000,), REFUSE),
    "clone3": ((), UNKNOWN),
    "prlimit64": ((0, 9, 0), ALLOW),
    "prlimit64 ": ((0, 9, 1 << 40), REFUSE),
    "prlimit64  ": ((1, 9, 0), REFUSE),
    "tgkill": ((1, 2, 6), ALLOW),
    "tgkill ": ((2, 2, 6), REFUSE),
    "fcntl": ((5, 3), ALLOW),
    "fcntl ": ((5, 8, 77), REFUSE),
    "socketpair": ((1, 1 | 0x80000), ALLOW),
    "socketpair ": ((1, 2 | 0x80000), REFUSE),
    "sendto": ((3, 0, 0, 1), REFUSE),
    "fchmodat": ((), ALLOW),
}


ON_A_DISK = {
    "fchmodat": ((), PRETEND),
    "unlinkat": ((), PRETEND),
    "renameat2": ((), REFUSE),
    "fallocate": ((5, 0, 0, 1), ALLOW),
    "fallocate ": ((5, 1, 0, 1), REFUSE),
    "openat": ((-100 & (1 << 64) - 1, 0, os.O_RDWR | os.O_CREAT), ALLOW),
    "openat ": ((-100 & (1 << 64) - 1, 0, os.O_RDWR | os.O_TMPFILE), REFUSE),
}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_allows_only_the_expected_calls(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    program = seccomp.worker_program(1, own_files=True)
    own = seccomp._ARCHITECTURES[machine]
    for name, (arguments, expected) in CALLS.items():
        number = syscalls.number(name.strip())
        assert number is not None
        assert verdict(program, own, number, *arguments) == expected, name
        assert verdict(program, own ^ 1, number, *arguments) == KILL
    without = seccomp.worker_program(1, own_files=False)
    for name, (arguments, expected) in ON_A_DISK.items():
        number = syscalls.number(name.strip())
        assert number is not None
        assert verdict(without, own, number, *arguments) == expected, name


def test_an_unknown_architecture_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match="riscv64"):
        seccomp.worker_program(1, own_files=True)
