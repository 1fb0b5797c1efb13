"""Build a Python-only root file system and isolate users, processes, network and shared memory.

The root is a tmpfs with read-only mounts of Python and its packages at their usual paths. The fork server runs in this
root. Each forked process gets its own user, mount, PID and IPC namespaces and a small private tmpfs.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import site
import socket
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

from autograder.sandbox.walls import privileges, syscalls

NEW_MOUNTS, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEW_USER, NEW_PIDS, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
PRIVATE = "/private"
HOME = "/private/home"
HOME_BYTES = 64 << 20
HOME_FILES = 4096
# This folder exists and is empty in every distribution. `relocation` mounts Python and its packages under it.
RELOCATED = "/mnt"
PYTHON, PACKAGES, PROJECT = (f"{RELOCATED}/{name}" for name in ("python", "packages", "project"))
# Names to hide in the folders that contain the installed packages. `__pycache__` is hidden because compiled files
# contain source paths.
OWN = {"autograder", "graders", "mistakes", "solutions", "__pycache__"}
OWN_METADATA = ("notebook_autograder-", "__editable__")
# This metadata file contains the source path of a package that was installed from a local folder or file.
ORIGIN = "direct_url.json"
# The new root is built in this folder. Any folder works, because everything needed from it is cloned before the mount
# hides it.
_NEW_ROOT = "/tmp"

_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_BIND, _RECURSIVE, _PRIVATE_MOUNTS, _DETACH = 4096, 16384, 1 << 18, 2
_HERE, _EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_TREE_CLONE, _TREE_CLOEXEC, _MOVE_EMPTY_PATH = 1, 0x80000, 4


def python_folders() -> list[str]:
    """Return the folders that contain the standard library and the installed packages."""
    named = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    if sys.base_prefix == PYTHON:
        named += [folder for folder in sys.path if is_inside(folder, PACKAGES)]
    else:
        named += site.getsitepackages()
    # A venv's lib/python3.x is not a standard library: it contains only the packages.
    folders = sorted({f for f in named if (Path(f) / "os.py").exists() or f not in named[:2]})
    folders = [folder for folder in folders if os.path.isdir(folder)]
    return [f for f in folders if not any(is_inside(f, other) for other in folders if other != f)]


def hidden_entries(folders: Sequence[str]) -> list[str]:
    """Return the paths to hide: this project's installed files and any files that contain the project's path."""
    places = [place for f in folders for place in (f, f"{f}/site-packages")]
    places = [p for p in places if os.path.isdir(p) and not (Path(p) / "os.py").exists()]
    hidden = []
    for entry in itertools.chain.from_iterable(map(os.scandir, places)):
        if entry.name in OWN or entry.name.startswith(OWN_METADATA):
            hidden.append(entry.path)
        elif entry.name.endswith(".dist-info") and os.path.exists(f"{entry.path}/{ORIGIN}"):
            hidden.append(f"{entry.path}/{ORIGIN}")
    return hidden


def is_inside(path: str, folder: str) -> bool:
    """Return whether a path is `folder` or is inside it."""
    return os.path.commonpath([path, folder]) == folder


def unshare_mounts() -> None:
    """Enter a new mount namespace as root, so the new root file system can be built with root privileges."""
    syscalls.libc("unshare", NEW_MOUNTS)
    _mount("none", "/", "", _RECURSIVE | _PRIVATE_MOUNTS)


def unshare_mounts_as_user(uid: int, gid: int) -> None:
    """Enter new user and mount namespaces as an ordinary user, keeping the user and group ids."""
    syscalls.libc("unshare", NEW_USER | NEW_MOUNTS)
    map_user("/proc/self", uid, gid, inside=(uid, gid))
    _mount("none", "/", "", _RECURSIVE | _PRIVATE_MOUNTS)


def unshare_all(uid: int, gid: int) -> None:
    """Enter new namespaces of every kind. The caller's next child becomes the first process in the new PID namespace."""
    kinds = NEW_USER | NEW_MOUNTS | NEW_PIDS | NEW_NETWORK | NEW_IPC | NEW_UTS | NEW_CGROUP
    syscalls.libc("unshare", kinds)
    map_user("/proc/self", uid, gid)
    _mount("none", "/", "", _RECURSIVE | _PRIVATE_MOUNTS)
    socket.sethostname("sandbox")


