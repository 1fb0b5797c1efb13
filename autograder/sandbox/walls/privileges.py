"""Gives up what a process may do: root's identity, capabilities, and getting any of it back."""

from __future__ import annotations

import contextlib
import ctypes
import os

from autograder.sandbox.walls import syscalls

NOBODY = 65534
CAP_DAC_READ_SEARCH = 2
CAP_SYS_ADMIN = 21
_CAPABILITY_VERSION = 0x20080522
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 1, 4, 8, 38


def leave_root(keep: tuple[int, ...] = ()) -> None:
    """Become nobody, in no group, with only the capabilities of `keep`."""
    if keep:
        syscalls.library("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    keep_capabilities(*keep)
    set_dumpable(True)


def keep_capabilities(*keep: int) -> None:
    """Drop all capabilities but these."""
    bits = sum(1 << capability for capability in keep)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    syscalls.call("capset", ctypes.byref(header), ctypes.byref(data))


def no_new_privileges() -> None:
    """Nothing that is executed later gains rights; seccomp asks for it too."""
    syscalls.library("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_dumpable(on: bool) -> None:
    """Whether others of the same user may look into this process; /proc/self is writable only while they may."""
    syscalls.library("prctl", _PR_SET_DUMPABLE, int(on), 0, 0, 0)


def die_with_parent() -> None:
    """SIGKILL when the parent ends; forgotten at each change of user, so to be called after those."""
    syscalls.library("prctl", _PR_SET_PDEATHSIG, 9, 0, 0, 0)


def die_first(proc: int | None = None) -> None:
    """Let the kernel, where memory runs out, kill this process before all others; `proc` is a descriptor of /proc."""
    with contextlib.suppress(OSError):  # a hidden /proc
        path = "self/oom_score_adj" if proc is not None else "/proc/self/oom_score_adj"
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            os.write(file, b"1000")
        finally:
            os.close(file)
