"""Hidden graders of the chapter diffusion; the oracles are its formulas in float64, number by number where that is plain."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autograder.execution.checks import Draw, close, finite, on_meta, shaped, unchanged, weight

HALVES = ((torch.float16, 2e-2), (torch.bfloat16, 1e-1))


@cache
def alpha_bars(n_steps: int) -> Tensor:
    """The cosine schedule, step by step in double precision."""
    f = [math.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(n_steps + 1)]
    found = [1.0]
    for t in range(1, n_steps + 1):
        found.append(found[-1] * (1 - min(1 - f[t] / f[t - 1], 0.999)))
    return torch.tensor(found, dtype=torch.float64)


def near_schedule(seen: Tensor, expected: Tensor, what: str) -> None:
    """Compare values relative to themselves; the dtype has a test of its own."""
    close(seen.double(), expected, what, atol=0, rtol=1e-3)


class TestCosineSchedule:
    exercise = "cosine_schedule"

    @weight(1)
    def test_length(self, student):
        """There are n_steps + 1 values, and the first of them, ᾱ(0), is 1."""
        for n_steps in (7, 12):
            seen = shaped(student.cosine_schedule(n_steps), (n_steps + 1,))
            assert seen[0] == 1, f"for {n_steps} steps ᾱ(0) should be exactly 1, not {seen[0]:.8g}"

    @weight(2)
    def test_values(self, student, seed):
        """ᾱ follows f(t) / f(0), with the offset 0.008 and a squared cosine."""
        n_steps = Draw(seed).choice([20, 30, 45])
        seen = shaped(student.cosine_schedule(n_steps), (n_steps + 1,))
        # The last value, where β is cut off, has a test of its own.
        near_schedule(seen[:-1], alpha_bars(n_steps)[:-1], f"ᾱ for {n_steps} steps, but its last")

    @weight(1.5)
    def test_last_step(self, student, seed):
        """The last β is cut off at 0.999: a thousandth of ᾱ is left, and not 0."""
        n_steps = Draw(seed).choice([10, 25, 60])
        seen = shaped(student.cosine_schedule(n_steps), (n_steps + 1,)).double()
        kept = seen[-1] / seen[-2]
        assert abs(kept - 0.001) < 1e-5, (
            f"for {n_steps} steps the last ᾱ should be 0.001 times the one before, "
            f"yours is {kept:.4g} times"
        )

    @weight(1)
    def test_few_steps(self, student):
        """One, two and three steps are right, too."""
        for n_steps in (1, 2, 3):
            seen = shaped(student.cosine_schedule(n_steps), (n_steps + 1,))
            near_schedule(seen, alpha_bars(n_steps), f"ᾱ for n_steps {n_steps}")

    @weight(1)
    def test_many_steps(self, student):
        """For 1000 steps ᾱ falls all the way, stays above 0, and its last values are right."""
        seen = shaped(student.cosine_schedule(1000), (1001,))
        rising = (seen[1:] >= seen[:-1]).nonzero().flatten().tolist()
        assert not rising, f"of 1000 steps, ᾱ does not fall at step {rising[0] + 1}"
        near_schedule(seen, alpha_bars(1000), "ᾱ for 1000 steps")

    @weight(0.75)
    def test_precision(self, student):
        """The tiny last values are right for 100,000 steps, where a cosine in float32 is not."""
        seen = shaped(student.cosine_schedule(100_000), (100_001,))
        near_schedule(seen[-9:], alpha_bars(100_000)[-9:], "the end of ᾱ for 100,000 steps")

    @weight(0.5)
    def test_dtype(self, student):
        """The result is float32."""
        shaped(student.cosine_schedule(5), (6,), torch.float32)


def noised(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Row by row in float64."""
    rows = []
    for picture, step, epsilon in zip(x0.double(), t.tolist(), noise.double(), strict=True):
        kept = alpha_bar[step].item()
        rows.append(math.sqrt(kept) * picture + math.sqrt(1 - kept) * epsilon)
    return torch.stack(rows)


def falling(draw: Draw, n: int) -> Tensor:
    """A schedule that is no known one: 1, then falling, not evenly, to 0.02."""
    between = draw.uniform(n - 1, low=0.05, high=0.95).sort(descending=True).values
    return torch.cat([torch.tensor([1.0]), between, torch.tensor([0.02])])


