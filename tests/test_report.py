"""The instructor's report: numbers worked out by hand, nobody's name where none may be, nothing alive in page or CSV."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from autograder.course import config as courses
from autograder.feedback import sentences
from autograder.feedback.class_analysis import Analysis, analyse, without_numbers
from autograder.feedback.class_page import defused, html, write
from autograder.feedback.sentences import Texts
from autograder.marks import model as m
from autograder.marks.model import Marks, SubmissionMarks
from tests.conftest import ROOT
from tests.material import HOSTILE, Page, check_harmless, exercise, submission, unread, untouched
from tests.test_cli import run

FILES = {
    "report.html",
    *(f"{n}.csv" for n in ["submissions", "exercises", "tests", "mistakes", "unnamed"]),
}


@pytest.fixture(scope="module")
def words() -> Texts:
    return sentences.read(courses.load(ROOT).day("day1"))


def marks(*submissions: SubmissionMarks) -> Marks:
    return Marks(m.FORMAT, "day1", list(submissions))


def four(words: Texts) -> Marks:
    """Two right ones, one with a third of the tests of `softmax` lost, one nearly empty, one that can not be read."""
    name = next(iter(words.mistakes["softmax"]))
    half = list(words.day.names)[10:]
    return marks(
        submission(words, student="ada", path="in/ada.ipynb"),
        submission(words, student="bela", path="in/bela.ipynb"),
        submission(
            words,
            exercise(words, "softmax", dict.fromkeys(range(5), "4 of 9 values"), mistake=name),
            exercise(words, "LayerNorm", {2: "3 of 24 values are wrong"}),
            student="chen",
            path="in/chen.ipynb",
        ),
        submission(
            words,
            exercise(words, "LayerNorm", {2: "18 of 24 values are wrong"}, seconds=2.5),
            *(untouched(words, name) for name in half if name != "LayerNorm"),
            student="dana",
            path="in/dana.ipynb",
        ),
        unread("emil"),
    )


def of(words: Texts, anonymous: bool = False) -> Analysis:
    return analyse(four(words), words, "course", anonymous)


# ---- the numbers


def test_difficulty_and_untouched_are_shares_of_what_could_be_read(words: Texts) -> None:
    it = of(words)
    found = {e.name: e for e in it.exercises}
    assert (it.unread, len(it.points), sum(it.bins)) == (1, 4, 4)
    assert found["softmax"].mean_share == pytest.approx((1 + 1 + 2 / 3 + 1) / 4)
    assert (found["softmax"].untouched, found["softmax"].of) == (0, 4)
    assert (found["FeedForward"].mean_share, found["FeedForward"].untouched) == (0.75, 1)
    layer_norm = found["LayerNorm"]
    assert (layer_norm.median_seconds, layer_norm.longest_seconds) == (0.1, 2.5)


def test_discrimination_is_the_correlation_with_the_rest(words: Texts) -> None:
    found = {e.name: e.discrimination for e in of(words).exercises}
    assert found["padding_mask"] is None  # all have it right
    # The one who lost all of it has far less than the others in the rest.
    assert found["FeedForward"] == pytest.approx(1, abs=0.01)
    assert found["softmax"] is not None
    assert found["softmax"] > -0.5


def test_who_is_good_at_the_rest_and_bad_at_it_shows_as_negative(words: Texts) -> None:
    wrong = exercise(words, "softmax", {0: "no"})
    weak = [exercise(words, name, {0: "no"}) for name in ("attention", "LayerNorm")]
    class_ = [submission(words, wrong), submission(words, *weak), submission(words, *weak)]
    found = analyse(marks(*class_), words, "course").exercises
    assert found[0].discrimination == pytest.approx(-1)


def test_the_pass_rate_of_a_test_is_of_those_who_tried(words: Texts) -> None:
    found = {e.name: e.tests for e in of(words).exercises}
    assert {(t.passed, t.of) for t in found["FeedForward"]} == {(3, 3)}
    assert [(t.passed, t.of) for t in found["LayerNorm"]][1:4] == [(4, 4), (2, 4), (4, 4)]


def test_named_mistakes_are_counted_with_those_behind_them(words: Texts) -> None:
    (found,) = of(words).mistakes
    assert (found.exercise, found.submissions) == ("softmax", ["chen"])
    assert found.text == words.mistakes["softmax"][found.name]


def test_failures_alike_but_for_numbers_are_one_group(words: Texts) -> None:
    (found,) = of(words).unnamed
    assert found.exercise == "LayerNorm"
    assert found.submissions == ["chen", "dana"]
    assert found.text == "# of # values are wrong"


def test_numbers_of_every_kind_are_left_out() -> None:
    text = "3 of 24: -1.5e-07 instead of nan at (0, 2), cell 4, line 17"
    assert without_numbers(text) == "# of #: # instead of # at (#, #), cell #, line #"
    assert without_numbers("float32, W_2") == "float32, W_2"


@pytest.mark.parametrize("class_", [[], [unread()]], ids=["nobody", "nothing readable"])
def test_an_empty_class_has_a_page(class_: list[SubmissionMarks], words: Texts) -> None:
    text = Page(html(analyse(marks(*class_), words, "course"))).text
    assert f"{len(class_)} submission" in text


def test_marks_of_another_course_are_said_to_be_so(words: Texts) -> None:
    assert "another state of the course" in html(analyse(four(words), words, "another"))
    assert "another state of the course" not in html(of(words))


# ---- who must not be known


def test_anonymous_tells_neither_name_nor_path_nor_hash(words: Texts, tmp_path: Path) -> None:
    said = "raised FileNotFoundError: /home/Lovelace/x.txt of ada.lovelace@uni.edu and ada_lovelace"
    wrong = exercise(words, "softmax", {0: said})
    one = submission(words, wrong, student="ada_lovelace", path="in/hw-1/ada_lovelace.ipynb")
    two = unread("grace", "grace.ipynb: not a notebook")
    write(analyse(marks(one, two), words, "course", anonymous=True), tmp_path)
    for file in tmp_path.iterdir():
        text = file.read_text(encoding="utf-8").lower()
        for secret in ("lovelace", "grace", "hw-1", "/home", one.sha256, one.seed):
            assert secret not in text, file.name
    assert "FileNotFoundError" in (tmp_path / "unnamed.csv").read_text()


def test_numbers_stand_for_the_same_submission_everywhere(words: Texts) -> None:
    it = of(words, anonymous=True)
    assert [row.label for row in it.rows] == ["1", "2", "3", "4", "5"]
    (found,) = it.mistakes
    (row,) = [row for row in it.rows if row.exercises.get("softmax") == pytest.approx(8 / 3)]
    assert found.submissions == [row.label]


# ---- hostile texts


def test_hostile_texts_do_nothing_on_the_page(words: Texts) -> None:
    class_ = []
    for text in HOSTILE:
        wrong = exercise(words, "softmax", {0: text})
        named = exercise(words, "attention", {0: text}, mistake=text)
        class_.append(submission(words, wrong, named, student=text, path=text, problems=(text,)))
    for anonymous in (False, True):
        page = html(analyse(marks(*class_, unread("<b>bob</b>")), words, "course", anonymous))
        check_harmless(page)
    assert Page(page).text.count("{{ 7 * 7 }}") > 0


def test_no_cell_is_a_formula(words: Texts, tmp_path: Path) -> None:
    students = [*HOSTILE, "+1", "-1", "\r=1"]
    class_ = [submission(words, student=text, path=text, problems=(text,)) for text in students]
    files = write(analyse(marks(*class_), words, "course"), tmp_path)
    assert {file.name for file in files} == FILES
    for file in tmp_path.glob("*.csv"):
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.reader(opened))
        assert len({len(row) for row in rows}) == 1
        for cell in (cell for row in rows for cell in row):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), (file.name, cell)
    assert defused(-0.5) == -0.5


# ---- the command


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"not JSON", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"format": 1, "day": "\xff"}', "is not JSON"),
        (b'{"format": 1, "x":' + b"[" * 100_000, "is not JSON"),
        (b"[]", "holds no marks"),
        (b'{"format": 1, "day": "day1"}', "holds no marks"),
        (b'{"format": 2, "day": "day1"}', "format 2"),
        (b'{"format": 1, "day": "day2", "submissions": []}', "marks of 'day2', not of 'day1'"),
    ],
)
def test_a_wrong_file_is_told_apart(data: bytes, says: str) -> None:
    with pytest.raises(m.InvalidMarks, match=says):
        m.decode(data, "day1")


@pytest.mark.parametrize("name", ["marks.json", "nowhere.json", "."])
def test_a_wrong_file_is_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "marks.json").write_bytes(b"{}")
    done = run("report", "day1", str(tmp_path / name), "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_the_report_is_written(words: Texts, tmp_path: Path) -> None:
    file = tmp_path / "marks.json"
    file.write_bytes(b"".join(m.encode("day1", four(words).submissions)))
    done = run("report", "day1", str(file), "--out", str(tmp_path / "out"), "--anonymous")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert "in/ada" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
