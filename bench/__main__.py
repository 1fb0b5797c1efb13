"""Measure the cost of grading (`make bench`). The tables show median wall and CPU times of interleaved runs."""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec

import nbformat
from nbformat import NotebookNode
from rich.console import Console
from rich.table import Table

from autograder.console import plain_console
from autograder.course import config as courses
from autograder.course.config import Day, Exercise
from autograder.execution.answer_key import load_locally
from autograder.execution.student import Student
from autograder.grading.grader import Grader
from autograder.release.notebook import solution_notebook
from autograder.sandbox.client import start_server
from autograder.submissions.cell_reader import read_cells
from autograder.submissions.submission import Submission
from bench import cluster, compared, load, marginal, side_by_side, thousand
from bench.simulated import known_mistakes, replace_cells
from solutions.day2.music import compare_positions

ROOT = Path(__file__).parents[1]
PAIRS = 21
P = ParamSpec("P")


@dataclass
class Timing:
    """Wall and CPU times of repeated runs, in seconds. CPU times include child processes that have exited."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a function, and record the wall time and CPU time of the call."""
        wall, cpu = time.perf_counter(), _cpu()
        function(*args, **kwargs)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(_cpu() - cpu)

    def row(self) -> tuple[str, str, str]:
        """Return the median wall and CPU times, and the range of wall times, in milliseconds."""
        wall, cpu = (statistics.median(times) * 1000 for times in (self.wall, self.cpu))
        return (
            f"{wall:.1f}",
            f"{cpu:.1f}",
            f"{min(self.wall) * 1000:.1f}–{max(self.wall) * 1000:.1f}",
        )


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def as_submission(notebook: NotebookNode) -> Submission:
    """Convert a notebook to a submission."""
    cells, problems = read_cells(nbformat.writes(notebook).encode(), "bench.ipynb")
    return Submission("bench.ipynb", "bench", "", cells, problems, True)


def solution(day: Day) -> Submission:
    """Return the course's solution as a submission."""
    return as_submission(solution_notebook(day))


def exercise_costs(day: Day, runs: int, console: Console) -> None:
    """Compare the cost of grading in the sandbox with that of running only the graders in one warm process."""
    with start_server() as server:
        grader = Grader(day, server, b"bench")
        handed_in, key = solution(day), grader.key
        alone, walled = Timing(), Timing()
        each = {exercise.name: Timing() for exercise in day.exercises}
        sandboxed: dict[str, list[float]] = {exercise.name: [] for exercise in day.exercises}

        def run_tests(exercise: Exercise, student: Student, seed: int) -> None:
            for test in grader.key.tests[exercise.name]:
                test.run(student, seed)

        def run_alone(seed: int) -> None:
            for exercise in day.exercises:
                code, tested = key.solution_source(exercise.name), key.implementations
                student = load_locally(code, exercise.name, tested.get(exercise.name))
                each[exercise.name].run(run_tests, exercise, student, seed)

        def run_walled() -> None:
            for marks in grader.grade(handed_in).exercises:
                assert marks.status == "passed", marks
                sandboxed[marks.name].append(marks.seconds)

        run_alone(0)
        run_walled()
        for timing in each.values():
            timing.wall.clear()
            timing.cpu.clear()
        for run in range(runs):
            alone.run(run_alone, run)
            walled.run(run_walled)
    table = Table(
        "exercise",
        "graders alone, ms",
        "CPU, ms",
        "range, ms",
        "in the sandbox, ms",
        "overhead, ms",
    )
    for name, timing in each.items():
        wall = statistics.median(sandboxed[name]) * 1000
        overhead = wall - statistics.median(timing.wall) * 1000
        table.add_row(name, *timing.row(), f"{wall:.1f}", f"{overhead:.1f}")
    total = sum(statistics.median(timing.wall) for timing in each.values())
    cpu = sum(statistics.median(timing.cpu) for timing in each.values())
    wall = sum(statistics.median(seconds) for seconds in sandboxed.values())
    overhead = (wall - total) / len(day.exercises)
    table.add_row(
        "all", f"{total * 1000:.1f}", f"{cpu * 1000:.1f}", "", f"{wall * 1000:.1f}",
        f"{overhead * 1000:.1f} per exercise",
    )  # fmt: skip
    console.print(table)
    whole, processor = statistics.median(walled.wall), statistics.median(walled.cpu)
    console.print(
        f"Grading a submission takes {whole * 1000:.0f} ms, of which {(whole - wall) * 1000:.0f} ms are spent reading it, "
        f"and uses {processor * 1000:.0f} ms of the grader's own CPU time."
    )


