"""Test the store: marks are written to disk immediately, unchanged submissions are not regraded, and no marks are lost."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import msgspec
import pytest

from autograder.course.files import FileError
from autograder.course.state_folder import VARIABLE, secret
from autograder.marks import engine_version
from autograder.marks import model as m
from autograder.marks.engine_version import engine_files
from autograder.marks.history import Basis, History, basis_of
from autograder.marks.model import ExerciseMarks, SubmissionMarks
from autograder.submissions.submission import read_submissions
from tests.attacks.as_user import as_nobody
from tests.conftest import ROOT, Run, reader
from tests.grading_runs import (
    STUDENTS,
    check_all_stored,
    kill_run,
    start_run,
    until_stored,
    untimed,
)
from tests.small_course import RIGHT, WRONG, command, hand_in, make

BASIS = Basis("day1", "code", "course", "autograder", "seed", "isolation")


def some_marks(
    points: float = 1.0, path: str = "in/ada.py", student: str = "ada"
) -> SubmissionMarks:
    test = m.TestMarks("test_shape", points, 2.0, points == 2.0, "a message")
    exercise = ExerciseMarks(
        "padding_mask", points, 2.0, "partial", test.message, None, [], 0.5, [test]
    )
    return SubmissionMarks(
        path, student, "sha", "seed", "course", ["isolation"], points, 2.0, 0.5, [], [exercise]
    )


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path) as opened:
        yield opened


def rows(history: History) -> int:
    count: int
    (count,) = sqlite3.connect(history.file).execute("SELECT count(*) FROM grading").fetchone()
    return count


# ---- storing and finding marks


def test_the_last_marks_of_a_student_and_path_are_current_and_all_are_kept(
    history: History,
) -> None:
    folder = Path("in")
    bob = some_marks(path="in/bob.py", student="bob")
    history.add(BASIS, some_marks(1.0), folder)
    history.add(BASIS, bob, folder)
    history.add(replace(BASIS, code="changed"), some_marks(2.0), folder)
    assert history.current("day1") == [some_marks(2.0), bob]
    assert history.current("day2") == []
    assert [entry.found_under for entry in history.current_with_paths("day1")] == [
        Path("in").absolute()
    ] * 2
    assert rows(history) == 3


def test_marks_can_be_stored_without_becoming_current(history: History, tmp_path: Path) -> None:
    (tmp_path / "ada.py").write_text(RIGHT)
    (handed_in,) = read_submissions([tmp_path / "ada.py"], "day1", reader())
    history.add(BASIS, some_marks(1.0), Path("in"))
    later = replace(BASIS, course="later")
    history.add(later, some_marks(2.0), Path("in"), is_current=False)
    assert history.current("day1") == [some_marks(1.0)]
    known = history.find(later, handed_in)
    assert known is not None
    assert (known.points, known.path, known.sha256) == (2.0, handed_in.path, handed_in.sha256)
    assert history.find(replace(BASIS, seed="another"), handed_in) is None


def test_equal_marks_are_stored_once(history: History) -> None:
    for _ in range(3):
        history.add(BASIS, some_marks(), Path("in"))
    assert rows(history) == 1


def test_the_basis_depends_on_code_cells_and_their_positions(tmp_path: Path) -> None:
    def of(source: str, name: str = "ada.py") -> Basis:
        (tmp_path / name).write_text(source)
        (handed_in,) = read_submissions([tmp_path / name], "day1", reader())
        return basis_of("day1", handed_in, "course", "seed", ["limits"])

    def notebook(*cells: tuple[str, str], **more: Any) -> str:
        made = [{"cell_type": kind, "source": text, "metadata": more} for kind, text in cells]
        return json.dumps({"cells": made, "nbformat": 4, "nbformat_minor": 5})

    code, text = ("code", "x = 1"), ("markdown", "words")
    assert of(RIGHT) == of(RIGHT, "bob.py") != of(WRONG)
    saved = of(notebook(text, code), "ada.ipynb")
    assert saved == of(notebook(("markdown", "other words"), code, trusted=True), "ada.ipynb")
    # Messages contain cell numbers, so stored marks are outdated once a cell has been added.
    assert saved != of(notebook(text, text, code), "ada.ipynb")
    # Marks also contain a problem for an exercise in a text cell.
    answers = [("markdown", f"Words.\ndef {name}(x): ...") for name in ("f", "g")]
    bases = {of(notebook(each, code), "ada.ipynb") for each in (text, *answers)}
    assert len(bases) == 3


GRADING = """
import sys
import autograder.grading.grader
print(*sys.modules)
from pathlib import Path
from autograder.course import config
from autograder.execution.collect import collect
collect(config.load(Path()).day("day1"))
print(*sys.modules)
"""


@pytest.mark.slow
def test_the_engine_version_covers_every_module_that_grading_loads() -> None:
    """Grading must not import jupytext, which takes longer to import than torch."""
    command = [sys.executable, "-c", GRADING]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported, loaded = done.stdout.splitlines()
    assert "jupytext" not in imported
    files = [file.relative_to(ROOT).with_suffix("") for file in engine_files()]
    named = {".".join(file.parts).removesuffix(".__init__") for file in files}
    own = {name for name in loaded.split() if name.startswith("autograder.")}
    assert own <= named
    assert "autograder.execution.checks" in own
    assert not named & {"autograder.cli", "autograder.release.build", "autograder.marks.history"}


def test_imports_are_found_as_by_pythons_parser() -> None:
    for file in (ROOT / "autograder").rglob("*.py"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autograder"):
                names |= {f"{node.module}", *(f"{node.module}.{one.name}" for one in node.names)}
            elif isinstance(node, ast.Import):
                names |= {one.name for one in node.names if one.name.startswith("autograder")}
        assert set(engine_version.imports(file)) == names, file


def test_the_secret_is_created_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    made = secret(tmp_path)
    assert len(made) == 64
    assert secret(tmp_path) == made
    assert (tmp_path / ".autograder" / "secret").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / ".autograder") == ["secret"]


def test_a_secret_that_is_empty_or_unreadable_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    secret(tmp_path)
    file = tmp_path / ".autograder" / "secret"
    file.write_text("\n")
    with pytest.raises(FileError, match="secret is empty"):
        secret(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(FileError, match="secret cannot be read: Is a directory"):
        secret(tmp_path)


# ---- disk errors


@contextlib.contextmanager
def full_disk(file: Path) -> Iterator[None]:
    """Simulate a full disk: limit file sizes to a few kilobytes more than the current size of `file`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 8192, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_marks_current(history: History) -> None:
    history.add(BASIS, some_marks(1.0), Path("in"))
    large = msgspec.structs.replace(some_marks(2.0), problems=["x" * 100_000])
    with full_disk(history.file), pytest.raises(FileError, match=r"marks\.db cannot be written"):
        history.add(BASIS, large, Path("in"))
    assert history.current("day1") == [some_marks(1.0)]
    history.add(BASIS, large, Path("in"))
    assert history.current("day1") == [large]


