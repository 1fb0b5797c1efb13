"""Test that known mistakes are recognised in any coding style, and that no other code is reported as a known mistake."""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.course.config import Day, Exercise
from autograder.execution.attempt import RunSettings
from autograder.execution.catalogue import combine, known_mistakes
from autograder.execution.source import Source, join_units
from autograder.grading.grader import Grader
from autograder.marks.model import SubmissionMarks
from autograder.recognition.signatures import find_match
from autograder.slicing.dependencies import slice_for
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell
from autograder.submissions.cell_reader import read_cells
from bench.two_mistakes import Pair, measure, random_pairs
from tests.chosen_mistakes import CHOSEN
from tests.conftest import ROOT, by_name, handed_in, with_cells, with_exercises

pytestmark = pytest.mark.slow

T = TypeVar("T")
Graders = Callable[[str], Grader]
Grade = Callable[..., SubmissionMarks]
COURSE = courses.load(ROOT)
DAYS = tuple(COURSE.days)
# `make names` learns the mistakes of all exercises and grades each mistake separately, which takes many minutes. In CI, this
# file learns the mistakes of the chosen exercises and grades all mistakes in one exercise.
ALL = os.environ.get("NAMES") == "all"
EXERCISES = [
    (day, name) for day in DAYS for name in (COURSE.day(day).names if ALL else CHOSEN[day])
]
ALONE = EXERCISES if ALL else [("day1", "padding_mask")]
PAIRS = 10 if ALL else 5  # pairs of mistakes per day

