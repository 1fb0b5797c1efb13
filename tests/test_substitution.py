"""Test that a mistake costs points only once: exercises that call the faulty code are graded again with reference solutions."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.execution import catalogue
from autograder.grading.grader import Grader
from autograder.marks.model import SubmissionMarks
from autograder.release.notebook import solution_notebook
from tests.chosen_mistakes import CHOSEN
from tests.conftest import ROOT, by_name, handed_in, with_cells, with_exercises

pytestmark = pytest.mark.slow

Grade = Callable[..., SubmissionMarks]
COURSE = courses.load(ROOT)
# `make names` uses mistakes in all exercises and all changes, and also leaves only some of a pair's exercises empty.
ALL = os.environ.get("NAMES") == "all"
# The number of submissions per day, with mistakes in three to five exercises each.
SUBMISSIONS = 7 if ALL else 2
STUB = """def masked_attention(query, key, value, mask=None):
    raise NotImplementedError("masked_attention")"""
NO_MASK = """def causal_mask(n, device=None):
    raise NotImplementedError("causal_mask")"""
INHERITED = """class DecoderLayer(EncoderLayer):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__(d_model, n_heads, d_ff, dropout)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.norm3 = LayerNorm(d_model)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        attended, _ = self.cross_attention(x, memory, memory, memory_mask)
        x = self.norm2(x + self.dropout(attended))
        return self.norm3(x + self.dropout(self.feed_forward(x)))"""
STUB_BODY = 'raise NotImplementedError("causal_mask")'
ALL_VISIBLE = "def causal_mask(n, device=None):\n    return torch.ones(n, n, dtype=torch.bool)"


@pytest.fixture(scope="module")
def until_attention(solution: NotebookNode, day1: Day) -> NotebookNode:
    """Return a notebook that contains only the exercises up to MultiHeadAttention."""
    names = day1.names[: day1.names.index("MultiHeadAttention") + 1]
    return with_exercises(solution, day1, names)


@pytest.fixture(scope="module")
def masks(solution: NotebookNode, day1: Day) -> NotebookNode:
    """Return a notebook that contains only the exercises about masks."""
    return with_exercises(solution, day1, ("padding_mask", "causal_mask", "decoder_mask"))


def lost(marks: SubmissionMarks) -> list[str]:
    """Return the names of attempted exercises that lost points."""
    attempted = [exercise for exercise in marks.exercises if exercise.status != "not_attempted"]
    return [exercise.name for exercise in attempted if exercise.points < exercise.max_points]


def test_an_exercise_that_was_not_attempted_costs_no_other_points(
    grade: Grade, solution: NotebookNode
) -> None:
    marks = grade(with_cells(solution, {"masked_attention": STUB}))
    assert marks.points == 92
    assert by_name(marks)["MultiHeadAttention"].reference_for == ["masked_attention"]
    assert by_name(marks)["softmax"].reference_for == []


@pytest.mark.parametrize(
    ("status", "body", "replaced"),
    [("crashed", "os._exit(0)", ["softmax"]), ("not_allowed", "return x.softmax(dim)", [])],
)
def test_code_that_cannot_be_tested_costs_no_other_points(
    status: str, body: str, replaced: list[str], grade: Grade, until_attention: NotebookNode
) -> None:
    softmax = f"import os\ndef softmax(x, dim=-1):\n    {body}"
    marks = grade(with_cells(until_attention, {"softmax": softmax}))
    assert by_name(marks)["softmax"].status == status
    assert lost(marks) == ["softmax"]
    assert by_name(marks)["MultiHeadAttention"].reference_for == replaced


def test_a_forbidden_operator_is_shown_without_its_overload(
    grade: Grade, solution: NotebookNode
) -> None:
    """`x.softmax(dim)` calls torch's operator `softmax.int`."""
    softmax = "def softmax(x, dim=-1):\n    return x.softmax(dim)"
    marks = grade(with_cells(solution, {"softmax": softmax}), only="softmax")
    assert "does not allow `softmax`, because" in by_name(marks)["softmax"].message


