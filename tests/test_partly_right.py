"""Test that a solution which is right for the usual shapes alone earns most of an exercise's points."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from functools import cache

import pytest

from autograder.course import config as courses
from autograder.course.config import Exercise
from autograder.execution.attempt import derive_seed
from autograder.execution.source import join_units
from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.sandbox.worker.in_process import LocalProcess
from bench.mutants import Judge
from bench.mutations import solution
from tests.conftest import ROOT

COURSE = courses.load(ROOT)
RANKS = {"no batch": "{}.dim() == 2", "one batch axis": "{}.dim() == 3", "heads": "{}.dim() == 4"}
FLOAT32 = "str({}.dtype) == 'torch.float32'"
SCORES = {label: text.format("query") for label, text in RANKS.items()} | {
    "float32": FLOAT32.format("query"),
    "n = m": "query.shape[-2] == key.shape[-2]",
    "n = m and heads": "query.dim() == 4 and query.shape[-2] == key.shape[-2]",
    "equal leading axes": "query.shape[:-2] == key.shape[:-2]",
}
ATTENTION = SCORES | {
    "d = d_v": "query.shape[-1] == value.shape[-1]",
    "n = m and d = d_v": "query.shape[-2:] == key.shape[-2:] == value.shape[-2:]",
}
VECTORS = {label: text.format("x") for label, text in RANKS.items()} | {
    "float32": FLOAT32.format("x")
}
SIGNALS = {
    "images": "{0}.dim() == 4",
    "vectors": "{0}.dim() == 2",
    "sequences": "{0}.dim() == 3",
    "float32": FLOAT32,
}
# The conditions under which each restricted solution works. Otherwise, it raises an exception.
RESTRICTED: dict[str, dict[str, str]] = {
    "softmax": VECTORS
    | {"last axis": "dim in (-1, x.dim() - 1)", "axes from 0": "dim >= 0 or dim == -1"},
    "attention_scores": SCORES,
    "attention": ATTENTION,
    "padding_mask": {"pad_id 0": "pad_id == 0"},
    "causal_mask": {"n > 0": "n > 0", "no device": "device is None"},
    "decoder_mask": {"pad_id 0": "pad_id == 0"},
    "masked_attention": ATTENTION | {"no empty row": "mask is None or bool(mask.any(-1).all())"},
    "sinusoidal_encoding": {"even": "d_model % 2 == 0", "n > 0": "length > 0"},
    "shift_matrix": {"forwards": "offset >= 0 or d_model % 2"},
    "PositionalEncoding": {"even": "x.shape[-1] % 2 == 0", "float32": FLOAT32.format("x")},
    "split_heads": {"contiguous": "x.is_contiguous()", "several heads": "n_heads > 1"},
    "merge_heads": {"contiguous": "x.is_contiguous()", "several heads": "x.shape[1] > 1"},
    "MultiHeadAttention": {"no mask": "mask is None", "float32": FLOAT32.format("query")},
    "LayerNorm": {label: VECTORS[label] for label in ("one batch axis", "no batch", "float32")},
    "FeedForward": {"one batch axis": "x.dim() == 3", "float32": FLOAT32.format("x")},
    "EncoderLayer": {
        "no mask": "mask is None",
        "a mask of two axes": "mask is None or mask.dim() == 2",
    },
    "DecoderLayer": {"no masks": "mask is memory_mask is None"},
    "Transformer": {"equal lengths": "source.shape == target.shape"},
    "sequence_loss": {"pad_id is a class": "pad_id >= 0", "float32": FLOAT32.format("logits")},
    "greedy_decode": {"one row": "len(source) == 1", "several rows": "len(source) > 1"},
    "CausalSelfAttention": {
        "no cache": "cache is None",
        "one position at a time": "cache is None or x.shape[1] == 1",
        "a prompt first": "cache is None or not len(cache) or x.shape[1] == 1",
    },
    "GPTBlock": {"no cache": "cache is None"},
    "GPT": {"no caches": "caches is None"},
    "next_token_probabilities": {
        "one batch axis": "logits.dim() == 2",
        "two batch axes": "logits.dim() == 3",
        "above 0": "temperature != 0",
        "float32": FLOAT32.format("logits"),
    },
    "generate": {"several tokens": "n_tokens > 0"},
    "transpose": {"one melody": "tokens.dim() == 1", "a batch": "tokens.dim() == 2"},
    "skew": VECTORS,
    "RelativeSelfAttention": {"max_length": "x.shape[1] >= self.relative.shape[1]"},
    "patchify": {"square images": "images.shape[-1] == images.shape[-2]"},
    "unpatchify": {"square images": "height == width"},
    "add_noise": {label: text.format("x0") for label, text in SIGNALS.items()},
    "timestep_embedding": {"even": "d_model % 2 == 0", "integers": "not t.is_floating_point()"},
    "guided_noise": {label: text.format("x") for label, text in SIGNALS.items()},
    "ddim_step": {label: text.format("x") for label, text in SIGNALS.items()}
    | {
        "tensors": "isinstance(alpha_bar, torch.Tensor)",
        "one per row": "isinstance(alpha_bar, torch.Tensor) and alpha_bar.dim() == 1",
        "one for all rows": "not isinstance(alpha_bar, torch.Tensor) or alpha_bar.dim() == 0",
    },
    "rotary_embedding": VECTORS,
    "alibi_bias": {"powers of two": "not n_heads & (n_heads - 1)"},
    "linear_attention": {
        label: text for label, text in ATTENTION.items() if label != "equal leading axes"
    },
    "grouped_query_attention": {
        "no mask": "mask is None",
        "n = m": "query.shape[2] == key.shape[2]",
        "d = d_v": "query.shape[-1] == value.shape[-1]",
        "a mask of four axes": "mask is None or mask.dim() == 4",
    },
    "performer_features": VECTORS,
    "returns_to_go": {"one episode": "rewards.dim() == 1", "a batch": "rewards.dim() == 2"},
}
GUARD = """

