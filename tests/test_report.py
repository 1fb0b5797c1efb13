"""Check the class report against numbers computed by hand, and test anonymity and escaping in the page and the CSV files."""

from __future__ import annotations

import csv
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.course.late_policy import ON_TIME, Lateness
from autograder.feedback import sentences
from autograder.feedback.class_page import (
    Analysis,
    _redaction,
    analyse,
    html,
    without_numbers,
    write,
)
from autograder.feedback.sentences import Sentences
from autograder.marks import model as m
from autograder.marks.model import Marks, SubmissionMarks
from tests.conftest import ROOT
from tests.material import HOSTILE, Page, check_harmless, exercise, submission, unread, untouched
from tests.small_course import command

FILES = {
    "report.html",
    *(
        f"{n}.csv"
        for n in ["submissions", "exercises", "tests", "known_mistakes", "other_failures"]
    ),
}


@pytest.fixture(scope="module")
def texts() -> Sentences:
    return sentences.read(courses.load(ROOT).day("day1"))


def marks(*submissions: SubmissionMarks) -> Marks:
    return Marks(m.FORMAT, "day1", list(submissions))


def four(texts: Sentences) -> Marks:
    """Return marks for five submissions: two correct, one with two wrong exercises, one incomplete and one unreadable."""
    name = next(iter(texts.mistakes["softmax"]))
    half = list(texts.day.names)[10:]
    return marks(
        submission(texts, student="ada", path="in/ada.ipynb"),
        submission(texts, student="bela", path="in/bela.ipynb"),
        submission(
            texts,
            exercise(texts, "softmax", dict.fromkeys(range(5), "4 of 9 values"), mistake=name),
            exercise(texts, "LayerNorm", {2: "3 of 24 values are wrong"}),
            student="chen",
            path="in/chen.ipynb",
        ),
        submission(
            texts,
            exercise(texts, "LayerNorm", {2: "18 of 24 values are wrong"}, seconds=2.5),
            *(untouched(texts, name) for name in half if name != "LayerNorm"),
            student="dana",
            path="in/dana.ipynb",
        ),
        unread("emil"),
    )


def analysis_of_four(texts: Sentences, anonymous: bool = False) -> Analysis:
    return analyse(four(texts), texts, "course", anonymous)


def test_the_csv_file_shows_lateness_and_no_points_without_a_grade(
    texts: Sentences, tmp_path: Path
) -> None:
    late = [Lateness(2, 20.0), *[ON_TIME] * 4]
    analysis = analyse(four(texts), texts, "course", False, late)
    write(analysis, tmp_path / "r")
    with (tmp_path / "r/submissions.csv").open(newline="") as opened:
        rows = {row["student"]: row for row in csv.DictReader(opened)}
    columns = ("points", "late_days", "late_per_cent", "points_before")
    assert [rows["ada"][column] for column in columns] == ["80.0", "2", "20.0", "100.0"]
    assert [rows["emil"][column] for column in columns] == ["", "0", "0.0", ""]


def test_only_full_points_are_shown_as_100_percent(texts: Sentences) -> None:
    small = exercise(texts, "LayerNorm", {2: "no"})
    class_ = [submission(texts)] * 60 + [submission(texts, small)]
    page = Page(html(analyse(marks(*class_), texts, "course"))).text
    assert re.search(r"LayerNorm\s+99%", page)


# ---- statistics


def test_mean_scores_ignore_unreadable_submissions_and_exercises_not_attempted(
    texts: Sentences,
) -> None:
    analysis = analysis_of_four(texts)
    found = {e.name: e for e in analysis.exercises}
    assert (analysis.unread, len(analysis.points), sum(analysis.bins)) == (1, 4, 4)
    assert found["softmax"].mean_score == pytest.approx((1 + 1 + 2 / 3 + 1) / 4)
    assert (found["softmax"].not_attempted, found["softmax"].submissions) == (0, 4)
    assert (found["FeedForward"].mean_score, found["FeedForward"].not_attempted) == (1, 1)
    layer_norm = found["LayerNorm"]
    assert (layer_norm.median_seconds, layer_norm.longest_seconds) == (0.1, 2.5)


def test_discrimination_is_the_correlation_with_the_other_exercises(texts: Sentences) -> None:
    found = {e.name: e.discrimination for e in analysis_of_four(texts).exercises}
    # A correlation is undefined if every student has full points.
    assert found["padding_mask"] is None
    # The student without points for FeedForward also has far fewer points for the other exercises.
    assert found["FeedForward"] == pytest.approx(1, abs=0.01)
    assert found["softmax"] is not None
    assert found["softmax"] > -0.5


