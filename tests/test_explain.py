"""Test that `explain` agrees with the marks, both for stored submissions and for files, and that it reports unknown names."""

from __future__ import annotations

import io
import math
import random
import re
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import NoReturn

import msgspec
import pytest
import torch
from nbformat import NotebookNode
from rich.console import Console

from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.course.late_policy import Lateness
from autograder.execution import catalogue
from autograder.feedback import terminal_table
from autograder.feedback.templates import TEMPLATES
from autograder.grading import explain
from autograder.grading.explain import Observed, Run
from autograder.grading.grader import Grader
from autograder.marks.class_list import StudentResult
from autograder.marks.history import History
from autograder.marks.model import ExerciseMarks, Override, SubmissionMarks
from autograder.sandbox.client import Server
from autograder.submissions.roster import Entry
from tests import small_course
from tests.chosen_mistakes import CHOSEN
from tests.conftest import handed_in, reader, with_cells, with_exercises

LARGE = SubmissionMarks(
    *("a.py", "ada", "", "1f", "", [], 12345.67, 99999.99, 0.0, []),
    [ExerciseMarks("f", 12345.67, 99999.99, "partial", "", None, [], 0.0, [])],
)
# Exercises that other exercises call. For each of them, the test grades a submission with a known mistake in that exercise.
CALLED = ("MultiHeadAttention", "softmax")
TEST = re.compile(r"^  (passed|failed)  (\w+) \(([\d.]+) of ([\d.]+) points\)", re.M)


def test_large_points_are_not_rounded() -> None:
    row = StudentResult(Entry("", "ada", ""), LARGE, Lateness(1, 12.5))
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as capture:
        console.print(terminal_table.table([row]))
        console.print(terminal_table.list_rows([row], "day1"))
    explained = "\n".join(explain.summary(LARGE, row.late))
    page = TEMPLATES.from_string("{{ 12345.67 | number }} of {{ 99999.99 | number }}").render()
    for text in (capture.get(), explained):
        assert "10802.46" in text
    for text in (capture.get().replace(" / ", " of "), explained, page):
        assert "12345.67 of 99999.99" in text
    override = Override(points=12345.67, comment="", by="TA", time="", graded=12345.66)
    assert override.change() == "12345.67 instead of 12345.66 points"


@pytest.mark.parametrize("percent", [0, 10])
def test_a_late_submission_has_points_after_penalty_only_if_there_is_one(percent: float) -> None:
    row = StudentResult(Entry("", "ada", ""), LARGE, Lateness(1, percent))
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as capture:
        console.print(terminal_table.table([row]))
    explained = "\n".join(explain.summary(LARGE, row.late))
    assert ("after penalty" in capture.get()) == ("1 day late" in explained) == (percent > 0)


def test_a_repeated_error_is_explained_once() -> None:
    error = "`f` raised RuntimeError: axis {} is too long (cell 3, line 2: `x @ y`)"
    messages = [error.format(1), "", "the result is wrong", error.format(2)]
    observed = {f"test_{n}": Observed("", text) for n, text in enumerate(messages)}
    lines = list(explain.first_run_lines(observed))
    shown = [line.strip() for line in lines if not line.startswith("  failed")]
    expected = [messages[0], "passed  test_1", messages[2], "Same RuntimeError as above."]
    assert shown == expected


def test_inputs_are_rounded() -> None:
    values = torch.tensor([[1 / 3, -2e-9], [9999.984375, math.inf]])
    expected = "float32 (2, 2) ≈ [[0.333333, -2e-09], [9999.98, inf]]"
    assert explain.describe(values) == expected
    assert explain.describe(torch.tensor([0.5, 3])) == "float32 (2,) [0.5, 3.0]"
    assert explain.describe(torch.tensor([1234567])) == "int64 (1,) [1234567]"


def check(text: str, marks: SubmissionMarks, exercise: str) -> None:
    """Check that an explanation contains the points, the status and the result of each test."""
    result = next(one for one in marks.exercises if one.name == exercise)
    status = result.status.replace("_", " ")
    assert f"{exercise}: {result.points:g} of {result.max_points:g} points, {status}\n" in text
    tests = [
        ("passed" if t.passed else "failed", t.name, f"{t.points:g}", f"{t.max_points:g}")
        for t in result.tests
    ]
    shown = TEST.findall(text)
    assert shown == tests or (result.message in text and not shown)


@pytest.mark.slow
def test_explanations_agree_with_the_marks_of_known_mistakes(
    grader: Grader, day1: Day, solution: NotebookNode
) -> None:
    known = catalogue.known_mistakes(day1)
    until_encoder = day1.names[: day1.names.index("EncoderLayer") + 1]
    notebook = with_exercises(solution, day1, until_encoder)
    others = sorted({*CHOSEN["day1"]} & {*until_encoder} - {*CALLED})
    for called in CALLED:
        draw = random.Random(called)
        names = [called, *draw.sample(others, 2)]
        wrong = {name: draw.choice(known[name]).source for name in names}
        submission = handed_in(with_cells(notebook, wrong))
        marks = grader.grade(submission)
        exercise = next(e.name for e in marks.exercises if e.reference_for)
        run = Run.of(grader, submission, exercise)
        text = "\n".join(explain.details(day1, run.marks, exercise, run))
        check(text, marks, exercise)
        text = "\n".join(explain.summary(marks))
        for one in marks.exercises:
            assert re.search(rf"  {one.name} +{one.points:g} of {one.max_points:g} ", text)


