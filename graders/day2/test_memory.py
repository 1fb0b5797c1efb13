"""Hidden tests for the memory chapter. The oracles process one pair of vectors at a time, in float64."""

import math

import torch
from torch import Tensor

from autograder.execution.checks import (
    Draw,
    backpropagate,
    close,
    finite,
    gradient,
    leaf_gradient,
    on_meta,
    shaped,
    unchanged,
    value_error,
    weight,
)
from graders.day2.test_music import random_parameters
from graders.equivalent_calls import leading_axes

# This tolerance covers the rounding error of six float32 matrix products and a softmax on any hardware.
ATOL = 5e-5
DTYPES = {torch.float64: ATOL, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def recurrent_oracle(
    parameters: dict[str, Tensor], x: Tensor, memory: Tensor | None = None
) -> Tensor:
    """Compute attention over memory and x one query at a time, looking up the row of `relative` for every distance."""
    parameters = {name: tensor.double() for name, tensor in parameters.items()}
    relative = parameters["relative"]
    n_heads, max_length, d_head = relative.shape
    x = x.double()
    seen = x if memory is None else torch.cat([memory.detach().double(), x], dim=1)
    m = seen.shape[1] - x.shape[1]
    q, k, v = (
        source @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]
        for name, source in (("query", x), ("key", seen), ("value", seen))
    )
    outputs = []
    for i in range(x.shape[1]):
        heads = []
        for h in range(n_heads):
            own = slice(h * d_head, (h + 1) * d_head)
            visible = range(m + i + 1)
            rows = torch.stack([relative[h, max_length - 1 - (m + i - j)] for j in visible])
            keys = k[:, : m + i + 1, own] + rows
            scores = (keys @ q[:, i, own].unsqueeze(-1)).squeeze(-1) / d_head**0.5
            weights = scores.softmax(dim=-1).unsqueeze(1)
            heads.append((weights @ v[:, : m + i + 1, own]).squeeze(1))
        outputs.append(torch.cat(heads, dim=-1))
    return torch.stack(outputs, dim=1) @ parameters["out.weight"].T + parameters["out.bias"]


def load_layer(student, draw: Draw, d_model: int, n_heads: int, max_length: int):
    """Return a student's `RecurrentAttention` with random weights, along with those weights."""
    layer = student.RecurrentAttention(d_model, n_heads, max_length)
    parameters = random_parameters(draw, d_model, n_heads, max_length)
    layer.load(parameters)
    return layer.eval(), parameters


def check_output(
    layer, parameters: dict[str, Tensor], x: Tensor, memory: Tensor | None = None, what: str = ""
) -> None:
    """Compare the layer's output with the oracle's."""
    what = f"the output {what}".strip()
    expected = recurrent_oracle(parameters, x, memory)
    seen = layer(x) if memory is None else layer(x, memory)
    close(seen, expected, what, ATOL, dtype=x.dtype)


