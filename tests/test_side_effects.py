"""Test that the graders detect modules that set a seed in every call, or store their settings on the class."""

from __future__ import annotations

import re

import pytest

from tests.hidden_tests import failed_tests, solution_of

pytestmark = pytest.mark.slow

WITH_DROPOUT = (
    *("PositionalEncoding", "FeedForward", "EncoderLayer", "DecoderLayer", "Transformer"),
    *("CausalSelfAttention", "GPTBlock", "GPT"),
)
# An exercise, a statement of its solution, and the same statement for the class instead of the instance.
ON_THE_CLASS = [
    (
        "PositionalEncoding",
        'self.register_buffer("table", table, persistent=False)',
        "type(self).table = table",
    ),
    ("MultiHeadAttention", "self.n_heads = n_heads", "type(self).n_heads = n_heads"),
    ("Transformer", "self.pad_id = pad_id", "type(self).pad_id = pad_id"),
    ("CausalSelfAttention", "self.n_heads, self", "type(self).n_heads, self"),
    ("PatchEmbedding", "self.patch_size = patch_size", "type(self).patch_size = patch_size"),
]


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_setting_a_seed_in_every_call_fails_one_test(name: str) -> None:
    method = "encode" if name == "Transformer" else "forward"
    body = re.compile(rf"def {method}\(.*?### BEGIN SOLUTION\n", re.DOTALL)
    source = solution_of(name)
    seeded = body.sub(lambda found: f"{found[0]}        torch.manual_seed(0)\n", source)
    assert seeded != source
    (message,) = failed_tests(name, seeded).values()
    assert "two calls give the same result; does your code set a seed?" in message


@pytest.mark.parametrize(("name", "before", "after"), ON_THE_CLASS)
def test_storing_settings_on_the_class_is_detected(name: str, before: str, after: str) -> None:
    source = solution_of(name)
    assert before in source
    assert failed_tests(name, source.replace(before, after))