class TestAddNoise:
    exercise = "add_noise"

    @weight(1.5)
    def test_one_step(self, student, seed):
        """A single row becomes √ᾱ · x0 + √(1 − ᾱ) · noise, with ᾱ at its t."""
        draw = Draw(seed)
        x0, noise, alpha_bar = draw.normal(1, 7), draw.normal(1, 7), falling(draw, 8)
        for step in (4, 8, 0):
            t = torch.tensor([step])
            expected = noised(x0, t, noise, alpha_bar)
            seen = student.add_noise(x0, t, noise, alpha_bar)
            close(seen, expected, f"the result for t = {step} of 8 steps", dtype=torch.float32)

    @weight(1.5)
    def test_own_step(self, student, seed):
        """Each row has its own t, also where there are as many rows as numbers in a row."""
        draw = Draw(seed)
        for shape in ((4, 7), (5, 5), (3, 2, 3)):
            x0, noise, alpha_bar = draw.normal(*shape), draw.normal(*shape), falling(draw, 11)
            t = torch.tensor([9, 1, 5, 11, 0])[: shape[0]]
            expected = noised(x0, t, noise, alpha_bar)
            seen = student.add_noise(x0, t, noise, alpha_bar)
            close(seen, expected, f"the result for the shape {shape}", dtype=torch.float32)

    @weight(1)
    def test_axes(self, student, seed):
        """There may be any number of axes after the first: none, one, three or four."""
        draw = Draw(seed)
        for shape in ((3,), (3, 4), (2, 3, 5, 4), (3, 1, 2, 4, 1)):
            x0, noise, alpha_bar = draw.normal(*shape), draw.normal(*shape), falling(draw, 6)
            t = draw.integers(0, 7, shape[0])
            expected = noised(x0, t, noise, alpha_bar)
            seen = student.add_noise(x0, t, noise, alpha_bar)
            close(seen, expected, f"the result for the shape {shape}", dtype=torch.float32)

    @weight(1)
    def test_dtypes(self, student, seed):
        """The result has the dtype of x0, whatever the dtype of alpha_bar."""
        draw = Draw(seed)
        x0, noise = (draw.normal(3, 2, 4, dtype=torch.float64) for _ in range(2))
        alpha_bar, t = falling(draw, 9), torch.tensor([3, 8, 0])
        # float32 roots of a float32 alpha_bar are no mistake for a float64 x0.
        for dtype, tolerance in (*HALVES, (torch.float64, 1e-6)):
            pictures, epsilon = x0.to(dtype), noise.to(dtype)
            expected = noised(pictures, t, epsilon, alpha_bar)
            seen = student.add_noise(pictures, t, epsilon, alpha_bar)
            close(seen, expected, f"the result in {dtype}", tolerance, tolerance, dtype)
        seen = student.add_noise(x0.float(), t, noise.float(), alpha_bar.double())
        expected = noised(x0.float(), t, noise.float(), alpha_bar)
        close(seen, expected, "the result with a float64 alpha_bar", dtype=torch.float32)

    @weight(0.75)
    def test_gradients(self, student, seed):
        """Gradients reach x0 and the noise: they are the two factors."""
        draw = Draw(seed)
        x0, noise = (draw.normal(3, 5).requires_grad_() for _ in range(2))
        alpha_bar, t = falling(draw, 4), torch.tensor([1, 3, 2])
        backward(student.add_noise(x0, t, noise, alpha_bar), torch.ones(3, 5))
        kept = alpha_bar[t].reshape(3, 1).expand(3, 5)
        close(gradient(x0, "x0"), kept.sqrt(), "the gradient of x0")
        close(gradient(noise, "noise"), (1 - kept).sqrt(), "the gradient of noise")

    @weight(0.5)
    def test_arguments_unchanged(self, student, seed):
        """No argument is changed; permuted views are read right."""
        draw = Draw(seed)
        x0, noise = (draw.strided(draw.normal(3, 2, 4)) for _ in range(2))
        alpha_bar, t = falling(draw, 4), torch.tensor([1, 4, 2])
        seen = student.add_noise(x0, t, noise, alpha_bar)
        unchanged(student)
        close(seen, noised(x0, t, noise, alpha_bar), dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """The result is where the arguments are."""
        x0, alpha_bar = torch.zeros(3, 4, device="meta"), torch.zeros(6, device="meta")
        t = torch.zeros(3, dtype=torch.long, device="meta")
        on_meta(lambda: student.add_noise(x0, t, x0, alpha_bar), (3, 4))


def backward(result: Tensor, upstream: Tensor) -> None:
    """Ask for the gradients, or say in words that none flow."""
    shaped(result, upstream.shape)
    assert result.requires_grad, "no gradient flows through the result"
    result.backward(upstream.to(result.dtype))


def gradient(leaf: Tensor, what: str) -> Tensor:
    """The gradient that a backward left at `leaf`, finite, or a failure in words."""
    assert leaf.grad is not None, f"no gradient reaches {what}"
    return finite(leaf.grad, f"the gradient of {what}")


def embedded(steps: list[float], d_model: int) -> Tensor:
    """The embedding of these steps, entry by entry in float64."""
    half = d_model // 2
    rows = []
    for t in steps:
        angles = [t * 10000 ** (-i / half) for i in range(half)]
        zero = [0.0] * (d_model % 2)
        rows.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles] + zero)
    return torch.tensor(rows, dtype=torch.float64)


