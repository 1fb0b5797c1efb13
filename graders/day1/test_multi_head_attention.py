"""Hidden tests for the multi-head attention chapter."""

import torch
from torch import Tensor, nn

from autograder.execution.checks import (
    Draw,
    close,
    equal,
    finite,
    gradient,
    pair,
    shaped,
    unchanged,
    value_error,
    weight,
)
from graders.day1.test_attention import pair_on_meta

# This tolerance covers the float32 rounding error of four matrix products and a softmax on any hardware.
ATOL = 5e-5


def split_oracle(x: Tensor, n_heads: int) -> Tensor:
    """Split the features of x into heads by stacking equal chunks."""
    return torch.stack(x.chunk(n_heads, dim=-1), dim=1)


def merge_oracle(x: Tensor) -> Tensor:
    """Concatenate the features of all heads."""
    return torch.cat(x.unbind(dim=1), dim=-1)


class TestSplitHeads:
    exercise = "split_heads"

    @weight(1)
    def test_positions_stay_apart(self, student, seed):
        """Changing one position of x changes that position in every head but no other position."""
        draw = Draw(seed)
        x = draw.normal(2, 5, 12)
        changed = x.clone()
        changed[1, 3] += 1
        before = finite(shaped(student.split_heads(x, 3), (2, 3, 5, 4)))
        after = finite(shaped(student.split_heads(changed, 3), (2, 3, 5, 4)))
        moved = (before != after).any(dim=-1)
        for batch, head, position in moved.nonzero().tolist():
            assert (batch, position) == (1, 3), (
                f"changing position 3 of sequence 1 in x also changed position {position} of sequence "
                f"{batch} in head {head} of your result"
            )
        assert moved[1, :, 3].all(), (
            "changing position 3 of x should change position 3 in every head; "
            "in your result, at least one head is unchanged there"
        )

    @weight(2)
    def test_features_of_each_head(self, student, seed):
        """Head r gets features r·d_head to (r+1)·d_head − 1 of every position."""
        draw = Draw(seed)
        for n_heads, d_head in ((2, 5), (5, 3)):
            x = draw.normal(4, 7, n_heads * d_head)
            what = f"the result for d={n_heads * d_head} and n_heads={n_heads}"
            equal(student.split_heads(x, n_heads), split_oracle(x, n_heads), what)

    @weight(0.5)
    def test_extreme_sizes(self, student, seed):
        """`split_heads` works for one head, 17 heads, heads with one feature, and a single position."""
        draw = Draw(seed)
        sizes = ((3, 4, 6), 1), ((2, 3, 5), 5), ((2, 1, 8), 2), ((1, 1, 1), 1), ((2, 3, 51), 17)
        for (b, n, d), n_heads in sizes:
            x = draw.normal(b, n, d)
            equal(
                student.split_heads(x, n_heads),
                split_oracle(x, n_heads),
                f"the result for d={d} and n_heads={n_heads}",
            )

    @weight(1)
    def test_not_divisible(self, student, seed):
        """If the number of features is not divisible by `n_heads`, a ValueError is raised."""
        draw = Draw(seed)
        for d, n_heads in ((10, 3), (6, 4), (3, 5)):
            names = ("d", "n_heads", "x", "h", "d_model")
            with value_error(*names, when=f"d is {d} and n_heads is {n_heads}"):
                student.split_heads(draw.normal(2, 5, d), n_heads)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The result has the same dtype as x; x may be non-contiguous and is not modified in place."""
        x = Draw(seed).normal(3, 5, 8, dtype=torch.float64)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            equal(student.split_heads(x.to(dtype), 2), split_oracle(x.to(dtype), 2))
        strided = Draw(seed).strided(x)
        equal(
            student.split_heads(strided, 4), split_oracle(x, 4), "the result for a non-contiguous x"
        )
        unchanged(student)

    @weight(0.5)
    def test_gradient(self, student, seed):
        """Each entry of the result passes its gradient back to the entry of x that it came from."""
        draw = Draw(seed)
        x = draw.normal(2, 5, 6).requires_grad_()
        upstream = draw.normal(2, 3, 5, 2)
        actual = gradient(student.split_heads(x, 3), x, upstream)
        close(actual, merge_oracle(upstream), "the gradient of x")


class TestMergeHeads:
    exercise = "merge_heads"

    @weight(1)
    def test_positions_stay_apart(self, student, seed):
        """Changing one position in all heads changes all features at that position and nothing else."""
        draw = Draw(seed)
        x = draw.normal(2, 3, 5, 4)
        changed = x.clone()
        changed[1, :, 2] += 1
        before = finite(shaped(student.merge_heads(x), (2, 5, 12)))
        after = finite(shaped(student.merge_heads(changed), (2, 5, 12)))
        moved = before != after
        for batch, position in moved.any(dim=-1).nonzero().tolist():
            assert (batch, position) == (1, 2), (
                f"changing position 2 of sequence 1 in every head also changed position {position} of "
                f"sequence {batch} in your result"
            )
        assert moved[1, 2].all(), (
            "changing position 2 in every head should change all features at that position; "
            "in your result, some of them are unchanged"
        )

    @weight(2)
    def test_features_side_by_side(self, student, seed):
        """In the result, the features of head 0 come first, then the features of head 1, and so on."""
        draw = Draw(seed)
        for shape in ((4, 2, 7, 5), (4, 5, 3, 2)):
            x = draw.normal(*shape)
            equal(student.merge_heads(x), merge_oracle(x), f"the result for x of shape {shape}")

    @weight(1)
    def test_inverse_of_a_split(self, student, seed):
        """Splitting x into heads and merging them gives x, even if the heads are a non-contiguous view of x."""
        x = Draw(seed).normal(3, 5, 8)
        heads = x.unflatten(-1, (4, 2)).transpose(1, 2)
        equal(student.merge_heads(heads), x, "the result for heads that are a view of x")
        equal(student.merge_heads(heads.contiguous()), x, "the result for contiguous heads")

    @weight(0.5)
    def test_extreme_sizes(self, student, seed):
        """`merge_heads` works for one head, 17 heads, heads with one feature, and a single position."""
        draw = Draw(seed)
        for shape in ((3, 1, 4, 6), (2, 5, 3, 1), (3, 2, 1, 4), (1, 1, 1, 1), (2, 17, 1, 4)):
            x = draw.normal(*shape)
            equal(student.merge_heads(x), merge_oracle(x), f"the result for x of shape {shape}")

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The result has the same dtype as x; x may be non-contiguous and is not modified in place."""
        x = Draw(seed).normal(3, 2, 5, 4, dtype=torch.float64)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            equal(student.merge_heads(x.to(dtype)), merge_oracle(x.to(dtype)))
        equal(
            student.merge_heads(Draw(seed).strided(x)),
            merge_oracle(x),
            "the result for a non-contiguous x",
        )
        unchanged(student)

    @weight(0.5)
    def test_gradient(self, student, seed):
        """Each feature of the result passes its gradient back to the head that it came from."""
        draw = Draw(seed)
        x = draw.normal(2, 3, 5, 4).requires_grad_()
        upstream = draw.normal(2, 5, 12)
        actual = gradient(student.merge_heads(x), x, upstream)
        close(actual, split_oracle(upstream, 3), "the gradient of x")


