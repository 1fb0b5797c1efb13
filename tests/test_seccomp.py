"""Test which system calls the filter allows, by interpreting it as the kernel does."""

from __future__ import annotations

import errno
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
RETRY = 0x50000 | errno.EAGAIN
NONE = (1 << 64) - 1  # -1
OF_A_PROCESS = ("sched_getaffinity", "sched_getparam", "sched_getscheduler", "getpgid", "getsid")
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
    "tgkill  ": ((1, 2, 40), REFUSE),
    "fcntl": ((5, 3), ALLOW),
    "fcntl ": ((5, 8, 77), REFUSE),
    "fcntl  ": ((5, 5), REFUSE),
    **{f"fcntl {command}": ((5, command), PRETEND) for command in (6, 7)},
    **{f"fcntl {command}": ((5, command), REFUSE) for command in (*range(8, 17), *range(36, 39))},
    **{
        f"fcntl {command}": ((5, command), REFUSE)
        for command in range(1024, 1041)
        if command != 1030
    },
    # Private operations, with and without the flag for the real-time clock
    **{f"futex {op}": ((0, op), ALLOW) for base in (128, 384) for op in range(base, base + 14)},
    **{f"futex {op}": ((0, op), RETRY) for op in (0, 9, 256, 265)},
    **{f"futex {op}": ((0, op), PRETEND) for op in (*range(1, 9), *range(10, 16), 257, 266)},
    "set_robust_list": ((), PRETEND),
    "fadvise64": ((3, 0, 0, 4), PRETEND),
    "mmap": ((0, 4096, 3, 0x22, NONE, 0), ALLOW),
    "mmap ": ((0, 4096, 3, 0x40022, NONE, 0), REFUSE),
    **{f"madvise {advice}": ((0, 4096, advice), ALLOW) for advice in (0, 3, 4, 8, 14, 15)},
    **{f"madvise {advice}": ((0, 4096, advice), REFUSE) for advice in (9, 12, 20, 21, 22, 25, 100)},
    **{f"clock_gettime {clock}": ((clock,), ALLOW) for clock in (*range(12), NONE & 11)},
    **{f"clock_gettime {pid}": ((~pid << 3 & NONE | 2,), REFUSE) for pid in (0, 1, 77, 1 << 20)},
    "clock_getres": ((~77 << 3 & NONE | 2,), REFUSE),
    "clock_nanosleep": ((~77 << 3 & NONE | 2, 1), REFUSE),
    **{
        f"{call}{pid * ' '}": ((pid,), ALLOW if pid < 2 else REFUSE)
        for call in OF_A_PROCESS
        for pid in range(4)
    },
    "getpriority": ((0, 0), ALLOW),
    "getpriority ": ((0, 2), REFUSE),
    "getpriority  ": ((2, 0), REFUSE),
    "getsockopt": ((3, 1, 4), ALLOW),
    "getsockopt ": ((3, 1, 57), REFUSE),
    "getsockopt  ": ((3, 6, 4), REFUSE),
    "socketpair": ((1, 1 | 0x80000), ALLOW),
    "socketpair ": ((1, 2 | 0x80000), REFUSE),
    "sendto": ((3, 0, 0, 1), REFUSE),
    "fchmodat": ((), ALLOW),
}


ON_A_DISK = {
    "fchmodat": ((), PRETEND),
    "unlinkat": ((), PRETEND),
    "renameat2": ((), REFUSE),
    "readlinkat": ((), REFUSE),
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
        number = syscalls.number(name.split()[0])
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
