"""Hidden tests for the diffusion chapter. The oracles evaluate the formulas in float64, mostly element by element."""

from __future__ import annotations

import math
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autograder.execution.checks import (
    Draw,
    backpropagate,
    close,
    describe,
    finite,
    leaf_gradient,
    on_meta,
    shaped,
    unchanged,
    weight,
)
from graders.equivalent_calls import first_supported, later_axes

HALVES = ((torch.float16, 2e-2), (torch.bfloat16, 1e-1))


@cache
def schedule_oracle(n_steps: int) -> Tensor:
    """Compute ᾱ(0), …, ᾱ(n_steps) of the cosine schedule, step by step in float64."""
    f = [math.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(n_steps + 1)]
    found = [1.0]
    for t in range(1, n_steps + 1):
        found.append(found[-1] * (1 - min(1 - f[t] / f[t - 1], 0.999)))
    return torch.tensor(found, dtype=torch.float64)


def near_schedule(seen: Tensor, expected: Tensor, what: str) -> None:
    """Compare a schedule with the expected one, using a relative tolerance. A separate test checks the dtype."""
    close(seen.double(), expected, what, atol=0, rtol=1e-3)


class TestCosineSchedule:
    exercise = "cosine_schedule"

    @weight(1)
    def test_length(self, student):
        """The result has n_steps + 1 values, and the first one, ᾱ(0), is 1."""
        for n_steps in (7, 12):
            seen = shaped(student.cosine_schedule(n_steps), (n_steps + 1,))
            assert seen[0] == 1, (
                f"for n_steps = {n_steps}, ᾱ(0) should be exactly 1, not {seen[0]:.8g}"
            )

    @weight(2)
    def test_values(self, student):
        """ᾱ(t) follows f(t) / f(0), where f is a squared cosine with offset 0.008."""
        n_steps = 45
        seen = shaped(student.cosine_schedule(n_steps), (n_steps + 1,))
        # A separate test checks the last value, where β is clamped.
        near_schedule(
            seen[:-1],
            schedule_oracle(n_steps)[:-1],
            f"ᾱ before the last step, for n_steps = {n_steps}",
        )

    @weight(1.5)
    def test_last_step(self, student):
        """The last β is clamped to 0.999, so the last ᾱ is a thousandth of the previous one, not 0."""
        n_steps = 25
        seen = shaped(student.cosine_schedule(n_steps), (n_steps + 1,)).double()
        kept = seen[-1] / seen[-2]
        assert abs(kept - 0.001) < 1e-5, (
            f"for n_steps = {n_steps}, the last ᾱ should be 0.001 times the previous one; "
            f"yours is {kept:.4g} times the previous one"
        )

    @weight(1)
    def test_few_steps(self, student):
        """The schedule is correct for one, two and three steps."""
        for n_steps in (1, 2, 3):
            seen = shaped(student.cosine_schedule(n_steps), (n_steps + 1,))
            near_schedule(seen, schedule_oracle(n_steps), f"ᾱ for n_steps = {n_steps}")

    @weight(1)
    def test_many_steps(self, student):
        """With 1000 steps, ᾱ decreases at every step, and its tiny last values are accurate."""
        seen = shaped(student.cosine_schedule(1000), (1001,))
        rising = (~(seen[1:] < seen[:-1])).nonzero().flatten().tolist()
        assert not rising, f"for n_steps = 1000, ᾱ does not decrease at step {rising[0] + 1}"
        near_schedule(seen, schedule_oracle(1000), "ᾱ for n_steps = 1000")

    @weight(0.75)
    def test_precision(self, student):
        """For 100,000 steps, the tiny last values of ᾱ are accurate; float32 cosines are not precise enough for this."""
        seen = shaped(student.cosine_schedule(100_000), (100_001,))
        near_schedule(
            seen[-9:], schedule_oracle(100_000)[-9:], "the last 9 values of ᾱ for n_steps = 100,000"
        )

    @weight(0.5)
    def test_dtype(self, student):
        """The result is float32."""
        shaped(student.cosine_schedule(5), (6,), torch.float32)


