"""Run all attacks as one user, in one sandbox configuration or with their defences disabled. Print the results as JSON.

    python -m tests.attacks.run USER WALL [kernel]

USER is root or nobody. WALL (the sandbox configuration) is full, denied (no namespaces) or off. If `kernel` is given, run
only the attacks that the kernel blocks. If WALL is off, run the attacks that have an effect as this user without their
defences: one for each effect and set of defences, or all of them if ATTACKS=all is set.

The canary is in the environment, where a process that can inspect the grader would find it. The list of tests that trivial
answers pass is read from standard input, because computing it takes a while.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import msgspec
from rich.console import Console

from autograder.course import config as courses
from autograder.execution import attempt, connection
from autograder.execution.answer_key import AnswerKey
from autograder.feedback import student_page
from autograder.feedback.exercise_feedback import as_text, to_feedback
from autograder.feedback.sentences import Texts
from autograder.feedback.sentences import read as read_texts
from autograder.feedback.terminal_table import table
from autograder.grading import grader, scoring, trivial_answers
from autograder.grading.fork_server import start_server
from autograder.grading.grader import Grader
from autograder.marks.class_list import Row
from autograder.marks.model import SubmissionMarks
from autograder.protocol import limits
from autograder.sandbox.client import Server
from autograder.sandbox.worker.in_process import LocalProcess
from autograder.slicing.client import NotebookSlices, Slicer, SlicingCourse, prepare
from autograder.slicing.service import Piece
from autograder.submissions.cells import Cell
from autograder.submissions.roster_entry import Entry
from autograder.submissions.submission import Submission
from tests.attacks.as_user import become_nobody, deny_namespaces
from tests.attacks.outside import Outside
from tests.attacks.suite import ATTACKS, CELLS, HONEST, IS_LONG, KERNEL, PROVED, Attack
from tests.material import recipient

CANARY = "ATTACKS_CANARY"
# An honest submission is graded after this many attacks.
GROUP = 1 if IS_LONG else 3
SECONDS_TO_DISAPPEAR = 60  # for the private folders of other tests


@dataclass
class Seen:
    """The result of one attack. `after` is the number of points for the next honest submission."""

    points: float
    status: str
    messages: list[str]
    effects: list[str]
    after: float
    seconds: float


class Lab:
    """A grader for a course that contains canaries, and the targets of attacks outside the sandbox."""

    # The longest limit on a call's CPU time, in seconds. Without its defence, an attack might never end.
    longest = 60.0

    def __init__(self, outside: Outside, server: Server, trivial: Any) -> None:
        self.outside = outside
        day = courses.load(outside.root).day("day1")
        known = outside.root / ".autograder" / trivial_answers.cache_name(AnswerKey.read(day))
        known.write_text(json.dumps(trivial))
        self.grader = Grader(day, server, outside.secret)
        self.descriptors = 0
        self._day = day
        self._prepared: dict[tuple[Server, str], SlicingCourse] = {}
        self._texts = read_texts(day, self.grader.key.tests)
        self.prelude = f"T = {outside.targets()!r}\n" + (CELLS / "prelude.py").read_text()
        self.finder = (CELLS / "finder.py").read_text()

    def grade(self, attack: Attack, not_allowed: bool = True) -> SubmissionMarks:
        """Submit an attack, and grade only the exercise that it targets."""
        self.grader.day = self._day_for(attack, not_allowed)
        self._prepare("" if not_allowed else attack.exercise)
        return self.grader.grade(self._handed_in(attack.source), only=attack.exercise)

    def _prepare(self, allowing: str = "") -> None:
        """Prepare the server to slice the day's submissions. The exercise named by `allowing` may call any function."""
        key = self.grader.server, allowing
        if key not in self._prepared:
            self._prepared[key] = prepare(self.grader.server, self.grader.day)
        self.grader._slicing = self._prepared[key]

    def honest_after(self) -> float:
        """Grade an honest submission that looks for traces of earlier submissions, and return its points.

        Also count this process's open descriptors.
        """
        self.grader.day = self._day
        self._prepare()
        marks = self.grader.grade(self._handed_in(self.finder), only="causal_mask")
        self.descriptors = len(os.listdir("/proc/self/fd"))
        return marks.earned

    def slice(self, source: str) -> tuple[tuple[Cell, ...], NotebookSlices]:
        """Slice a submission without grading it. Return its cells and their slices."""
        self._prepare()
        cells = self._handed_in(source).cells
        with Slicer(self.grader.server, self.grader._slicing, cells) as slicer:
            return tuple(cells), slicer.slice_all()

    def _handed_in(self, source: str) -> Submission:
        cells = (Cell(1, "code", self.prelude), Cell(2, "code", source))
        return Submission("submitted.py", "eve", "", cells, (), True)

    def _day_for(self, attack: Attack, not_allowed: bool) -> courses.Day:
        """Return the day with the attack's own time limit, so that an endless attack takes less than five seconds."""
        exercises = []
        for one in self._day.exercises:
            if one.name == attack.exercise:
                seconds = min(attack.seconds, self.longest)
                limits = replace(one.limits, cpu_seconds=seconds, total_cpu_seconds=2.5 * seconds)
                one = replace(
                    one, limits=limits, not_allowed=one.not_allowed if not_allowed else ()
                )
            exercises.append(one)
        day = replace(self._day, exercises=tuple(exercises))
        vars(day)["chapters"] = self._day.chapters  # avoids reading the chapters again
        return day

    def observe(
        self, attack: Attack, work: Callable[[], SubmissionMarks], then_honest: bool
    ) -> Seen:
        """Run an attack, grade an honest submission if `then_honest` is true, and return the attack's result and effects."""
        started = time.monotonic()
        marks = work()
        seconds = time.monotonic() - started
        before = self.descriptors
        after = self.honest_after() if then_honest else 3.0
        effects = self.outside.seen()
        if self.descriptors > before:
            effects.append("grows")
        if after < 3:
            effects.append("marker")
        effects += self._shown(attack, marks)
        graded = marks.exercises[0]
        messages = dict.fromkeys(text[:300] for text in texts_of(marks) if text)
        return Seen(graded.points, graded.status, list(messages), effects, after, round(seconds, 3))

    def _shown(self, attack: Attack, marks: SubmissionMarks) -> Iterator[str]:
        """Yield the effects that are visible in the marks."""
        graded = marks.exercises[0]
        if attack.effect == "costs" and graded.points < graded.max_points:
            yield "costs"
        if attack.effect == "marks" and graded.points:
            yield "marks"
        if self.outside.leaks("\n".join(texts_of(marks))):
            yield "leaks"
        if any(acts(text) for text in displayed(marks, self._texts)):
            yield "shows"


