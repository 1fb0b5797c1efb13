"""Test that each command ends with what could change a mark, and that all other notes are in a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autograder.console import MAX_DECISIONS
from tests.fake_grading import grade, use_fake_pool
from tests.small_course import make
from tests.test_store import canvas, run

LATE = "\n[late]\npercent_per_day = 10\n[day1.late]\ndue = 2026-12-01T23:59:00+01:00\n"
ROSTER = "id,student,name,canvas\n1,ada,Ada Shaw,11\n2,eve,Eve Xu,99\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "course", LATE)


def late_class(root: Path, count: int) -> Path:
    """Write a download in which Canvas marked every submission late."""
    return canvas(
        root / "a.zip", *((f"s{n}_LATE", 11 + n, 50001 + n, 10 + n) for n in range(count))
    )


def test_decisions_come_last_and_other_notes_are_in_a_file(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_pool(monkeypatch)
    (root / "roster.csv").write_text(ROSTER)
    late_class(root, 1)
    code, _, err = run(root, monkeypatch, capsys, "grade", "day1", "a.zip")
    file = root / ".autograder/notes-grade-day1.txt"
    assert code == 0
    more, decide, decision = err.splitlines()
    assert (
        more
        == f"autograder: note: --all-notes also prints 1 other note, which {os.path.relpath(file)} contains"
    )
    assert decide == "Decide:"
    assert decision.startswith(
        "  ada: marked late, but the time is unknown; counted as one day late"
    )
    assert "these students on the roster have no submission (1): eve" in file.read_text()
    assert decision.strip() in file.read_text().splitlines()
    _, _, err = run(root, monkeypatch, capsys, "grade", "day1", "a.zip")
    assert "prints 1 earlier decision, 1 other note, which" in err
    assert "Decide:" not in err
    _, _, err = run(root, monkeypatch, capsys, "grade", "day1", "a.zip", "--all-notes")
    assert err.splitlines()[1:] == [decide, decision]
    assert err.startswith(
        "autograder: note: these students on the roster have no submission (1): eve"
    )
    # Each command has its own notes.
    export = ("export", "day1", "--to", "csv", "--out", "x.csv")
    assert decision in run(root, monkeypatch, capsys, *export)[2]


def test_a_student_with_an_uncertain_id_is_named_with_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_pool(monkeypatch)
    canvas(root / "a.zip", ("smith_jo_4821", 993812, 1234567, 10), ("bo", 12, 50002, 20))
    code, out, err = run(root, monkeypatch, capsys, "grade", "day1", "a.zip")
    assert code == 0
    assert "\nsmith_jo (4821?)" in out
    assert "Decide:\n  smith_jo (4821?): the file's name does not show who submitted it" in err


def test_a_decision_that_was_not_printed_comes_first_in_the_next_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grade(root, late_class(root, MAX_DECISIONS + 2))
    export = ("export", "day1", "--to", "csv", "--out", "x.csv")
    _, _, err = run(root, monkeypatch, capsys, *export)
    assert len(err.partition("Decide:\n")[2].splitlines()) == MAX_DECISIONS
    assert "prints 2 new decisions, which" in err
    _, _, again = run(root, monkeypatch, capsys, *export)
    lines = again.partition("Decide:\n")[2].splitlines()
    assert len(lines) == 2
    assert not {*lines} & {*err.splitlines()}
    assert f"prints {MAX_DECISIONS} earlier decisions, which" in again


def test_notes_that_name_a_student_are_deleted_with_the_marks(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grade(root, late_class(root, 2))
    run(root, monkeypatch, capsys, "export", "day1", "--to", "csv", "--out", "x.csv")
    assert [*(root / ".autograder").glob("notes-*")]
    assert run(root, monkeypatch, capsys, "forget", "day1", "11")[0] == 0
    assert not [*(root / ".autograder").glob("notes-*")]


@pytest.mark.parametrize("command", ["grade", "list"])
def test_a_long_name_does_not_widen_a_table(
    root: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_pool(monkeypatch)
    canvas(root / "a.zip", ("ada", 11, 50001, 10), ("x" * 200, 12, 50002, 20))
    code, out, _ = run(root, monkeypatch, capsys, "grade", "day1", "a.zip")
    if command == "list":
        code, out, _ = run(root, monkeypatch, capsys, "list", "day1")
    (ada,) = [line for line in out.splitlines() if line.startswith("ada (11)")]
    assert code == 0
    assert len(ada.partition("10")[0]) < 90