def noise_oracle(x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Compute the noisy images row by row, in float64."""
    rows = []
    for picture, step, epsilon in zip(x0.double(), t.tolist(), noise.double(), strict=True):
        kept = alpha_bar[step].item()
        rows.append(math.sqrt(kept) * picture + math.sqrt(1 - kept) * epsilon)
    return torch.stack(rows)


def schedule(draw: Draw, n: int) -> Tensor:
    """Return a random noise schedule that falls from 1 to 0.02 and matches no standard schedule."""
    between = draw.uniform(n - 1, low=0.05, high=0.95).sort(descending=True).values
    return torch.cat([torch.tensor([1.0]), between, torch.tensor([0.02])])


class TestAddNoise:
    exercise = "add_noise"

    @weight(1.5)
    def test_one_step(self, student, seed):
        """For a single row, the result is √ᾱ(t) · x0 + √(1 − ᾱ(t)) · noise."""
        draw = Draw(seed)
        x0, noise, alpha_bar = draw.normal(1, 7), draw.normal(1, 7), schedule(draw, 8)
        for step in (4, 8, 0):
            t = torch.tensor([step])
            expected = noise_oracle(x0, t, noise, alpha_bar)
            seen = later_axes(student.add_noise, 0, 2)(x0, t, noise, alpha_bar)
            close(
                seen, expected, f"the result for t = {step} with n_steps = 8", dtype=torch.float32
            )

    @weight(1.5)
    def test_own_step(self, student, seed):
        """Each row uses its own t, even if x0 has as many rows as columns."""
        draw = Draw(seed)
        for shape in ((4, 7), (5, 5), (3, 2, 3)):
            x0, noise, alpha_bar = draw.normal(*shape), draw.normal(*shape), schedule(draw, 11)
            t = torch.tensor([9, 1, 5, 11, 0])[: shape[0]]
            expected = noise_oracle(x0, t, noise, alpha_bar)
            seen = later_axes(student.add_noise, 0, 2)(x0, t, noise, alpha_bar)
            close(seen, expected, f"the result for shape {shape}", dtype=torch.float32)

    @weight(1)
    def test_axes(self, student, seed):
        """x0 may have any number of axes after the first, including none."""
        draw = Draw(seed)
        for shape in ((3,), (3, 4), (3, 5, 2), (2, 3, 5, 4), (3, 1, 2, 4, 1)):
            x0, noise, alpha_bar = draw.normal(*shape), draw.normal(*shape), schedule(draw, 6)
            t = draw.integers(0, 7, shape[0])
            expected = noise_oracle(x0, t, noise, alpha_bar)
            seen = student.add_noise(x0, t, noise, alpha_bar)
            close(seen, expected, f"the result for shape {shape}", dtype=torch.float32)

    @weight(1)
    def test_dtypes(self, student, seed):
        """The result has the dtype of x0, whatever the dtype of alpha_bar."""
        draw = Draw(seed)
        x0, noise = (draw.normal(3, 2, 4, dtype=torch.float64) for _ in range(2))
        alpha_bar, t = schedule(draw, 9), torch.tensor([3, 8, 0])
        # For a float64 x0, float32 square roots of a float32 alpha_bar are accepted.
        for dtype, tolerance in (*HALVES, (torch.float64, 1e-6)):
            pictures, epsilon = x0.to(dtype), noise.to(dtype)
            expected = noise_oracle(pictures, t, epsilon, alpha_bar)
            seen = later_axes(student.add_noise, 0, 2)(pictures, t, epsilon, alpha_bar)
            close(seen, expected, f"the result in {dtype}", tolerance, tolerance, dtype)
        seen = later_axes(student.add_noise, 0, 2)(x0.float(), t, noise.float(), alpha_bar.double())
        expected = noise_oracle(x0.float(), t, noise.float(), alpha_bar)
        close(seen, expected, "the result with a float64 alpha_bar", dtype=torch.float32)

    @weight(0.5)
    def test_arguments_unchanged(self, student, seed):
        """The arguments are not modified, and they may be non-contiguous."""
        draw = Draw(seed)
        x0, noise = (draw.strided(draw.normal(3, 2, 4)) for _ in range(2))
        alpha_bar, t = schedule(draw, 4), torch.tensor([1, 4, 2])
        seen = later_axes(student.add_noise, 0, 2)(x0, t, noise, alpha_bar)
        unchanged(student)
        close(seen, noise_oracle(x0, t, noise, alpha_bar), dtype=torch.float32)

    @weight(0.75)
    def test_gradients(self, student, seed):
        """The gradients of x0 and noise are the formula's coefficients √ᾱ(t) and √(1 − ᾱ(t))."""
        draw = Draw(seed)
        x0, noise = (draw.normal(3, 5).requires_grad_() for _ in range(2))
        alpha_bar, t = schedule(draw, 4), torch.tensor([1, 3, 2])
        backpropagate(
            later_axes(student.add_noise, 0, 2)(x0, t, noise, alpha_bar), torch.ones(3, 5)
        )
        kept = alpha_bar[t].reshape(3, 1).expand(3, 5)
        close(leaf_gradient(x0, "x0"), kept.sqrt(), "the gradient of x0")
        close(leaf_gradient(noise, "noise"), (1 - kept).sqrt(), "the gradient of noise")

    @weight(0.25)
    def test_device(self, student):
        """The result is on the same device as the arguments."""
        x0, alpha_bar = torch.zeros(3, 4, device="meta"), torch.zeros(6, device="meta")
        t = torch.zeros(3, dtype=torch.long, device="meta")
        on_meta(lambda: later_axes(student.add_noise, 0, 2)(x0, t, x0, alpha_bar), (3, 4))


def embedding_oracle(steps: list[float], d_model: int) -> Tensor:
    """Compute the embedding of the given steps, entry by entry in float64."""
    half = d_model // 2
    rows = []
    for t in steps:
        angles = [t * 10000 ** (-i / half) for i in range(half)]
        zero = [0.0] * (d_model % 2)
        rows.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles] + zero)
    return torch.tensor(rows, dtype=torch.float64)


def near_table(seen: Tensor, expected: Tensor, what: str) -> None:
    """Compare two tables within the tolerance that the stub allows. A separate test checks the dtype."""
    close(shaped(seen, expected.shape, what=what).double(), expected, what, atol=2e-3)


