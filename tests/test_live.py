"""Test how `autograder live` finds and grades notebooks while students work, and what it remembers."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import subprocess
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.files import FileError
from autograder.feedback import sentences
from autograder.live import board, session_report, timeline, watching
from autograder.live.delivery import Delivery
from autograder.live.room import Event, Progress, Room
from autograder.live.timeline import Timeline
from autograder.live.watching import Watcher
from autograder.marks.model import SubmissionMarks
from bench.live_room import simulate
from tests import small_course
from tests.conftest import reader
from tests.fake_grading import book, session
from tests.live_room import MINUTE, FakeRoom, marks, update

START = 1_800_000_000.0
ADA = "folder ada"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small_course.make(tmp_path / "course")


@pytest.fixture
def day(root: Path) -> Day:
    return courses.load(root).day("day1")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count files as complete as soon as they are found, and grade them again at once."""
    monkeypatch.setattr(watching, "STABLE", 0.0)
    monkeypatch.setattr(board, "REST", 0)


# ---- the room


def test_the_view_counts_states_positions_and_shared_mistakes(day: Day) -> None:
    room = Room(day)
    update(room, START, "ada", marks(day, "failed", "not_attempted", mistake="fixed_id"))
    update(room, START + 5, "bob", marks(day, "failed", "not_attempted", mistake="fixed_id"))
    update(room, START + 9, "cyd", marks(day, "passed", "not_attempted"))
    view = room.view(START + 12 * MINUTE)
    assert view.counts["padding_mask"] == {"working": 2, "passes": 1}
    assert view.counts["split_heads"] == {"not_begun": 3}
    assert view.median == "padding_mask"
    assert view.mistakes == [("padding_mask", "fixed_id", 2, START)]
    assert view.stalled == {10: 3, 20: 0, 30: 0}
    assert view.places == [("padding_mask", 2), ("split_heads", 1)]
    assert view.problem == ""


def test_the_view_names_the_problem_that_most_people_have(day: Day) -> None:
    shared, slow, waiting = Room(day), Room(day), Room(day)
    for n in range(20):
        status = "failed" if n < 3 else "passed"
        update(shared, START, str(n), marks(day, status, "not_attempted", mistake="fixed_id"))
        status = "timed_out" if n < 3 else "passed"
        update(slow, START, str(n), marks(day, status, "not_attempted"))
        update(waiting, START, str(n), marks(day, "passed", "not_attempted"))
    assert shared.view(START).problem == "3 people have the same mistake in `padding_mask`."
    assert slow.view(START).problem == "The code of 3 people takes too long."
    assert waiting.view(START).problem == ""
    problem = "20 people at `split_heads` have made no progress for 10 minutes."
    assert waiting.view(START + 11 * MINUTE).problem == problem


def test_only_progress_ends_a_wait_and_wrong_versions_count_as_tries(day: Day) -> None:
    room = Room(day)
    update(room, START, "ada", marks(day, "failed", "not_attempted", code="a = 1"))
    update(room, START + 15 * MINUTE, "ada", marks(day, "failed", "not_attempted", code="a = 2"))
    update(room, START + 16 * MINUTE, "ada", marks(day, "failed", "not_attempted", code="a=2  # c"))
    (row,) = room.view(START + 20 * MINUTE).rows
    assert (row.minutes, row.person.tries["padding_mask"]) == (20, 2)
    update(room, START + 21 * MINUTE, "ada", marks(day, "passed", "not_attempted"))
    (row,) = room.view(START + 21 * MINUTE).rows
    assert (row.minutes, row.exercise) == (0, "split_heads")


def test_a_corrected_mistake_is_no_longer_current(day: Day) -> None:
    room = Room(day)
    update(room, START, "ada", marks(day, "failed", "passed", mistake="fixed_id; no_axis"))
    update(room, START + 60, "ada", marks(day, "failed", "passed", mistake="no_axis"))
    assert [(m.name, m.since) for m in room.view(START + 90).mistakes] == [("no_axis", START)]


def test_students_who_wait_or_try_longest_come_first(day: Day) -> None:
    room = Room(day)
    update(room, START, "done", marks(day, "passed", "passed"))
    update(room, START, "slow", marks(day, "failed", "not_attempted"))
    for n in range(9):
        found = marks(day, "failed", "not_attempted", code=f"x = {n}")
        update(room, START + 4 * MINUTE, "tries", found)
    rows = room.view(START + 14 * MINUTE).rows
    assert [row.student for row in rows] == ["tries", "slow", "done"]