def test_discrimination_is_negative_if_strong_students_fail_an_exercise(texts: Sentences) -> None:
    wrong = exercise(texts, "softmax", {0: "no"})
    weak = [exercise(texts, name, {0: "no"}) for name in ("attention", "LayerNorm")]
    class_ = [submission(texts, wrong), submission(texts, *weak), submission(texts, *weak)]
    found = analyse(marks(*class_), texts, "course").exercises
    assert found[0].discrimination == pytest.approx(-1)


def test_pass_rates_count_attempts_only(texts: Sentences) -> None:
    found = {e.name: e.tests for e in analysis_of_four(texts).exercises}
    assert {(t.passed, t.attempts) for t in found["FeedForward"]} == {(3, 3)}
    assert [(t.passed, t.attempts) for t in found["LayerNorm"]][1:4] == [(4, 4), (2, 4), (4, 4)]


def test_known_mistakes_list_their_submissions(texts: Sentences) -> None:
    (found,) = analysis_of_four(texts).mistakes
    assert (found.exercise, found.submissions) == ("softmax", ["chen"])
    assert found.text == texts.mistakes["softmax"][found.name]


def test_failures_that_differ_only_in_numbers_are_one_group(texts: Sentences) -> None:
    (found,) = analysis_of_four(texts).other_failures
    assert found.exercise == "LayerNorm"
    assert found.submissions == ["chen", "dana"]
    assert found.text == "# of # values are wrong"


def test_all_kinds_of_numbers_are_ignored() -> None:
    text = "3 of 24: -1.5e-07 instead of nan at (0, 2), cell 4, line 17"
    assert without_numbers(text) == "# of #: # instead of # at (#, #), cell #, line #"
    assert without_numbers("float32, W_2") == "float32, W_2"


@pytest.mark.parametrize("class_", [[], [unread()]], ids=["no submission", "nothing readable"])
def test_an_empty_class_has_a_page(class_: list[SubmissionMarks], texts: Sentences) -> None:
    text = Page(html(analyse(marks(*class_), texts, "course"))).text
    assert f"{len(class_)} submission" in text


def test_marks_from_a_different_course_version_are_flagged(texts: Sentences) -> None:
    assert "a different version of the course" in html(analyse(four(texts), texts, "other"))
    assert "a different version of the course" not in html(analysis_of_four(texts))


# ---- anonymity


def test_names_are_removed_from_long_messages_of_a_large_class() -> None:
    names = [
        "Bo Li",
        "bo",
        "Ada Lovelace",
        "ada",
        *(f"Student{n} Family{n * n}" for n in range(1000)),
    ]
    hide = _redaction([unread(name) for name in names])
    assert (
        hide("ask BO LI, Ada lovelace or ADA about boat 7, family4")
        == "ask …, … or … about boat 7, …"
    )
    started = time.process_time()
    assert "Student999" not in hide("a b c d " * 250 + "Student999")
    assert time.process_time() - started < 0.1


def test_an_anonymous_report_contains_no_name_path_or_hash(
    texts: Sentences, tmp_path: Path
) -> None:
    message = (
        "raised FileNotFoundError: /home/Lovelace/x.txt of ada.lovelace@uni.edu and ada_lovelace"
    )
    wrong = exercise(texts, "softmax", {0: message})
    one = submission(texts, wrong, student="ada_lovelace", path="in/hw-1/ada_lovelace.ipynb")
    two = unread("grace", "grace.ipynb: not a notebook")
    write(analyse(marks(one, two), texts, "course", anonymous=True), tmp_path)
    for file in tmp_path.iterdir():
        text = file.read_text(encoding="utf-8").lower()
        for secret in ("lovelace", "grace", "hw-1", "/home", one.sha256, one.seed):
            assert secret not in text, file.name
    assert "FileNotFoundError" in (tmp_path / "other_failures.csv").read_text()


def test_a_number_means_the_same_submission_in_every_table(texts: Sentences) -> None:
    analysis = analysis_of_four(texts, anonymous=True)
    assert [row.label for row in analysis.rows] == ["1", "2", "3", "4", "5"]
    (found,) = analysis.mistakes
    (row,) = [row for row in analysis.rows if row.exercises.get("softmax") == pytest.approx(8 / 3)]
    assert found.submissions == [row.label]


# ---- hostile text


def test_hostile_text_is_inactive_on_the_page(texts: Sentences) -> None:
    class_ = []
    for text in HOSTILE:
        wrong = exercise(texts, "softmax", {0: text})
        named = exercise(texts, "attention", {0: text}, mistake=text)
        class_.append(submission(texts, wrong, named, student=text, path=text, problems=(text,)))
    for anonymous in (False, True):
        page = html(analyse(marks(*class_, unread("<b>bob</b>")), texts, "course", anonymous))
        check_harmless(page)
    assert Page(page).text.count("{{ 7 * 7 }}") > 0


