"""Check the reference solutions for diffusion against independent, more precise implementations of the papers' formulas."""

from __future__ import annotations

import math
import re
from decimal import Decimal, localcontext
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from solutions.day2 import diffusion
from solutions.day2.diffusion import (
    DiTBlock,
    add_noise,
    cosine_schedule,
    ddim_step,
    guided_noise,
    timestep_embedding,
)

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


def cosine(angle: Decimal) -> Decimal:
    """Compute the cosine from its power series, to the precision of the decimal context."""
    term, total, n = Decimal(1), Decimal(0), 0
    while total + term != total:
        total += term
        n += 2
        term *= -angle * angle / (n * (n - 1))
    return total


def exact_schedule(n_steps: int) -> list[Decimal]:
    """Compute ᾱ to 60 digits from the product in Nichol and Dhariwal (2021), section 3.2."""
    with localcontext() as context:
        context.prec = 60
        offset, one = Decimal("0.008"), Decimal(1)
        f = [
            cosine((Decimal(t) / n_steps + offset) / (one + offset) * PI / 2) ** 2
            for t in range(n_steps + 1)
        ]
        found = [one]
        for t in range(1, n_steps + 1):
            beta = min(one - f[t] / f[t - 1], Decimal("0.999"))
            found.append(found[-1] * (one - beta))
        return found


@pytest.mark.parametrize("n_steps", [1, 2, 3, 50, 1000])
def test_cosine_schedule_matches_60_digits(n_steps: int) -> None:
    exact = torch.tensor([float(value) for value in exact_schedule(n_steps)], dtype=torch.float64)
    seen = cosine_schedule(n_steps)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.double(), exact, rtol=1e-6, atol=0)


def ada_ln_zero(block: DiTBlock, heads: int, x: Tensor, c: Tensor) -> Tensor:
    """Compute the adaLN-Zero block from Peebles and Xie (2022), figure 3, in float64 and with explicit loops."""
    w: dict[str, Tensor] = {
        name: weight.detach().double() for name, weight in block.named_parameters()
    }
    x, c, d = x.double(), c.double(), x.shape[-1]

    def linear(name: str, v: Tensor) -> Tensor:
        return w[f"{name}.weight"] @ v + w[f"{name}.bias"]

    def norm(v: Tensor) -> Tensor:
        centred = v - v.sum() / d
        return centred / math.sqrt(float((centred**2).sum()) / d + 1e-6)

    def gelu(v: Tensor) -> Tensor:
        return v / (1 + (-2 * math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)).exp())

    def attention(sequence: list[Tensor]) -> list[Tensor]:
        qkv = [linear("attention.qkv", v) for v in sequence]
        size = d // heads
        found = []
        for mine in qkv:
            received = []
            for start in range(0, d, size):
                part = slice(start, start + size)
                scores = [mine[:d][part] @ other[d : 2 * d][part] for other in qkv]
                e = [math.exp(float(score) / math.sqrt(size)) for score in scores]
                values = [other[2 * d :][part] for other in qkv]
                weighted = (a / sum(e) * v for a, v in zip(e, values, strict=True))
                received.append(sum(weighted, torch.zeros(size, dtype=torch.float64)))
            found.append(linear("attention.out", torch.cat(received)))
        return found

    rows = []
    for row, condition in zip(x, c, strict=True):
        six = linear("modulation", condition * torch.sigmoid(condition))
        beta1, gamma1, alpha1, beta2, gamma2, alpha2 = (six[i * d : (i + 1) * d] for i in range(6))
        first = attention([norm(v) * (1 + gamma1) + beta1 for v in row])
        row = [v + alpha1 * a for v, a in zip(row, first, strict=True)]
        second = [linear("linear1", norm(v) * (1 + gamma2) + beta2) for v in row]
        second = [linear("linear2", gelu(hidden)) for hidden in second]
        rows.append(torch.stack([v + alpha2 * n for v, n in zip(row, second, strict=True)]))
    return torch.stack(rows)


@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize(("b", "n", "d", "heads", "d_ff"), [(2, 5, 12, 3, 7), (1, 1, 4, 1, 9)])
def test_block_matches_the_paper(
    b: int, n: int, d: int, heads: int, d_ff: int, scale: float
) -> None:
    torch.manual_seed(0)
    block = DiTBlock(d, heads, d_ff).double()
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.5)
    x = scale * torch.randn(b, n, d, dtype=torch.float64)
    condition = torch.randn(b, d, dtype=torch.float64)
    expected = ada_ln_zero(block, heads, x, condition)
    torch.testing.assert_close(block(x, condition), expected, rtol=1e-10, atol=1e-10)


