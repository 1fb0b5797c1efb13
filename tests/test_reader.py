"""Test that the reader service enforces its limits, and that the grader rejects invalid responses and parses no files itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from autograder.course import config as courses
from autograder.plain_text import LONGEST, MAX_PROBLEMS
from autograder.protocol import frames
from autograder.protocol.limits import Limits
from autograder.sandbox.clock import Reading
from autograder.sandbox.command import READER
from autograder.sandbox.control import Stopped
from autograder.sandbox.errors import ATTEMPTS, ServerLost
from autograder.slicing import reader_service, statements
from autograder.slicing.slicer import Slicer, SlicingCourse, SlicingError, prepare
from autograder.submissions import archives, cell_reader, reader_client
from autograder.submissions import reader_messages as m
from autograder.submissions.cell import Cell
from autograder.submissions.origin import Origin, Person, from_folder
from autograder.submissions.places import FoundFile
from autograder.submissions.reader_client import (
    ArchiveListing,
    FileReader,
    OpenFile,
    Reader,
    ReaderProcess,
    ReadError,
    StudentBudget,
    open_regular,
)
from autograder.submissions.reader_messages import (
    REQUESTS,
    ExerciseSlice,
    SliceAll,
    Slices,
    Statement,
)
from autograder.submissions.submission import read_submissions
from tests.conftest import ROOT, reader
from tests.fork_server import process_of
from tests.test_submission import found, notebook, students, write, zipped

RIGHT = "def f():\n    return 1\n"
INVALID = "the reader process sent an invalid response"


# ---- invalid responses from a compromised process


class FakeServer:
    """A fake fork server that starts threads instead of processes. The threads send predefined responses."""

    def __init__(
        self, *serve: Callable[[socket.socket], None], code: int = 1, cpu: float = 0.0
    ) -> None:
        self._serve = list(serve)
        self._stopped = Stopped(code, cpu)
        self.dies = False

    def start(self, limits: Limits, service: str) -> tuple[socket.socket, int]:
        assert service == READER
        ours, theirs = socket.socketpair()
        serve = self._serve.pop(0)

        def run() -> None:
            with theirs:
                serve(theirs)

        threading.Thread(target=run, daemon=True).start()
        return ours, 1

    def clock(self, number: int) -> FakeServer:
        return self

    def read(self) -> Reading:
        return Reading()

    def stop(self, number: int) -> None:
        pass

    def end(self, number: int) -> Stopped:
        if self.dies:
            self.dies = False
            raise ServerLost
        return self._stopped


def answering(*answers: Any) -> Callable[[socket.socket], None]:
    """Return a function that acts as a process and replies to each request with the next item in `answers`."""

    def serve(wire: socket.socket) -> None:
        for answer in answers:
            frames.receive(wire, REQUESTS, float("inf"))
            if isinstance(answer, bytes):
                wire.sendall(answer)
                continue
            header, value = answer if isinstance(answer, tuple) else (m.Done(), answer)
            body = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
            frames.send(wire, header, m.body(body), float("inf"))

    return serve


def fake_reader(server: FakeServer) -> FileReader:
    taken_over = FileReader.__new__(FileReader)
    taken_over.server = server  # type: ignore[assignment]
    return taken_over


def listed_by(server: FakeServer, tmp_path: Path) -> ArchiveListing:
    file = tmp_path / "class.zip"
    file.touch()
    return ArchiveListing(server, open_regular(file), "class.zip", "day1", "")  # type: ignore[arg-type]


def file_of(data: bytes) -> OpenFile:
    return OpenFile(lambda offset, size: data[offset : offset + size], len(data))


GOOD = {"place": "", "sha256": "0" * 64, "cells": [{"number": 1, "kind": "code", "source": "x"}]}
ANSWERS: dict[str, Any] = {
    "no file": [],
    "too many files": [GOOD] * 51,
    "another type": {"cells": 1},
    "a number for a string": [GOOD | {"place": 3}],
    "an unknown kind": [GOOD | {"cells": [{"number": 1, "kind": "sql", "source": ""}]}],
    "a number below 0": [GOOD | {"cells": [{"number": -1, "kind": "code", "source": ""}]}],
    "a huge number": [GOOD | {"cells": [{"number": 1 << 60, "kind": "code", "source": ""}]}],
    "a file of another student": [GOOD | {"place": "../ada.ipynb"}],
    "a long name": [GOOD | {"place": "a" * 301}],
    "many problems": [GOOD | {"problems": ["x"] * (MAX_PROBLEMS + 1)}],
    "a long problem": [GOOD | {"problems": ["x" * (LONGEST + 1)]}],
    "not MessagePack": b"\xc1",
    "nested very deeply": b"\x91" * 100_000,
    "a list of four billion elements": b"\xdd\xff\xff\xff\xff",
    "a lone surrogate": [GOOD | {"place": "?"}],
    "an empty body": b"",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_invalid_answer_affects_only_its_student(answer: Any) -> None:
    if answer == [GOOD | {"place": "?"}]:
        answer = msgspec.msgpack.encode(answer).replace(b"\xa1?", b"\xa3\xed\xa0\x80")
    if isinstance(answer, bytes):
        answer = (m.Done(), answer)
    with pytest.raises(ReadError, match=INVALID):
        fake_reader(FakeServer(answering(answer))).read(
            "a.ipynb", file_of(b"x"), "day1", StudentBudget()
        )


def test_archive_listing_with_a_place_outside_the_archive_is_rejected(tmp_path: Path) -> None:
    server = FakeServer(answering([FoundFile("a/../../ada.ipynb", "", member=0)]))
    with pytest.raises(ReadError, match=INVALID):
        listed_by(server, tmp_path)


FRAMES = {
    "a huge header": frames.LENGTHS.pack(1 << 40, 0),
    "a huge body": frames.LENGTHS.pack(1, 1 << 40) + b"x",
    "another message": frames.LENGTHS.pack(1, 0) + b"\xc0",
    "a long reason": frames.LENGTHS.pack(1, 0) + b"\xc0",
}
PULLS = [m.Pull(-1, 1), m.Pull(0, 0), m.Pull(0, 2), m.Pull(1 << 70 >> 8, 1), m.Pull(0, 1 << 40)]


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_invalid_frame_is_rejected(frame: bytes) -> None:
    with pytest.raises(ReadError, match=INVALID):
        ReaderProcess(FakeServer(answering(frame))).ask(m.Open(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("pull", PULLS)
def test_pull_beyond_the_file_is_rejected(pull: m.Pull) -> None:
    server = FakeServer(answering((pull, b"")))
    with pytest.raises(ReadError, match=INVALID):
        fake_reader(server).read("a.ipynb", file_of(b"x"), "day1", StudentBudget())


def test_pull_without_a_file_is_rejected() -> None:
    with pytest.raises(ReadError, match=INVALID):
        ReaderProcess(FakeServer(answering((m.Pull(0, 1), b"")))).ask(m.Open(1))  # type: ignore[arg-type]


def test_silent_process_is_stopped() -> None:
    server = FakeServer(lambda wire: threading.Event().wait(2))  # type: ignore[arg-type]
    with pytest.raises(ReadError, match=r"reading the file took more than 0.3 s"):
        ReaderProcess(server, seconds=0.1).ask(m.Open(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "cpu", "why"),
    [
        (-9, 10.0, "reading the student's files took more than 10 s of CPU time in total"),
        (-9, 1.0, "killed repeatedly. Check whether this machine ran out of memory"),
        (-11, 1.0, "exit code -11"),
    ],
)
def test_crash_is_reported_with_its_cause(code: int, cpu: float, why: str) -> None:
    server = FakeServer(*[lambda wire: None] * ATTEMPTS, code=code, cpu=cpu)
    with pytest.raises(ReadError, match=why):
        fake_reader(server).read("a.ipynb", file_of(b"x"), "day1", StudentBudget())


def test_file_is_read_again_if_the_fork_server_dies() -> None:
    server = FakeServer(lambda wire: None, answering([GOOD]))
    server.dies = True
    (file,) = fake_reader(server).read("a.ipynb", file_of(b"x"), "day1", StudentBudget())
    assert file.cells == (Cell(1, "code", "x"),)


@pytest.mark.parametrize("is_repeated", [False, True])
def test_archive_member_does_not_fail_because_others_took_long(
    is_repeated: bool, tmp_path: Path
) -> None:
    listed = [FoundFile(f"{n}.ipynb", f"{n}", member=n) for n in range(2)]
    last = answering(listed) if is_repeated else answering(listed, 7)
    server = FakeServer(answering(listed, 5), last, code=-signal.SIGXCPU)
    listing = listed_by(server, tmp_path)
    assert listing.open_member(listed[0], StudentBudget()).size == 5
    if is_repeated:
        with pytest.raises(ReadError, match="exit code -24"):
            listing.open_member(listed[1], StudentBudget())
    else:
        assert listing.open_member(listed[1], StudentBudget()).size == 7
    listing.close()


def test_file_is_read_again_if_its_process_is_killed() -> None:
    server = FakeServer(lambda wire: None, answering([GOOD]), code=-signal.SIGKILL)
    (file,) = fake_reader(server).read("a.ipynb", file_of(b"x"), "day1", StudentBudget())
    assert file.cells == (Cell(1, "code", "x"),)


def test_killed_fork_server_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, {"ada.ipynb": notebook(), "bob.ipynb": notebook()})
    with Reader() as own:
        ada, *rest = _killed_between(own, read_submissions([tmp_path], "day1", own))
        assert ada.readable
        assert [one.readable for one in rest] == [True]
        course = prepare(own.server, courses.load(ROOT).day("day1"))
        with Slicer(own.server, course, ada.cells) as slicer:
            assert slicer.slice_all().slices["softmax"].state == "absent"
            os.kill(process_of(own.server).pid, signal.SIGKILL)
            process_of(own.server).wait()
            assert slicer.slice_again("softmax", ["causal_mask"]).state == "absent"


def _killed_between(own: Reader, found: Iterator[Any]) -> Iterator[Any]:
    yield next(found)
    os.kill(process_of(own.server).pid, signal.SIGKILL)
    process_of(own.server).wait()
    yield from found


# ---- invalid slices from a compromised process

COURSE = SlicingCourse("", ("f", "g"))
STATEMENT = Statement("x = 1", 1, 1, False)


def chosen(name: str, pieces: Sequence[int] = (0,), reached: Sequence[str] = ()) -> ExerciseSlice:
    return ExerciseSlice(name, "written", list(pieces), list(reached), (), ())


BOTH = [chosen("f"), chosen("g")]
WRONG_SLICES: dict[str, Any] = {
    "another exercise": Slices([STATEMENT], [chosen("f"), chosen("h")]),
    "one exercise twice": Slices([STATEMENT], [chosen("f"), chosen("f")]),
    "too few": Slices([STATEMENT], [chosen("f")]),
    "a missing piece": Slices([STATEMENT], [chosen("f", [1]), chosen("g")]),
    "a piece below 0": Slices([STATEMENT], [chosen("f", [-1]), chosen("g")]),
    "a large piece many times": Slices(
        [Statement("x" * 1_000_000, 1, 1, False)], [chosen("f", [0] * 1000), chosen("g")]
    ),
    "reaches itself": Slices([STATEMENT], [chosen("f", reached=["f"]), chosen("g")]),
    "reaches an unknown exercise": Slices([STATEMENT], [chosen("f", reached=["os"]), chosen("g")]),
    "an infinite cell number": {"statements": [["x", float("inf"), 1, False]], "slices": []},
    "a home of an unknown exercise": Slices([STATEMENT], BOTH, defining_cells={"h": 1}),
}


@pytest.mark.parametrize("answer", WRONG_SLICES.values(), ids=WRONG_SLICES)
def test_invalid_slices_are_rejected(answer: Any) -> None:
    server = FakeServer(answering(answer))
    with (
        Slicer(server, COURSE, [Cell(1, "code", "x")]) as slicer,  # type: ignore[arg-type]
        pytest.raises(SlicingError, match=INVALID),
    ):
        slicer.slice_all()


def test_failed_slicer_keeps_failing() -> None:
    """Once a slicer has exceeded its CPU time limit, it fails immediately for all remaining exercises."""
    server = FakeServer(lambda wire: None, code=-9, cpu=20.0)
    with Slicer(server, COURSE, []) as slicer:  # type: ignore[arg-type]
        for _ in range(3):
            with pytest.raises(SlicingError, match="CPU time"):
                slicer.slice_again("f", ["g"])


# ---- slices


def test_slices_contain_the_code_that_runs_and_the_names_that_it_reads() -> None:
    day = courses.load(ROOT).day("day1")
    server = reader().server
    sources = [
        "import torch",
        "from __future__ import annotations\ndef softmax(x, dim=-1):\n    return torch.softmax(x, dim)",
        "def attention(q, k, v):\n    return softmax(q @ k), causal_mask",
        "y = (",
    ]
    notebook = [Cell(number, "code", source) for number, source in enumerate(sources, 1)]
    with Slicer(server, prepare(server, day), notebook) as slicer:
        whole = slicer.slice_all()
        again = slicer.slice_again("attention", ["softmax"])
    attention = whole.slices["attention"]
    assert set(attention.reached) == {"softmax", "causal_mask"}
    assert [p.cell for p in attention.statements if not p.given] == [2, 2, 3]
    assert whole.slices["softmax"].used == ("torch.softmax",)
    assert whole.slices["causal_mask"].state == "absent"
    assert whole.defining_cells == {"softmax": 2, "attention": 3}
    assert "cell 4: SyntaxError" in whole.problems[0]
    texts = [piece.source for piece in again.statements]
    assert "# softmax: the reference" in texts
    assert not any("def softmax" in text for text in texts)


def test_release_contains_only_stubs() -> None:
    day = courses.load(ROOT).day("day2")
    (release,) = read_submissions([ROOT / "assignments/day2/day2.ipynb"], "day2", reader())
    with Slicer(reader().server, prepare(reader().server, day), release.cells) as slicer:
        assert {one.state for one in slicer.slice_all().slices.values()} == {"stub"}


# ---- limits of real processes


def test_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_client, "MEMORY", 40_000_000)
    write(tmp_path, {"ada.ipynb": notebook(), "eve.ipynb": b" " * 100_000_000 + b"{"})
    ada, eve = found(tmp_path)
    assert ada.readable
    assert eve.problems == ("reading the file takes too much memory",)


def test_processor_time_is_limited() -> None:
    lines = "".join(f"v{n} = {n} + {n}\n" for n in range(60_000))
    body = msgspec.msgpack.encode([Cell(n, "code", f"# {n}\n{lines}") for n in range(12)])
    course = prepare(reader().server, courses.load(ROOT).day("day1"))
    with pytest.raises(ReadError, match="more than 1 s of CPU time"):
        ReaderProcess(reader().server, seconds=1).ask(SliceAll(course.key), body=body)


def test_large_honest_notebooks_are_read(tmp_path: Path) -> None:
    plot = {"output_type": "display_data", "data": {"image/png": "A" * 1_000_000}}
    plots = [{"cell_type": "code", "source": f"x = {n}", "outputs": [plot]} for n in range(40)]
    many = [{"cell_type": "code", "source": f"x = {n}"} for n in range(30_000)]
    for name, cells_ in (("plots", plots), ("many", many)):
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"cells": cells_, "nbformat": 4}))
    by_many, by_plots = found(tmp_path)
    assert (len(by_plots.cells), by_plots.problems) == (40, ())
    assert (len(by_many.cells), by_many.problems) == (30_000, ())


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "true", "[1, 2]", "-1e5", " [ ] \n"])
def test_other_json_is_unreadable(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"eve.ipynb": text.encode()})
    (eve,) = found(tmp_path)
    assert not eve.readable
    assert eve.problems[0].startswith("the file is not a notebook: its JSON is")


def test_number_of_problems_is_limited(tmp_path: Path) -> None:
    write(tmp_path, {"eve.ipynb": json.dumps({"cells": [{}] * 9_600}).encode()})
    (eve,) = found(tmp_path)
    assert len(eve.problems) == MAX_PROBLEMS
    assert eve.problems[-1] == "and 9,551 more problems"


# ---- the grader's own process


def test_reader_does_not_import_torch() -> None:
    program = "import autograder.slicing.reader_service, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "jupytext", "nbformat"} & set(done.stdout.split())


def test_grader_process_parses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = b"submission_1:\n  :submitters:\n  - :name: Ada\n"
    files = {"submission_1/day1.ipynb": notebook(), "submission_metadata.yml": metadata}
    write(tmp_path, {"class.zip": zipped(files), **{f"out/{n}": d for n, d in files.items()}})
    server = reader().server
    course = prepare(server, courses.load(ROOT).day("day1"))

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the grader parsed a file outside the sandbox")

    monkeypatch.setattr(cell_reader, "parse_strict", refuse)
    monkeypatch.setattr(cell_reader, "parse_script", refuse)
    monkeypatch.setattr(statements, "parse_cell", refuse)
    monkeypatch.setattr(archives, "parse_metadata", refuse)
    monkeypatch.setattr(reader_service, "parse_metadata", refuse)
    for name in ("json.loads", "zipfile.ZipFile", "tarfile.TarFile", "yaml.parse", "ast.parse"):
        monkeypatch.setattr(name, refuse)
    for place in ("class.zip", "out"):
        (ada,) = found(tmp_path / place)
        assert (ada.student, ada.readable) == ("Ada", True)
        with Slicer(server, course, ada.cells) as slicer:
            assert slicer.slice_all().defining_cells == {}


# ---- owners and times


METADATA = (
    b"submission_1:\n  :submitters:\n  - :name: bob\n    :sid: bob\n  :created_at: 2020-01-01\n"
)
INSIDE = {
    "a file named like another student": {"bob.ipynb": notebook()},
    "a folder named like another student": {"bob/day1.ipynb": notebook()},
    "folders of nbgrader": {"submitted/bob/day1/day1.ipynb": notebook()},
    "a timestamp of nbgrader": {
        "x/day1/day1.ipynb": notebook(),
        "x/day1/timestamp.txt": b"2020-01-01",
    },
    "a timestamp in a folder named after the day": {
        "day1/day1.ipynb": notebook(),
        "day1/timestamp.txt": b"2020-01-01 00:00:00 UTC",
    },
    "a Canvas file name": {"bob_12_34567_day1.ipynb": notebook()},
    "a Moodle folder": {"bob_12_assignsubmission_file_/day1.ipynb": notebook()},
    "Gradescope metadata": {
        "submission_1/day1.ipynb": notebook(),
        "submission_metadata.yml": METADATA,
    },
    "a Gradescope export": {
        "assignment_1_export/submission_1/day1.ipynb": notebook(),
        "assignment_1_export/submission_metadata.yml": METADATA,
    },
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("inside", INSIDE.values(), ids=INSIDE)
def test_files_inside_a_submission_change_neither_owner_nor_time(
    tmp_path: Path, inside: dict[str, bytes], packed: bool
) -> None:
    work = {"day1.zip": zipped(inside)} if packed else inside
    time = {"timestamp.txt": b"2026-12-10 20:00:00 UTC"}
    for name, data in (work | time).items():
        write(tmp_path / "submitted/eve/day1", {name: data})
    write(tmp_path / "submitted/bob/day1", {"day1.ipynb": notebook()} | time)
    for name, data in work.items():
        write(tmp_path / "class/eve", {name: data})
    write(tmp_path / "class", {"ada.ipynb": notebook(), "zoe/day1.ipynb": notebook()})
    in_tree = found(tmp_path / "submitted")
    assert [one.student for one in in_tree] == ["bob", "eve"]
    assert {
        one.handed_in.time.isoformat() for one in in_tree if one.handed_in and one.handed_in.time
    } == {"2026-12-10T20:00:00+00:00"}
    assert [one.student for one in found(tmp_path / "submitted/eve/day1")] == ["eve"]
    in_class = found(tmp_path / "class")
    assert sorted(one.student for one in in_class) == ["ada", "eve", "zoe"]
    assert {one.origin for one in in_class} == {*map(from_folder, ("ada", "eve", "zoe"))}


@pytest.mark.parametrize("inside", INSIDE.values(), ids=INSIDE)
def test_files_inside_a_class_archive_do_not_change_owners(
    tmp_path: Path, inside: dict[str, bytes]
) -> None:
    files = {"ada/day1.ipynb": notebook(), **{f"eve/{name}": data for name, data in inside.items()}}
    canvas = {
        "eve_99_11111_work.zip": zipped(inside),
        "ada_98_22222_day1.ipynb": notebook(),
    }
    write(tmp_path, {"class.zip": zipped(files), "canvas.zip": zipped(canvas)})
    assert students(tmp_path / "class.zip") == ["ada", "eve"]
    ada, eve = found(tmp_path / "canvas.zip")
    assert eve.handed_in == Origin((Person("eve", "99"),), upload=11111)
    assert ada.handed_in == Origin((Person("ada", "98"),), upload=22222)


def test_students_archive_belongs_to_one_student(tmp_path: Path) -> None:
    files = {f"a{n}/day1.ipynb": notebook(f"x = {n}") for n in range(50)}
    write(tmp_path, {"eve.zip": zipped(files), "ada.ipynb": notebook()})
    assert set(students(tmp_path)) == {"ada", "eve"}
    assert len(found(tmp_path)) == 51
    write(tmp_path, {"eve.zip": zipped(files | {"b/day1.ipynb": notebook()})})
    ada, eve = found(tmp_path)
    assert ada.readable
    assert "more than 50 notebooks" in eve.problems[0]


@pytest.mark.parametrize("value", ["&a [1, *a]", "!!int ''", "[", "!!timestamp 'x'"])
def test_invalid_metadata_affects_no_submission(tmp_path: Path, value: str) -> None:
    metadata = f"submission_1:\n  :submitters: {value}\n".encode()
    files = {"submission_1/day1.ipynb": notebook(), "submission_metadata.yml": metadata}
    write(tmp_path, {"class.zip": zipped(files), **{f"out/{n}": d for n, d in files.items()}})
    for place in ("class.zip", "out"):
        (one,) = found(tmp_path / place)
        assert (one.student, one.readable) == ("submission_1", True)
        assert all("submission_metadata.yml could not be read" in p for p in one.problems)