@pytest.mark.usefixtures("without_recognition")
def test_two_mistakes_cost_only_their_own_exercises(grade: Grade, solution: NotebookNode) -> None:
    norm = """class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(d_model)), nn.Parameter(torch.zeros(d_model))
    def forward(self, x):
        return x * self.weight + self.bias"""
    wrong = with_cells(solution, {"causal_mask": ALL_VISIBLE, "LayerNorm": norm})
    marks = by_name(grade(wrong))
    failed = {name for name, e in marks.items() if e.points < e.max_points}
    assert failed == {"causal_mask", "LayerNorm"}
    assert marks["Transformer"].reference_for == ["causal_mask", "LayerNorm"]


def test_a_further_mistake_in_the_calling_exercise_still_costs_points(
    grade: Grade, masks: NotebookNode
) -> None:
    loss = """def decoder_mask(tokens, pad_id):
    return causal_mask(tokens.shape[1]) & (tokens == pad_id)[:, None, :]"""
    marks = grade(with_cells(masks, {"causal_mask": ALL_VISIBLE, "decoder_mask": loss}))
    assert lost(marks) == ["causal_mask", "decoder_mask"]
    assert by_name(marks)["decoder_mask"].reference_for == ["causal_mask"]


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [("x, memory, memory", "memory mask ignored"), ("x, x, memory, memory_mask", "keys from x")],
)
def test_an_exercise_that_a_mistake_does_not_concern_is_graded_with_the_students_own_code(
    arguments: str, mistake: str, grade: Grade, solution: NotebookNode, day1: Day
) -> None:
    """MultiHeadAttention ignores `bias`, which DecoderLayer does not use. DecoderLayer has its own mistake."""
    cells = {cell.id: cell.source for cell in solution.cells}
    attention = cells["MultiHeadAttention"].replace("bias=bias", "bias=True")
    layer = cells["DecoderLayer"].replace("x, memory, memory, memory_mask", arguments)
    assert layer != cells["DecoderLayer"]
    names = day1.names[: day1.names.index("DecoderLayer") + 1]
    wrong = {"MultiHeadAttention": attention, "DecoderLayer": layer}
    marks = grade(with_cells(with_exercises(solution, day1, names), wrong))
    assert lost(marks) == ["MultiHeadAttention", "DecoderLayer"]
    decoder = by_name(marks)["DecoderLayer"]
    assert (decoder.reference_for, decoder.mistake) == ([], mistake)


def test_a_mistake_is_named_even_if_it_hides_the_effect_of_an_earlier_one(
    grade: Grade, solution: NotebookNode, day1: Day
) -> None:
    """DecoderLayer fails the same tests with the student's and with the reference MultiHeadAttention.

    Its known mistake is recognised only if the reference is used.
    """
    known = catalogue.known_mistakes(day1)
    wrong = {
        name: next(one.source for one in known[name] if one.name == mistake)
        for name, mistake in (
            ("MultiHeadAttention", "masks repeated in the wrong order"),
            ("DecoderLayer", "values from x"),
        )
    }
    names = day1.names[: day1.names.index("DecoderLayer") + 1]
    marks = grade(with_cells(with_exercises(solution, day1, names), wrong))
    decoder = by_name(marks)["DecoderLayer"]
    assert (decoder.reference_for, decoder.mistake) == ([], "values from x")


@pytest.mark.usefixtures("without_recognition")
def test_a_mistake_in_a_base_class_costs_points_only_once(
    grade: Grade, solution: NotebookNode, day1: Day
) -> None:
    """DecoderLayer inherits the layers of EncoderLayer, including a feed-forward network that lacks dropout."""
    encoder = {cell.id: cell.source for cell in solution.cells}["EncoderLayer"]
    wrong = encoder.replace("FeedForward(d_model, d_ff, dropout)", "FeedForward(d_model, d_ff)")
    assert wrong != encoder
    names = day1.names[: day1.names.index("DecoderLayer") + 1]
    answers = {"EncoderLayer": wrong, "DecoderLayer": INHERITED}
    marks = grade(with_cells(with_exercises(solution, day1, names), answers))
    assert lost(marks) == ["EncoderLayer"]
    assert by_name(marks)["DecoderLayer"].reference_for == ["EncoderLayer"]