@pytest.mark.slow
def test_an_exercise_that_ran_only_with_references_is_explained(
    grader: Grader, day1: Day, solution: NotebookNode
) -> None:
    """MultiHeadAttention uses a forbidden torch class, so its code is not run, and EncoderLayer runs only with the reference."""
    cell = next(c.source for c in solution.cells if c.id == "MultiHeadAttention")
    cheating = f"{cell}\n\n    theirs = nn.MultiheadAttention(8, 2)\n"
    names = day1.names[: day1.names.index("EncoderLayer") + 1]
    notebook = with_exercises(solution, day1, names)
    submission = handed_in(with_cells(notebook, {"MultiHeadAttention": cheating}))
    run = Run.of(grader, submission, "EncoderLayer")
    text = "\n".join(explain.details(day1, run.marks, "EncoderLayer", run))
    check(text, run.marks, "EncoderLayer")
    assert "The student's own code for MultiHeadAttention was not run" in text


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """Return the day of a course in which three submissions have been graded."""
    root = small_course.make(tmp_path_factory.mktemp("course"))
    small_course.hand_in(root / "class", 3)
    with zipfile.ZipFile(root / "class.zip", "w") as archive:
        for file in sorted((root / "class").iterdir()):
            archive.write(file, file.name)
    done = small_course.command(root, "grade", "day1", "class.zip", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    return courses.load(root).day("day1")


@pytest.fixture
def explained(course: Day, server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that explains marks using the fork servers that all tests share."""
    monkeypatch.setattr(explain, "start_server", lambda: nullcontext(server))
    monkeypatch.setattr(explain, "Reader", lambda: nullcontext(reader()))
    monkeypatch.chdir(course.root)
    monkeypatch.setenv("AUTOGRADER_SECRET", "tests")
    return lambda *arguments, **more: "\n".join(explain.explain(course, *arguments, **more))


@pytest.mark.slow
def test_stored_marks_and_a_download_are_explained_alike(
    course: Day, explained: Callable[..., str]
) -> None:
    with History(course.root) as history:
        marks = {one.student: one for one in history.current("day1")}
    stored = explained("student01", "padding_mask")
    check(stored, marks["student01"], "padding_mask")
    assert re.search(r"last call: padding_mask\(.*int64 \(.*\)", stored)
    assert "tokens != 0" in stored
    from_file = explained("class.zip", "padding_mask", student="student01")
    assert from_file.partition("\n\nTo repeat this run")[0] == stored
    summary = explained("student01")
    assert re.search(r"padding_mask +20 of 60  partial", summary)
    assert "60 of 100 points" in summary


@pytest.mark.slow
def test_stored_results_are_shown_when_the_file_is_gone_or_the_course_has_changed(
    course: Day, explained: Callable[..., str]
) -> None:
    grader = course.root / "graders" / "day1" / "test_masking.py"
    text, archive = grader.read_text(), (course.root / "class.zip").read_bytes()
    with History(course.root) as history:
        marks = next(one for one in history.current("day1") if one.student == "student01")
    try:
        (course.root / "class.zip").unlink()
        gone = explained("student01", "padding_mask")
        (course.root / "class.zip").write_bytes(archive)
        grader.write_text(text.replace("@weight(2)", "@weight(1)"))
        changed = explained("student01", "padding_mask")
    finally:
        (course.root / "class.zip").write_bytes(archive)
        grader.write_text(text)
    for shown, reason in ((gone, explain.NOT_FOUND), (changed, explain.CHANGED_COURSE)):
        check(shown, marks, "padding_mask")
        assert reason in shown


@pytest.mark.slow
def test_an_internal_error_is_a_reason_and_no_traceback(
    course: Day, explained: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OverflowError

    monkeypatch.setattr(Grader, "grade", fail)
    problem = "internal error in the autograder (OverflowError)"
    stored = explained("student01", "padding_mask")
    assert "Stored results (without the inputs: grading the submission of student01: " in stored
    assert problem in stored
    from_file = explained("class.zip", "padding_mask", student="student01")
    assert problem in from_file
    assert "--seed" not in from_file


def test_a_new_exercise_of_the_course_is_missing_in_stored_marks(
    course: Day, explained: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with History(course.root) as history:
        stored = history.current_with_paths("day1")
    (one,) = (current for current in stored if current.marks.student == "student01")
    others = [e for e in one.marks.exercises if e.name != "padding_mask"]
    older = replace(one, marks=msgspec.structs.replace(one.marks, exercises=others))
    monkeypatch.setattr(History, "current_with_paths", lambda *_: [older])
    with pytest.raises(CourseError, match="these marks do not include padding_mask"):
        explained("student01", "padding_mask")


def test_wrong_names_are_reported(explained: Callable[..., str]) -> None:
    for arguments, more, message in (
        (("student1",), {}, "the closest name is student01"),
        (("nothere.zip", "padding_mask"), {}, "'nothere.zip' is neither a file nor a student"),
        (("student01", "nosuch"), {}, "no exercise 'nosuch'"),
        (("class.zip", "padding_mask"), {}, "choose one with --student (3): student00, student01"),
        (("student01",), {"student": "student02"}, "--student works only with the PATH of a file"),
        (("class.zip",), {"student": "eve"}, "It contains submissions by students (3): student00"),
    ):
        with pytest.raises(CourseError, match=re.escape(message)):
            explained(*arguments, **more)
