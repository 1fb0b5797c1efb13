"""Test end to end, from a download to the exported files, that all students get their own marks.

The files are read in the sandbox and the marks are kept in the store, but the points come from `tests/fake_grading.py`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.course import config as courses
from autograder.export import Format
from autograder.marks.history import History
from autograder.marks.model import SubmissionMarks
from autograder.submissions.submission import Submission
from tests import downloads
from tests.conftest import reader
from tests.downloads import KINDS, NAMES, HandIn, hand_in, whole_class
from tests.fake_grading import FakePool, export, grade, session
from tests.small_course import make
from tests.test_store import run

Points = dict[str, float | None]
LATE = """
[late]
percent_per_day = 10
max_percent = 50
[day1.late]
due = 2026-12-01T23:00:00Z
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "course")


def written(file: Path, data: bytes | str) -> Path:
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def exported(root: Path, to: Format, into: Path | None = None) -> Path:
    day = courses.load(root).day("day1")
    with History(root) as history:
        class_ = history.current("day1")
    out = root / f"out-{to}"
    export(day, to, class_, out, into=into)
    return out


# ---- independent readers of the exported files


def read_rows(file: Path, key: str, value: str) -> Points:
    """Return a dict that maps the `key` column of a CSV file to the `value` column. The keys must be unique."""
    with file.open(newline="", encoding="utf-8") as opened:
        rows = [row for row in csv.DictReader(opened) if row[key].strip()]
    found: Points = {row[key]: float(row[value]) if row[value] else None for row in rows}
    assert len(found) == len(rows)
    return found


def read_results(folder: Path) -> dict[str, float]:
    """Return a dict that maps each Gradescope results file's name to its score."""
    return {file.stem: json.loads(file.read_text())["score"] for file in folder.iterdir()}


# ---- the expected points