@pytest.mark.parametrize("decorator", ["@register('causal')", "@TABLE.add"])
@pytest.mark.parametrize("body", ["return torch.ones(n, n, dtype=torch.bool)", STUB_BODY])
def test_a_mistake_in_an_exercise_from_a_table_costs_points_only_once(
    decorator: str, body: str, grade: Grade, masks: NotebookNode
) -> None:
    """A decorator adds `causal_mask` to a table, from which `decoder_mask` takes it."""
    causal = f"""class Table(dict):
    def add(self, function):
        self["causal"] = function
        return function
TABLE = Table()
def register(name):
    def add(function):
        TABLE[name] = function
        return function
    return add
{decorator}
def causal_mask(n, device=None):
    {body}"""
    decoder = """def decoder_mask(tokens, pad_id):
    return padding_mask(tokens, pad_id) & TABLE["causal"](tokens.shape[1], tokens.device)"""
    marks = grade(with_cells(masks, {"causal_mask": causal, "decoder_mask": decoder}))
    full = [e.name for e in marks.exercises[3:6] if e.points == e.max_points]
    assert full == ["padding_mask", "decoder_mask"]
    assert by_name(marks)["decoder_mask"].reference_for == ["causal_mask"]


@pytest.mark.usefixtures("without_recognition")
def test_two_mistakes_that_hide_each_other_cost_only_their_own_exercises(
    grade: Grade, solution: NotebookNode
) -> None:
    """The two mistakes cancel out. An exercise that calls both functions fails more tests if only one function is replaced."""
    inverted = (
        "def causal_mask(n, device=None):\n    return torch.ones(n, n, dtype=torch.bool).triu(1)"
    )
    attention = """def masked_attention(query, key, value, mask=None):
    scores = attention_scores(query, key)
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf)
    weights = softmax(scores).nan_to_num(0)
    return weights @ value, weights"""
    wrong = with_cells(solution, {"causal_mask": inverted, "masked_attention": attention})
    failed = [e.name for e in grade(wrong).exercises if e.points < e.max_points]
    assert failed == ["causal_mask", "masked_attention"]


def test_code_that_needs_more_than_the_reference_offers_keeps_its_dependency(
    grade: Grade, solution: NotebookNode, day1: Day
) -> None:
    """The layer reads an attribute that the reference solution for attention lacks, so only softmax is replaced."""
    cells = {cell.id: cell.source for cell in solution.cells}
    init = "super().__init__()"
    attention = cells["MultiHeadAttention"].replace("n_heads: int", "n_heads: int, own: bool")
    attention = attention.replace(init, f"{init}\n        self.own = own")
    layer = cells["EncoderLayer"].replace(
        "(d_model, n_heads)", "(d_model, n_heads, own=True)\n        assert self.self_attention.own"
    )
    names = day1.names[: day1.names.index("EncoderLayer") + 1]
    wrong = with_cells(
        with_exercises(solution, day1, names),
        {
            "softmax": "def softmax(x, dim=-1):\n    return x",
            "MultiHeadAttention": attention,
            "EncoderLayer": layer,
        },
    )
    marks = by_name(grade(wrong))
    assert marks["MultiHeadAttention"].points == 0
    assert marks["EncoderLayer"].status == "passed"
    assert marks["EncoderLayer"].reference_for == ["softmax"]


@pytest.mark.usefixtures("without_recognition")
def test_a_correct_exercise_that_compensates_for_a_mistake_costs_no_other_points(
    grade: Grade, solution: NotebookNode
) -> None:
    """`decoder_mask` works only with the student's `padding_mask`, so both are replaced when the Transformer is graded."""
    inverted = "def padding_mask(tokens, pad_id):\n    return (tokens == pad_id)[:, None, :]"
    compensating = """def decoder_mask(tokens, pad_id):
    return causal_mask(tokens.shape[1], device=tokens.device) & ~padding_mask(tokens, pad_id)"""
    wrong = with_cells(solution, {"padding_mask": inverted, "decoder_mask": compensating})
    marks = grade(wrong)
    assert lost(marks) == ["padding_mask"]
    assert by_name(marks)["Transformer"].reference_for == ["padding_mask", "decoder_mask"]