# Each entry names a file in tests/styles, an exercise, a change that adds a mistake to the file, and the mistake. If the
# mistake is None, the code is wrong but contains no known mistake.
IN_ANOTHER_STYLE: list[tuple[str, str, dict[str, str], str | None]] = [
    ("day1/beginner", "softmax", {"shifted = x - largest_values": "shifted = x"}, "max not subtracted"),
    (
        "day1/beginner", "attention_scores",
        {"scaled_query = query / math.sqrt(d)": "scaled_query = query"}, "not scaled",
    ),
    ("day1/einsum", "attention", {"key).softmax(-1)": "key).softmax(-2)"}, "softmax over the queries"),
    ("day1/loops", "padding_mask", {"False, True": "True, False"}, "mask inverted"),
    ("day1/einsum", "causal_mask", {">=": ">"}, "own position masked"),
    (
        "day1/beginner", "decoder_mask", {"logical_and": "logical_or"}, "masks combined with OR instead of AND",
    ),
    (
        "day1/idiomatic", "masked_attention",
        {".masked_fill(empty, 0)": "", "torch.where(empty, 0.0, softmax(scores))": "softmax(scores)"},
        "filled with −inf",
    ),
    (
        "day1/beginner", "masked_attention",
        {"    scores = attention_scores": "    mask = ~mask\n    scores = attention_scores"},
        "mask inverted",
    ),
    ("day1/beginner", "sinusoidal_encoding", {"(two_i / d_model)": "(2 * two_i / d_model)"},
     "exponent doubled"),
    (
        "day1/loops", "shift_matrix",
        {"= math.sin(angle)": "= 0 - math.sin(angle)", "= -math.sin(angle)": "= math.sin(angle)"},
        "rotation in the wrong direction",
    ),
    (
        "day1/beginner", "split_heads",
        {"view(b, n, n_heads, d_head)": "view(b, n_heads, n, d_head)",
         "    x = x.permute(0, 2, 1, 3)": "    "},
        "reshaped without a transpose",
    ),
    (
        "day1/einsum", "merge_heads",
        {"torch.cat(x.unbind(1), dim=-1)": "torch.stack(x.unbind(1), dim=-1).flatten(2)"},
        "heads interleaved",
    ),
    (
        "day1/einsum", "MultiHeadAttention",
        {"math.sqrt(q.shape[-1])": "math.sqrt(q.shape[-1] * self.n_heads)"}, "scaled by √d_model",
    ),
    (
        "day1/loops", "MultiHeadAttention", {"self.value(value)": "self.value(key)"},
        "values computed from key",
    ),
    ("day1/einsum", "LayerNorm", {"/ x.shape[-1]": "/ (x.shape[-1] - 1)"}, "unbiased variance"),
    (
        "day1/beginner", "LayerNorm",
        {"torch.sqrt(variance + self.eps)": "torch.sqrt(variance) + self.eps"},
        "eps outside the square root",
    ),
    ("day1/beginner", "FeedForward", {"hidden = self.relu(hidden)": "pass"}, "no activation"),
    ("day1/beginner", "EncoderLayer", {"(x, x, x, mask)": "(x, x, x)"}, "mask ignored"),
    (
        "day1/loops", "DecoderLayer", {"(x, memory, memory, memory_mask)": "(x, x, x, mask)"},
        "cross-attention over x instead of memory",
    ),
    ("day1/idiomatic", "Transformer", {"self.scale * ": ""}, "embeddings not scaled"),
    (
        "day1/idiomatic", "sequence_loss", {"real.sum().clamp(min=1)": "real.numel()"},
        "divided by all positions",
    ),
    ("day1/idiomatic", "greedy_decode", {"[:, -1]": "[:, 0]"}, "logits taken from the first position"),
    (
        "day1/idiomatic", "greedy_decode", {"best.masked_fill(finished, model.pad_id)": "best"},
        "finished rows keep generating",
    ),
    (
        "day2/einsum", "CausalSelfAttention", {"arange(m - n, m, ": "arange(n, "},
        "mask aligned top-left with a cache",
    ),
    (
        "day2/einsum", "CausalSelfAttention", {"queries.shape[-1] **": "x.shape[-1] **"},
        "scores divided by √d_model",
    ),
    (
        "day2/einsum", "generate",
        {"[KeyValueCache() for _ in model.blocks]": "[KeyValueCache()] * model.n_layers"},
        "one cache for all blocks",
    ),
    (
        "day2/einsum", "generate", {"done = k if use_cache else 0": "done = 0"},
        "whole sequence passed again despite the caches",
    ),
    ("day2/einsum", "generate", {"top_k, top_p)": "None, None)"}, "top_k and top_p ignored"),
    ("day2/einsum", "transpose", {"token + semitones": "token - semitones"}, "sign of semitones flipped"),
    ("day2/einsum", "patchify", {"0, 2, 3, 1, 4, 5": "0, 2, 3, 4, 5, 1"}, "channel last in each patch"),
    ("day2/einsum", "ViT", {"self.norm(self.blocks(": "(self.blocks("}, "no norm after the last block"),
    ("day2/einsum", "attention_distance", {") * patch_size": ")"}, "distances in patches instead of pixels"),
    ("day2/einsum", "cosine_schedule", {".clamp(min=1 - 0.999)": ""}, "β not clipped"),
    (
        "day2/einsum", "guided_noise", {"[1 - scale, scale]": "[-scale, 1 + scale]"},
        "scale off by one",
    ),
    ("day2/loops", "rotary_embedding", {"-2 * i / d": "-i / d"}, "exponent halved"),
    # This entry also adds a second mistake, which affects only one test: the code ignores the device of its input.
    (
        "day2/einsum", "rotary_embedding", {"torch.float64) / d)": "torch.float64) / (2 * d))", "device=x.device, ": ""},
        "exponent halved",
    ),
    ("day2/einsum", "sliding_window_mask", {"1 - window": "-window"}, "one position too many"),
    (
        "day2/loops", "grouped_query_attention", {"k // (h // g)": "k % g"}, "repeat instead of repeat_interleave",
    ),
    ("day1/beginner", "softmax", {"dim=dim": "dim=1"}, "always over axis 1"),
    ("day1/einsum", "attention", {"** -0.5": "** 0.5"}, "multiplied by √d instead of divided"),
    ("day1/einsum", "attention", {"query.shape[-1] **": "key.shape[-2] **"}, "scaled by √(number of keys)"),
    ("day1/einsum", "masked_attention", {"** -0.5": "** 0.5"}, "multiplied by √d instead of divided"),
    (
        "day1/einsum", "masked_attention", {"query.shape[-1] **": "key.shape[-2] **"},
        "scaled by √(number of keys)",
    ),
    *(
        (
            "day1/idiomatic", "masked_attention",
            {"attention(query, key, value)": "(w := softmax(attention_scores(query, key), 1)) @ value, w",
             "-inf).masked_fill(empty, 0)": fill, "torch.where(empty, 0.0, softmax(scores))": weights},
            f"softmax over axis 1{more}",
        )
        for fill, weights, more in (
            ("-inf)", "softmax(scores, 1)", ", filled with −inf"),
            ("-1e9)", "torch.softmax(scores, dim=1)", ", filled with −1e9"),
            ("torch.finfo(query.dtype).min)", "mask * softmax(scores, dim=1)", ""),
        )
    ),
    (
        "day1/einsum", "sinusoidal_encoding", {"+ odd *": "+ torch.arange(length)[:, None] % 2 *"},
        "sines in even rows instead of even columns",
    ),
    (
        "day1/einsum", "sinusoidal_encoding",
        {"torch.pow(10000.0, -(column - odd).double() / d_model)": "d_model / 10000.0 ** (column - odd)"},
        "power divided by d_model instead of exponent",
    ),
    ("day1/beginner", "sinusoidal_encoding", {"10000": "1000"}, "base 1000"),
    (
        "day1/beginner", "shift_matrix", {"(2 * i / d_model)": "(2 * i) / d_model"},
        "power divided by d_model instead of exponent",
    ),
    ("day1/einsum", "shift_matrix", {"10000.0": "1e3"}, "base 1000"),
    ("day1/einsum", "MultiHeadAttention", {"q / math": "q * math"}, "multiplied by √d_head instead of divided"),
    (
        "day1/beginner", "MultiHeadAttention",
        {f"{part} = nn.Linear(d_model, d_model": f"{part} = nn.Linear(self.d_head, self.d_head"
         for part in ("query", "key", "value")}
        | {f"{x} = self.{part}({part})": f"{x} = {part}" for x, part in (("q", "query"), ("k", "key"), ("v", "value"))}
        | {f"split_heads({x}, self.n_heads)": f"self.{part}(split_heads({x}, self.n_heads))"
           for x, part in (("q", "query"), ("k", "key"), ("v", "value"))},
        "projections of size d_head",
    ),
    ("day1/beginner", "EncoderLayer", {"nn.Dropout(dropout)": "nn.Dropout(0.1)"}, "fixed dropout probability"),
    ("day1/beginner", "DecoderLayer", {"nn.Dropout(dropout)": "nn.Dropout(0.1)"}, "fixed dropout probability"),
    (
        "day1/beginner", "DecoderLayer",
        {f"self.norm{i}(x + self.dropout{i}({part}_output))": f"x + self.dropout{i}(self.norm{i}({part}_output))"
         for i, part in ((1, "self"), (2, "cross"), (3, "feed_forward"))},
        "norms applied to sublayer outputs only",
    ),
    (
        "day1/einsum", "PositionalEncoding", {"max_length, dropout\n": "max_length, 0.1\n"},
        "fixed dropout probability",
    ),
    (
        "day2/loops", "CausalSelfAttention", {"/ math.sqrt(self.d_head)": "* self.d_head ** 0.5"},
        "scores multiplied by √d_head",
    ),
    (
        "day2/loops", "CausalSelfAttention", {"math.sqrt(self.d_head)": "math.sqrt(m)"},
        "scores divided by √(number of keys)",
    ),
    (
        "day2/loops", "CausalSelfAttention", {"0:d]": "2 * d :]", "2 * d : 3 * d]": ":d]"},
        "query and value swapped",
    ),
    ("day2/loops", "CausalSelfAttention", {"0:d]": "-d:]"}, "query sliced from the values"),
    (
        "day2/einsum", "CausalSelfAttention", {".softmax(-1)": ".softmax(1)"},
        "softmax over the heads, filled with −inf",
    ),
    (
        "day2/loops", "CausalSelfAttention",
        {"zeros(n, m": "zeros(n, n", "range(m)": "range(n)", "m - n + i": "i"},
        "n × n mask with a cache",
    ),
    (
        "day2/loops", "CausalSelfAttention", {"if j > m": "if n == m and j > m"},
        "no mask once the cache is filled",
    ),
    # Dropout applies to the output, whereas in the known mistake it applies to the weights.
    (
        "day2/einsum", "CausalSelfAttention", {"nn.Dropout(dropout)": "nn.Dropout(0.1)"},
        "fixed dropout probability",
    ),
    ("day2/loops", "GPTBlock", {"dropout)": "0.1)", "self.p = dropout": "self.p = 0.1"}, "fixed dropout probability"),
    (
        "day2/einsum", "GPTBlock",
        {"self.attention(self.norm1(x), cache)": "self.norm1(self.attention(x, cache))",
         "self.network(self.norm2(x))": "self.norm2(self.network(x))"},
        "norms applied to sublayer outputs only",
    ),
    *(
        (
            "day2/loops", "GPT",
            {"self.norm = PlainNorm(d_model)\n": f"self.norm = PlainNorm(d_model)\n        {own}\n",
             "self.norm(x) @ self.token_embedding.weight.transpose(0, 1)": logits},
            name,
        )
        for own, logits, name in (
            ("self.lm_head = nn.Linear(d_model, vocab_size, bias=False)", "self.lm_head(self.norm(x))", "weights not tied"),
            ("self.head = nn.Parameter(torch.randn(vocab_size, d_model))", "self.norm(x) @ self.head.T", "weights not tied"),
            (
                "self.bias = nn.Parameter(torch.randn(vocab_size))",
                "self.norm(x) @ self.token_embedding.weight.T + self.bias",
                "random bias in the output layer",
            ),
            # The weights are tied, but the model has another random layer.
            (
                "self.project = nn.Linear(d_model, d_model)",
                "self.project(self.norm(x)) @ self.token_embedding.weight.T",
                None,
            ),
        )
    ),
    ("day2/loops", "GPT", {"dropout)": "0.1)", "self.dropout = dropout": "self.dropout = 0.1"}, "fixed dropout probability"),
    (
        "day2/loops", "RelativeSelfAttention", {"/ math.sqrt(q": "* math.sqrt(q"}, "scores multiplied by √d_head",
    ),
    (
        "day2/loops", "RelativeSelfAttention", {"math.sqrt(q.shape[-1])": "math.sqrt(n)"},
        "scores divided by √(number of keys)",
    ),
    ("day2/einsum", "RelativeSelfAttention", {".softmax(-1)": ".softmax(1)"}, "softmax over the heads"),
    (
        "day2/loops", "RecurrentAttention", {"/ math.sqrt(q": "* math.sqrt(q"}, "scores multiplied by √d_head",
    ),
    (
        "day2/loops", "RecurrentAttention", {"math.sqrt(q.shape[-1])": "math.sqrt(m + n)"},
        "scores divided by √(number of keys)",
    ),
    ("day2/einsum", "RecurrentAttention", {".softmax(-1)": ".softmax(1)"}, "softmax over the heads"),
    (
        "day2/loops", "grouped_query_attention", {"/ math.sqrt(d)": "* math.sqrt(d)"}, "scores multiplied by √d",
    ),
    (
        "day2/einsum", "grouped_query_attention", {"math.sqrt(q.shape[-1])": "math.sqrt(key.shape[2])"},
        "scores divided by √(number of keys)",
    ),
    (
        "day2/loops", "rotary_embedding", {"base ** (-2 * i / d)": "(d / base ** (2 * i))"},
        "power divided by d instead of exponent",
    ),
    (
        "day2/einsum", "rotary_embedding",
        {"torch.complex(x[..., 0::2].double(), x[..., 1::2].double())":
         "torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))"},
        "non-contiguous x not supported",
    ),
    (
        "day2/loops", "rotary_embedding",
        {"2 * i]": "i]", "2 * i + 1]": "i + d // 2]",
         "torch.stack(columns, dim=-1)": "torch.stack(columns[::2] + columns[1::2], dim=-1)"},
        "half-split pairs instead of adjacent columns",
    ),
    (
        "day2/loops", "timestep_embedding", {"10000 ** (-i / half)": "half / 10000**i"},
        "power divided by half instead of exponent",
    ),
    ("day2/loops", "alibi_bias", {"range(i + 1)": "range(n)"}, "future not masked"),
    (
        "day2/loops", "add_noise", {"math.sqrt(1 - here)": "math.sqrt(here)"},
        "sum of x0 and noise scaled by √ᾱ",
    ),
    ("day2/einsum", "linear_cka", {".to(x.dtype)": ".float()"}, "always float32"),
    ("day2/loops", "linear_cka", {".to(x.dtype)": ".float()"}, "always float32"),
    ("day2/loops", "cosine_schedule", {"alpha_bar = [1.0]": "n_steps += 1\n    alpha_bar = [1.0]"}, "n_steps + 2 values"),
    ("day2/loops", "DiTBlock", {"(1 + scale1)": "scale1"}, "scale instead of 1 + scale in the attention branch"),
    ("day2/loops", "DiTBlock", {"(1 + scale2)": "scale2"}, "scale instead of 1 + scale in the feed-forward branch"),
    (
        "day2/einsum", "unpatchify",
        {"height // patch_size": "int(patches.shape[1] ** 0.5)", "columns = width // patch_size": "columns = rows"},
        "square patch grid assumed",
    ),
]  # fmt: skip

