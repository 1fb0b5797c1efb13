"""Test that every submission gets marks, and that code that hangs, crashes or cheats affects only its own exercise."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import RunSettings
from autograder.grading.exercise_grader import seeded
from autograder.grading.grader import Grader, StandInCopies
from autograder.grading.runner import Runner, passed_by_trivial_answers
from autograder.marks.model import SubmissionMarks
from autograder.sandbox.client import Server
from autograder.slicing.slicer import Slice, Slicer, SlicingError
from autograder.submissions.reader_messages import Statement
from autograder.submissions.submission import Submission
from tests import small_course
from tests.conftest import SECRET, grade_one, handed_in, with_cells

pytestmark = pytest.mark.slow

Grade = Callable[..., SubmissionMarks]

CPU_SECONDS = 0.5


@pytest.fixture(scope="module")
def small(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Grader:
    """Return a grader for the small course, with a time limit short enough to stop endless loops quickly."""
    day = courses.load(small_course.make(tmp_path_factory.mktemp("course"))).day("day1")
    exercises = tuple(
        replace(exercise, limits=replace(exercise.limits, cpu_seconds=CPU_SECONDS))
        for exercise in day.exercises
    )
    return Grader(replace(day, exercises=exercises), server, SECRET)


def with_mask(source: str, first_line: str = "") -> Submission:
    """Return a submission for the small course with this code for padding_mask, and a correct split_heads.

    `first_line` is the first line of split_heads's body.
    """
    heads = small_course.CHAPTERS["heads"].replace("    b, n", f"    {first_line}\n    b, n")
    return handed_in(f"# %%\n{source}\n{heads}")


ENDLESS = "def padding_mask(tokens, pad_id):\n    while True: pass"
BROKEN = {
    "never ends": (ENDLESS, "timed_out"),
    "exits the process": (
        "import os\ndef padding_mask(tokens, pad_id):\n    os._exit(0)",
        "crashed",
    ),
    "exits": ("import sys\ndef padding_mask(tokens, pad_id):\n    sys.exit()", "failed"),
    "allocates 100 GB": (
        "import torch\ndef padding_mask(tokens, pad_id):\n    return torch.ones(25 * 10**9)",
        "failed",
    ),
    "raises a message of 10 MB": (
        "def padding_mask(tokens, pad_id):\n    raise RuntimeError('é' * 10_000_000)",
        "failed",
    ),
    "returns itself": ("def padding_mask(tokens, pad_id):\n    return padding_mask", "failed"),
    "returns an endless list": (
        "def padding_mask(tokens, pad_id):\n    a = []\n    a.append(a)\n    return a",
        "failed",
    ),
    "is not callable": ("padding_mask = 3", "failed"),
    "raises while it is loaded": ("padding_mask = 1 / 0", "error"),
    "needs a global that is never computed": (
        "def endless():\n    while True: pass\nN = endless()\ndef padding_mask(tokens, pad_id):\n    return N",
        "failed",
    ),
}


@pytest.mark.parametrize(("source", "status"), BROKEN.values(), ids=BROKEN)
def test_broken_code_affects_only_its_exercise(source: str, status: str, small: Grader) -> None:
    mask, heads = small.grade(with_mask(source)).exercises
    assert mask.status == status
    assert mask.points == 0
    assert 0 < len(mask.message) <= 2000
    assert heads.status == "passed", heads.message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "os._exit(3)",
            "the code ended its Python process (exit code 3), for example with `os._exit`",
        ),
        ("sys.exit()", "raised SystemExit; this call ends Python"),
        ("exit()", "name 'exit' is not defined; this call ends Python"),
        ("os.abort()", "the code crashed its Python process (exit code -"),
    ],
)
def test_code_that_ends_python_is_distinguished_from_a_crash(
    call: str, message: str, small: Grader
) -> None:
    code = f"import os, sys\ndef padding_mask(tokens, pad_id):\n    {call}"
    mask, _ = small.grade(with_mask(code)).exercises
    assert message in mask.message


def test_an_endless_loop_costs_an_exercise_that_calls_it_no_points(small: Grader) -> None:
    mask, heads = small.grade(with_mask(ENDLESS, "padding_mask(x, 0)")).exercises
    assert (mask.status, heads.status) == ("timed_out", "passed")
    assert heads.reference_for == ["padding_mask"]


def test_marks_of_the_first_run_survive_if_references_cannot_be_used(
    small: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise SlicingError("out of time")

    monkeypatch.setattr(Slicer, "slice_again", fail)
    wrong = "def padding_mask(tokens, pad_id):\n    return 1 / 0"
    marks = small.grade(with_mask(wrong, "padding_mask(x, 0)"))
    assert [exercise.status for exercise in marks.exercises] == ["failed", "failed"]
    assert marks.problems == ["exercises could not be graded again: out of time"]
    assert marks.code
    # The first run is also evaluated: its code is shown, and a known mistake is named.
    assert all(exercise.statements for exercise in marks.exercises)


def test_code_that_is_too_long_to_run_is_reported(small: Grader) -> None:
    source = "TABLE = '{}'\ndef padding_mask(tokens, pad_id):\n    return TABLE and (tokens != pad_id).unsqueeze(1)"
    mask, heads = small.grade(with_mask(source.format("x" * 1_000_000), "padding_mask")).exercises
    assert (mask.status, mask.points) == ("error", 0)
    assert "longer than 1,000,000 bytes" in mask.message
    assert (heads.status, heads.reference_for) == ("passed", ["padding_mask"])
    assert small.grade(with_mask(source.format("x" * 990_000))).points == 100


def test_a_statement_that_times_out_is_reported_and_left_out(small: Grader) -> None:
    source = """\
