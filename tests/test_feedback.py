"""The student's page: the most useful thing first, nothing hidden, nothing that a student wrote alive."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from autograder.course.config import Day
from autograder.execution.differences import LARGEST, drawn
from autograder.feedback import sentences, student_page
from autograder.feedback.causes import plain
from autograder.feedback.sentences import Texts
from autograder.grading.grader import Grader
from autograder.marks import model as m
from autograder.marks.model import Status, SubmissionMarks, Values
from tests.material import HOSTILE, Page, check_harmless, exercise, submission, unread, untouched

MASK = "import torch\ndef causal_mask(n, device=None):\n    return torch.ones(n, n).bool().triu()"
RAISES = "def causal_mask(n, device=None):\n    raise RuntimeError({!r})"


@pytest.fixture(scope="module")
def words(day1: Day, grader: Grader) -> Texts:
    return sentences.read(day1, grader.key.tests)


def silent(words: Texts) -> Texts:
    return replace(words, day=replace(words.day, feedback="words"))


# ---- what is told


def test_a_right_submission_has_nothing_to_do(words: Texts) -> None:
    text = Page(student_page.page(submission(words), words)).text
    assert "100 of 100 points" in text
    assert "nothing to mend" in text
    assert "What to do next" not in text


def test_every_exercise_stands_in_order_with_its_status_in_words(words: Texts) -> None:
    marks = submission(words, exercise(words, "softmax", {0: "no"}), untouched(words, "LayerNorm"))
    html = student_page.page(marks, words)
    table = html[html.index("<table") : html.index("</table>")]
    assert re.findall(r"<code>(\w+)</code>", table) == list(words.day.names)
    assert [Page(table).text.count(s) for s in ("partly right", "not filled in")] == [1, 1]


def test_the_mistake_comes_first(words: Texts) -> None:
    name, sentence = next(iter(words.mistakes["softmax"].items()))
    marks = submission(words, exercise(words, "softmax", {1: "seen was this"}, mistake=name))
    text = Page(student_page.page(marks, words)).text
    section = text[text.index("What to look at again") :]
    first = sentence.split("`")[0].strip()
    assert 0 < section.index(first) < section.index("Seen was this.")


def test_one_reason_for_all_is_told_once(words: Texts) -> None:
    failed = dict.fromkeys(range(5), "there was no answer within 5 s")
    page = Page(student_page.page(submission(words, exercise(words, "softmax", failed)), words))
    assert page.text.count("There was no answer within 5 s.") == 1


RAISED = "`softmax` raised IndexError: index {} is out of bounds (cell 9, line 4: `x[i]`)"


def test_one_cause_is_told_once_though_its_numbers_differ(words: Texts) -> None:
    failed = {n: RAISED.format(n) for n in range(4)}
    failed[4] = (
        "when d is 7, a ValueError should be raised; seen: IndexError: index 9 is out of bounds"
    )
    page = Page(student_page.page(submission(words, exercise(words, "softmax", failed)), words))
    assert page.text.count("IndexError") == 1
    assert "cell 9, line 4: x[i] )" in page.text


@pytest.mark.parametrize(
    ("seen", "part"),
    [
        ("the {} should be a tensor, it is None (is a return missing?)", "is a return missing?"),
        ("the {} should have the dtype int64, yours has float32", "yours has float32"),
        ("`f`: there is no parameter `weight`; it has {}", "there is no parameter"),
        ("`f` raised Exception: {} (cell 3, line 1: `x`)", "Exception"),
    ],
)
def test_the_same_of_several_results_is_told_once(words: Texts, seen: str, part: str) -> None:
    failed = {n: seen.format(n) for n in range(5)}
    page = Page(student_page.page(submission(words, exercise(words, "softmax", failed)), words))
    assert page.text.count(part) == 1


def test_another_cause_is_not_hidden_behind_the_first(words: Texts) -> None:
    failed = {**{n: RAISED.format(n) for n in range(4)}, 4: "3 of 4 values are wrong"}
    told = student_page.told(exercise(words, "softmax", failed), words)
    assert not told.reason
    assert [lost.seen for lost in told.lost] == [
        "`softmax` raised IndexError: index 0 is out of bounds (cell 9, line 4: `x[i]`).",
        "3 of 4 values are wrong.",
        *["IndexError again, as above."] * 3,
    ]


def test_what_another_exercise_did_to_all_tests_is_no_reason(words: Texts) -> None:
    failed = {n: RAISED.format(n) for n in range(4)}
    told = student_page.told(
        exercise(words, "attention", failed, reference_for=("softmax",)), words
    )
    assert told.open == 2
    for text in (student_page.text(told), Page(student_page.fragment(told)).text):
        assert text.count("IndexError") == 1
        assert "Mend" in text


@pytest.mark.parametrize("status", ["not_allowed", "error"])
def test_what_was_not_run_is_not_said_to_fail(words: Texts, status: Status) -> None:
    all_of_them = dict.fromkeys(range(len(words.tests["softmax"])), "it uses `torch.softmax`")
    told = student_page.told(exercise(words, "softmax", all_of_them, status), words)
    for text in (student_page.text(told), Page(student_page.fragment(told)).text):
        assert "not run" in text.lower()
        assert "did not hold" not in text.lower()


def test_no_memory_is_said_in_words() -> None:
    torchs = (
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 40000000000 bytes. Error code 12 (Cannot allocate memory)"
    )
    assert plain(f"`f` raised RuntimeError: {torchs} (cell 3, line 1)") == (
        "`f` raised RuntimeError: there is no memory for another 40 GB (cell 3, line 1)"
    )


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ("position 0 should see itself", "Position 0 should see itself."),
        ("a ValueError is due", "A ValueError is due."),
        ("x + gelu(z): wrong", "x + gelu(z): wrong."),
        ("d_model is 10", "d_model is 10."),
        ("ᾱ for 3 steps: wrong", "ᾱ for 3 steps: wrong."),
    ],
)
def test_a_message_is_a_sentence_and_a_name_stays_a_name(
    words: Texts, seen: str, said: str
) -> None:
    told = student_page.told(exercise(words, "softmax", {0: seen}), words)
    assert told.lost[0].seen == said


def test_an_error_shows_the_line_of_code(grade: Callable[..., SubmissionMarks]) -> None:
    marks = grade("def causal_mask(n, device=None):\n    m = [1][n]", "causal_mask")
    assert "(cell 1, line 2: `m = [1][n]`)" in marks.exercises[0].message


def test_the_reference_for_another_exercise_is_good_news(words: Texts) -> None:
    wrong = exercise(words, "softmax", {0: "no"})
    full = exercise(words, "attention", reference_for=("softmax",))
    part = exercise(words, "masked_attention", {3: "no"}, reference_for=("softmax",))
    text = Page(student_page.page(submission(words, wrong, full, part), words)).text
    assert re.search(r"Begin with softmax : attention and masked_attention use it", text)
    assert re.search(r"attention , with the course's softmax", text)
    assert "so that a mistake there costs points only once" in text


def test_next_steps_name_the_first_the_largest_and_what_is_empty(words: Texts) -> None:
    small = exercise(words, "softmax", {0: "no"})
    large = exercise(words, "Transformer", dict.fromkeys(range(9), "no"))
    told = [student_page.told(e, words) for e in (small, large, untouched(words, "LayerNorm"))]
    first, second, third, _ = student_page.next_steps(told)
    assert first == "Begin with `softmax`."
    assert second.startswith("Then `Transformer`")
    assert third.startswith("1 exercise is not filled in yet, worth 5 points; `LayerNorm`")


def test_a_name_that_is_nowhere_is_told_apart_from_a_stub(
    words: Texts, grade: Callable[..., SubmissionMarks]
) -> None:
    page = Page(
        student_page.page(grade("def soft_max(x, dim=-1):\n    return x", "softmax"), words)
    )
    assert "no function or class of this name was found" in page.text
    assert "not found" in page.text
    assert "not filled in" not in page.text


def test_what_can_not_be_read_is_said_and_what_to_do(words: Texts) -> None:
    text = Page(student_page.page(unread(problem="not a notebook: cut off"), words)).text
    assert "could not be read" in text
    assert "not a notebook: cut off" in text
    assert "All exercises" not in text


def test_the_notebook_reads_what_the_page_says(words: Texts) -> None:
    name, sentence = next(iter(words.mistakes["softmax"].items()))
    told = student_page.told(exercise(words, "softmax", {1: "seen was this"}, mistake=name), words)
    text, html = student_page.text(told), Page(student_page.fragment(told)).text
    for part in (told.status_words, "Seen was this.", *re.split("`", sentence)):
        assert part.strip() in text
        assert part.strip() in html


# ---- values


def test_the_mask_that_came_out_stands_beside_the_one_that_was_due(
    words: Texts, grade: Callable[..., SubmissionMarks]
) -> None:
    html = student_page.page(grade(MASK, "causal_mask"), words)
    tables = re.findall(r'<table class="grid">.*?</table>', html, re.S)
    came, due = (re.findall(r'<td class="(\w+ ?\w*)">([01])</td>', t) for t in tables[:2])
    n = int(len(came) ** 0.5)
    ones = torch.ones(n, n).int()
    assert [int(v) for _, v in came] == ones.triu().flatten().tolist()
    assert [int(v) for _, v in due] == ones.tril().flatten().tolist()
    framed = [int("wrong" in shade) for shade, _ in came]
    assert framed == (ones - ones.diag().diag()).flatten().tolist()
    assert "of the values shown differ, at (row, column) (0, 1)" in html


def test_words_only_tells_neither_values_nor_what_was_due(
    words: Texts, grade: Callable[..., SubmissionMarks]
) -> None:
    marks = grade(MASK, "causal_mask")
    html = student_page.page(marks, silent(words))
    assert words.tests["causal_mask"]["test_sizes"] in Page(html).text
    assert '<table class="grid"' not in html
    for test in marks.exercises[0].tests:
        seen = test.message.removeprefix(words.tests["causal_mask"][test.name]).strip()
        assert not seen or seen not in Page(html).text
    raised = Page(
        student_page.page(grade(RAISES.format("mine"), "causal_mask"), silent(words))
    ).text
    assert "raised RuntimeError: mine" in raised


def test_the_json_has_its_keys_and_no_values(grade: Callable[..., SubmissionMarks]) -> None:
    marks = grade(MASK, "causal_mask")
    assert any(test.values for test in marks.exercises[0].tests)
    plain = json.loads(b"".join(m.encode("day1", [marks])))
    keys = {"name", "points", "max_points", "passed", "message"}
    assert all(set(t) == keys for t in plain["submissions"][0]["exercises"][0]["tests"])


def test_values_survive_a_store(grade: Callable[..., SubmissionMarks]) -> None:
    nan = "def softmax(x, dim=-1):\n    return x / 0"
    marks = grade(nan, "softmax")
    assert "NaN" in str(marks.exercises[0]) or "∞" in str(marks.exercises[0])
    assert msgspec.json.decode(msgspec.json.encode(marks), type=SubmissionMarks) == marks


@pytest.mark.parametrize("shape", [(3,), (40,), (2, 5), (50, 30), (2, 3, 20, 4)])
def test_a_large_tensor_is_cut_around_what_is_wrong(shape: tuple[int, ...]) -> None:
    expected = torch.arange(torch.Size(shape).numel()).reshape(shape)
    for where in (0, expected.numel() // 2, expected.numel() - 1):
        seen = expected.clone()
        seen.view(-1)[where] = -1
        values = drawn("x", seen, expected, seen == expected, where)
        assert values is not None
        assert _framed(values) == [(-1, where)]
        assert max(len(values.seen), len(values.seen[0])) <= LARGEST


def _framed(values: Values) -> list[tuple[object, object]]:
    rows = zip(values.seen, values.expected, values.wrong, strict=True)
    return [(s, e) for row in rows for s, e, bad in zip(*row, strict=True) if bad]


def test_a_number_is_not_drawn() -> None:
    one: Tensor = torch.tensor(1.0)
    assert drawn("x", one, one, one == 2, 0) is None


# ---- what is not told


def test_no_code_of_the_graders_is_told(
    words: Texts, grade: Callable[..., SubmissionMarks]
) -> None:
    html = student_page.page(grade(MASK, "causal_mask"), words)
    text = Page(html).text
    for file in words.day.graders.glob("test_*.py"):
        for line in re.findall(
            r"^ +((?:assert|close|equal|for|return) .{20,})", file.read_text(), re.M
        ):
            assert line not in text


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_shown_and_does_nothing(text: str, words: Texts) -> None:
    values = Values(text, [1, 2], [], 0, 0, [[1.0, text]], [[1.0, 2.0]], [[False, True]])
    wrong = exercise(words, "softmax", {0: text, 1: text * 2}, values=values)
    one = exercise(words, "attention", dict.fromkeys(range(10), text), "error")
    marks = submission(words, wrong, one, student=text, path=f"in/{text}", problems=(text,))
    html = student_page.page(marks, words)
    check_harmless(html)
    check_harmless(student_page.fragment(student_page.told(wrong, words)))
    assert m.sanitize(text)[:20].split("`")[0] in Page(html).text


def test_a_hostile_exception_does_nothing(
    words: Texts, grade: Callable[..., SubmissionMarks]
) -> None:
    page = student_page.page(grade(RAISES.format("".join(HOSTILE[:7])), "causal_mask"), words)
    check_harmless(page)
    assert "<script>alert(1)</script>" in Page(page).text


def test_pages_stay_in_their_folder_whatever_students_are_called(
    words: Texts, tmp_path: Path
) -> None:
    names = ["../../ada", "ada", "Ada", "/etc/passwd", "", ".", "..", "a/b\\c", "é", "e\u0301"]
    names += [*HOSTILE, "ж" * 300]
    class_ = [unread(student) for student in names]
    files, problems = student_page.write(class_, words, tmp_path / "pages")
    assert problems == []
    assert len({file.name.casefold() for file in files}) == len(names)
    assert sorted(files) == sorted((tmp_path / "pages").iterdir())
    assert all(re.fullmatch(r"[\w-][\w.-]*\.html", file.name) for file in files)
