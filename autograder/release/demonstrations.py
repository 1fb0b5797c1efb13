"""Run a day's demonstrations outside a notebook, save the figures and tabulate the measurements.

Each chapter runs in a separate process: `python -m autograder.release.demonstrations CHAPTER.py FOLDER [STEPS]`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
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
from autograder.protocol.plain_text import counted
from autograder.sandbox.clock import cpu_count

DEFAULT_OPENING = "autograder.in_notebook.opening"


class Output(msgspec.Struct, frozen=True):
    """The output of a chapter's demonstrations: measurements by name, figure files and CPU time in seconds."""

    numbers: dict[str, float]
    pictures: list[str]
    cpu_seconds: float


@dataclass(frozen=True)
class ChapterRun:
    """One run of a chapter: the chapter's name, the output and the elapsed time in seconds."""

    chapter: str
    output: Output
    elapsed: float


def demonstrate(day: Day, folder: Path, steps: int | None = None) -> Iterator[ChapterRun]:
    """Run a day's chapters in parallel and yield each run. If `steps` is given, each training loop runs for that many steps.

    Raises:
        CourseError: A demonstration raised an exception.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(cpu_count()) as pool:
        yield from pool.map(lambda chapter: _run(chapter, day.root, folder, steps), day.chapters)


def table(runs: Iterable[ChapterRun]) -> Table:
    """Return a table with one row per measurement, and one row per chapter with the time it took."""
    result = Table("chapter", "measured", "", box=None, pad_edge=False, header_style="bold")
    for run in runs:
        for name, value in run.output.numbers.items():
            result.add_row(run.chapter, name, f"{value:.4g}")
        time_taken = f"{run.elapsed:.0f} s ({run.output.cpu_seconds:.0f} s of CPU time)"
        result.add_row(run.chapter, counted(len(run.output.pictures), "picture"), time_taken)
    return result


def _run(chapter: Chapter, root: Path, folder: Path, steps: int | None) -> ChapterRun:
    path, folder = chapter.path.resolve(), folder.resolve()
    command = [sys.executable, "-m", "autograder.release.demonstrations", str(path), str(folder)]
    command += [str(steps)] if steps is not None else []
    # Let idle OpenMP threads sleep, because other chapters run at the same time. Disable downloads.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    started = time.monotonic()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CourseError(f"{chapter.path}: a demonstration failed:\n{done.stderr[-2000:]}")
    output = msgspec.json.decode(done.stdout, type=Output)
    return ChapterRun(chapter.name, output, time.monotonic() - started)


def with_short_training(source: str, steps: int) -> str:
    """Return the code with every constant whose name ends in `STEPS` set to `steps`."""
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
    """Run a chapter, redirect its printed output to a file, and print its `Output` as JSON."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    own = Path("solutions", "opening.py").is_file()
    opening = importlib.import_module("solutions.opening" if own else DEFAULT_OPENING)
    pictures: list[str] = []

    def show(*_: object, **__: object) -> None:
        for number in plt.get_fignums():
            pictures.append(f"{path.stem}-{len(pictures) + 1:02}.png")
            plt.figure(number).savefig(folder / pictures[-1], dpi=110, bbox_inches="tight")
        plt.close("all")

    plt.show = show
    source = path.read_text(encoding="utf-8")
    if steps is not None:
        source = with_short_training(source, steps)
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    sys.modules["__main__"] = module
    with (
        contextlib.chdir(folder),
        (folder / f"{path.stem}.txt").open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
    ):
        exec(compile(source, str(path), "exec"), module.__dict__)
    output = Output(getattr(opening, "MEASURED", {}), pictures, time.process_time())
    sys.stdout.write(msgspec.json.encode(output).decode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else None)