def after_lateness(one: HandIn, extension: float = 0.0) -> float | None:
    """Return the points after a deduction of 10% per day late (rounded up), at most 50%. `extension` is in hours."""
    if one.points is None:
        return None
    days = max(0, -int((extension - one.hours) // 24))
    return round(one.points * (1 - min(0.1 * days, 0.5)), 6)


def expect(found: Points, class_: Sequence[tuple[str, float | None]]) -> None:
    """Check that exactly these students have exactly these points, and that no points are lost or counted twice."""
    wanted = dict(class_)
    assert len(wanted) == len(class_)
    assert found.keys() == wanted.keys()
    wrong = {
        key: (found[key], points)
        for key, points in wanted.items()
        if (points is None) != (found[key] is None)
        or abs((found[key] or 0.0) - (points or 0.0)) > 0.0051
    }
    assert not wrong


# ---- the four platforms


def test_a_canvas_class(root: Path) -> None:
    class_ = whole_class()
    grade(root, written(root / "submissions.zip", downloads.canvas(class_)))
    wanted = [(str(one.user), one.points) for one in class_]
    expect(read_rows(exported(root, "csv"), "id", "points"), wanted)
    book = written(root / "gradebook.csv", downloads.gradebook(class_))
    expect(read_rows(exported(root, "canvas", book), "ID", "day1 (77)"), wanted)


def test_an_anonymous_canvas_class(root: Path) -> None:
    class_ = whole_class()
    grade(root, written(root / "submissions.zip", downloads.canvas(class_, is_anonymous=True)))
    wanted = [(f"anon_{one.number:05}", one.points) for one in class_]
    expect(read_rows(exported(root, "csv"), "id", "points"), wanted)


@pytest.mark.parametrize(
    ("is_blind", "in_folders", "end"),
    [
        (False, True, ""),
        (False, True, "_"),
        (True, True, ""),
        (False, False, ""),
        (True, False, ""),
    ],
)
def test_a_moodle_class(root: Path, is_blind: bool, in_folders: bool, end: str) -> None:
    class_ = whole_class()
    data = downloads.moodle(class_, is_blind, in_folders, end)
    grade(root, written(root / "moodle.zip", data))
    sheet = written(root / "sheet.csv", downloads.worksheet(class_, is_blind))
    found = read_rows(exported(root, "moodle", sheet), "Identifier", "Grade")
    expect(found, [(f"Participant {one.participant}", one.points) for one in class_])
    table = read_rows(exported(root, "csv"), "student", "points")
    assert len(table) == len(class_)
    for one in class_:
        (key,) = (key for key in table if str(one.participant) in key)
        assert table[key] == one.points


def test_a_gradescope_class_with_pairs_and_late_submissions(root: Path) -> None:
    with (root / "grading.toml").open("a") as toml:
        toml.write(LATE)
    alone = whole_class()
    pairs = [
        replace(hand_in(50 + n, "Sam Lee", "notebook", 30 + n), partners=((60 + n, "Kim Lee"),))
        for n in range(4)
    ]
    class_ = [*alone, *pairs]
    grade(root, written(root / "export.zip", downloads.gradescope(class_)))
    wanted = [(str(one.user), after_lateness(one)) for one in class_]
    wanted += [(str(downloads.FIRST_USER + 60 + n), 30.0 + n) for n in range(4)]
    expect(read_rows(exported(root, "csv"), "id", "points"), wanted)
    scores = read_results(exported(root, "gradescope"))
    with_grade = [(key, points) for key, points in wanted if points is not None]
    assert len(scores) == len(with_grade)
    for key, points in with_grade:
        (score,) = (score for name, score in scores.items() if key in name)
        assert abs(score - points) < 0.0051


def test_an_nbgrader_class(root: Path) -> None:
    with (root / "grading.toml").open("a") as toml:
        toml.write(LATE)
    class_ = whole_class()
    downloads.nbgrader(root, class_)
    grade(root, root / "submitted")
    wanted = [(downloads.student_id(one), after_lateness(one)) for one in class_]
    expect(read_rows(exported(root, "csv"), "student", "points"), wanted)
    expect(read_rows(exported(root, "nbgrader"), "student_id", "score"), wanted)


# ---- random classes


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[HandIn], list[HandIn], int]:
    """Draw a random class, the resubmissions in a second download, and the number of submissions after which a run stops."""
    count = draw(st.integers(1, 7))

    def one(number: int, name: str, attempt: int) -> HandIn:
        kind = draw(st.sampled_from(KINDS))
        hours = draw(st.sampled_from([-40.0, -5.0, 1.0, 30.0, 200.0]))
        points = draw(st.integers(1, 59)) + draw(st.sampled_from([0.0, 0.25, 0.5]))
        return hand_in(number, name, kind, points, hours + 500.0 * attempt, attempt)

    first = [one(number, draw(st.sampled_from(NAMES[:9])), 0) for number in range(count)]
    second = [one(old.number, old.name, 1) for old in first if draw(st.booleans())]
    return first, second, draw(st.integers(0, count))


@pytest.mark.slow
@settings(derandomize=True, max_examples=20, deadline=None, database=None)
@given(histories(), st.sampled_from(["canvas", "gradescope", "nbgrader", "moodle"]))
def test_what_goes_in_comes_out(
    history: tuple[list[HandIn], list[HandIn], int], platform: str
) -> None:
    """Stop a run, resume it, grade a second download, grade the first one again, and regrade. No marks are lost or duplicated."""
    first, second, stop = history
    with tempfile.TemporaryDirectory() as folder:
        root = make(Path(folder) / "course")
        with (root / "grading.toml").open("a") as toml:
            toml.write(LATE)
        paths = [download(root, platform, part, n) for n, part in enumerate((first, second))]
        with contextlib.suppress(KeyboardInterrupt), session(root, limit=stop) as opened:
            opened.grade([paths[0]], None, False)
        grade(root, paths[0])
        check(root, platform, first)
        latest = {one.number: one for one in (*first, *second)}
        if second:
            grade(root, paths[1])
            check(root, platform, list(latest.values()))
        # Moodle's downloads do not reveal the order of submissions, and neither do text entries in
        # Canvas's downloads.
        has_order = platform != "moodle" and not (
            platform == "canvas" and any(one.is_text for one in (*first, *second))
        )
        if has_order:
            grade(root, paths[0])
            check(root, platform, list(latest.values()))
        with session(root) as opened:
            opened.regrade(is_current=True)
        check(root, platform, list(latest.values()))


def download(root: Path, platform: str, class_: Sequence[HandIn], number: int) -> Path:
    """Write a class's submissions in a platform's download format."""
    if platform == "nbgrader":
        downloads.nbgrader(root / str(number), class_)
        return root / str(number) / "submitted"
    makers: dict[str, Callable[[Sequence[HandIn]], bytes]] = {
        "canvas": downloads.canvas,
        "moodle": downloads.moodle,
        "gradescope": downloads.gradescope,
    }
    return written(root / f"{number}.zip", makers[platform](class_))


def check(root: Path, platform: str, class_: Sequence[HandIn]) -> None:
    """Check each student's points in the files exported for a platform."""
    users = [str(one.user) for one in class_]
    if platform == "canvas":
        # Canvas shows only that a submission was late, which counts as one day.
        late = [replace(one, hours=min(one.hours, 1.0)) for one in class_]
        wanted = list(zip(users, map(after_lateness, late), strict=True))
        expect(read_rows(exported(root, "csv"), "id", "points"), wanted)
        book = written(root / "gradebook.csv", downloads.gradebook(class_))
        expect(read_rows(exported(root, "canvas", book), "ID", "day1 (77)"), wanted)
    elif platform == "moodle":
        sheet = written(root / "sheet.csv", downloads.worksheet(class_))
        found = read_rows(exported(root, "moodle", sheet), "Identifier", "Grade")
        assert found.keys() == {f"Participant {one.participant}" for one in class_}
        assert all(
            (found[f"Participant {o.participant}"] is None) == (o.points is None) for o in class_
        )
    elif platform == "gradescope":
        wanted = list(zip(users, map(after_lateness, class_), strict=True))
        expect(read_rows(exported(root, "csv"), "id", "points"), wanted)
    else:
        ids = [downloads.student_id(one) for one in class_]
        wanted = list(zip(ids, map(after_lateness, class_), strict=True))
        expect(read_rows(exported(root, "csv"), "student", "points"), wanted)
        expect(read_rows(exported(root, "nbgrader"), "student_id", "score"), wanted)


def roster(class_: Sequence[HandIn], groups: Sequence[str], hours: Sequence[float]) -> str:
    """Return a CSV roster that contains each student's group and extension."""
    lines = ["id,student,name,group,extension"]
    for one, group, extension in zip(class_, groups, hours, strict=True):
        lines.append(f"{one.user},{downloads.student_id(one)},{one.name},{group},{extension:g}")
    return "\n".join([*lines, ""])


@pytest.mark.slow
@settings(derandomize=True, max_examples=15, deadline=None, database=None)
@given(histories(), st.data())
def test_one_submission_counts_for_each_group_and_extensions_are_personal(
    history: tuple[list[HandIn], list[HandIn], int], data: st.DataObject
) -> None:
    first, second, _ = history
    groups = [data.draw(st.sampled_from(["", "G", "H"])) for _ in first]
    hours = [data.draw(st.sampled_from([0.0, 24.0, 48.0])) for _ in first]
    with tempfile.TemporaryDirectory() as folder:
        root = make(Path(folder) / "course")
        with (root / "grading.toml").open("a") as toml:
            toml.write(LATE)
        written(root / "roster.csv", roster(first, groups, hours))
        for number, part in enumerate((first, second)):
            if part:
                graded = grade(root, download(root, "nbgrader", part, number))
        latest = {one.number: one for one in (*first, *second)}
        wanted = []
        for own, group, extension in zip(first, groups, hours, strict=True):
            members = [n for n, other in enumerate(groups) if group and other == group]
            handed = [latest[n] for n in members] or [latest[own.number]]
            counting = max(
                handed, key=lambda one: (one.hours, -1 if one.points is None else one.points)
            )
            wanted.append((downloads.student_id(own), after_lateness(counting, extension)))
        expect(read_rows(exported(root, "csv"), "student", "points"), wanted)
        expect(read_rows(exported(root, "nbgrader"), "student_id", "score"), wanted)
        if not second:
            expect({row.entry.student: row.points for row in graded.rows}, wanted)


# ---- kill -9


def grade_and_die(root: Path, path: Path, stop: int) -> None:
    """Grade a class in a forked process that is killed with SIGKILL after it has graded `stop` submissions."""

    class KilledPool(FakePool):
        def submit(
            self, submission: Submission, seed: str, is_alone: bool = False
        ) -> Future[SubmissionMarks]:
            if self.count == stop:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().submit(submission, seed, is_alone)

    child = os.fork()
    if child == 0:
        try:
            reader.cache_clear()  # this process must not use its parent's reader sockets
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tests.fake_grading.FakePool", KilledPool)
                grade(root, path)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 30])