@pytest.mark.parametrize(
    "leak",
    [
        "raise RuntimeError(str(secret))",
        "return torch.zeros(secret, 1, 1, dtype=torch.bool)",
        "return torch.full((len(tokens), *own.shape), secret)",
        "return torch.ones(len(tokens), *own.shape).bool(), secret",
        "return str(secret)",
        "return secret",
        "return type(f'N{secret}', (), {})()",
        "raise type(f'N{secret}', (ValueError,), {})()",
    ],
)
def test_messages_reveal_nothing_that_a_reference_to_an_empty_exercise_returned(
    leak: str, grade: Grade, masks: NotebookNode
) -> None:
    """`decoder_mask` encodes what `causal_mask` returned. The second submission shows that messages contain such results."""
    spy = f"""def decoder_mask(tokens, pad_id):
    own = causal_mask(tokens.shape[1])
    secret = 329 * 3000 + int(own.sum())
    {leak}"""
    for unfilled, is_shown in ((NO_MASK, False), (ALL_VISIBLE, True)):
        marks = grade(with_cells(masks, {"causal_mask": unfilled, "decoder_mask": spy}))
        exercise = by_name(marks)["decoder_mask"]
        assert (exercise.points, exercise.reference_for) == (0, ["causal_mask"])
        assert ("987" in str(marks.exercises)) == is_shown, exercise


def test_messages_reveal_nothing_that_a_reference_returned(
    grade: Grade, masks: NotebookNode
) -> None:
    """The student's code leaks what `causal_mask` returns, and earns points only with the reference version of `causal_mask`."""
    spy = """def decoder_mask(tokens, pad_id):
    own = causal_mask(tokens.shape[1])
    if pad_id not in (0, 6):
        raise RuntimeError(f"SPIED {bool(own.all())}")
    return own & (tokens != pad_id)[:, None, :]"""
    marks = grade(with_cells(masks, {"causal_mask": ALL_VISIBLE, "decoder_mask": spy}))
    exercise = by_name(marks)["decoder_mask"]
    assert (exercise.status, exercise.reference_for) == ("partial", ["causal_mask"])
    # The first run shows what the student's own version returns.
    assert "SPIED True" in str(marks)
    assert "SPIED False" not in str(marks)


@pytest.mark.parametrize(
    ("unfilled", "error"),
    [
        (NO_MASK, "`causal_mask` is not finished"),
        ("# deleted", "name 'causal_mask' is not defined"),
    ],
)
def test_if_an_exercise_has_no_solution_the_place_of_later_errors_is_shown(
    grade: Grade, masks: NotebookNode, unfilled: str, error: str
) -> None:
    """The first run stops because `causal_mask` is not implemented. In the second, only an error's type and place are shown."""
    wrong = """def decoder_mask(tokens, pad_id):
    own = causal_mask(tokens.shape[1])
    raise IndexError(f"SPIED {bool(own.all())}")"""
    marks = grade(with_cells(masks, {"causal_mask": unfilled, "decoder_mask": wrong}))
    exercise = by_name(marks)["decoder_mask"]
    assert exercise.reference_for == ["causal_mask"]
    for text in (exercise.tests[0].message, exercise.tests[0].message_without_values):
        assert "your code raised IndexError (cell " in text
        assert "line 3: `raise IndexError(" in text
    assert "SPIED True" not in str(marks)
    assert "SPIED False" not in str(marks)
    assert error not in str(exercise)


