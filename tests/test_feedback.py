"""Test that a feedback page shows the most useful information first and escapes text written by students."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PureWindowsPath

import msgspec
import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from torch import Tensor

from autograder.course.config import Day
from autograder.course.late_policy import ON_TIME, Lateness
from autograder.execution.differences import LARGEST, crop
from autograder.feedback import sentences, student_page
from autograder.feedback.exercise_feedback import as_html, as_text, to_feedback
from autograder.feedback.sentences import Sentences
from autograder.marks import model as m
from autograder.marks.causes import simplify
from autograder.marks.model import ExerciseMarks, Override, Status, SubmissionMarks, Values
from autograder.plain_text import sanitize
from autograder.submissions.cell_reader import read_cells
from tests.material import (
    HOSTILE,
    Page,
    check_harmless,
    exercise,
    recipient,
    submission,
    unread,
    untouched,
)

MASK = "import torch\ndef causal_mask(n, device=None):\n    return torch.ones(n, n).bool().triu()"
RAISES = "def causal_mask(n, device=None):\n    raise RuntimeError({!r})"


@pytest.fixture(scope="module")
def texts(day1: Day) -> Sentences:
    return sentences.read(day1)


def page_of(marks: SubmissionMarks, texts: Sentences, late: Lateness = ON_TIME) -> str:
    return student_page.page(recipient(marks, late), texts)


def words_only(texts: Sentences) -> Sentences:
    return replace(texts, day=replace(texts.day, feedback="words"))


# ---- what the page shows


def test_the_heading_shows_the_name_and_the_points_after_the_late_policy(texts: Sentences) -> None:
    marks = submission(texts, exercise(texts, "softmax", {0: "0"}), student="Ada Lovelace")
    html = page_of(marks, texts, Lateness(2, 20.0))
    assert "<h1><bdi>Ada Lovelace</bdi></h1>" in html
    final = Lateness(2, 20.0).reduce(marks.earned)
    text = Page(html).text
    assert f" {final:.12g} of 100 points" in text
    assert f"2 days late: {marks.earned:.12g} points − 20% = {final:.12g} points." in text
    for free in (ON_TIME, Lateness(2, 0.0)):
        assert "days late" not in Page(page_of(marks, texts, free)).text


def test_the_heading_shows_the_id_unless_the_name_contains_it(texts: Sentences) -> None:
    named = replace(recipient(submission(texts, student="Anna Smith")), id="2003")
    assert f"{texts.day.title} · id 2003" in Page(student_page.page(named, texts)).text
    labelled = replace(named, name="Anna Smith (2003)")
    assert "· id" not in Page(student_page.page(labelled, texts)).text


def test_the_graded_code_is_shown_with_the_failed_checks(
    texts: Sentences, grade: Callable[..., SubmissionMarks]
) -> None:
    marks = grade(f"SIGN = 1  # {HOSTILE[0]}\n{MASK} if SIGN else 0\n\ndef softmax(x): pass\n")
    html = page_of(marks, texts)
    check_harmless(html)
    section = html[html.index('id="causal_mask"') : html.index('id="causal_mask"') + 20_000]
    shown = Page(section[: section.index("</section>")]).text
    assert "return torch.ones(n, n).bool().triu() if SIGN else 0" in shown
    assert f"SIGN = 1 # {HOSTILE[0]}" in shown
    assert "def softmax" not in shown


def test_the_notebook_of_a_different_day_is_reported_once(texts: Sentences) -> None:
    missing = [replace_message(untouched(texts, name), name) for name in texts.day.names]
    problem = "this is the notebook for day2, but it was graded as day1"
    text = Page(page_of(submission(texts, *missing, problems=(problem,)), texts)).text
    assert text.count(problem) == 1
    assert "none of this day's exercises" in text
    assert "If you submitted the wrong file" in text
    assert "softmax" not in text
    assert "of 100 points" not in text


def test_a_truncated_notebook_without_exercises_comes_with_one_instruction(
    texts: Sentences,
) -> None:
    missing = [replace_message(untouched(texts, name), name) for name in texts.day.names]
    cells = [new_code_cell("x = 1"), new_code_cell("x = 2")]
    cut = nbformat.writes(new_notebook(cells=cells)).partition("x = 2")[0]
    _, problems = read_cells(cut.encode(), "a.ipynb")
    text = Page(page_of(submission(texts, *missing, problems=problems), texts)).text
    assert "save the notebook in Jupyter and submit it again" in text
    assert "wrong file" not in text


def replace_message(marks: ExerciseMarks, name: str) -> ExerciseMarks:
    return msgspec.structs.replace(marks, message=f"`{name}` is not defined")


def test_a_comment_on_a_correct_exercise_has_a_section(texts: Sentences) -> None:
    comment = Override(None, "Elegant.", "kim", "2026-12-01T10:00:00+00:00")
    praised = msgspec.structs.replace(exercise(texts, "softmax"), override=comment)
    html = page_of(submission(texts, praised), texts)
    assert "Comment by kim on 2026-12-01: Elegant." in Page(html).text
    assert 'href="#softmax"' in html


def test_a_correct_submission_has_nothing_left_to_fix(texts: Sentences) -> None:
    text = Page(page_of(submission(texts), texts)).text
    assert "100 of 100 points" in text
    assert "nothing left to fix" in text
    assert "What to do next" not in text


def test_the_table_lists_all_exercises_in_order_with_their_status(texts: Sentences) -> None:
    marks = submission(texts, exercise(texts, "softmax", {0: "no"}), untouched(texts, "LayerNorm"))
    html = page_of(marks, texts)
    table = html[html.index("<table") : html.index("</table>")]
    assert re.findall(r"<code>(\w+)</code>", table) == list(texts.day.names)
    assert [Page(table).text.count(s) for s in ("partly correct", "not attempted")] == [1, 1]


def test_an_empty_notebook_lists_each_exercise_once(texts: Sentences) -> None:
    empty = [untouched(texts, name) for name in texts.day.names]
    text = Page(page_of(submission(texts, *empty), texts)).text
    assert text.count("not attempted") == len(empty)
    assert text.count("causal_mask") == 1


def test_the_mistake_comes_first(texts: Sentences) -> None:
    name, sentence = next(iter(texts.mistakes["softmax"].items()))
    marks = submission(texts, exercise(texts, "softmax", {1: "seen was this"}, mistake=name))
    text = Page(page_of(marks, texts)).text
    section = text[text.index("Exercises to fix") :]
    first = sentence.split("`")[0].strip()
    assert 0 < section.index(first) < section.index("Seen was this.")


def test_two_mistakes_are_both_explained(texts: Sentences) -> None:
    one, two = itertools.islice(texts.mistakes["softmax"].items(), 2)
    marked = exercise(texts, "softmax", {1: "seen was this"}, mistake=f"{one[0]}; {two[0]}")
    feedback = to_feedback(marked, texts)
    assert list(feedback.mistakes) == [one[1], two[1]]
    for text in (as_text(feedback), as_html(feedback)):
        places = [text.index(sentence.split("`")[0].strip()[:20]) for sentence in feedback.mistakes]
        assert places == sorted(places)
        assert places[1] < text.index("Seen was this.")


def test_one_reason_for_all_failures_appears_once(texts: Sentences) -> None:
    failed = dict.fromkeys(range(5), "there was no answer within 5 s")
    page = Page(page_of(submission(texts, exercise(texts, "softmax", failed)), texts))
    assert page.text.count("There was no answer within 5 s.") == 1


RAISED = "`softmax` raised IndexError: index {} is out of bounds (cell 9, line 4: `x[i]`)"


def test_a_cause_with_different_numbers_appears_once(texts: Sentences) -> None:
    failed = {n: RAISED.format(n) for n in range(4)}
    failed[4] = (
        "a ValueError should be raised when d is 7; got: IndexError: index 9 is out of bounds"
    )
    page = Page(page_of(submission(texts, exercise(texts, "softmax", failed)), texts))
    assert page.text.count("IndexError") == 1
    assert "cell 9, line 4: x[i] )" in page.text


@pytest.mark.parametrize(
    ("seen", "part"),
    [
        (
            "the {} should be a tensor, but it is None (is a return missing?)",
            "is a return missing?",
        ),
        ("the {} should have dtype int64; yours has dtype float32", "yours has dtype float32"),
        ("`f`: there is no parameter `weight`; it has {}", "there is no parameter"),
        ("`f` raised Exception: {} (cell 3, line 1: `x`)", "Exception"),
    ],
)
def test_a_repeated_message_appears_once(texts: Sentences, seen: str, part: str) -> None:
    failed = {n: seen.format(n) for n in range(5)}
    page = Page(page_of(submission(texts, exercise(texts, "softmax", failed)), texts))
    assert page.text.count(part) == 1


def test_a_different_cause_is_visible_after_the_first(texts: Sentences) -> None:
    failed = {**{n: RAISED.format(n) for n in range(4)}, 4: "3 of 4 values are wrong"}
    feedback = to_feedback(exercise(texts, "softmax", failed), texts)
    assert not feedback.reason
    assert [test.observed for test in feedback.failed] == [
        "`softmax` raised IndexError: index 0 is out of bounds (cell 9, line 4: `x[i]`).",
        "3 of 4 values are wrong.",
        *["Same IndexError as above."] * 3,
    ]


def test_a_failure_caused_by_another_exercise_is_folded(texts: Sentences) -> None:
    failed = {n: RAISED.format(n) for n in range(4)}
    feedback = to_feedback(exercise(texts, "attention", failed, reference_for=("softmax",)), texts)
    assert feedback.unfolded == 2
    for text in (as_text(feedback), Page(as_html(feedback)).text):
        assert text.count("IndexError") == 1
        assert "first. Then run the checks in your notebook" in text


@pytest.mark.parametrize("status", ["not_allowed", "error"])
def test_checks_that_were_not_run_are_not_called_failed(texts: Sentences, status: Status) -> None:
    all_of_them = dict.fromkeys(range(len(texts.tests["softmax"])), "it uses `torch.softmax`")
    feedback = to_feedback(exercise(texts, "softmax", all_of_them, status), texts)
    for text in (as_text(feedback), Page(as_html(feedback)).text):
        assert "not run" in text.lower()
        assert "failed" not in text.lower()


def test_pytorchs_out_of_memory_error_is_simplified() -> None:
    error = (
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 40000000000 bytes. Error code 12 (Cannot allocate memory)"
    )
    assert simplify(f"`f` raised RuntimeError: {error} (cell 3, line 1)") == (
        "`f` raised RuntimeError: out of memory: cannot allocate 40 GB (cell 3, line 1)"
    )


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("position 0 should see itself", "Position 0 should see itself."),
        ("a ValueError is due", "A ValueError is due."),
        ("x + gelu(z): wrong", "x + gelu(z): wrong."),
        ("d_model is 10", "d_model is 10."),
        ("ᾱ for 3 steps: wrong", "ᾱ for 3 steps: wrong."),
        ("model.encode should be called once", "model.encode should be called once."),
    ],
)
def test_a_message_becomes_a_sentence_and_names_stay(
    texts: Sentences, message: str, sentence: str
) -> None:
    feedback = to_feedback(exercise(texts, "softmax", {0: message}), texts)
    assert feedback.failed[0].observed == sentence


def test_an_error_shows_its_line_of_code(grade: Callable[..., SubmissionMarks]) -> None:
    marks = grade("def causal_mask(n, device=None):\n    m = [1][n]", "causal_mask")
    assert "(cell 1, line 2: `m = [1][n]`)" in marks.exercises[0].message


def test_substitution_by_the_reference_is_explained(texts: Sentences) -> None:
    wrong = exercise(texts, "softmax", {0: "no"})
    full = exercise(texts, "attention", reference_for=("softmax",))
    part = exercise(texts, "masked_attention", {3: "no"}, reference_for=("softmax",))
    text = Page(page_of(submission(texts, wrong, full, part), texts)).text
    assert re.search(r"Start with softmax : attention and masked_attention use it", text)
    assert re.search(r"attention , graded with the course's softmax", text)
    assert "so that a mistake in one exercise costs points only once" in text


def test_a_replaced_exercise_without_a_solution_is_not_called_wrong(texts: Sentences) -> None:
    failed = {0: "your code raised IndexError (cell 3, line 2: `x[9]`)", 1: "", 2: "no"}
    part = exercise(texts, "masked_attention", failed, reference_for=("softmax",))
    marks = submission(texts, untouched(texts, "softmax"), part)
    feedback = as_text(to_feedback(part, texts, ["softmax"]))
    for text in (Page(page_of(marks, texts)).text, feedback):
        assert "used the course's own code there. The mistake is in" in text
        assert "Your code raised IndexError (cell 3" in text
        for wrong in ("instead of yours", "Fix ", "with your own"):
            assert wrong not in text


def test_the_note_distinguishes_wrong_exercises_from_those_without_a_solution(
    texts: Sentences,
) -> None:
    names = ("softmax", "attention_scores")
    part = exercise(texts, "masked_attention", {3: "no"}, reference_for=names)
    text = as_text(to_feedback(part, texts, ["attention_scores"]))
    assert "course's own `softmax` instead of yours" in text
    assert "no solution for `attention_scores` yet, so the grader also used" in text
    assert "Fix `softmax` first." in text


def test_next_steps_name_the_first_largest_and_empty_exercises(texts: Sentences) -> None:
    small = exercise(texts, "softmax", {0: "no"})
    large = exercise(texts, "Transformer", dict.fromkeys(range(9), "no"))
    exercises = [to_feedback(e, texts) for e in (small, large, untouched(texts, "LayerNorm"))]
    first, second, third, _ = student_page.next_steps(exercises)
    assert first == "Start with `softmax`."
    assert second.startswith("Then work on `Transformer`")
    assert third.startswith("1 exercise has not been attempted yet (4 points): `LayerNorm`")


def test_next_steps_and_notes_give_the_same_order(texts: Sentences) -> None:
    first = exercise(texts, "decoder_mask", {0: "no"})
    norm = exercise(texts, "LayerNorm", {0: "no"})
    large = exercise(
        texts, "Transformer", dict.fromkeys(range(9), "no"), reference_for=("LayerNorm",)
    )
    feedback = [to_feedback(e, texts) for e in (first, norm, large)]
    assert "Fix `LayerNorm` first." in feedback[2].substitution_note
    start, then, _ = student_page.next_steps(feedback)
    assert start == "Start with `decoder_mask`."
    assert then.startswith("Then work on `Transformer`, after `LayerNorm`. Of the exercises")


def test_a_missing_name_is_distinguished_from_an_unchanged_stub(
    texts: Sentences, grade: Callable[..., SubmissionMarks]
) -> None:
    page = Page(page_of(grade("def soft_max(x, dim=-1):\n    return x", "softmax"), texts))
    assert "not found" in page.text
    assert "not attempted" not in page.text


def test_an_unreadable_file_is_explained(texts: Sentences) -> None:
    text = Page(page_of(unread(problem="not a notebook: cut off"), texts)).text
    assert "could not be graded" in text
    assert "not a notebook: cut off" in text
    assert "Open your day1.ipynb in Jupyter" in text
    assert "All exercises" not in text


def test_text_and_html_of_an_exercise_agree(texts: Sentences) -> None:
    name, sentence = next(iter(texts.mistakes["softmax"].items()))
    feedback = to_feedback(exercise(texts, "softmax", {1: "seen was this"}, mistake=name), texts)
    text, html = as_text(feedback), Page(as_html(feedback)).text
    for part in (feedback.status_text, "Seen was this.", *re.split("`", sentence)):
        assert part.strip() in text
        assert part.strip() in html


# ---- matrices


def test_a_wrong_mask_is_drawn_next_to_the_expected_one(
    texts: Sentences, grade: Callable[..., SubmissionMarks]
) -> None:
    html = page_of(grade(MASK, "causal_mask"), texts)
    tables = re.findall(r'<table class="grid">.*?</table>', html, re.S)
    actual, expected = (re.findall(r'<td class="(\w+ ?\w*)">([01])</td>', t) for t in tables[:2])
    n = int(len(actual) ** 0.5)
    ones = torch.ones(n, n).int()
    assert [int(v) for _, v in actual] == ones.triu().flatten().tolist()
    assert [int(v) for _, v in expected] == ones.tril().flatten().tolist()
    framed = [int("wrong" in shade) for shade, _ in actual]
    assert framed == (ones - ones.diag().diag()).flatten().tolist()
    assert "of the values shown differ, at (row, column) (0, 1)" in html


def test_feedback_in_words_shows_no_values(
    texts: Sentences, grade: Callable[..., SubmissionMarks]
) -> None:
    marks = grade(MASK, "causal_mask")
    html = page_of(marks, words_only(texts))
    assert texts.tests["causal_mask"]["test_sizes"] in Page(html).text
    assert '<table class="grid"' not in html
    for test in marks.exercises[0].tests:
        seen = test.message.removeprefix(texts.tests["causal_mask"][test.name]).strip()
        assert not seen or seen not in Page(html).text
    raised = Page(page_of(grade(RAISES.format("mine"), "causal_mask"), words_only(texts))).text
    assert "raised RuntimeError: mine" in raised


def test_the_json_has_the_same_keys_and_no_values(grade: Callable[..., SubmissionMarks]) -> None:
    marks = grade(MASK, "causal_mask")
    assert any(test.values for test in marks.exercises[0].tests)
    decoded = json.loads(b"".join(m.encode("day1", [marks])))
    keys = {"name", "points", "max_points", "passed", "message"}
    assert all(set(t) == keys for t in decoded["submissions"][0]["exercises"][0]["tests"])


def test_values_can_be_stored(grade: Callable[..., SubmissionMarks]) -> None:
    nan = "def softmax(x, dim=-1):\n    return x / 0"
    marks = grade(nan, "softmax")
    assert "NaN" in str(marks.exercises[0]) or "∞" in str(marks.exercises[0])
    assert msgspec.json.decode(msgspec.json.encode(marks), type=SubmissionMarks) == marks


@pytest.mark.parametrize("shape", [(3,), (40,), (2, 5), (50, 30), (2, 3, 20, 4)])
def test_a_large_tensor_is_cropped_around_the_wrong_value(shape: tuple[int, ...]) -> None:
    expected = torch.arange(torch.Size(shape).numel()).reshape(shape)
    for where in (0, expected.numel() // 2, expected.numel() - 1):
        seen = expected.clone()
        seen.view(-1)[where] = -1
        values = crop("x", seen, expected, seen == expected, where)
        assert values is not None
        assert _framed(values) == [(-1, where)]
        assert max(len(values.seen), len(values.seen[0])) <= LARGEST


def _framed(values: Values) -> list[tuple[object, object]]:
    rows = zip(values.seen, values.expected, values.wrong, strict=True)
    return [(s, e) for row in rows for s, e, bad in zip(*row, strict=True) if bad]


def test_a_scalar_is_not_drawn() -> None:
    one: Tensor = torch.tensor(1.0)
    assert crop("x", one, one, one == 2, 0) is None


# ---- what the page hides and escapes


def test_no_grader_code_is_shown(texts: Sentences, grade: Callable[..., SubmissionMarks]) -> None:
    html = page_of(grade(MASK, "causal_mask"), texts)
    text = Page(html).text
    for file in texts.day.graders.glob("test_*.py"):
        for line in re.findall(
            r"^ +((?:assert|close|equal|for|return) .{20,})", file.read_text(), re.M
        ):
            assert line not in text


@pytest.mark.parametrize("largest", [sys.float_info.max, -sys.float_info.max, 5e-324, -(2**63)])
def test_extreme_numbers_are_drawn(largest: float, texts: Sentences) -> None:
    values = Values("x", [1, 2], [], 0, 0, [[largest, 0.0]], [[0.0, 0.0]], [[True, False]])
    feedback = to_feedback(exercise(texts, "softmax", {0: "wrong"}, values=values), texts)
    grid = feedback.failed[0].grid
    assert grid is not None
    assert [cell.shade for cell in grid.actual[0]] == ["minus4" if largest < 0 else "plus4", "zero"]
    assert grid.actual[0][0].text in as_html(feedback)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_shown_and_inactive(text: str, texts: Sentences) -> None:
    values = Values(text, [1, 2], [], 0, 0, [[1.0, text]], [[1.0, 2.0]], [[False, True]])
    wrong = exercise(texts, "softmax", {0: text, 1: text * 2}, values=values)
    one = exercise(texts, "attention", dict.fromkeys(range(10), text), "error")
    marks = submission(texts, wrong, one, student=text, path=f"in/{text}", problems=(text,))
    html = page_of(marks, texts)
    check_harmless(html)
    check_harmless(as_html(to_feedback(wrong, texts)))
    assert sanitize(text)[:20].split("`")[0] in Page(html).text


def test_mathjax_does_not_typeset_text_from_students(texts: Sentences) -> None:
    """If MathJax typeset a student's formula in nbgrader's pages, the formula could become a link or cover the points."""
    formula = r"$\kern-9em\href{https://example.org}{\text{4 of 4 points}}$"
    html = as_html(to_feedback(exercise(texts, "softmax", {0: formula}), texts))
    before, _, ignored = html.partition('<div class="autograder tex2jax_ignore mathjax_ignore">')
    assert formula in ignored
    assert "<div" not in before


def test_a_hostile_exception_is_inactive(
    texts: Sentences, grade: Callable[..., SubmissionMarks]
) -> None:
    page = page_of(grade(RAISES.format("".join(HOSTILE[:7])), "causal_mask"), texts)
    check_harmless(page)
    assert "<script>alert(1)</script>" in Page(page).text


def test_pages_stay_in_their_folder_for_any_student_name(texts: Sentences, tmp_path: Path) -> None:
    names = ["../../ada", "ada", "Ada", "/etc/passwd", "", ".", "..", "a/b\\c", "é", "e\u0301"]
    names += [*HOSTILE, "ж" * 300, "aux", "AUX-", "Com1.x"]
    class_ = [unread(student) for student in names]
    files, problems = student_page.write(map(recipient, class_), texts, tmp_path / "pages")
    assert problems == []
    assert len({file.name.casefold() for file in files}) == len(names)
    assert sorted(files) == sorted((tmp_path / "pages").iterdir())
    assert all(re.fullmatch(r"[\w-][\w.-]*\.html", file.name) for file in files)
    assert not any(PureWindowsPath(file.name).is_reserved() for file in files)