class TestTimestepEmbedding:
    exercise = "timestep_embedding"

    @weight(0.75)
    def test_step_zero(self, student):
        """At t = 0 all angles are 0: the first half of the row (cosines) is 1 and the second half (sines) is 0."""
        seen = shaped(student.timestep_embedding(torch.tensor([0, 3]), 10), (2, 10))
        near_table(seen[0], embedding_oracle([0], 10)[0], "the row for t = 0")

    @weight(0.75)
    def test_fastest(self, student):
        """The first angle is t itself: column 0 is cos(t), and the first column of the second half is sin(t)."""
        t = torch.tensor([2, 3, 5, 11])
        seen = shaped(student.timestep_embedding(t, 6), (4, 6))
        expected = embedding_oracle(t.tolist(), 6)
        near_table(seen[:, 0], expected[:, 0], "column 0 for d_model = 6")
        near_table(seen[:, 3], expected[:, 3], "column 3 for d_model = 6")

    @weight(2)
    def test_every_column(self, student, seed):
        """The frequencies decrease geometrically from 1 towards 1/10000."""
        draw = Draw(seed)
        d_model, t = 14, draw.integers(1, 400, 9, 2)[:, 0]
        seen = student.timestep_embedding(t, d_model)
        near_table(
            seen, embedding_oracle(t.tolist(), d_model), f"the table for d_model = {d_model}"
        )
        seen = student.timestep_embedding(t[:2], 1030)
        near_table(seen, embedding_oracle(t[:2].tolist(), 1030), "the table for d_model = 1030")

    @weight(1)
    def test_odd_width(self, student, seed):
        """For an odd d_model, the table has the columns for d_model − 1, followed by a column of zeros."""
        t = Draw(seed).integers(1, 300, 5)
        for d_model in (9, 3):
            seen = student.timestep_embedding(t, d_model)
            near_table(
                seen, embedding_oracle(t.tolist(), d_model), f"the table for d_model = {d_model}"
            )

    @weight(0.25)
    def test_one_column(self, student):
        """With d_model = 1, the only column is zero."""
        seen = student.timestep_embedding(torch.tensor([4, 0, 7]), 1)
        near_table(seen, torch.zeros(3, 1, dtype=torch.float64), "the table for d_model = 1")

    @weight(1)
    def test_fractional_steps(self, student, seed):
        """t may be fractional and of any floating-point dtype."""
        t = Draw(seed).uniform(4, low=0.0, high=50.0, dtype=torch.float64) + 0.3
        for dtype in (torch.float32, torch.float64, torch.float16):
            steps = t.to(dtype)
            seen = student.timestep_embedding(steps, 6)
            near_table(seen, embedding_oracle(steps.tolist(), 6), f"the table for t in {dtype}")
        # Angles must not be computed in float16, even if t is float16.
        steps = torch.tensor([200.5, 317.5, 408.5, 650.5, 731.5, 873.5, 999.5]).half()
        what = "the table for large t in float16"
        near_table(student.timestep_embedding(steps, 8), embedding_oracle(steps.tolist(), 8), what)

    @weight(0.75)
    def test_large_steps(self, student):
        """The table is accurate up to t = 10,000, for a single step and for many."""
        t = torch.arange(10_000, 5_000, -160)
        for steps in (t, t.float(), t[:1]):
            seen = student.timestep_embedding(steps, 8)
            what = f"the table for large t of shape ({len(steps)},) in {steps.dtype}"
            near_table(seen, embedding_oracle(steps.tolist(), 8), what)

    @weight(0.5)
    def test_dtype(self, student):
        """The result is float32, whatever the dtype of t, and t is not modified."""
        for dtype in (torch.int64, torch.float32, torch.float64, torch.float16):
            seen = student.timestep_embedding(torch.tensor([1, 2, 5], dtype=dtype), 4)
            unchanged(student)
            shaped(seen, (3, 4), torch.float32, f"the result for t in {dtype}")

    @weight(0.25)
    def test_device(self, student):
        """The result is on the same device as t."""
        t = torch.zeros(3, device="meta")
        on_meta(lambda: student.timestep_embedding(t, 4), (3, 4))

    @weight(0.5)
    def test_gradient(self, student):
        """Gradients flow back to a fractional t."""
        t = torch.tensor([0.4, 1.7, 3.1], requires_grad=True)
        seen = student.timestep_embedding(t, 2)
        backpropagate(seen, torch.tensor([1.0, 0.0]).expand(3, 2).contiguous())
        close(
            leaf_gradient(t, "t"),
            -t.detach().sin(),
            "the gradient of column 0 for d_model = 2",
            atol=2e-3,
        )


# The number of heads differs from the head size, and D, HEADS, D_FF, B and N all differ.
D, HEADS, D_FF, B, N = 6, 3, 10, 2, 5
PARTS = ("shift 1", "scale 1", "gate 1", "shift 2", "scale 2", "gate 2")


def block_weights(draw: Draw, d: int = D, d_ff: int = D_FF) -> dict[str, Tensor]:
    """Return random weights for a `DiTBlock`."""
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


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply layer norm without parameters, then each row's scale and shift, in float64."""
    variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * (1 + scale[:, None]) + shift[:, None]