def test_exercises_that_the_time_did_not_suffice_for_keep_their_state(day: Day) -> None:
    room = Room(day)
    update(room, START, "ada", marks(day, "failed", "passed"))
    over = "Sentence. not run: the whole submission took more than 20 s of CPU time"
    update(room, START + 60, "ada", marks(day, "timed_out", "timed_out", message=over))
    assert [room.people["ada"].state(name) for name in day.names] == ["too_long", "passes"]


def test_a_clock_that_jumps_back_does_not_reorder_events(day: Day) -> None:
    room = Room(day)
    update(room, START, "ada", marks(day, "failed", "not_attempted"))
    update(room, START - 7200, "ada", marks(day, "passed", "not_attempted"))
    assert room.people["ada"].progressed == START


# ---- watching


def test_a_file_is_read_once_it_has_not_changed_for_a_second(day: Day, tmp_path: Path) -> None:
    file = tmp_path / "ada.ipynb"
    watcher = Watcher([str(tmp_path / "*.ipynb")], day, reader())
    assert watcher.poll(0.0) == []
    file.write_bytes(b"half")
    assert watcher.poll(1.0) == []
    file.write_bytes(b"complete")
    assert watcher.poll(2.0) == []
    (found,) = watcher.poll(3.0)
    assert found.key == ADA
    watcher.take(found)
    assert watcher.poll(9.0) == []
    assert not watcher.is_settling


def test_a_file_that_is_saved_every_second_is_read_every_ten_seconds(
    day: Day, tmp_path: Path
) -> None:
    file = tmp_path / "ada.ipynb"
    watcher = Watcher([str(file)], day, reader())
    ready = []
    for second in range(25):
        file.write_bytes(b"x" * second)
        for found in watcher.poll(float(second)):
            watcher.take(found)
            ready.append(second)
    assert ready == [10, 21]


def test_the_newest_file_of_a_student_counts_and_other_days_do_not(
    day: Day, tmp_path: Path, at_once: None
) -> None:
    inbound = tmp_path / "inbound"
    names = {
        "ada+day1+2026-12-01 10:00:00 UTC+aa": 100,
        "ada+day1+2026-12-01 11:00:00 UTC+bb": 200,
        "ada+day2+2026-12-01 12:00:00 UTC+cc": 300,
    }
    for name, when in names.items():
        (inbound / name).mkdir(parents=True)
        file = inbound / name / "day1.ipynb"
        file.write_bytes(b"{}")
        os.utime(file, (when, when))
    (found,) = Watcher([str(inbound)], day, reader()).poll(0.0)
    assert found.key == ADA
    assert "11:00:00" in found.version[0]


def test_links_are_not_followed(day: Day, tmp_path: Path, at_once: None) -> None:
    secret = tmp_path / "secret" / "day1"
    secret.mkdir(parents=True)
    (secret / "day1.ipynb").write_bytes(b"{}")
    homes = tmp_path / "homes"
    (homes / "ada" / "day1").mkdir(parents=True)
    (homes / "ada" / "day1" / "day1.ipynb").symlink_to(secret / "day1.ipynb")
    (homes / "bob").mkdir()
    (homes / "bob" / "day1").symlink_to(secret)
    (homes / "cyd").symlink_to(secret.parent)
    paths = [str(homes / "*" / "day1" / "day1.ipynb")]
    expanded = [str(homes / name / "day1" / "day1.ipynb") for name in ("ada", "bob", "cyd")]
    for given in (paths, expanded):
        watcher = Watcher(given, day, reader())
        assert watcher.poll(0.0) == []
        assert [path for path in watcher.problems if path.endswith("ada/day1/day1.ipynb")]


# ---- the board


def test_saved_notebooks_are_graded_and_the_store_is_not_touched(root: Path, at_once: None) -> None:
    with Timeline(root, "day1") as events:
        room = FakeRoom(root, events)
        room.save("ada", book(20))
        assert room.grade() == {ADA: ["working", "not_begun"]}
        room.save("ada", book(60))
        room.save("bob", b"{")
        assert room.grade() == {ADA: ["passes", "not_begun"]}
        room.save("ada", b'{"cells": [')  # half a notebook
        assert room.grade() == {ADA: ["passes", "not_begun"]}
        assert {s.label for s in room.board.students.values() if s.problem} == {"ada", "bob"}
    assert not (root / ".autograder" / "marks.sqlite").exists()


def test_only_changed_code_is_graded_again(root: Path, at_once: None) -> None:
    with Timeline(root, "day1") as events:
        room = FakeRoom(root, events)
        assert room.grade() == {}
        for extra in (
            "for x in y:\n    a\n    b",
            "for x in y:\n    a\nb",
            "for x in y:\n    a\nb",
        ):
            room.save("ada", book(20, extra))
            room.grade()
    assert room.pool.count == 2
    assert room.warnings == ["no notebook was found yet. The board waits until one is saved"]