def test_no_cell_is_a_formula(texts: Sentences, tmp_path: Path) -> None:
    students = [*HOSTILE, "+1", "-1", "\r=1", "＝1+1"]
    class_ = [submission(texts, student=text, path=text, problems=(text,)) for text in students]
    files = write(analyse(marks(*class_), texts, "course"), tmp_path)
    assert {file.name for file in files} == FILES
    for file in tmp_path.glob("*.csv"):
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.reader(opened))
        assert len({len(row) for row in rows}) == 1
        for cell in (cell for row in rows for cell in row):
            assert not cell.startswith(("=", "＝", "+", "-", "@", "\t", "\r")), (file.name, cell)


def test_negative_numbers_stay_numbers(texts: Sentences, tmp_path: Path) -> None:
    analysis = analysis_of_four(texts)
    stats = replace(analysis.exercises[0], discrimination=-0.5)
    write(replace(analysis, exercises=[stats]), tmp_path)
    with (tmp_path / "exercises.csv").open(encoding="utf-8", newline="") as opened:
        assert [row["discrimination"] for row in csv.DictReader(opened)] == ["-0.5"]


# ---- the command


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not JSON", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"format": 1, "day": "\xff"}', "is not JSON"),
        (b'{"format": 1, "x":' + b"[" * 100_000, "is not JSON"),
        (b"[]", "does not contain marks"),
        (b'{"format": 1, "day": "day1"}', "does not contain marks"),
        (b'{"format": 2, "day": "day1"}', "format 2"),
        (b'{"format": 1, "day": "day2", "submissions": []}', "marks for 'day2', not for 'day1'"),
    ],
)
def test_an_invalid_file_gets_a_specific_message(data: bytes, message: str) -> None:
    with pytest.raises(m.InvalidMarks, match=message):
        m.decode(data, "day1")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["marks.json", "nowhere.json", "."])
def test_an_invalid_file_is_one_line_on_stderr(name: str, tmp_path: Path) -> None:
    (tmp_path / "marks.json").write_bytes(b"{}")
    done = command(ROOT, "report", "day1", str(tmp_path / name), "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_report_is_written(texts: Sentences, tmp_path: Path) -> None:
    file = tmp_path / "marks.json"
    file.write_bytes(b"".join(m.encode("day1", four(texts).submissions)))
    done = command(ROOT, "report", "day1", str(file), "--out", str(tmp_path / "out"), "--anonymous")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert {*done.stdout.splitlines()} == {f"wrote {tmp_path}/out/{name}" for name in FILES}
    assert "in/ada" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_hardest_exercises_leave_out_those_not_attempted(texts: Sentences) -> None:
    first, second, third, *rest = texts.day.names
    wrong = exercise(texts, second, {0: "0"})
    empty = [untouched(texts, name) for name in (first, third, *rest)]
    found = analyse(marks(submission(texts, wrong, *empty)), texts, "course")
    page = Page(html(found)).text
    hardest = page[page.index("Hardest exercises") : page.index("Points")]
    (score,) = re.findall(rf"{second} \(mean score (\d+%)\)", hardest)
    assert page.count(f"{second} {score}") == 1
    assert page.count(f"{first} n/a") == 1
    assert first not in hardest
    assert rest[0] not in hardest


def test_each_of_two_mistakes_is_counted(texts: Sentences) -> None:
    both, single = (
        exercise(texts, "softmax", {0: "0"}, mistake=name) for name in ("one; two", "two")
    )
    class_ = [submission(texts, both, path="1"), submission(texts, single, path="2")]
    analysis = analyse(marks(*class_), texts, "course")
    assert {m.name: len(m.submissions) for m in analysis.mistakes} == {"two": 2, "one": 1}
    assert not analysis.other_failures
    assert "Most common mistake: “two”" in Page(html(analysis)).text


def test_mistakes_of_a_single_submission_are_folded(texts: Sentences) -> None:
    shared = exercise(texts, "softmax", {0: "0"}, mistake="shared by two")
    single = exercise(texts, "attention", {0: "0"}, mistake="only once")
    class_ = [submission(texts, shared, path="1"), submission(texts, shared, single, path="2")]
    page = html(analyse(marks(*class_), texts, "course"))
    start = page.index("<h2>Known mistakes")
    folded = page.index("<details>", start)
    assert start < page.index("shared by two", start) < folded < page.index("only once", start)
    assert "1 known mistake in a single submission" in page
