"""A mistake costs once: what calls it is graded with the reference in its place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.grading.grader import Grader
from autograder.marks.model import SubmissionMarks
from autograder.protocol.limits import Limits
from autograder.release.notebook import solution_notebook
from autograder.sandbox.client import Server
from autograder.sandbox.control import WORKER
from autograder.submissions.client import READER
from bench.simulated import known_mistakes
from tests.conftest import ROOT, by_name, handed_in, with_cells

Grade = Callable[..., SubmissionMarks]
COURSE = courses.load(ROOT)
KNOWN = {day.name: known_mistakes(day) for day in COURSE.days.values()}
EXERCISES = [(day.name, exercise) for day in COURSE.days.values() for exercise in day.names]
STUB = """def masked_attention(query, key, value, mask=None):
    raise NotImplementedError("masked_attention")"""
DECODER_ALONE = "def causal_mask(n, device=None):\n    return torch.ones(n, n, dtype=torch.bool)"


@pytest.mark.parametrize("day", list(COURSE.days))
def test_a_right_submission_is_run_once(
    day: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    grader = Grader(COURSE.day(day), server, b"once")
    started: list[str] = []
    start = server.start

    def counted(limits: Limits, service: str = WORKER) -> object:
        started.append(service)
        return start(limits, service)

    monkeypatch.setattr(server, "start", counted)
    grader.grade(handed_in(solution_notebook(grader.day)))
    assert started.count(WORKER) == len(grader.day.exercises)
    assert started.count(READER) == 1


def test_what_was_not_attempted_costs_itself_alone(grade: Grade, solution: NotebookNode) -> None:
    marks = grade(with_cells(solution, {"masked_attention": STUB}))
    assert marks.points == 92
    assert by_name(marks)["MultiHeadAttention"].reference_for == ["masked_attention"]
    assert by_name(marks)["softmax"].reference_for == []


def test_what_hangs_or_dies_costs_itself_alone(grade: Grade, solution: NotebookNode) -> None:
    dying = "import os\ndef softmax(x, dim=-1):\n    os._exit(0)"
    assert grade(with_cells(solution, {"softmax": dying})).points == 96


def test_what_is_not_allowed_costs_itself_alone(grade: Grade, solution: NotebookNode) -> None:
    marks = grade(
        with_cells(solution, {"softmax": "def softmax(x, dim=-1):\n    return x.softmax(dim)"})
    )
    assert by_name(marks)["softmax"].status == "not_allowed"
    assert marks.points == 96


def test_each_of_two_mistakes_costs_itself_alone(grade: Grade, solution: NotebookNode) -> None:
    norm = """class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(d_model)), nn.Parameter(torch.zeros(d_model))
    def forward(self, x):
        return x * self.weight + self.bias"""
    wrong = with_cells(solution, {"causal_mask": DECODER_ALONE, "LayerNorm": norm})
    marks = by_name(grade(wrong))
    short = {name for name, e in marks.items() if e.points < e.max_points}
    assert short == {"causal_mask", "LayerNorm"}
    assert marks["Transformer"].reference_for == ["causal_mask", "LayerNorm"]


def test_a_mistake_of_its_own_is_still_lost(grade: Grade, solution: NotebookNode) -> None:
    loss = """def decoder_mask(tokens, pad_id):
    return causal_mask(tokens.shape[1]) & (tokens == pad_id)[:, None, :]"""
    wrong = with_cells(solution, {"causal_mask": DECODER_ALONE, "decoder_mask": loss})
    marks = by_name(grade(wrong))
    assert marks["decoder_mask"].points < marks["decoder_mask"].max_points
    assert marks["Transformer"].status == "passed"


def test_two_mistakes_that_hide_one_another_cost_themselves_alone(
    grade: Grade, solution: NotebookNode
) -> None:
    """With either one replaced, what calls both is worse off than before."""
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
    short = [e.name for e in grade(wrong).exercises if e.points < e.max_points]
    assert short == ["causal_mask", "masked_attention"]


def test_an_answer_made_for_the_own_code_keeps_that(grade: Grade, solution: NotebookNode) -> None:
    """With all references at once it could not run: the course's own attention takes no such argument."""
    cells = {cell.id: cell.source for cell in solution.cells}
    attention = cells["MultiHeadAttention"].replace("n_heads: int", "n_heads: int, own: bool")
    layer = cells["EncoderLayer"].replace("(d_model, n_heads)", "(d_model, n_heads, own=True)")
    wrong = with_cells(
        solution,
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


def test_no_value_of_a_run_with_reference_code_is_told(
    grade: Grade, solution: NotebookNode
) -> None:
    """Student code that looks for the reference and puts it into its messages finds it in none."""
    spy = """def decoder_mask(tokens, pad_id):
    import sys
    module = sys.modules[__name__]
    found = getattr(causal_mask, "__globals__", {})
    if found.get("__name__") == "reference":
        raise RuntimeError("SPIED " + str(list(found)))
    return causal_mask(tokens.shape[1])"""
    marks = grade(with_cells(solution, {"causal_mask": DECODER_ALONE, "decoder_mask": spy}))
    assert "SPIED" not in str(marks)


@pytest.mark.parametrize(("day", "exercise"), EXERCISES)
def test_a_known_mistake_costs_no_other_exercise(
    day: str, exercise: str, graders: Callable[[str], Grader]
) -> None:
    grader = graders(day)
    mistakes = KNOWN[day][exercise]
    mistake = mistakes[len(mistakes) // 2]
    solved = solution_notebook(grader.day)
    marks = grader.grade(handed_in(with_cells(solved, {exercise: mistake})))
    short = {e.name: e.message for e in marks.exercises if e.points < e.max_points}
    assert list(short) == [exercise], (mistake, short)