class WaitingPool:
    """A pool whose results arrive when `futures` are set."""

    jobs = 2

    def __init__(self) -> None:
        self.futures: list[Future[SubmissionMarks]] = []
        self.students: list[str] = []

    def submit(self, submission: Any, *_: Any, **__: Any) -> Future[SubmissionMarks]:
        self.futures.append(Future())
        self.students.append(submission.student)
        return self.futures[-1]


def test_a_hanging_student_has_one_running_file_and_delays_nobody(
    root: Path, at_once: None
) -> None:
    pool: Any = WaitingPool()
    with Timeline(root, "day1") as events:
        room = FakeRoom(root, events, pool)

        async def play() -> None:
            for n in range(3):
                room.save("hangs", book(n))
                room.save("ada", book(30 + n))
                await room.board.step()
                place = [n for n, s in enumerate(pool.students) if s == "ada"][-1]
                pool.futures[place].set_result(room.pool.submit(*_submitted(room, n)).result())
                await asyncio.sleep(0.01)

        def _submitted(room: FakeRoom, n: int) -> tuple[Any, str]:
            file = room.homes / "ada" / "day1" / "day1.ipynb"
            (found,) = [f for f in room.watcher._find() if f.version[0] == str(file)]
            return room.board._read(found), "0"

        asyncio.run(play())
    assert pool.students.count("hangs") == 1
    assert pool.students.count("ada") == 3


def test_a_failed_grading_keeps_the_state_and_is_reported(root: Path, at_once: None) -> None:
    pool: Any = WaitingPool()
    with Timeline(root, "day1") as events:
        room = FakeRoom(root, events, pool)

        async def play() -> None:
            room.save("ada", book(20))
            await room.board.step()
            pool.futures[0].set_exception(RuntimeError("broken"))
            await room.board.finish()

        asyncio.run(play())
    assert "grading the file of ada" in room.board.students[ADA].problem
    assert room.board.room.people == {}


def test_unreadable_paths_are_named_once(root: Path, at_once: None) -> None:
    with Timeline(root, "day1") as events:
        room = FakeRoom(root, events)
        for n in range(5):
            file = room.save(f"s{n}", b"")
            file.unlink()
            file.symlink_to("/etc/passwd")
        room.grade()
        room.grade()
    (warning,) = room.warnings
    assert warning.startswith("5 paths cannot be read")
    assert warning.count("links are not followed") == 3
    assert warning.endswith("and 2 more")


# ---- the timeline


def test_a_killed_board_continues_its_timeline(root: Path, at_once: None) -> None:
    with Timeline(root, "day1") as events:
        room = FakeRoom(root, events)
        room.save("ada", book(20))
        room.grade()
        before = room.board.room.view(START).rows
    file = timeline.timeline_file(root, "day1")
    file.write_bytes(file.read_bytes() + b'{"time": 18, "stud')  # killed while writing
    with Timeline(root, "day1") as events:
        room = FakeRoom(root, events)
        assert room.board.room.view(START).rows == before
        room.save("ada", book(60))
        room.grade()
    with Timeline(root, "day1") as events:
        assert [e.changes["padding_mask"].state for e in events.earlier] == ["working", "passes"]


def test_a_clock_that_was_set_back_during_a_restart_goes_on(root: Path) -> None:
    with Timeline(root, "day1") as events:
        events.append(Event(time.time() + 500, ADA, {}))
    with Timeline(root, "day1") as events:
        assert FakeRoom(root, events).board.now() >= time.time() + 499


