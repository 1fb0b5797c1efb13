"""Set up the sandbox in layers, first around the fork server and then in each forked process. Entry point: `Wall`.

    layer        around the server                     in each process
    namespaces   a Python-only root; all namespaces    users, mounts, processes, shared memory; a private tmpfs
    landlock     -                                     files, TCP, abstract sockets, signals
    seccomp      a short list of refused calls         a list of allowed calls, without fork and exec
    limits       -                                     memory, time, files, descriptors, threads

If the machine does not support a layer, only the others are used; see `refused_layers`. `probes` checks whether the
layers in use are sufficient.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Sequence

from autograder.sandbox.command import LAYERS
from autograder.sandbox.walls import (
    landlock,
    namespaces,
    private_folders,
    privileges,
    rlimits,
    seccomp,
)
from autograder.sandbox.walls.namespaces import error_in_child

WIRE = 3
_UP = 4


class WallError(Exception):
    """Raised when an isolation layer cannot be set up."""


class Wall:
    """The sandbox layers that confine processes. Call `enclose_server` once, then `fork` for each process."""

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = [layer for layer in LAYERS if layer in layers]
        self._rules: list[landlock.Rule] = []
        self._folders: private_folders.Folders | None = None
        self._proc = self._pids = -1
        self._program = b""
        self._memory = 0

    def has(self, layer: str) -> bool:
        """Return whether this sandbox layer is enabled."""
        return layer in self.layers

    # ---- around the server

    def enclose_server(self) -> None:
        """Set up the sandbox layers around the fork server.

        With namespaces, this method returns in a child process, and the original process waits for that child.

        The process must be single-threaded and must already have read everything it needs from /proc, /sys and the file
        system.
        """
        self._memory = rlimits.address_space()
        walled = self.layers not in ([], ["limits"])
        root = os.geteuid() == 0 and walled
        uid, gid = (privileges.NOBODY,) * 2 if root else (os.geteuid(), os.getegid())
        python = namespaces.python_folders()
        hidden = namespaces.hidden_entries(python)
        if self.has("namespaces"):
            _enter_namespaces(root, uid, gid, python, hidden)
            self._proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
            self._pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            namespaces.enter_root()
        else:
            self._folders = private_folders.Folders(uid, gid)
        if self.has("landlock"):
            self._rules = self._allowed(python, hidden)
        if self.has("namespaces"):
            privileges.keep_capabilities(privileges.CAP_SYS_ADMIN)
        elif root:
            _drop_root_in_place(python)
        if self.has("seccomp"):
            privileges.no_new_privileges()
            seccomp.install(seccomp.refusing_program(seccomp.NEVER.split()))
            # The first process in a PID namespace has pid 1.
            self._program = seccomp.worker_program(1, own_files=True)
        if walled:
            privileges.set_dumpable(False)

    def _allowed(self, python: Sequence[str], hidden: Sequence[str]) -> list[landlock.Rule]:
        rlimits.raise_descriptors()  # each Landlock rule keeps a file descriptor open
        rules = [landlock.rule(device, landlock.DEVICE) for device in namespaces.DEVICES]
        if self.has("namespaces"):
            # Each process's tmpfs is mounted under this path. The new root already hides the entries in `hidden`.
            rules.append(landlock.rule(namespaces.PRIVATE, landlock.HOME))
            hidden = []
        for folder in python:
            rules += landlock.readable(folder, hidden)
        return rules

    # ---- each process

    def fork(self, wire: int, memory: int, cpu: int) -> int:
        """Fork a sandboxed process. Return its pid, or 0 in the new process, which keeps only file descriptors 0 to 3.

        Raises:
            WallError: The process could not be sandboxed and has exited.
        """
        private = self._folders.create() if self._folders else namespaces.HOME
        ready, up = os.pipe()
        pid = self._fork()
        if pid == 0:
            try:
                self._enter(wire, up, private, memory, cpu)
            except BaseException as error:
                with contextlib.suppress(OSError):
                    os.write(up, str(error).encode()[:1000] or b"?")
                os._exit(1)
            return 0
        if self._folders:
            self._folders.assign(private, pid)
        os.close(up)
        message = os.read(ready, 1000)
        os.close(ready)
        if message != b"\0":
            os.waitpid(pid, 0)
            self.forget(pid)
            raise WallError(message.decode(errors="replace") or "the process exited")
        return pid

    def _fork(self) -> int:
        """Fork. With namespaces, the new process is the first one in a PID namespace, and its descendants die with it."""
        if not self.has("namespaces"):
            return os.fork()
        namespaces.next_child_in_new_pids()
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                namespaces.next_child_in(self._pids)
        return pid

    def _enter(self, wire: int, up: int, private: str, memory: int, cpu: int) -> None:
        os.setsid()
        os.umask(0o077)
        threads = rlimits.THREADS
        privileges.set_dumpable(True)
        privileges.die_first(self._proc if self._proc >= 0 else None)
        if self.has("namespaces"):
            namespaces.unshare_worker(self._proc)
        elif self.has("limits"):
            threads = rlimits.threads_of(os.getuid()) + rlimits.SHARED_THREADS
        os.chdir(private)
        # An import in the server has already cached a different folder for temporary files.
        tempfile.tempdir = private
        os.environ.update(HOME=private, TMPDIR=private, USER="student", LOGNAME="student")
        if self.has("seccomp") or self.has("landlock"):
            privileges.no_new_privileges()
        if self.has("namespaces"):
            privileges.keep_capabilities()
        null = os.open(os.devnull, os.O_RDWR)
        if self.has("landlock"):
            own = [landlock.rule(private, landlock.HOME)] if self._folders else []
            landlock.restrict([*self._rules, *own])
        _keep_descriptors(null, wire, up)
        if self.has("limits"):
            size = private_folders.FILE_BYTES if self._folders else rlimits.FILE_BYTES
            rlimits.apply(self._memory + memory, cpu, size, threads)
        if self.has("seccomp") or self.has("landlock"):
            privileges.set_dumpable(False)
        privileges.die_with_parent()
        if self.has("seccomp"):
            program = self._program
            if not self.has("namespaces"):
                private_folders.remove_by_emptying()
                program = seccomp.worker_program(os.getpid(), own_files=False)
            seccomp.install(program)
        os.write(_UP, b"\0")
        os.close(_UP)

    # ---- duplicates of the server

    def fork_server(self) -> int:
        """Fork a process to act as another server. Return its pid, or 0 in the new process, which must then call `separate`."""
        return self._fork()

    def separate(self) -> None:
        """Isolate this server's processes from those of its parent server."""
        privileges.die_with_parent()
        if self.has("namespaces"):
            namespaces.unshare_server()
            self._pids = os.open("self/ns/pid", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        if self._folders:
            self._folders = private_folders.Folders(os.geteuid(), os.getegid())

    # ---- after the fork

    def excessive(self) -> set[int]:
        """Return the processes whose private folders or threads exceed the limits.

        Processes in namespaces are never included, because the kernel limits them.
        """
        if self._folders is None:
            return set()
        found = set(self._folders.overfull())
        if self.has("limits"):
            pids = self._folders.pids
            found |= {pid for pid in pids if rlimits.threads_in(pid) > rlimits.THREADS}
        return found

    def watches(self) -> bool:
        """Return whether `excessive` needs to be called regularly."""
        return self._folders is not None

    def forget(self, pid: int) -> None:
        """Remove a finished process's private folder."""
        if self._folders:
            self._folders.remove(pid)

    def close(self) -> None:
        """Remove all private folders. Call this once all processes have ended."""
        if self._folders:
            self._folders.close()


def _enter_namespaces(
    root: bool, uid: int, gid: int, python: Sequence[str], hidden: Sequence[str]
) -> None:
    """Enter new namespaces and build their root file system. Only the first process in them returns from this function."""
    if root:
        namespaces.unshare_mounts()
        namespaces.build_root(python, hidden)
        privileges.drop_root()
    namespaces.unshare_all(uid, gid)
    if not root:
        namespaces.build_root(python, hidden)
    inner = os.fork()
    if inner:
        os.closerange(3, 1 << 16)
        _, status = os.waitpid(inner, 0)
        os._exit(abs(os.waitstatus_to_exitcode(status)))
    privileges.die_with_parent()


def _drop_root_in_place(python: Sequence[str]) -> None:
    """Switch to the user `nobody`.

    If other users cannot read Python's folders, keep the capability that bypasses read permissions. Landlock still limits which
    files can be read.
    """
    closed = any(not _open_to_others(folder) for folder in python)
    privileges.drop_root((privileges.CAP_DAC_READ_SEARCH,) if closed else ())


def _open_to_others(folder: str) -> bool:
    while folder != "/":
        if os.stat(folder).st_mode & 0o5 != 0o5:
            return False
        folder = os.path.dirname(folder)
    return True


def _keep_descriptors(null: int, wire: int, up: int) -> None:
    # First move both descriptors out of the way, because the loop below may overwrite them.
    wire = fcntl.fcntl(wire, fcntl.F_DUPFD, 16)
    up = fcntl.fcntl(up, fcntl.F_DUPFD, 16)
    for standard in range(3):
        os.dup2(null, standard)
    os.dup2(wire, WIRE)
    os.dup2(up, _UP)
    os.closerange(_UP + 1, 1 << 16)


def refused_layers(layers: Sequence[str] = LAYERS) -> dict[str, str]:
    """Return the layers that this machine does not support, with reasons. Each layer is tried separately in a child process."""
    found = {layer: _refusal(layer) for layer in layers}
    refused = {layer: reason for layer, reason in found.items() if reason}
    if "namespaces" in refused and "landlock" in layers and "landlock" not in refused:
        version = landlock.version()
        if version < landlock.SUFFICIENT_SINCE:
            refused["landlock"] = f"version {version} is too old to be used without namespaces"
    return refused


def _refusal(layer: str) -> str:
    return error_in_child(lambda: _try_layer(layer))


def _try_layer(layer: str) -> None:
    wall = Wall([layer])
    try:
        wall.enclose_server()
        pid = wall.fork(os.open(os.devnull, os.O_RDWR), 1 << 30, 60)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        wall.forget(pid)
    finally:
        wall.close()
