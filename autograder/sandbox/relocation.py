"""Run Python from mounts whose paths tell neither where the course lies nor whose machine it is. Entry point: `relocate`.

Everything that Python imports remembers the path that it came from. The fork server therefore starts again from mounts of
Python, its packages and this project at other places, before it imports what its processes can look into.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

from autograder.sandbox import namespaces, syscalls
from autograder.sandbox.namespaces import PACKAGES, PROJECT, PYTHON, RELOCATED

START = "import sys; sys.path += {paths!r}; from autograder.sandbox.server import start; start(sys.argv[1:])"


def relocate(arguments: list[str]) -> None:
    """Start the fork server again in the mounts; returns, with nothing changed, where that is done or impossible.

    Raises:
        OSError: the mounts were possible in a copy of this process and not in the process itself.
    """
    # Imported here, as the wall imports what this module needs.
    from autograder.sandbox.walls import attempt

    program = os.path.realpath(sys.executable)
    home = os.path.realpath(sys.base_prefix)
    if sys.base_prefix == PYTHON or not _inside(program, home) or not os.path.isdir(RELOCATED):
        return
    mounts, paths = _plan(home)
    if attempt(lambda: _mount(mounts)):
        return
    _mount(mounts)
    program = PYTHON + program.removeprefix(home)
    code = START.format(paths=paths)
    os.execve(program, [program, "-I", "-S", "-c", code, *arguments], dict(os.environ))


def _plan(home: str) -> tuple[dict[str, str], list[str]]:
    """What to mount where, and the folders to import from besides the standard library."""
    project = str(Path(__file__).resolve().parents[2])
    mounts = {PYTHON: home}
    paths = []
    for number, folder in enumerate(filter(os.path.isdir, site.getsitepackages())):
        real = os.path.realpath(folder)
        if _inside(real, home):
            paths.append(PYTHON + real.removeprefix(home))
        else:
            mounts[f"{PACKAGES}/{number}"] = real
            paths.append(f"{PACKAGES}/{number}")
        if real == project:
            project = ""
    if project:  # installed in place, and not among the packages
        mounts[f"{PROJECT}/autograder"] = f"{project}/autograder"
        paths.append(PROJECT)
    return mounts, paths


def _mount(mounts: dict[str, str]) -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        namespaces.unshare_mounts()
    else:
        namespaces.unshare_mounts_as_user(uid, gid)
    trees = {place: namespaces.tree(folder) for place, folder in mounts.items()}
    syscalls.library("mount", "tmpfs", RELOCATED, "tmpfs", 0, "size=1m,mode=0755")
    umask = os.umask(0o022)
    for place, tree in trees.items():
        os.makedirs(place)
        namespaces.attach(tree, place)
    os.umask(umask)


def _inside(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder
