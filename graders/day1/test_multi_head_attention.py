"""Hidden graders of the chapter multi_head_attention."""

import torch
from torch import Tensor, nn

from autograder.execution.checks import (
    Draw,
    close,
    equal,
    finite,
    gradient,
    pair,
    pair_on_meta,
    shaped,
    unchanged,
    value_error,
    weight,
)

# float32 results of four matrix products and a softmax, on whatever hardware.
ATOL = 5e-5


def split(x: Tensor, n_heads: int) -> Tensor:
    """The heads one by one, cut out of the features."""
    return torch.stack(x.chunk(n_heads, dim=-1), dim=1)


def merge(x: Tensor) -> Tensor:
    """The heads one by one, put side by side."""
    return torch.cat(x.unbind(dim=1), dim=-1)


class TestSplitHeads:
    exercise = "split_heads"

    @weight(1)
    def test_positions_stay_apart(self, student, seed):
        """A changed position of x changes that position of the heads and no other."""
        draw = Draw(seed)
        x = draw.normal(2, 5, 12)
        changed = x.clone()
        changed[1, 3] += 1
        before = shaped(student.split_heads(x, 3), (2, 3, 5, 4))
        after = shaped(student.split_heads(changed, 3), (2, 3, 5, 4))
        moved = (before != after).any(dim=-1)
        for batch, head, position in moved.nonzero().tolist():
            assert (batch, position) == (1, 3), (
                f"position 3 of sequence 1 was changed; in your result position {position} of "
                f"sequence {batch} changed in head {head}"
            )
        assert moved[1, :, 3].all(), "a change of position 3 should be seen in every head"

    @weight(2)
    def test_features_of_each_head(self, student, seed):
        """Head k holds the features k·d_head … (k+1)·d_head − 1 of every position."""
        draw = Draw(seed)
        n_heads, d_head = draw.choice([(2, 5), (3, 4), (5, 3)])
        x = draw.normal(4, 7, n_heads * d_head)
        equal(student.split_heads(x, n_heads), split(x, n_heads))

    @weight(0.5)
    def test_extreme_sizes(self, student, seed):
        """One head and 17, heads of one feature, and a single position work, too."""
        draw = Draw(seed)
        sizes = ((3, 4, 6), 1), ((2, 3, 5), 5), ((2, 1, 8), 2), ((1, 1, 1), 1), ((2, 3, 51), 17)
        for (b, n, d), n_heads in sizes:
            x = draw.normal(b, n, d)
            equal(
                student.split_heads(x, n_heads),
                split(x, n_heads),
                f"the result for d = {d} and n_heads = {n_heads}",
            )

    @weight(1)
    def test_not_divisible(self, student, seed):
        """Features that cannot be shared out equally are refused with a ValueError."""
        draw = Draw(seed)
        for d, n_heads in ((10, 3), (6, 4), (3, 5)):
            names = ("d", "n_heads", "x", "h", "d_model")
            with value_error(*names, when=f"d is {d} and n_heads is {n_heads}"):
                student.split_heads(draw.normal(2, 5, d), n_heads)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """Any floating dtype stays, and an input with unusual strides is no error."""
        x = Draw(seed).normal(3, 5, 8, dtype=torch.float64)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            equal(student.split_heads(x.to(dtype), 2), split(x.to(dtype), 2))
        strided = Draw(seed).strided(x)
        equal(student.split_heads(strided, 4), split(x, 4), "the result for a non-contiguous x")
        unchanged(student)

    @weight(0.5)
    def test_gradient(self, student, seed):
        """Gradients flow back to the features they belong to."""
        draw = Draw(seed)
        x = draw.normal(2, 5, 6).requires_grad_()
        upstream = draw.normal(2, 3, 5, 2)
        seen = gradient(student.split_heads(x, 3), x, upstream)
        close(seen, merge(upstream), "the gradient of x")


