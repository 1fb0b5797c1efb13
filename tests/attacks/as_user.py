"""Switch to an unprivileged user, or forbid new namespaces (as containers and some distributions do) or Landlock."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from autograder.sandbox.walls import namespaces, privileges, seccomp, syscalls

_BIND, _RECURSIVE, _DETACH = 4096, 16384, 2


def become_nobody(arguments: Sequence[str]) -> None:
    """Restart Python as `nobody` with these arguments. If Python is installed under /root, make it accessible to `nobody`."""
    namespaces.unshare_mounts()
    home = Path("/root")
    python = Path(sys.base_prefix)
    if python.is_relative_to(home):
        with tempfile.TemporaryDirectory() as aside:
            syscalls.libc("mount", str(python), aside, "", _BIND | _RECURSIVE, "")
            syscalls.libc("mount", "tmpfs", str(home), "tmpfs", 0, "mode=0755")
            python.mkdir(parents=True)
            syscalls.libc("mount", aside, str(python), "", _BIND | _RECURSIVE, "")
            syscalls.libc("umount2", aside, _DETACH)
    privileges.drop_root()
    os.execv(sys.executable, [sys.executable, *arguments])


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Drop root privileges temporarily, because file permissions do not apply to root."""
    if os.geteuid():
        yield
        return
    os.seteuid(privileges.NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def deny_namespaces() -> None:
    """Prevent this process and its children from creating namespaces."""
    privileges.no_new_privileges()
    seccomp.install(seccomp.refusing_program(["unshare", "setns"]))


def deny_landlock() -> None:
    """Prevent this process and its children from using Landlock, as kernels without it do, such as Linux 5.14 in RHEL 9."""
    privileges.no_new_privileges()
    landlock = ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"]
    seccomp.install(seccomp.refusing_program(landlock))
