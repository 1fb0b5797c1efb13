"""Kill `autograder build` at many points, and check that no release is ever damaged: `python -m bench.killed_builds`.

A small course is changed and rebuilt. Half of the builds are killed at points spread over the whole build, and the other
half during publication. After each kill, every folder must be in its old or new state, and the next build must be complete.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autograder.course import config as courses
from autograder.release import build, gradebook, notebook, publication, visible_checks
from tests import released_course
from tests.killed import count_lines, kill_at

PUBLISHING = {str(module.__file__) for module in (publication, gradebook)}
# The build waits in `subprocess` while nbgrader runs.
BUILDING = PUBLISHING | {str(m.__file__) for m in (build, notebook, visible_checks, subprocess)}
FOLDERS = [Path(name) / "day1" for name in publication.FOLDERS]
Release = dict[Path, bytes]


def read_release(root: Path) -> list[Release]:
    """Return the content of every file in each release folder."""
    return [
        {file.relative_to(root): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (root / name for name in FOLDERS)
    ]


def build_day(root: Path) -> None:
    """Build the course's day in this process."""
    os.chdir(root)
    list(build.build(courses.load(root).day("day1")))


def moments(count: int, root: Path, changed: Path) -> Iterator[tuple[set[str], int]]:
    """Yield the points at which to kill a build.

    Each point is a pair (files, n). The build is killed just before it executes its n-th line in these files.
    """
    for files, share in ((PUBLISHING, count // 2), (BUILDING, (count + 1) // 2)):
        reset(root, changed)
        lines = count_lines(lambda: build_day(root), files)
        yield from ((files, 1 + number * lines // share) for number in range(share))


def reset(root: Path, copy: Path) -> None:
    """Replace the course at `root` with a copy of the course at `copy`."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(copy, root)


def main(count: int, folder: Path) -> None:
    """Build a course, change it, and kill `count` builds of the changed course. Print the state after each kill."""
    root, before, changed = (folder / name for name in ("course", "before", "changed"))
    released_course.make(root)
    count_lines(lambda: build_day(root), ())
    shutil.copytree(root, before)
    chapter = root / "solutions/day1/masking.py"
    chapter.write_text(chapter.read_text() + "\n# %%\nADDED = 1\n")
    count_lines(lambda: build_day(root), ())
    old, new = read_release(before), read_release(root)
    assert old != new
    # The changed course contains the old release, together with the build's caches for the new one.
    for name in (*FOLDERS, Path(gradebook.GRADEBOOK_DB)):
        target = root / name
        (shutil.rmtree if target.is_dir() else Path.unlink)(target)
        (shutil.copytree if (before / name).is_dir() else shutil.copy)(before / name, target)
    shutil.copytree(root, changed)
    for number, (files, line) in enumerate(moments(count, root, changed), 1):
        reset(root, changed)
        kill_at(line, lambda: build_day(root), files)
        states = []
        for folder_now, folder_old, folder_new in zip(read_release(root), old, new, strict=True):
            assert folder_now in (folder_old, folder_new), (
                f"after the kill at line {line}, a folder is in neither its old nor its new state"
            )
            states.append("new" if folder_now == folder_new else "old")
        count_lines(lambda: build_day(root), ())
        assert read_release(root) == new, (
            f"after the kill at line {line}, the next build is incomplete"
        )
        state = dict(zip(publication.FOLDERS, states, strict=True))
        print(f"{number:2}: build killed at line {line}; state of each folder: {state}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=20)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as temporary:
        main(parser.parse_args().moments, Path(temporary))
