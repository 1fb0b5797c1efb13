"""Test that reference solutions never enter a process that runs student code, and that calling them earns no points.

By default, the tests use a sample of pairs in which one exercise forwards its calls to another. With `ATTACKS=all`, which
`make attacks` sets, they use all pairs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import random
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from autograder.course import config as courses
from autograder.course.chapters import ChapterCell
from autograder.course.config import Day
from autograder.execution.answer_key import AnswerKey
from autograder.grading import exercise_grader
from autograder.grading.grader import Grader
from autograder.protocol.limits import Limits
from autograder.sandbox.client import Server, start_server
from autograder.submissions.cell import Cell
from autograder.submissions.submission import Submission
from bench.processes import tree
from tests.attacks.forwarding import body, graph, pairs, submission
from tests.conftest import ROOT, SECRET, by_name, grade_one
from tests.fork_server import process_of

pytestmark = pytest.mark.slow

IS_LONG = os.environ.get("ATTACKS") == "all"
IS_ROOT = os.geteuid() == 0
PAIRS = 25  # pairs per day in the default run, in addition to ALIKE
ALIKE = {
    ("attention", "masked_attention"),
    ("masked_attention", "attention"),
    ("decoder_mask", "padding_mask"),
    ("padding_mask", "decoder_mask"),
    ("DecoderLayer", "EncoderLayer"),
    ("GPTBlock", "CausalSelfAttention"),
    ("RelativeSelfAttention", "CausalSelfAttention"),
}
GRAPHS = 500 if IS_LONG else 5
PROBE = (Path(__file__).parent / "probe.py").read_text(encoding="utf-8")
REPLACED = ("masked_attention", "split_heads", "MultiHeadAttention", "LayerNorm", "FeedForward")
LONG_ENOUGH = 25  # a line of at least this many characters does not occur in two programs by chance
SLEEPING = ("230", "115")  # clock_nanosleep on x86-64 and arm64
ASLEEP = 4.0  # seconds that a student's call waits while its memory is scanned


# ---- forwarding


@pytest.fixture(params=["day1", "day2"])
def plain_grader(
    request: pytest.FixtureRequest, graders: Callable[[str], Grader], without_recognition: None
) -> Grader:
    """Return a grader for a day that does not try to recognise known mistakes."""
    return graders(request.param)


def test_forwarding_earns_nothing(plain_grader: Grader) -> None:
    every = list(pairs(plain_grader.day.names))
    alike = [pair for pair in every if pair[:2] in ALIKE]
    chosen = every if IS_LONG else [*alike, *random.Random(17).sample(every, PAIRS)]
    earned = {}
    for name, other, shape in chosen:
        source = body(name, other, shape)
        marks = by_name(plain_grader.grade(submission([source])))
        if any(marked.points for marked in marks.values()):
            earned[source] = marks[name].points
    assert not earned, _listed(earned)


def test_call_graphs_earn_nothing(plain_grader: Grader) -> None:
    draw = random.Random(18)
    earned = {}
    for _ in range(GRAPHS // 2 + 1):
        sources = graph(plain_grader.day.names, draw)
        marks = plain_grader.grade(submission(list(sources.values())))
        if marks.points:
            own = {marked.name: marked.points for marked in marks.exercises if marked.points}
            earned["\n".join(sources.values())] = own
    assert not earned, _listed(earned)


def _listed(earned: Mapping[str, object]) -> str:
    return "\n\n".join(f"{source}\n# earned {points}" for source, points in earned.items())


# ---- looking for references


@dataclasses.dataclass(frozen=True)
class Planted:
    """A course with two canaries in its solutions: the student's code searches for one, and the test searches for the other."""

    day: Day
    known: str
    hidden: str
    lines: tuple[str, ...]  # lines of the references that replace exercises


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, grader: Grader) -> Planted:
    folder = tmp_path_factory.mktemp("course")
    known, hidden = (f"{word}{os.urandom(8).hex()}" for word in ("qzknown", "qzhidden"))
    for part in ("solutions", "graders", "mistakes"):
        shutil.copytree(ROOT / part, folder / part)
    shutil.copy(ROOT / "grading.toml", folder)
    for file in (folder / "solutions" / "day1").glob("*.py"):
        file.write_text(with_canaries(file.read_text(), known, hidden))
    day = courses.load(folder).day("day1")
    exercises = [dataclasses.replace(e, limits=patient(e.limits)) for e in day.exercises]
    day = dataclasses.replace(day, exercises=tuple(exercises))
    found = folder / ".autograder" / exercise_grader.cache_name(AnswerKey.read(day))
    found.parent.mkdir()
    found.write_bytes(msgspec.json.encode(grader.exercises.trivial_passes))
    lines = {line.strip() for name in REPLACED for line in cell_of(day, name).source.splitlines()}
    texts = [PROBE, cell_of(day, "EncoderLayer").source, *(cell_of(day, n).stub for n in REPLACED)]
    public = {line.strip() for text in texts for line in text.splitlines()}
    secret = sorted(line for line in lines - public if len(line) >= LONG_ENOUGH)
    return Planted(day, known, hidden, tuple(secret))


@pytest.fixture(scope="module")
def planted_grader(planted: Planted) -> Iterator[Grader]:
    """Return a grader for the course with the canaries."""
    with start_server() as server:
        yield Grader(planted.day, server, SECRET)


