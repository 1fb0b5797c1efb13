"""Hidden tests for the music chapter. The oracles loop over positions or use explicit indices."""

import torch
from torch import Tensor

from autograder.execution.checks import (
    Draw,
    backpropagate,
    close,
    equal,
    finite,
    gradient,
    on_meta,
    shaped,
    unchanged,
    value_error,
    weight,
)
from graders.equivalent_calls import leading_axes

# As in the chapter, 0 is a rest, 1 is a hold, and 2 … N_TOKENS − 1 are pitches.
N_TOKENS = 54

# This tolerance covers the rounding error of six float32 matrix products and a softmax on any hardware.
ATOL = 5e-5


class TestTranspose:
    exercise = "transpose"

    @weight(2)
    def test_pitches_move(self, student, seed):
        """All pitches move by `semitones`: up if `semitones` is positive, down if it is negative."""
        draw = Draw(seed)
        pitches = draw.integers(20, 34, 13)
        for semitones in (5, -7):
            equal(
                leading_axes(student.transpose, 1)(pitches, semitones),
                pitches + semitones,
                f"the result for semitones = {semitones}",
            )

    @weight(2)
    def test_rests_and_holds_stay(self, student):
        """Rests (0) and holds (1) are unchanged, even between pitches that move."""
        tokens = torch.tensor([21, 1, 0, 30, 1, 1, 2, 0, 17, 1, 3, 0])
        semitones = 6
        expected = [t + semitones if t > 1 else t for t in tokens.tolist()]
        what = f"the result for semitones = {semitones}"
        equal(leading_axes(student.transpose, 1)(tokens, semitones), torch.tensor(expected), what)
        tokens = torch.tensor([0, 15, 1, 28, 0, 1, N_TOKENS - 1])
        expected = [t - semitones if t > 1 else t for t in tokens.tolist()]
        what = f"the result for semitones = {-semitones}"
        equal(leading_axes(student.transpose, 1)(tokens, -semitones), torch.tensor(expected), what)

    @weight(1)
    def test_any_shape(self, student, seed):
        """`tokens` may have any number of axes, including none, and the result has the same shape."""
        draw = Draw(seed)
        for shape in ((), (1,), (3, 5), (1, 4, 1)):
            tokens = draw.integers(10, 40, *shape)
            what = f"the result for shape {shape}"
            equal(student.transpose(tokens, 3), tokens + 3, what)

    @weight(1)
    def test_lowest_and_highest(self, student):
        """The pitches 2 and N_TOKENS − 1 are in range: notes may be transposed to and from these pitches."""
        top = N_TOKENS - 1
        cases = (([7, 1, 20], -5), ([2, 0, 9], 3), ([top - 4, 30], 4), ([top, 1], -6))
        for tokens, semitones in (*cases, ([2], top - 2), ([top], 2 - top)):
            expected = torch.tensor([t + semitones if t > 1 else t for t in tokens])
            what = f"the result for {tokens} and semitones = {semitones}"
            equal(
                leading_axes(student.transpose, 1)(torch.tensor(tokens), semitones), expected, what
            )

    @weight(1)
    def test_too_high(self, student):
        """A ValueError is raised if any pitch would move above N_TOKENS − 1."""
        top, by = N_TOKENS - 1, 3
        cases = (([[20, 0], [1, top]], 1), ([top + 1 - by, 4], by), ([1, 30], N_TOKENS))
        for tokens, semitones in cases:
            when = f"tokens is {tokens}, semitones is {semitones} and the highest pitch is {top}"
            with value_error("tokens", "semitones", when=when):
                leading_axes(student.transpose, 1)(torch.tensor(tokens), semitones)

    @weight(1.5)
    def test_too_low(self, student):
        """A ValueError is raised if any pitch would move below 2, because tokens 0 and 1 are not pitches."""
        by = 4
        cases = (([[20, 0], [1, 2]], -1), ([30, by], -by), ([1 + by, 40], -by), ([8, 1], -9))
        for tokens, semitones in (*cases, ([5], -30)):
            when = f"tokens is {tokens} and semitones is {semitones}"
            with value_error("tokens", "semitones", when=when):
                leading_axes(student.transpose, 1)(torch.tensor(tokens), semitones)

    @weight(1)
    def test_silence(self, student):
        """A melody of only rests and holds is never out of range, and semitones = 0 does not change any token."""
        for semitones in (7, -3, 100, -100):
            tokens = torch.tensor([0, 1, 1, 0])
            equal(
                leading_axes(student.transpose, 1)(tokens, semitones),
                tokens,
                f"the result for rests and holds with semitones = {semitones}",
            )
        tokens = torch.tensor([2, 1, 0, N_TOKENS - 1, 25])
        equal(leading_axes(student.transpose, 1)(tokens, 0), tokens, "the result for semitones = 0")

    @weight(0.5)
    def test_leaves_its_argument(self, student, seed):
        """The input is not modified, and it may be non-contiguous."""
        draw = Draw(seed)
        tokens = draw.strided(draw.integers(12, 40, 5, 3))
        equal(
            leading_axes(student.transpose, 1)(tokens, -4),
            tokens - 4,
            "the result for non-contiguous tokens",
        )
        unchanged(student)