def sandbox_cost(day: Day, console: Console) -> None:
    """Compare grading in the full sandbox with grading under resource limits alone, in interleaved pairs of runs."""
    handed_in = solution(day)
    with start_server() as walled, start_server("none") as bare:
        graders = [Grader(day, server, b"bench") for server in (walled, bare)]
        timings = [Timing(), Timing()]
        for grader in graders:
            grader.grade(handed_in)
        for pair in range(PAIRS):
            for which in (0, 1) if pair % 2 else (1, 0):
                timings[which].run(graders[which].grade, handed_in)
    more = [(full - none) * 1000 for full, none in zip(*(t.wall for t in timings), strict=True)]
    quarters = statistics.quantiles(more, n=4)
    console.print(
        f"The full sandbox adds {statistics.median(more):.0f} ms to grading a submission "
        f"(median of {PAIRS} pairs; quartiles {quarters[0]:.0f} and {quarters[2]:.0f}, "
        f"range {min(more):.0f} to {max(more):.0f}), for a total of "
        f"{statistics.median(timings[0].wall) * 1000:.0f} ms."
    )


def mistakes_cost(day: Day, console: Console) -> None:
    """Measure how much longer it takes to grade a submission with known mistakes in five exercises than a correct one.

    The outputs of all known mistakes are recorded before the measurement.
    """
    draw, notebook = random.Random(0), solution_notebook(day)
    known = known_mistakes(day)
    right, wrong = Timing(), Timing()
    with start_server() as server:
        grader = Grader(day, server, b"bench")
        for exercise in day.exercises:
            grader.exercises.recognizer.signatures(exercise)

        def grade(notebook: NotebookNode) -> None:
            grader.grade(as_submission(notebook))

        for _ in range(PAIRS):
            five = {name: draw.choice(known[name]) for name in draw.sample(day.names, 5)}
            right.run(grade, notebook)
            wrong.run(grade, replace_cells(notebook, five))
    one = statistics.median(right.wall)
    ratios = [seconds / one for seconds in wrong.wall]
    console.print(
        f"A submission with mistakes in 5 exercises takes {statistics.median(ratios):.2f} times as long "
        f"as a correct one (median; the maximum is {max(ratios):.2f}; {PAIRS} random submissions)."
    )


def positions(console: Console) -> None:
    """Compare models with relative and absolute positions, as the music chapter does, but with three seeds instead of one."""
    table = Table("nats per token on held-out chorales", "mean", "lowest", "highest")
    for kind, losses in compare_positions((0, 1, 2)).items():
        mean = statistics.mean(losses)
        table.add_row(kind, *(f"{value:.3f}" for value in (mean, min(losses), max(losses))))
    console.print(table)


def main() -> None:
    """Run all measurements and print their tables."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("days", nargs="*", metavar="DAY", help="default: all")
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument(
        "--compare-with",
        type=Path,
        metavar="CHECKOUT",
        help="path of another checkout in which `make setup` was run",
    )
    arguments = parser.parse_args()
    console = plain_console()
    course = courses.load(ROOT)
    days = [course.day(name) for name in arguments.days or course.days]
    for day in days:
        console.rule(day.title)
        exercise_costs(day, arguments.runs, console)
        sandbox_cost(day, console)
        mistakes_cost(day, console)
    console.rule(f"Compared with plain nbgrader and Otter: {days[0].title}")
    compared.compare(days[0], console)
    marginal.compare(days[0], console)
    if arguments.compare_with:
        console.rule(f"Compared with {arguments.compare_with}")
        for day in days:
            for line in side_by_side.compare(arguments.compare_with, day):
                console.print(line)
    console.rule("A class of 1000")
    thousand.bench(console)
    console.rule("A class on a Dask cluster")
    cluster.bench(console)
    console.rule("A class on an idle machine and on a busy one")
    load.bench(console, days[0])
    console.rule("Relative and absolute positions, three seeds")
    positions(console)


if __name__ == "__main__":
    main()
