"""Test that Canvas and Moodle, according to their source code, would assign each feedback page to the right student."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.export.feedback_files import Delivery, deliver
from autograder.feedback import sentences
from autograder.feedback.sentences import Sentences
from autograder.marks.model import SubmissionMarks
from autograder.submissions import origin
from autograder.submissions.origin import Origin, Person
from autograder.submissions.roster import NO_ROSTER, Entry, Roster
from tests.conftest import ROOT
from tests.fake_grading import grade, results_and_notes
from tests.material import exercise, submission, unread
from tests.small_course import make
from tests.test_store import canvas, run


@pytest.fixture(scope="module")
def day() -> Day:
    return courses.load(ROOT).day("day1")


@pytest.fixture(scope="module")
def texts(day: Day) -> Sentences:
    return sentences.read(day)


def canvas_user(name: str, attachments: Mapping[str, str]) -> str | None:
    """Return the user to whom Canvas assigns a feedback file, or None. Mirrors Canvas's `infer_comment_context_from_filename`."""
    parts = [part for part in name.split("_") if part != "LATE"]
    if parts[0] == "anon" or "anon" in parts:
        at = parts.index("anon")
        user, attachment = parts[at + 1 : at + 3]
    else:
        user, attachment = [part for part in parts if re.fullmatch(r"\d+", part)][:2]
    if parts[-1].startswith("link") or name.startswith("._"):
        return None
    return user if attachments.get(attachment) == user else None


def moodle_participant(name: str) -> tuple[str, str] | None:
    """Return the participant and file name that Moodle parses from a path, or None. Mirrors `is_valid_filename_for_import`."""
    if name.startswith((".", "~")):
        return None
    info = name.split("_", 4)
    if len(info) < 5 or not info[1].isdigit() or info[2:4] != ["assignfeedback", "file"]:
        return None
    return info[1], info[4]


def from_canvas(texts: Sentences, file: str, *wrong: str) -> SubmissionMarks:
    handed_in = origin.parse_canvas_name(file)
    assert handed_in is not None
    changed = [exercise(texts, name, {0: "0"}) for name in wrong]
    path = f"/ta/submissions.zip/{file}"
    marks = submission(texts, *changed, student=handed_in.student, path=path)
    return replace(marks, handed_in=handed_in)


def written(
    class_: list[SubmissionMarks], texts: Sentences, to: str, out: Path, roster: Roster = NO_ROSTER
) -> tuple[dict[str, str], Delivery]:
    rows, _ = results_and_notes(class_, texts.day, roster)
    done = deliver(rows, texts, to, out)  # type: ignore[arg-type]
    if not done.pages:
        return {}, done
    with zipfile.ZipFile(out) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}, done


def test_canvas_attaches_each_page_to_its_student(texts: Sentences, tmp_path: Path) -> None:
    files = {
        "lovelaceada_4211_880011_day1.ipynb": ("4211", "880011"),
        "lovelaceada_LATE_4212_880012_Copy of day1 (2)-3.ipynb": ("4212", "880012"),
        "李小龙_4213_880013_2_3_homework.zip": ("4213", "880013"),
        "4214_880014_link.ipynb": ("4214", "880014"),
    }
    class_ = [
        from_canvas(texts, file, name) for file, name in zip(files, texts.day.names, strict=False)
    ]
    class_[2] = replace(class_[2], path=f"{class_[2].path}/inner_77_99999_x/day1.ipynb")
    pages, done = written(class_, texts, "canvas", tmp_path / "f.zip")
    attachments = {attachment: user for user, attachment in files.values()}
    users = {canvas_user(name, attachments): text for name, text in pages.items()}
    assert users.keys() == {"4211", "4212", "4213", "4214"}
    for (user, _), name in zip(files.values(), texts.day.names, strict=False):
        assert f'id="{name}-heading"' in users[user]
    assert (done.pages, done.notes, done.problems) == (4, [], [])


def test_canvas_gets_no_page_for_a_text_entry(texts: Sentences, tmp_path: Path) -> None:
    text = replace(unread("Ada"), path="/ta/submissions.zip/lovelaceada_4211_text.html")
    pages, done = written([text], texts, "canvas", tmp_path / "f.zip")
    assert pages == {}
    assert len(done.notes) == 1
    assert done.notes[0].startswith("Ada: no page")
    assert "this submission is a text entry or a link" in done.notes[0]
    assert not (tmp_path / "f.zip").exists()