def test_zero_initialised_block_learns() -> None:
    """In the first training step, only `modulation` gets a nonzero gradient; in the second step, every layer does."""
    torch.manual_seed(0)
    block, x, condition = DiTBlock(6, 2, 9), torch.randn(3, 4, 6), torch.randn(3, 6)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for expected in ({"modulation"}, {"modulation", "attention", "linear1", "linear2"}):
        optimizer.zero_grad()
        block(x, condition).square().sum().backward()
        found = {
            name.split(".")[0]
            for name, weight in block.named_parameters()
            if weight.grad is not None and weight.grad.abs().max() > 0
        }
        assert found == expected
        optimizer.step()


steps = st.integers(1, 200)


@settings(deadline=None, max_examples=40)
@given(steps, st.integers(0, 10_000), st.lists(st.integers(1, 4), max_size=3), st.data())
def test_ddim_step_with_true_noise_matches_add_noise(
    n_steps: int, seed: int, axes: list[int], data: st.DataObject
) -> None:
    """Given the true noise, a DDIM step returns the same result as `add_noise` at the new step."""
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(3, *axes, generator=generator, dtype=torch.float64) for _ in range(2))
    alpha_bar = cosine_schedule(n_steps).double()
    here, there = (
        torch.tensor(data.draw(st.lists(st.integers(0, n_steps), min_size=3, max_size=3)))
        for _ in range(2)
    )
    seen = ddim_step(
        add_noise(x0, here, noise, alpha_bar), noise, alpha_bar[here], alpha_bar[there]
    )
    # If √ᾱ is small, rounding errors in the recovered image are large.
    atol = 1e-13 / float(alpha_bar[here].sqrt().min())
    torch.testing.assert_close(
        seen, add_noise(x0, there, noise, alpha_bar), rtol=1e-9, atol=max(atol, 1e-12)
    )


def test_small_ddim_steps_with_true_noise_recover_the_picture() -> None:
    torch.manual_seed(0)
    x0, noise = torch.randn(2, 1, 4, 4).double(), torch.randn(2, 1, 4, 4).double()
    alpha_bar = cosine_schedule(100).double()
    x = add_noise(x0, torch.tensor([98, 98]), noise, alpha_bar)
    for t in range(98, 0, -1):
        x = ddim_step(x, noise, alpha_bar[t], alpha_bar[t - 1])
    torch.testing.assert_close(x, x0, rtol=1e-9, atol=1e-9)


def test_add_noise_preserves_variance() -> None:
    """If images have variance 1, their noisy versions have variance 1 at every step."""
    torch.manual_seed(0)
    alpha_bar = cosine_schedule(10)
    x0, noise = torch.randn(11, 40_000), torch.randn(11, 40_000)
    variance = add_noise(x0, torch.arange(11), noise, alpha_bar).var(dim=1)
    torch.testing.assert_close(variance, torch.ones(11), rtol=0, atol=0.05)


def test_timestep_similarity_depends_on_distance() -> None:
    """The dot product of two timestep embeddings depends only on the distance between the timesteps."""
    table = timestep_embedding(torch.arange(500), 32).double()
    similarity = table @ table.T
    for distance in (1, 7, 100):
        along = similarity.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-3)


def test_the_animation_has_names_for_screen_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []
    monkeypatch.setattr(diffusion, "get_ipython", object)
    monkeypatch.setattr(diffusion, "display", lambda page: pages.append(page.data))
    diffusion.show_animation([torch.zeros(20, 100)] * 2, ["first", "second"])
    controls = re.findall(r'<(?:img|input)[^>]*id="_anim_(?:img|slider)[^>]*>', pages[0])
    assert len(controls) == 2
    assert all(re.search(r'(?:alt|aria-label)="\w', control) for control in controls)


class Linear(nn.Module):
    """A model that multiplies `x` by the label."""

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return x * labels.reshape(-1, 1).to(x.dtype)


def test_guided_noise_is_linear_in_scale() -> None:
    x, t, labels = torch.ones(3, 2), torch.zeros(3, dtype=torch.int64), torch.tensor([1, 4, 6])
    at = [guided_noise(Linear(), x, t, labels, scale, 10) for scale in (-1.0, 0.0, 1.0, 4.0)]
    torch.testing.assert_close(at[1], torch.full((3, 2), 10.0))
    torch.testing.assert_close(at[2], labels.float().reshape(3, 1).expand(3, 2))
    torch.testing.assert_close(at[0] + at[2], 2 * at[1])
    torch.testing.assert_close(at[3] - at[1], 4 * (at[2] - at[1]))


def test_ddim_with_optimal_denoiser_samples_the_data() -> None:
    """Sample with the exact denoiser for data in {−1, +1}. Samples should be close to −1 or +1, equally often."""
    torch.manual_seed(0)
    alpha_bar = cosine_schedule(200).double()
    x = torch.randn(2000, dtype=torch.float64)
    for here, there in pairwise(alpha_bar[:196].flip(0)):
        mean = torch.tanh(here.sqrt() * x / (1 - here))
        x = ddim_step(x, (x - here.sqrt() * mean) / (1 - here).sqrt(), here, there)
    assert (x.abs() - 1).abs().quantile(0.99) < 0.01
    assert abs((x > 0).double().mean() - 0.5) < 0.05