def test_a_killed_run_loses_nothing(root: Path, stop: int) -> None:
    class_ = whole_class()
    path = written(root / "submissions.zip", downloads.canvas(class_))
    grade_and_die(root, path, stop)
    with History(root) as history:
        before = {marks.label: marks.points for marks in history.current("day1")}
    assert stop <= len(before) < len(class_)
    grade(root, path)
    wanted = [(str(one.user), one.points) for one in class_]
    expect(read_rows(exported(root, "csv"), "id", "points"), wanted)
    assert before.items() <= {label_of(one): one.points for one in class_}.items()


def label_of(one: HandIn) -> str:
    """Return the label that identifies a student in a Canvas download."""
    (found,) = zipfile.ZipFile(io.BytesIO(downloads.canvas([one]))).namelist()[:1]
    name = re.split(r"_?(?:LATE_)?\d", found)[0]
    return f"{name} ({one.user})"


def test_the_generator_covers_the_cases() -> None:
    class_ = whole_class()
    assert len(class_) >= 40
    assert {one.number % len(KINDS) for one in class_} == set(range(len(KINDS)))
    assert len({one.name for one in class_}) < len(class_)


# ---- students without a submission


@pytest.fixture
def some(root: Path) -> list[HandIn]:
    """Grade the first two of five students. The others' lines in the gradebook and worksheet differ."""
    class_ = [hand_in(n, f"Ada {'abcde'[n]}", "notebook", 10.0 + n) for n in range(5)]
    grade(root, written(root / "canvas.zip", downloads.canvas(class_[:2])))
    rows = downloads.gradebook(class_).splitlines()
    rows[5] = rows[5].removesuffix(",,") + ",77,"  # graded by hand
    written(root / "book.csv", "\n".join([*rows, '"Student, Test",9,t,A,,', ""]))
    rows = downloads.worksheet(class_).splitlines()
    for number, status in (
        (3, "No submission"),
        (4, "No submission"),
        (5, "Submitted for grading"),
    ):
        rows[number] = rows[number].replace("Submitted for grading", status)
    rows[4] = rows[4].replace(",,100.00", ",77.00,100.00")
    written(root / "sheet.csv", "\n".join([*rows, ""]))
    return class_