def test_without_a_page_an_earlier_zip_is_kept(texts: Sentences, tmp_path: Path) -> None:
    written([from_moodle(texts, "Ada", "42113")], texts, "moodle", tmp_path / "f.zip")
    before = (tmp_path / "f.zip").read_bytes()
    stranger = submission(texts, student="Bob", path="bob.ipynb")
    _, done = written([stranger], texts, "moodle", tmp_path / "f.zip")
    assert done.pages == 0
    assert (tmp_path / "f.zip").read_bytes() == before


def from_moodle(texts: Sentences, name: str, participant: str, *wrong: str) -> SubmissionMarks:
    path = f"/ta/m.zip/{name}_{participant}_assignsubmission_file/day1.ipynb"
    changed = [exercise(texts, one, {0: "0"}) for one in wrong]
    marks = submission(texts, *changed, student=name, path=path)
    return replace(marks, handed_in=Origin((Person(name),), participant=participant))


def test_moodle_gives_each_page_to_its_participant(texts: Sentences, tmp_path: Path) -> None:
    names = ("Ada Lovelace", "Ada Lovelace", "O'Neil, Zoë/x_9", "~.", "Участник")
    class_ = [
        from_moodle(texts, name, str(number), wrong)
        for number, (name, wrong) in enumerate(zip(names, texts.day.names, strict=False), 42113)
    ]
    pages, done = written(class_, texts, "moodle", tmp_path / "f.zip")
    found = {moodle_participant(name): text for name, text in pages.items()}
    file = "day1-feedback.html"
    assert found.keys() == {(str(42113 + n), file) for n in range(len(names))}
    for number, wrong in zip(range(len(names)), texts.day.names, strict=False):
        assert f'id="{wrong}-heading"' in found[str(42113 + number), file]
    assert done.notes == []


def test_a_roster_does_not_change_the_name_of_a_page_in_moodle(
    texts: Sentences, tmp_path: Path
) -> None:
    marks = from_moodle(texts, "Wei Chen", "42003")
    known = Roster((Entry("42003", "wei", "Wei Chen"),))
    names = [
        list(written([marks], texts, "moodle", tmp_path / "f.zip", r)[0])
        for r in (NO_ROSTER, known)
    ]
    assert names[0] == names[1] == ["Wei Chen_42003_assignfeedback_file_day1-feedback.html"]


def test_moodle_finds_the_members_of_a_group_in_the_worksheet(
    texts: Sentences, tmp_path: Path
) -> None:
    group = from_moodle(texts, "Team 3", "7")  # for a group, this is the group's number
    people = (
        Entry("", "ada", "Ada Lovelace", "ada@example.org", "3"),
        Entry("", "bob", "Bob Byron", "bob@example.org", "3"),
    )
    marks = replace(group, student="ada", handed_in=None)
    _, done = written([marks], texts, "moodle", tmp_path / "f.zip", Roster(people))
    assert [note.partition(":")[0] for note in done.notes] == [
        "ada (Ada Lovelace)",
        "bob (Bob Byron)",
    ]
    assert "--worksheet" in done.notes[0]
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(
        "Identifier,Full name,Email address,Grade,Last modified (grade)\n"
        "Participant 11,Ada Lovelace,Ada@example.org,,-\nParticipant 12,Bob Byron,bob@example.org,,-\n"
    )
    rows, _ = results_and_notes([marks], texts.day, Roster(people))
    assert deliver(rows, texts, "moodle", tmp_path / "f.zip", sheet).notes == []
    with zipfile.ZipFile(tmp_path / "f.zip") as archive:
        for name, participant, person in zip(
            sorted(archive.namelist()), ("11", "12"), ("Ada Lovelace", "Bob Byron"), strict=True
        ):
            assert moodle_participant(name) == (participant, "day1-feedback.html")
            assert f"<h1><bdi>{person}</bdi></h1>" in archive.read(name).decode()


