"""Test that hostile submissions affect neither the rest of a class nor the machine."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from nbformat import NotebookNode

from autograder.course.config import Day
from autograder.grading.grader import Grader
from autograder.sandbox.client import start_server
from autograder.submissions.cell import Cell
from autograder.submissions.submission import Submission
from tests.attacks.outside import Outside
from tests.attacks.suite import ATTACKS, CELLS, Attack
from tests.conftest import grade_one, grader_for, with_cells
from tests.grading_runs import without_times

pytestmark = pytest.mark.slow

# Each honest submission has zero, one or several wrong exercises.
WRONG = {
    "causal_mask": "def causal_mask(n, device=None):\n    return torch.ones(n, n).tril(-1).bool()",
    "padding_mask": "def padding_mask(tokens, pad_id):\n    return tokens != pad_id",
}
HONEST = [(), ("causal_mask",), ("padding_mask", "causal_mask")]
# The attacks graded before each honest submission.
HOSTILE = [
    ("attributes of modules", "a changed default dtype", "a daemon forked twice"),
    ("System V shared memory", "a signal to every process", "a patched worker"),
    ("endless answers", "recursion until the stack overflows"),
]
TIMER = 0.01


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with Outside("CANARY-of-a-class") as world:
        yield world


def attack_cells(outside: Outside, attack: Attack) -> list[Cell]:
    prelude = f"T = {outside.targets()!r}\n" + (CELLS / "prelude.py").read_text()
    return [Cell(901, "code", prelude), Cell(902, "code", attack.source)]


def as_submission(name: str, notebook: NotebookNode, more: list[Cell]) -> Submission:
    cells = [
        Cell(number, "code", cell.source)
        for number, cell in enumerate(notebook.cells, 1)
        if cell.cell_type == "code"
    ]
    return Submission(name, name, "", (*cells, *more), (), True)


def test_hostile_submissions_do_not_change_honest_marks(
    grader: Grader, solution: NotebookNode, day1: Day, outside: Outside
) -> None:
    named = {attack.name: attack for attack in ATTACKS}
    honest = [
        as_submission(f"honest{number}", with_cells(solution, {n: WRONG[n] for n in wrong}), [])
        for number, wrong in enumerate(HONEST)
    ]
    alone = {one.student: without_times(grader.grade(one)) for one in honest}
    assert len({marks.points for marks in alone.values()}) == len(HONEST)
    with start_server() as server:
        beside = grader_for(day1, server)
        for one, names in zip(honest, HOSTILE, strict=True):
            for name in names:
                cells = attack_cells(outside, named[name])
                marks = grade_one(beside, as_submission("eve", solution, cells), "causal_mask")
                assert marks.points == 0, name
            assert without_times(beside.grade(one)) == alone[one.student], names
    assert outside.seen() == []


def test_exhausting_attacks_do_not_slow_the_grader(
    grader: Grader, day1: Day, outside: Outside
) -> None:
    """Resource-exhausting attacks delay a timer by at most 100 ms more than honest code does, and barely increase memory use."""
    honest = Cell(902, "code", "def causal_mask(n, device=None):\n    return right(n, device)\n")
    prelude = attack_cells(outside, ATTACKS[0])[0]
    quiet = [Submission("ada", "ada", "", (prelude, honest), (), True)] * 60
    attacks = [a for a in ATTACKS if a.family == "exhaust"]
    hostile = [
        Submission("eve", "eve", "", tuple(attack_cells(outside, a)), (), True) for a in attacks
    ]
    quick = [
        replace(
            one,
            limits=replace(one.limits, cpu_seconds=0.4, total_cpu_seconds=0.5, idle_seconds=1.0),
        )
        for one in day1.exercises
    ]
    timed = grader_for(replace(day1, exercises=tuple(quick)), grader.server)
    grade_one(timed, quiet[0], "causal_mask")
    beside_honest = lateness(timed, quiet)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    beside_hostile = lateness(timed, hostile)
    seconds = time.monotonic() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert beside_hostile < 0.1 + beside_honest
    assert grown < 100_000  # kB
    assert seconds < 1.5 * len(hostile), "the attacks did not end within their limits"


def lateness(grader: Grader, submissions: list[Submission]) -> float:
    """Return the 99th-percentile delay, in seconds, of a 10 ms timer while submissions are being graded."""
    late: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            target = time.monotonic() + TIMER
            done.wait(TIMER)
            late.append(time.monotonic() - target)

    timer = threading.Thread(target=tick)
    timer.start()
    try:
        for submission in submissions:
            marks = grade_one(grader, submission, "causal_mask")
            assert marks.student == submission.student
    finally:
        done.set()
        timer.join()
    return sorted(late)[int(0.99 * len(late))]