class TestRecurrentAttention:
    exercise = "RecurrentAttention"

    @weight(1)
    def test_without_memory(self, student, seed):
        """Without a memory, the layer behaves like `RelativeSelfAttention`, including for n < max_length."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 6, 2, 8)
        for n in (8, 5, 1):
            check_output(layer, parameters, draw.normal(3, n, 6), what=f"for n = {n} and no memory")

    @weight(1)
    def test_empty_memory(self, student, seed):
        """An empty memory has the same effect as None."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 6, 3, 7)
        x = draw.normal(2, 5, 6)
        check_output(layer, parameters, x, torch.zeros(2, 0, 6), "for m = 0")
        expected = recurrent_oracle(parameters, x)
        close(layer(x, memory=None), expected, "the output for memory=None", ATOL, dtype=x.dtype)

    @weight(1.5)
    def test_content_of_the_memory(self, student, seed):
        """If `relative` is zero, each position attends to the memory and to x up to its own position, based on content alone,
        even if the memory is zero, or if the scores are far below 0 in one sequence and far above 0 in another.
        """
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 3, 1, 11)
        parameters["relative"].zero_()
        layer.load({"relative": parameters["relative"]})
        x, memory = draw.normal(2, 4, 3), draw.normal(2, 6, 3)
        check_output(layer, parameters, x, memory, "for n = 4, m = 6 and `relative` of zeros")
        check_output(layer, parameters, x, torch.zeros_like(memory), "if the memory is also zero")
        # Each score is the product of 200 and the first feature, so rounding cannot make the scores of a sequence differ.
        first = torch.eye(3)[0]
        parameters |= {"query.weight": torch.zeros(3, 3), "query.bias": 200 * first}
        parameters |= {"key.weight": first.diag(), "key.bias": torch.zeros(3)}
        parameters["value.weight"][:, 0] = 0
        layer.load(parameters)
        x[..., 0] = memory[..., 0] = torch.tensor([[-200.0], [200.0]])
        what = "if all scores are −23,094 in the first sequence and 23,094 in the second"
        check_output(layer, parameters, x, memory, what)

    @weight(1.5)
    def test_distances(self, student, seed):
        """Position j of the memory (length m) is at distance m + i − j from position i of x. `relative` ends with distance 0."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 1, 1, 9)
        x, memory = draw.normal(2, 4, 1), draw.normal(2, 5, 1)
        check_output(layer, parameters, x, memory, "for n = 4, m = 5 and max_length = 9")

    @weight(1.5)
    def test_shorter_than_max_length(self, student, seed):
        """If memory and x together have m + n < max_length positions, the last m + n rows of `relative` are used."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 6, 2, 14)
        # A mask that is cached by n would be wrong for the second n of 3.
        for n, m in ((3, 5), (6, 2), (1, 7), (3, 2), (4, 1)):
            x, memory = draw.normal(3, n, 6), draw.normal(3, m, 6)
            check_output(layer, parameters, x, memory, f"for n = {n}, m = {m} and max_length = 14")
        layer, parameters = load_layer(student, draw, 2, 1, 160)
        for n, m in ((3, 140), (70, 3)):
            x, memory = draw.normal(1, n, 2), draw.normal(1, m, 2)
            what = f"for b = 1, n = {n}, m = {m} and max_length = 160"
            check_output(layer, parameters, x, memory, what)

    @weight(1.5)
    def test_causal(self, student, seed):
        """With a memory, changing a position of x does not change the output at earlier positions."""
        draw = Draw(seed)
        layer, _ = load_layer(student, draw, 8, 2, 12)
        x, memory = draw.normal(2, 6, 8), draw.normal(2, 4, 8)
        before = finite(shaped(layer(x, memory), (2, 6, 8))).detach()
        for position in (1, 3, 5):
            changed = x.clone()
            changed[:, position] = draw.normal(2, 8, scale=5)
            after = finite(shaped(layer(changed, memory), (2, 6, 8))).detach()
            change = (after - before).abs().amax(dim=(0, 2))[:position]
            early = int(change.argmax())
            assert change[early] <= 1e-6, (
                f"changing position {position} changes the output at the earlier position {early} "
                f"by {change[early].item():.3g}"
            )

    @weight(1.5)
    def test_segments(self, student, seed):
        """Processing a sequence in segments, with all earlier segments as memory, gives the same output as a single call."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 8, 2, 11)
        x = draw.normal(2, 10, 8)
        whole = recurrent_oracle(parameters, x)
        start = 0
        for n in (4, 1, 3, 2):
            seen = layer(x[:, start : start + n], x[:, :start])
            what = f"the output for positions {start} … {start + n - 1}, with all earlier positions as memory"
            close(seen, whole[:, start : start + n], what, ATOL, dtype=x.dtype)
            start += n

    @weight(1)
    def test_heads(self, student, seed):
        """Head k uses features k·d_head to (k+1)·d_head − 1 and the rows of relative[k], and divides its scores by √d_head."""
        draw = Draw(seed)
        n_heads, d_head = 2, 5
        layer, parameters = load_layer(student, draw, n_heads * d_head, n_heads, 8)
        x, memory = draw.normal(2, 5, n_heads * d_head), draw.normal(2, 3, n_heads * d_head)
        check_output(layer, parameters, x, memory, f"for {n_heads} heads with {d_head} features")

    @weight(1)
    def test_no_gradient_into_memory(self, student, seed):
        """No gradient flows into `memory`: its gradient is None or 0, even if `memory` requires gradients."""
        draw = Draw(seed)
        layer, _ = load_layer(student, draw, 6, 2, 9)
        x, memory = draw.normal(2, 4, 6).requires_grad_(), draw.normal(2, 5, 6).requires_grad_()
        seen = shaped(layer(x, memory), (2, 4, 6))
        backpropagate(seen, draw.normal(2, 4, 6), "the output")
        if memory.grad is not None:
            close(memory.grad, torch.zeros(2, 5, 6), "the gradient of memory")

    @weight(1.5)
    def test_gradients(self, student, seed):
        """The gradients of x and all parameters are correct, with and without a memory. `key` and `value` also receive
        gradients from the memory.
        """
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 6, 2, 10)
        given, upstream = draw.normal(3, 4, 6), draw.normal(3, 4, 6)
        for memory in (draw.normal(3, 5, 6), None):
            leaves = layer.weights()
            exact_leaves = {name: p.double().requires_grad_() for name, p in parameters.items()}
            exact = given.double().requires_grad_()
            backpropagate(recurrent_oracle(exact_leaves, exact, memory), upstream)
            x = given.clone().requires_grad_()
            seen = layer(x) if memory is None else layer(x, memory)
            backpropagate(shaped(seen, upstream.shape, upstream.dtype, "the output"), upstream)
            for name, have, expected in (
                ("x", x, exact),
                *((n, leaves[n], exact_leaves[n]) for n in exact_leaves),
            ):
                found = torch.zeros_like(have) if have.grad is None else have.grad
                what = f"the gradient of {name}" + " (without a memory)" * (memory is None)
                close(found, expected.grad, what, 4 * ATOL, 1e-4, dtype=torch.float32)

    @weight(1)
    def test_too_long(self, student, seed):
        """If memory and x together have more than `max_length` positions, a ValueError is raised."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 6, 3, 7)
        names = ("max_length", "memory", "x", "n", "m")
        for n, m in ((4, 4), (1, 7), (7, 1), (3, 9)):
            with value_error(*names, when=f"n is {n}, m is {m} and max_length is 7"):
                layer(draw.normal(2, n, 6), draw.normal(2, m, 6))
        with value_error(*names, when="n is 8, there is no memory, and max_length is 7"):
            layer(draw.normal(2, 8, 6))
        with value_error(*names, when="n is 8, m is 0 and max_length is 7"):
            layer(draw.normal(2, 8, 6), torch.zeros(2, 0, 6))
        x, memory = draw.normal(2, 3, 6), draw.normal(2, 4, 6)
        check_output(layer, parameters, x, memory, "for n = 3, m = 4 and max_length = 7")

    @weight(0.5)
    def test_not_divisible(self, student):
        """If `d_model` is not divisible by `n_heads`, a ValueError is raised."""
        for d_model, n_heads in ((8, 3), (3, 6)):
            when = f"d_model is {d_model} and n_heads is {n_heads}"
            with value_error("d_model", "n_heads", when=when):
                student.RecurrentAttention(d_model, n_heads, 5)

    @weight(0.5)
    def test_dtypes(self, student, seed):
        """In float64, float16 and bfloat16, the output has the same dtype and is accurate, with and without a memory."""
        draw = Draw(seed)
        exact, exact_memory = draw.normal(2, 3, 6), draw.normal(2, 2, 6)
        for dtype, atol in DTYPES.items():
            layer, parameters = load_layer(student, draw, 6, 2, 6)
            x, memory = exact.to(dtype), exact_memory.to(dtype)
            rounded = {name: tensor.to(dtype) for name, tensor in parameters.items()}
            what = f"the output in {str(dtype)[6:]}"
            expected = recurrent_oracle(rounded, x, memory)
            close(layer.to(dtype)(x, memory), expected, what, atol, dtype=dtype)
            what += " without a memory"
            close(layer(x), recurrent_oracle(rounded, x), what, atol, dtype=dtype)

    @weight(0.25)
    def test_device(self, student):
        """After `.to(device)`, the layer works with inputs on that device."""
        layer = student.RecurrentAttention(6, 2, 8)
        x, memory = torch.zeros(2, 4, 6, device="meta"), torch.zeros(2, 3, 6, device="meta")
        layer.to("meta")
        on_meta(lambda: layer(x, memory), x.shape, "the output")
        on_meta(lambda: layer(x), x.shape, "the output without a memory")

    @weight(0.5)
    def test_leaves_everything_as_it_was(self, student, seed):
        """x and memory may be non-contiguous and are not modified. Earlier calls do not change the output."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 6, 3, 9)
        for x, memory in (
            (draw.normal(3, 4, 6), draw.normal(3, 5, 6)),
            (draw.strided(draw.normal(4, 5, 6)), draw.strided(draw.normal(4, 2, 6))),
        ):
            check_output(layer, parameters, x, memory, f"for shape {tuple(x.shape)}")
            unchanged(student)
        # Here x is also the memory, so disabling the memory's gradients in place would also disable those of x.
        x, upstream = draw.normal(2, 4, 6), draw.normal(2, 4, 6)
        exact = x.double().requires_grad_()
        backpropagate(recurrent_oracle(parameters, exact, x), upstream)
        x.requires_grad_()
        backpropagate(shaped(layer(x, x), x.shape), upstream, "the output")
        found = leaf_gradient(x, "x if the same tensor is also the memory")
        what = "the gradient of x if the same tensor is also the memory"
        close(found, exact.grad, what, 4 * ATOL, 1e-4, dtype=torch.float32)


def knn_oracle(
    probabilities: Tensor,
    queries: Tensor,
    keys: Tensor,
    tokens: Tensor,
    k: int,
    temperature: float = 1.0,
    mix: float = 0.25,
) -> Tensor:
    """Sort each query's squared distances to the keys, and add up the weights of the nearest keys, token by token."""
    rows = []
    for row, query in zip(probabilities.double(), queries.double(), strict=True):
        squares = (keys.double() - query).square().sum(dim=-1)
        nearest = squares.argsort()[:k]
        weights = (-squares[nearest] / temperature).softmax(dim=0)
        found = torch.zeros_like(row).index_add(0, tokens[nearest], weights)
        rows.append(mix * found + (1 - mix) * row)
    return torch.stack(rows)


