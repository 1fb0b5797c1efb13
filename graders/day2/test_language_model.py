"""Hidden graders of the language model; the oracle is GPT-2's formula, position by position in float64."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autograder.execution.checks import (
    Draw,
    close,
    equal,
    finite,
    on_meta,
    shaped,
    unchanged,
    value_error,
    weight,
)

# All sizes differ, heads and the size of a head too.
VOCAB, LENGTH, D, HEADS, D_FF = 11, 7, 6, 3, 10
# float32 results of several matrix products, on whatever hardware.
ATOL = 5e-5
DTYPES = ((torch.float64, 5e-5), (torch.float16, 2e-2), (torch.bfloat16, 1e-1))


def attention_weights(draw: Draw, prefix: str = "", d: int = D) -> dict[str, Tensor]:
    """Random weights for the two linear maps of an attention module."""
    return {
        f"{prefix}qkv.weight": draw.normal(3 * d, d, scale=1.5 * d**-0.5),
        f"{prefix}qkv.bias": draw.normal(3 * d, scale=0.5),
        f"{prefix}out.weight": draw.normal(d, d, scale=d**-0.5),
        f"{prefix}out.bias": draw.normal(d, scale=0.5),
    }


def block_weights(draw: Draw, prefix: str = "", d_ff: int = D_FF) -> dict[str, Tensor]:
    """Random weights for a block."""
    weights = attention_weights(draw, f"{prefix}attention.") | {
        f"{prefix}linear1.weight": draw.normal(d_ff, D, scale=D**-0.5),
        f"{prefix}linear1.bias": draw.normal(d_ff),
        f"{prefix}linear2.weight": draw.normal(D, d_ff, scale=d_ff**-0.5),
        f"{prefix}linear2.bias": draw.normal(D),
    }
    return weights | norm_weights(draw, f"{prefix}norm1") | norm_weights(draw, f"{prefix}norm2")


def norm_weights(draw: Draw, name: str) -> dict[str, Tensor]:
    """Random weights for a norm, not far from its first ones."""
    return {
        f"{name}.weight": 1 + draw.uniform(D, low=-0.5, high=0.5),
        f"{name}.bias": draw.normal(D, scale=0.5),
    }


def gpt_weights(draw: Draw, n_layers: int = 2) -> dict[str, Tensor]:
    """Random weights for a model; embeddings of about the same size."""
    weights = {
        "token_embedding.weight": draw.normal(VOCAB, D),
        "position_embedding.weight": draw.normal(LENGTH, D),
    } | norm_weights(draw, "norm")
    for i in range(n_layers):
        weights |= block_weights(draw, f"blocks.{i}.", 4 * D)
    return weights


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights below a prefix."""
    return {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}


def silenced(weights: dict[str, Tensor], *linears: str) -> dict[str, Tensor]:
    """The same, with these linear maps giving 0."""
    return {n: w * (not any(f"{name}." in n for name in linears)) for n, w in weights.items()}


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].double().T + weights[f"{name}.bias"].double()