def test_members_who_submitted_separately_get_only_their_own_pages(
    texts: Sentences, tmp_path: Path
) -> None:
    people = (
        Entry("", "ada", "Ada Lovelace", "", "3", platform_ids=(("moodle", "11"),)),
        Entry("", "bob", "Bob Byron", "", "3", platform_ids=(("moodle_day1", "12"),)),
        Entry("", "eve", "Eve Xu", "", "3"),
    )
    class_ = [
        from_moodle(texts, "Ada Lovelace", "11", texts.day.names[0]),
        from_moodle(texts, "Bob Byron", "12"),
    ]
    pages, done = written(class_, texts, "moodle", tmp_path / "f.zip", Roster(people))
    assert sorted(pages) == [
        "Ada Lovelace_11_assignfeedback_file_day1-feedback.html",
        "Bob Byron_12_assignfeedback_file_day1-feedback.html",
    ]
    assert [note.partition(":")[0] for note in done.notes] == ["eve (Eve Xu)"]
    class_ = [
        from_canvas(texts, "lovelaceada_11_99001_day1.ipynb", texts.day.names[0]),
        from_canvas(texts, "byronbob_12_99002_day1.ipynb"),
    ]
    people = (
        Entry("11", "ada", "Ada Lovelace", "", "3"),
        Entry("12", "bob", "Bob Byron", "", "3"),
        Entry("13", "eve", "Eve Xu", "", "3"),
    )
    pages, done = written(class_, texts, "canvas", tmp_path / "f.zip", Roster(people))
    assert list(pages) == ["byronbob_12_99002_day1-feedback.html"]
    (note,) = done.notes
    assert note.startswith("ada (Ada Lovelace, 11): the group's page is attached to the submission")


def test_moodle_gets_one_page_per_line_of_the_worksheet(texts: Sentences, tmp_path: Path) -> None:
    numbered = from_moodle(texts, "Róbert Byron", "42114", "softmax")
    other = replace(submission(texts, student="byronrobert", path="byronrobert.ipynb"))
    sheet, out = tmp_path / "sheet.csv", tmp_path / "f.zip"
    sheet.write_text(
        "Identifier,Full name,Grade,Last modified (grade)\nParticipant 42114,Róbert Byron,,-\n"
    )
    rows, _ = results_and_notes([numbered, other], texts.day, NO_ROSTER)
    done = deliver(rows, texts, "moodle", out, sheet)
    assert done.pages == 1
    assert done.notes == ["byronrobert: no page, because the participant number is unknown"]
    with zipfile.ZipFile(out) as archive:
        (name,) = archive.namelist()
        assert 'id="softmax-heading"' in archive.read(name).decode()


def test_only_pages_that_students_do_not_have_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path / "course")

    def delivered(*more: str) -> tuple[list[str], str]:
        """Return the names in the zip that `feedback` writes, and its messages."""
        (root / "f.zip").unlink(missing_ok=True)
        feedback = ("feedback", "day1", "--for", "canvas", "--out", "f.zip")
        code, out, err = run(root, monkeypatch, capsys, *feedback, *more)
        assert code == 0, err
        if not (root / "f.zip").exists():
            return [], out + err
        with zipfile.ZipFile(root / "f.zip") as archive:
            return [name.split("_")[0] for name in archive.namelist()], out + err

    first = canvas(root / "a.zip", ("adams", 11, 50001, 10), ("brown", 12, 50002, 20))
    grade(root, first)
    names, shown = delivered("--changed")
    assert names == ["adams", "brown"]
    assert "no earlier pages for canvas are recorded, so a page is written for everyone" in shown
    assert delivered()[0] == ["adams", "brown"]
    assert delivered("--changed")[0] == []
    grade(root, canvas(root / "b.zip", ("brown", 12, 60002, 30), ("chen", 13, 60003, 20)))
    names, shown = delivered("--changed")
    assert names == ["brown", "chen"]
    assert "left out 1 page that did not change" in shown
    # The first page is the same as the one that the student received before the last one.
    assert run(root, monkeypatch, capsys, "forget", "day1", "brown")[0] == 0
    grade(root, first)
    assert delivered("--changed")[0] == ["brown"]
    override = ("override", "day1", "chen", "padding_mask", "--points", "25")
    assert run(root, monkeypatch, capsys, *override)[0] == 0
    assert delivered("--changed")[0] == ["chen"]
    assert delivered("--changed")[0] == []


def test_a_group_gets_a_page_again_if_a_member_has_a_different_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path / "course")
    grade(root, canvas(root / "a.zip", ("adams", 11, 50001, 10)))
    feedback = ("feedback", "day1", "--for", "canvas", "--changed")
    (root / "roster.csv").write_text("id,student,name,group\n11,adams,Al Adams,1\n")
    assert run(root, monkeypatch, capsys, *feedback)[0] == 0
    (root / "roster.csv").write_text("id,student,name,group\n11,adams,Al Adams,1\n12,brown,Bo,1\n")
    code, out, _ = run(root, monkeypatch, capsys, *feedback)
    assert (code, "wrote 1 feedback page" in out) == (0, True)