# Each entry makes two changes to one function. Either change alone would be a known mistake. The last item is the expected name.
TWO_MISTAKES = [
    (
        "day1/beginner", "masked_attention",
        {"    scores = attention_scores(query, key)":
         "    mask = ~mask\n    scores = torch.matmul(query, key.transpose(-2, -1))"},
        None,  # the solution inverts only masks that are not None
    ),
    (
        "day1/einsum", "LayerNorm",
        {"/ x.shape[-1]": "/ (x.shape[-1] - 1)", "(variance + self.epsilon).sqrt()": "variance"},
        None,  # not a known mistake
    ),
    (
        "day1/loops", "MultiHeadAttention",
        {"self.value(value)": "self.value(key)", "self.out(torch.cat(outputs, dim=-1))":
         "torch.cat(outputs, dim=-1)"},
        "values computed from key; no output projection",
    ),
    (
        "day1/beginner", "EncoderLayer",
        {"(x, x, x, mask)": "(x, x, x)", "x = x + feed_forward_output": "x = feed_forward_output"},
        "no residual connection around the feed-forward network; mask ignored",
    ),
    (
        "day1/idiomatic", "greedy_decode",
        {"[:, -1]": "[:, 0]", "best.masked_fill(finished, model.pad_id)": "best"},
        "logits taken from the first position",  # then a finished row generates eos_id again, as if padded with it
    ),
    # Several mistakes combined with the first one have these results.
    (
        "day2/einsum", "generate",
        {"done = k if use_cache else 0": "done = 0", "top_k, top_p)": "None, None)"},
        "top_k and top_p ignored",
    ),
    (
        "day2/loops", "rotary_embedding",
        {"base ** (-2 * i / d)": "base ** (-i / d)", "b = x[..., 2 * i + 1]": "b = x[..., i + d // 2]"},
        None,  # not a known mistake
    ),
]  # fmt: skip