import inspect

def _allows(whole, *args, **kwargs):
    bound = inspect.signature(whole).bind(*args, **kwargs)
    bound.apply_defaults()
    return eval({condition!r}, globals(), dict(bound.arguments))

def _check(whole, *args, **kwargs):
    if not _allows(whole, *args, **kwargs):
        raise RuntimeError("this solution is restricted")
"""
FUNCTION = """
def {name}(*args, **kwargs):
    _check(_Whole, *args, **kwargs)
    return _Whole(*args, **kwargs)
"""
MODULE = """
class {name}(_Whole):
    def forward(self, *args, **kwargs):
        _check(_Whole.forward, self, *args, **kwargs)
        return super().forward(*args, **kwargs)
"""


@cache
def _judge(day: str) -> Judge:
    return Judge(COURSE.day(day))


@cache
def judge_of(name: str) -> tuple[Judge, Exercise]:
    day = next(day for day in COURSE.days.values() if name in day.names)
    return _judge(day.name), next(e for e in day.exercises if e.name == name)


def restricted(name: str, condition: str) -> str:
    """Return the solution, changed so that it works only under this condition."""
    judge, exercise = judge_of(name)
    own = solution(judge.day, exercise)
    kind = MODULE if re.search(rf"^class {name}\b", own, re.MULTILINE) else FUNCTION
    whole = re.sub(rf"^(def|class) {name}\b", r"\1 _Whole", own, flags=re.MULTILINE)
    return whole + GUARD.format(condition=condition) + kind.format(name=name)


def failed_tests(name: str, own: str) -> dict[str, str]:
    """Return the tests that an exercise fails with this code, and their messages."""
    judge, _ = judge_of(name)
    code = join_units(judge._units(name, own))
    student = Student(LocalProcess())
    student.load(m.Load(code.text, list(code.pieces), name, 0))
    failed = {}
    for test in judge.tests[name]:
        try:
            test.run(student, derive_seed("0", name, test.name))
        except Exception as error:
            failed[test.name] = str(error)
    return failed


def share(name: str, failed: dict[str, str]) -> float:
    """Return the share of the exercise's points that remain."""
    tests = judge_of(name)[0].tests[name]
    return sum(t.weight for t in tests if t.name not in failed) / sum(t.weight for t in tests)


CASES = [(name, label) for name, cases in RESTRICTED.items() for label in cases]


@pytest.mark.parametrize(("name", "label"), CASES)
def test_a_restricted_solution_earns_half(name: str, label: str) -> None:
    failed = failed_tests(name, restricted(name, RESTRICTED[name][label]))
    assert share(name, failed) >= 0.5, failed