def attention_oracle(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    """Compute self-attention one head at a time."""
    query, key, value = F.linear(x, w["attention.qkv.weight"], w["attention.qkv.bias"]).chunk(3, -1)
    d_head = x.shape[-1] // heads
    outputs = []
    for head in range(heads):
        q, k, v = (part[..., head * d_head : (head + 1) * d_head] for part in (query, key, value))
        outputs.append((q @ k.transpose(1, 2) / math.sqrt(d_head)).softmax(-1) @ v)
    return F.linear(torch.cat(outputs, -1), w["attention.out.weight"], w["attention.out.bias"])


def block_oracle(
    x: Tensor, condition: Tensor, weights: dict[str, Tensor], heads: int = HEADS
) -> Tensor:
    """Compute a DiT block in float64: x + gate · sublayer(modulate(x)), for attention and then for the network."""
    w = {name: value.double() for name, value in weights.items()}
    x, condition = x.double(), condition.double()
    condition = condition / (1 + (-condition).exp())
    six = F.linear(condition, w["modulation.weight"], w["modulation.bias"])
    shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, dim=-1)
    x = x + gate1[:, None] * attention_oracle(modulate(x, shift1, scale1), w, heads)
    hidden = F.linear(modulate(x, shift2, scale2), w["linear1.weight"], w["linear1.bias"])
    cubed = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
    hidden = hidden * (1 + cubed.tanh()) / 2
    return x + gate2[:, None] * F.linear(hidden, w["linear2.weight"], w["linear2.bias"])


def zero_weights(*linears: str) -> dict[str, Tensor]:
    """Return weights that make these linear layers output 0."""
    width = {"attention.out": D, "linear2": D_FF}
    silent = {f"{linear}.weight": torch.zeros(D, width[linear]) for linear in linears}
    return silent | {f"{linear}.bias": torch.zeros(D) for linear in linears}


