"""Permanently drop a process's privileges: root's user and group IDs, capabilities, and privileges gained through exec."""

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


def drop_root(keep: tuple[int, ...] = ()) -> None:
    """Switch to the user `nobody`, drop all supplementary groups, and keep only the capabilities in `keep`."""
    if keep:
        syscalls.libc("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    keep_capabilities(*keep)
    set_dumpable(True)


def keep_capabilities(*keep: int) -> None:
    """Drop all capabilities except those in `keep`."""
    bits = sum(1 << capability for capability in keep)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    syscalls.call("capset", ctypes.byref(header), ctypes.byref(data))


def no_new_privileges() -> None:
    """Prevent programs executed later from gaining privileges. Without this, only root may use seccomp and Landlock."""
    syscalls.libc("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_dumpable(on: bool) -> None:
    """Set whether the user's other processes may inspect this one. /proc/self is writable only while this is allowed."""
    syscalls.libc("prctl", _PR_SET_DUMPABLE, int(on), 0, 0, 0)


def die_with_parent() -> None:
    """Make the kernel kill this process when its parent exits. Call this after changing the user, which resets the setting."""
    syscalls.libc("prctl", _PR_SET_PDEATHSIG, 9, 0, 0, 0)


def die_first(proc: int | None) -> None:
    """Make this process the first to be killed when memory runs out. `proc` is an open file descriptor for /proc."""
    with contextlib.suppress(OSError):  # /proc is hidden
        path = "self/oom_score_adj" if proc is not None else "/proc/self/oom_score_adj"
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            os.write(file, b"1000")
        finally:
            os.close(file)