WRONG = """
def _wrong(how, right):
    import torch
    import torch.nn.functional as F

    def instead_of(value):
        if isinstance(value, (tuple, list)):
            return tuple(instead_of(part) for part in value)
        if not isinstance(value, torch.Tensor):
            return value
        if how == "zeros":
            return torch.zeros_like(value)
        if how == "a constant":
            return torch.full_like(value, 1 if value.dtype == torch.bool else 3)
        if how == "NaN":
            return value * torch.nan
        if how == "dropout left on":
            return F.dropout(value.double(), 0.3).to(value.dtype)
        return torch.rand(value.shape).to(value.dtype)

    def wrong(function):
        def answer(*args, **kwargs):
            if how == "None":
                return None
            if how == "an error":
                raise RuntimeError("no")
            return instead_of(function(*args, **kwargs))

        return answer

    if not isinstance(right, type):
        return wrong(right)
    own = {name: f for name, f in vars(right).items() if callable(f) and not name.startswith("_")}
    return type(right.__name__, (right,), {name: wrong(f) for name, f in own.items()})


{name} = _wrong({how!r}, {name})
"""
UNKNOWN_MISTAKES = (
    "None",
    "zeros",
    "a constant",
    "NaN",
    "random values",
    "an error",
    "dropout left on",
)


