"""Hidden graders of the chapter music."""

import torch
from torch import Tensor

from autograder.execution.checks import (
    Draw,
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

# As in the chapter: 0 is a rest, 1 a hold, 2 … N_TOKENS − 1 are pitches.
N_TOKENS = 54

# float32 results of six matrix products and a softmax, on whatever hardware.
ATOL = 5e-5


class TestTranspose:
    exercise = "transpose"

    @weight(2)
    def test_pitches_move(self, student, seed):
        """Every pitch moves by the same number of semitones, up for a positive number, down for a negative one."""
        draw = Draw(seed)
        pitches = draw.integers(20, 34, 13)
        for semitones in (draw.choice([1, 5, 8]), draw.choice([-2, -4, -7])):
            equal(
                student.transpose(pitches, semitones),
                pitches + semitones,
                f"the pitches moved by {semitones}",
            )

    @weight(2)
    def test_rests_and_holds_stay(self, student, seed):
        """Rests (0) and holds (1) stay what they are, between pitches that move."""
        draw = Draw(seed)
        tokens = torch.tensor([21, 1, 0, 30, 1, 1, 2, 0, 17, 1, 3, 0])
        semitones = draw.choice([4, 6, 9])
        want = [t + semitones if t > 1 else t for t in tokens.tolist()]
        what = f"the tokens moved by {semitones}"
        equal(student.transpose(tokens, semitones), torch.tensor(want), what)
        tokens = torch.tensor([0, 15, 1, 28, 0, 1, N_TOKENS - 1])
        want = [t - semitones if t > 1 else t for t in tokens.tolist()]
        what = f"the tokens moved by {-semitones}"
        equal(student.transpose(tokens, -semitones), torch.tensor(want), what)

    @weight(1)
    def test_any_shape(self, student, seed):
        """Tokens in any number of axes keep their shape, also none and three."""
        draw = Draw(seed)
        for shape in ((), (1,), (3, 5), (1, 4, 1)):
            tokens = draw.integers(10, 40, *shape)
            what = f"the result for the shape {shape}"
            equal(student.transpose(tokens, 3), tokens + 3, what)

    @weight(1)
    def test_lowest_and_highest(self, student):
        """The pitches 2 and N_TOKENS − 1 belong to the range: a pitch may arrive there and leave from there."""
        top = N_TOKENS - 1
        cases = (([7, 1, 20], -5), ([2, 0, 9], 3), ([top - 4, 30], 4), ([top, 1], -6))
        for tokens, semitones in (*cases, ([2], top - 2), ([top], 2 - top)):
            want = torch.tensor([t + semitones if t > 1 else t for t in tokens])
            what = f"{tokens} moved by {semitones}"
            equal(student.transpose(torch.tensor(tokens), semitones), want, what)

    @weight(1)
    def test_too_high(self, student, seed):
        """A pitch that would be above N_TOKENS − 1 is refused with a ValueError, be it one of many."""
        top, by = N_TOKENS - 1, Draw(seed).choice([2, 3, 5])
        cases = (([[20, 0], [1, top]], 1), ([top + 1 - by, 4], by), ([1, 30], N_TOKENS))
        for tokens, semitones in cases:
            when = f"tokens is {tokens}, semitones is {semitones} and {top} is the highest pitch"
            with value_error("tokens", "semitones", when=when):
                student.transpose(torch.tensor(tokens), semitones)

    @weight(1.5)
    def test_too_low(self, student, seed):
        """A pitch that would be below 2 is refused with a ValueError: it would become a hold or a rest."""
        by = Draw(seed).choice([3, 4, 6])
        cases = (([[20, 0], [1, 2]], -1), ([30, by], -by), ([1 + by, 40], -by), ([8, 1], -9))
        for tokens, semitones in (*cases, ([5], -30)):
            when = f"tokens is {tokens} and semitones is {semitones}"
            with value_error("tokens", "semitones", when=when):
                student.transpose(torch.tensor(tokens), semitones)

    @weight(1)
    def test_silence(self, student):
        """Where nothing sounds nothing can leave the range, however far; and 0 semitones change nothing."""
        for semitones in (7, -3, 100, -100):
            tokens = torch.tensor([0, 1, 1, 0])
            equal(student.transpose(tokens, semitones), tokens, f"silence moved by {semitones}")
        tokens = torch.tensor([2, 1, 0, N_TOKENS - 1, 25])
        equal(student.transpose(tokens, 0), tokens, "tokens moved by 0")

    @weight(0.5)
    def test_leaves_its_argument(self, student, seed):
        """The tokens that were passed are not changed, and may lie in memory in any way."""
        draw = Draw(seed)
        tokens = draw.strided(draw.integers(12, 40, 5, 3))
        equal(student.transpose(tokens, -4), tokens - 4, "the result for non-contiguous tokens")
        unchanged(student)


def skewed(x: Tensor) -> Tensor:
    """The formula, entry by entry, with zeros above the diagonal."""
    n = x.shape[-1]
    result = torch.zeros_like(x)
    for i in range(n):
        for j in range(i + 1):
            result[..., i, j] = x[..., i, n - 1 - (i - j)]
    return result


def lower(seen, like: Tensor) -> Tensor:
    """The student's result up to the diagonal; what is above is free."""
    return shaped(seen, like.shape, like.dtype).tril()


class TestSkew:
    exercise = "skew"

    @weight(1)
    def test_own_position(self, student, seed):
        """The last column of x is distance 0, each position's own: it becomes the diagonal."""
        x = Draw(seed).normal(6, 6)
        diagonal = lower(student.skew(x), x).diagonal()
        close(diagonal, x[:, -1], "the diagonal of the result")

    @weight(2)
    def test_every_distance(self, student, seed):
        """The result at (i, j) is x at (i, n − 1 − (i − j)), for an odd n and an even one."""
        draw = Draw(seed)
        for n in (5, 8):
            x = draw.normal(n, n)
            seen = lower(student.skew(x), x)
            close(seen, skewed(x), f"the result up to the diagonal, for n = {n}")
        x = draw.normal(130, 130)
        want, what = skewed_by_index(x).tril(), "the result up to the diagonal, for n = 130"
        close(lower(student.skew(x), x), want, what)

    @weight(1.5)
    def test_leading_axes(self, student, seed):
        """Each matrix is skewed by itself, with one leading axis or with three."""
        draw = Draw(seed)
        for shape in ((3, 4, 4), (4, 3, 3), (2, 3, 4, 5, 5)):
            x = draw.normal(*shape)
            seen = lower(student.skew(x), x)
            close(seen, skewed(x), f"the result up to the diagonal, for the shape {shape}")

    @weight(0.5)
    def test_heads(self, student, seed):
        """A batch with heads is skewed, as attention needs it."""
        x = Draw(seed).normal(2, 3, 5, 5)
        what = "the result up to the diagonal, for the shape (2, 3, 5, 5)"
        close(lower(student.skew(x), x), skewed(x), what)

    @weight(0.5)
    def test_shortest(self, student, seed):
        """One position has distance 0 only and stays as it is; two positions work, too."""
        draw = Draw(seed)
        for shape in ((1, 1), (3, 1, 1), (2, 2)):
            x = draw.normal(*shape)
            seen = lower(student.skew(x), x)
            close(seen, skewed(x), f"the result up to the diagonal, for the shape {shape}")

    @weight(0.5)
    def test_above_the_diagonal(self, student, seed):
        """What stands above the diagonal is free, but finite: no −inf and no NaN."""
        draw = Draw(seed)
        for scale in (1, 1e4):
            x = draw.normal(2, 7, 7, scale=scale)
            finite(shaped(student.skew(x), x.shape), "the result")

    @weight(1.5)
    def test_no_loop_over_positions(self, student, seed):
        """The number of torch calls does not grow with n: rows are not moved one by one."""
        draw = Draw(seed)
        costs = []
        for n in (8, 64):
            x = draw.normal(2, n, n)
            with student.measuring() as cost:
                shaped(student.skew(x), x.shape)
            costs.append(cost.operations)
        assert costs[1] <= costs[0] + 10, (
            f"for n = 8 skew takes {costs[0]} operations of torch, for n = 64 it takes {costs[1]}"
        )

    @weight(1)
    def test_gradient(self, student, seed):
        """Gradients flow back to the distance that each entry came from."""
        draw = Draw(seed)
        x = draw.normal(2, 5, 5).requires_grad_()
        upstream = draw.normal(2, 5, 5).tril()
        (want,) = torch.autograd.grad(skewed_by_index(x), x, upstream)
        close(gradient(student.skew(x), x, upstream), want, "the gradient of x")

    @weight(0.5)
    def test_dtype_and_strides(self, student, seed):
        """Any floating dtype stays, an input with unusual strides is no error, and x is not changed."""
        draw = Draw(seed)
        exact = draw.normal(3, 6, 6, dtype=torch.float64)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            x = exact.to(dtype)
            close(lower(student.skew(x), x), skewed(x), f"the result in {str(dtype)[6:]}")
        for x in (draw.strided(exact), exact.mT):
            close(lower(student.skew(x), x), skewed(x), "the result for a non-contiguous x")
            unchanged(student)

    @weight(0.25)
    def test_device(self, student):
        """The result is where x is."""
        x = torch.zeros(2, 4, 4, device="meta")
        on_meta(lambda: student.skew(x), x.shape)


def skewed_by_index(x: Tensor) -> Tensor:
    """The formula by indices, so that torch can differentiate it; above the diagonal anything."""
    n = x.shape[-1]
    rows = torch.arange(n).unsqueeze(1)
    distances = (rows - torch.arange(n)).clamp(min=0)
    return x[..., rows, n - 1 - distances]


def parameters(draw: Draw, d_model: int, n_heads: int, max_length: int) -> dict[str, Tensor]:
    """Weights that keep the size of their inputs, and distances that matter as much as the content."""
    drawn = {}
    for name in ("query", "key", "value", "out"):
        drawn[f"{name}.weight"] = draw.normal(d_model, d_model, scale=d_model**-0.5)
        drawn[f"{name}.bias"] = draw.normal(d_model, scale=0.5)
    drawn["relative"] = draw.normal(n_heads, max_length, d_model // n_heads)
    return drawn


def expected(drawn: dict[str, Tensor], x: Tensor) -> Tensor:
    """The output in float64: a query at a time, with every distance looked up by itself."""
    drawn = {name: tensor.double() for name, tensor in drawn.items()}
    relative = drawn["relative"]
    n_heads, max_length, d_head = relative.shape
    q, k, v = (
        x.double() @ drawn[f"{name}.weight"].T + drawn[f"{name}.bias"]
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
    return torch.stack(outputs, dim=1) @ drawn["out.weight"].T + drawn["out.bias"]


def loaded(student, draw: Draw, d_model: int, n_heads: int, max_length: int):
    """A layer of the student with drawn weights, and these weights."""
    layer = student.RelativeSelfAttention(d_model, n_heads, max_length)
    drawn = parameters(draw, d_model, n_heads, max_length)
    layer.load(drawn)
    return layer, drawn


def agrees(layer, drawn: dict[str, Tensor], x: Tensor, what: str = "the output") -> None:
    """Check the layer's output on x."""
    close(layer(x), expected(drawn, x), what, ATOL, dtype=x.dtype)


class TestRelativeSelfAttention:
    exercise = "RelativeSelfAttention"

    @weight(1.5)
    def test_causal(self, student, seed):
        """A later position changes nothing before it."""
        draw = Draw(seed)
        layer, _ = loaded(student, draw, 8, 2, 9)
        x = draw.normal(2, 7, 8)
        before = shaped(layer(x), (2, 7, 8)).detach()
        for position in (1, 3, 6):
            changed = x.clone()
            changed[:, position] = draw.normal(2, 8, scale=5)
            after = shaped(layer(changed), (2, 7, 8)).detach()
            moved = (after - before).abs().amax(dim=(0, 2))[:position]
            early = int(moved.argmax())
            assert moved[early] <= 1e-6, (
                f"position {position} was changed, and the output at position {early} moved by "
                f"{moved[early].item():.3g}"
            )

    @weight(1)
    def test_content_alone(self, student, seed):
        """With `relative` zero it is causal attention: softmax(Q Kᵀ) V for one feature, then `out`."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 1, 1, 7)
        drawn["relative"].zero_()
        layer.load({"relative": drawn["relative"]})
        agrees(layer, drawn, draw.normal(3, 7, 1))

    @weight(1.5)
    def test_distances(self, student, seed):
        """Query i meets at key j the row of `relative` for the distance i − j: the last row is distance 0."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 1, 1, 6)
        agrees(layer, drawn, draw.normal(1, 6, 1))

    @weight(1.5)
    def test_heads(self, student, seed):
        """Head k has the features k·d_head … (k+1)·d_head − 1, and the distances of relative[k]."""
        draw = Draw(seed)
        n_heads, d_head = draw.choice([(2, 5), (3, 4), (4, 3)])
        d_model = n_heads * d_head
        layer, drawn = loaded(student, draw, d_model, n_heads, 6)
        # The heads' results come out as they are: head after head.
        layer.load({"out.weight": torch.eye(d_model), "out.bias": torch.zeros(d_model)})
        x = draw.normal(2, 6, d_model)
        before = shaped(layer(x), (2, 6, d_model)).detach()
        for h in range(n_heads):
            changed = drawn["relative"].clone()
            changed[h] += draw.normal(6, d_head, scale=3)
            layer.load({"relative": changed})
            after = shaped(layer(x), (2, 6, d_model)).detach()
            moved = (after - before).abs().amax(dim=(0, 1)).unflatten(0, (n_heads, d_head))
            for other in range(n_heads):
                seen = "stayed" if moved[other].amax() <= 1e-6 else "moved"
                want = "move" if other == h else "stay"
                assert seen.startswith(want), (
                    f"relative[{h}] was changed; the features of head {other} should {want}, "
                    f"and {seen}"
                )

    @weight(1.5)
    def test_scale(self, student, seed):
        """Content and distance are both divided by √d_head, and by that of a head, not of d_model."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 9, 1, 5)
        agrees(layer, drawn, draw.normal(2, 5, 9), "the output of one head with 9 features")
        layer, drawn = loaded(student, draw, 18, 9, 5)
        agrees(layer, drawn, draw.normal(1, 4, 18), "the output of 9 heads with 2 features each")

    @weight(1.5)
    def test_shorter_than_max_length(self, student, seed):
        """For n below max_length the last n rows of `relative` are used: near distances, not far ones."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 6, 2, 11)
        for n in (10, 4, 1):
            agrees(layer, drawn, draw.normal(3, n, 6), f"the output for n = {n}, max_length 11")

    @weight(1)
    def test_too_long(self, student, seed):
        """A sequence longer than max_length is refused with a ValueError."""
        draw = Draw(seed)
        layer, _ = loaded(student, draw, 6, 3, 4)
        for n in (5, 9):
            with value_error("n", "max_length", "x", when=f"n is {n} and max_length is 4"):
                layer(draw.normal(2, n, 6))

    @weight(1)
    def test_gradients(self, student, seed):
        """The gradients of x and of every parameter are right; distances that are not used get 0."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 6, 2, 7)
        x, upstream = draw.normal(3, 5, 6), draw.normal(3, 5, 6)
        theirs = layer.weights()
        mine = {name: tensor.double().requires_grad_() for name, tensor in drawn.items()}
        exact = x.double().requires_grad_()
        expected(mine, exact).backward(upstream.double())
        x.requires_grad_()
        seen = shaped(layer(x), upstream.shape, upstream.dtype, "the output")
        assert seen.requires_grad, "no gradient flows through the output"
        seen.backward(upstream)
        for name, have, want in (("x", x, exact), *((n, theirs[n], mine[n]) for n in mine)):
            found = torch.zeros_like(have) if have.grad is None else have.grad
            what = f"the gradient of {name}"
            close(found, want.grad, what, 4 * ATOL, 1e-4, dtype=torch.float32)

    @weight(0.5)
    def test_dtypes(self, student, seed):
        """In float64, float16 and bfloat16 the output has that dtype and is right within its precision."""
        draw = Draw(seed)
        exact = draw.normal(2, 4, 6)
        # A softmax that is computed in float32 whatever the dtype is no mistake.
        tolerances = {torch.float64: ATOL, torch.float16: 2e-2, torch.bfloat16: 1e-1}
        for dtype, atol in tolerances.items():
            layer, drawn = loaded(student, draw, 6, 2, 5)
            x = exact.to(dtype)
            rounded = {name: tensor.to(dtype) for name, tensor in drawn.items()}
            what = f"the output in {str(dtype)[6:]}"
            close(layer.to(dtype)(x), expected(rounded, x), what, atol, dtype=dtype)

    @weight(0.25)
    def test_device(self, student):
        """After a move to another device the layer works on an x that is there."""
        layer, x = student.RelativeSelfAttention(6, 2, 5), torch.zeros(2, 4, 6, device="meta")
        on_meta(lambda: layer.to_empty(device="meta")(x), x.shape, "the output")

    @weight(0.5)
    def test_leaves_everything_as_it_was(self, student, seed):
        """x may have any strides and is not changed; a call depends neither on earlier ones nor on the mode."""
        draw = Draw(seed)
        layer, drawn = loaded(student, draw, 6, 3, 8)
        for x in (draw.normal(3, 8, 6), draw.strided(draw.normal(4, 5, 6))):
            for mode, call in (("train", layer.train()), ("eval", layer.eval())):
                agrees(call, drawn, x, f"in {mode}(), the output for the shape {tuple(x.shape)}")
                unchanged(student)