def with_canaries(chapter: str, known: str, hidden: str) -> str:
    """Insert both canaries into each solution: in a comment, a constant, a docstring and identifiers."""

    def plant(match: re.Match[str]) -> str:
        lines = [match[0]]
        for word in (known, hidden):
            lines += [
                f"# {word} in a comment",
                f'{word}_name = "{word} in a constant"',
                f"def {word}_function(): '''{word} in a docstring'''",
            ]
        return f"\n{match[1]}".join(lines)

    return re.sub(r"^([ \t]*)### BEGIN SOLUTION", plant, chapter, flags=re.MULTILINE)


def patient(limits: Limits) -> Limits:
    """Return limits that allow ten times the usual time, because searching all objects takes a long time."""
    names = [field.name for field in dataclasses.fields(limits) if "seconds" in field.name]
    return dataclasses.replace(limits, **{name: 10 * getattr(limits, name) for name in names})


def cell_of(day: Day, name: str) -> ChapterCell:
    """Return the chapter cell that contains the reference solution for an exercise."""
    cells = [cell for chapter in day.chapters for cell in chapter.cells]
    return next(cell for cell in cells if (cell.role, cell.name) == ("exercise", name))


def probing(planted: Planted, marker: str) -> Submission:
    """Return a submission whose EncoderLayer raises an exception if it finds a reference solution.

    The submission lacks the exercises that EncoderLayer calls, so the grader substitutes their reference solutions.
    """
    real = courses.load(ROOT).day("day1")
    lines = [hashlib.sha256(line.encode()).hexdigest() for line in planted.lines]
    sources = [
        "import torch\nfrom torch import nn",
        # Reverse the words, so that the source does not contain them.
        f"BACKWARDS = {planted.known[::-1]!r}\nMARKER = {marker[::-1]!r}\nSECONDS = {ASLEEP if IS_ROOT else 0}\n"
        f"LINES = {dict(zip(lines, map(len, planted.lines), strict=True))!r}",
        PROBE,
        cell_of(real, "EncoderLayer").source,
        "_forward = EncoderLayer.forward\n"
        "def forward(self, x, mask=None):\n"
        "    result = _forward(self, x, mask)\n"
        "    look_once(self)\n"
        "    return result\n"
        "EncoderLayer.forward = forward",
    ]
    cells = [Cell(number, "code", source) for number, source in enumerate(sources, 1)]
    return Submission("probe.py", "eve", "", tuple(cells), (), True)


def test_no_reference_in_a_student_process(planted: Planted, planted_grader: Grader) -> None:
    """Neither the student's code nor a memory scan of its process finds a reference solution."""
    assert len(planted.lines) > 20
    scan = Scan(planted_grader.server, [planted.hidden, *planted.lines])
    with scan if IS_ROOT else contextlib.nullcontext():
        marks = by_name(planted_grader.grade(probing(planted, scan.marker)))["EncoderLayer"]
    assert "MultiHeadAttention" in marks.reference_for, marks
    assert marks.status == "passed", marks.message
    assert not IS_ROOT or scan.looks, "no student process was scanned while it was waiting"
    assert not scan.found


def test_both_searches_find_planted_canaries(planted: Planted, planted_grader: Grader) -> None:
    """As a control, both searches find the canaries in a submission that contains them."""
    held = f"def held():\n    '{planted.hidden}'\n    {planted.known} = 1"
    answer = "def causal_mask(n, device=None):\n    look_once(held)\n    return n"
    scan = Scan(planted_grader.server, [planted.hidden, *planted.lines])
    handed_in = probing(planted, scan.marker)
    cells = (*handed_in.cells[:3], Cell(9, "code", held), Cell(10, "code", answer))
    with scan if IS_ROOT else contextlib.nullcontext():
        holding = dataclasses.replace(handed_in, cells=cells)
        marks = grade_one(planted_grader, holding, "causal_mask")
    assert any(
        "traces of reference solutions" in test.message for test in marks.exercises[0].tests
    ), marks
    assert not IS_ROOT or scan.found == {planted.hidden.encode()}


class Scan:
    """A context manager that repeatedly scans the memory of sandboxed processes.

    Processes whose memory contains the marker are running student code. `found` collects the `words` that occur in their memory.
    """

    def __init__(self, server: Server, words: Sequence[str]) -> None:
        self.marker = f"qzmarker{os.urandom(8).hex()}"
        self.found: set[bytes] = set()
        self.looks = 0
        self._server = process_of(server).pid
        self._words = [word.encode() for word in words]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._scan)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _scan(self) -> None:
        while not self._done.wait(1.0):
            with contextlib.suppress(OSError):  # a process has ended
                for pid in tree(self._server):
                    self._look(pid)

    def _look(self, pid: int) -> None:
        is_student, found = False, set()
        try:
            if Path(f"/proc/{pid}/syscall").read_text().split()[0] not in SLEEPING:
                return
            with stopped(pid):  # on a busy machine, a scan may take longer than the call waits
                for part in memory(pid):
                    is_student |= self.marker.encode() in part
                    found |= {word for word in self._words if word in part}
        except OSError:
            return  # the process has ended
        if is_student:
            self.looks += 1
            self.found |= found


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process while the body of the `with` statement runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def memory(pid: int) -> Iterator[bytes]:
    """Yield a process's private and shared memory in overlapping chunks, excluding mapped files."""
    size, overlap = 8 << 20, 1000
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for line in maps.read().splitlines():
            place, access, _, _, inode, *_ = line.split()
            if "r" not in access or (inode != "0" and "w" not in access):
                continue
            start, end = (int(part, 16) for part in place.split("-"))
            for at in range(start, end, size):
                try:
                    file.seek(at)
                    yield file.read(min(size + overlap, end - at))
                except (OSError, OverflowError, ValueError):
                    break  # a page that cannot be read, such as vvar
