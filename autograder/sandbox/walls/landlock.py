"""Landlock: a process can open nothing but what is listed, connect nowhere, and signal nobody outside.

It needs no rights and no namespaces. It does not govern what the path of a file alone gives (whether it exists, its mode and
times), nor UDP; namespaces and seccomp do.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.sandbox.walls import syscalls

_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
# The version of Landlock in which an access became governable.
_GOVERNED = ((1, (1 << 13) - 1), (2, _REFER), (3, _TRUNCATE), (5, 1 << 15))
# Before it, a file that may be read can be emptied by its owner; namespaces hold against that, Landlock alone does not.
ALONE_SINCE = 3
_TCP_SINCE, _TCP = 4, 0b11
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract sockets, signals

READ = _READ_FILE | _READ_DIR
LIST = _READ_DIR
DEVICE = _READ_FILE | _WRITE_FILE
# No links, sockets, pipes or devices, and nothing to execute.
HOME = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE


@dataclass(frozen=True)
class Rule:
    """What is allowed beneath a folder, or to a file, that is held open."""

    descriptor: int
    access: int


def version() -> int:
    """Of the kernel's Landlock.

    Raises:
        OSError: it has none, or it is switched off.
    """
    return syscalls.call("landlock_create_ruleset", None, 0, 1)


def rule(path: str, access: int) -> Rule:
    """Allow `access` at a path, which has to exist."""
    return Rule(os.open(path, os.O_PATH | os.O_CLOEXEC), access)


def readable(folder: str, hidden: Sequence[str]) -> list[Rule]:
    """Rules that make a folder readable, but for the paths in it that are hidden: those can only be listed."""
    within = [path for path in hidden if path.startswith(folder + "/")]
    if not within:
        return [rule(folder, READ)]
    found = [rule(folder, LIST)]
    for entry in Path(folder).iterdir():
        if str(entry) in within or not entry.exists():
            continue
        found += readable(str(entry), within) if entry.is_dir() else [rule(str(entry), _READ_FILE)]
    return found


def restrict(rules: Sequence[Rule]) -> None:
    """Confine this process, which has one thread, for good; needs `no_new_privileges` or root."""
    abi = version()
    governed = sum(access for since, access in _GOVERNED if abi >= since)
    network = _TCP if abi >= _TCP_SINCE else 0
    scopes = _SCOPES if abi >= _SCOPES_SINCE else 0
    attributes = (ctypes.c_uint64 * 3)(governed, network, scopes)
    size = 24 if scopes else 16 if network else 8
    ruleset = syscalls.call("landlock_create_ruleset", ctypes.byref(attributes), size, 0)
    try:
        for one in rules:
            beneath = one.access & governed
            # struct landlock_path_beneath_attr is packed: 64 bits, then 32.
            packed = beneath.to_bytes(8, "little") + one.descriptor.to_bytes(4, "little")
            syscalls.call("landlock_add_rule", ruleset, 1, packed, 0)
        syscalls.call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