def random_predictions(draw: Draw, n: int, v: int) -> Tensor:
    """Return n random probability distributions over v tokens."""
    return draw.normal(n, v, dtype=torch.float64).softmax(dim=-1).float()


def separated_keys(draw: Draw, n: int, d: int, queries: Tensor) -> Tensor:
    """Return random keys. For every query, the distances to any two keys differ by more than 0.015."""
    for _ in range(1000):
        keys = draw.normal(n, d, scale=1.2)
        distances = (queries.double().unsqueeze(1) - keys.double()).norm(dim=-1).sort(dim=-1).values
        if n == 1 or distances.diff(dim=-1).min() > 0.015:
            return keys
    raise AssertionError("could not draw keys with well-separated distances")


class TestKnnProbabilities:
    exercise = "knn_probabilities"

    @weight(1)
    def test_nearest_key(self, student, seed):
        """With k = 1 and mix = 1, the token of the nearest key gets probability 1."""
        draw = Draw(seed)
        # The first key of each query is the nearest. The second is the nearest in Manhattan distance, and the
        # third has the largest inner product and the smallest angle.
        base = draw.uniform(1, low=1.0, high=1.5) * torch.tensor([2.0, -1.0, 3.0])
        queries = torch.stack([base, -base])
        offsets = torch.stack([torch.full((3,), 0.5), torch.tensor([-1.2, 0.0, 0.0]), 2 * base])
        keys = torch.cat([base + offsets, -base - offsets]) + draw.uniform(6, 3, high=0.02)
        tokens, p = torch.tensor([4, 0, 3, 1, 4, 2]), random_predictions(draw, 2, 5)
        expected = knn_oracle(p, queries, keys, tokens, 1, mix=1.0)
        seen = student.knn_probabilities(p, queries, keys, tokens, 1, mix=1.0)
        close(seen, expected, "the result", 1e-3, 0, p.dtype)

    @weight(2)
    def test_weights(self, student, seed):
        """The weights of the k nearest keys are the softmax of −‖query − key‖² / temperature."""
        draw = Draw(seed)
        queries = draw.normal(3, 4)
        keys, tokens = separated_keys(draw, 9, 4, queries), torch.arange(9)
        # At such small distances, every key has a noticeable weight.
        queries, keys = queries / 2, keys / 2
        p = random_predictions(draw, 3, 11)
        for k in (2, 5):
            expected = knn_oracle(p, queries, keys, tokens, k, mix=1.0)
            seen = student.knn_probabilities(p, queries, keys, tokens, k, mix=1.0)
            close(seen, expected, f"the result for k = {k} and mix = 1", 1e-3, 0, p.dtype)

    @weight(1)
    def test_temperature(self, student, seed):
        """The squared distances are divided by `temperature`."""
        draw = Draw(seed)
        queries = draw.normal(3, 4)
        keys, tokens = separated_keys(draw, 8, 4, queries), torch.tensor([3, 7, 0, 5, 1, 6, 2, 4])
        p = random_predictions(draw, 3, 8)
        for temperature in (0.4, 5.0, 30.0):
            expected = knn_oracle(p, queries, keys, tokens, 4, temperature, 0.5)
            seen = student.knn_probabilities(p, queries, keys, tokens, 4, temperature, 0.5)
            close(seen, expected, f"the result for temperature = {temperature}", 1e-3, 0, p.dtype)
        # At these distances, a temperature of 0.1 gives every key a noticeable weight.
        queries, keys = queries / 10, keys / 10
        expected = knn_oracle(p, queries, keys, tokens, 8, 0.1, 1.0)
        seen = student.knn_probabilities(p, queries, keys, tokens, 8, 0.1, 1.0)
        close(seen, expected, "the result for temperature = 0.1", 1e-3, 0, p.dtype)

    @weight(1.5)
    def test_same_token(self, student, seed):
        """If several neighbours have the same token, their weights are added."""
        draw = Draw(seed)
        queries = draw.normal(3, 2)
        keys, tokens = separated_keys(draw, 7, 2, queries), torch.tensor([2, 0, 2, 2, 3, 0, 2])
        p = random_predictions(draw, 3, 4)
        # At this temperature, every key has a noticeable weight.
        expected = knn_oracle(p, queries, keys, tokens, 7, 20.0, mix=1.0)
        seen = student.knn_probabilities(p, queries, keys, tokens, 7, 20.0, mix=1.0)
        close(seen, expected, "the result for k = 7 and mix = 1", 1e-3, 0, p.dtype)

    @weight(1)
    def test_mix(self, student, seed):
        """The result is mix · p_kNN + (1 − mix) · probabilities, where `mix` defaults to 0.25 and may be 0 or 1."""
        draw = Draw(seed)
        queries = draw.normal(2, 5)
        keys, tokens = separated_keys(draw, 6, 5, queries), torch.tensor([4, 0, 6, 2, 5, 1])
        queries, keys = queries / 4, keys / 4  # every key has a noticeable weight
        p = random_predictions(draw, 2, 7)
        expected = knn_oracle(p, queries, keys, tokens, 6)
        seen = student.knn_probabilities(p, queries, keys, tokens, 6)
        close(seen, expected, "the result without `temperature` and `mix`", 1e-3, 0, p.dtype)
        for mix in (0, 0.0, 0.6, 1):
            expected = knn_oracle(p, queries, keys, tokens, k=6, mix=mix)
            seen = student.knn_probabilities(p, queries, keys, tokens, k=6, mix=mix)
            close(seen, expected, f"the result for mix = {mix}", 1e-3, 0, p.dtype)

    @weight(1)
    def test_all_keys(self, student, seed):
        """If k is equal to or larger than the number of keys, all keys are used."""
        draw = Draw(seed)
        queries, tokens = draw.normal(3, 4), torch.tensor([1, 5, 3, 0, 2])
        keys, p = separated_keys(draw, 5, 4, queries), random_predictions(draw, 3, 6)
        queries, keys = queries / 4, keys / 4  # every key has a noticeable weight
        for k in (5, 6, 1000):
            expected = knn_oracle(p, queries, keys, tokens, k, mix=1.0)
            seen = student.knn_probabilities(p, queries, keys, tokens, k, mix=1.0)
            close(seen, expected, f"the result for N = 5 and k = {k}", 1e-3, 0, p.dtype)

    @weight(0.5)
    def test_sizes(self, student, seed):
        """The numbers of queries (n), keys (N) and features (d) and the vocabulary size (v) may each be 1; N may be large."""
        draw = Draw(seed)
        for n, count, d, v in ((1, 1, 1, 1), (1, 4, 1, 3), (3, 1, 2, 2), (2, 300, 3, 40)):
            queries, keys = draw.normal(n, d), draw.normal(count, d)
            tokens, p = draw.integers(0, v, count), random_predictions(draw, n, v)
            expected = knn_oracle(p, queries, keys, tokens, count, 3.0, 0.5)
            seen = student.knn_probabilities(p, queries, keys, tokens, count, 3.0, 0.5)
            what = f"the result for n = {n}, N = {count}, d = {d}, v = {v} and k = N"
            close(seen, expected, what, 1e-3, 0, p.dtype)

    @weight(0.75)
    def test_large_vectors(self, student, seed):
        """For vectors with norms up to 1,000, the result is finite, and a key that is clearly the nearest gets weight 1."""
        draw = Draw(seed)
        directions = draw.normal(5, 6, dtype=torch.float64)
        keys = (900 * directions / directions.norm(dim=-1, keepdim=True)).float()
        order = torch.tensor([3, 0, 4])
        # Even the nearest key is so far away that its exponential is 0 in float32.
        queries = keys[order] + draw.normal(3, 6, scale=20)
        tokens = torch.tensor([2, 0, 1, 3, 1])
        for k in (2, 5):
            p = random_predictions(draw, 3, 4)
            seen = student.knn_probabilities(p, queries, keys, tokens, k, mix=1.0)
            finite(shaped(seen, (3, 4)), "the result for vectors of norm 900")
            expected = torch.nn.functional.one_hot(tokens[order], 4).double()
            what = f"the result for vectors of norm 900, k = {k} and mix = 1"
            close(seen, expected, what, 1e-3, 0, p.dtype)

    @weight(0.5)
    def test_wrong_arguments(self, student, seed):
        """A ValueError is raised if k < 1, if mix is outside [0, 1], or if temperature ≤ 0."""
        draw = Draw(seed)
        inputs = [random_predictions(draw, 2, 4), draw.normal(2, 3), draw.normal(5, 3)]
        inputs.append(draw.integers(0, 4, 5))
        for name, value, arguments in (
            ("k", 0, {"k": 0}),
            ("k", -2, {"k": -2}),
            ("mix", -0.01, {"k": 2, "mix": -0.01}),
            ("mix", 1.01, {"k": 2, "mix": 1.01}),
            ("temperature", 0.0, {"k": 2, "temperature": 0.0}),
            ("temperature", -1.0, {"k": 2, "temperature": -1.0}),
        ):
            with value_error(name, when=f"{name} is {value}"):
                student.knn_probabilities(*inputs, **arguments)
        # An invalid argument is rejected even if the others seem to make it irrelevant.
        for name, arguments in (
            ("k", {"k": 0, "mix": 0}),
            ("k", {"k": 0, "mix": 1}),
            ("temperature", {"k": 2, "temperature": 0.0, "mix": 0}),
            ("temperature", {"k": 1, "temperature": 0.0}),
            ("temperature", {"k": 9, "temperature": -1.0}),
            ("mix", {"k": 9, "mix": 1.5}),
        ):
            when = ", ".join(f"{key} is {value}" for key, value in arguments.items())
            with value_error(name, when=when):
                student.knn_probabilities(*inputs, **arguments)

    @weight(1)
    def test_gradient(self, student, seed):
        """The gradients of probabilities, queries and keys are correct."""
        draw = Draw(seed)
        queries = draw.normal(3, 4)
        keys, tokens = separated_keys(draw, 6, 4, queries), torch.tensor([2, 0, 1, 3, 4, 5])
        queries, keys = queries / 2, keys / 2  # every key has a noticeable weight
        # The gradients of the logits cover exactly those changes of `probabilities` that keep each row's sum at 1.
        inputs = {
            "the logits of `probabilities`": draw.normal(3, 6),
            "queries": queries,
            "keys": keys,
        }
        upstream = draw.normal(3, 6)
        for k in (6, 4):
            exact = {name: x.double().requires_grad_() for name, x in inputs.items()}
            logits, *vectors = exact.values()
            backpropagate(knn_oracle(logits.softmax(-1), *vectors, tokens, k, 2.0, 0.5), upstream)
            leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
            logits, *vectors = leaves.values()
            result = student.knn_probabilities(logits.softmax(-1), *vectors, tokens, k, 2.0, 0.5)
            backpropagate(result, upstream)
            for name, leaf in leaves.items():
                assert leaf.grad is not None, f"no gradient reaches {name}"
                what = f"the gradient of {name} for k = {k}"
                close(leaf.grad, exact[name].grad, what, 3e-3, 1e-3, leaf.dtype)

    @weight(0.5)
    def test_gradient_of_an_exact_match(self, student, seed):
        """If a query equals a key, the result is correct, and the gradients are finite."""
        draw = Draw(seed)
        keys, tokens = draw.normal(5, 3), torch.tensor([1, 0, 3, 0, 2])
        queries, p = torch.cat([keys[2:3], draw.normal(1, 3)]), random_predictions(draw, 2, 4)
        expected = knn_oracle(p, queries, keys, tokens, 9)
        result = student.knn_probabilities(p, queries.requires_grad_(), keys, tokens, 9)
        close(result, expected, "the result if a query equals a key", 1e-3, 0, p.dtype)
        gradient(result, queries, draw.normal(2, 4), "queries")

    @weight(0.25)
    def test_ties(self, student, seed):
        """If keys tie for the last place, the result uses at least one of them. Otherwise, equal keys all count."""
        draw = Draw(seed)
        queries, keys = draw.normal(2, 3), draw.normal(5, 3)
        # For both queries, the two nearest keys are equal. Their tokens are 0 and 3.
        keys[1] = keys[3] = 8.0
        keys[:3:2] -= 8.0
        p, tokens = random_predictions(draw, 2, 4), torch.tensor([1, 0, 2, 3, 1])
        seen = student.knn_probabilities(p, queries + 8, keys, tokens, 1, mix=1.0)
        seen = finite(shaped(seen, (2, 4)), "the result for k = 1 and two equal keys")
        what = "the probability of the tokens of the two nearest keys together"
        close(seen[:, 0] + seen[:, 3], torch.ones(2), what, 1e-3)
        seen = student.knn_probabilities(p, queries + 8, keys, tokens, 2, mix=1.0)
        expected = torch.tensor([[0.5, 0.0, 0.0, 0.5]]).expand(2, 4)
        close(seen, expected, "the result for k = 2, if the two nearest keys are equal", 1e-3)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The result has the dtype of the inputs for any `mix`. The inputs may be non-contiguous and are not modified."""
        draw = Draw(seed)
        exact = [draw.normal(3, 4, dtype=torch.float64).softmax(dim=-1)]
        exact += [draw.normal(3, 2, dtype=torch.float64), draw.normal(6, 2, dtype=torch.float64)]
        tokens = torch.tensor([3, 0, 1, 3, 2, 0])
        for dtype, atol in {**DTYPES, torch.float64: 1e-3}.items():
            inputs = [draw.strided(x.to(dtype)) for x in exact]
            for mix in (0.5, 0, 1):
                expected = knn_oracle(*inputs, tokens, 8, 4.0, mix)
                seen = student.knn_probabilities(*inputs, tokens, 8, 4.0, mix)
                what = f"the result for {str(dtype)[6:]}, k > N and mix = {mix}"
                close(seen, expected, what, atol, 0, dtype)
                unchanged(student)

    @weight(0.25)
    def test_device(self, student):
        """The result is on the same device as the inputs."""
        shapes = ((3, 4), (3, 2), (6, 2))
        inputs = [torch.zeros(shape, device="meta") for shape in shapes]
        tokens = torch.zeros(6, dtype=torch.int64, device="meta")
        on_meta(lambda: student.knn_probabilities(*inputs, tokens, 2), (3, 4))


def features_oracle(x: Tensor, projection: Tensor) -> Tensor:
    """Compute the features in float64, one row of `projection` at a time."""
    x, projection = x.double(), projection.double()
    d = x.shape[-1]
    half_norm = (x * x).sum(dim=-1) / (2 * math.sqrt(d))
    features = [((x * omega).sum(dim=-1) / d**0.25 - half_norm).exp() for omega in projection]
    return torch.stack(features, dim=-1) / math.sqrt(len(projection))


class TestPerformerFeatures:
    exercise = "performer_features"

    @weight(1)
    def test_norm(self, student, seed):
        """If all rows of `projection` are 0, every feature is exp(−‖x‖² / (2√d)) / √r."""
        draw = Draw(seed)
        x, projection = draw.normal(5, 7), torch.zeros(4, 7)
        seen = leading_axes(student.performer_features, 2)(x, projection)
        close(seen, features_oracle(x, projection), "the features", 0, 1e-4, x.dtype)

    @weight(2)
    def test_values(self, student, seed):
        """The features are exp(ω · x / d^¼ − ‖x‖² / (2√d)) / √r."""
        draw = Draw(seed)
        for n, d, r in ((4, 9, 8), (70, 2, 11), (6, 16, 3), (3, 70, 5)):
            x, projection = draw.normal(n, d), draw.normal(r, d)
            seen = leading_axes(student.performer_features, 2)(x, projection)
            what = f"the features for n = {n}, d = {d} and r = {r}"
            close(seen, features_oracle(x, projection), what, 0, 1e-4, x.dtype)

    @weight(1)
    def test_number_of_features(self, student, seed):
        """The r features are divided by √r, so that the dot product of two feature vectors does not grow with r."""
        draw = Draw(seed)
        x, row = draw.normal(3, 4), draw.normal(1, 4)
        for r in (1, 5, 130):
            projection = row.expand(r, 4)
            seen = leading_axes(student.performer_features, 2)(x, projection)
            what = f"the features for r = {r}"
            close(seen, features_oracle(x, projection), what, 0, 1e-4, x.dtype)

    @weight(1)
    def test_estimate(self, student, seed):
        """features(q) · features(k) estimates exp(q · k / √d)."""
        draw = Draw(seed)
        d = 4
        query, key = draw.normal(3, d, scale=0.3), draw.normal(4, d, scale=0.3)
        # For opposite vectors, the estimate is exact. With this norm, dividing by d, or not at all, gives a
        # product that is off by more than the tolerance.
        query[0] *= 0.8**0.5 / query[0].norm()
        key[0] = -query[0]
        # Pairing each row ω with −ω reduces the error of the estimate.
        half = draw.normal(3000, d)
        projection = torch.cat([half, -half])
        phi_query, phi_key = (
            shaped(
                leading_axes(student.performer_features, 2)(x, projection), (len(x), 6000)
            ).double()
            for x in (query, key)
        )
        assert (phi_query >= 0).all(), "features should not be negative"
        expected = (query.double() @ key.double().T / math.sqrt(d)).exp()
        close(phi_query @ phi_key.T, expected, "the products of the features", 0.02, 0.15)

    @weight(1)
    def test_leading_axes(self, student, seed):
        """x may have any number of leading axes and be non-contiguous, and each row is independent of the others."""
        draw = Draw(seed)
        projection = draw.normal(6, 5)
        for leading in ((), (3,), (2, 4), (2, 1, 3)):
            x = draw.strided(draw.normal(*leading, 4, 5))
            seen = student.performer_features(x, projection)
            what = f"the features for leading axes {leading}"
            close(seen, features_oracle(x, projection), what, 0, 1e-4, x.dtype)

    @weight(1)
    def test_large_entries(self, student, seed):
        """Exponents are not shifted or limited: the features are accurate for different norms, up to ‖x‖² = 20√d."""
        draw = Draw(seed)
        x, projection = draw.normal(5, 9), draw.normal(7, 9, scale=2)
        # With the last vector and row, the exponent is 20.
        projection[6] = x[4] / x[4].norm() * 30 * 9**0.25 / 59**0.5
        target = torch.tensor([0.01, 1.0, 8.0, 20.0, 59.0]).sqrt().unsqueeze(1)  # ‖x‖² ≤ 60
        x = x / x.norm(dim=-1, keepdim=True) * target
        seen = leading_axes(student.performer_features, 2)(x, projection)
        close(seen, features_oracle(x, projection), "the features", 0, 1e-4, x.dtype)

    @weight(1)
    def test_gradient(self, student, seed):
        """The gradients of x and `projection` are correct."""
        draw = Draw(seed)
        inputs, upstream = (
            {"x": draw.normal(4, 6), "projection": draw.normal(5, 6)},
            draw.normal(4, 5),
        )
        exact = [x.double().requires_grad_() for x in inputs.values()]
        backpropagate(features_oracle(*exact), upstream)
        given = [x.requires_grad_() for x in inputs.values()]
        backpropagate(leading_axes(student.performer_features, 2)(*given), upstream)
        for (name, leaf), expected in zip(inputs.items(), exact, strict=True):
            found = leaf_gradient(leaf, name)
            close(found, expected.grad, f"the gradient of {name}", 1e-3, 1e-3, leaf.dtype)

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The features have the dtype of x, which may be non-contiguous and is not modified."""
        draw = Draw(seed)
        # With these entries, no feature is larger than e² / √6 ≈ 3.
        exact = draw.uniform(3, 5, 4, low=-1.0, dtype=torch.float64)
        rows = draw.uniform(6, 4, low=-1.0, dtype=torch.float64)
        for dtype, tolerance in {**DTYPES, torch.float64: 1e-4}.items():
            x, projection = draw.strided(exact.to(dtype)), draw.strided(rows.to(dtype))
            expected = features_oracle(x, projection)
            seen = leading_axes(student.performer_features, 2)(x, projection)
            what = f"the features in {str(dtype)[6:]}"
            close(seen, expected, what, tolerance * expected.max().item(), 0, dtype)
            unchanged(student)

    @weight(0.25)
    def test_device(self, student):
        """The features are on the same device as x."""
        x, projection = torch.zeros(2, 5, 4, device="meta"), torch.zeros(6, 4, device="meta")
        on_meta(lambda: leading_axes(student.performer_features, 2)(x, projection), (2, 5, 6))
