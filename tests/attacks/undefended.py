"""Run attacks with the defences against them disabled, to show that the attacks are real. Entry point: `proofs`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any, ClassVar
from unittest import mock

from autograder.execution import attempt, student
from autograder.grading import exercise_grader, grader
from autograder.sandbox.client import Server, start_server
from autograder.sandbox.worker.in_process import LocalProcess
from autograder.slicing.slicer import NotebookSlices, Slicer
from autograder.submissions.cell import Cell
from autograder.submissions.reader_messages import Statement
from tests.attacks.lab import Lab, Seen
from tests.attacks.outside import Outside
from tests.attacks.suite import KERNEL, PROVED, Attack


class Unwalled(LocalProcess):
    """A worker that runs in the grader's own process, like student code in autograders without a sandbox."""

    def __init__(self, server: Server, limits: Any, budget: Any) -> None:
        super().__init__()


class Presliced(Slicer):
    """A slicer that returns slices computed before a fork, because a forked process cannot use the fork server."""

    made: ClassVar[dict[tuple[Cell, ...], NotebookSlices]] = {}

    def slice_all(self) -> NotebookSlices:
        return self.made[tuple(self._cells)]


def in_process(here: Lab, attack: Attack) -> Seen:
    """Run an attack in a fork of this process to contain the damage."""
    for source in (attack.source, here.finder):
        cells, slices = here.slice(source)
        Presliced.made[cells] = slices
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(30)
            with (
                mock.patch.object(attempt, "Process", Unwalled),
                mock.patch.object(grader, "Slicer", Presliced),
            ):
                seen = here.observe(attack, partial(here.grade, attack), attack.effect == "marker")
            os.write(writing, json.dumps(asdict(seen)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        output = file.read()
    os.waitpid(pid, 0)
    if not output:  # the grader died
        return Seen(0, "", [], ["costs", *here.outside.seen()], 0, 0)
    return Seen(**json.loads(output))


class Unsliced(Slicer):
    """A slicer that returns the whole notebook for every exercise. Graders without slicing do the same."""

    def slice_all(self) -> NotebookSlices:
        whole = super().slice_all()
        own = [Statement(cell.source, cell.number, 1, False) for cell in self._cells]
        slices = {
            name: replace(code, statements=(*(p for p in code.statements if p.given), *own))
            for name, code in whole.slices.items()
        }
        return replace(whole, slices=slices)


@contextmanager
def without(layer: str) -> Iterator[None]:
    """Disable a defence that is not a kernel layer."""
    if layer == "escaping":
        with (
            mock.patch.object(student, "escaped", lambda text, keep="": text),
            mock.patch.object(exercise_grader, "sanitize", str),
            mock.patch.object(grader, "printable_problems", tuple),
        ):
            yield
    elif layer == "needs":
        with mock.patch.object(grader, "Slicer", Unsliced):
            yield
    else:
        yield


def proofs(outside: Outside, trivial: Any, user: str) -> dict[str, Any]:
    """Run the attacks in `PROVED` with their defences disabled, and return the results."""
    seen: dict[str, Seen] = {}
    kernel: dict[tuple[str, ...], list[Attack]] = {(): []}
    for attack in PROVED:
        if attack.user == user:
            kernel.setdefault(attack.kernel, []).append(attack)
    # A server takes seconds to start, so if fewer than three attacks share a set of disabled layers, use a larger set.
    for off in [off for off, attacks in kernel.items() if 0 < len(attacks) < 3]:
        wider = min((more for more in kernel if set(off) < set(more)), key=len, default=None)
        if wider is not None:
            kernel[wider] += kernel.pop(off)
    here = None
    for off, attacks in kernel.items():
        others = [layer for layer in KERNEL if layer not in off]
        server = start_server("none", others) if off else start_server()
        with server:
            if here is None:
                here = Lab(outside, server, trivial)
                here.longest = 2.0
            here.grader.exercises.runner.server = server
            here.honest_after()
            for attack in attacks:
                seen[attack.name] = one_proof(here, attack)
    return {"attacks": {name: asdict(each) for name, each in seen.items()}}


def one_proof(here: Lab, attack: Attack) -> Seen:
    if "process" in attack.stopped_by:
        return in_process(here, attack)
    design = next((layer for layer in attack.stopped_by if layer not in KERNEL), "")
    with without(design):
        grade = partial(here.grade, attack, design != "rule")
        return here.observe(attack, grade, attack.effect == "marker")