class TestMergeHeads:
    exercise = "merge_heads"

    @weight(1)
    def test_positions_stay_apart(self, student, seed):
        """A changed position of the heads changes that position of the result and no other."""
        draw = Draw(seed)
        x = draw.normal(2, 3, 5, 4)
        changed = x.clone()
        changed[1, :, 2] += 1
        before = shaped(student.merge_heads(x), (2, 5, 12))
        after = shaped(student.merge_heads(changed), (2, 5, 12))
        moved = before != after
        for batch, position in moved.any(dim=-1).nonzero().tolist():
            assert (batch, position) == (1, 2), (
                f"position 2 of sequence 1 was changed; in your result position {position} of "
                f"sequence {batch} changed"
            )
        assert moved[1, 2].all(), "every feature of position 2 should have changed"

    @weight(2)
    def test_features_side_by_side(self, student, seed):
        """The features of head 0 come first, then those of head 1, and so on."""
        draw = Draw(seed)
        x = draw.normal(4, *draw.choice([(2, 7, 5), (3, 5, 4), (5, 4, 3)]))
        equal(student.merge_heads(x), merge(x))

    @weight(1)
    def test_inverse_of_a_split(self, student, seed):
        """Merging what was split gives back x, also where the split was only a view of x."""
        x = Draw(seed).normal(3, 5, 8)
        heads = x.unflatten(-1, (4, 2)).transpose(1, 2)
        equal(student.merge_heads(heads), x, "the merged heads of a view of x")
        equal(student.merge_heads(heads.contiguous()), x, "the merged heads of x")

    @weight(0.5)
    def test_extreme_sizes(self, student, seed):
        """One head and 17, heads of one feature, and a single position work, too."""
        draw = Draw(seed)
        for shape in ((3, 1, 4, 6), (2, 5, 3, 1), (3, 2, 1, 4), (1, 1, 1, 1), (2, 17, 1, 4)):
            x = draw.normal(*shape)
            equal(student.merge_heads(x), merge(x), f"the result for the shape {shape}")

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """Any floating dtype stays, and an input with unusual strides is no error."""
        x = Draw(seed).normal(3, 2, 5, 4, dtype=torch.float64)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            equal(student.merge_heads(x.to(dtype)), merge(x.to(dtype)))
        equal(
            student.merge_heads(Draw(seed).strided(x)),
            merge(x),
            "the result for a non-contiguous x",
        )
        unchanged(student)

    @weight(0.5)
    def test_gradient(self, student, seed):
        """Gradients flow back to the heads they belong to."""
        draw = Draw(seed)
        x = draw.normal(2, 3, 5, 4).requires_grad_()
        upstream = draw.normal(2, 5, 12)
        seen = gradient(student.merge_heads(x), x, upstream)
        close(seen, split(upstream, 3), "the gradient of x")


def parameters(draw: Draw, d_model: int, bias: bool = True) -> dict[str, Tensor]:
    """Weights for the four linear layers that keep the size of their inputs."""
    drawn = {}
    for name in ("query", "key", "value", "out"):
        drawn[f"{name}.weight"] = draw.normal(d_model, d_model, scale=d_model**-0.5)
        if bias:
            drawn[f"{name}.bias"] = draw.normal(d_model, scale=0.5)
    return drawn


def reached(x: Tensor) -> Tensor:
    """The gradient that arrived at x; none is 0."""
    return torch.zeros_like(x) if x.grad is None else x.grad


def loaded(student, draw: Draw, d_model: int, n_heads: int):
    """A layer of the student with drawn weights, and these weights."""
    layer = student.MultiHeadAttention(d_model, n_heads)
    drawn = parameters(draw, d_model)
    layer.load(drawn)
    return layer.eval(), drawn