class TestDiTBlock:
    exercise = "DiTBlock"

    def _draw(self, student, seed, weights=None):
        """Return a block, its random weights (overridden by `weights`), a random x and a random condition."""
        draw = Draw(seed)
        weights = block_weights(draw) | (weights or {})
        layer = student.DiTBlock(D, HEADS, D_FF).eval()
        layer.load(weights)
        return layer, weights, draw.normal(B, N, D), draw.normal(B, D)

    def _check(self, layer, weights, x, condition, what="the result"):
        # The two forms of GELU differ by less than this tolerance; a separate test checks which one is used.
        expected = block_oracle(x, condition, weights)
        close(layer(x, condition), expected, what, atol=5e-3, dtype=torch.float32)

    @weight(1)
    def test_identity_at_the_start(self, student, seed):
        """A new block returns x unchanged, because the weight and bias of `modulation` are initialised to 0."""
        draw = Draw(seed)
        layer = student.DiTBlock(D, HEADS, D_FF)
        x = draw.normal(B, N, D)
        close(layer(x, draw.normal(B, D)), x, "the result of a new block")
        weights = layer.weights()
        for kind, shape in (("weight", (6 * D, D)), ("bias", (6 * D,))):
            name = f"modulation.{kind}"
            there = ", ".join(f"`{other}`" for other in weights)
            assert name in weights, (
                f"your block should have a parameter `{name}`; it has {there or 'none'}"
            )
            close(weights[name].detach(), torch.zeros(shape), f"`{name}` of a new block")

    @weight(0.75)
    def test_parameters(self, student, seed):
        """Only attention, `linear1`, `linear2` and `modulation` have parameters."""
        layer, weights, _, _ = self._draw(student, seed)
        # One of these parameters may also be registered under a second name, which is recognised by its values.
        known = list(weights.values())
        extra = [
            name
            for name, value in layer.weights().items()
            if not any(value.shape == k.shape and bool((value == k).all()) for k in known)
        ]
        assert not extra, (
            "only attention, linear1, linear2 and modulation should have parameters; your block also has "
            f"{', '.join(extra[:4])}. Do your norms have parameters?"
        )

    @weight(1.25)
    def test_attention_step(self, student, seed):
        """If the feed-forward network outputs 0, the result is x + gate₁ · attention(LN(x) · (1 + scale₁) + shift₁)."""
        self._check(*self._draw(student, seed, zero_weights("linear2")))

    @weight(1.25)
    def test_network_step(self, student, seed):
        """If attention outputs 0, the result is x + gate₂ · network(LN(x) · (1 + scale₂) + shift₂)."""
        self._check(*self._draw(student, seed, zero_weights("attention.out")))

    @weight(1)
    def test_order_of_the_six(self, student, seed):
        """`modulation` outputs shift, scale and gate for attention, then shift, scale and gate for the feed-forward network."""
        layer, weights, x, _ = self._draw(student, seed)
        condition = torch.zeros(B, D)
        for i, part in enumerate(PARTS):
            # Both gates are 1 and the other four parts are 0. Then one of the six parts is increased.
            six = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0])
            six[i] += 0.7
            weights["modulation.bias"] = six.repeat_interleave(D)
            layer.load({"modulation.bias": weights["modulation.bias"]})
            what = f"the result with 0.7 added to part {i + 1} of 6 of modulation's output ({part})"
            self._check(layer, weights, x, condition, what)

    @weight(1)
    def test_whole_block(self, student, seed):
        """The feed-forward network is applied after the output of attention has been added to x."""
        layer, weights, x, condition = self._draw(student, seed)
        self._check(layer, weights, x, condition)
        x, condition = Draw(seed).strided(x), Draw(seed).strided(condition)
        with torch.no_grad():
            self._check(layer, weights, x, condition, "the result for non-contiguous inputs")
        unchanged(student)
        draw = Draw(seed)
        weights, layer = block_weights(draw, 18, 4), student.DiTBlock(18, 9, 4).eval()
        layer.load(weights)
        x, condition = draw.normal(B, N, 18), draw.normal(B, 18)
        expected, what = (
            block_oracle(x, condition, weights, 9),
            "the result for d_model = 18 and n_heads = 9",
        )
        close(layer(x, condition), expected, what, atol=5e-3, dtype=torch.float32)

    @weight(1)
    def test_silu(self, student, seed):
        """silu is applied to the condition before `modulation`, and each row has its own condition."""
        layer, weights, x, _ = self._draw(student, seed)
        signs = torch.tensor([[2.0], [-2.0]])
        condition = signs * Draw(seed).uniform(B, D, low=0.5, high=1.5)
        self._check(layer, weights, x, condition, "the result for positive and negative conditions")
        layer.load({"modulation.bias": torch.zeros(6 * D)})
        weights["modulation.bias"] = torch.zeros(6 * D)
        condition[0] = 0.0
        what = "the result if the first condition and modulation.bias are zero"
        self._check(layer, weights, x, condition, what)

    @weight(0.25)
    def test_one_picture(self, student, seed):
        """The batch size may be 1, or equal to the number of patches per image."""
        layer, weights, x, condition = self._draw(student, seed)
        self._check(layer, weights, x[:1], condition[:1], "the result for one image")
        self._check(
            layer, weights, x[:, :B], condition, f"the result for {B} images of {B} patches"
        )

    @weight(0.75)
    def test_eps(self, student, seed):
        """The norms use eps = 1e-6 inside the square root, which matters when x is small."""
        layer, weights, x, condition = self._draw(student, seed, zero_weights("linear2"))
        expected = block_oracle(1e-3 * x, condition, weights)
        close(layer(1e-3 * x, condition), expected, atol=1e-4, dtype=torch.float32)

    @weight(0.75)
    def test_gelu(self, student, seed):
        """The block uses the tanh approximation of GELU, which differs from the exact form by up to 0.0005."""
        layer, weights, x, condition = self._draw(student, seed, zero_weights("attention.out"))
        # The two forms of GELU differ most at these hidden values.
        hidden = {"linear1.weight": torch.zeros(D_FF, D), "linear1.bias": torch.full((D_FF,), 2.2)}
        hidden["linear1.bias"][::2] *= -1
        hidden["linear2.weight"] = Draw(seed).uniform(D, D_FF, low=1.0, high=2.0)
        # All gates are 1, because a small gate would hide the difference.
        hidden |= {"modulation.weight": torch.zeros(6 * D, D), "modulation.bias": torch.ones(6 * D)}
        layer.load(hidden)
        expected = block_oracle(x, condition, weights | hidden)
        close(layer(x, condition), expected, atol=2e-4, dtype=torch.float32)

    @weight(0.75)
    def test_dtypes(self, student, seed):
        """The block works in half and double precision, and the result has the dtype of x."""
        layer, weights, x, condition = self._draw(student, seed)
        for dtype, tolerance in (*HALVES, (torch.float64, 1e-4)):
            small = {name: (value / 2).to(dtype) for name, value in weights.items()}
            inputs = x.to(dtype), condition.to(dtype)
            layer.to(torch.float32).load({name: value.float() for name, value in small.items()})
            expected = shaped(layer(*(part.float() for part in inputs)), x.shape)
            finite(expected, "the result in float32")
            layer.to(dtype).load(small)
            what = f"the result in {dtype}, compared with float32"
            close(layer(*inputs), expected, what, tolerance, tolerance, dtype)

    @weight(0.5)
    def test_gradients(self, student, seed):
        """Gradients reach x, the condition and every parameter; the result is the same in training and evaluation mode."""
        layer, weights, x, condition = self._draw(student, seed)
        close(
            layer.eval()(x, condition),
            finite(layer.train()(x, condition), "the result in training mode"),
            "the result in evaluation mode, compared with training mode",
        )
        leaves = layer.weights()
        x.requires_grad_()
        condition.requires_grad_()
        backpropagate(layer(x, condition), Draw(seed).normal(B, N, D))
        for leaf, name in ((x, "x"), (condition, "condition")):
            assert leaf_gradient(leaf, name).abs().max() > 0, f"the gradient of {name} is zero"
        for name in weights:
            found = leaf_gradient(leaves[name], f"`{name}`")
            assert found.abs().max() > 0, f"the gradient of `{name}` is zero"