def skew_oracle(x: Tensor) -> Tensor:
    """Skew x entry by entry, with zeros above the diagonal."""
    n = x.shape[-1]
    result = torch.zeros_like(x)
    for i in range(n):
        for j in range(i + 1):
            result[..., i, j] = x[..., i, n - 1 - (i - j)]
    return result


def lower_triangle(seen, like: Tensor) -> Tensor:
    """Return the lower triangle of the student's result. Values above the diagonal are arbitrary and must not be compared."""
    return shaped(seen, like.shape, like.dtype).tril()


class TestSkew:
    exercise = "skew"

    @weight(1)
    def test_own_position(self, student, seed):
        """The last column of x (distance 0) becomes the diagonal of the result."""
        x = Draw(seed).normal(6, 6)
        diagonal = lower_triangle(leading_axes(student.skew, 2)(x), x).diagonal()
        close(diagonal, x[:, -1], "the diagonal of the result")

    @weight(2)
    def test_every_distance(self, student, seed):
        """For j ≤ i, entry (i, j) of the result is entry (i, n − 1 − (i − j)) of x, for odd and even n."""
        draw = Draw(seed)
        for n in (5, 8):
            x = draw.normal(2, 3, n, n)
            seen = lower_triangle(leading_axes(student.skew, 2)(x), x)
            close(seen, skew_oracle(x), f"the lower triangle of the result for n = {n}")
        x = draw.normal(1, 1, 130, 130)
        expected, what = skew_by_index(x).tril(), "the lower triangle of the result for n = 130"
        close(lower_triangle(leading_axes(student.skew, 2)(x), x), expected, what)

    @weight(1.5)
    def test_leading_axes(self, student, seed):
        """Each matrix is skewed independently, with any number of leading axes."""
        draw = Draw(seed)
        for shape in ((4, 4), (3, 4, 4), (4, 3, 3), (2, 3, 4, 5, 5)):
            x = draw.normal(*shape)
            seen = lower_triangle(student.skew(x), x)
            close(seen, skew_oracle(x), f"the lower triangle of the result for shape {shape}")

    @weight(0.5)
    def test_heads(self, student, seed):
        """x may have a batch axis and a head axis, as attention scores do."""
        x = Draw(seed).normal(2, 3, 5, 5)
        what = "the lower triangle of the result for shape (2, 3, 5, 5)"
        close(lower_triangle(student.skew(x), x), skew_oracle(x), what)

    @weight(0.5)
    def test_shortest(self, student, seed):
        """For n = 1, the only distance is 0, so the result equals x; n = 2 also works."""
        draw = Draw(seed)
        for shape in ((1, 1), (3, 1, 1), (2, 2)):
            x = draw.normal(*shape)
            seen = lower_triangle(leading_axes(student.skew, 2)(x), x)
            close(seen, skew_oracle(x), f"the lower triangle of the result for shape {shape}")

    @weight(0.5)
    def test_above_the_diagonal(self, student, seed):
        """Values above the diagonal are arbitrary but finite: no −inf and no NaN."""
        draw = Draw(seed)
        for scale in (1, 1e4):
            x = draw.normal(2, 3, 7, 7, scale=scale)
            finite(shaped(leading_axes(student.skew, 2)(x), x.shape), "the result")

    @weight(1.5)
    def test_no_loop_over_positions(self, student, seed):
        """The number of torch calls does not grow with n: there is no loop over rows."""
        draw = Draw(seed)
        counts = []
        for n in (8, 64):
            x = draw.normal(2, 3, n, n)
            with student.measuring() as cost:
                shaped(leading_axes(student.skew, 2)(x), x.shape)
            counts.append(cost.operations)
        assert counts[1] <= counts[0] + 10, (
            f"the number of torch operations should not grow with n, but your skew runs {counts[0]} for n = 8 and "
            f"{counts[1]} for n = 64"
        )

    @weight(1)
    def test_gradient(self, student, seed):
        """Each entry of the result passes its gradient back to the entry of x that it came from."""
        draw = Draw(seed)
        x = draw.normal(2, 3, 5, 5).requires_grad_()
        upstream = draw.normal(2, 3, 5, 5).tril()
        (expected,) = torch.autograd.grad((skew_by_index(x) * upstream).sum(), x)
        close(
            gradient(leading_axes(student.skew, 2)(x), x, upstream), expected, "the gradient of x"
        )

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """The result keeps the dtype of x; x may be non-contiguous and is not modified."""
        draw = Draw(seed)
        exact = draw.normal(2, 3, 6, 6, dtype=torch.float64)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            x = exact.to(dtype)
            close(
                lower_triangle(leading_axes(student.skew, 2)(x), x),
                skew_oracle(x),
                f"the result in {str(dtype)[6:]}",
            )
        for x in (draw.strided(exact), exact.mT):
            close(
                lower_triangle(leading_axes(student.skew, 2)(x), x),
                skew_oracle(x),
                "the result for a non-contiguous x",
            )
            unchanged(student)

    @weight(0.25)
    def test_device(self, student):
        """The result is on the same device as x."""
        x = torch.zeros(2, 3, 4, 4, device="meta")
        on_meta(lambda: leading_axes(student.skew, 2)(x), x.shape)