def is_chosen(style: str, exercise: str) -> bool:
    return (style.split("/")[0], exercise) in EXERCISES


def exercise_of(day: str, name: str) -> Exercise:
    return next(exercise for exercise in COURSE.day(day).exercises if exercise.name == name)


def recognize_code(grader: Grader, name: str, source: str) -> str | None:
    """Return the known mistake recognised in an exercise's code. The code must define everything the exercise needs."""
    units = parse_units([Cell(1, "code", source)])[0]
    code = slice_for(name, units, grader.key.given, grader.day.names)
    assert code is not None
    return recognize(grader, exercise_of(grader.day.name, name), join_units(code.units))


def recognize(grader: Grader, exercise: Exercise, source: Source) -> str | None:
    """Grade an exercise's code with an arbitrary seed. Return the recognised mistake, or None."""
    tests = grader.exercises.grade_source(exercise, source, RunSettings("some submission")).tests
    return grader.exercises.recognizer.recognize(
        exercise, source, [test.name for test in tests if not test.passed]
    )


def change_style(style: str, exercise: str, changes: dict[str, str]) -> str:
    """Read a file in tests/styles, apply text replacements to its definition of the exercise, and return the code."""
    text = (ROOT / "tests" / "styles" / f"{style}.py").read_bytes()
    sources: list[str] = []
    for cell in read_cells(text, style)[0]:
        for unit in parse_units([cell])[0]:
            source = unit.source
            if exercise in unit.binds and "def " in source:
                for old, new in changes.items():
                    assert old in source, (style, exercise, old)
                    source = source.replace(old, new)
            sources.append(source)
    return "\n".join(sources)