def padding_mask(tokens, pad_id):
    return (tokens != pad_id).unsqueeze(1)
def endless(f):
    while True: pass
padding_mask.table = endless(padding_mask)
"""
    marks = small.grade(with_mask(source))
    assert marks.points == 100, [exercise.message for exercise in marks.exercises]
    assert any(
        "line 5: the statement did not finish within 0.5 s" in problem for problem in marks.problems
    )


@pytest.mark.parametrize(
    ("first", "hint"),
    [
        ("import no_such_package", "; an import failed: No module named 'no_such_package'"),
        (
            "",
            "; check the spelling, and whether `self.` is missing; if this name is a notebook variable",
        ),
    ],
)
def test_an_undefined_name_is_explained(first: str, hint: str, small: Grader) -> None:
    code = f"{first}\ndef padding_mask(tokens, pad_id):\n    return no_such_package.mask(tokens)"
    messages = [test.message for test in small.grade(with_mask(code)).exercises[0].tests]
    assert any(f"name 'no_such_package' is not defined{hint}" in text for text in messages)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("x -= x.amax(dim, keepdim=True)", "in-place operation; the code changes an argument"),
        ("x = x.exp(); x /= x.sum(dim, keepdim=True)", "inplace operation; compute a new tensor"),
    ],
)
def test_an_operation_in_place_is_explained(change: str, hint: str, grade: Grade) -> None:
    code = f"def softmax(x, dim=-1):\n    {change}\n    return x.exp() / x.exp().sum(dim, keepdim=True)"
    messages = [test.message for test in grade(code, only="softmax").exercises[0].tests]
    assert any(hint in text for text in messages)


def test_correct_code_may_print_warn_and_use_threads(grade: Grade, solution: NotebookNode) -> None:
    noisy = """
import sys, threading, warnings
CACHE = {}
def helper(n, device):
    warnings.warn("careful")
    print("thinking")
    print("still thinking", file=sys.stderr)
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()
def causal_mask(n, device=None):
    found = []
    thread = threading.Thread(target=lambda: found.append(helper(n, device)))
    thread.start()
    thread.join()
    CACHE[n] = found[0]
    return CACHE[n]
"""
    for name in ("causal_mask", "decoder_mask"):
        (exercise,) = grade(with_cells(solution, {"causal_mask": noisy}), only=name).exercises
        assert exercise.status == "passed", exercise.message


def test_cells_may_be_reordered_duplicated_and_lose_their_metadata(
    grade: Grade, solution: NotebookNode
) -> None:
    mangled = nbformat.from_dict(solution)
    definitions = [c for c in mangled.cells if c.metadata.get("nbgrader", {}).get("solution")]
    for cell in definitions:
        cell.metadata = {}
    mangled.cells = [*definitions[::-1], *definitions[:3]]
    assert grade(mangled).points == 100


def test_the_hash_of_the_code_covers_only_what_is_graded(small: Grader) -> None:
    def code(*cells: str) -> str:
        return small.grade(handed_in("\n".join(cells))).code

    whole = code(small_course.RIGHT)
    assert whole
    assert code(small_course.WRONG + "\nx = 1\n", small_course.RIGHT + "# mine") == whole
    assert code(small_course.RIGHT, small_course.WRONG) != whole
    assert code("x = 1") == ""


def test_a_syntax_error_affects_only_its_cell(small: Grader) -> None:
    marks = small.grade(with_mask("def padding_mask(tokens, pad_id:\n  pass"))
    assert [exercise.status for exercise in marks.exercises] == ["not_attempted", "passed"]
    assert any("SyntaxError" in problem for problem in marks.problems)


def test_forbidden_functions_earn_nothing(grade: Grade, solution: NotebookNode) -> None:
    ways = [
        "def softmax(x, dim=-1):\n    return torch.softmax(x, dim)",
        "def softmax(x, dim=-1):\n    return x.softmax(dim)",
        "def softmax(x, dim=-1):\n    return getattr(torch, 'soft' + 'max')(x, dim)",
        "def softmax(x, dim=-1):\n    return torch.ops.aten._softmax(x, dim, False)",
        """