def skew_by_index(x: Tensor) -> Tensor:
    """Skew x by indexing, which autograd can differentiate; values above the diagonal are arbitrary."""
    n = x.shape[-1]
    rows = torch.arange(n).unsqueeze(1)
    distances = (rows - torch.arange(n)).clamp(min=0)
    return x[..., rows, n - 1 - distances]


def random_parameters(draw: Draw, d_model: int, n_heads: int, max_length: int) -> dict[str, Tensor]:
    """Return random weights that preserve the scale of x. Distances affect the scores as much as content does."""
    parameters = {}
    for name in ("query", "key", "value", "out"):
        parameters[f"{name}.weight"] = draw.normal(d_model, d_model, scale=d_model**-0.5)
        parameters[f"{name}.bias"] = draw.normal(d_model, scale=0.5)
    parameters["relative"] = draw.normal(n_heads, max_length, d_model // n_heads)
    return parameters


def very_negative_scores(d_model: int) -> dict[str, Tensor]:
    """Return weights for `query` and `key` that give all pairs of positions the same score, below −600, if `relative` is zero."""
    weights = {}
    for name, first in (("query", 30.0), ("key", -40.0)):
        weights[f"{name}.weight"] = torch.zeros(d_model, d_model)
        # With a single product per score, rounding cannot make the scores differ.
        weights[f"{name}.bias"] = first * torch.eye(d_model)[0]
    return weights


def attention_oracle(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """Compute relative self-attention in float64, one query at a time, looking up the row of `relative` for every distance."""
    parameters = {name: tensor.double() for name, tensor in parameters.items()}
    relative = parameters["relative"]
    n_heads, max_length, d_head = relative.shape
    q, k, v = (
        x.double() @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]
        for name in ("query", "key", "value")
    )
    outputs = []
    for i in range(x.shape[1]):
        heads = []
        for h in range(n_heads):
            own = slice(h * d_head, (h + 1) * d_head)
            rows = torch.stack([relative[h, max_length - 1 - (i - j)] for j in range(i + 1)])
            keys = k[:, : i + 1, own] + rows
            scores = (keys @ q[:, i, own].unsqueeze(-1)).squeeze(-1) / d_head**0.5
            weights = scores.softmax(dim=-1).unsqueeze(1)
            heads.append((weights @ v[:, : i + 1, own]).squeeze(1))
        outputs.append(torch.cat(heads, dim=-1))
    return torch.stack(outputs, dim=1) @ parameters["out.weight"].T + parameters["out.bias"]


def load_layer(student, draw: Draw, d_model: int, n_heads: int, max_length: int):
    """Return a student's `RelativeSelfAttention` with random weights, along with those weights."""
    layer = student.RelativeSelfAttention(d_model, n_heads, max_length)
    parameters = random_parameters(draw, d_model, n_heads, max_length)
    layer.load(parameters)
    return layer.eval(), parameters


def check_output(layer, parameters: dict[str, Tensor], x: Tensor, what: str = "the output") -> None:
    """Compare the layer's output for x with the oracle's."""
    close(layer(x), attention_oracle(parameters, x), what, ATOL, dtype=x.dtype)


class TestRelativeSelfAttention:
    exercise = "RelativeSelfAttention"

    @weight(1.5)
    def test_causal(self, student, seed):
        """Changing a position does not change the output at earlier positions."""
        draw = Draw(seed)
        layer, _ = load_layer(student, draw, 8, 2, 9)
        x = draw.normal(2, 7, 8)
        before = finite(shaped(layer(x), (2, 7, 8))).detach()
        for position in (1, 3, 6):
            changed = x.clone()
            changed[:, position] = draw.normal(2, 8, scale=5)
            after = finite(shaped(layer(changed), (2, 7, 8))).detach()
            change = (after - before).abs().amax(dim=(0, 2))[:position]
            early = int(change.argmax())
            assert change[early] <= 1e-6, (
                f"changing position {position} changes the output at the earlier position {early} "
                f"by {change[early].item():.3g}"
            )

    @weight(1)
    def test_content_alone(self, student, seed):
        """If `relative` is zero, the layer computes ordinary causal attention, even if all scores are far below 0."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 1, 1, 7)
        parameters["relative"].zero_()
        layer.load({"relative": parameters["relative"]})
        x = draw.normal(3, 7, 1)
        check_output(layer, parameters, x)
        parameters |= very_negative_scores(1)
        layer.load(parameters)
        check_output(layer, parameters, x, "the output if all scores are −1200")

    @weight(1.5)
    def test_distances(self, student, seed):
        """The score of query i and key j uses the row of `relative` for distance i − j; the last row is for distance 0."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 1, 1, 6)
        check_output(layer, parameters, draw.normal(2, 6, 1))

    @weight(1.5)
    def test_heads(self, student, seed):
        """Head k uses features k·d_head to (k+1)·d_head − 1 and the rows of relative[k]."""
        draw = Draw(seed)
        n_heads, d_head = 2, 5
        d_model = n_heads * d_head
        layer, parameters = load_layer(student, draw, d_model, n_heads, 6)
        # If `out` is the identity, the outputs of the heads appear side by side in the result.
        layer.load({"out.weight": torch.eye(d_model), "out.bias": torch.zeros(d_model)})
        x = draw.normal(2, 6, d_model)
        before = finite(shaped(layer(x), (2, 6, d_model))).detach()
        for h in range(n_heads):
            changed = parameters["relative"].clone()
            changed[h] += draw.normal(6, d_head, scale=3)
            layer.load({"relative": changed})
            after = finite(shaped(layer(x), (2, 6, d_model))).detach()
            change = (after - before).abs().amax(dim=(0, 1)).unflatten(0, (n_heads, d_head))
            for other in range(n_heads):
                seen = "stayed" if change[other].amax() <= 1e-6 else "moved"
                expected = "move" if other == h else "stay"
                assert seen.startswith(expected), (
                    f"when relative[{h}] changes, the output of head {other} should "
                    + ("change, but it does not" if other == h else "not change, but it does")
                )

    @weight(1.5)
    def test_scale(self, student, seed):
        """Both parts of the score, content and distance, are divided by √d_head, not by √d_model."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 9, 1, 5)
        check_output(
            layer, parameters, draw.normal(2, 5, 9), "the output for one head with 9 features"
        )
        layer, parameters = load_layer(student, draw, 18, 9, 5)
        check_output(
            layer, parameters, draw.normal(2, 5, 18), "the output for 9 heads with 2 features each"
        )

    @weight(1.5)
    def test_shorter_than_max_length(self, student, seed):
        """If x has n < max_length positions, the last n rows of `relative` are used, which belong to the shortest distances."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 6, 2, 11)
        for n in (10, 4, 1):
            check_output(
                layer,
                parameters,
                draw.normal(3, n, 6),
                f"the output for n = {n} and max_length = 11",
            )

    @weight(1)
    def test_too_long(self, student, seed):
        """A sequence longer than `max_length` raises a ValueError."""
        draw = Draw(seed)
        layer, _ = load_layer(student, draw, 6, 3, 4)
        for n in (5, 9):
            with value_error("n", "max_length", "x", when=f"n is {n} and max_length is 4"):
                layer(draw.normal(2, n, 6))

    @weight(1)
    def test_gradients(self, student, seed):
        """The gradients of x and all parameters are correct; unused distances get a gradient of 0."""
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 6, 2, 7)
        x, upstream = draw.normal(3, 5, 6), draw.normal(3, 5, 6)
        leaves = layer.weights()
        exact_leaves = {
            name: tensor.double().requires_grad_() for name, tensor in parameters.items()
        }
        exact = x.double().requires_grad_()
        backpropagate(attention_oracle(exact_leaves, exact), upstream)
        x.requires_grad_()
        seen = shaped(layer(x), upstream.shape, upstream.dtype, "the output")
        backpropagate(seen, upstream, "the output")
        for name, have, expected in (
            ("x", x, exact),
            *((n, leaves[n], exact_leaves[n]) for n in exact_leaves),
        ):
            found = torch.zeros_like(have) if have.grad is None else have.grad
            what = f"the gradient of {name}"
            close(found, expected.grad, what, 4 * ATOL, 1e-4, dtype=torch.float32)

    @weight(0.5)
    def test_dtypes(self, student, seed):
        """In float64, float16 and bfloat16, the output has the same dtype and is accurate."""
        draw = Draw(seed)
        exact = draw.normal(2, 4, 6)
        # Computing the softmax in float32 is accepted for every dtype.
        tolerances = {torch.float64: ATOL, torch.float16: 2e-2, torch.bfloat16: 1e-1}
        for dtype, atol in tolerances.items():
            layer, parameters = load_layer(student, draw, 6, 2, 5)
            x = exact.to(dtype)
            rounded = {name: tensor.to(dtype) for name, tensor in parameters.items()}
            what = f"the output in {str(dtype)[6:]}"
            close(layer.to(dtype)(x), attention_oracle(rounded, x), what, atol, dtype=dtype)

    @weight(0.25)
    def test_device(self, student):
        """After `.to(device)`, the layer works with inputs on that device."""
        layer, x = student.RelativeSelfAttention(6, 2, 5), torch.zeros(2, 4, 6, device="meta")
        on_meta(lambda: layer.to("meta")(x), x.shape, "the output")

    @weight(0.5)
    def test_leaves_everything_as_it_was(self, student, seed):
        """x may be non-contiguous or contain a single sequence, and is not modified.
        The output does not depend on earlier calls, or on whether the layer is in training or evaluation mode.
        """
        draw = Draw(seed)
        layer, parameters = load_layer(student, draw, 6, 3, 8)
        for x in (draw.normal(3, 8, 6), draw.strided(draw.normal(4, 5, 6)), draw.normal(1, 4, 6)):
            for mode in ("training", "evaluation"):
                what = f"the output in {mode} mode for shape {tuple(x.shape)}"
                check_output(layer.train(mode == "training"), parameters, x, what)
                unchanged(student)