def reference(grader: Grader, name: str) -> str:
    """Return the course's solution to an exercise, along with everything that it calls."""
    code = slice_for(name, grader.key.solutions, grader.key.given, grader.day.names)
    assert code is not None
    return join_units([unit for unit in code.units if not unit.given]).text


def sample(items: Sequence[T], exercise: str, count: int) -> Sequence[T]:
    """Return `count` random items, using the exercise name as the seed. With `make names`, return all items."""
    return items if ALL else random.Random(exercise).sample(items, count)


@pytest.mark.parametrize(("day", "exercise"), EXERCISES)
def test_every_known_mistake_has_a_unique_signature(
    day: str, exercise: str, graders: Graders
) -> None:
    """The observations recorded for a mistake must match no other mistake, and every mistake must fail at least one test.

    For exercises that are not in chosen_mistakes.py, test_mutants.py tests only that every mistake fails at least one test.
    """
    recognizer = graders(day).exercises.recognizer
    known = recognizer.signatures(exercise_of(day, exercise))
    assert set(known) == {mistake.name for mistake in recognizer.mistakes[exercise]}
    assert all(one.failed_tests for one in known.values())
    found = {}
    for name, one in known.items():
        # As when grading, there is a second run, in which only random results differ.
        again = {key: seen for key, seen in one.observations.items() if key not in one.random}
        found[name] = find_match(known, one.failed_tests, one.observations, again)
    assert found == {name: name for name in known}


