"""A day's demonstrations outside of a notebook: pictures into files, and the numbers that they measure into a table.

Each chapter runs in a process of its own: `python -m autograder.release.demonstrations CHAPTER.py FOLDER [STEPS]`.
"""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
import time
import types
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.table import Table

from autograder.course.chapters import Chapter
from autograder.course.config import CourseError, Day
from autograder.sandbox.clock import cpu_count


class Shown(msgspec.Struct, frozen=True):
    """What a chapter's demonstrations gave: numbers by what they are, the files of its pictures, seconds of processor time."""

    numbers: dict[str, float]
    pictures: list[str]
    processor: float


@dataclass(frozen=True)
class Demonstrated:
    """A chapter, what it gave, and seconds by the clock."""

    chapter: str
    shown: Shown
    wall: float


def demonstrate(day: Day, folder: Path, steps: int | None = None) -> Iterator[Demonstrated]:
    """Run the chapters of a day, as many at once as there are processors; with `steps`, each training is only so long.

    Raises:
        CourseError: a demonstration does not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(cpu_count()) as pool:
        yield from pool.map(lambda chapter: _run(chapter, day.root, folder, steps), day.chapters)


def table(chapters: Iterable[Demonstrated]) -> Table:
    """What was measured, a row a number, and what each chapter took."""
    shown = Table("chapter", "measured", "", box=None, pad_edge=False, header_style="bold")
    for chapter in chapters:
        for what, value in chapter.shown.numbers.items():
            shown.add_row(chapter.chapter, what, f"{value:.4g}")
        took = f"{chapter.wall:.0f} s, {chapter.shown.processor:.0f} s of processor time"
        shown.add_row(chapter.chapter, f"{len(chapter.shown.pictures)} pictures", took)
    return shown


def _run(chapter: Chapter, root: Path, folder: Path, steps: int | None) -> Demonstrated:
    path, folder = chapter.path.resolve(), folder.resolve()
    command = [sys.executable, "-m", "autograder.release.demonstrations", str(path), str(folder)]
    command += [str(steps)] if steps is not None else []
    # Threads that wait for one another leave the processor to the other chapters.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    started = time.monotonic()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CourseError(f"{chapter.path}: the demonstrations do not run:\n{done.stderr[-2000:]}")
    shown = msgspec.json.decode(done.stdout, type=Shown)
    return Demonstrated(chapter.name, shown, time.monotonic() - started)


def with_short_trainings(source: str, steps: int) -> str:
    """The code with every constant `…STEPS` set to `steps`."""
    tree = ast.parse(source)
    found = False
    for node in tree.body:
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = value.elts if isinstance(value, ast.Tuple) else [value]
            for name, constant in zip(names, values, strict=False):
                if (
                    isinstance(name, ast.Name)
                    and name.id.endswith("STEPS")
                    and isinstance(constant, ast.Constant)
                ):
                    constant.value = steps
                    found = True
    return ast.unparse(tree) if found else source


def main(path: Path, folder: Path, steps: int | None) -> None:
    """Run a chapter; what it prints goes to a file, what it gave to the standard output as JSON."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from solutions.opening import MEASURED

    pictures: list[str] = []

    def show(*_: object, **__: object) -> None:
        for number in plt.get_fignums():
            pictures.append(f"{path.stem}-{len(pictures) + 1:02}.png")
            plt.figure(number).savefig(folder / pictures[-1], dpi=110, bbox_inches="tight")
        plt.close("all")

    plt.show = show
    source = path.read_text(encoding="utf-8")
    if steps is not None:
        source = with_short_trainings(source, steps)
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    sys.modules["__main__"] = module
    with (
        contextlib.chdir(folder),
        (folder / f"{path.stem}.txt").open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
    ):
        exec(compile(source, str(path), "exec"), module.__dict__)
    shown = Shown(MEASURED, pictures, time.process_time())
    sys.stdout.write(msgspec.json.encode(shown).decode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else None)