def test_a_read_only_store_can_be_read(tmp_path: Path) -> None:
    for parent in takewhile(lambda folder: folder != Path(gettempdir()), tmp_path.parents):
        parent.chmod(0o755)
    with History(tmp_path) as history:
        history.add(BASIS, some_marks(), Path("in"))
    for place in (history.file, history.file.parent, tmp_path):
        place.chmod(0o555)
    try:
        with as_nobody(), History(tmp_path) as history:
            assert history.current("day1") == [some_marks()]
            with pytest.raises(FileError, match="cannot be written: "):
                history.add(BASIS, some_marks(2.0), Path("in"))
            with pytest.raises(FileError, match="Permission denied"), history.lock("day1"):
                pytest.fail("a read-only store was locked")
    finally:
        for place in (tmp_path, history.file.parent, history.file):
            place.chmod(0o755)


def overwrite(file: Path, at: int) -> None:
    with open(file, "r+b") as damaged:
        damaged.seek(at)
        damaged.write(b"\xff" * 3000)


def test_a_damaged_store_is_reported_before_grading(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        for number in range(20):
            history.add(BASIS, some_marks(path=f"in/{number}"), Path("in"))
    overwrite(history.file, 4096)  # the second page of the database contains marks
    with (
        History(tmp_path) as history,
        pytest.raises(FileError, match=r"is damaged: .* Move the file elsewhere"),
        history.lock("day1"),
    ):
        pytest.fail("the damaged store was not detected")
    overwrite(history.file, 0)
    with pytest.raises(FileError, match="is damaged: file is not a database"):
        History(tmp_path)


def test_a_store_from_a_newer_version_is_rejected(history: History) -> None:
    sqlite3.connect(history.file).execute("PRAGMA user_version = 99")
    with pytest.raises(FileError, match="newer version"):
        History(history.file.parents[1])


@pytest.mark.slow
def test_a_second_run_of_a_day_is_refused_and_names_the_first(tmp_path: Path) -> None:
    make(tmp_path)
    hand_in(tmp_path / "in", 1)
    with History(tmp_path) as history, history.lock("day1"):
        done = command(tmp_path, "grade", "day1", "in", "--jobs", "1")
        with history.lock("day2"):
            pass
        with pytest.raises(FileError, match="is already being graded"), history.lock("day1"):
            pytest.fail("the same day was locked twice")
    assert (done.returncode, done.stdout) == (2, "")
    assert "day1 is already being graded. The other run was started by " in done.stderr
    assert f"(process {os.getpid()})" in done.stderr
    assert done.stderr.count("\n") == 1
    with History(tmp_path) as history, history.lock("day1"):
        pass


# ---- whole runs


@pytest.mark.slow
def test_stored_marks_equal_those_of_a_fresh_run(tmp_path: Path, run: Run) -> None:
    make(tmp_path)
    hand_in(tmp_path / "in", 4)
    first, again, fresh = (tmp_path / name for name in ("first.json", "again.json", "fresh.json"))
    grade = ("grade", "day1", "in", "--json")
    done = run(tmp_path, *grade, str(first))
    assert (done.returncode, done.stderr) == (0, "")
    assert "have not changed" not in done.stdout
    done = run(tmp_path, *grade, str(again))
    assert "4 of 4 submissions have not changed" in done.stdout
    assert again.read_bytes() == first.read_bytes()

    # zoe.py now has the same code as student00.py, and student04.py is new.
    (tmp_path / "in" / "student00.py").rename(tmp_path / "in" / "zoe.py")
    hand_in(tmp_path / "in", 5)
    done = run(tmp_path, *grade, str(again))
    assert "5 of 6 submissions have not changed" in done.stdout
    # This run grades in two processes, whereas the earlier runs graded in this process.
    command(tmp_path, *grade, str(fresh), "--force", "--jobs", "2")
    assert untimed(again) == untimed(fresh)
    students = [one["student"] for one in untimed(again)["submissions"]]
    assert students == [*(f"student{n:02}" for n in range(5)), "zoe"]


@pytest.mark.slow
def test_on_a_full_disk_everything_is_graded_and_reported(tmp_path: Path, run: Run) -> None:
    make(tmp_path)
    hand_in(tmp_path / "in", STUDENTS)
    marks = tmp_path / "marks.json"
    with History(tmp_path) as history, full_disk(history.file):
        done = run(tmp_path, "grade", "day1", "in", "--json", str(marks))
    assert done.returncode == 1
    refused, counted = done.stderr.splitlines()
    assert "marks.db cannot be written" in refused
    assert "submissions could not be stored" in counted
    assert [one["points"] for one in untimed(marks)["submissions"]] == [100, 60, 100] * 4
    with History(tmp_path) as history:
        stored = len(history.current("day1"))
        assert 0 < stored < STUDENTS
    done = run(tmp_path, "grade", "day1", "in")
    assert done.returncode == 0
    assert f"{stored} of {STUDENTS} submissions have not changed" in done.stdout


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path: Path, run: Run) -> None:
    make(tmp_path)
    hand_in(tmp_path / "in", STUDENTS)
    grade = ("grade", "day1", "in", "--json")
    assert run(tmp_path, *grade, "alone.json", "--no-store").returncode == 0
    uninterrupted = untimed(tmp_path / "alone.json")["submissions"]
    stored = [kill_run(tmp_path, until_stored(tmp_path, count)) for count in (0, 3)]
    assert stored[0] <= stored[1] >= 3
    done = run(tmp_path, *grade, "on.json")
    assert done.returncode == 0
    assert f"{stored[1]} of {STUDENTS} submissions have not changed" in done.stdout
    check_all_stored(tmp_path, tmp_path / "on.json", uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_terminated_run_leaves_only_its_marks(jobs: str, tmp_path: Path) -> None:
    make(tmp_path)
    hand_in(tmp_path / "in", STUDENTS)
    # A socket's path has a maximum length, and tmp_path is long.
    with TemporaryDirectory() as temporary:
        run = start_run(tmp_path, jobs, TMPDIR=temporary)
        until_stored(tmp_path, 1)(run)
        run.terminate()
        _, errors = run.communicate(timeout=60)
        assert os.listdir(temporary) == []
    assert run.returncode == 130
    assert errors.decode().startswith("autograder: error: stopped. All marks so far are stored")
    assert errors.count(b"\n") == 1