def texts_of(marks: SubmissionMarks) -> list[str]:
    """Return all messages in the marks, for both the student and the TA."""
    graded = marks.exercises[0]
    return [*marks.problems, graded.message, *(test.message for test in graded.tests)]


def displayed(marks: SubmissionMarks, texts: Texts) -> Iterator[str]:
    """Yield every form in which marks are displayed: JSON, the table, the student page and nbgrader's feedback."""
    yield from _texts(msgspec.to_builtins(marks))
    yield from (problem.replace("\n", "\x1b") for problem in marks.problems)  # one line each
    console = Console(file=io.StringIO(), width=200)
    console.print(table([Row(Entry("", marks.label, marks.student), marks)]))
    yield console.file.getvalue()  # type: ignore[attr-defined]
    yield student_page.page(recipient(marks), texts)
    yield from (as_text(to_feedback(one, texts)) for one in marks.exercises)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def acts(text: str) -> bool:
    """Return whether a string contains control characters, bidirectional formatting characters or surrogates."""
    return any(not (c.isprintable() or c == "\n") for c in text)


# ---- without the defence


class Unwalled(LocalProcess):
    """A worker that runs in the grader's own process, as in autograders without a sandbox."""

    def __init__(self, server: Server, limits: Any, budget: Any) -> None:
        super().__init__()