def softmax(x, dim=-1):
    try:
        x.softmax(dim)
    except Exception:
        pass
    e = (x - x.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True)""",
    ]
    for way in ways:
        softmax = grade(with_cells(solution, {"softmax": way}), only="softmax").exercises[0]
        assert (softmax.status, softmax.points) == ("not_allowed", 0), way
        assert "softmax" in softmax.message


GROUPED = """
import torch
import torch.nn.functional as F
def grouped_query_attention(query, key, value, mask=None):
    h, g = query.shape[1], key.shape[1]
    if h % g:
        raise ValueError("the number of heads h must be a multiple of g")
    empty = None if mask is None else ~mask.any(-1, keepdim=True)
    mask = mask if mask is None else mask | empty
    OUT
    return out if mask is None else out.masked_fill(empty, 0.0)
"""
FORBIDDEN_OPTIONS = (
    "out = F.scaled_dot_product_attention(query, key, value, mask, **{'enable_gqa': True})",
    "out = torch.ops.aten.scaled_dot_product_attention(query, key, value, mask, **{'enable_' + 'gqa': True})",
    "f = getattr(torch, '_scaled_dot_product_attention_math')\n"
    "    out = f(query, key, value, mask, **{'enable_' + 'gqa': True})[0]",
)
ALLOWED = "out = F.scaled_dot_product_attention(query, *(t.repeat_interleave(h // g, 1) for t in (key, value)), mask)"


def test_a_forbidden_option_earns_nothing(graders: Callable[[str], Grader]) -> None:
    for code in (*FORBIDDEN_OPTIONS, ALLOWED):
        submission = handed_in(GROUPED.replace("OUT", code))
        marks = grade_one(graders("day2"), submission, "grouped_query_attention").exercises[0]
        assert marks.status == ("passed" if code is ALLOWED else "not_allowed"), marks.message


def test_mentioning_a_forbidden_name_is_allowed(grade: Grade, solution: NotebookNode) -> None:
    honest = '''
import torch.testing, torch.distributions as dist
from torch.nn.functional import log_softmax, softmax, relu
def log_softmax(x, dim):  # my own torch.log_softmax
    """Like torch.softmax, in logs."""
    return x - x.logsumexp(dim, keepdim=True)
def softmax(x, dim=-1):
    print("F.softmax")
    return log_softmax(x, dim).exp()
'''
    softmax = grade(with_cells(solution, {"softmax": honest}), only="softmax").exercises[0]
    assert softmax.status == "passed", softmax.message


def test_a_decorator_in_common_forbids_nothing(grade: Grade, solution: NotebookNode) -> None:
    """`sequence_loss` may call log_softmax; `softmax` may not. A decorator that wraps both functions does not change this."""
    count = """
from collections import Counter
CALLS = Counter()
def counted(function):
    def call(*args, **kwargs):
        CALLS[function.__name__] += 1
        return function(*args, **kwargs)
    return call
"""
    own = {c.id: c.source for c in solution.cells if c.id in ("softmax", "sequence_loss")}
    decorated = {name: f"@counted\n{source}" for name, source in own.items()}
    decorated["softmax"] = count + decorated["softmax"]
    marks = grade(with_cells(solution, decorated))
    assert {e.name: e.message for e in marks.exercises if e.status != "passed"} == {}
    decorated["softmax"] += "\n    return sequence_loss"
    softmax = grade(with_cells(solution, decorated), only="softmax").exercises[0]
    assert (softmax.status, softmax.points) == ("not_allowed", 0)


def test_the_same_submission_gets_the_same_marks(grade: Grade, solution: NotebookNode) -> None:
    wrong = with_cells(
        solution, {"causal_mask": "def causal_mask(n, device=None):\n    return torch.ones(n, n)"}
    )
    first, again = (grade(wrong, only="causal_mask") for _ in range(2))
    assert first.seed == again.seed
    assert first.exercises[0].tests == again.exercises[0].tests


SPLIT_AT_NUL = (
    *(["a", "b", "c"], ["a", "b\0c"], ["a\0b", "c"], ["a\0b\0c"], ["a\0", "\1b"], ["a\0\1b"]),
    *(["a\1\0b"], ["a\1", "b"], ["a\1\1", "b"], ["a\1\0", "b"]),
)


def test_different_code_gets_different_seeds() -> None:
    """Feedback shows the expected values for a seed. Adding these values to the code must always change the seed."""
    seeds = set()
    for sources in SPLIT_AT_NUL:
        statements = tuple(Statement(source, number, 1) for number, source in enumerate(sources, 1))
        code = Slice("softmax", "written", statements, (), (), ())
        seeds.add(seeded(RunSettings("a seed"), code).seed)
    assert len(seeds) == len(SPLIT_AT_NUL)


TRIVIAL = """
    def test_ones(self, student, seed):
        \"\"\"The mask is True at real tokens.\"\"\"
        assert student.padding_mask(torch.ones(2, 3), 0).all()