def run_export(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *more: str
) -> str:
    export = ("export", "day1", "--out", "out.csv", *more)
    code, _, err = run(root, monkeypatch, capsys, *export)
    assert code == 0, err
    return err


def test_a_missing_submission_can_get_zero_points_in_canvas(
    root: Path,
    some: list[HandIn],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    into = ("--to", "canvas", "--into", "book.csv")
    grades: list[float | None] = [10, 11, None, 77, None]
    for more in ((), ("--missing", "zero")):
        err = run_export(root, monkeypatch, capsys, *into, *more)
        found = read_rows(root / "out.csv", "ID", "day1 (77)")
        assert [found[str(one.user)] for one in some] == grades
        assert found["9"] is None
        grades[2] = grades[4] = 0
    assert "get 0 points, because they have no submission (2): c, Ada, e, Ada" in err


def test_a_missing_submission_can_get_zero_points_in_moodle(
    root: Path,
    some: list[HandIn],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Someone who submitted after the download gets no points."""
    grade(root, written(root / "moodle.zip", downloads.moodle(some[:2])))
    into = ("--to", "moodle", "--into", "sheet.csv", "--missing", "zero")
    err = run_export(root, monkeypatch, capsys, *into)
    found = read_rows(root / "out.csv", "Identifier", "Grade")
    grades = [found[f"Participant {one.participant}"] for one in some]
    assert grades == [10, 11, 0, 77, None]
    assert "get 0 points, because they have no submission (1): Ada c (Participant 42003)" in err


def test_students_on_the_roster_can_get_zero_points(
    root: Path,
    some: list[HandIn],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (root / "roster.csv").write_text("id,student,name\n2001,ada,Ada a\n77,dan,Dan\n")
    err = run_export(root, monkeypatch, capsys, "--to", "csv", "--missing", "zero")
    assert read_rows(root / "out.csv", "id", "points") == {"2001": 10, "77": 0, "2002": 11}
    assert "get 0 points, because they have no submission (1): dan (Dan, 77)" in err
    run_export(root, monkeypatch, capsys, "--to", "gradescope", "--missing", "zero", "--out", "gs")
    assert len([*(root / "gs").iterdir()]) == 2