def random_parameters(draw: Draw, d_model: int, bias: bool = True) -> dict[str, Tensor]:
    """Return random weights, and biases unless `bias` is False, for the four linear layers."""
    parameters = {}
    for name in ("query", "key", "value", "out"):
        parameters[f"{name}.weight"] = draw.normal(d_model, d_model, scale=d_model**-0.5)
        if bias:
            parameters[f"{name}.bias"] = draw.normal(d_model, scale=0.5)
    return parameters


def gradient_or_zeros(x: Tensor) -> Tensor:
    """Return the gradient of x, or zeros if no gradient reached x."""
    return torch.zeros_like(x) if x.grad is None else x.grad


def loaded_layer(student, draw: Draw, d_model: int, n_heads: int):
    """Return a student's `MultiHeadAttention` with random parameters, along with those parameters."""
    layer = student.MultiHeadAttention(d_model, n_heads)
    parameters = random_parameters(draw, d_model)
    layer.load(parameters)
    return layer.eval(), parameters


def linear_oracle(parameters: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Apply the linear layer called `name` to x: x Wᵀ + b."""
    return x @ parameters[f"{name}.weight"].T + parameters.get(f"{name}.bias", torch.zeros(()))


def oracle(
    parameters: dict[str, Tensor], n_heads: int, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the output and weights of unmasked attention in float64, one sequence and one head at a time."""
    parameters = {name: tensor.double() for name, tensor in parameters.items()}
    q = linear_oracle(parameters, "query", query.double())
    k = linear_oracle(parameters, "key", key.double())
    v = linear_oracle(parameters, "value", value.double())
    outputs, weights = [], []
    for q_s, k_s, v_s in zip(q, k, v, strict=True):
        for q_h, k_h, v_h in zip(*(t.chunk(n_heads, dim=-1) for t in (q_s, k_s, v_s)), strict=True):
            weights.append((q_h @ k_h.T / q_h.shape[-1] ** 0.5).softmax(dim=-1))
            outputs.append(weights[-1] @ v_h)
    shape = (len(q), n_heads)
    heads = torch.stack(outputs).unflatten(0, shape)
    return linear_oracle(parameters, "out", merge_oracle(heads)), torch.stack(weights).unflatten(
        0, shape
    )


def check_mask(weights: Tensor, allowed: Tensor) -> None:
    """Check for every head that masked keys get weight 0 and that the other weights sum to 1."""
    b, n_heads = weights.shape[:2]
    for s in range(b):
        for h in range(n_heads):
            forbidden = (weights[s, h] != 0) & ~allowed[s]
            for i, j in forbidden.nonzero().tolist():
                raise AssertionError(
                    f"query {i} of sequence {s} must not attend to key {j}, but in head {h} the "
                    f"weight of this key is {weights[s, h, i, j].item():.3g}"
                )
    totals = weights.sum(dim=-1)
    expected = allowed.any(dim=-1).to(totals.dtype).unsqueeze(1).expand_as(totals)
    close(totals, expected, "the sum of each query's weights", atol=ATOL)
    assert (weights.gt(0) | ~allowed.unsqueeze(1)).all(), (
        "every allowed key should have a positive weight; in your result, at least one does not"
    )


class TestMultiHeadAttention:
    exercise = "MultiHeadAttention"

    @weight(1)
    def test_weights_of_one_head(self, student, seed):
        """With one head, the weights are softmax(Q Kᵀ / √d), with an axis of size 1 for the head."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 5, 1)
        x = draw.normal(2, 7, 5)
        _, weights = pair(layer(x, x, x), "output", "weights")
        close(weights, oracle(parameters, 1, x, x, x)[1], "the weights", ATOL, dtype=x.dtype)

    @weight(1)
    def test_output_of_one_head(self, student, seed):
        """With one head, the output is `out` applied to weights · V."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 5, 1)
        x = draw.normal(2, 7, 5)
        output, _ = pair(layer(x, x, x), "output", "weights")
        close(output, oracle(parameters, 1, x, x, x)[0], "the output", ATOL, dtype=x.dtype)

    @weight(1.5)
    def test_weights_of_each_head(self, student, seed):
        """Each head uses its own slice of queries and keys and divides its scores by √d_head."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 12, 3)
        x = draw.normal(2, 7, 12)
        _, weights = pair(layer(x, x, x), "output", "weights")
        close(weights, oracle(parameters, 3, x, x, x)[1], "the weights", ATOL, dtype=x.dtype)

    @weight(1.5)
    def test_output_of_all_heads(self, student, seed):
        """The output is `out` applied to the concatenated results of all heads."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 15, 5)
        x = draw.normal(2, 7, 15)
        output, _ = pair(layer(x, x, x), "output", "weights")
        close(output, oracle(parameters, 5, x, x, x)[0], "the output", ATOL, dtype=x.dtype)

    @weight(1.5)
    def test_three_inputs(self, student, seed):
        """Queries, keys and values come from three different inputs; the numbers of queries and keys may differ."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 12, 2)
        query, key, value = draw.normal(3, 4, 12), draw.normal(3, 7, 12), draw.normal(3, 7, 12)
        output, weights = pair(layer(query, key, value), "output", "weights")
        expected_output, expected_weights = oracle(parameters, 2, query, key, value)
        close(weights, expected_weights, "the weights", ATOL, dtype=torch.float32)
        close(output, expected_output, "the output", ATOL, dtype=torch.float32)

    @weight(1)
    def test_mask_of_queries_and_keys(self, student, seed):
        """A mask of shape (n, m) or (1, n, m) applies to every sequence and head, even if b = n. True means allowed."""
        draw = Draw(seed)
        layer, _ = loaded_layer(student, draw, 12, 4)
        query, key = draw.normal(5, 5, 12), draw.normal(5, 7, 12)
        mask = draw.mask(5, 7)
        mask[:, 3] = True
        for given, b in ((mask, 5), (mask, 3), (mask.unsqueeze(0), 3)):
            _, weights = pair(layer(query[:b], key[:b], key[:b], given), "output", "weights")
            check_mask(shaped(weights, (b, 4, 5, 7), what="the weights"), mask.expand(b, 5, 7))

    @weight(1)
    def test_mask_of_keys(self, student, seed):
        """A mask of shape (b, 1, m) has one row per sequence, which applies to all queries and heads of that sequence."""
        draw = Draw(seed)
        layer, _ = loaded_layer(student, draw, 12, 3)
        query, key = draw.normal(4, 5, 12), draw.normal(4, 7, 12)
        mask = draw.mask(4, 1, 7)
        mask[:, :, 2] = True
        _, weights = pair(layer(query, key, key, mask=mask), "output", "weights")
        check_mask(shaped(weights, (4, 3, 5, 7), what="the weights"), mask.expand(4, 5, 7))

    @weight(1)
    def test_mask_of_each_sequence(self, student, seed):
        """A mask of shape (b, n, m) has one matrix per sequence, which applies to all heads, even if b = h."""
        draw = Draw(seed)
        query, key = draw.normal(3, 5, 12), draw.normal(3, 7, 12)
        mask = draw.mask(3, 5, 7)
        mask[:, :, 4] = True
        for n_heads in (2, 3):
            layer, _ = loaded_layer(student, draw, 12, n_heads)
            _, weights = pair(layer(query, key, key, mask), "output", "weights")
            check_mask(shaped(weights, (3, n_heads, 5, 7), what="the weights"), mask)

    @weight(1)
    def test_query_without_keys(self, student, seed):
        """If a query cannot attend to any key, its weights are 0 and its output is the bias of `out`."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 12, 2)
        x = draw.normal(3, 5, 12).requires_grad_()
        mask = torch.ones(3, 5, 5, dtype=torch.bool)
        mask[1, 3] = False
        mask[2] = False
        output, weights = pair(layer(x, x, x, mask), "output", "weights")
        finite(shaped(output, (3, 5, 12), what="the output"), "the output")
        check_mask(shaped(weights, (3, 2, 5, 5), what="the weights").detach(), mask)
        fully_masked = ~mask.any(dim=-1)
        bias = parameters["out.bias"].expand(int(fully_masked.sum()), 12)
        close(
            output[fully_masked], bias, "the output of queries that cannot attend to any key", ATOL
        )
        gradient(output, x, draw.normal(3, 5, 12))
        # A mask that is False everywhere is not the same as no mask.
        empty = torch.zeros(5, 5, dtype=torch.bool)
        output, weights = pair(layer(x, x, x, empty), "output", "weights")
        check_mask(
            shaped(weights, (3, 2, 5, 5), what="the weights").detach(), empty.expand(3, 5, 5)
        )
        what = "the output with a mask that is False everywhere"
        close(output, parameters["out.bias"].expand(3, 5, 12), what, ATOL)

    @weight(1)
    def test_agrees_with_torch(self, student, seed):
        """With the same weights and the same mask, the layer gives the same results as `nn.MultiheadAttention`."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 12, 4)
        torch_layer = nn.MultiheadAttention(12, 4, batch_first=True).eval()
        inputs = ("query", "key", "value")
        torch_layer.load_state_dict(
            {
                "in_proj_weight": torch.cat([parameters[f"{name}.weight"] for name in inputs]),
                "in_proj_bias": torch.cat([parameters[f"{name}.bias"] for name in inputs]),
                "out_proj.weight": parameters["out.weight"],
                "out_proj.bias": parameters["out.bias"],
            }
        )
        query, key, value = draw.normal(3, 5, 12), draw.normal(3, 7, 12), draw.normal(3, 7, 12)
        mask = draw.mask(3, 5, 7)
        mask[..., 2] = True  # avoids rows that are all False, for which torch returns NaN
        with torch.no_grad():
            expected_output, expected_weights = torch_layer(
                query,
                key,
                value,
                attn_mask=~mask.repeat_interleave(4, dim=0),
                average_attn_weights=False,
            )
        output, weights = pair(layer(query, key, value, mask), "output", "weights")
        close(weights, expected_weights, "the weights", ATOL)
        close(output, expected_output, "the output", ATOL)

    @weight(1)
    def test_without_bias(self, student, seed):
        """With bias=False, none of the four linear layers has a bias."""
        draw = Draw(seed)
        layer = student.MultiHeadAttention(6, 2, bias=False)
        biases = [name for name in sorted(layer.weights()) if name.endswith(".bias")]
        assert not biases, f"with bias=False there should be no biases, but your layer has {biases}"
        parameters = random_parameters(draw, 6, bias=False)
        layer.load(parameters)
        x = draw.normal(3, 5, 6)
        output, weights = pair(layer.eval()(x, x, x), "output", "weights")
        expected_output, expected_weights = oracle(parameters, 2, x, x, x)
        close(weights, expected_weights, "the weights", ATOL, dtype=x.dtype)
        close(output, expected_output, "the output", ATOL, dtype=x.dtype)

    @weight(1)
    def test_not_divisible(self, student):
        """If `d_model` is not divisible by `n_heads`, a ValueError is raised."""
        for d_model, n_heads in ((10, 4), (7, 2), (2, 4)):
            with value_error(
                "d_model", "n_heads", when=f"d_model is {d_model} and n_heads is {n_heads}"
            ):
                student.MultiHeadAttention(d_model, n_heads)

    @weight(1)
    def test_gradients(self, student, seed):
        """The gradients of the inputs and of every parameter are correct, for both the output and the weights."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 6, 2)
        inputs = [draw.normal(3, n, 6) for n in (4, 5, 5)]
        upstream = [draw.normal(3, 4, 6), draw.normal(3, 2, 4, 5)]
        student_parameters = layer.weights()
        oracle_parameters = {
            name: tensor.double().requires_grad_() for name, tensor in parameters.items()
        }
        given = [x.clone().requires_grad_() for x in inputs]
        exact = [x.double().requires_grad_() for x in inputs]
        actual = pair(layer(*given), "output", "weights")
        for what, result, up in zip(("output", "weights"), actual, upstream, strict=True):
            shaped(result, up.shape, up.dtype, f"the {what}")
            assert result.requires_grad, f"no gradient flows through the {what}"
        for results in (actual, oracle(oracle_parameters, 2, *exact)):
            products = [(x * up).sum() for x, up in zip(results, upstream, strict=True)]
            torch.stack(products).sum().backward()
        for name, x, leaf in zip(("query", "key", "value"), given, exact, strict=True):
            what = f"the gradient of the input `{name}`"
            close(gradient_or_zeros(x), leaf.grad, what, ATOL, dtype=torch.float32)
        for name, leaf in oracle_parameters.items():
            what = f"the gradient of `{name}`"
            close(
                gradient_or_zeros(student_parameters[name]),
                leaf.grad,
                what,
                2 * ATOL,
                dtype=torch.float32,
            )

    @weight(0.5)
    def test_float64(self, student, seed):
        """After `.to(torch.float64)`, the output and the weights are float64 and correct."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 6, 3)
        x, memory = (draw.normal(2, n, 6, dtype=torch.float64) for n in (4, 5))
        output, weights = pair(layer.to(torch.float64)(x, memory, memory), "output", "weights")
        expected_output, expected_weights = oracle(parameters, 3, x, memory, memory)
        # Computing the softmax in float32 for every dtype is also correct.
        close(weights, expected_weights, "the weights", ATOL)
        close(output, expected_output, "the output", ATOL)
        nothing = torch.zeros(1, 4, 5, dtype=torch.bool)
        output, weights = pair(layer(x, memory, memory, nothing), "output", "weights")
        for name, part, shape in (("output", output, (4, 6)), ("weights", weights, (3, 4, 5))):
            shaped(part, (len(x), *shape), torch.float64, f"the {name} if no key is allowed")

    @weight(0.5)
    def test_half_precision(self, student, seed):
        """In float16 and bfloat16, the output and the weights keep the dtype and are as accurate as the dtype allows."""
        draw = Draw(seed)
        x, memory = draw.normal(2, 4, 6), draw.normal(2, 5, 6)
        for dtype in (torch.float16, torch.bfloat16):
            layer, parameters = loaded_layer(student, draw, 6, 2)
            inputs = (x.to(dtype), memory.to(dtype), memory.to(dtype))
            output, weights = pair(layer.to(dtype)(*inputs), "output", "weights")
            rounded = {name: tensor.to(dtype) for name, tensor in parameters.items()}
            expected_output, expected_weights = oracle(rounded, 2, *inputs)
            close(weights, expected_weights, f"the weights in {str(dtype)[6:]}", dtype=dtype)
            close(output, expected_output, f"the output in {str(dtype)[6:]}", dtype=dtype)
            # Masking the last key has the same effect as removing it.
            mask = torch.tensor([True] * 4 + [False])
            masked, _ = pair(layer(*inputs, mask.expand(2, 1, 5)), "output", "weights")
            query, key, value = inputs
            expected_output, _ = oracle(rounded, 2, query, key[:, :4], value[:, :4])
            what = f"the output with a mask in {str(dtype)[6:]}"
            close(masked, expected_output, what, dtype=dtype)

    @weight(0.5)
    def test_one_feature_a_head(self, student, seed):
        """The layer works with one feature per head, a single query and a single sequence."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 17, 17)
        query, key = draw.normal(1, 1, 17), draw.normal(1, 6, 17)
        output, weights = pair(layer(query, key, key), "output", "weights")
        expected_output, expected_weights = oracle(parameters, 17, query, key, key)
        close(weights, expected_weights, "the weights", ATOL, dtype=torch.float32)
        close(output, expected_output, "the output", ATOL, dtype=torch.float32)

    @weight(0.5)
    def test_leaves_everything_as_it_was(self, student, seed):
        """The inputs and mask are not modified. The result does not depend on earlier calls, other layers or `train()`."""
        draw = Draw(seed)
        layer, parameters = loaded_layer(student, draw, 6, 2)
        query, key, value = (draw.strided(draw.normal(3, n, 6)) for n in (4, 5, 5))
        causal = draw.strided(torch.ones(3, 4, 5).tril().bool())
        pair(layer(query, key, value, causal), "output", "weights")
        unchanged(student)
        student.MultiHeadAttention(6, 3)  # must not change the number of heads of the first layer
        for x, memory, values in ((query, key, value), (value, query, query)):
            output, _ = pair(layer.train()(x, memory, values), "output", "weights")
            expected = oracle(parameters, 2, x, memory, values)[0]
            what = (
                "the output of a later call in training mode, after another layer has been created"
            )
            close(output, expected, what, ATOL, dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """After `.to(device)`, the layer works with inputs on that device, with and without a mask."""
        layer, x = student.MultiHeadAttention(6, 3), torch.zeros(2, 5, 6, device="meta")
        mask = torch.ones(2, 1, 5, dtype=torch.bool, device="meta")
        for masks in ([mask], []):

            def moved(masks=masks):
                return layer.to("meta")(x, x, x, *masks)

            pair_on_meta(moved, (2, 5, 6), (2, 3, 5, 5))