class TestFirst:
    exercise = "padding_mask"

    def test_crash(self, student, seed):
        \"\"\"No trivial answer can finish this test.\"\"\"
        raise WorkerDied(1)
"""


def test_trivial_answers_are_found_after_crashes_and_with_forbidden_functions(
    server: Server, tmp_path: Path
) -> None:
    root = small_course.make(tmp_path)
    file = root / "graders" / "day1" / "test_masking.py"
    imports = "import torch\nfrom autograder.sandbox.errors import WorkerDied\n"
    first, second = TRIVIAL.split("\n\n\n")
    file.write_text(f"{imports}{second}\n{file.read_text()}{first}\n")
    toml = small_course.TOML.replace("points = 60", 'points = 60\nnot_allowed = ["full_like"]')
    forbid = '[not_allowed.full_like]\noperators = ["full_like"]\n'
    (root / "grading.toml").write_text(toml + forbid)
    day = courses.load(root).day("day1")
    runner = Runner(AnswerKey.read(day), server)
    assert passed_by_trivial_answers(runner, day.exercises[0]) == {"test_ones": "value"}


def test_copied_stand_ins_are_reported(
    grade: Grade, solution: NotebookNode, day1: Day, tmp_path: Path
) -> None:
    text = (day1.root / "solutions/day1/stand_ins.py").read_text()
    start = text.index("class FeedForward")
    copied = text[start : text.index("\n\n\n", start)].replace("\n", "  # my own\n", 1)
    with_mask = {
        "FeedForward": copied,
        "causal_mask": "def causal_mask(n, device=None):\n    return None",
    }
    marks = grade(with_cells(solution, with_mask))
    assert (
        "code copied from the stand-ins that the notebook contains: `FeedForward`" in marks.problems
    )
    assert not any("copied" in problem for problem in grade(solution).problems)
    course = small_course.make(tmp_path)
    (course / "solutions" / "day1" / "stand_ins.py").write_text("def f(:")
    with pytest.raises(CourseError, match=r"stand_ins\.py, line 1: "):
        StandInCopies(courses.load(course).day("day1"))


def test_trivial_answers_earn_nothing(grade: Grade, solution: NotebookNode) -> None:
    for body in ("return None", "return x", "return x * 0"):
        wrong = with_cells(solution, {"softmax": f"def softmax(x, dim=-1):\n    {body}"})
        assert grade(wrong, only="softmax").points == 0


CONSTANTS = {
    "causal_mask": "def causal_mask(n, device=None):\n    return torch.ones(n, n, dtype=torch.bool)",
    "padding_mask": """
def padding_mask(tokens, pad_id):
    return torch.ones(len(tokens), 1, tokens.shape[1], dtype=torch.bool)
""",
    "sequence_loss": """
def sequence_loss(logits, targets, pad_id, smoothing=0.0):
    return (logits * 0).sum()
""",
    "split_heads": "def split_heads(x, n_heads):\n    return []",
    "attention": """
def attention(query, key, value):
    weights = query.new_full((*query.shape[:-1], key.shape[-2]), 1e-9)
    return query.new_zeros(*query.shape[:-1], value.shape[-1]), weights
""",
}


@pytest.mark.parametrize("exercise", CONSTANTS)
def test_constants_earn_nothing(grade: Grade, solution: NotebookNode, exercise: str) -> None:
    assert grade(with_cells(solution, {exercise: CONSTANTS[exercise]}), only=exercise).points == 0


# Answers that satisfied a test by coincidence, and then also earned the points of tests that trivial answers pass.
LUCKY = {
    "next_token_loss": """
CALLS = []
def next_token_loss(logits, tokens):
    CALLS.append(1)
    return torch.tensor(float(len(CALLS)))
""",
    "CausalSelfAttention": """