class Denoiser(nn.Module):
    """A model that predicts the noise for each row from that row's x, t and label, and records how it is called."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape = shape
        self._rows = 0
        self._labels: list[int] = []

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        # `shaped` would always show len(x), although a reference may have computed it.
        is_batch = isinstance(x, Tensor) and x.shape[1:] == self._shape[1:]
        assert is_batch, (
            f"each row of the x passed to the model should have shape {self._shape[1:]}, but x is {describe(x)}"
        )
        for name, value in (("t", t), ("labels", labels)):
            is_vector = isinstance(value, Tensor) and value.shape == x.shape[:1]
            is_right = is_vector and value.dtype == torch.int64
            assert is_right, (
                f"the {name} passed to the model should be an int64 tensor with one value per row of x, "
                f"but it is {describe(value)}"
            )
        self._rows += len(x)
        self._labels += labels.tolist()
        return self._predict(x, t, labels)

    def _predict(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        ones = [1] * (x.dim() - 1)
        label, step = labels.to(x.dtype).reshape(-1, *ones), t.to(x.dtype).reshape(-1, *ones)
        return torch.sin(x + label) * 2 + x * torch.cos(step + label)


class Elsewhere(nn.Module):
    """A model that returns x after checking that all its inputs are on the same device."""

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        for name, value in (("t", t), ("labels", labels)):
            assert value.device == x.device, (
                f"the x passed to the model is on {x.device}, but {name} is on {value.device}"
            )
        return x


def guidance_oracle(x: Tensor, t: Tensor, labels: Tensor, scale: float, null_label: int) -> Tensor:
    """Apply the guidance formula to the predictions of `Denoiser`."""
    predict = Denoiser(tuple(x.shape))._predict
    unconditional = predict(x, t, torch.full_like(labels, null_label))
    return unconditional + scale * (predict(x, t, labels) - unconditional)


class TestGuidedNoise:
    exercise = "guided_noise"

    def _guide(self, student, x, *more, any_axes=True):
        """Return the student's result and the model that was called. `more` contains the arguments after x."""
        models = []

        def guide(x: Tensor, *more) -> Tensor:
            models.append(Denoiser(tuple(x.shape)))
            return student.guided_noise(models[-1], x, *more)

        seen = (later_axes(guide, 0) if any_axes else guide)(x, *more)
        return seen, models[-1]

    def _check(self, student, inputs, scale, null_label, what="the result", any_axes=True):
        arguments = (*inputs, scale, null_label)
        seen, model = self._guide(student, *arguments, any_axes=any_axes)
        close(seen, guidance_oracle(*arguments), what, atol=1e-4)
        return model

    def _draw(self, seed, *shape):
        """Return a random x, random steps t and random labels.

        No label is 8, so the null label (9) is not the largest label plus 1.
        """
        draw = Draw(seed)
        return draw.normal(*shape), draw.integers(1, 50, shape[0]), draw.integers(0, 8, shape[0])

    @weight(1)
    def test_with_and_without_labels(self, student, seed):
        """A scale of 1 gives the prediction with labels, and a scale of 0 gives the prediction with the null label."""
        inputs = self._draw(seed, 1, 5)
        self._check(student, inputs, 1.0, 9, "the result for scale = 1")
        self._check(student, inputs, 0.0, 9, "the result for scale = 0")

    @weight(1.5)
    def test_scales(self, student, seed):
        """The result is ε(null) + scale · (ε(labels) − ε(null)), for scales below 0, between 0 and 1, and above 1."""
        inputs = self._draw(seed, 1, 5)
        for scale in (2.5, 0.3, 7.0, -1.5):
            self._check(student, inputs, scale, 9, f"the result for scale = {scale:g}")

    @weight(1.5)
    def test_rows(self, student, seed):
        """The noise for each row is predicted from that row's own x, t and label."""
        for shape in ((3, 5), (4, 4), (5, 2, 3)):
            inputs = self._draw(seed, *shape)
            self._check(student, inputs, 1.7, 9, f"the result for shape {shape}")

    @weight(1)
    def test_null_label(self, student, seed):
        """`null_label` may be any integer, even one that also occurs in `labels`."""
        x, t, labels = self._draw(seed, 4, 3)
        labels[1] = 4
        for null_label in (4, 0, 12, -1):
            what = f"the result for null_label = {null_label} and labels {labels.tolist()}"
            self._check(student, (x, t, labels), 2.5, null_label, what)

    @weight(1)
    def test_axes(self, student, seed):
        """Guidance applies to all entries of x; x may have any number of axes after the first, including none."""
        for shape in ((3, 6, 2, 4), (4,), (3, 5), (2, 1, 7)):
            inputs = self._draw(seed, *shape)
            self._check(student, inputs, -2.0, 11, f"the result for shape {shape}", any_axes=False)

    @weight(0.75)
    def test_calls(self, student, seed):
        """The model predicts each row's noise once with the row's label and once with the null label, in one or two calls."""
        x, t, labels = self._draw(seed, 3, 4)
        model = self._check(student, (x, t, labels), 3.0, 9)
        assert model._rows == 6, (
            f"for a batch of 3, the model should be called on 6 rows in total, not {model._rows}"
        )
        assert model._labels.count(9) == 3, (
            f"3 of the 6 rows should have the null label, not {model._labels.count(9)}"
        )

    @weight(1)
    def test_gradients(self, student, seed):
        """Gradients flow through both the prediction with labels and the prediction with the null label."""
        x, t, labels = self._draw(seed, 3, 4)
        x.requires_grad_()
        upstream = Draw(seed).normal(3, 4)
        seen, _ = self._guide(student, x, t, labels, 2.5, 9)
        backpropagate(seen, upstream)
        copy = x.detach().clone().requires_grad_()
        backpropagate(guidance_oracle(copy, t, labels, 2.5, 9), upstream)
        close(leaf_gradient(x, "x"), copy.grad, "the gradient of x", atol=1e-4)

    @weight(0.5)
    def test_arguments_unchanged(self, student, seed):
        """The arguments (including the labels) and the model's mode are not changed, and the result has the dtype of x."""
        x, t, labels = self._draw(seed, 3, 4)
        for dtype, tolerance, training in (
            (torch.float64, 1e-6, True),
            (torch.float16, 5e-2, False),
        ):
            inputs, model = Draw(seed).strided(x.to(dtype)), Denoiser((3, 4)).train(training)
            seen = student.guided_noise(model, inputs, t, labels, 2.0, 9)
            unchanged(student)
            before, after = (
                "training" if mode else "evaluation" for mode in (training, model.training)
            )
            assert before == after, (
                f"the model was in {before} mode before the call but in {after} mode after it"
            )
            expected = guidance_oracle(inputs.double(), t, labels, 2.0, 9)
            close(seen, expected, f"the result in {dtype}", tolerance, tolerance, dtype)

    @weight(0.25)
    def test_device(self, student):
        """The null labels and the result are on the same device as x."""
        x = torch.zeros(3, 4, device="meta")
        rows = torch.zeros(3, dtype=torch.long, device="meta")
        on_meta(lambda: student.guided_noise(Elsewhere(), x, rows, rows, 2.0, 9), (3, 4))