class Presliced(Slicer):
    """A slicer that returns slices made before a fork. In a fork, the server, which is not its child, seems to have exited."""

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
    """A slicer that returns the whole notebook for every exercise, as in graders that do not slice."""

    def slice_all(self) -> NotebookSlices:
        whole = super().slice_all()
        own = [Piece(cell.source, cell.number, 1, False) for cell in self._cells]
        slices = {
            name: replace(code, pieces=(*(p for p in code.pieces if p.given), *own))
            for name, code in whole.slices.items()
        }
        return replace(whole, slices=slices)


@contextmanager
def without(layer: str) -> Iterator[None]:
    """Disable a defence that is not a kernel layer."""
    if layer == "escaping":
        with (
            mock.patch.object(connection, "escaped", lambda text, keep="": text),
            mock.patch.object(scoring, "sanitize", str),
            mock.patch.object(grader, "one_line", str),
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
    # A server takes seconds to start, so if fewer than three attacks share a set of disabled layers, run them with a larger one.
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
            here.grader.runner.server = server
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


def walled(outside: Outside, trivial: Any, which: str) -> dict[str, Any]:
    """Run the attacks and all harmless control cells in the sandbox, and return the results."""
    with start_server() as server:
        here = Lab(outside, server, trivial)
        here.honest_after()
        chosen = [a for a in ATTACKS if a.kernel or which != "kernel"]
        attacks, honest = run_all(here, chosen), run_all(here, HONEST)
        return {"isolation": server.isolation, "attacks": attacks, "honest": honest}


def run_all(here: Lab, attacks: Sequence[Attack]) -> dict[str, Any]:
    """Run attacks, grade an honest submission after each group of them, and return the results by name."""
    results: dict[str, Seen] = {}
    for start in range(0, len(attacks), GROUP):
        group = attacks[start : start + GROUP]
        seen = [here.observe(a, partial(here.grade, a), a is group[-1]) for a in group]
        results |= {
            a.name: replace(s, after=seen[-1].after) for a, s in zip(group, seen, strict=True)
        }
    return {name: asdict(each) for name, each in results.items()}


def main(user: str, wall: str, which: str = "all") -> None:
    """Switch to the user, run the attacks in this sandbox configuration, and print the results as JSON."""
    if user == "nobody" and os.geteuid() == 0:
        become_nobody(["-m", "tests.attacks.run", user, wall, which])
    if wall == "denied":
        deny_namespaces()
    trivial = json.load(sys.stdin)
    before = private_folders()
    with Outside(os.environ[CANARY]) as outside:
        if wall == "off":
            # Without its defence, an attack may wait for an answer that never comes.
            with mock.patch.object(limits, "IDLE_FACTOR", 0.5):
                seen = proofs(outside, trivial, user)
        else:
            seen = walled(outside, trivial, which)
    seen["left"] = left_behind(before)
    print(json.dumps(seen))


def private_folders() -> set[str]:
    """Return the names of the private folders in /tmp that belong to this user."""
    return {path.name for path in Path("/tmp").glob("autograder-*") if is_own(path)}


def is_own(path: Path) -> bool:
    """Return whether a folder belongs to this user. Another test may have just removed it."""
    try:
        return path.stat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


def left_behind(before: set[str]) -> list[str]:
    """Return the new private folders that remain. Those of tests that run at the same time disappear."""
    end = time.monotonic() + SECONDS_TO_DISAPPEAR
    while (made := private_folders() - before) and time.monotonic() < end:
        time.sleep(0.1)
    return sorted(made)


if __name__ == "__main__":
    main(*sys.argv[1:])