def near_table(seen: Tensor, expected: Tensor, what: str) -> None:
    """Compare values within what the stub allows; the dtype has a test of its own."""
    close(shaped(seen, expected.shape, what=what).double(), expected, what, atol=2e-3)


class TestTimestepEmbedding:
    exercise = "timestep_embedding"

    @weight(0.75)
    def test_step_zero(self, student):
        """All angles of t = 0 are 0: the first half of the row, the cosines, is 1, the second is 0."""
        seen = shaped(student.timestep_embedding(torch.tensor([0, 3]), 10), (2, 10))
        near_table(seen[0], embedded([0], 10)[0], "the row of t = 0")

    @weight(0.75)
    def test_fastest(self, student):
        """The fastest angle is t itself: its cosine is column 0, its sine the first of the second half."""
        t = torch.tensor([2, 3, 5, 11])
        seen = shaped(student.timestep_embedding(t, 6), (4, 6))
        expected = embedded(t.tolist(), 6)
        near_table(seen[:, 0], expected[:, 0], "column 0 for d_model 6")
        near_table(seen[:, 3], expected[:, 3], "column 3 for d_model 6")

    @weight(2)
    def test_every_column(self, student, seed):
        """Column by column the frequencies fall from 1 by equal factors towards 1/10000."""
        draw = Draw(seed)
        d_model, t = draw.choice([8, 12, 14]), draw.integers(1, 400, 9, 2)[:, 0]
        seen = student.timestep_embedding(t, d_model)
        near_table(seen, embedded(t.tolist(), d_model), f"the table for d_model {d_model}")
        seen = student.timestep_embedding(t[:2], 1030)
        near_table(seen, embedded(t[:2].tolist(), 1030), "the table for d_model 1030")

    @weight(1)
    def test_odd_width(self, student, seed):
        """An odd d_model has the columns of the even one below it, and then one of zeros."""
        t = Draw(seed).integers(1, 300, 5)
        for d_model in (9, 3):
            seen = student.timestep_embedding(t, d_model)
            near_table(seen, embedded(t.tolist(), d_model), f"the table for d_model {d_model}")

    @weight(0.25)
    def test_one_column(self, student):
        """For d_model 1 there is nothing but the zero."""
        seen = student.timestep_embedding(torch.tensor([4, 0, 7]), 1)
        near_table(seen, torch.zeros(3, 1, dtype=torch.float64), "the table for d_model 1")

    @weight(1)
    def test_fractional_steps(self, student, seed):
        """A step may lie between two whole ones, in any floating dtype."""
        t = Draw(seed).uniform(4, low=0.0, high=50.0, dtype=torch.float64) + 0.3
        for dtype in (torch.float32, torch.float64, torch.float16):
            steps = t.to(dtype)
            seen = student.timestep_embedding(steps, 6)
            near_table(seen, embedded(steps.tolist(), 6), f"the table for t in {dtype}")
        # However coarse a t in half precision is, its angles are not.
        steps = Draw(seed).integers(200, 1000, 7).half() + 0.5
        what = "the table for a large t in float16"
        near_table(student.timestep_embedding(steps, 8), embedded(steps.tolist(), 8), what)

    @weight(0.75)
    def test_large_steps(self, student, seed):
        """The table is exact up to t = 10,000."""
        t = torch.cat([torch.tensor([10_000]), Draw(seed).integers(5_000, 10_000, 30)])
        for steps in (t, t.float(), t[:1]):
            seen = student.timestep_embedding(steps, 8)
            what = f"the table for {len(steps)} large t in {steps.dtype}"
            near_table(seen, embedded(steps.tolist(), 8), what)

    @weight(0.5)
    def test_dtype(self, student):
        """The result is float32, whatever the dtype of t, which is not changed."""
        for dtype in (torch.int64, torch.float32, torch.float64, torch.float16):
            seen = student.timestep_embedding(torch.tensor([1, 2, 5], dtype=dtype), 4)
            unchanged(student)
            shaped(seen, (3, 4), torch.float32, f"the result for t in {dtype}")

    @weight(0.25)
    def test_device(self, student):
        """The result is where t is."""
        t = torch.zeros(3, device="meta")
        on_meta(lambda: student.timestep_embedding(t, 4), (3, 4))

    @weight(0.5)
    def test_gradient(self, student):
        """For a fractional t the gradient flows."""
        t = torch.tensor([0.4, 1.7, 3.1], requires_grad=True)
        seen = student.timestep_embedding(t, 2)
        backward(seen, torch.tensor([1.0, 0.0]).expand(3, 2).contiguous())
        close(gradient(t, "t"), -t.detach().sin(), "the gradient of the cosine of t", atol=2e-3)