class CausalSelfAttention(nn.Module):
    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("d_model is not divisible by n_heads")
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)

    def forward(self, x, cache=None):
        if cache is not None:
            cache.append(x[:, None], x[:, None])
        return x.exp()
""",
}


@pytest.mark.parametrize("exercise", LUCKY)
def test_lucky_answers_earn_nothing(graders: Callable[[str], Grader], exercise: str) -> None:
    script = f"import torch\nfrom torch import nn\n{LUCKY[exercise]}"
    assert grade_one(graders("day2"), handed_in(script), exercise).points == 0


HEADS = """
def split_heads(x, n_heads):
    b, n, d = x.shape
    if d % n_heads:
        raise ValueError("d_model is not a multiple of n_heads")
    return {result}
"""
ENCODING = """
class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_length=5000, dropout=0.0):
        super().__init__()
        self.max_length = max_length
    def forward(self, x):
        if x.shape[1] > self.max_length:
            raise ValueError("x has more positions than max_length")
        return torch.zeros_like(x)
"""


def test_errors_earn_only_their_own_points(grade: Grade, solution: NotebookNode) -> None:
    zeros = HEADS.format(result="x.new_zeros(b, n_heads, n, d // n_heads)")
    wrong = HEADS.format(result="x.view(b, n_heads, n, d // n_heads)")
    cells = {"split_heads": zeros}, {"split_heads": wrong}, {"PositionalEncoding": ENCODING}
    earned = [
        {test.name: test.points for test in exercise.tests if test.points}
        for changed in cells
        for exercise in grade(with_cells(solution, changed), only=next(iter(changed))).exercises
    ]
    assert [list(points) for points in earned] == [
        ["test_not_divisible"],
        ["test_not_divisible"],
        ["test_too_long"],
    ]


def test_a_value_unlocks_tests_that_zeros_pass(grade: Grade, solution: NotebookNode) -> None:
    partial = "return (torch.arange(n) <= torch.arange(n)[:, None])[None].repeat(1, 1, 1)[0].int()"
    wrong = with_cells(
        solution, {"causal_mask": f"def causal_mask(n, device=None):\n    {partial}"}
    )
    (exercise,) = grade(wrong, only="causal_mask").exercises
    assert exercise.status == "partial"
    assert all(bool(test.points) == test.passed for test in exercise.tests)


def test_threads_may_call_torch_for_the_first_time_at_once(
    grade: Grade, solution: NotebookNode
) -> None:
    """Grade an exercise in 15 fresh processes. Without the fork server's warm-up, about a third of them would fail."""
    threaded = """
import threading
def merge_heads(x):
    barrier = threading.Barrier(8)
    failures = []
    def work():
        barrier.wait()
        try:
            nn.functional.linear(x.half(), x[0, 0].half())
        except RuntimeError as error:
            failures.append(error)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    b, h, n, d = x.shape
    return x.transpose(1, 2).reshape(b, n, h * d)
"""
    notebook = with_cells(solution, {"merge_heads": threaded})
    for _ in range(15):
        merge_heads = grade(notebook, only="merge_heads").exercises[0]
        assert merge_heads.status == "passed", merge_heads.message


def test_a_solution_in_a_text_cell_is_pointed_out(server: Server, tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(small_course.CHAPTERS["masking"].split("# %%")[-1]),
            nbformat.v4.new_code_cell(small_course.CHAPTERS["heads"].split("# %%")[-1]),
            nbformat.v4.new_markdown_cell("## `padding_mask`\n\nWrite `def split_heads`."),
        ]
    )
    day = courses.load(small_course.make(tmp_path)).day("day1")
    marks = Grader(day, server, b"tests").grade(handed_in(notebook))
    assert marks.points == 40
    (problem,) = marks.problems
    assert problem.startswith("cell 1: this is not a code cell, so `padding_mask` was not graded.")


def test_an_exercise_in_a_cell_that_python_cannot_read_is_pointed_out(
    server: Server, tmp_path: Path
) -> None:
    heads = small_course.CHAPTERS["heads"].split("# %%")[-1]
    masking = small_course.CHAPTERS["masking"].split("# %%")[-1]
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(masking.replace("return", "return return")),
            nbformat.v4.new_code_cell(heads),
        ]
    )
    day = courses.load(small_course.make(tmp_path)).day("day1")
    marks = Grader(day, server, b"tests").grade(handed_in(notebook))
    assert marks.points == 40
    error, explanation = marks.problems
    assert error.startswith("cell 1: SyntaxError: invalid syntax")
    assert re.match(
        r"cell 1: Python 3\.\d+ cannot read this cell, so `padding_mask` was not", explanation
    )
