"""Run Python from mounts whose paths tell neither where the course lies nor whose machine it is. Entry point: `relocate`.

Everything that Python imports remembers the path that it came from. The fork server therefore starts again from mounts of
Python, its packages and this project at other places, before it imports what its processes can look into. Where the machine
refuses that, it forgets at least the paths of this project's own code: `forget_project`.
"""

from __future__ import annotations

import gc
import linecache
import os
import site
import sys
import types
from pathlib import Path

from autograder.sandbox import control
from autograder.sandbox.walls import namespaces, syscalls
from autograder.sandbox.walls.namespaces import PACKAGES, PROJECT, PYTHON, RELOCATED

START = "import sys; sys.path += {paths!r}; "
OWN = "autograder"
EDITABLE = "__editable__"  # begins the names of what setuptools makes for a package that is installed in place


def relocate(arguments: list[str]) -> None:
    """Start the fork server again in the mounts; returns, with nothing changed, where that is done or impossible.

    Raises:
        OSError: the mounts were possible in a copy of this process and not in the process itself.
    """
    # Imported here, as the wall imports what this module needs.
    from autograder.sandbox.walls.wall import attempt

    program = os.path.realpath(sys.executable)
    home = os.path.realpath(sys.base_prefix)
    if sys.base_prefix == PYTHON or not _inside(program, home) or not os.path.isdir(RELOCATED):
        return
    mounts, paths = _plan(home)
    covered = any(_inside(folder, RELOCATED) for folder in mounts.values())
    if covered or attempt(lambda: _mount(mounts)):
        return
    _mount(mounts)
    program = PYTHON + program.removeprefix(home)
    code = START.format(paths=paths) + control.SERVER
    os.execve(program, [program, "-I", "-S", "-c", code, *arguments], dict(os.environ))


def _plan(home: str) -> tuple[dict[str, str], list[str]]:
    """What to mount where, and the folders to import from besides the standard library."""
    project = str(Path(__file__).resolve().parents[3])
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


def forget_project() -> None:
    """Take the paths of this project's code out of what is imported; nothing more of it can be imported then."""
    if sys.base_prefix == PYTHON:
        return
    project = str(Path(__file__).resolve().parents[3])
    own = (f"{project}/autograder/", f"{project}/solutions/")
    for thing in gc.get_objects():
        # Not `isinstance`, which asks the object itself.
        if type(thing) is types.FunctionType and thing.__code__.co_filename.startswith(own):
            thing.__code__ = _nameless(thing.__code__)
    for name, module in list(sys.modules.items()):
        if name.startswith(EDITABLE):
            del sys.modules[name]
        elif str(getattr(module, "__file__", "")).startswith(own):
            vars(module).update(__file__=OWN, __cached__=None, __spec__=None, __loader__=None)
            if hasattr(module, "__path__"):
                module.__path__ = []
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_editable(finder)]
    sys.path_hooks[:] = [hook for hook in sys.path_hooks if not _is_editable(hook)]
    sys.path[:] = [p for p in sys.path if p != project and not p.startswith(EDITABLE)]
    sys.path_importer_cache.clear()
    linecache.clearcache()


def _is_editable(finder: object) -> bool:
    return str(getattr(finder, "__module__", "")).startswith(EDITABLE)


def _nameless(code: types.CodeType) -> types.CodeType:
    inner = tuple(_nameless(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=OWN, co_consts=inner)


def _inside(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder
