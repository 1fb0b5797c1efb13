"""Hidden tests for the language-model chapter. The oracles evaluate GPT-2's formulas in float64, position by position."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autograder.execution.checks import (
    Draw,
    backpropagate,
    close,
    describe,
    equal,
    finite,
    leaf_gradient,
    on_meta,
    redrawn,
    shaped,
    unchanged,
    value_error,
    weight,
)
from graders.equivalent_calls import leading_axes

# All sizes differ, including the number of heads and the head size.
VOCAB, LENGTH, D, HEADS, D_FF = 11, 7, 6, 3, 10
# This tolerance covers the rounding error of several float32 matrix products on any hardware.
ATOL = 5e-5
DTYPES = ((torch.float64, 5e-5), (torch.float16, 2e-2), (torch.bfloat16, 1e-1))


def attention_weights(draw: Draw, prefix: str = "", d: int = D) -> dict[str, Tensor]:
    """Return random weights for the two linear layers of an attention module."""
    return {
        f"{prefix}qkv.weight": draw.normal(3 * d, d, scale=1.5 * d**-0.5),
        f"{prefix}qkv.bias": draw.normal(3 * d, scale=0.5),
        f"{prefix}out.weight": draw.normal(d, d, scale=d**-0.5),
        f"{prefix}out.bias": draw.normal(d, scale=0.5),
    }


def block_weights(draw: Draw, prefix: str = "", d_ff: int = D_FF) -> dict[str, Tensor]:
    """Return random weights for a `GPTBlock`."""
    weights = attention_weights(draw, f"{prefix}attention.") | {
        f"{prefix}linear1.weight": draw.normal(d_ff, D, scale=D**-0.5),
        f"{prefix}linear1.bias": draw.normal(d_ff),
        f"{prefix}linear2.weight": draw.normal(D, d_ff, scale=d_ff**-0.5),
        f"{prefix}linear2.bias": draw.normal(D),
    }
    return weights | norm_weights(draw, f"{prefix}norm1") | norm_weights(draw, f"{prefix}norm2")


def norm_weights(draw: Draw, name: str) -> dict[str, Tensor]:
    """Return random weights for a layer norm, with scales near 1 and biases near 0."""
    return {
        f"{name}.weight": 1 + draw.uniform(D, low=-0.5, high=0.5),
        f"{name}.bias": draw.normal(D, scale=0.5),
    }


def gpt_weights(draw: Draw, n_layers: int = 2) -> dict[str, Tensor]:
    """Return random weights for a `GPT` model. Both embeddings have about the same scale."""
    weights = {
        "token_embedding.weight": draw.normal(VOCAB, D),
        "position_embedding.weight": draw.normal(LENGTH, D),
    } | norm_weights(draw, "norm")
    for i in range(n_layers):
        weights |= block_weights(draw, f"blocks.{i}.", 4 * D)
    return weights


def weights_under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights whose names start with `prefix`, with this prefix removed from the names."""
    return {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}


def with_zeros(weights: dict[str, Tensor], *linears: str) -> dict[str, Tensor]:
    """Return a copy of the weights in which the weights of the given linear layers are zero."""
    return {n: w * (not any(f"{name}." in n for name in linears)) for n, w in weights.items()}


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Apply one linear layer in float64."""
    return x @ weights[f"{name}.weight"].double().T + weights[f"{name}.bias"].double()


def attention_oracle(
    x: Tensor,
    weights: dict[str, Tensor],
    heads: int = HEADS,
    past: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Compute causal attention in a loop over positions and heads.

    `past` contains the keys and values of the positions before x, each of shape (b, m, d).
    """
    d = x.shape[-1]
    d_head = d // heads
    qkv = linear(x.double(), weights, "qkv")
    query, key, value = qkv[..., :d], qkv[..., d : 2 * d], qkv[..., 2 * d :]
    m = 0
    if past is not None:
        m = past[0].shape[1]
        key, value = (
            torch.cat([a.double(), b], dim=1) for a, b in zip(past, (key, value), strict=True)
        )
    rows = []
    for i in range(x.shape[1]):
        parts, seen = [], m + i + 1
        for start in range(0, d, d_head):
            own = slice(start, start + d_head)
            scores = key[:, :seen, own] @ query[:, i, own].unsqueeze(-1) / math.sqrt(d_head)
            parts.append((scores.softmax(dim=1) * value[:, :seen, own]).sum(dim=1))
        rows.append(torch.cat(parts, dim=-1))
    return linear(torch.stack(rows, dim=1), weights, "out")


def layer_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Apply torch's layer norm in float64."""
    scale, shift = weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double()
    return F.layer_norm(x.double(), x.shape[-1:], scale, shift, 1e-5)