def test_errors_that_occur_only_with_references_are_shown_after_those_with_own_code(
    grade: Grade, masks: NotebookNode
) -> None:
    """`decoder_mask` fails tests with the student's `causal_mask`. With the reference, it raises an error for some inputs."""
    wrong = """def decoder_mask(tokens, pad_id):
    own = causal_mask(tokens.shape[1])
    if not own.all() and pad_id not in (0, 6):
        raise IndexError(f"SPIED {bool(own.all())}")
    return own & (tokens != pad_id)[:, None, :]"""
    marks = grade(with_cells(masks, {"causal_mask": ALL_VISIBLE, "decoder_mask": wrong}))
    exercise = by_name(marks)["decoder_mask"]
    assert (exercise.status, exercise.reference_for) == ("partial", ["causal_mask"])
    also = "; with the course's own `causal_mask` instead, your code raised IndexError (cell "
    shown = [test.message for test in exercise.tests if also in test.message]
    assert shown
    assert all("line 4: `raise IndexError(" in text for text in shown)
    assert "SPIED False" not in str(marks)


@pytest.mark.usefixtures("without_recognition")
@pytest.mark.parametrize(
    ("name", "empty", "edit", "observed"),
    [
        (
            "generate",
            "next_token_probabilities",
            (
                "    if prompt.shape[1] + n_tokens",
                "    model.eval()\n    if prompt.shape[1] + n_tokens",
            ),
            "the call that raised a ValueError left the model in evaluation mode",
        ),
        (
            "generate",
            "next_token_probabilities",
            ("    model.train(was_training)\n", ""),
            "the model was in training mode before the call but in evaluation mode after it",
        ),
        (
            "GPTBlock",
            "CausalSelfAttention",
            ("nn.Linear(d_model, d_ff)", "nn.Linear(d_model, d_ff + 1)"),
            "the parameter `linear1.weight` should have shape (10, 6)",
        ),
        (
            "ViT",
            "PatchEmbedding",
            ("tokens[:, 0]", "tokens[:, :1]"),
            "the result should have shape (3, 5); yours has shape (3, 1, 5)",
        ),
        (
            "DecoderLayer",
            "LayerNorm",
            ("self.norm3(x", "self.norm2(x"),
            "no gradient reaches `norm3.weight`",
        ),
        (
            "Transformer",
            "FeedForward",
            ("return self.output(x)", "return self.output(x)[..., 1:]"),
            "; yours has a different shape",
        ),
    ][:: 1 if ALL else 2],
)
def test_with_empty_exercises_the_feedback_says_what_was_observed(
    name: str,
    empty: str,
    edit: tuple[str, str],
    observed: str,
    graders: Callable[[str], Grader],
) -> None:
    grader = graders(next(day.name for day in COURSE.days.values() if name in day.names))
    notebook = solution_notebook(grader.day)
    source = next(cell.source for cell in notebook.cells if cell.id == name)
    assert edit[0] in source
    names = {*grader.day.names[: grader.day.names.index(name) + 1]} - {empty}
    work = with_cells(
        with_exercises(notebook, grader.day, names), {name: source.replace(edit[0], edit[1])}
    )
    exercise = by_name(grader.grade(handed_in(work)))[name]
    sentences = {test.name: test.sentence for test in grader.key.tests[name]}
    messages = [t.message.removeprefix(sentences[t.name]) for t in exercise.tests if not t.passed]
    assert exercise.reference_for == [empty]
    assert all(messages), messages
    assert observed in str(messages)


@dataclass(frozen=True)
class Pair:
    """Changes to two or more solutions: the first exercise is wrong, and the others are right only with this version of it.

    `empty` and `wrong` are other exercises that `right` calls.
    """

    day: str
    right: str
    edits: Mapping[str, tuple[str, str]]
    empty: tuple[str, ...]
    wrong: tuple[str, ...]