def attended(
    x: Tensor,
    weights: dict[str, Tensor],
    heads: int = HEADS,
    past: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Causal attention, one head and one position after the other; `past` are keys and values "b m d" before x."""
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


def normed(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """torch's own layer norm, in float64."""
    scale, shift = weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double()
    return F.layer_norm(x.double(), x.shape[-1:], scale, shift, 1e-5)


def after_block(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """x ← x + attention(norm1(x)), x ← x + linear2(gelu(linear1(norm2(x))))."""
    x = x.double() + attended(normed(x, weights, "norm1"), part(weights, "attention."))
    z = linear(normed(x, weights, "norm2"), weights, "linear1")
    hidden = 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    return x + linear(hidden, weights, "linear2")


def gpt_logits(tokens: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Logits of GPT-2."""
    table = weights["token_embedding.weight"].double()
    x = table[tokens] + weights["position_embedding.weight"].double()[: tokens.shape[1]]
    i = 0
    while block := part(weights, f"blocks.{i}."):
        x, i = after_block(x, block), i + 1
    return normed(x, weights, "norm") @ table.T


def in_pieces(module, whole: Tensor, sizes: tuple[int, ...], *caches, n_caches: bool = False):
    """What a module gives for pieces of its input, fed through the caches, put together again."""
    given = list(caches) if n_caches else caches[0]
    pieces = []
    for piece in whole.split(list(sizes), dim=1):
        seen = module(piece, given)
        assert isinstance(seen, Tensor), f"with a cache, the result should be a tensor, not {seen}"
        assert seen.shape[:2] == piece.shape[:2], (
            f"for a piece of {piece.shape[1]} positions, fed with a cache, the result has the shape "
            f"{tuple(seen.shape)}"
        )
        pieces.append(seen)
    return torch.cat(pieces, dim=1)


def unmoved(before: Tensor, after: Tensor, changed: int) -> None:
    """Check that no position before the changed one has moved, and that this one has."""
    moved = (before - after).abs().amax(dim=(0, 2))
    for i in range(changed):
        assert moved[i] < 1e-5, (
            f"position {changed} was changed, and the result at position {i}, which comes before it, "
            f"moved by {moved[i]:.3g}"
        )
    assert moved[changed] > 0, f"position {changed} was changed, and its own result did not move"


def copies(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in float64, each asking for a gradient."""
    return {name: w.detach().double().clone().requires_grad_() for name, w in weights.items()}


def gradient(leaf: Tensor, what: str) -> Tensor:
    """The gradient that a backward left at `leaf`, finite, or a failure in words."""
    assert leaf.grad is not None, f"no gradient reaches {what}"
    return finite(leaf.grad, f"the gradient of {what}")


def same_gradients(
    found: dict[str, Tensor], exact: dict[str, Tensor], atol: float, rtol: float = 1e-4
) -> None:
    """Compare gradients that backwards left with those of the oracle.

    A softmax or norm that runs in float32 whatever the dtype is right, so the tolerance is that of float32.
    """
    for name, leaf in exact.items():
        seen = gradient(found[name], f"`{name}`")
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
        """A changed position moves its own result and later ones, and none before it."""
        draw = Draw(seed)
        layer, _ = self._layer(student, draw)
        x = draw.normal(2, 5, D)
        changed = x.clone()
        changed[:, 3] += 1
        before, after = (shaped(layer(given), (2, 5, D)) for given in (x, changed))
        unmoved(before, after, 3)

    @weight(1)
    def test_one_head(self, student, seed):
        """With one head: `qkv` gives queries, keys and values in this order, and `out` comes last."""
        draw = Draw(seed)
        layer, weights = self._layer(student, draw, 1, 5)
        x = draw.normal(1, 4, 5)
        close(layer(x), attended(x, weights, 1), atol=ATOL, dtype=torch.float32)

    @weight(1.5)
    def test_heads(self, student, seed):
        """Each head has its own slice of queries, keys and values; scores are divided by √d_head."""
        draw = Draw(seed)
        for d, heads in ((18, 9), (12, 2)):
            layer, weights = self._layer(student, draw, heads, d)
            x = draw.normal(2, 5, d)
            seen, what = layer(x), f"for d_model = {d} and n_heads = {heads}, the result"
            unchanged(student)
            close(seen, attended(x, weights, heads), what, atol=ATOL, dtype=torch.float32)

    @weight(1.25)
    def test_cache_one_by_one(self, student, seed):
        """Fed one position after the other through a cache, the results are those of the whole."""
        draw = Draw(seed)
        layer, _ = self._layer(student, draw)
        x, cache = draw.normal(2, 5, D), student.KeyValueCache()
        whole = shaped(layer(x), x.shape, what="the result without a cache")
        seen = in_pieces(layer, x, (1,) * 5, cache)
        close(seen, whole, "fed one by one, the result", atol=ATOL)
        held = len(cache)
        assert held == 5, f"after 5 positions the cache should hold 5, it holds {held}"

    @weight(1.25)
    def test_cache_in_pieces(self, student, seed):
        """Pieces of several positions go through a cache: each sees all that is cached, and itself up to its own position."""
        draw = Draw(seed)
        layer, _ = self._layer(student, draw)
        x = draw.normal(2, 7, D)
        whole = shaped(layer(x), x.shape, what="the result without a cache")
        for sizes in ((3, 4), (2, 1, 4), (7,)):
            seen = in_pieces(layer, x, sizes, student.KeyValueCache())
            unchanged(student)
            close(seen, whole, f"fed in pieces of {sizes} positions, the result", atol=ATOL)

    @weight(0.5)
    def test_lengths(self, student, seed):
        """Any number of positions can follow any other from call to call, and thousands in a cache."""
        draw = Draw(seed)
        layer, _ = self._layer(student, draw)
        x = draw.normal(2, 9, D)
        whole = shaped(layer(x), x.shape)
        for n in (5, 7):
            what = f"for {n} positions after a call with more or fewer, the result"
            close(layer(x[:, :n]), whole[:, :n], what, atol=ATOL)
        layer, weights = self._layer(student, draw, 1, 2)
        x, cache = draw.normal(1, 3, 2), student.KeyValueCache()
        past = draw.normal(1, 2100, 2), draw.normal(1, 2100, 2)
        cache.append(*(tensor.unsqueeze(1) for tensor in past))
        expected = attended(x, weights, 1, past)
        what = "for 3 positions after 2100 in the cache, the result"
        close(layer(x, cache), expected, what, atol=ATOL, dtype=torch.float32)

    @weight(0.75)
    def test_dropout(self, student, seed):
        """Dropout does something in train() and nothing in eval(); without it, both are the same."""
        draw = Draw(seed)
        x = draw.normal(3, 6, D)
        layer, weights = self._layer(student, draw)
        still = shaped(layer(x), x.shape)
        what = "in train(), where dropout is not given, the result"
        close(layer.train()(x), still, what, atol=ATOL)
        layer = student.CausalSelfAttention(D, HEADS, dropout=0.5)
        layer.load(weights)
        close(layer.eval()(x), still, "in eval(), with dropout=0.5, the result", atol=ATOL)
        changed = student.changed
        moved = shaped(layer.train()(x), x.shape) - still
        unchanged(student, besides=changed)
        assert moved.abs().max() > 1e-3, "in train(), dropout=0.5 changes nothing"

    @weight(0.75)
    def test_not_divisible(self, student, seed):
        """Features that cannot be shared out equally are refused with a ValueError."""
        for d, heads in ((10, 3), (3, 6)):
            with value_error("d_model", "n_heads", when=f"d_model is {d} and n_heads is {heads}"):
                student.CausalSelfAttention(d, heads)

    @weight(0.75)
    def test_gradients(self, student, seed):
        """The gradients of x and of all weights are those of the formula; through a cache they are the same."""
        draw = Draw(seed)
        layer, weights = self._layer(student, draw)
        layer.to(torch.float64)
        layer.weights()
        x, upstream = (draw.normal(2, 5, D, dtype=torch.float64) for _ in range(2))
        exact = copies({"x": x, **weights})
        attended(exact["x"], exact).backward(upstream)
        seen = shaped(layer(x.requires_grad_()), x.shape, x.dtype)
        assert seen.requires_grad, "no gradient flows through the result"
        seen.backward(upstream)
        same_gradients({"x": x, **layer.leaves()}, exact, ATOL)
        again = x.detach().requires_grad_()
        seen = shaped(layer(again, student.KeyValueCache()), x.shape)
        assert seen.requires_grad, "no gradient flows through the result with a cache"
        seen.backward(upstream)
        close(gradient(again, "x"), x.grad, "with a cache, the gradient of x", 1e-5, 1e-4)

    @weight(0.75)
    def test_dtypes_and_strides(self, student, seed):
        """Half and double precision stay and are right, with a cache too; x may lie in memory in any way."""
        draw = Draw(seed)
        layer, weights = self._layer(student, draw)
        x = draw.normal(2, 5, D)
        expected = shaped(layer(x), x.shape)
        for dtype, tolerance in DTYPES:
            layer.to(dtype)
            given, what = draw.strided(x.to(dtype)), f"the result in {dtype}"
            close(layer(given), expected, what, tolerance, tolerance, dtype)
            seen = in_pieces(layer, given, (2, 3), student.KeyValueCache())
            close(seen, expected, f"{what}, with a cache", tolerance, tolerance, dtype)
            layer.to(torch.float32).load(weights)

    @weight(0.25)
    def test_device(self, student):
        """After a move to another device the layer works on an x that is there."""
        layer, x = student.CausalSelfAttention(D, HEADS), torch.zeros(2, 5, D, device="meta")
        on_meta(lambda: layer.to_empty(device="meta")(x), x.shape)


class TestGPTBlock:
    exercise = "GPTBlock"

    def _block(self, student, weights: dict[str, Tensor], **more):
        block = student.GPTBlock(D, HEADS, D_FF, **more)
        block.load(weights)
        return block.eval()

    @weight(1.25)
    def test_attention(self, student, seed):
        """Where the network gives 0, the result is x + attention(norm1(x))."""
        draw = Draw(seed)
        weights = silenced(block_weights(draw), "linear2")
        block, x = self._block(student, weights), draw.normal(2, 5, D, scale=2.0)
        with torch.no_grad():
            seen = block(x)
        unchanged(student)
        close(seen, after_block(x, weights), atol=ATOL, dtype=torch.float32)

    @weight(1.25)
    def test_network(self, student, seed):
        """Where attention gives 0, the result is x + linear2(gelu(linear1(norm2(x))))."""
        draw = Draw(seed)
        weights = silenced(block_weights(draw), "out")
        block, x = self._block(student, weights), draw.normal(2, 5, D, scale=2.0)
        # Which form GELU has is another test.
        close(block(x), after_block(x, weights), atol=5e-3, dtype=torch.float32)

    @weight(1)
    def test_both(self, student, seed):
        """The network works on x after attention has been added."""
        draw = Draw(seed)
        weights = block_weights(draw)
        block, x = self._block(student, weights), draw.normal(3, 4, D)
        close(block(x), after_block(x, weights), atol=5e-3, dtype=torch.float32)

    @weight(0.75)
    def test_gelu(self, student, seed):
        """GELU has its tanh form."""
        draw = Draw(seed)
        block = self._block(student, block_weights(draw)).to(torch.float64)
        # The network sees ones, and gives each value that it makes of them in a place of its own.
        z = torch.linspace(-3.1, 3.3, D_FF, dtype=torch.float64)
        weights = silenced(block_weights(draw), "out", "linear1", "linear2")
        weights = {n: w.double() for n, w in weights.items()} | {"linear1.bias": z}
        for first in (0, D_FF - D):
            weights["linear2.weight"] = torch.eye(D_FF, dtype=torch.float64)[first : first + D]
            block.load(weights)
            x = draw.normal(1, 1, D, dtype=torch.float64)
            close(block(x), after_block(x, weights), "x + gelu(z)", atol=1e-6)

    @weight(0.5)
    def test_eps(self, student, seed):
        """Both norms have an eps of 1e-5, which shows for small x."""
        draw = Draw(seed)
        for silent in ("linear2", "out"):
            weights = silenced(block_weights(draw), silent)
            block, x = self._block(student, weights), draw.normal(2, 5, D, scale=2e-3)
            close(block(x), after_block(x, weights), atol=5e-3, dtype=torch.float32)

    @weight(0.75)
    def test_cache(self, student, seed):
        """The cache reaches the attention: in pieces, the results are those of the whole."""
        draw = Draw(seed)
        block, x = self._block(student, block_weights(draw)), draw.normal(2, 6, D)
        whole = shaped(block(x), x.shape, what="the result without a cache")
        for sizes in ((1, 2, 3), (1,) * 6):
            cache = student.KeyValueCache()
            seen, what = in_pieces(block, x, sizes, cache), f"in pieces of {sizes}, the result"
            close(seen, whole, what, atol=2 * ATOL)
            held = len(cache)
            assert held == 6, f"after 6 positions the cache should hold 6, it holds {held}"

    @weight(0.5)
    def test_dropout(self, student, seed):
        """Dropout does something in train() and nothing in eval(); without it, both are the same."""
        draw = Draw(seed)
        weights, x = block_weights(draw), draw.normal(3, 6, D)
        block = self._block(student, weights)
        still = shaped(block(x), x.shape)
        what = "in train(), where dropout is not given, the result"
        close(block.train()(x), still, what, atol=2 * ATOL)
        block = self._block(student, weights, dropout=0.5)
        close(block(x), still, "in eval(), with dropout=0.5, the result", atol=2 * ATOL)
        changed = student.changed
        moved = shaped(block.train()(x), x.shape) - still
        unchanged(student, besides=changed)
        assert moved.abs().max() > 1e-3, "in train(), dropout=0.5 changes nothing"

    @weight(0.5)
    def test_gradients(self, student, seed):
        """The gradients of x and of all weights are those of the formula."""
        draw = Draw(seed)
        weights = block_weights(draw)
        block = self._block(student, weights).to(torch.float64)
        block.weights()
        x, upstream = (draw.normal(2, 5, D, dtype=torch.float64) for _ in range(2))
        exact = copies({"x": x, **weights})
        after_block(exact["x"], exact).backward(upstream)
        seen = shaped(block(x.requires_grad_()), x.shape, x.dtype)
        assert seen.requires_grad, "no gradient flows through the result"
        seen.backward(upstream)
        # Which form GELU has is another test.
        same_gradients({"x": x, **block.leaves()}, exact, 5e-2, 2e-2)

    @weight(0.5)
    def test_dtypes_and_strides(self, student, seed):
        """Half and double precision stay and are right; x may lie in memory in any way."""
        draw = Draw(seed)
        weights, x = block_weights(draw), draw.strided(draw.normal(2, 5, D))
        block, expected = self._block(student, weights), after_block(x, weights)
        for dtype, tolerance in DTYPES:
            seen, what = block.to(dtype)(x.to(dtype)), f"the result in {dtype}"
            tolerance = max(3 * tolerance, 5e-3)  # which form GELU has is another test
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
        """All parts are there under their names; `blocks` holds `n_layers` blocks of width 4·d_model."""
        weights = gpt_weights(Draw(0), 3)
        model = self._model(student, weights, 3)
        seen = model.weights()
        for name, value in weights.items():
            close(seen[name], value, f"after all weights were copied in, `{name}`")
        length = model.length("blocks")
        assert length == 3, f"with n_layers=3, `blocks` should hold 3 blocks, not {length}"
        for name, value in (("max_length", LENGTH), ("n_layers", 3)):
            found = model.get(name)
            assert found == value, f"`{name}` should be {value}, as it was given, yours is {found}"

    @weight(1)
    def test_tied(self, student):
        """There are no further parameters: the token embedding scores the next token, too."""
        weights = gpt_weights(Draw(0))
        model = self._model(student, weights).to(torch.float64)  # parts what only shares memory
        weights = {name: weight.double() + 1 for name, weight in weights.items()}
        model.load(weights)
        seen = model.weights()
        for name in set(seen) - set(weights):
            # A second name of a parameter now holds what was copied into it under the first.
            assert any(torch.equal(seen[name], weight) for weight in weights.values()), (
                f"there is a further parameter `{name}` of the shape {tuple(seen[name].shape)}: are the "
                "logits made by weights of their own instead of the token embedding?"
            )

    @weight(1)
    def test_embeddings(self, student, seed):
        """Where all blocks are silent, the logits are norm(token + position) · token embeddingᵀ."""
        draw = Draw(seed)
        weights = silenced(gpt_weights(draw), "out", "linear2")
        tokens = draw.integers(0, VOCAB, 2, 5)
        seen = self._model(student, weights)(tokens)
        unchanged(student)
        close(seen, gpt_logits(tokens, weights), "the logits", 1e-4, 1e-4, torch.float32)

    @weight(1.25)
    def test_whole(self, student, seed):
        """With copied weights the logits are those of GPT-2, for one block and for more."""
        draw = Draw(seed)
        for b, n_layers, n in ((1, 1, LENGTH), (2, 3, 5)):
            weights = gpt_weights(draw, n_layers)
            tokens = draw.integers(0, VOCAB, b, n)
            model = self._model(student, weights, n_layers)
            what = f"with n_layers={n_layers}, the logits"
            close(model(tokens), gpt_logits(tokens, weights), what, 1e-2, 5e-3, torch.float32)
            seen = model.to(torch.bfloat16)(tokens)
            finite(shaped(seen, (b, n, VOCAB), torch.bfloat16, what), f"{what} in half precision")

    @weight(1)
    def test_future(self, student, seed):
        """A changed token moves no logits of earlier positions."""
        draw = Draw(seed)
        model = self._model(student, gpt_weights(draw))
        tokens = draw.integers(0, VOCAB - 1, 2, 6)
        changed = tokens.clone()
        changed[:, 4] += 1
        before, after = (shaped(model(t), (2, 6, VOCAB)) for t in (tokens, changed))
        unmoved(before, after, 4)

    @weight(1.5)
    def test_caches(self, student, seed):
        """With caches, positions go on from their length: in pieces, the logits are those of the whole."""
        draw = Draw(seed)
        model, tokens = self._model(student, gpt_weights(draw)), draw.integers(0, VOCAB, 2, LENGTH)
        whole = shaped(model(tokens), (2, LENGTH, VOCAB), what="the logits without caches")
        for sizes in ((1,) * LENGTH, (3, 4), (2, 1, 4)):
            caches = [student.KeyValueCache() for _ in range(2)]
            seen = in_pieces(model, tokens, sizes, *caches, n_caches=True)
            close(seen, whole, f"fed in pieces of {sizes} tokens, the logits", 1e-3, 1e-3)
            held = [len(cache) for cache in caches]
            assert held == [LENGTH] * 2, (
                f"after {LENGTH} tokens each of the 2 caches should hold {LENGTH} positions, they "
                f"hold {held[0]} and {held[1]}"
            )
        model = self._model(student, gpt_weights(draw, 1), 1)
        whole = shaped(model(tokens), (2, LENGTH, VOCAB), what="the logits without caches")
        seen = in_pieces(model, tokens, (2, 5), student.KeyValueCache(), n_caches=True)
        close(seen, whole, "with n_layers=1, fed in pieces, the logits", 1e-3, 1e-3)

    @weight(1)
    def test_max_length(self, student, seed):
        """As many tokens as `max_length` fit; one more is a ValueError."""
        draw = Draw(seed)
        model = self._model(student, gpt_weights(draw))
        shaped(model(draw.integers(0, VOCAB, 2, LENGTH)), (2, LENGTH, VOCAB), what="the logits")
        with value_error(*TOO_LONG, when=f"there are {LENGTH + 1} tokens and max_length={LENGTH}"):
            model(draw.integers(0, VOCAB, 2, LENGTH + 1))

    @weight(1)
    def test_max_length_with_caches(self, student, seed):
        """Cached positions count for `max_length`; where a call is refused, the caches stay as they were."""
        draw = Draw(seed)
        model = self._model(student, gpt_weights(draw))
        caches = [student.KeyValueCache() for _ in range(2)]
        model(draw.integers(0, VOCAB, 2, LENGTH - 2), caches)
        for fits in (False, True):
            n = 2 if fits else 3
            if fits:
                shaped(model(draw.integers(0, VOCAB, 2, n), caches), (2, n, VOCAB))
            else:
                when = f"{LENGTH - 2} positions are cached, {n} are new and max_length={LENGTH}"
                with value_error(*TOO_LONG, when=when):
                    model(draw.integers(0, VOCAB, 2, n), caches)
                held = [len(cache) for cache in caches]
                assert held == [LENGTH - 2] * 2, (
                    f"a call that is refused should leave the caches at {LENGTH - 2} positions, they "
                    f"hold {held[0]} and {held[1]}"
                )

    @weight(0.75)
    def test_dropout(self, student, seed):
        """Dropout does something in train() and nothing in eval(); without it, both are the same."""
        draw = Draw(seed)
        weights, tokens = gpt_weights(draw, 1), draw.integers(0, VOCAB, 2, 6)
        model = self._model(student, weights, 1)
        still = shaped(model(tokens), (2, 6, VOCAB), what="the logits")
        what = "in train(), where dropout is not given, the logits"
        close(model.train()(tokens), still, what, 1e-3, 1e-3)
        model = self._model(student, weights, 1, dropout=0.5)
        close(model(tokens), still, "in eval(), with dropout=0.5, the logits", 1e-3, 1e-3)
        moved = shaped(model.train()(tokens), (2, 6, VOCAB), what="the logits") - still
        assert moved.abs().max() > 1e-2, "in train(), dropout=0.5 changes nothing"

    @weight(0.75)
    def test_gradients(self, student, seed):
        """The gradients of all weights are those of the formula; that of the token embedding comes from both of its uses."""
        draw = Draw(seed)
        weights, tokens = gpt_weights(draw, 1), draw.integers(0, VOCAB, 2, 5)
        model = self._model(student, weights, 1).to(torch.float64)
        model.weights()
        upstream = draw.normal(2, 5, VOCAB).double()
        exact = copies(weights)
        gpt_logits(tokens, exact).backward(upstream)
        seen = shaped(model(tokens), (2, 5, VOCAB), torch.float64, "the logits")
        assert seen.requires_grad, "no gradient flows through the logits"
        seen.backward(upstream)
        # Which form GELU has is a test of the block.
        same_gradients(model.leaves(), exact, 5e-2, 2e-2)


def guess_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """−log p of each token but the first, one after the other, in float64."""
    costs = []
    for row, text in zip(logits.double(), tokens.tolist(), strict=True):
        for guess, token in zip(row, text[1:], strict=False):
            costs.append(guess.logsumexp(dim=0) - guess[token])
    return torch.stack(costs).mean()


class TestNextTokenLoss:
    exercise = "next_token_loss"

    @weight(1.5)
    def test_shift(self, student, seed):
        """The logits at each position are compared with the token after it."""
        draw = Draw(seed)
        # Sure of the next token everywhere, so that any other comparison costs much.
        tokens = torch.arange(5).repeat(2, 2)[:, :7] + torch.tensor([[0], [2]])
        logits = 9.0 * F.one_hot(tokens.roll(-1, dims=1), 8) + draw.normal(2, 7, 8)
        seen = student.next_token_loss(logits, tokens)
        unchanged(student)
        close(seen, guess_loss(logits, tokens), "the loss", dtype=torch.float32)

    @weight(1)
    def test_mean(self, student, seed):
        """The loss is the mean of −log p over all guesses of the batch, in nats."""
        draw = Draw(seed)
        for b, n, v in ((3, 5, 7), (1, 2, 4), (2, 4, 3), (1, 3, 1030)):
            logits, tokens = draw.normal(b, n, v, scale=2.0), draw.integers(0, v, b, n)
            what = f"the loss of logits of the shape {(b, n, v)}"
            seen = student.next_token_loss(logits, tokens)
            close(seen, guess_loss(logits, tokens), what, dtype=torch.float32)

    @weight(0.75)
    def test_ends(self, student, seed):
        """The first token is nobody's guess, and the last logits guess nothing: neither changes the loss."""
        draw = Draw(seed)
        logits, tokens = draw.normal(2, 5, 6), draw.integers(0, 5, 2, 5)
        other_logits, other_tokens = logits.clone(), tokens.clone()
        other_logits[:, -1] += draw.normal(2, 6, scale=5.0)
        other_tokens[:, 0] += 1
        before = shaped(student.next_token_loss(logits, tokens), (), what="the loss")
        for what, given in (
            ("other logits at the last position change", (other_logits, tokens)),
            ("another first token changes", (logits, other_tokens)),
        ):
            after = shaped(student.next_token_loss(*given), (), what="the loss")
            assert abs(float(after - before)) < 1e-5, f"{what} the loss: {before:.6g}, {after:.6g}"

    @weight(1)
    def test_large_logits(self, student, seed):
        """Logits of ±10⁴ give the right loss, for likely and for hopeless tokens."""
        draw = Draw(seed)
        logits, tokens = draw.uniform(2, 5, 6, low=-1e4, high=1e4), draw.integers(0, 6, 2, 5)
        seen = student.next_token_loss(logits, tokens)
        close(seen, guess_loss(logits, tokens), "the loss", rtol=1e-4, dtype=torch.float32)
        guess = torch.tensor([[[-1e4, 1e4, -1e4], [0.0, 0.0, 0.0]]])
        for token, cost in ((1, 0.0), (2, 2e4)):
            seen = student.next_token_loss(guess, torch.tensor([[0, token]]))
            close(seen, torch.tensor(cost), "the loss of one guess", atol=1e-3, rtol=1e-4)

    @weight(0.75)
    def test_gradients(self, student, seed):
        """The gradient of the logits is (p − onehot) / number of guesses, and 0 at the last position."""
        draw = Draw(seed)
        logits = draw.normal(2, 4, 5, scale=2.0).requires_grad_()
        tokens = draw.integers(0, 5, 2, 4)
        seen = shaped(student.next_token_loss(logits, tokens), (), what="the loss")
        assert seen.requires_grad, "no gradient flows through the loss"
        seen.backward()
        copy = logits.detach().double().requires_grad_()
        guess_loss(copy, tokens).backward()
        found = gradient(logits, "the logits")
        close(found, copy.grad, "the gradient of the logits", dtype=torch.float32)
        far = draw.uniform(2, 4, 5, low=-1e4, high=1e4).requires_grad_()
        seen = shaped(student.next_token_loss(far, tokens), (), what="the loss")
        assert seen.requires_grad, "no gradient flows through the loss"
        seen.backward()
        copy = far.detach().double().requires_grad_()
        guess_loss(copy, tokens).backward()
        found, what = gradient(far, "logits up to ±10⁴"), "the gradient of logits up to ±10⁴"
        close(found, copy.grad, what, 1e-3, dtype=torch.float32)

    @weight(0.5)
    def test_dtypes_and_strides(self, student, seed):
        """The loss has the dtype of the logits; both arguments may lie in memory in any way."""
        draw = Draw(seed)
        logits = draw.strided(draw.normal(3, 5, 7, dtype=torch.float64))
        tokens = draw.strided(draw.integers(0, 7, 3, 5))
        # A loss that is computed in float32 whatever the dtype is no mistake.
        for dtype, tolerance in ((torch.float32, 1e-5), *DTYPES):
            seen = student.next_token_loss(logits.to(dtype), tokens)
            expected = guess_loss(logits.to(dtype), tokens)
            close(seen, expected, f"the loss in {dtype}", tolerance, tolerance, dtype)

    @weight(0.25)
    def test_device(self, student):
        """The loss is where the logits are."""
        logits = torch.zeros(2, 4, 5, device="meta")
        tokens = torch.zeros(2, 4, dtype=torch.long, device="meta")
        on_meta(lambda: student.next_token_loss(logits, tokens), (), "the loss")


# From the most to the least likely, with sums far from the thresholds that are asked below.
LIKELY = torch.tensor([0.36, 0.24, 0.16, 0.12, 0.07, 0.05], dtype=torch.float64)


def shuffled(draw: Draw, *batch: int, probabilities: Tensor = LIKELY) -> Tensor:
    """Logits of these probabilities in another order for each row, and shifted."""
    v = len(probabilities)
    order = draw.uniform(*batch, v).argsort(dim=-1)
    return (probabilities.log()[order] + draw.normal(*batch, 1, dtype=torch.float64)).float()


def written(**asked) -> str:
    """Arguments as one writes them."""
    return ", ".join(f"{name}={value}" for name, value in asked.items())


def chosen(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Token by token from the most likely one: what stays, and its share; in float64."""
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

    def _check(self, student, logits: Tensor, what: str, atol: float = 1e-5, **asked) -> None:
        seen = student.next_token_probabilities(logits, **asked)
        unchanged(student)
        what = f"for {what}, the result"
        close(seen, chosen(logits, **asked), what, atol, dtype=torch.float32)

    @weight(0.5)
    def test_rows(self, student, seed):
        """Each row is filtered and normalised by itself: what the other rows hold changes nothing."""
        draw = Draw(seed)
        logits = torch.cat([shuffled(draw, 2), 9 + 5 * shuffled(draw, 1)])
        for asked in ({}, {"top_k": 2}, {"top_p": 0.7}, {"temperature": 0}):
            together = shaped(student.next_token_probabilities(logits, **asked), (3, 6)).detach()
            for row in (0, 2):
                alone = student.next_token_probabilities(logits[row : row + 1], **asked)
                what = (
                    f"for {written(**asked) or 'no filter'}, row {row} of 3, against the row alone,"
                )
                close(together[row : row + 1], shaped(alone, (1, 6)), what)

    @weight(1)
    def test_temperature(self, student, seed):
        """The result is softmax(logits / temperature) along the last axis, for any leading axes."""
        draw = Draw(seed)
        for shape in ((5,), (1, 5), (2, 1, 4)):
            logits = draw.normal(*shape, scale=2.0)
            self._check(student, logits, f"logits of the shape {shape}")
            for temperature in (0.6, 2.5):
                what = f"logits of the shape {shape} and temperature={temperature}"
                self._check(student, logits, what, temperature=temperature)

    @weight(1)
    def test_temperature_0(self, student, seed):
        """Temperature 0 gives the largest logit everything, whatever else is asked."""
        draw = Draw(seed)
        for shape in ((6,), (3, 2, 6)):
            logits = shuffled(draw, *shape[:-1])
            expected = F.one_hot(logits.argmax(dim=-1), 6).float()
            for more in ({}, {"top_k": 3}, {"top_p": 0.2}, {"top_k": 2, "top_p": 1.0}):
                seen = student.next_token_probabilities(logits, temperature=0, **more)
                close(seen, expected, f"for {written(temperature=0, **more)}, the result")
        # Probabilities in float32 still tell these apart.
        near = torch.tensor([[0.2, 1.0, 1.0], [0.5, -1.0, 0.5]])
        near[0, 2] -= 1e-6
        near[1, 0] -= 1e-6
        expected = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        what = "for temperature=0 and logits that lie 0.000001 apart, the result"
        close(student.next_token_probabilities(near, temperature=0), expected, what)

    @weight(1)
    def test_top_k(self, student, seed):
        """The `top_k` largest stay, scaled to sum 1; a `top_k` as large as v or larger keeps all."""
        draw = Draw(seed)
        for top_k in (1, 2, 5, 6, 9):
            self._check(student, shuffled(draw, 4), f"top_k={top_k}", top_k=top_k)
        logits = draw.normal(1, 1030, scale=3.0)
        self._check(student, logits, "1030 tokens and top_k=300", top_k=300)

    @weight(1.5)
    def test_top_p(self, student, seed):
        """The smallest set of the likeliest stays whose probability is at least `top_p`: the one that crosses it stays, too."""
        draw = Draw(seed)
        for top_p in (0.45, 0.7, 0.8, 0.9, 0.97):
            logits = shuffled(draw, 4)
            what = f"probabilities of 0.36, 0.24, 0.16, 0.12, 0.07, 0.05 and top_p={top_p}"
            self._check(student, logits, what, top_p=top_p)
        sure = torch.tensor([0.81, 0.09, 0.05, 0.03, 0.015, 0.005], dtype=torch.float64)
        logits = torch.cat([shuffled(draw, 2), shuffled(draw, 2, probabilities=sure)])
        what = "rows of which two need three tokens, two need one, and top_p=0.7"
        self._check(student, logits, what, top_p=0.7)
        # Of 1030 tokens the 525 likeliest, with the threshold halfway through the last.
        likely = torch.linspace(2.0, 1.0, 1030, dtype=torch.float64)
        likely = likely / likely.sum()
        logits, top_p = (
            shuffled(draw, 1, probabilities=likely),
            float(likely[:525].sum() - likely[524] / 2),
        )
        self._check(student, logits, f"1030 tokens and top_p={top_p:.4f}", top_p=top_p)

    @weight(1)
    def test_top_p_extremes(self, student, seed):
        """At least one token stays, however small `top_p` is, and `top_p` 1 keeps all."""
        draw = Draw(seed)
        for top_p in (0.2, 1e-6):
            self._check(student, shuffled(draw, 2, 3), f"top_p={top_p}", top_p=top_p)
        sure = torch.tensor([0.9, 0.06, 0.04], dtype=torch.float64)
        logits = shuffled(draw, 3, probabilities=sure)
        self._check(student, logits, "a token of probability 0.9 and top_p=0.5", top_p=0.5)
        self._check(student, shuffled(draw, 3), "top_p=1.0", top_p=1.0)

    @weight(1)
    def test_order(self, student, seed):
        """`top_p` counts what `top_k` left, scaled to sum 1 again, and both count after the temperature."""
        draw = Draw(seed)
        for asked in (
            {"top_k": 3, "top_p": 0.75},  # of 3: 0.47, 0.79; of all 6: 0.36, 0.6, 0.76
            {"top_k": 2, "top_p": 0.5},  # of 2: 0.6
            {"top_k": 5, "top_p": 0.7},
            {"temperature": 0.5, "top_p": 0.7},
            {"temperature": 3.0, "top_k": 4, "top_p": 0.7},
        ):
            what = ", ".join(f"{name}={value}" for name, value in asked.items())
            self._check(student, shuffled(draw, 3), what, **asked)

    @weight(1)
    def test_refused(self, student, seed):
        """A negative temperature, a `top_k` below 1, a `top_p` outside (0, 1] are ValueErrors, at temperature 0 too."""
        logits = Draw(seed).normal(2, 5)
        for temperature in (1.0, 0):
            for name, value in (("top_k", 0), ("top_k", -2), ("top_p", 0.0), ("top_p", 1.5)):
                with value_error(name, when=f"{name} is {value} at temperature {temperature}"):
                    asked = {"temperature": temperature, name: value}
                    student.next_token_probabilities(logits, **asked)
        with value_error("top_p", when="top_p is -0.1"):
            student.next_token_probabilities(logits, top_p=-0.1)
        with value_error("temperature", when="temperature is -0.5"):
            student.next_token_probabilities(logits, temperature=-0.5)
        # What else is asked, or a single token, does not make up for it.
        for name, value, more in (
            ("temperature", -0.5, {"top_k": 1}),
            ("temperature", -1.0, {"top_k": 9, "top_p": 1.0}),
            ("top_p", 1.5, {"top_k": 1}),
            ("top_p", 0.0, {"top_k": 9}),
            ("top_k", 0, {"top_p": 1.0}),
        ):
            with value_error(name, when=f"{name} is {value} and {written(**more)}"):
                student.next_token_probabilities(logits, **{name: value}, **more)
        with value_error("top_k", when="top_k is 0 and there is a single token"):
            student.next_token_probabilities(logits[:, :1], top_k=0)

    @weight(0.75)
    def test_large_logits(self, student, seed):
        """Large logits and small temperatures give no infinity."""
        draw = Draw(seed)
        logits = draw.uniform(3, 5, low=-900, high=900)
        # A sum of exponentials that is kept as its logarithm is coarse there.
        self._check(student, logits, "logits of up to ±900", 1e-3)
        self._check(student, logits, "logits of up to ±900 and filters", 1e-3, top_k=4, top_p=0.9)
        logits = shuffled(draw, 3)
        self._check(student, logits, "temperature=0.01", temperature=0.01)
        near = 2e-3 * draw.normal(3, 5)
        seen = student.next_token_probabilities(near, temperature=1e-3)
        what = "for logits that lie close together and temperature=0.001, the result"
        close(seen, chosen(near, 1e-3), what, 1e-3, 1e-3, torch.float32)

    @weight(0.75)
    def test_dtypes_and_gradients(self, student, seed):
        """The result has the dtype of the logits, which may lie in memory in any way; gradients flow."""
        draw = Draw(seed)
        logits = draw.strided(shuffled(draw, 3, 2))
        asked = {"temperature": 0.8, "top_k": 5, "top_p": 0.75}
        for dtype, tolerance in DTYPES:
            seen = student.next_token_probabilities(logits.to(dtype), **asked)
            expected = chosen(logits, **asked)
            close(seen, expected, f"the result in {dtype}", tolerance, tolerance, dtype)
        for asked in ({"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.7}):
            given, upstream = logits.clone().requires_grad_(), draw.normal(3, 2, 6)
            seen = shaped(student.next_token_probabilities(given, **asked), (3, 2, 6))
            assert seen.requires_grad, "no gradient flows through the result"
            seen.backward(upstream)
            copy = logits.double().requires_grad_()
            chosen(copy, **asked).backward(upstream.double())
            found = gradient(given, "the logits")
            close(found, copy.grad, f"for {written(**asked)}, the gradient", dtype=torch.float32)
            far = draw.uniform(3, 6, low=-900, high=900).requires_grad_()
            seen = shaped(student.next_token_probabilities(far, **asked), (3, 6))
            seen.backward(draw.normal(3, 6))
            gradient(far, f"logits of up to ±900, for {written(**asked)},")

    @weight(0.25)
    def test_device(self, student):
        """The result is where the logits are."""
        logits = torch.zeros(3, 6, device="meta")
        for asked in ({}, {"top_k": 2}, {"top_p": 0.5}):
            on_meta(
                lambda asked=asked: student.next_token_probabilities(logits, **asked),
                (3, 6),
                f"for {written(**asked) or 'no filter'}, the result",
            )


class Storyteller(nn.Module):
    """A model whose guess depends on all tokens so far, in their order; notes how it is called."""

    def __init__(self, draw: Draw, max_length: int = 12) -> None:
        super().__init__()
        self.max_length, self.n_layers = max_length, 2
        self.blocks = nn.ModuleList(nn.Identity() for _ in range(self.n_layers))
        self._table = draw.normal(97, VOCAB, scale=2.0)
        self._read: list[int] = []
        self._cached: list[bool] = []
        self._training: list[bool] = []
        self._gradients: list[bool] = []

    def forward(self, tokens: Tensor, caches=None) -> Tensor:
        """The logits of the next token; `caches` remember the tokens as keys."""
        self._read.append(tokens.shape[1])
        self._cached.append(caches is not None)
        self._training.append(self.training)
        self._gradients.append(torch.is_grad_enabled())
        known = tokens
        if caches is not None:
            n_caches = len(caches) if isinstance(caches, list) else 0
            assert n_caches == self.n_layers, (
                f"the model has {self.n_layers} blocks and should be given a list of as many caches"
            )
            new = tokens.double()[:, None, :, None]
            for cache in caches:
                known = cache.append(new, new)[0][:, 0, :, 0].long()
            total = sum(self._read)
            assert known.shape[1] == total, (
                f"the model has read {total} positions, and the cache of its last block holds "
                f"{known.shape[1]}: does each block have a cache of its own, kept from step to step?"
            )
        assert known.shape[1] <= self.max_length, (
            f"the model was called for {known.shape[1]} positions, max_length is {self.max_length}"
        )
        return self._logits(known)[:, -tokens.shape[1] :]

    def _logits(self, tokens: Tensor) -> Tensor:
        factors = torch.arange(1, 1 + tokens.shape[1])
        return self._table[(tokens * factors).cumsum(dim=-1) * 7 % 97]


def told(
    model: Storyteller, prompt: Tensor, n_tokens: int, generator: torch.Generator, dtype, **asked
) -> Tensor:
    """What is drawn, with probabilities of this dtype."""
    tokens = prompt
    for _ in range(n_tokens):
        p = chosen(model._logits(tokens)[:, -1], **asked).to(dtype)
        tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)], dim=1)
    return tokens


def most_likely(model: Storyteller, prompt: Tensor, n_tokens: int) -> Tensor:
    """The prompt and the most likely tokens after it."""
    tokens = prompt
    for _ in range(n_tokens):
        best = model._logits(tokens)[:, -1].argmax(dim=-1, keepdim=True)
        tokens = torch.cat([tokens, best], dim=1)
    return tokens


class TestGenerate:
    exercise = "generate"

    @weight(1.25)
    def test_temperature_0(self, student, seed):
        """At temperature 0 each token is the most likely one after all that is written so far."""
        draw = Draw(seed)
        model, prompt = Storyteller(draw), draw.strided(draw.integers(0, VOCAB, 3, 4))
        seen = student.generate(model, prompt, 6, temperature=0, use_cache=False)
        unchanged(student)
        equal(seen, most_likely(model, prompt, 6), "without the cache, the tokens")

    @weight(1.25)
    def test_temperature_0_with_cache(self, student, seed):
        """With the cache the tokens at temperature 0 are the same, and every call begins with empty caches."""
        draw = Draw(seed)
        model = Storyteller(draw)
        for shape, what in (((3, 4), "the tokens"), ((1, 1), "in a second call, the tokens")):
            prompt = draw.integers(0, VOCAB, *shape)
            model._read.clear()
            seen = student.generate(model, prompt, 6, temperature=0)
            equal(seen, most_likely(model, prompt, 6), what)

    def _drawn(self, student, seed: int, use_cache: bool, **asked) -> None:
        draw = Draw(seed)
        model, prompt = Storyteller(draw), draw.integers(0, VOCAB, 3, 2)
        source = torch.Generator().manual_seed(seed)
        seen = student.generate(model, prompt, 8, **asked, use_cache=use_cache, generator=source)
        shaped(seen, (3, 10), torch.int64, "the tokens")
        # Probabilities of double precision use up the generator in another way.
        for dtype in (torch.float32, torch.float64):
            expected = told(model, prompt, 8, source.manual_seed(seed), dtype, **asked)
            if torch.equal(seen, expected):
                return
        equal(seen, expected, f"the tokens drawn with {written(use_cache=use_cache, **asked)}")

    @weight(1.25)
    def test_draws(self, student, seed):
        """Each step draws a token for every row by one `torch.multinomial`, from the generator that is given."""
        self._drawn(student, seed, use_cache=False)
        self._drawn(student, seed, use_cache=False, temperature=2.0)

    @weight(0.5)
    def test_one_draw_a_token(self, student, seed):
        """A second call goes on in the same generator, after one draw for each token, at temperature 0 too."""
        draw = Draw(seed)
        model, prompt = Storyteller(draw), draw.integers(0, VOCAB, 3, 2)
        for temperature in (0, 2.0):
            source = torch.Generator().manual_seed(seed)
            asked = {"use_cache": False, "generator": source}
            student.generate(model, prompt, 3, temperature, **asked)
            seen = student.generate(model, prompt, 8, 2.0, **asked)
            shaped(seen, (3, 10), torch.int64, "the tokens")
            for dtype in (torch.float32, torch.float64):
                source.manual_seed(seed)
                told(model, prompt, 3, source, dtype)
                expected = told(model, prompt, 8, source, dtype, temperature=2.0)
                if torch.equal(seen, expected):
                    break
            else:
                what = f"the tokens drawn after a call for 3 tokens at temperature {temperature:g}"
                equal(seen, expected, what)

    @weight(0.75)
    def test_filters(self, student, seed):
        """Temperature, `top_k` and `top_p` act on every token."""
        self._drawn(student, seed, use_cache=False, temperature=3.0, top_k=3)
        self._drawn(student, seed, use_cache=False, temperature=3.0, top_k=8, top_p=0.6)

    @weight(1)
    def test_draws_with_cache(self, student, seed):
        """The same generator draws the same tokens with the cache as without."""
        self._drawn(student, seed, use_cache=True, temperature=1.5)
        self._drawn(student, seed, use_cache=True, temperature=2.5, top_k=7, top_p=0.8)

    @weight(1.25)
    def test_positions_with_cache(self, student, seed):
        """With the cache, the default, the model reads the prompt once and then one position at a time."""
        draw = Draw(seed)
        model = Storyteller(draw)
        student.generate(model, draw.integers(0, VOCAB, 2, 5), 4)
        assert all(model._cached), "the model was called without caches"
        # Running the last token is needless, and no mistake.
        assert model._read in ([5, 1, 1, 1], [5, 1, 1, 1, 1]), (
            "for a prompt of 5 tokens and 4 more, the model should be called with 5, 1, 1 and 1 "
            f"positions, it was called with {model._read}"
        )

    @weight(0.75)
    def test_without_cache(self, student, seed):
        """With use_cache=False the model is called without caches, each time on all that is written."""
        draw = Draw(seed)
        model = Storyteller(draw)
        student.generate(model, draw.integers(0, VOCAB, 2, 3), 4, use_cache=False)
        assert not any(model._cached), "the model was called with caches"
        assert model._read in ([3, 4, 5, 6], [3, 4, 5, 6, 7]), (
            "for a prompt of 3 tokens and 4 more, the model should be called with 3, 4, 5 and 6 "
            f"positions, it was called with {model._read}"
        )

    @weight(0.75)
    def test_n_tokens(self, student, seed):
        """0 tokens give back the prompt; without a generator the tokens are drawn all the same."""
        draw = Draw(seed)
        for use_cache in (True, False):
            model, prompt = Storyteller(draw, 9), draw.integers(0, VOCAB, 2, 5)
            seen = student.generate(model, prompt, 0, use_cache=use_cache)
            equal(seen, prompt, "for n_tokens=0, the result")
            model._read.clear()  # running the prompt is needless, and no mistake
            seen = student.generate(model, prompt, 4, temperature=50.0, use_cache=use_cache)
            seen = shaped(seen, (2, 9), torch.int64, "the tokens")
            equal(seen[:, :5], prompt, "the beginning of the result, which is the prompt,")

    @weight(1)
    def test_too_long(self, student, seed):
        """A result as long as `max_length` fits; one longer is a ValueError."""
        draw = Draw(seed)
        prompt = draw.integers(0, VOCAB, 2, 4)
        for use_cache in (True, False):
            student.generate(Storyteller(draw, 7), prompt, 3, use_cache=use_cache)
            when = "the prompt has 4 tokens, n_tokens is 4 and max_length is 7"
            model = Storyteller(draw, 7).train()
            with value_error("max_length", "n_tokens", "prompt", "n", when=when):
                student.generate(model, prompt, 4, use_cache=use_cache)
            assert model.training, "where a ValueError is raised, the model's mode was changed"
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
        """The model runs in evaluation mode and is afterwards in the mode in which it was."""
        draw = Draw(seed)
        for training, n_tokens in ((True, 3), (False, 3), (True, 0)):
            model = Storyteller(draw).train(training)
            student.generate(model, draw.integers(0, VOCAB, 2, 4), n_tokens)
            assert model._read or not n_tokens, "the model is never called"
            assert not any(model._training), "the model was called in training mode"
            before, after = ("train" if mode else "eval" for mode in (training, model.training))
            assert before == after, (
                f"with n_tokens={n_tokens}, the model was in {before}() before, and is in {after}() "
                "afterwards"
            )

    @weight(0.75)
    def test_no_gradients(self, student, seed):
        """The model runs without gradients, even where the caller has them on."""
        draw = Draw(seed)
        for use_cache in (True, False):
            model = Storyteller(draw)
            with torch.enable_grad():
                student.generate(model, draw.integers(0, VOCAB, 2, 4), 3, use_cache=use_cache)
            assert model._read, "the model is never called"
            assert not any(model._gradients), "the model was called with gradients on"