def block_oracle(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Compute x ← x + attention(norm1(x)), then x ← x + linear2(gelu(linear1(norm2(x))))."""
    x = x.double() + attention_oracle(
        layer_norm(x, weights, "norm1"), weights_under(weights, "attention.")
    )
    z = linear(layer_norm(x, weights, "norm2"), weights, "linear1")
    hidden = 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    return x + linear(hidden, weights, "linear2")


def gpt_oracle(tokens: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Compute GPT-2's logits."""
    table = weights["token_embedding.weight"].double()
    x = table[tokens] + weights["position_embedding.weight"].double()[: tokens.shape[1]]
    i = 0
    while block := weights_under(weights, f"blocks.{i}."):
        x, i = block_oracle(x, block), i + 1
    return layer_norm(x, weights, "norm") @ table.T


def run_in_chunks(module, whole: Tensor, sizes: tuple[int, ...], *caches, n_caches: bool = False):
    """Call the module on consecutive chunks of `whole`, passing the same caches, and concatenate the results."""
    given = list(caches) if n_caches else caches[0]
    chunks = []
    for chunk in whole.split(list(sizes), dim=1):
        seen = module(chunk, given)
        assert isinstance(seen, Tensor), (
            f"when a cache is used, the result should be a tensor, not {describe(seen)}"
        )
        assert seen.shape[:2] == chunk.shape[:2], (
            "the result for a chunk should have the batch size and length of the chunk, "
            f"{tuple(chunk.shape[:2])}; the shape of your result is {tuple(seen.shape)}"
        )
        chunks.append(seen)
    return torch.cat(chunks, dim=1)


def check_causal(before: Tensor, after: Tensor, changed: int) -> None:
    """Check that changing one position changes the result there, but at no earlier position."""
    change = (before - after).abs().amax(dim=(0, 2))
    for i in range(changed):
        assert change[i] < 1e-5, (
            f"changing position {changed} changes the result at the earlier position {i} "
            f"by {change[i]:.3g}"
        )
    assert change[changed] > 0, (
        f"changing position {changed} should change the result at that position; "
        f"it changes by {change[changed]:.3g}"
    )


def float64_leaves(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return float64 copies of the weights, with gradients enabled."""
    return {name: w.detach().double().clone().requires_grad_() for name, w in weights.items()}


def check_gradients(
    found: dict[str, Tensor], exact: dict[str, Tensor], atol: float, rtol: float = 1e-4
) -> None:
    """Compare the gradients after a backward pass with the oracle's.

    The tolerance is that of float32, because students may compute a softmax or norm in float32 whatever the dtype.
    """
    for name, leaf in exact.items():
        seen = leaf_gradient(found[name], f"`{name}`")
        close(seen, leaf.grad, f"the gradient of `{name}`", atol, rtol)


class TestCausalSelfAttention:
    exercise = "CausalSelfAttention"

    def _layer(self, student, draw: Draw, heads: int = HEADS, d: int = D, **more):
        layer = student.CausalSelfAttention(d, heads, **more)
        weights = attention_weights(draw, d=d)
        layer.load(weights)
        return layer.eval(), weights

    @weight(1)
    def test_future(self, student, seed):
        """Changing one position of x changes the result at that position, but at no earlier position."""
        draw = Draw(seed)
        layer, _ = self._layer(student, draw)
        x = draw.normal(2, 5, D)
        changed = x.clone()
        changed[:, 3] += 1
        before, after = (finite(shaped(layer(given), (2, 5, D))) for given in (x, changed))
        check_causal(before, after, 3)

    @weight(1)
    def test_one_head(self, student, seed):
        """With a single head, `qkv` computes queries, keys and values in this order, and `out` is applied last."""
        draw = Draw(seed)
        layer, weights = self._layer(student, draw, 1, 5)
        x = draw.normal(2, 4, 5)
        close(layer(x), attention_oracle(x, weights, 1), atol=ATOL, dtype=torch.float32)

    @weight(1.5)
    def test_heads(self, student, seed):
        """Each head uses its own slice of the queries, keys and values, and scores are divided by √d_head."""
        draw = Draw(seed)
        for d, heads in ((18, 9), (12, 2)):
            layer, weights = self._layer(student, draw, heads, d)
            x = draw.normal(2, 5, d)
            seen, what = layer(x), f"the result for d_model = {d} and n_heads = {heads}"
            unchanged(student)
            close(seen, attention_oracle(x, weights, heads), what, atol=ATOL, dtype=torch.float32)

    @weight(1.25)
    def test_cache_one_by_one(self, student, seed):
        """Passing the positions one at a time, with a cache, gives the same result as a single call."""
        draw = Draw(seed)
        layer, _ = self._layer(student, draw)
        x, cache = draw.normal(2, 5, D), student.KeyValueCache()
        whole = finite(shaped(layer(x), x.shape, what="the result without a cache"))
        seen = run_in_chunks(layer, x, (1,) * 5, cache)
        close(seen, whole, "the result for one position at a time", atol=ATOL)
        n_cached = len(cache)
        assert n_cached == 5, f"after 5 positions, len(cache) should be 5, not {n_cached}"

    @weight(1.25)
    def test_cache_in_pieces(self, student, seed):
        """With a cache, each position attends to all cached positions and to its own chunk up to and including itself."""
        draw = Draw(seed)
        layer, weights = self._layer(student, draw)
        x = draw.normal(2, 7, D)
        whole = finite(shaped(layer(x), x.shape, what="the result without a cache"))
        # A mask that is cached by chunk length would be wrong for the second chunk of 3.
        for sizes in ((3, 3, 1), (2, 1, 4), (7,)):
            seen = run_in_chunks(layer, x, sizes, student.KeyValueCache())
            unchanged(student)
            close(seen, whole, f"the result for chunks of {sizes} positions", atol=ATOL)
        layer = student.CausalSelfAttention(D, HEADS, dropout=0.0)
        layer.load(weights)
        seen = run_in_chunks(layer.train(), x, (3, 4), student.KeyValueCache())
        what = "the result for chunks of (3, 4) positions in training mode with dropout=0.0"
        close(seen, whole, what, atol=ATOL)

    @weight(0.5)
    def test_lengths(self, student, seed):
        """The batch size may be 1, the number of positions may differ from call to call, a cache may contain
        thousands of positions, and separate layers do not affect each other.
        """
        draw = Draw(seed)
        first, _ = self._layer(student, draw)
        x = draw.normal(2, 9, D)
        whole = finite(shaped(first(x), x.shape))
        for n in (5, 7):
            what = f"the result for {n} positions, after a call with a different length"
            close(first(x[:, :n]), whole[:, :n], what, atol=ATOL)
        layer, weights = self._layer(student, draw, 1, 2)
        what = "the result of a layer with 3 heads, after a layer with 1 head has been created"
        close(first(x), whole, what, atol=ATOL)
        x, cache = draw.normal(1, 3, 2), student.KeyValueCache()
        past = draw.normal(1, 1100, 2), draw.normal(1, 1100, 2)
        cache.append(*(tensor.unsqueeze(1) for tensor in past))
        expected = attention_oracle(x, weights, 1, past)
        what = "the result for 3 positions after 1100 cached ones"
        close(layer(x, cache), expected, what, atol=ATOL, dtype=torch.float32)

    @weight(0.75)
    def test_dropout(self, student, seed):
        """Dropout applies to the attention weights or to the output, in training mode only, and is off by default."""
        draw = Draw(seed)
        x = draw.normal(3, 6, D)
        layer, weights = self._layer(student, draw)
        baseline = finite(shaped(layer(x), x.shape))
        what = "the result in training mode with the default dropout"
        close(layer.train()(x), baseline, what, atol=ATOL)
        layer = student.CausalSelfAttention(D, HEADS, dropout=0.1)
        layer.load(weights)
        close(
            layer.eval()(x), baseline, "the result in evaluation mode with dropout=0.1", atol=ATOL
        )
        changed = student.changed
        shaped(layer.train()(x), x.shape)
        unchanged(student, besides=changed)
        # Every value is 1 for any x, and each position attends only to itself. So the result is 0
        # where a weight or an output is dropped, and at least 1 elsewhere.
        constant = {
            "qkv.weight": torch.zeros(3 * D, D),
            "qkv.bias": torch.ones(3 * D),
            "out.weight": torch.eye(D),
            "out.bias": torch.zeros(D),
        }
        layer.load(constant)
        x = draw.normal(300, 1, D)
        seen = finite(shaped(layer(x), x.shape))
        wrong = seen[(seen.abs() > 1e-3) & (seen < 0.999)].tolist()
        assert not wrong, (
            f"with values of 1, each result should be 0 (dropped) or at least 1 (kept), but one of yours is {wrong[0]:.4g}"
        )
        # Dropping weights, heads and outputs, all three with p = 0.1, gives a share of 0.27 ± 0.015.
        share = (seen < 0.5).double().mean().item()
        assert 0 < share < 0.4, (
            "in training mode with dropout=0.1, about 10% of the attention weights or of the output "
            f"should be dropped; your layer drops {share:.0%}"
        )
        redrawn(layer(x), seen)

    @weight(0.75)
    def test_not_divisible(self, student, seed):
        """A ValueError is raised if d_model is not divisible by n_heads."""
        for d, heads in ((10, 3), (3, 6)):
            with value_error("d_model", "n_heads", when=f"d_model is {d} and n_heads is {heads}"):
                student.CausalSelfAttention(d, heads)

    @weight(0.75)
    def test_gradients(self, student, seed):
        """The gradients of x and all weights are correct, and a cache does not change the gradient of x."""
        draw = Draw(seed)
        layer, weights = self._layer(student, draw)
        layer.to(torch.float64)
        parameters = layer.weights()
        x, upstream = (draw.normal(2, 5, D, dtype=torch.float64) for _ in range(2))
        exact = float64_leaves({"x": x, **weights})
        backpropagate(attention_oracle(exact["x"], exact), upstream)
        seen = shaped(layer(x.requires_grad_()), x.shape, x.dtype)
        backpropagate(seen, upstream)
        check_gradients({"x": x, **parameters}, exact, ATOL)
        again = x.detach().requires_grad_()
        seen = shaped(layer(again, student.KeyValueCache()), x.shape)
        backpropagate(seen, upstream, "the result when a cache is used")
        close(leaf_gradient(again, "x"), x.grad, "the gradient of x with a cache", 1e-5, 1e-4)

    @weight(0.75)
    def test_dtypes_and_strides(self, student, seed):
        """Half and double precision give accurate results in the same dtype, with or without a cache; x may be non-contiguous."""
        draw = Draw(seed)
        layer, weights = self._layer(student, draw)
        x = draw.normal(2, 5, D)
        expected = shaped(layer(x), x.shape)
        for dtype, tolerance in DTYPES:
            layer.to(dtype)
            given, what = draw.strided(x.to(dtype)), f"the result in {dtype}"
            close(layer(given), expected, what, tolerance, tolerance, dtype)
            seen = run_in_chunks(layer, given, (2, 3), student.KeyValueCache())
            close(seen, expected, f"{what} with a cache", tolerance, tolerance, dtype)
            layer.to(torch.float32).load(weights)

    @weight(0.25)
    def test_device(self, student):
        """After `.to(device)`, the layer works with inputs on that device."""
        layer, x = student.CausalSelfAttention(D, HEADS), torch.zeros(2, 5, D, device="meta")
        on_meta(lambda: layer.to("meta")(x), x.shape)


class TestGPTBlock:
    exercise = "GPTBlock"

    def _block(self, student, weights: dict[str, Tensor], **more):
        block = student.GPTBlock(D, HEADS, D_FF, **more)
        block.load(weights)
        return block.eval()

    @weight(1.25)
    def test_attention(self, student, seed):
        """If the feed-forward network outputs 0, the result is x + attention(norm1(x))."""
        draw = Draw(seed)
        weights = with_zeros(block_weights(draw), "linear2")
        block, x = self._block(student, weights), draw.normal(2, 5, D, scale=2.0)
        with torch.no_grad():
            seen = block(x)
        unchanged(student)
        close(seen, block_oracle(x, weights), atol=ATOL, dtype=torch.float32)

    @weight(1.25)
    def test_network(self, student, seed):
        """If attention outputs 0, the result is x + linear2(gelu(linear1(norm2(x))))."""
        draw = Draw(seed)
        weights = with_zeros(block_weights(draw), "out")
        block, x = self._block(student, weights), draw.normal(2, 5, D, scale=2.0)
        # A separate test checks which form of GELU is used.
        close(block(x), block_oracle(x, weights), atol=5e-3, dtype=torch.float32)

    @weight(1)
    def test_both(self, student, seed):
        """The feed-forward network is applied after the output of attention has been added to x."""
        draw = Draw(seed)
        weights = block_weights(draw)
        block, x = self._block(student, weights), draw.normal(3, 4, D)
        close(block(x), block_oracle(x, weights), atol=5e-3, dtype=torch.float32)

    @weight(0.75)
    def test_gelu(self, student, seed):
        """The block uses the tanh approximation of GELU."""
        draw = Draw(seed)
        block = self._block(student, block_weights(draw)).to(torch.float64)
        # Hidden unit k is gelu(z[k]) for any x, and linear2 copies D of the units to the result.
        z = torch.linspace(-3.1, 3.3, D_FF, dtype=torch.float64)
        weights = with_zeros(block_weights(draw), "out", "linear1", "linear2")
        weights = {n: w.double() for n, w in weights.items()} | {"linear1.bias": z}
        for first in (0, D_FF - D):
            weights["linear2.weight"] = torch.eye(D_FF, dtype=torch.float64)[first : first + D]
            block.load(weights)
            x = draw.normal(1, 1, D, dtype=torch.float64)
            close(block(x), block_oracle(x, weights), "x + gelu(z)", atol=1e-6)

    @weight(0.5)
    def test_eps(self, student, seed):
        """Both norms use eps = 1e-5, which matters when x is small."""
        draw = Draw(seed)
        for zeroed in ("linear2", "out"):
            weights = with_zeros(block_weights(draw), zeroed)
            block, x = self._block(student, weights), draw.normal(2, 5, D, scale=2e-3)
            close(block(x), block_oracle(x, weights), atol=5e-3, dtype=torch.float32)

    @weight(0.75)
    def test_cache(self, student, seed):
        """The block passes the cache to attention: processing x in chunks gives the same result as a single call."""
        draw = Draw(seed)
        block, x = self._block(student, block_weights(draw), dropout=0.0), draw.normal(2, 6, D)
        whole = finite(shaped(block(x), x.shape, what="the result without a cache"))
        for sizes, mode in (((1, 2, 3), "evaluation"), ((1,) * 6, "training")):
            cache, block = student.KeyValueCache(), block.train(mode == "training")
            seen = run_in_chunks(block, x, sizes, cache)
            what = f"the result for chunks of {sizes} in {mode} mode with dropout=0.0"
            close(seen, whole, what, atol=2 * ATOL)
            n_cached = len(cache)
            assert n_cached == 6, f"after 6 positions, len(cache) should be 6, not {n_cached}"

    @weight(0.25)
    def test_dropout(self, student, seed):
        """Dropout applies to the attention branch but not to x itself, in training mode only, and is off by default."""
        draw = Draw(seed)
        weights, x = block_weights(draw), draw.normal(8, 6, D)
        block = self._block(student, weights)
        baseline = finite(shaped(block(x), x.shape))
        what = "the result in training mode with the default dropout"
        close(block.train()(x), baseline, what, atol=2 * ATOL)
        block = self._block(student, weights, dropout=0.5)
        close(block(x), baseline, "the result in evaluation mode with dropout=0.5", atol=2 * ATOL)
        changed = student.changed
        block.load(with_zeros(weights, "out", "linear2"))
        seen = block.train()(x)
        unchanged(student, besides=changed)
        what = "the result in training mode with dropout=0.5, if both branches output 0"
        close(seen, x, what, atol=ATOL)
        self._check_branch(block, with_zeros(weights, "linear2"), x, "attention")
        redrawn(block(x), shaped(block(x), x.shape))

    @weight(0.25)
    def test_dropout_in_the_network(self, student, seed):
        """Dropout applies to the feed-forward branch in training mode."""
        draw = Draw(seed)
        weights, x = with_zeros(block_weights(draw), "out"), draw.normal(8, 6, D)
        block = self._block(student, weights, dropout=0.5)
        self._check_branch(block, weights, x, "feed-forward")

    def _check_branch(self, block, weights: dict[str, Tensor], x: Tensor, branch: str) -> None:
        """Check that dropout changes the result in training mode, with weights for which the other branch outputs 0."""
        block.load(weights)
        seen = finite(shaped(block.train()(x), x.shape))
        change = (seen - block_oracle(x, weights)).abs().max()
        # The two forms of GELU differ by less than 5e-3.
        assert change > 1e-2, (
            f"in training mode, dropout=0.5 should change the output of the {branch} branch; "
            f"it changes by at most {change:.3g}"
        )

    @weight(0.5)
    def test_gradients(self, student, seed):
        """The gradients of x and all weights are correct."""
        draw = Draw(seed)
        weights = block_weights(draw)
        block = self._block(student, weights).to(torch.float64)
        parameters = block.weights()
        x, upstream = (draw.normal(2, 5, D, dtype=torch.float64) for _ in range(2))
        exact = float64_leaves({"x": x, **weights})
        backpropagate(block_oracle(exact["x"], exact), upstream)
        seen = shaped(block(x.requires_grad_()), x.shape, x.dtype)
        backpropagate(seen, upstream)
        # A separate test checks which form of GELU is used.
        check_gradients({"x": x, **parameters}, exact, 5e-2, 2e-2)

    @weight(0.5)
    def test_dtypes_and_strides(self, student, seed):
        """Half and double precision give accurate results in the same dtype; x may be non-contiguous."""
        draw = Draw(seed)
        weights, x = block_weights(draw), draw.strided(draw.normal(2, 5, D))
        block, expected = self._block(student, weights), block_oracle(x, weights)
        for dtype, tolerance in DTYPES:
            seen, what = block.to(dtype)(x.to(dtype)), f"the result in {dtype}"
            tolerance = max(3 * tolerance, 5e-3)  # either form of GELU passes
            close(seen, expected, what, tolerance, tolerance, dtype)
            block.to(torch.float32).load(weights)


TOO_LONG = ("max_length", "tokens", "caches", "n", "positions", "position")


class TestGPT:
    exercise = "GPT"

    def _model(self, student, weights: dict[str, Tensor], n_layers: int = 2, **more):
        model = student.GPT(VOCAB, LENGTH, D, HEADS, n_layers, **more)
        model.load(weights)
        return model.eval()

    @weight(0.75)
    def test_parts(self, student):
        """The model has the parts named in the docstring, including `n_layers` blocks with d_ff = 4·d_model."""
        weights = gpt_weights(Draw(0), 3)
        model = self._model(student, weights, 3)
        seen = model.weights()
        for name, value in weights.items():
            close(seen[name], value, f"`{name}` after loading weights into all parameters")
        length = model.length("blocks")
        assert length == 3, f"with n_layers=3, `blocks` should hold 3 blocks, not {length}"
        for name, value in (("max_length", LENGTH), ("n_layers", 3)):
            found = model.get(name)
            assert found == value, (
                f"`{name}` should be {value}, as passed to the constructor, not {describe(found)}"
            )

    @weight(1)
    def test_tied(self, student):
        """The logits are computed with the token embedding's weights; the output layer has no parameters of its own."""
        weights = gpt_weights(Draw(0))
        # Converting the model to float64 separates parameters that only share memory.
        model = self._model(student, weights).to(torch.float64)
        weights = {name: weight.double() + 1 for name, weight in weights.items()}
        model.load(weights)
        seen = model.weights()
        for name in set(seen) - set(weights):
            # If a parameter also has a second name, that name now gives the values loaded under the first.
            assert any(torch.equal(seen[name], weight) for weight in weights.values()), (
                f"there is an extra parameter `{name}` of shape {tuple(seen[name].shape)}; the output "
                "layer should have no parameters except the token embedding's weights"
            )

    @weight(1)
    def test_embeddings(self, student, seed):
        """If the blocks add nothing, the logits are norm(token + position) · token_embeddingᵀ."""
        draw = Draw(seed)
        weights = with_zeros(gpt_weights(draw), "out", "linear2")
        tokens = draw.integers(0, VOCAB, 2, 5)
        # Weights of 0 make all logits 0. They distinguish random weights in the output layer from any others.
        for own in (weights, with_zeros(weights, "token_embedding")):
            seen = self._model(student, own)(tokens)
            unchanged(student)
            close(seen, gpt_oracle(tokens, own), "the logits", 1e-4, 1e-4, torch.float32)

    @weight(0.25)
    def test_eps(self, student, seed):
        """Like GPT-2's, the last norm uses eps = 1e-5, which matters when its input is small."""
        draw = Draw(seed)
        weights = with_zeros(gpt_weights(draw, 1), "out", "linear2")
        weights["token_embedding.weight"][:4] *= 2e-3
        weights["position_embedding.weight"] *= 2e-3
        tokens = draw.integers(0, 4, 1, 3)
        what = "the logits (if the embeddings are small and the block adds nothing)"
        with torch.no_grad():
            seen = self._model(student, weights, 1)(tokens)
        close(seen, gpt_oracle(tokens, weights), what, 1e-2, 5e-3, torch.float32)

    @weight(1.25)
    def test_whole(self, student, seed):
        """Given the same weights, the model computes the same logits as GPT-2, for one block and for several blocks."""
        draw = Draw(seed)
        for b, n_layers, n in ((1, 1, 6), (2, 3, 5)):
            weights = gpt_weights(draw, n_layers)
            tokens = draw.integers(0, VOCAB, b, n)
            model = self._model(student, weights, n_layers)
            what = f"the logits with n_layers={n_layers}"
            close(model(tokens), gpt_oracle(tokens, weights), what, 1e-2, 5e-3, torch.float32)
            seen = model.to(torch.bfloat16)(tokens)
            finite(shaped(seen, (b, n, VOCAB), torch.bfloat16, what), f"{what} in bfloat16")

    @weight(1)
    def test_future(self, student, seed):
        """Changing a token changes the logits at its own position, but at no earlier position."""
        draw = Draw(seed)
        model = self._model(student, gpt_weights(draw))
        tokens = draw.integers(0, VOCAB - 1, 2, 6)
        changed = tokens.clone()
        changed[:, 4] += 1
        before, after = (finite(shaped(model(t), (2, 6, VOCAB))) for t in (tokens, changed))
        check_causal(before, after, 4)

    @weight(1)
    def test_max_length(self, student, seed):
        """Up to `max_length` tokens are accepted; one more token raises a ValueError."""
        draw = Draw(seed)
        model = self._model(student, gpt_weights(draw))
        shaped(model(draw.integers(0, VOCAB, 2, LENGTH)), (2, LENGTH, VOCAB), what="the logits")
        with value_error(
            *TOO_LONG, when=f"there are {LENGTH + 1} tokens and max_length is {LENGTH}"
        ):
            model(draw.integers(0, VOCAB, 2, LENGTH + 1))

    @weight(1.5)
    def test_caches(self, student, seed):
        """With caches, new positions follow the cached ones: passing tokens in chunks gives the same logits as a single call."""
        draw = Draw(seed)
        model, tokens = self._model(student, gpt_weights(draw)), draw.integers(0, VOCAB, 2, LENGTH)
        whole = finite(shaped(model(tokens), (2, LENGTH, VOCAB), what="the logits without caches"))
        for sizes in ((1,) * LENGTH, (3, 3, 1), (2, 1, 4)):
            caches = [student.KeyValueCache() for _ in range(2)]
            seen = run_in_chunks(model, tokens, sizes, *caches, n_caches=True)
            close(seen, whole, f"the logits for chunks of {sizes} tokens", 1e-3, 1e-3)
            n_cached = [len(cache) for cache in caches]
            assert n_cached == [LENGTH] * 2, (
                f"after {LENGTH} tokens, each of the 2 caches should hold {LENGTH} positions; "
                f"yours hold {n_cached[0]} and {n_cached[1]}"
            )
        model = self._model(student, gpt_weights(draw, 1), 1, dropout=0.0)
        whole = finite(shaped(model(tokens), (2, LENGTH, VOCAB), what="the logits without caches"))
        for mode in ("evaluation", "training"):
            model.train(mode == "training")
            seen = run_in_chunks(model, tokens, (2, 5), student.KeyValueCache(), n_caches=True)
            what = f"the logits for chunks with n_layers=1 and dropout=0.0 in {mode} mode"
            close(seen, whole, what, 1e-3, 1e-3)

    @weight(1)
    def test_max_length_with_caches(self, student, seed):
        """Cached positions count towards `max_length`, and a rejected call leaves the caches unchanged."""
        draw = Draw(seed)
        model = self._model(student, gpt_weights(draw))
        caches = [student.KeyValueCache() for _ in range(2)]
        model(draw.integers(0, VOCAB, 2, LENGTH - 2), caches)
        for fits in (False, True):
            n = 2 if fits else 3
            if fits:
                shaped(model(draw.integers(0, VOCAB, 2, n), caches), (2, n, VOCAB))
            else:
                when = f"{LENGTH - 2} positions are cached, {n} are new and max_length is {LENGTH}"
                with value_error(*TOO_LONG, when=when):
                    model(draw.integers(0, VOCAB, 2, n), caches)
                n_cached = [len(cache) for cache in caches]
                assert n_cached == [LENGTH - 2] * 2, (
                    f"after the rejected call, the caches should still hold {LENGTH - 2} positions; "
                    f"they hold {n_cached[0]} and {n_cached[1]}"
                )

    @weight(0.75)
    def test_dropout(self, student, seed):
        """Dropout changes the logits in training mode but not in evaluation mode, and is off by default."""
        draw = Draw(seed)
        weights, tokens = gpt_weights(draw, 1), draw.integers(0, VOCAB, 2, 6)
        model = self._model(student, weights, 1)
        baseline = finite(shaped(model(tokens), (2, 6, VOCAB), what="the logits"))
        what = "the logits in training mode with the default dropout"
        close(model.train()(tokens), baseline, what, 1e-3, 1e-3)
        model = self._model(student, weights, 1, dropout=0.5)
        close(model(tokens), baseline, "the logits in evaluation mode with dropout=0.5", 1e-3, 1e-3)
        seen = finite(shaped(model.train()(tokens), (2, 6, VOCAB), what="the logits"))
        change = (seen - baseline).abs().max()
        assert change > 1e-2, (
            f"in training mode, dropout=0.5 should change the logits; they change by at most {change:.3g}"
        )
        redrawn(model(tokens), seen)

    @weight(0.75)
    def test_gradients(self, student, seed):
        """The gradients of all weights are correct; the token embedding's gradient is the sum over both of its uses."""
        draw = Draw(seed)
        weights, tokens = gpt_weights(draw, 1), draw.integers(0, VOCAB, 2, 5)
        model = self._model(student, weights, 1).to(torch.float64)
        parameters = model.weights()
        upstream = draw.normal(2, 5, VOCAB).double()
        exact = float64_leaves(weights)
        backpropagate(gpt_oracle(tokens, exact), upstream)
        seen = shaped(model(tokens), (2, 5, VOCAB), torch.float64, "the logits")
        backpropagate(seen, upstream, "the logits")
        # The tests for GPTBlock check which form of GELU is used.
        check_gradients(parameters, exact, 5e-2, 2e-2)


def loss_oracle(logits: Tensor, tokens: Tensor) -> Tensor:
    """Compute the mean of −log p over all tokens except the first of each row, one token at a time in float64."""
    losses = []
    for row, text in zip(logits.double(), tokens.tolist(), strict=True):
        for scores, token in zip(row, text[1:], strict=False):
            losses.append(scores.logsumexp(dim=0) - scores[token])
    return torch.stack(losses).mean()


# The tokens that logits may favour, with their distance from the position of the logits.
SHIFTS = (
    ("the next token", 1),
    ("the token at the same position", 0),
    ("the previous token", -1),
    ("the token after the next one", 2),
    ("a token that does not occur", None),
)


class TestNextTokenLoss:
    exercise = "next_token_loss"

    @weight(1.5)
    def test_shift(self, student, seed):
        """The logits at each position are scored against the next token."""
        draw = Draw(seed)
        has_lowest = set()
        # An answer that ignores the logits could pass once by chance, or because the calls are always in the same order.
        for _ in range(4):
            # The tokens of a row are distinct, and token 9 does not occur.
            tokens = draw.uniform(2, 9).argsort(dim=-1)[:, :6].contiguous()
            losses = {}
            for number in draw.uniform(len(SHIFTS)).argsort().tolist():
                name, ahead = SHIFTS[number]
                favoured = torch.full((2, 6), 9)
                for t in range(5):  # there is nothing to predict at the last position
                    if ahead is not None and 0 <= t + ahead < 6:
                        favoured[:, t] = tokens[:, t + ahead]
                seen = student.next_token_loss(9.0 * F.one_hot(favoured, 10), tokens)
                unchanged(student)
                losses[name] = finite(shaped(seen, (), what="the loss"), "the loss").item()
            correct = losses.pop("the next token")
            # Other tests check whether the loss is a mean, and whether it has the right sign and scale.
            lowest = min(losses, key=losses.__getitem__)
            assert correct < losses[lowest] - 1e-3 or correct > max(losses.values()) + 1e-3, (
                f"your loss is {correct:.4g} for logits that favour the next token, "
                f"and {losses[lowest]:.4g} for logits that favour {lowest}"
            )
            has_lowest.add(correct < losses[lowest])
        assert len(has_lowest) == 1, (
            "logits that favour the next token have the lowest loss in some calls and the highest loss in others"
        )

    @weight(1)
    def test_mean(self, student, seed):
        """The loss is the mean of −log p over all predictions in the batch, in nats."""
        draw = Draw(seed)
        for b, n, v in ((3, 5, 7), (1, 2, 4), (2, 4, 3), (1, 3, 1030)):
            # No token is very unlikely: another test checks the loss of such tokens.
            logits, tokens = draw.uniform(b, n, v, low=-1.0), draw.integers(0, v, b, n)
            tokens[0, -1] = 0  # a token like any other
            what = f"the loss for logits of shape {(b, n, v)}"
            seen = student.next_token_loss(logits, tokens)
            close(seen, loss_oracle(logits, tokens), what, dtype=torch.float32)

    @weight(0.75)
    def test_ends(self, student, seed):
        """The first token is never a target, and the logits at the last position are not used."""
        draw = Draw(seed)
        logits, tokens = draw.normal(2, 5, 6), draw.integers(0, 5, 2, 5)
        tokens[1, 2], tokens[0, 3] = 0, 4
        other_logits, other_tokens = logits.clone(), tokens.clone()
        other_logits[:, -1] += draw.normal(2, 6, scale=5.0)
        other_tokens[:, 0] += 1
        before = shaped(student.next_token_loss(logits, tokens), (), what="the loss")
        for what, given in (
            ("changing the logits at the last position", (other_logits, tokens)),
            ("changing the first token", (logits, other_tokens)),
        ):
            after = shaped(student.next_token_loss(*given), (), what="the loss")
            assert abs(float(after - before)) < 1e-5, (
                f"{what} should not change the loss, but your loss changes from {before:.6g} to {after:.6g}"
            )

    @weight(1)
    def test_large_logits(self, student, seed):
        """The loss is correct for logits of ±10⁴, both for likely and for very unlikely tokens."""
        draw = Draw(seed)
        logits, tokens = draw.uniform(2, 5, 6, low=-1e4, high=1e4), draw.integers(0, 6, 2, 5)
        tokens[1, 2] = 0
        seen = student.next_token_loss(logits, tokens)
        close(seen, loss_oracle(logits, tokens), "the loss", rtol=1e-4, dtype=torch.float32)
        scores = torch.tensor([[[-1e4, 1e4, -1e4], [0.0, 0.0, 0.0]]])
        for token, cost in ((1, 0.0), (2, 2e4)):
            seen = student.next_token_loss(scores, torch.tensor([[0, token]]))
            close(seen, torch.tensor(cost), "the loss of a single prediction", atol=1e-3, rtol=1e-4)

    @weight(0.75)
    def test_gradients(self, student, seed):
        """The gradient of the logits is (p − one-hot) / number of predictions, and 0 at the last position."""
        draw = Draw(seed)
        logits = draw.normal(2, 4, 5, scale=2.0).requires_grad_()
        tokens = draw.integers(0, 5, 2, 4)
        tokens[0, 2] = 0
        seen = shaped(student.next_token_loss(logits, tokens), (), what="the loss")
        assert seen.requires_grad, "no gradient flows through the loss"
        seen.backward()
        copy = logits.detach().double().requires_grad_()
        loss_oracle(copy, tokens).backward()
        found = leaf_gradient(logits, "the logits")
        close(found, copy.grad, "the gradient of the logits", dtype=torch.float32)
        far = draw.uniform(2, 4, 5, low=-1e4, high=1e4).requires_grad_()
        seen = shaped(student.next_token_loss(far, tokens), (), what="the loss")
        assert seen.requires_grad, "no gradient flows through the loss"
        seen.backward()
        copy = far.detach().double().requires_grad_()
        loss_oracle(copy, tokens).backward()
        found, what = leaf_gradient(far, "logits up to ±10⁴"), "the gradient of logits up to ±10⁴"
        close(found, copy.grad, what, 1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_dtypes_and_strides(self, student, seed):
        """The loss has the dtype of the logits, and both arguments may be non-contiguous."""
        draw = Draw(seed)
        logits = draw.strided(draw.normal(3, 5, 7, dtype=torch.float64))
        tokens = draw.integers(0, 7, 3, 5)
        tokens[1, 3] = 0
        tokens = draw.strided(tokens)
        # Computing the loss in float32 is accepted for every dtype.
        for dtype, tolerance in ((torch.float32, 1e-5), *DTYPES):
            seen = student.next_token_loss(logits.to(dtype), tokens)
            expected = loss_oracle(logits.to(dtype), tokens)
            close(seen, expected, f"the loss in {dtype}", tolerance, tolerance, dtype)

    @weight(0.25)
    def test_device(self, student):
        """The loss is on the same device as the logits."""
        logits = torch.zeros(2, 4, 5, device="meta")
        tokens = torch.zeros(2, 4, dtype=torch.long, device="meta")
        on_meta(lambda: student.next_token_loss(logits, tokens), (), "the loss")


# The probabilities are in descending order. No cumulative sum is close to a `top_p` used below.
PROBABILITIES = torch.tensor([0.36, 0.24, 0.16, 0.12, 0.07, 0.05], dtype=torch.float64)


def shuffled_logits(draw: Draw, *batch: int, probabilities: Tensor = PROBABILITIES) -> Tensor:
    """Return logits for these probabilities, shuffled within each row and shifted by a constant per row."""
    v = len(probabilities)
    order = draw.uniform(*batch, v).argsort(dim=-1)
    return (probabilities.log()[order] + draw.normal(*batch, 1, dtype=torch.float64)).float()


def format_arguments(**options) -> str:
    """Format keyword arguments as they appear in a call."""
    return ", ".join(f"{name}={value}" for name, value in options.items())


def probabilities_oracle(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Compute the filtered distribution in float64, adding tokens in order of decreasing probability."""
    rows = []
    for row in (logits.double() / temperature).softmax(dim=-1).reshape(-1, logits.shape[-1]):
        plain = row.tolist()
        ranked = sorted(range(len(plain)), key=lambda i: -plain[i])[:top_k]
        total = sum(plain[i] for i in ranked)
        kept, reached = [], 0.0
        for i in ranked:
            if top_p is None or reached < top_p:
                kept.append(i)
            reached += plain[i] / total
        only = torch.zeros_like(row)
        only[kept] = row[kept]
        rows.append(only / only.sum())
    return torch.stack(rows).reshape(logits.shape)


class TestNextTokenProbabilities:
    exercise = "next_token_probabilities"

    def _check(self, student, logits: Tensor, what: str, atol: float = 1e-5, **options) -> None:
        seen = leading_axes(student.next_token_probabilities, 1)(logits, **options)
        unchanged(student)
        what = f"the result for {what}"
        close(seen, probabilities_oracle(logits, **options), what, atol, dtype=torch.float32)

    @weight(1)
    def test_temperature(self, student, seed):
        """The result is softmax(logits / temperature) over the last axis, with any leading axes."""
        draw = Draw(seed)
        for shape in ((5,), (1, 5), (2, 1, 4)):
            logits = draw.normal(*shape, scale=2.0)
            for options in ({}, {"temperature": 0.6}, {"temperature": 2.5}):
                what = (
                    f"the result for logits of shape {shape} {format_arguments(**options)}".strip()
                )
                seen = student.next_token_probabilities(logits, **options)
                unchanged(student)
                close(seen, probabilities_oracle(logits, **options), what, dtype=torch.float32)

    @weight(0.5)
    def test_leading_axes(self, student, seed):
        """Temperature 0, `top_k` and `top_p` work for any number of leading axes, including none."""
        draw = Draw(seed)
        for leading in ((), (2,), (3, 2), (2, 1, 2)):
            logits = draw.strided(shuffled_logits(draw, *leading))
            greedy = F.one_hot(logits.argmax(dim=-1), 6).float()
            seen = student.next_token_probabilities(logits, temperature=0)
            close(seen, greedy, f"the result for leading axes {leading} and temperature=0")
            for options in ({"top_k": 2}, {"top_p": 0.7}):
                what = f"the result for leading axes {leading} and {format_arguments(**options)}"
                seen = student.next_token_probabilities(logits, **options)
                close(seen, probabilities_oracle(logits, **options), what, dtype=torch.float32)

    @weight(1)
    def test_temperature_0(self, student, seed):
        """At temperature 0, the token with the largest logit gets probability 1, whatever the other arguments are."""
        draw = Draw(seed)
        for shape in ((6,), (3, 2, 6)):
            logits = shuffled_logits(draw, *shape[:-1])
            expected = F.one_hot(logits.argmax(dim=-1), 6).float()
            for more in ({}, {"top_k": 3}, {"top_p": 0.2}, {"top_k": 2, "top_p": 1.0}):
                seen = leading_axes(student.next_token_probabilities, 1)(
                    logits, temperature=0, **more
                )
                close(seen, expected, f"the result for {format_arguments(temperature=0, **more)}")
        # These logits are still distinct in float32.
        near = torch.tensor([[0.2, 1.0, 1.0], [0.5, -1.0, 0.5]])
        near[0, 2] -= 1e-6
        near[1, 0] -= 1e-6
        expected = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        what = "the result for temperature=0 and logits that differ by 0.000001"
        close(
            leading_axes(student.next_token_probabilities, 1)(near, temperature=0), expected, what
        )

    @weight(0.25)
    def test_ties_at_temperature_0(self, student, seed):
        """At temperature 0, the probabilities sum to 1 even if several tokens have the largest logit."""
        logits = Draw(seed).uniform(3, 5, low=-1.0)
        logits[:, 1] = logits[1:, 3] = logits[2, 4] = 2.0
        seen = leading_axes(student.next_token_probabilities, 1)(logits, temperature=0)
        seen = finite(shaped(seen, (3, 5)))
        close(seen.sum(dim=-1), torch.ones(3), "the sum of each row for temperature=0")
        what = "the probability of tokens whose logit is not the largest, for temperature=0"
        close(seen[logits < 2], torch.zeros(9), what)

    @weight(0.5)
    def test_rows(self, student, seed):
        """Each row is filtered and normalised independently of the others."""
        draw = Draw(seed)
        logits = torch.cat([shuffled_logits(draw, 2), 5 * shuffled_logits(draw, 1)])
        # The largest logits differ so much between rows that no threshold is right for two rows.
        logits += torch.tensor([[0.0], [-5.0], [5.0]]) - logits.amax(dim=-1, keepdim=True)
        # With this `top_p`, every row keeps at least one token, even if the token that crosses `top_p` is dropped.
        for options in ({}, {"top_k": 2}, {"top_p": 0.93}, {"temperature": 0}):
            together = finite(
                shaped(leading_axes(student.next_token_probabilities, 1)(logits, **options), (3, 6))
            ).detach()
            for row in (0, 2):
                alone = leading_axes(student.next_token_probabilities, 1)(
                    logits[row : row + 1], **options
                )
                what = (
                    f"row {row} of 3 for {format_arguments(**options) or 'no filter'}, "
                    "compared with passing that row alone"
                )
                close(together[row : row + 1], shaped(alone, (1, 6)), what)

    @weight(1)
    def test_top_k(self, student, seed):
        """The `top_k` most likely tokens are kept (all tokens if there are fewer), and their probabilities are renormalised."""
        draw = Draw(seed)
        for top_k in (1, 2, 5, 6, 9):
            self._check(student, shuffled_logits(draw, 4), f"top_k={top_k}", top_k=top_k)
        logits = draw.normal(1, 1030, scale=3.0)
        self._check(student, logits, "1030 tokens and top_k=300", top_k=300)

    @weight(1.5)
    def test_top_p(self, student, seed):
        """The smallest set of most likely tokens whose total probability reaches `top_p` is kept,
        including the token that brings the total to `top_p` or above.
        """
        draw = Draw(seed)
        for top_p in (0.45, 0.7, 0.8, 0.9, 0.97):
            logits = shuffled_logits(draw, 4)
            what = f"probabilities 0.36, 0.24, 0.16, 0.12, 0.07, 0.05 and top_p={top_p}"
            self._check(student, logits, what, top_p=top_p)
        sure = torch.tensor([0.81, 0.09, 0.05, 0.03, 0.015, 0.005], dtype=torch.float64)
        logits = torch.cat([shuffled_logits(draw, 2), shuffled_logits(draw, 2, probabilities=sure)])
        what = "top_p=0.7, where two rows need three tokens and two rows need one"
        self._check(student, logits, what, top_p=0.7)
        # 525 of 1030 tokens are kept; `top_p` lies halfway through the probability of the last kept token.
        likely = torch.linspace(2.0, 1.0, 1030, dtype=torch.float64)
        likely = likely / likely.sum()
        logits, top_p = (
            shuffled_logits(draw, 1, probabilities=likely),
            float(likely[:525].sum() - likely[524] / 2),
        )
        self._check(student, logits, f"1030 tokens and top_p={top_p:.4f}", top_p=top_p)

    @weight(1)
    def test_top_p_extremes(self, student, seed):
        """At least one token is kept, however small `top_p` is, and `top_p` = 1 keeps all tokens."""
        draw = Draw(seed)
        for top_p in (0.2, 1e-6):
            self._check(student, shuffled_logits(draw, 2, 3), f"top_p={top_p}", top_p=top_p)
        sure = torch.tensor([0.9, 0.06, 0.04], dtype=torch.float64)
        logits = shuffled_logits(draw, 3, probabilities=sure)
        self._check(student, logits, "a token with probability 0.9 and top_p=0.5", top_p=0.5)
        # Four equal probabilities sum to exactly 1.
        logits = draw.normal(3, 1).expand(3, 4).contiguous()
        self._check(student, logits, "four equal logits and top_p=1.0", top_p=1.0)

    @weight(0.25)
    def test_top_p_reached_exactly(self, student):
        """The smallest set is kept if its total probability is exactly `top_p`."""
        # All four tokens tie, so all may be kept. Their probabilities have no rounding error.
        for top_p, smallest in ((0.25, 1), (0.5, 2)):
            logits = torch.zeros(1, 4)
            seen = leading_axes(student.next_token_probabilities, 1)(logits, top_p=top_p)
            what = f"the result for four equal logits and top_p={top_p}"
            kept = int((finite(shaped(seen, (1, 4)), what) > 1e-3).sum())
            assert kept in (smallest, 4), (
                f"four equal logits and top_p={top_p}: a total probability of {top_p} needs {smallest} of the tokens, "
                f"and as all tie, you may keep all 4; you keep {kept}"
            )

    @weight(1)
    def test_order(self, student, seed):
        """The temperature is applied first, then `top_k`, then `top_p`. Probabilities are renormalised before `top_p`."""
        draw = Draw(seed)
        # The comments give the cumulative probabilities with and without `top_k`.
        for options in (
            {"top_k": 3, "top_p": 0.75},  # sums: 0.47, 0.79 (top 3); 0.36, 0.6, 0.76 (all 6)
            {"top_k": 2, "top_p": 0.5},  # sum: 0.6 (top 2)
            {"top_k": 5, "top_p": 0.7},
            {"temperature": 0.5, "top_p": 0.7},
            {"temperature": 3.0, "top_k": 4, "top_p": 0.7},
        ):
            what = ", ".join(f"{name}={value}" for name, value in options.items())
            self._check(student, shuffled_logits(draw, 3), what, **options)

    @weight(1)
    def test_refused(self, student, seed):
        """A negative temperature raises a ValueError. So does a `top_k` below 1 or a `top_p` outside (0, 1],
        even at temperature 0.
        """
        logits = Draw(seed).normal(2, 5)
        for temperature in (1.0, 0):
            for name, value in (("top_k", 0), ("top_k", -2), ("top_p", 0.0), ("top_p", 1.5)):
                with value_error(name, when=f"{name} is {value} and temperature is {temperature}"):
                    options = {"temperature": temperature, name: value}
                    leading_axes(student.next_token_probabilities, 1)(logits, **options)
        with value_error("top_p", when="top_p is -0.1"):
            leading_axes(student.next_token_probabilities, 1)(logits, top_p=-0.1)
        with value_error("temperature", when="temperature is -0.5"):
            leading_axes(student.next_token_probabilities, 1)(logits, temperature=-0.5)
        # An invalid argument is rejected even if the others are valid or there is only one token.
        for name, value, more in (
            ("temperature", -0.5, {"top_k": 1}),
            ("temperature", -1.0, {"top_k": 9, "top_p": 1.0}),
            ("top_p", 1.5, {"top_k": 1}),
            ("top_p", 0.0, {"top_k": 9}),
            ("top_k", 0, {"top_p": 1.0}),
        ):
            with value_error(name, when=f"{name} is {value} and {format_arguments(**more)}"):
                leading_axes(student.next_token_probabilities, 1)(logits, **{name: value}, **more)
        with value_error("top_k", when="top_k is 0 and there is only one token"):
            leading_axes(student.next_token_probabilities, 1)(logits[:, :1], top_k=0)

    @weight(0.75)
    def test_large_logits(self, student, seed):
        """Large logits and small temperatures do not cause an overflow."""
        draw = Draw(seed)
        # The logits of a row are so far apart that one token gets probability 1.
        rows = [
            [-900, 0, 850, 400, -450],
            [-850, -600, -900, -500, -750],
            [-300, 300, 0, -600, 850],
        ]
        logits = torch.tensor(rows) + draw.uniform(3, 5, low=0, high=40)
        # A float32 logsumexp is imprecise at this scale.
        self._check(student, logits, "logits of up to ±900", 1e-3)
        self._check(
            student, logits, "logits of up to ±900, top_k=4 and top_p=0.9", 1e-3, top_k=4, top_p=0.9
        )
        logits = shuffled_logits(draw, 3)
        self._check(student, logits, "temperature=0.01", temperature=0.01)
        what = "logits below −100, temperature=0.01 and top_k=2"
        self._check(student, logits - 150, what, temperature=0.01, top_k=2)
        near = 2e-3 * draw.normal(3, 5)
        seen = leading_axes(student.next_token_probabilities, 1)(near, temperature=1e-3)
        what = "the result for temperature=0.001 and logits that are close together"
        close(seen, probabilities_oracle(near, 1e-3), what, 1e-3, 1e-3, torch.float32)

    @weight(0.75)
    def test_dtypes_and_gradients(self, student, seed):
        """The result has the dtype of the logits, which may be non-contiguous; gradients flow through the result."""
        draw = Draw(seed)
        logits = draw.strided(shuffled_logits(draw, 3, 2))
        options = {"temperature": 0.8, "top_k": 5, "top_p": 0.75}
        for dtype, tolerance in DTYPES:
            seen = leading_axes(student.next_token_probabilities, 1)(logits.to(dtype), **options)
            expected = probabilities_oracle(logits, **options)
            close(seen, expected, f"the result in {dtype}", tolerance, tolerance, dtype)
            seen = leading_axes(student.next_token_probabilities, 1)(
                logits.to(dtype), temperature=0
            )
            shaped(seen, logits.shape, dtype, f"the result in {dtype} for temperature=0")
        for options in ({"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.7}):
            given, upstream = logits.clone().requires_grad_(), draw.normal(3, 2, 6)
            seen = shaped(
                leading_axes(student.next_token_probabilities, 1)(given, **options), (3, 2, 6)
            )
            backpropagate(seen, upstream)
            copy = logits.double().requires_grad_()
            backpropagate(probabilities_oracle(copy, **options), upstream)
            found = leaf_gradient(given, "the logits")
            close(
                found,
                copy.grad,
                f"the gradient of the logits for {format_arguments(**options)}",
                dtype=torch.float32,
            )
            far = draw.uniform(3, 6, low=-900, high=900).requires_grad_()
            seen = shaped(leading_axes(student.next_token_probabilities, 1)(far, **options), (3, 6))
            backpropagate(seen, draw.normal(3, 6))
            leaf_gradient(far, f"logits of up to ±900 for {format_arguments(**options)}")

    @weight(0.25)
    def test_device(self, student):
        """The result is on the same device as the logits."""
        logits = torch.zeros(3, 6, device="meta")
        for options in ({}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 0}):
            on_meta(
                lambda options=options: leading_axes(student.next_token_probabilities, 1)(
                    logits, **options
                ),
                (3, 6),
                f"the result for {format_arguments(**options) or 'no filter'}",
            )


class Storyteller(nn.Module):
    """A model that records how it is called. Its predictions depend on all previous tokens and their order."""

    def __init__(self, draw: Draw, max_length: int = 12) -> None:
        super().__init__()
        self.max_length, self.n_layers = max_length, 2
        self.blocks = nn.ModuleList(nn.Identity() for _ in range(self.n_layers))
        self._table = draw.normal(97, VOCAB, scale=2.0)
        self._lengths: list[int] = []
        self._with_caches: list[bool] = []
        self._training: list[bool] = []
        self._gradients: list[bool] = []

    def forward(self, tokens: Tensor, caches=None) -> Tensor:
        """Return the logits for the next token. If `caches` is given, the tokens are stored in every cache as keys."""
        self._lengths.append(tokens.shape[1])
        self._with_caches.append(caches is not None)
        self._training.append(self.training)
        self._gradients.append(torch.is_grad_enabled())
        known = tokens
        if caches is not None:
            n_caches = len(caches) if isinstance(caches, list) else 0
            assert n_caches == self.n_layers, (
                f"the model has {self.n_layers} blocks, so `caches` should be a list of "
                f"{self.n_layers} caches"
            )
            new = tokens.double()[:, None, :, None]
            for cache in caches:
                known = cache.append(new, new)[0][:, 0, :, 0].long()
            total = sum(self._lengths)
            assert known.shape[1] == total, (
                f"the model was called with {total} positions in total, but the cache of its last block holds {known.shape[1]}. "
                f"Does each block have its own cache, and is it kept between steps?"
            )
        assert known.shape[1] <= self.max_length, (
            f"the model was called with {known.shape[1]} positions (including cached ones), "
            f"but its max_length is {self.max_length}"
        )
        return self._logits(known)[:, -tokens.shape[1] :]

    def _logits(self, tokens: Tensor) -> Tensor:
        factors = torch.arange(1, 1 + tokens.shape[1])
        return self._table[(tokens * factors).cumsum(dim=-1) * 7 % 97]


def sampling_oracle(
    model: Storyteller, prompt: Tensor, n_tokens: int, generator: torch.Generator, dtype, **options
) -> Tensor:
    """Append `n_tokens` tokens to the prompt, sampled from probabilities in the given dtype."""
    tokens = prompt
    for _ in range(n_tokens):
        p = probabilities_oracle(model._logits(tokens)[:, -1], **options).to(dtype)
        tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)], dim=1)
    return tokens


def greedy_oracle(model: Storyteller, prompt: Tensor, n_tokens: int) -> Tensor:
    """Append the most likely next token to the prompt, `n_tokens` times."""
    tokens = prompt
    for _ in range(n_tokens):
        best = model._logits(tokens)[:, -1].argmax(dim=-1, keepdim=True)
        tokens = torch.cat([tokens, best], dim=1)
    return tokens


class TestGenerate:
    exercise = "generate"

    @weight(1.25)
    def test_temperature_0(self, student, seed):
        """At temperature 0, each token is the most likely one given all tokens before it."""
        draw = Draw(seed)
        model, prompt = Storyteller(draw), draw.strided(draw.integers(0, VOCAB, 3, 4))
        seen = student.generate(model, prompt, 6, temperature=0, use_cache=False)
        unchanged(student)
        equal(seen, greedy_oracle(model, prompt, 6), "the tokens without a cache")
        prompt = draw.integers(0, VOCAB, 1, 4)
        model._lengths.clear()
        seen = student.generate(model, prompt, 6, temperature=0, use_cache=False)
        equal(seen, greedy_oracle(model, prompt, 6), "the tokens for a batch of one prompt")

    @weight(1.25)
    def test_temperature_0_with_cache(self, student, seed):
        """At temperature 0, the tokens are the same with and without caches, and every call starts with empty caches."""
        draw = Draw(seed)
        model = Storyteller(draw)
        for shape, what in (((3, 4), "the tokens"), ((2, 1), "the tokens of a second call")):
            prompt = draw.integers(0, VOCAB, *shape)
            model._lengths.clear()
            seen = student.generate(model, prompt, 6, temperature=0)
            equal(seen, greedy_oracle(model, prompt, 6), what)

    def _check_samples(self, student, seed: int, use_cache: bool, b: int = 3, **options) -> None:
        draw = Draw(seed)
        model, prompt = Storyteller(draw), draw.integers(0, VOCAB, b, 2)
        source = torch.Generator().manual_seed(seed)
        seen = student.generate(model, prompt, 8, **options, use_cache=use_cache, generator=source)
        shaped(seen, (b, 10), torch.int64, "the tokens")
        # `torch.multinomial` consumes the generator differently for float64 probabilities.
        for dtype in (torch.float32, torch.float64):
            expected = sampling_oracle(model, prompt, 8, source.manual_seed(seed), dtype, **options)
            if torch.equal(seen, expected):
                return
        equal(
            seen,
            expected,
            f"the tokens sampled with {format_arguments(use_cache=use_cache, **options)}",
        )

    @weight(1.25)
    def test_draws(self, student, seed):
        """Each step samples a token for every row with one call to `torch.multinomial`, using the given generator."""
        self._check_samples(student, seed, use_cache=False)
        self._check_samples(student, seed, use_cache=False, temperature=6.0)

    @weight(0.5)
    def test_one_draw_a_token(self, student, seed):
        """`torch.multinomial` is called exactly once per step, even at temperature 0,
        and a second call to `generate` continues with the same generator.
        """
        draw = Draw(seed)
        model, prompt = Storyteller(draw), draw.integers(0, VOCAB, 3, 2)
        for temperature, top_k in ((0, None), (2.0, None), (2.0, 1)):
            source = torch.Generator().manual_seed(seed)
            options = {"use_cache": False, "generator": source}
            for n_tokens, more in (
                (3, {"temperature": temperature, "top_k": top_k}),
                (8, {"temperature": 2.0}),
            ):
                model._lengths.clear()  # each call may fill caches of its own
                seen = student.generate(model, prompt, n_tokens, **more, **options)
            shaped(seen, (3, 10), torch.int64, "the tokens")
            for dtype in (torch.float32, torch.float64):
                source.manual_seed(seed)
                sampling_oracle(model, prompt, 3, source, dtype)
                expected = sampling_oracle(model, prompt, 8, source, dtype, temperature=2.0)
                if torch.equal(seen, expected):
                    break
            else:
                what = (
                    "the tokens sampled after an earlier call with n_tokens=3, "
                    f"temperature={temperature:g} and top_k={top_k}"
                )
                equal(seen, expected, what)

    @weight(0.75)
    def test_filters(self, student, seed):
        """`temperature`, `top_k` and `top_p` apply to every token."""
        # The batch is so large that at temperature 1 or 0, at least one token would be different.
        self._check_samples(student, seed, use_cache=False, b=12, temperature=0.5)
        self._check_samples(student, seed, use_cache=False, temperature=3.0, top_k=3)
        self._check_samples(student, seed, use_cache=False, temperature=3.0, top_k=8, top_p=0.4)

    @weight(1)
    def test_draws_with_cache(self, student, seed):
        """With generators in the same state, the sampled tokens are the same with and without caches."""
        self._check_samples(student, seed, use_cache=True, temperature=2.5, top_k=3)
        self._check_samples(student, seed, use_cache=True, temperature=3.0, top_k=8, top_p=0.4)

    @weight(1.25)
    def test_positions_with_cache(self, student, seed):
        """By default, caches are used: the model gets the whole prompt in the first call and one position in each later call."""
        draw = Draw(seed)
        model = Storyteller(draw)
        student.generate(model, draw.integers(0, VOCAB, 2, 5), 4)
        assert all(model._with_caches), "at least one call to the model passed no caches"
        # A further call on the last token is unnecessary but accepted.
        assert model._lengths in ([5, 1, 1, 1], [5, 1, 1, 1, 1]), (
            "for a prompt of 5 tokens and n_tokens=4, the model should be called "
            f"with 5, 1, 1 and 1 positions, not {model._lengths}"
        )

    @weight(0.75)
    def test_without_cache(self, student, seed):
        """With use_cache=False, every call to the model gets the whole sequence so far and no caches."""
        draw = Draw(seed)
        model = Storyteller(draw)
        student.generate(model, draw.integers(0, VOCAB, 2, 3), 4, use_cache=False)
        assert not any(model._with_caches), (
            "with use_cache=False, at least one call to the model passed caches"
        )
        assert model._lengths in ([3, 4, 5, 6], [3, 4, 5, 6, 7]), (
            "for a prompt of 3 tokens and n_tokens=4, the model should be called "
            f"with 3, 4, 5 and 6 positions, not {model._lengths}"
        )

    @weight(0.75)
    def test_n_tokens(self, student, seed):
        """With n_tokens=0, the prompt is returned. `generator` is optional; without it, each call draws different tokens."""
        draw = Draw(seed)
        # At this temperature, the probability that both calls draw the same 40 tokens is below 1e-30.
        prompt, drawn = draw.integers(0, VOCAB, 10, 5), []
        for use_cache in (True, False):
            model = Storyteller(Draw(seed), 10)
            seen = student.generate(model, prompt, 0, use_cache=use_cache)
            equal(seen, prompt, "the result for n_tokens=0")
            model._lengths.clear()  # a call on the prompt is unnecessary but accepted
            seen = student.generate(model, prompt, 4, temperature=50.0, use_cache=use_cache)
            seen = shaped(seen, (10, 9), torch.int64, "the tokens")
            equal(seen[:, :5], prompt, "the prompt at the beginning of the result")
            drawn.append(seen)
        assert not torch.equal(*drawn), (
            "without a generator, two calls should draw different tokens, but they draw the same ones; "
            "does your code set a seed?"
        )

    @weight(1)
    def test_too_long(self, student, seed):
        """The result may have up to `max_length` tokens; asking for more raises a ValueError."""
        draw = Draw(seed)
        prompt = draw.integers(0, VOCAB, 2, 4)
        for use_cache in (True, False):
            student.generate(Storyteller(draw, 7), prompt, 3, use_cache=use_cache)
            when = "the prompt has 4 tokens, n_tokens is 4 and max_length is 7"
            model = Storyteller(draw, 7).train()
            with value_error("max_length", "n_tokens", "prompt", "n", when=when):
                student.generate(model, prompt, 4, use_cache=use_cache)
            assert model.training, (
                "the call that raised a ValueError left the model in evaluation mode "
                "instead of restoring training mode"
            )
            with value_error(
                "max_length",
                "n_tokens",
                "prompt",
                "n",
                when="the prompt has 4 tokens, n_tokens is 0 and max_length is 3",
            ):
                student.generate(Storyteller(draw, 3), prompt, 0, use_cache=use_cache)

    @weight(1)
    def test_mode(self, student, seed):
        """The model runs in evaluation mode; afterwards, the model and all its submodules are back in their previous mode."""
        draw = Draw(seed)
        for training, n_tokens in ((True, 3), (False, 3), (True, 0)):
            model = Storyteller(draw).train(training)
            student.generate(model, draw.integers(0, VOCAB, 2, 4), n_tokens)
            assert model._lengths or not n_tokens, "the model was never called"
            assert not any(model._training), (
                "the model, or a part of it, was in training mode when it was called"
            )
            before, after = (
                "training" if mode else "evaluation" for mode in (training, model.training)
            )
            assert before == after, (
                f"with n_tokens={n_tokens}, the model was in {before} mode before the call "
                f"but in {after} mode after it"
            )
            assert model.blocks.training == training, (
                f"with n_tokens={n_tokens}, the model was in {before} mode before the call, "
                "but its submodules are in a different mode after it"
            )

    @weight(0.75)
    def test_no_gradients(self, student, seed):
        """The model is called with gradients disabled, even if the caller has enabled them."""
        draw = Draw(seed)
        for use_cache in (True, False):
            model = Storyteller(draw)
            with torch.enable_grad():
                student.generate(model, draw.integers(0, VOCAB, 2, 4), 3, use_cache=use_cache)
            assert model._lengths, "the model was never called"
            assert not any(model._gradients), "the model was called with gradients enabled"