@pytest.mark.parametrize(("day", "exercise"), ALONE)
def test_a_known_mistake_is_recognised_as_itself(day: str, exercise: str, graders: Graders) -> None:
    recognizer = graders(day).exercises.recognizer
    for mistake in recognizer.mistakes[exercise]:
        seen = recognize(graders(day), exercise_of(day, exercise), recognizer.source(mistake))
        assert seen == mistake.name


@pytest.mark.parametrize(("day", "exercise"), ALONE)
def test_a_known_mistake_loses_points_for_any_seed(
    day: str, exercise: str, graders: Graders
) -> None:
    grader = graders(day)
    for mistake in grader.exercises.recognizer.mistakes[exercise]:
        source = grader.exercises.recognizer.source(mistake)
        for seed in ("one", "another", "a third"):
            marks = grader.exercises.grade_source(
                exercise_of(day, exercise), source, RunSettings(seed)
            )
            assert marks.points < marks.max_points, (mistake.name, seed)


@pytest.mark.parametrize("day", DAYS)
def test_every_known_mistake_has_a_name_and_a_sentence(day: str) -> None:
    for exercise, own in known_mistakes(COURSE.day(day)).items():
        assert len({mistake.name for mistake in own}) == len(own), exercise
        for mistake in own:
            assert mistake.sentence.endswith((".", "?")), mistake.name


@pytest.mark.parametrize(
    ("style", "exercise", "changes", "name"), [e for e in IN_ANOTHER_STYLE if is_chosen(*e[:2])]
)
def test_a_mistake_in_a_different_style_is_recognised(
    style: str, exercise: str, changes: dict[str, str], name: str | None, graders: Graders
) -> None:
    day = style.split("/")[0]
    assert recognize_code(graders(day), exercise, change_style(style, exercise, changes)) == name


WITH_A_SMALL_FAULT = [
    (
        "add_noise", "no square roots",
        "def add_noise(x0, t, noise, alpha_bar):\n"
        "    a = alpha_bar[t].view(-1, *([1] * (x0.ndim - 1)))\n"
        "    return a * x0 + (1 - a) * noise",
    ),
    (
        "next_token_loss", "not shifted",
        "def next_token_loss(logits, tokens):\n"
        "    b, n, v = logits.shape\n"
        "    return F.cross_entropy(logits.view(b * n, v), tokens.view(-1))",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "name", "source"), WITH_A_SMALL_FAULT)
def test_a_mistake_with_a_missing_cast_or_a_view_is_recognised(
    exercise: str, name: str, source: str, graders: Graders
) -> None:
    source = f"import torch.nn.functional as F\n\n{source}"
    assert recognize_code(graders("day2"), exercise, source) == name


@pytest.mark.parametrize(
    ("style", "exercise", "changes", "name"), [e for e in TWO_MISTAKES if is_chosen(*e[:2])]
)
def test_two_mistakes_in_a_different_style_are_named_or_nothing_is(
    style: str, exercise: str, changes: dict[str, str], name: str | None, graders: Graders
) -> None:
    day = style.split("/")[0]
    assert recognize_code(graders(day), exercise, change_style(style, exercise, changes)) == name


@pytest.mark.parametrize("day", DAYS)
def test_most_pairs_of_mistakes_are_named_and_none_wrongly(day: str, graders: Graders) -> None:
    """`python -m bench.two_mistakes` measures more pairs, in all exercises."""
    grader = graders(day).exercises
    pairs = itertools.islice(random_pairs(grader, random.Random(day), CHOSEN[day]), PAIRS)
    outcomes = Counter(measure(grader, pair).outcome for pair in pairs)
    assert outcomes.total() == PAIRS
    assert not outcomes["wrong"]
    assert outcomes["both"] + outcomes["one"] >= PAIRS / 2, outcomes