def test_events_that_a_full_disk_refused_are_written_later(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = Event(time.time(), ADA, {"padding_mask": Progress("working")})

    class FullDisk:
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with Timeline(root, "day1") as events:
        disk, full = events._file, FullDisk()
        monkeypatch.setattr(events, "_file", full)
        with pytest.raises(FileError, match="No space left"):
            events.append(event)
        monkeypatch.setattr(events, "_file", disk)
        events.append(event)
    assert [*timeline.read(timeline.timeline_file(root, "day1"))] == [event, event]


def test_a_second_board_of_a_day_is_refused(root: Path) -> None:
    with Timeline(root, "day1"), pytest.raises(FileError, match="already running"):
        Timeline(root, "day1")


def test_a_new_session_begins_after_a_night_and_forget_deletes_from_both(root: Path) -> None:
    for age in (100_000.0, 0.0):
        with Timeline(root, "day1") as events:
            assert events.earlier == []
            events.append(Event(time.time() - age, ADA, {}))
    folder = root / ".autograder" / "live"
    assert len([*folder.iterdir()]) == 2
    timeline.forget(root, "day1", ADA)
    assert [event for file in folder.iterdir() for event in timeline.read(file)] == []


def test_the_session_page_shows_times_mistakes_and_where_people_stopped(
    root: Path, day: Day, tmp_path: Path
) -> None:
    assert session_report.write(day, sentences.read(day), tmp_path / "report") is None
    wrong = {"padding_mask": Progress("working", 0, ("<b>fixed</b>",), "1")}
    right = {"padding_mask": Progress("passes", 60)}
    now = time.time()
    with Timeline(root, "day1") as events:
        for at, student, changes in (
            (0, "ada", wrong), (60, "bob", wrong), (300, "ada", right), (720, "bob", right),
        ):  # fmt: skip
            events.append(Event(now + at, student, changes))
        found = session_report.summarize(day, timeline.read(timeline.timeline_file(root, "day1")))
    assert found.exercises[0] == ("padding_mask", 0, 8.0, 2, 2)
    assert [(m.most, len(m.people), round(m.last - m.first)) for m in found.mistakes] == [
        (2, 2, 720)
    ]
    assert found.stopped == [("split_heads", 2)]
    file = session_report.write(day, sentences.read(day), tmp_path / "report")
    assert file
    page = file.read_text()
    assert "never for marks" in page
    assert "<b>fixed" not in page


def test_watch_writes_changed_pages_up_to_a_limit(root: Path, day: Day, tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    pages = Delivery(day, sentences.read(day), out, 2)
    written, problems = [], []
    with session(root) as opened:
        for points in (10, 10, 20, 30):
            (inbox / "ada.ipynb").write_bytes(book(points))
            count, found = pages.deliver(opened, inbox)
            written.append(count)
            problems += found
    assert written == [1, 0, 1, 0]
    assert problems == ["ada already got 2 pages today"]
    assert ">20 of" in (out / "ada.html").read_text().replace("\n", "")


@pytest.mark.slow
def test_watch_stores_marks_and_continues_after_it_was_stopped(root: Path, tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    command = [small_course.COMMAND, "watch", "day1", str(inbox), "--feedback", str(out)]
    for student, line in (("ada", "1 new file, 1 new page"), ("bob", "2 new files, 1 new page")):
        (inbox / f"{student}.py").write_text(small_course.RIGHT)
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline().strip() == line
            process.terminate()
            assert "stopped" in process.communicate(timeout=60)[0]
        assert process.returncode == 0
    assert {file.name for file in out.iterdir()} == {"ada.html", "bob.html"}
    listed = small_course.command(root, "list", "day1").stdout
    assert "ada" in listed
    assert "bob" in listed


def wait_for_page(port: int, text: str) -> None:
    """Read a board's events until the room's page contains a text."""
    with urlopen(f"http://127.0.0.1:{port}/events", timeout=60) as events:
        for _ in events:
            if text in urlopen(f"http://127.0.0.1:{port}/part").read().decode():
                return
    pytest.fail(f"the room's page never contained {text}")


@pytest.mark.slow
def test_live_continues_after_a_kill_ends_cleanly_and_refuses_a_second_board(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "ada.py").write_text(small_course.RIGHT)
    command = [small_course.COMMAND, "live", "day1", str(tmp_path / "*.py"), "--port", "8931"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        assert "http://127.0.0.1:8931/" in first.stdout.readline()
        wait_for_page(8931, "1 person, 1 finished")
        second = small_course.command(root, *command[1:])
        assert (second.returncode, second.stdout) == (2, "")
        assert "already running" in second.stderr
        for grader in psutil.Process(first.pid).children(recursive=True):
            grader.kill()
        (tmp_path / "bob.py").write_text(small_course.RIGHT)
        wait_for_page(8931, "2 people, 2 finished")
        first.kill()
    (tmp_path / "ada.py").unlink()
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as third:
        assert third.stdout
        third.stdout.readline()
        wait_for_page(8931, "2 people, 2 finished")
        third.terminate()
        assert "stopped" in third.communicate(timeout=60)[0]
    assert third.returncode == 0


@pytest.mark.slow
def test_the_states_of_a_simulated_room_are_those_of_grade(
    root: Path, day: Day, tmp_path: Path
) -> None:
    wrong = {
        "padding_mask": ["def padding_mask(tokens, pad_id):\n    return tokens != 0"],
        "split_heads": ["def split_heads(x, n_heads):\n    return x"],
    }
    homes, command = tmp_path / "homes", [small_course.COMMAND]
    result = simulate(day, homes, command, wrong, 3, seconds=10, pauses=(1, 3), patience=240)
    assert result.board == result.graded
    assert len(result.board) == 3
    assert math.inf not in result.delays