# All sizes differ, heads and the size of a head too.
D, HEADS, D_FF, B, N = 6, 3, 10, 2, 5
PARTS = ("shift 1", "scale 1", "gate 1", "shift 2", "scale 2", "gate 2")


def block_weights(draw: Draw, d: int = D, d_ff: int = D_FF) -> dict[str, Tensor]:
    """Random weights of a `DiTBlock`."""
    shapes = {
        "attention.qkv": (3 * d, d),
        "attention.out": (d, d),
        "linear1": (d_ff, d),
        "linear2": (d, d_ff),
        "modulation": (6 * d, d),
    }
    weights = {}
    for name, (rows, columns) in shapes.items():
        weights[f"{name}.weight"] = draw.normal(rows, columns, scale=columns**-0.5)
        weights[f"{name}.bias"] = draw.normal(rows, scale=0.5)
    return weights


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN without parameters, then scale and shift of each row; float64."""
    variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * (1 + scale[:, None]) + shift[:, None]


def attended(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    """Self-attention, head by head."""
    query, key, value = F.linear(x, w["attention.qkv.weight"], w["attention.qkv.bias"]).chunk(3, -1)
    d_head = x.shape[-1] // heads
    outputs = []
    for head in range(heads):
        q, k, v = (part[..., head * d_head : (head + 1) * d_head] for part in (query, key, value))
        outputs.append((q @ k.transpose(1, 2) / math.sqrt(d_head)).softmax(-1) @ v)
    return F.linear(torch.cat(outputs, -1), w["attention.out.weight"], w["attention.out.bias"])


def block(x: Tensor, condition: Tensor, weights: dict[str, Tensor], heads: int = HEADS) -> Tensor:
    """The two formulas of the exercise, in float64."""
    w = {name: value.double() for name, value in weights.items()}
    x, condition = x.double(), condition.double()
    condition = condition / (1 + (-condition).exp())
    six = F.linear(condition, w["modulation.weight"], w["modulation.bias"])
    shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
    x = x + gate1[:, None] * attended(modulated(x, shift1, scale1), w, heads)
    hidden = F.linear(modulated(x, shift2, scale2), w["linear1.weight"], w["linear1.bias"])
    cubed = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
    hidden = hidden * (1 + cubed.tanh()) / 2
    return x + gate2[:, None] * F.linear(hidden, w["linear2.weight"], w["linear2.bias"])


def silence(*linears: str) -> dict[str, Tensor]:
    """Weights with which these linear maps give 0."""
    width = {"attention.out": D, "linear2": D_FF}
    silent = {f"{linear}.weight": torch.zeros(D, width[linear]) for linear in linears}
    return silent | {f"{linear}.bias": torch.zeros(D) for linear in linears}


class TestDiTBlock:
    exercise = "DiTBlock"

    def _drawn(self, student, seed, weights=None):
        """A block, its weights (random ones with these changes), x and condition."""
        draw = Draw(seed)
        weights = block_weights(draw) | (weights or {})
        layer = student.DiTBlock(D, HEADS, D_FF)
        layer.load(weights)
        return layer, weights, draw.normal(B, N, D), draw.normal(B, D)

    def _agrees(self, layer, weights, x, condition, what="the result"):
        # The two forms of GELU differ by less than this; they have a test of their own.
        expected = block(x, condition, weights)
        close(layer(x, condition), expected, what, atol=5e-3, dtype=torch.float32)

    @weight(1)
    def test_identity_at_the_start(self, student, seed):
        """At the start weight and bias of `modulation` are 0, and the block changes nothing."""
        draw = Draw(seed)
        layer = student.DiTBlock(D, HEADS, D_FF)
        x = draw.normal(B, N, D)
        close(layer(x, draw.normal(B, D)), x, "the result at the start")
        weights = layer.weights()
        for kind, shape in (("weight", (6 * D, D)), ("bias", (6 * D,))):
            name = f"modulation.{kind}"
            there = ", ".join(f"`{other}`" for other in weights)
            assert name in weights, f"there is no parameter `{name}`; its parameters are: {there}"
            close(weights[name].detach(), torch.zeros(shape), f"`{name}` at the start")

    @weight(0.25)
    def test_one_picture(self, student, seed):
        """A batch may hold a single picture, and as many pictures as patches."""
        layer, weights, x, condition = self._drawn(student, seed)
        self._agrees(layer, weights, x[:1], condition[:1], "the result for one picture")
        self._agrees(layer, weights, x[:, :B], condition, f"the result for {B} patches each")

    @weight(0.75)
    def test_parameters(self, student, seed):
        """Attention, both linear maps and `modulation` have parameters, and nothing else has."""
        layer, weights, _, _ = self._drawn(student, seed)
        # A second name of one of these parameters is no mistake, and is told by its values.
        known = list(weights.values())
        further = [
            name
            for name, value in layer.weights().items()
            if not any(value.shape == k.shape and bool((value == k).all()) for k in known)
        ]
        assert not further, (
            f"besides those of attention, linear1, linear2 and modulation there are parameters: "
            f"{', '.join(further[:4])}; does a norm learn something?"
        )

    @weight(1.25)
    def test_attention_step(self, student, seed):
        """Where the network gives 0: x + gate₁ · attention(LN(x) · (1 + scale₁) + shift₁)."""
        self._agrees(*self._drawn(student, seed, silence("linear2")))

    @weight(1.25)
    def test_network_step(self, student, seed):
        """Where attention gives 0: x + gate₂ · network(LN(x) · (1 + scale₂) + shift₂)."""
        self._agrees(*self._drawn(student, seed, silence("attention.out")))

    @weight(1)
    def test_order_of_the_six(self, student, seed):
        """`modulation` gives shift, scale and gate for attention, then the same for the network."""
        layer, weights, x, _ = self._drawn(student, seed)
        condition = torch.zeros(B, D)
        for i, part in enumerate(PARTS):
            # Gates of 1, all others 0, and then one of the six is moved.
            six = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0])
            six[i] += 0.7
            weights["modulation.bias"] = six.repeat_interleave(D)
            layer.load({"modulation.bias": weights["modulation.bias"]})
            what = f"with 0.7 added to part {i + 1} of the 6 of modulation's output ({part}), the result"
            self._agrees(layer, weights, x, condition, what)

    @weight(1)
    def test_whole_block(self, student, seed):
        """Both steps, one after the other: the second works on what the first gave."""
        layer, weights, x, condition = self._drawn(student, seed)
        self._agrees(layer, weights, x, condition)
        x, condition = Draw(seed).strided(x), Draw(seed).strided(condition)
        with torch.no_grad():
            self._agrees(layer, weights, x, condition, "the result for permuted views")
        unchanged(student)
        draw = Draw(seed)
        weights, layer = block_weights(draw, 18, 4), student.DiTBlock(18, 9, 4)
        layer.load(weights)
        x, condition = draw.normal(B, N, 18), draw.normal(B, 18)
        expected, what = block(x, condition, weights, 9), "the result for d_model 18 and n_heads 9"
        close(layer(x, condition), expected, what, atol=5e-3, dtype=torch.float32)

    @weight(1)
    def test_silu(self, student, seed):
        """The condition passes silu before `modulation`, and each row has its own."""
        layer, weights, x, _ = self._drawn(student, seed)
        signs = torch.tensor([[2.0], [-2.0]])
        condition = signs * Draw(seed).uniform(B, D, low=0.5, high=1.5)
        self._agrees(layer, weights, x, condition, "the result for conditions above and below 0")
        layer.load({"modulation.bias": torch.zeros(6 * D)})
        weights["modulation.bias"] = torch.zeros(6 * D)
        condition[0] = 0.0
        what = "where condition 0 is zero and modulation has no bias, the result"
        self._agrees(layer, weights, x, condition, what)

    @weight(0.75)
    def test_eps(self, student, seed):
        """ε of the norms is 1e-6, inside the root: it shows on small numbers."""
        layer, weights, x, condition = self._drawn(student, seed, silence("linear2"))
        expected = block(1e-3 * x, condition, weights)
        close(layer(1e-3 * x, condition), expected, atol=1e-4, dtype=torch.float32)

    @weight(0.75)
    def test_gelu(self, student, seed):
        """The network's GELU has the tanh form, which differs by up to 0.0005 from the exact one."""
        layer, weights, x, condition = self._drawn(student, seed, silence("attention.out"))
        # All hidden values lie where the two forms differ most.
        hidden = {"linear1.weight": torch.zeros(D_FF, D), "linear1.bias": torch.full((D_FF,), 2.2)}
        hidden["linear1.bias"][::2] *= -1
        hidden["linear2.weight"] = Draw(seed).uniform(D, D_FF, low=1.0, high=2.0)
        # One gate of 1 for all, so that nothing is lost in a small one.
        hidden |= {"modulation.weight": torch.zeros(6 * D, D), "modulation.bias": torch.ones(6 * D)}
        layer.load(hidden)
        expected = block(x, condition, weights | hidden)
        close(layer(x, condition), expected, atol=2e-4, dtype=torch.float32)

    @weight(0.75)
    def test_dtypes(self, student, seed):
        """The block works in half and double precision, in the dtype of x."""
        layer, weights, x, condition = self._drawn(student, seed)
        # In float64 either form of GELU passes, as above.
        for dtype, tolerance in (*HALVES, (torch.float64, 5e-3)):
            small = {name: (value / 2).to(dtype) for name, value in weights.items()}
            layer.to(dtype).load(small)
            inputs = x.to(dtype), condition.to(dtype)
            expected = block(*inputs, small)
            close(layer(*inputs), expected, f"the result in {dtype}", tolerance, tolerance, dtype)

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach x, the condition and every parameter; training and evaluation do the same."""
        layer, weights, x, condition = self._drawn(student, seed)
        close(layer.eval()(x, condition), layer.train()(x, condition), "the result in eval()")
        leaves = layer.weights()
        x.requires_grad_()
        condition.requires_grad_()
        backward(layer(x, condition), Draw(seed).normal(B, N, D))
        for leaf, name in ((x, "x"), (condition, "condition")):
            assert gradient(leaf, name).abs().max() > 0, f"no gradient reaches {name}"
        for name in weights:
            found = gradient(leaves[name], f"`{name}`")
            assert found.abs().max() > 0, f"no gradient reaches `{name}`"


class Denoiser(nn.Module):
    """Predicts something that depends on x, t and labels, row by row; notes how it is called."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape = shape
        self._rows = 0
        self._labels: list[int] = []

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        shaped(x, (len(x), *self._shape[1:]), what="the model's x")
        for name, value in (("t", t), ("labels", labels)):
            shaped(value, (len(x),), torch.int64, f"the model's {name}, for {len(x)} rows of x,")
        self._rows += len(x)
        self._labels += labels.tolist()
        return self.predict(x, t, labels)

    def predict(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        ones = [1] * (x.dim() - 1)
        label, step = labels.to(x.dtype).reshape(-1, *ones), t.to(x.dtype).reshape(-1, *ones)
        return torch.sin(x + label) * 2 + x * torch.cos(step + label)


class Elsewhere(nn.Module):
    """Predicts x, where all that it is given is on one device."""

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        for name, value in (("t", t), ("labels", labels)):
            assert value.device == x.device, (
                f"the model's x is on the device {x.device}, its {name} on {value.device}"
            )
        return x


def guided(x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int) -> Tensor:
    """The formula with the model above."""
    predict = Denoiser(tuple(x.shape)).predict
    unconditional = predict(x, t, torch.full_like(labels, null_label))
    return unconditional + scale * (predict(x, t, labels) - unconditional)


class TestGuidedNoise:
    exercise = "guided_noise"

    def _agrees(self, student, drawn, scale, null_label, what="the result"):
        x, t, labels = drawn
        model = Denoiser(tuple(x.shape))
        seen = student.guided_noise(model, x, t, labels, scale, null_label)
        close(seen, guided(x, t, labels, scale, null_label), what, atol=1e-4)
        return model

    def _drawn(self, seed, *shape):
        """x, t and labels below 9."""
        draw = Draw(seed)
        return draw.normal(*shape), draw.integers(1, 50, shape[0]), draw.integers(0, 9, shape[0])

    @weight(1)
    def test_with_and_without_labels(self, student, seed):
        """Scale 1 is the prediction with the labels, scale 0 the one with the null label."""
        drawn = self._drawn(seed, 1, 5)
        self._agrees(student, drawn, 1.0, 9, "for scale 1, the result")
        self._agrees(student, drawn, 0.0, 9, "for scale 0, the result")

    @weight(1.5)
    def test_scales(self, student, seed):
        """ε(null) + scale · (ε(labels) − ε(null)), between 0 and 1, beyond 1 and below 0."""
        drawn = self._drawn(seed, 1, 5)
        for scale in (2.5, 0.3, 7.0, -1.5):
            self._agrees(student, drawn, scale, 9, f"for scale {scale:g}, the result")

    @weight(1)
    def test_null_label(self, student, seed):
        """The null label is the one that is given, whatever its number; a row may have it as its own."""
        x, t, labels = self._drawn(seed, 4, 3)
        labels[1] = 4
        for null_label in (4, 0, 12, -1):
            what = f"for null_label {null_label} and labels {labels.tolist()}, the result"
            self._agrees(student, (x, t, labels), 2.5, null_label, what)

    @weight(1.5)
    def test_rows(self, student, seed):
        """Each row keeps its own x, t and label, in every place."""
        for shape in ((3, 5), (4, 4), (5, 2, 3)):
            drawn = self._drawn(seed, *shape)
            self._agrees(student, drawn, 1.7, 9, f"the result for the shape {shape}")

    @weight(1)
    def test_axes(self, student, seed):
        """Every number of x is guided, whatever axes there are; none but the first, too."""
        for shape in ((3, 6, 2, 4), (4,), (2, 1, 7)):
            drawn = self._drawn(seed, *shape)
            self._agrees(student, drawn, -2.0, 11, f"the result for the shape {shape}")

    @weight(0.75)
    def test_calls(self, student, seed):
        """The model runs once on 2b rows or twice on b, with the labels and with the null label."""
        x, t, labels = self._drawn(seed, 3, 4)
        model = self._agrees(student, (x, t, labels), 3.0, 9)
        assert model._rows == 6, (
            f"for a batch of 3 the model should predict 6 rows in all, yours predicts {model._rows}"
        )
        assert model._labels.count(9) == 3, (
            f"3 of the 6 rows should have the null label, yours have {model._labels.count(9)}"
        )

    @weight(1)
    def test_gradients(self, student, seed):
        """Gradients flow through both predictions."""
        x, t, labels = self._drawn(seed, 3, 4)
        x.requires_grad_()
        upstream = Draw(seed).normal(3, 4)
        model = Denoiser((3, 4))
        backward(student.guided_noise(model, x, t, labels, 2.5, 9), upstream)
        copy = x.detach().clone().requires_grad_()
        guided(copy, t, labels, 2.5, 9).backward(upstream)
        close(gradient(x, "x"), copy.grad, "the gradient of x", atol=1e-4)

    @weight(0.5)
    def test_arguments_unchanged(self, student, seed):
        """No argument is changed, the labels in particular; the result has the dtype of x."""
        x, t, labels = self._drawn(seed, 3, 4)
        for dtype, tolerance in ((torch.float64, 1e-6), (torch.float16, 5e-2)):
            drawn = Draw(seed).strided(x.to(dtype))
            seen = student.guided_noise(Denoiser((3, 4)), drawn, t, labels, 2.0, 9)
            unchanged(student)
            expected = guided(drawn.double(), t, labels, 2.0, 9)
            close(seen, expected, f"the result in {dtype}", tolerance, tolerance, dtype)

    @weight(0.25)
    def test_device(self, student):
        """The model is given a null label on the device of the others, where the result is, too."""
        x = torch.zeros(3, 4, device="meta")
        rows = torch.zeros(3, dtype=torch.long, device="meta")
        on_meta(lambda: student.guided_noise(Elsewhere(), x, rows, rows, 2.0, 9), (3, 4))


def stepped(x: Tensor, noise: Tensor, here: list[float], there: list[float]) -> Tensor:
    """The deterministic step, row by row in float64."""
    rows = []
    for row, epsilon, a, b in zip(x.double(), noise.double(), here, there, strict=True):
        picture = (row - math.sqrt(1 - a) * epsilon) / math.sqrt(a)
        rows.append(math.sqrt(b) * picture + math.sqrt(1 - b) * epsilon)
    return torch.stack(rows)


class TestDDIMStep:
    exercise = "ddim_step"

    @weight(2)
    def test_step(self, student, seed):
        """√ᾱ′ · x̂₀ + √(1 − ᾱ′) · ε, towards the picture, away from it, and on the spot."""
        draw = Draw(seed)
        x, noise = draw.normal(3, 5), draw.normal(3, 5)
        for here, there in ((0.3, 0.7), (0.45, 0.5), (0.8, 0.15), (0.6, 0.6)):
            expected = stepped(x, noise, [here] * 3, [there] * 3)
            what = f"from ᾱ = {here} to ᾱ′ = {there}, the result"
            close(student.ddim_step(x, noise, here, there), expected, what, dtype=torch.float32)

    @weight(1)
    def test_last_step(self, student, seed):
        """ᾱ′ = 1 gives x̂₀: with the noise that was added, the picture that was there; not cut off at ±1."""
        draw = Draw(seed)
        picture, noise = draw.normal(2, 7, scale=2.0), draw.normal(2, 7)
        x = math.sqrt(0.4) * picture + math.sqrt(0.6) * noise
        for one in (1.0, 1):
            seen = student.ddim_step(x, noise, 0.4, one)
            close(seen, picture, f"from ᾱ = 0.4 to ᾱ′ = {one}, the result", atol=1e-4)

    @weight(1)
    def test_without_axes(self, student, seed):
        """ᾱ and ᾱ′ may be tensors without axes."""
        draw = Draw(seed)
        x, noise = draw.normal(3, 5), draw.normal(3, 5)
        here, there = torch.tensor(0.2), torch.tensor(0.55)
        expected = stepped(x, noise, [0.2] * 3, [0.55] * 3)
        seen = student.ddim_step(x, noise, here, there)
        close(seen, expected, "for ᾱ as tensors, the result", dtype=torch.float32)
        seen = student.ddim_step(x, noise, 0.2, there)
        close(seen, expected, "for a number and a tensor, the result", dtype=torch.float32)

    @weight(1.5)
    def test_one_a_row(self, student, seed):
        """ᾱ and ᾱ′ may be one a row, also where there are as many rows as numbers in a row."""
        draw = Draw(seed)
        for shape in ((3, 5), (4, 4)):
            x, noise = draw.normal(*shape), draw.normal(*shape)
            here = draw.uniform(shape[0], low=0.2, high=0.5)
            there = draw.uniform(shape[0], low=0.5, high=1.0)
            expected = stepped(x, noise, here.tolist(), there.tolist())
            seen = student.ddim_step(x, noise, here, there)
            what = f"with ᾱ for each row, the result for the shape {shape}"
            close(seen, expected, what, dtype=torch.float32)
            expected = stepped(x, noise, here.tolist(), [1.0] * shape[0])
            seen = student.ddim_step(x, noise, here, 1.0)
            close(seen, expected, f"{what} and ᾱ′ = 1", atol=1e-4, dtype=torch.float32)
            expected = stepped(x, noise, [0.3] * shape[0], there.tolist())
            seen = student.ddim_step(x, noise, 0.3, there)
            close(seen, expected, f"{what} and the number ᾱ = 0.3", dtype=torch.float32)

    @weight(1)
    def test_axes(self, student, seed):
        """x may have any number of axes after the first: none, or three."""
        draw = Draw(seed)
        for shape in ((4,), (2, 3, 5, 4), (3, 2, 3), (1, 1, 3)):
            x, noise = draw.normal(*shape), draw.normal(*shape)
            here = draw.uniform(shape[0], low=0.2, high=0.9)
            expected = stepped(x, noise, here.tolist(), [0.7] * shape[0])
            seen = student.ddim_step(x, noise, here, torch.full((shape[0],), 0.7))
            close(seen, expected, f"the result for the shape {shape}", dtype=torch.float32)
            expected = stepped(x, noise, [0.5] * shape[0], [0.7] * shape[0])
            seen = student.ddim_step(x, noise, 0.5, 0.7)
            what = f"with numbers, the result for the shape {shape}"
            close(seen, expected, what, dtype=torch.float32)

    @weight(0.5)
    def test_much_noise(self, student, seed):
        """Where almost nothing of the picture is left, x̂₀ is large, and still right."""
        draw = Draw(seed)
        x, noise = draw.normal(3, 5), draw.normal(3, 5)
        for here, there in ((1e-4, 0.02), (1e-4, 1.0)):
            expected = stepped(x, noise, [here] * 3, [there] * 3)
            what = f"from ᾱ = {here} to ᾱ′ = {there}, the result"
            seen = student.ddim_step(x, noise, here, there)
            close(seen, expected, what, atol=1e-3, rtol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_dtypes(self, student, seed):
        """The result has the dtype of x, whatever the dtype of ᾱ."""
        draw = Draw(seed)
        x, noise = (draw.normal(3, 4, dtype=torch.float64) for _ in range(2))
        here, there = torch.tensor([0.5, 0.7, 0.35]), torch.tensor([0.6, 1.0, 0.4])
        # float32 roots of a float32 ᾱ are no mistake for a float64 x.
        for dtype, tolerance in (*HALVES, (torch.float64, 1e-6)):
            rows, epsilon = x.to(dtype), noise.to(dtype)
            expected = stepped(rows, epsilon, here.tolist(), there.tolist())
            seen = student.ddim_step(rows, epsilon, here, there)
            close(seen, expected, f"the result in {dtype}", tolerance, tolerance, dtype)
        expected = stepped(x.float(), noise.float(), here.tolist(), there.tolist())
        seen = student.ddim_step(x.float(), noise.float(), here.double(), there.double())
        close(seen, expected, "the result with float64 ᾱ", dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """For ᾱ and ᾱ′ that are numbers the result is where x is."""
        x = torch.zeros(3, 4, device="meta")
        on_meta(lambda: student.ddim_step(x, x, 0.5, 0.7), (3, 4))

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach x and the predicted noise, and are finite where ᾱ′ is 1."""
        draw = Draw(seed)
        for there in (0.64, 1.0):
            x, noise = (draw.normal(2, 3).requires_grad_() for _ in range(2))
            backward(student.ddim_step(x, noise, 0.25, there), torch.ones(2, 3))
            kept = math.sqrt(there / 0.25)
            expected = torch.full((2, 3), kept)
            close(gradient(x, "x"), expected, f"for ᾱ′ = {there}, the gradient of x")
            expected.fill_(math.sqrt(1 - there) - kept * math.sqrt(0.75))
            seen = gradient(noise, "predicted_noise")
            close(seen, expected, f"for ᾱ′ = {there}, the gradient of predicted_noise")

    @weight(0.5)
    def test_arguments_unchanged(self, student, seed):
        """No argument is changed; permuted views are read right."""
        draw = Draw(seed)
        x, noise = (draw.strided(draw.normal(3, 2, 4)) for _ in range(2))
        here, there = torch.tensor([0.5, 0.7, 0.3]), torch.tensor([0.6, 0.9, 0.4])
        seen = student.ddim_step(x, noise, here, there)
        unchanged(student)
        close(seen, stepped(x, noise, here.tolist(), there.tolist()), dtype=torch.float32)