PAIRS = [
    Pair(
        "day1",
        "EncoderLayer",
        {
            "FeedForward": (
                "self.linear2(self.dropout(torch.relu(self.linear1(x))))",
                "self.dropout(self.linear2(self.dropout(torch.relu(self.linear1(x)))))",
            ),
            "EncoderLayer": ("self.dropout(self.feed_forward(x))", "self.feed_forward(x)"),
        },
        ("LayerNorm", "split_heads"),
        ("merge_heads", "softmax"),
    ),
    Pair(
        "day1",
        "DecoderLayer",
        {
            "MultiHeadAttention": ("merge_heads(heads)), weights", "merge_heads(heads))"),
            "DecoderLayer": ("attended, _ =", "attended ="),
        },
        ("FeedForward", "masked_attention"),
        ("LayerNorm", "softmax"),
    ),
    Pair(
        "day1",
        "Transformer",
        {
            "padding_mask": (".unsqueeze(1)", ""),
            "decoder_mask": ("(tokens, pad_id)", "(tokens, pad_id)[:, None]"),
            "Transformer": ("(source, self.pad_id)", "(source, self.pad_id)[:, None]"),
        },
        ("EncoderLayer", "causal_mask"),
        ("PositionalEncoding", "DecoderLayer"),
    ),
    Pair(
        "day2",
        "GPT",
        {
            "GPTBlock": ("return x + self.dropout(self.linear2(hidden))", "return [x + self.dropout(self.linear2(hidden))]"),
            "GPT": ("if caches is not None else None)", "if caches is not None else None)[0]"),
        },
        ("CausalSelfAttention",),
        (),
    ),
    Pair(
        "day2",
        "ViT",
        {
            "PatchEmbedding": (" + self.position", ".add(self.position).flip(1)"),
            "ViT": ("tokens[:, 0]", "tokens[:, -1]"),
        },
        ("patchify",),
        (),
    ),
]  # fmt: skip


@pytest.mark.usefixtures("without_recognition")
@pytest.mark.parametrize("pair", PAIRS[:: 1 if ALL else 3], ids=lambda pair: pair.right)
def test_an_exercise_that_is_right_with_a_wrong_one_keeps_its_points_whatever_else_is_empty_or_wrong(
    pair: Pair, graders: Callable[[str], Grader]
) -> None:
    grader = graders(pair.day)
    day, notebook = grader.day, solution_notebook(grader.day)
    known = catalogue.known_mistakes(day)
    cells = {cell.id: cell.source for cell in notebook.cells}
    edits = {name: cells[name].replace(*edit) for name, edit in pair.edits.items()}
    assert all(edits[name] != cells[name] for name in edits)
    until = day.names[: day.names.index(pair.right) + 1]
    draw = random.Random(pair.right)
    for empty in dict.fromkeys([(), pair.empty[: 1 if ALL else None], pair.empty]):
        wrong = {name: draw.choice(known[name]).source for name in pair.wrong if empty}
        present = with_exercises(notebook, day, {*until} - {*empty})
        marks = by_name(grader.grade(handed_in(with_cells(present, {**wrong, **edits}))))
        assert marks[next(iter(edits))].status in ("partial", "failed")
        for name in [*edits][1:]:
            exercise = marks[name]
            assert exercise.points == exercise.max_points, (empty, wrong, exercise)


@pytest.mark.parametrize("day", list(COURSE.days))
@pytest.mark.parametrize("first", range(SUBMISSIONS))
def test_known_mistakes_cost_only_their_exercises_and_are_recognised(
    day: str, first: int, graders: Callable[[str], Grader]
) -> None:
    """For each chosen exercise, exactly one of the submissions contains a known mistake."""
    grader = graders(day)
    exercises = [name for name in grader.day.names if ALL or name in CHOSEN[day]]
    mistakes = {
        # With some other draws, two wrong scales partly cancel each other out.
        name: random.Random(f"{name} 1").choice(own)
        for name in exercises[first::SUBMISSIONS]
        if (own := grader.exercises.recognizer.mistakes[name])
    }
    sources = {name: mistake.source for name, mistake in mistakes.items()}
    marks = grader.grade(handed_in(with_cells(solution_notebook(grader.day), sources)))
    recognised = {e.name: e.mistake for e in marks.exercises if e.points < e.max_points}
    assert recognised == {name: mistake.name for name, mistake in mistakes.items()}
