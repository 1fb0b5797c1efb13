"""Run Python from mounts whose paths do not reveal the course's folder or the user's home directory.

Every module that Python imports records its own path. Before importing any code that student code can inspect, the fork
server therefore restarts itself from neutral paths (`relocate`). Python, its packages and this project are mounted at
these paths. If the machine does not allow these mounts, `forget_project` at least removes the paths of this project's
code from the process.
"""

from __future__ import annotations

import gc
import linecache
import os
import site
import sys
import types
from pathlib import Path

from autograder.sandbox import command
from autograder.sandbox.walls import namespaces, syscalls
from autograder.sandbox.walls.namespaces import (
    PACKAGES,
    PROJECT,
    PYTHON,
    RELOCATED,
    error_in_child,
    is_inside,
)

START = "import sys; sys.path += {paths!r}; "
OWN = "autograder"
# The prefix of files that setuptools creates for an editable installation.
EDITABLE = "__editable__"


def relocate(arguments: list[str]) -> None:
    """Mount Python and this project at neutral paths, and restart the fork server from there.

    Do nothing if the server already runs from there, or if the mounts are impossible.

    `arguments` are the fork server's command-line arguments. Without the `namespaces` layer, nothing is mounted.

    Raises:
        OSError: The mounts succeeded in a child of this process but not in the process itself.
    """
    if "namespaces" not in arguments or sys.base_prefix == PYTHON:
        return
    program = os.path.realpath(sys.executable)
    home = os.path.realpath(sys.base_prefix)
    if not is_inside(program, home) or not os.path.isdir(RELOCATED):
        return
    mounts, paths = _plan(home)
    covered = any(is_inside(folder, RELOCATED) for folder in mounts.values())
    if covered or error_in_child(lambda: _mount(mounts)):
        return
    _mount(mounts)
    program = PYTHON + program.removeprefix(home)
    code = START.format(paths=paths) + command.SERVER
    os.execve(program, [program, "-I", "-S", "-c", code, *arguments], dict(os.environ))


def _plan(home: str) -> tuple[dict[str, str], list[str]]:
    """Map each mount point to the folder to mount there. Also return the import paths, except the standard library's."""
    project = str(Path(__file__).resolve().parents[3])
    mounts = {PYTHON: home}
    paths = []
    for number, folder in enumerate(filter(os.path.isdir, site.getsitepackages())):
        real = os.path.realpath(folder)
        if is_inside(real, home):
            paths.append(PYTHON + real.removeprefix(home))
        else:
            mounts[f"{PACKAGES}/{number}"] = real
            paths.append(f"{PACKAGES}/{number}")
        if real == project:
            project = ""
    if project:  # the project is an editable installation
        mounts[f"{PROJECT}/autograder"] = f"{project}/autograder"
        paths.append(PROJECT)
    return mounts, paths


def _mount(mounts: dict[str, str]) -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        namespaces.unshare_mounts()
    else:
        namespaces.unshare_mounts_as_user(uid, gid)
    clones = {place: namespaces.clone_tree(folder) for place, folder in mounts.items()}
    syscalls.libc("mount", "tmpfs", RELOCATED, "tmpfs", 0, "size=1m,mode=0755")
    umask = os.umask(0o022)
    for place, clone in clones.items():
        os.makedirs(place)
        namespaces.attach(clone, place)
    os.umask(umask)


def forget_project() -> None:
    """Remove this project's paths from all imported code. The project cannot be imported after this.

    Other packages in the same folder can still be imported. The sandbox hides the project's own files in that folder.
    """
    if sys.base_prefix == PYTHON:
        return
    project = str(Path(__file__).resolve().parents[3])
    own = f"{project}/autograder/"
    is_package = project in map(os.path.realpath, site.getsitepackages())
    for item in gc.get_objects():
        # `isinstance` could run the object's own code.
        if type(item) is types.FunctionType and item.__code__.co_filename.startswith(own):
            item.__code__ = _without_path(item.__code__)
    for name, module in list(sys.modules.items()):
        if name.startswith(EDITABLE):
            del sys.modules[name]
        elif str(getattr(module, "__file__", "")).startswith(own):
            vars(module).update(__file__=OWN, __cached__=None, __spec__=None, __loader__=None)
            if hasattr(module, "__path__"):
                module.__path__ = []
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_editable(finder)]
    sys.path_hooks[:] = [hook for hook in sys.path_hooks if not _is_editable(hook)]
    own_folder = "" if is_package else project
    sys.path[:] = [p for p in sys.path if p != own_folder and not p.startswith(EDITABLE)]
    sys.path_importer_cache.clear()
    linecache.clearcache()


def _is_editable(finder: object) -> bool:
    return str(getattr(finder, "__module__", "")).startswith(EDITABLE)


def _without_path(code: types.CodeType) -> types.CodeType:
    inner = tuple(_without_path(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=OWN, co_consts=inner)