def ddim_oracle(x: Tensor, noise: Tensor, here: list[float], there: list[float]) -> Tensor:
    """Compute the deterministic DDIM step row by row, in float64."""
    rows = []
    for row, epsilon, a, b in zip(x.double(), noise.double(), here, there, strict=True):
        picture = (row - math.sqrt(1 - a) * epsilon) / math.sqrt(a)
        rows.append(math.sqrt(b) * picture + math.sqrt(1 - b) * epsilon)
    return torch.stack(rows)


def ddim_step(student):
    """Return the student's function, for code that supports only some numbers of axes or only tensors as ᾱ."""
    step = later_axes(student.ddim_step, 0, 1)

    def call(x: Tensor, noise: Tensor, *alphas: float) -> Tensor:
        one = [torch.tensor(float(alpha)) for alpha in alphas]
        forms = (alphas, one, [alpha.repeat(len(x)) for alpha in one])
        return first_supported([partial(step, x, noise, *form) for form in forms], x.dim())

    return call


class TestDDIMStep:
    exercise = "ddim_step"

    @weight(2)
    def test_step(self, student, seed):
        """The result is √ᾱ′ · x̂₀ + √(1 − ᾱ′) · ε, for ᾱ′ above, below and equal to ᾱ."""
        draw = Draw(seed)
        x, noise = draw.normal(3, 5), draw.normal(3, 5)
        for here, there in ((0.3, 0.7), (0.45, 0.5), (0.8, 0.15), (0.6, 0.6)):
            expected = ddim_oracle(x, noise, [here] * 3, [there] * 3)
            what = f"the result from ᾱ = {here} to ᾱ′ = {there}"
            close(ddim_step(student)(x, noise, here, there), expected, what, dtype=torch.float32)

    @weight(1)
    def test_last_step(self, student, seed):
        """For ᾱ′ = 1, the result is x̂₀, not clamped to ±1. With the true noise, x̂₀ is the original image."""
        draw = Draw(seed)
        picture, noise = draw.normal(2, 7, scale=2.0), draw.normal(2, 7)
        x = math.sqrt(0.4) * picture + math.sqrt(0.6) * noise
        for one in (1.0, 1):
            seen = ddim_step(student)(x, noise, 0.4, one)
            close(seen, picture, f"the result from ᾱ = 0.4 to ᾱ′ = {one}", atol=1e-4)

    @weight(0.25)
    def test_no_noise(self, student, seed):
        """For ᾱ = 1, x contains no noise, so x̂₀ is x."""
        draw = Draw(seed)
        x, noise = draw.normal(2, 7), draw.normal(2, 7)
        expected = ddim_oracle(x, noise, [1.0] * 2, [0.5] * 2)
        seen = ddim_step(student)(x, noise, 1.0, 0.5)
        close(seen, expected, "the result from ᾱ = 1 to ᾱ′ = 0.5", dtype=torch.float32)

    @weight(1)
    def test_without_axes(self, student, seed):
        """ᾱ and ᾱ′ may be zero-dimensional tensors."""
        draw = Draw(seed)
        x, noise = draw.normal(3, 5), draw.normal(3, 5)
        here, there = torch.tensor(0.2), torch.tensor(0.55)
        expected = ddim_oracle(x, noise, [0.2] * 3, [0.55] * 3)
        seen = later_axes(student.ddim_step, 0, 1)(x, noise, here, there)
        close(seen, expected, "the result for ᾱ and ᾱ′ as tensors", dtype=torch.float32)
        seen = later_axes(student.ddim_step, 0, 1)(x, noise, 0.2, there)
        close(seen, expected, "the result if ᾱ is a number and ᾱ′ is a tensor", dtype=torch.float32)

    @weight(1.5)
    def test_one_a_row(self, student, seed):
        """ᾱ and ᾱ′ may have one value per row of x, even if x has as many rows as columns."""
        draw = Draw(seed)
        for shape in ((3, 5), (4, 4)):
            x, noise = draw.normal(*shape), draw.normal(*shape)
            here = draw.uniform(shape[0], low=0.2, high=0.5)
            there = draw.uniform(shape[0], low=0.5, high=1.0)
            expected = ddim_oracle(x, noise, here.tolist(), there.tolist())
            seen = later_axes(student.ddim_step, 0, 1)(x, noise, here, there)
            what = f"the result for shape {shape} with ᾱ and ᾱ′ per row"
            close(seen, expected, what, dtype=torch.float32)
            expected = ddim_oracle(x, noise, here.tolist(), [1.0] * shape[0])
            seen = later_axes(student.ddim_step, 0, 1)(x, noise, here, 1.0)
            close(
                seen,
                expected,
                f"the result for shape {shape} with ᾱ per row and ᾱ′ = 1",
                atol=1e-4,
                dtype=torch.float32,
            )
            expected = ddim_oracle(x, noise, [0.3] * shape[0], there.tolist())
            seen = later_axes(student.ddim_step, 0, 1)(x, noise, 0.3, there)
            close(
                seen,
                expected,
                f"the result for shape {shape} with ᾱ = 0.3 and ᾱ′ per row",
                dtype=torch.float32,
            )

    @weight(1)
    def test_axes(self, student, seed):
        """x may have any number of axes after the first, including none."""
        draw = Draw(seed)
        for shape in ((4,), (3, 5), (2, 3, 5, 4), (3, 2, 3), (1, 1, 3)):
            x, noise = draw.normal(*shape), draw.normal(*shape)
            here = draw.uniform(shape[0], low=0.2, high=0.9)
            expected = ddim_oracle(x, noise, here.tolist(), [0.7] * shape[0])
            seen = student.ddim_step(x, noise, here, torch.full((shape[0],), 0.7))
            close(seen, expected, f"the result for shape {shape}", dtype=torch.float32)
            expected = ddim_oracle(x, noise, [0.5] * shape[0], [0.7] * shape[0])
            seen = student.ddim_step(x, noise, 0.5, 0.7)
            what = f"the result for shape {shape} with ᾱ and ᾱ′ as numbers"
            close(seen, expected, what, dtype=torch.float32)

    @weight(0.5)
    def test_much_noise(self, student, seed):
        """If x is almost pure noise, x̂₀ is large but accurate."""
        draw = Draw(seed)
        noise = draw.normal(3, 5)
        # Every entry of x̂₀ has an absolute value above 49.
        x = noise + torch.where(draw.mask(3, 5), 1.0, -1.0) * draw.uniform(3, 5, low=0.5, high=1.5)
        # The cosine schedule of 1,000 steps ends at ᾱ = 2.4e-9.
        for here, there in ((1e-4, 0.02), (2.4e-9, 0.9)):
            expected = ddim_oracle(x, noise, [here] * 3, [there] * 3)
            what = f"the result from ᾱ = {here} to ᾱ′ = {there}"
            seen = ddim_step(student)(x, noise, here, there)
            close(seen, expected, what, atol=1e-3, rtol=1e-3, dtype=torch.float32)

    @weight(1)
    def test_dtypes(self, student, seed):
        """The result has the dtype of x, whatever the dtype of ᾱ."""
        draw = Draw(seed)
        x, noise = (draw.normal(3, 4, dtype=torch.float64) for _ in range(2))
        here, there = torch.tensor([0.5, 0.7, 0.35]), torch.tensor([0.6, 1.0, 0.4])
        # For a float64 x, float32 square roots of a float32 ᾱ are accepted.
        for dtype, tolerance in (*HALVES, (torch.float64, 1e-6)):
            rows, epsilon = x.to(dtype), noise.to(dtype)
            expected = ddim_oracle(rows, epsilon, here.tolist(), there.tolist())
            seen = later_axes(student.ddim_step, 0, 1)(rows, epsilon, here, there)
            close(seen, expected, f"the result in {dtype}", tolerance, tolerance, dtype)
        expected = ddim_oracle(x.float(), noise.float(), here.tolist(), there.tolist())
        seen = later_axes(student.ddim_step, 0, 1)(
            x.float(), noise.float(), here.double(), there.double()
        )
        close(seen, expected, "the result with ᾱ in float64", dtype=torch.float32)

    @weight(0.25)
    def test_device(self, student):
        """If ᾱ and ᾱ′ are numbers, the result is on the same device as x."""
        x = torch.zeros(3, 4, device="meta")
        on_meta(lambda: ddim_step(student)(x, x, 0.5, 0.7), (3, 4))

    @weight(0.5)
    def test_arguments_unchanged(self, student, seed):
        """The arguments are not modified, and they may be non-contiguous."""
        draw = Draw(seed)
        x, noise = (draw.strided(draw.normal(3, 2, 4)) for _ in range(2))
        here, there = torch.tensor([0.5, 0.7, 0.3]), torch.tensor([0.6, 0.9, 0.4])
        seen = later_axes(student.ddim_step, 0, 1)(x, noise, here, there)
        unchanged(student)
        close(seen, ddim_oracle(x, noise, here.tolist(), there.tolist()), dtype=torch.float32)

    @weight(0.5)
    def test_gradients(self, student, seed):
        """The gradients of x and predicted_noise are correct, and they are finite even for ᾱ′ = 1."""
        draw = Draw(seed)
        for there in (0.64, 1.0):
            x, noise = (draw.normal(2, 3).requires_grad_() for _ in range(2))
            backpropagate(ddim_step(student)(x, noise, 0.25, there), torch.ones(2, 3))
            kept = math.sqrt(there / 0.25)
            expected = torch.full((2, 3), kept)
            close(leaf_gradient(x, "x"), expected, f"the gradient of x for ᾱ′ = {there}")
            expected.fill_(math.sqrt(1 - there) - kept * math.sqrt(0.75))
            seen = leaf_gradient(noise, "predicted_noise")
            close(seen, expected, f"the gradient of predicted_noise for ᾱ′ = {there}")
