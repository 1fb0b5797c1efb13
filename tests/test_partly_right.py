"""Test that a solution which is right for the usual shapes alone earns most of an exercise's points."""

from __future__ import annotations

import re

import pytest

from tests.hidden_tests import failed_tests, judge_of, solution_of

pytestmark = pytest.mark.slow

RANKS = {"no batch": "{}.dim() == 2", "one batch axis": "{}.dim() == 3", "heads": "{}.dim() == 4"}
SCORES = {label: text.format("query") for label, text in RANKS.items()} | {
    "n = m": "query.shape[-2] == key.shape[-2]",
    "n = m and heads": "query.dim() == 4 and query.shape[-2] == key.shape[-2]",
    "equal leading axes": "query.shape[:-2] == key.shape[:-2]",
}
ATTENTION = SCORES | {
    "d = d_v": "query.shape[-1] == value.shape[-1]",
    "n = m and d = d_v": "query.shape[-2:] == key.shape[-2:] == value.shape[-2:]",
}
VECTORS = {label: text.format("x") for label, text in RANKS.items()}
SIGNALS = {"images": "{}.dim() == 4", "vectors": "{}.dim() == 2", "sequences": "{}.dim() == 3"}
# The condition under which each restricted solution works. Otherwise, it raises an exception.
RESTRICTED: dict[str, dict[str, str]] = {
    "softmax": VECTORS | {"last axis": "dim in (-1, x.dim() - 1)"},
    "attention_scores": SCORES,
    "attention": ATTENTION,
    "decoder_mask": {"pad_id 0": "pad_id == 0"},
    "masked_attention": ATTENTION | {"no empty row": "mask is None or bool(mask.any(-1).all())"},
    "LayerNorm": {"one batch axis": "x.dim() == 3", "no batch": "x.dim() == 2"},
    "FeedForward": {"one batch axis": "x.dim() == 3"},
    "Transformer": {"equal lengths": "source.shape == target.shape"},
    "greedy_decode": {"one row": "len(source) == 1"},
    "CausalSelfAttention": {
        "no cache": "cache is None",
        "a prompt first": "cache is None or not len(cache) or x.shape[1] == 1",
    },
    "next_token_probabilities": {
        "one batch axis": "logits.dim() == 2",
        "two batch axes": "logits.dim() == 3",
    },
    "transpose": {"one melody": "tokens.dim() == 1", "a batch": "tokens.dim() == 2"},
    "skew": VECTORS,
    "RelativeSelfAttention": {"n = max_length": "x.shape[1] >= self.relative.shape[1]"},
    "patchify": {"square images": "images.shape[-1] == images.shape[-2]"},
    "unpatchify": {"square images": "height == width"},
    "add_noise": {label: text.format("x0") for label, text in SIGNALS.items()},
    "timestep_embedding": {"integers": "not t.is_floating_point()"},
    "guided_noise": {label: text.format("x") for label, text in SIGNALS.items()},
    "ddim_step": {label: text.format("x") for label, text in SIGNALS.items()}
    | {
        "tensors": "isinstance(alpha_bar, torch.Tensor)",
        "one per row": "isinstance(alpha_bar, torch.Tensor) and alpha_bar.dim() == 1",
        "numbers or scalars": "not isinstance(alpha_bar, torch.Tensor) or alpha_bar.dim() == 0",
    },
    "rotary_embedding": VECTORS,
    "linear_attention": {k: v for k, v in ATTENTION.items() if k != "equal leading axes"},
    "grouped_query_attention": {
        "n = m": "query.shape[2] == key.shape[2]",
        "d = d_v": "query.shape[-1] == value.shape[-1]",
        "a mask of four axes": "mask is None or mask.dim() == 4",
    },
    "performer_features": VECTORS,
    "returns_to_go": {"one episode": "rewards.dim() == 1", "a batch": "rewards.dim() == 2"},
}
GUARD = """

import inspect

def _check(whole, *args, **kwargs):
    bound = inspect.signature(whole).bind(*args, **kwargs)
    bound.apply_defaults()
    if not eval({condition!r}, globals(), dict(bound.arguments)):
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


def restricted(name: str, condition: str) -> str:
    """Return the solution, changed so that it works only under this condition."""
    own = solution_of(name)
    kind = MODULE if re.search(rf"^class {name}\b", own, re.MULTILINE) else FUNCTION
    whole = re.sub(rf"^(def|class) {name}\b", r"\1 _Whole", own, flags=re.MULTILINE)
    return whole + GUARD.format(condition=condition) + kind.format(name=name)


CASES = [(name, label) for name, cases in RESTRICTED.items() for label in cases]


@pytest.mark.parametrize(("name", "label"), CASES)
def test_a_solution_for_the_usual_shapes_earns_half(name: str, label: str) -> None:
    failed = failed_tests(name, restricted(name, RESTRICTED[name][label]))
    tests = judge_of(name)[0].tests[name]
    earned = sum(test.weight for test in tests if test.name not in failed)
    assert failed, "the contract allows more shapes, so at least one test should fail"
    assert earned >= 0.5 * sum(test.weight for test in tests), failed