def map_user(
    proc: str,
    uid: int,
    gid: int,
    folder: int | None = None,
    inside: tuple[int, int] = (privileges.NOBODY, privileges.NOBODY),
) -> None:
    """Map `uid` and `gid` to `inside` (by default, `nobody`), the only user and group in the new user namespace."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside[0]} {uid} 1"),
        ("gid_map", f"{inside[1]} {gid} 1"),
    ):
        file = os.open(f"{proc}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def build_root(folders: Sequence[str], hidden: Sequence[str]) -> None:
    """Build the new root file system in a folder on the old one."""
    umask = os.umask(0o022)
    clones = [(path, clone_tree(path)) for path in (*folders, *DEVICES)]
    _mount("tmpfs", _NEW_ROOT, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=0755")
    for path, clone in clones:
        _read_only(clone, "", _NOSUID if path in DEVICES else _NOSUID | _NODEV)
        place = Path(_NEW_ROOT + path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch() if path in DEVICES else place.mkdir()
        attach(clone, str(place))
    for path in hidden:
        covered = _NEW_ROOT + path
        if os.path.isdir(covered):
            options = "size=4k,mode=0555"
            _mount("tmpfs", covered, "tmpfs", _RDONLY | _NOSUID | _NODEV, options)
        else:
            _mount(f"{_NEW_ROOT}/dev/null", covered, "", _BIND)
    Path(_NEW_ROOT + HOME).mkdir(parents=True)
    _read_only(_HERE, _NEW_ROOT, _NOSUID | _NODEV, recursive=False)
    os.umask(umask)


def enter_root() -> None:
    """Switch to the new root and unmount the old one."""
    # Mounts inherited from a more privileged namespace are locked, but bind mounts of them are not.
    _mount(_NEW_ROOT, _NEW_ROOT, "", _BIND | _RECURSIVE)
    os.chdir(_NEW_ROOT)
    syscalls.call("pivot_root", ".", ".")
    syscalls.libc("umount2", ".", _DETACH)
    os.chdir("/")


def unshare_server() -> None:
    """Move this process to its own network, IPC and UTS namespaces."""
    syscalls.libc("unshare", NEW_NETWORK | NEW_IPC | NEW_UTS)


def unshare_worker(proc: int) -> None:
    """Move this process to its own user, mount and IPC namespaces. `proc` is an open file descriptor for /proc."""
    syscalls.libc("unshare", NEW_USER | NEW_MOUNTS | NEW_IPC)
    map_user("self", privileges.NOBODY, privileges.NOBODY, proc)
    options = f"size={HOME_BYTES},nr_inodes={HOME_FILES},mode=0700"
    _mount("tmpfs", HOME, "tmpfs", _NOSUID | _NODEV | _NOEXEC, options)


def next_child_in_new_pids() -> None:
    """Make the next child the first process in a new PID namespace."""
    syscalls.libc("unshare", NEW_PIDS)


def next_child_in(pids: int) -> None:
    """Undo `next_child_in_new_pids`. `pids` is an open file descriptor for this process's own PID namespace."""
    syscalls.libc("setns", pids, NEW_PIDS)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    syscalls.libc("mount", source, target, kind, flags, options)


def clone_tree(path: str) -> int:
    """Clone the mounts at and under a path, and return a file descriptor for the clone."""
    flags = _TREE_CLONE | _TREE_CLOEXEC | _AT_RECURSIVE
    return syscalls.call("open_tree", _HERE, path, flags)


def attach(clone: int, path: str) -> None:
    """Mount a clone made by `clone_tree` at a path, and close the clone's descriptor."""
    syscalls.call("move_mount", clone, "", _HERE, path, _MOVE_EMPTY_PATH)
    os.close(clone)


def _read_only(folder: int, path: str, flags: int, recursive: bool = True) -> None:
    attributes = (ctypes.c_uint64 * 4)(_RDONLY | flags, 0, 0, 0)
    how = _EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(attributes)
    syscalls.call("mount_setattr", folder, path, how, ctypes.byref(attributes), size)


def error_in_child(work: Callable[[], None]) -> str:
    """Call `work` in a child process. Return the message of any exception that it raises, or an empty string."""
    ready, up = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ready)
            up = fcntl.fcntl(up, fcntl.F_DUPFD, 3)
            work()
        except BaseException as error:
            os.write(up, (str(error) or type(error).__name__).encode()[:1000])
        finally:
            os._exit(0)
    os.close(up)
    with open(ready, "rb") as file:
        message = file.read()
    os.waitpid(pid, 0)
    return message.decode(errors="replace")