def linear(drawn: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """x Wᵀ + b."""
    return x @ drawn[f"{name}.weight"].T + drawn.get(f"{name}.bias", torch.zeros(()))


def expected(
    drawn: dict[str, Tensor], n_heads: int, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Output and weights without a mask, sentence by sentence and head by head in float64."""
    drawn = {name: tensor.double() for name, tensor in drawn.items()}
    q = linear(drawn, "query", query.double())
    k = linear(drawn, "key", key.double())
    v = linear(drawn, "value", value.double())
    outputs, weights = [], []
    for q_s, k_s, v_s in zip(q, k, v, strict=True):
        for q_h, k_h, v_h in zip(*(t.chunk(n_heads, dim=-1) for t in (q_s, k_s, v_s)), strict=True):
            weights.append((q_h @ k_h.T / q_h.shape[-1] ** 0.5).softmax(dim=-1))
            outputs.append(weights[-1] @ v_h)
    by_head = (len(q), n_heads)
    heads = torch.stack(outputs).unflatten(0, by_head)
    return linear(drawn, "out", merge(heads)), torch.stack(weights).unflatten(0, by_head)


def sees_only(weights: Tensor, allowed: Tensor) -> None:
    """Check that every head gives weight just to what `allowed` ("b n m") allows, and all of it."""
    b, n_heads = weights.shape[:2]
    for s in range(b):
        for h in range(n_heads):
            forbidden = (weights[s, h] != 0) & ~allowed[s]
            for i, j in forbidden.nonzero().tolist():
                raise AssertionError(
                    f"query {i} of sequence {s} may not attend to key {j}, but in head {h} its "
                    f"weight is {weights[s, h, i, j].item():.3g}"
                )
    totals = weights.sum(dim=-1)
    wanted = allowed.any(dim=-1).to(totals.dtype).unsqueeze(1).expand_as(totals)
    close(totals, wanted, "the sum of each query's weights", atol=ATOL)
    assert (weights.gt(0) | ~allowed.unsqueeze(1)).all(), "a key that is allowed has the weight 0"


class TestMultiHeadAttention:
    exercise = "MultiHeadAttention"

    @weight(1)
    def test_weights_of_one_head(self, student, seed):
        """With one head the weights are softmax(Q Kᵀ / √d), with an axis of size 1 for the head."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 5, 1)
        x = draw.normal(2, 7, 5)
        _, weights = pair(layer(x, x, x), "output", "weights")
        close(weights, expected(drawn, 1, x, x, x)[1], "the weights", ATOL, dtype=x.dtype)

    @weight(1)
    def test_output_of_one_head(self, student, seed):
        """With one head the output is out(weights · V)."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 5, 1)
        x = draw.normal(2, 7, 5)
        output, _ = pair(layer(x, x, x), "output", "weights")
        close(output, expected(drawn, 1, x, x, x)[0], "the output", ATOL, dtype=x.dtype)

    @weight(1.5)
    def test_weights_of_each_head(self, student, seed):
        """Each head compares its own slice of queries and keys, scaled by the root of d_head."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 12, 3)
        x = draw.normal(2, 7, 12)
        _, weights = pair(layer(x, x, x), "output", "weights")
        close(weights, expected(drawn, 3, x, x, x)[1], "the weights", ATOL, dtype=x.dtype)

    @weight(1.5)
    def test_output_of_all_heads(self, student, seed):
        """The output is `out` of the results of all heads, side by side."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 15, 5)
        x = draw.normal(2, 7, 15)
        output, _ = pair(layer(x, x, x), "output", "weights")
        close(output, expected(drawn, 5, x, x, x)[0], "the output", ATOL, dtype=x.dtype)

    @weight(1.5)
    def test_three_inputs(self, student, seed):
        """Queries, keys and values come from three different inputs, with n ≠ m."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 12, 2)
        query, key, value = draw.normal(3, 4, 12), draw.normal(3, 7, 12), draw.normal(3, 7, 12)
        output, weights = pair(layer(query, key, value), "output", "weights")
        want_output, want_weights = expected(drawn, 2, query, key, value)
        close(weights, want_weights, "the weights", ATOL, dtype=torch.float32)
        close(output, want_output, "the output", ATOL, dtype=torch.float32)

    @weight(1)
    def test_mask_of_queries_and_keys(self, student, seed):
        """A mask "n m" holds for every sequence and every head, also where b = n; so does one "1 n m"."""
        draw = Draw(seed)
        layer, _ = loaded(student, draw, 12, 4)
        query, key = draw.normal(5, 5, 12), draw.normal(5, 7, 12)
        mask = draw.mask(5, 7)
        mask[:, 3] = True
        for given, b in ((mask, 5), (mask, 3), (mask.unsqueeze(0), 3)):
            _, weights = pair(layer(query[:b], key[:b], key[:b], given), "output", "weights")
            sees_only(shaped(weights, (b, 4, 5, 7), what="the weights"), mask.expand(b, 5, 7))

    @weight(1)
    def test_mask_of_keys(self, student, seed):
        """A mask "b 1 m" holds for every query and every head of its sequence."""
        draw = Draw(seed)
        layer, _ = loaded(student, draw, 12, 3)
        query, key = draw.normal(4, 5, 12), draw.normal(4, 7, 12)
        mask = draw.mask(4, 1, 7)
        mask[:, :, 2] = True
        _, weights = pair(layer(query, key, key, mask=mask), "output", "weights")
        sees_only(shaped(weights, (4, 3, 5, 7), what="the weights"), mask.expand(4, 5, 7))

    @weight(1)
    def test_mask_of_each_sequence(self, student, seed):
        """A mask "b n m" holds for every head of its sequence, also where b = h."""
        draw = Draw(seed)
        query, key = draw.normal(3, 5, 12), draw.normal(3, 7, 12)
        mask = draw.mask(3, 5, 7)
        mask[:, :, 4] = True
        for n_heads in (2, 3):
            layer, _ = loaded(student, draw, 12, n_heads)
            _, weights = pair(layer(query, key, key, mask), "output", "weights")
            sees_only(shaped(weights, (3, n_heads, 5, 7), what="the weights"), mask)

    @weight(1)
    def test_query_without_keys(self, student, seed):
        """A query that may attend to nothing gets weights 0 and the bias of `out`; no NaN."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 12, 2)
        x = draw.normal(3, 5, 12).requires_grad_()
        mask = torch.ones(3, 5, 5, dtype=torch.bool)
        mask[1, 3] = False
        mask[2] = False
        output, weights = pair(layer(x, x, x, mask), "output", "weights")
        finite(shaped(output, (3, 5, 12), what="the output"), "the output")
        sees_only(shaped(weights, (3, 2, 5, 5), what="the weights").detach(), mask)
        alone = ~mask.any(dim=-1)
        bias = drawn["out.bias"].expand(int(alone.sum()), 12)
        close(output[alone], bias, "the output of queries that may attend to nothing", ATOL)
        gradient(output, x, draw.normal(3, 5, 12))

    @weight(1)
    def test_agrees_with_torch(self, student, seed):
        """With copied weights and a mask, the results are those of nn.MultiheadAttention."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 12, 4)
        theirs = nn.MultiheadAttention(12, 4, batch_first=True).eval()
        inputs = ("query", "key", "value")
        theirs.load_state_dict(
            {
                "in_proj_weight": torch.cat([drawn[f"{name}.weight"] for name in inputs]),
                "in_proj_bias": torch.cat([drawn[f"{name}.bias"] for name in inputs]),
                "out_proj.weight": drawn["out.weight"],
                "out_proj.bias": drawn["out.bias"],
            }
        )
        query, key, value = draw.normal(3, 5, 12), draw.normal(3, 7, 12), draw.normal(3, 7, 12)
        mask = draw.mask(3, 5, 7)
        mask[..., 2] = True  # torch gives NaN for a query that sees nothing
        with torch.no_grad():
            want_output, want_weights = theirs(
                query,
                key,
                value,
                attn_mask=~mask.repeat_interleave(4, dim=0),
                average_attn_weights=False,
            )
        output, weights = pair(layer(query, key, value, mask), "output", "weights")
        close(weights, want_weights, "the weights", ATOL)
        close(output, want_output, "the output", ATOL)

    @weight(1)
    def test_without_bias(self, student, seed):
        """With bias=False none of the four layers has a bias."""
        draw = Draw(seed)
        layer = student.MultiHeadAttention(6, 2, bias=False)
        biases = [name for name in sorted(layer.weights()) if name.endswith(".bias")]
        assert not biases, f"with bias=False there should be no bias, but there is {biases}"
        drawn = parameters(draw, 6, bias=False)
        layer.load(drawn)
        x = draw.normal(3, 5, 6)
        output, weights = pair(layer.eval()(x, x, x), "output", "weights")
        want_output, want_weights = expected(drawn, 2, x, x, x)
        close(weights, want_weights, "the weights", ATOL, dtype=x.dtype)
        close(output, want_output, "the output", ATOL, dtype=x.dtype)

    @weight(1)
    def test_not_divisible(self, student):
        """A d_model that is not divisible by n_heads is refused with a ValueError."""
        for d_model, n_heads in ((10, 4), (7, 2), (2, 4)):
            with value_error(
                "d_model", "n_heads", when=f"d_model is {d_model} and n_heads is {n_heads}"
            ):
                student.MultiHeadAttention(d_model, n_heads)

    @weight(1)
    def test_gradients(self, student, seed):
        """The gradients of the inputs and of every parameter are right, through output and weights."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 6, 2)
        inputs = [draw.normal(3, n, 6) for n in (4, 5, 5)]
        upstream = [draw.normal(3, 4, 6), draw.normal(3, 2, 4, 5)]
        theirs = layer.weights()
        mine = {name: tensor.double().requires_grad_() for name, tensor in drawn.items()}
        given = [x.clone().requires_grad_() for x in inputs]
        exact = [x.double().requires_grad_() for x in inputs]
        seen = pair(layer(*given), "output", "weights")
        for what, result, wanted in zip(("output", "weights"), seen, upstream, strict=True):
            shaped(result, wanted.shape, wanted.dtype, f"the {what}")
            assert result.requires_grad, f"no gradient flows through the {what}"
        torch.autograd.backward(seen, upstream)
        torch.autograd.backward(expected(mine, 2, *exact), [x.double() for x in upstream])
        for name, x, want in zip(("query", "key", "value"), given, exact, strict=True):
            what = f"the gradient of the input {name}"
            close(reached(x), want.grad, what, ATOL, dtype=torch.float32)
        for name, want in mine.items():
            what = f"the gradient of {name}"
            close(reached(theirs[name]), want.grad, what, 2 * ATOL, dtype=torch.float32)

    @weight(0.5)
    def test_float64(self, student, seed):
        """After `.to(torch.float64)` output and weights are float64, and right."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 6, 3)
        x, memory = (draw.normal(2, n, 6, dtype=torch.float64) for n in (4, 5))
        output, weights = pair(layer.to(torch.float64)(x, memory, memory), "output", "weights")
        want_output, want_weights = expected(drawn, 3, x, memory, memory)
        # A softmax that is computed in float32 whatever the dtype is no mistake.
        close(weights, want_weights, "the weights", ATOL)
        close(output, want_output, "the output", ATOL)

    @weight(0.5)
    def test_half_precision(self, student, seed):
        """In float16 and bfloat16 the result has that dtype and is right within its precision."""
        draw = Draw(seed)
        x, memory = draw.normal(2, 4, 6), draw.normal(2, 5, 6)
        for dtype in (torch.float16, torch.bfloat16):
            layer, drawn = loaded(student, draw, 6, 2)
            inputs = (x.to(dtype), memory.to(dtype), memory.to(dtype))
            output, weights = pair(layer.to(dtype)(*inputs), "output", "weights")
            rounded = {name: tensor.to(dtype) for name, tensor in drawn.items()}
            want_output, want_weights = expected(rounded, 2, *inputs)
            close(weights, want_weights, f"the weights in {str(dtype)[6:]}", dtype=dtype)
            close(output, want_output, f"the output in {str(dtype)[6:]}", dtype=dtype)
            # Under a mask as if the last key were not there.
            mask = torch.tensor([True] * 4 + [False])
            masked, _ = pair(layer(*inputs, mask.expand(2, 1, 5)), "output", "weights")
            query, key, value = inputs
            want_output, _ = expected(rounded, 2, query, key[:, :4], value[:, :4])
            what = f"the output under a mask in {str(dtype)[6:]}"
            close(masked, want_output, what, dtype=dtype)

    @weight(0.5)
    def test_one_feature_a_head(self, student, seed):
        """As many heads as features, a single query and a single sequence work, too."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 17, 17)
        query, key = draw.normal(1, 1, 17), draw.normal(1, 6, 17)
        output, weights = pair(layer(query, key, key), "output", "weights")
        want_output, want_weights = expected(drawn, 17, query, key, key)
        close(weights, want_weights, "the weights", ATOL, dtype=torch.float32)
        close(output, want_output, "the output", ATOL, dtype=torch.float32)

    @weight(0.5)
    def test_leaves_everything_as_it_was(self, student, seed):
        """Inputs and mask are not changed; a call does not depend on earlier ones, nor on train()."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 6, 2)
        query, key, value = (draw.strided(draw.normal(3, n, 6)) for n in (4, 5, 5))
        causal = draw.strided(torch.ones(3, 4, 5).tril().bool())
        pair(layer(query, key, value, causal), "output", "weights")
        unchanged(student)
        for x, memory, values in ((query, key, value), (value, query, query)):
            output, _ = pair(layer.train()(x, memory, values), "output", "weights")
            want = expected(drawn, 2, x, memory, values)[0]
            what = "in train(), the output of a later call"
            close(output, want, what, ATOL, dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """After a move to another device the layer works on inputs and masks that are there."""
        layer, x = student.MultiHeadAttention(6, 3), torch.zeros(2, 5, 6, device="meta")
        mask = torch.ones(2, 1, 5, dtype=torch.bool, device="meta")

        def moved():
            return layer.to_empty(device="meta")(x, x, x, mask)

        pair_on_meta(moved, (2, 5, 6), (2, 3, 5, 5))
