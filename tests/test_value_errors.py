"""Test that the message of a required ValueError may name a quantity in code or in words, in hidden tests and visible checks."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from autograder.execution.collect import Test as HiddenTest
from tests.hidden_tests import COURSE, failed_tests, judge_of, judge_of_day, solution_of

RAISE = re.compile(r"raise ValueError\((?:[^()]|\([^()]*\)|\[[^\]]*\])*\)")
DIVISIBLE = [
    "embed_dim must be divisible by num_heads",
    "dim should be divisible by num_heads",
    "The hidden size (10) is not a multiple of the number of attention heads (4)",
    "Model dimension must be divisible by the number of heads",
    "nhead does not divide dmodel",
    "n_embd has to be a multiple of n_head",
    "hiddenSize % numHeads != 0",
    "10 channels cannot be split evenly",
]
EVEN = [
    "Cannot use sin/cos positional encoding with odd dim (got dim=7)",
    "The embedding dimension should be an even number.",
    "must be even",
    "The number of features is odd",
    "hidden_size has to be a multiple of 2",
]
LONG = [
    "Cannot forward sequence of length 8, block size is only 7",
    "Cannot forward, model block size is exhausted.",
    "Input exceeds the maximum context length",
    "seq_len > max_len",
    "The input is too long!",
    "too many positions",
    "Sequence too long",
    "Maximum Length Exceeded",
]
# Each entry is a message, or one message for each of the solution's `raise` statements.
MESSAGES: dict[str, list[str | tuple[str, ...]]] = {
    "split_heads": [*DIVISIBLE],
    "MultiHeadAttention": [*DIVISIBLE],
    "CausalSelfAttention": [*DIVISIBLE],
    "shift_matrix": [*EVEN],
    "rotary_embedding": [*EVEN],
    "PositionalEncoding": [*LONG, "The sequence has more rows than the table has positions"],
    "Transformer": [*LONG, ("source is too big", "target is too big")],
    "GPT": [*LONG, "block_size is only 7"],
    "RelativeSelfAttention": [(DIVISIBLE[0], text) for text in LONG],
    "RecurrentAttention": [*zip(DIVISIBLE, LONG, strict=True)],
    "generate": [*LONG, "not enough room left for the prompt"],
    "DecisionTransformer": [*LONG, "episode too long", "Number of timesteps exceeds max_timestep"],
    "next_token_probabilities": [
        (
            "`temperature` (=-0.5) has to be a strictly positive float",
            "`top_k` has to be a strictly positive integer, but is 0",
            "`top_p` has to be a float > 0 and < 1, but is 1.5",
        ),
        ("Temperature must not be negative", "top-k must be at least 1", "top-p is out of range"),
        ("negative temperature", "Top k should be positive", "Nucleus probability not in (0, 1]"),
        ("TEMPERATURE < 0", "topK < 1", "topp not in (0, 1]"),
    ],
    "transpose": [
        "Pitch out of range",
        "transposed note is out of range",
        "Cannot shift by so many semitones",
        "notes would leave the piano",
    ],
    "patchify": [
        "Image dimensions must be divisible by the patch size.",
        "Input image height (7) is not divisible by the patch size",
        "img_size % patch_size != 0",
        "height and width must be multiples of p",
        "The picture cannot be cut into whole patches",
        "Resolution mismatch",
    ],
    "sliding_window_mask": [
        "window_size must be >= 1",
        "Window must be positive",
        "The window should contain at least one position",
    ],
    "grouped_query_attention": [
        "num_heads must be divisible by num_kv_heads",
        "n_head % n_kv_head != 0",
        "The number of query heads must be a multiple of the number of key/value heads",
        "nHeads is not a multiple of nGroups",
    ],
    "knn_probabilities": [
        ("k must be positive", "mix not in [0, 1]", "Temperature must be positive"),
        (
            "number of neighbors must be at least 1",
            "The interpolation weight must lie between 0 and 1",
            "temperature should be > 0",
        ),
        ("n_neighbours < 1", "lambda is outside [0, 1]", "TEMPERATURE"),
    ],
}
UNRELATED = [
    "",
    "error",
    "Invalid argument",
    "wrong input",
    "must be positive",
    "not divisible",
    "these numbers do not divide",
    "out of range",
    "cannot reshape array of size 42 into shape (2,3)",
    "not enough values to unpack (expected 5, got 4)",
    "math domain error",
]


def with_messages(name: str, texts: tuple[str, ...]) -> str:
    """Return the solution with these messages."""
    given = iter(texts * 3 if len(texts) == 1 else texts)
    return RAISE.sub(lambda _: f"raise ValueError({next(given)!r})", solution_of(name))


def needs_value_error(test: HiddenTest) -> bool:
    return "value_error(" in inspect.getsource(test.function)


CASES = [
    (name, (text,) if isinstance(text, str) else text)
    for name, texts in MESSAGES.items()
    for text in texts
]


@pytest.mark.parametrize(("name", "texts"), CASES)
def test_a_message_may_name_the_quantity_in_words(name: str, texts: tuple[str, ...]) -> None:
    assert failed_tests(name, with_messages(name, texts), needs_value_error) == {}


def test_all_exercises_that_raise_a_value_error_have_messages_here() -> None:
    tests = [
        test for day in COURSE.days for own in judge_of_day(day).tests.values() for test in own
    ]
    assert {test.exercise for test in tests if needs_value_error(test)} == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_that_names_nothing_fails(name: str) -> None:
    for text in UNRELATED:
        failed = failed_tests(name, with_messages(name, (text,)), needs_value_error)
        shown = f"got: ValueError: {text}".rstrip(": ")
        assert any(shown in message for message in failed.values()), text


@pytest.mark.parametrize(("name", "texts"), CASES)
def test_visible_checks_accept_the_same_messages(name: str, texts: tuple[str, ...]) -> None:
    own, exercise = judge_of(name)
    chapter = next(c for c in own.day.chapters if c.name == exercise.chapter)
    cell = next(c for c in chapter.cells if c.role == "checks" and c.name == name)
    module = importlib.import_module(f"solutions.{own.day.name}.{chapter.name}")
    scope = {**vars(module), "visible_check": lambda check: check}
    exec(with_messages(name, texts), scope)
    exec(cell.source, scope)