def test_a_pair_that_another_mistake_also_explains_is_not_named(graders: Graders) -> None:
    """With one norm for both steps, missing dropout in the feed-forward network has no effect that the tests show."""
    grader = graders("day1").exercises
    known = {m.name: m for m in grader.recognizer.mistakes["EncoderLayer"]}
    names = ("one norm for both steps", "no dropout")
    text = combine(*(known[name] for name in names))
    assert text is not None
    source = grader.key.replace_solution("EncoderLayer", text)
    pair = Pair(exercise_of("day1", "EncoderLayer"), names, source)
    assert measure(grader, pair).names == ["one norm for both steps"]


@pytest.mark.parametrize(("day", "exercise"), EXERCISES)
def test_an_unknown_mistake_is_not_recognised(day: str, exercise: str, graders: Graders) -> None:
    grader = graders(day)
    for how in sample(UNKNOWN_MISTAKES, exercise, 2):
        wrong = WRONG.replace("{name}", exercise).replace("{how!r}", repr(how))
        assert recognize_code(grader, exercise, reference(grader, exercise) + wrong) is None, how
    names = grader.day.names
    other = names[names.index(exercise) - 1]
    assert (
        recognize_code(grader, exercise, f"{reference(grader, other)}\n{exercise} = {other}")
        is None
    )


def test_the_marks_contain_the_name_of_the_mistake(
    grade: Grade, solution: NotebookNode, day1: Day
) -> None:
    wrong = "def causal_mask(n, device=None):\n    return torch.full((n, n), True, device=device).triu(0)"
    masks = with_exercises(solution, day1, ("padding_mask", "causal_mask", "decoder_mask"))
    marks = by_name(grade(with_cells(masks, {"causal_mask": wrong})))
    assert marks["causal_mask"].mistake == "past masked instead of future"
    assert marks["decoder_mask"].status == "passed"
    assert {e.mistake for name, e in marks.items() if name != "causal_mask"} == {None}


WITHOUT_RESULTS = [
    ("not_attempted", 'raise NotImplementedError("causal_mask")'),
    ("not_allowed", "return nn.Transformer.generate_square_subsequent_mask(n) < 1"),
    ("timed_out", "while True: pass"),
    ("crashed", "import os; os._exit(0)"),
]


@pytest.mark.parametrize(("status", "body"), WITHOUT_RESULTS)
def test_code_without_results_is_not_recognised(
    status: str, body: str, grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = [replace(e, limits=replace(e.limits, cpu_seconds=0.5)) for e in grader.day.exercises]
    monkeypatch.setattr(grader.exercises, "day", replace(grader.day, exercises=tuple(quick)))
    source = f"def causal_mask(n, device=None):\n    {body}"
    marks = by_name(grader.grade(handed_in(source)))["causal_mask"]
    assert (marks.status, marks.mistake) == (status, None)


def test_a_mistake_is_recognised_despite_a_mistake_in_a_dependency(
    grade: Grade, solution: NotebookNode, day1: Day
) -> None:
    """Recognition replaces an exercise's faulty dependency with the reference solution, as grading does."""
    names = day1.names[: day1.names.index("MultiHeadAttention") + 1]
    until_attention = with_exercises(solution, day1, names)
    cells = {cell.id: cell.source for cell in until_attention.cells}
    attention = cells["MultiHeadAttention"].replace("self.value(value)", "self.value(key)")
    assert attention != cells["MultiHeadAttention"]
    heads = "def merge_heads(x):\n    b, h, n, d = x.shape\n    return x.reshape(b, n, h * d)"
    wrong = with_cells(until_attention, {"MultiHeadAttention": attention, "merge_heads": heads})
    marks = by_name(grade(wrong))
    assert marks["merge_heads"].mistake == "reshaped without a transpose"
    assert marks["MultiHeadAttention"].mistake == "values computed from key"
