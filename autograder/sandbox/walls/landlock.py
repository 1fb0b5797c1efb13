"""Use Landlock to let a process open only listed paths, and to block TCP and signals to processes outside the sandbox.

Landlock does not require privileges or namespaces. It does not restrict UDP or file metadata (a path's existence, mode
and timestamps). Namespaces and seccomp restrict those. Entry points: `rule`, `readable` and `restrict`.
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
# The access rights that Landlock can restrict, grouped by the version that introduced them.
_GOVERNED = ((1, (1 << 13) - 1), (2, _REFER), (3, _TRUNCATE), (5, 1 << 15))
# Older versions let an owner truncate a readable file. Only namespaces prevent that.
SUFFICIENT_SINCE = 3
_TCP_SINCE, _TCP = 4, 0b11
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract Unix sockets and signals

READ = _READ_FILE | _READ_DIR
LIST = _READ_DIR
DEVICE = _READ_FILE | _WRITE_FILE
# In its private folder, a process may not create links, sockets, pipes or devices, or execute files.
HOME = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE


@dataclass(frozen=True)
class Rule:
    """A rule that allows access to an open file, or to everything under an open folder."""

    descriptor: int
    access: int


def version() -> int:
    """Return the Landlock version that the kernel supports.

    Raises:
        OSError: Landlock is not supported by the kernel or is disabled.
    """
    return syscalls.call("landlock_create_ruleset", None, 0, 1)


def rule(path: str, access: int) -> Rule:
    """Return a rule that grants `access` to an existing path."""
    return Rule(os.open(path, os.O_PATH | os.O_CLOEXEC), access)


def readable(folder: str, hidden: Sequence[str]) -> list[Rule]:
    """Return rules that make a folder readable except for hidden paths. The names of hidden paths can still be listed."""
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
    """Permanently restrict this single-threaded process to what `rules` allow. Requires `no_new_privileges` or root."""
    abi = version()
    governed = sum(access for since, access in _GOVERNED if abi >= since)
    network = _TCP if abi >= _TCP_SINCE else 0
    scopes = _SCOPES if abi >= _SCOPES_SINCE else 0
    attributes = (ctypes.c_uint64 * 3)(governed, network, scopes)
    size = 24 if scopes else 16 if network else 8
    ruleset = syscalls.call("landlock_create_ruleset", ctypes.byref(attributes), size, 0)
    try:
        for each in rules:
            access = each.access & governed
            # `struct landlock_path_beneath_attr` is packed: a 64-bit field followed by a 32-bit field.
            packed = access.to_bytes(8, "little") + each.descriptor.to_bytes(4, "little")
            syscalls.call("landlock_add_rule", ruleset, 1, packed, 0)
        syscalls.call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
