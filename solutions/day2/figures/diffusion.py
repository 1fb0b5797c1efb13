"""Draw the figures for the diffusion chapter. `python -m solutions.day2.figures.diffusion` writes them beside this file."""

from __future__ import annotations

import math
import random
from pathlib import Path

from solutions.drawing import BLUE, GREEN, GREY, ORANGE, PINK, Figures, Picture

figure = Figures(Path(__file__).parent)

# Image 16 of scikit-learn's digits: 8 rows of 8 grey values from 0 to g (16).
SIX = "0008f100000ce000003g7000006g2000007ggd5000fg99e0003e92g20007fgb0"
PIXELS = ["0123456789abcdefg".index(character) / 8 - 1 for character in SIX]


def alpha_bar(t: float) -> float:
    """Return ᾱ(t), the fraction of the image's variance that remains at step t < 1000 of a 1,000-step cosine schedule."""

    def f(t: float) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    return f(t) / f(0)


@figure
def chain() -> Picture:
    """Draw a digit at five noise levels, with one arrow for adding noise and one for removing it."""
    picture = Picture(700, 238)
    rng = random.Random(0)
    noise = [rng.gauss(0, 1) for _ in PIXELS]
    steps = (0, 250, 500, 750, 999)
    picture.line([(60, 44), (640, 44)], colour=ORANGE, width=2)
    text = "`add_noise`: adds noise (nothing to learn)"
    picture.text(350, 34, text, colour=ORANGE)
    for number, t in enumerate(steps):
        left, kept = 30 + number * 136, alpha_bar(t)
        grey = [
            math.sqrt(kept) * pixel + math.sqrt(1 - kept) * epsilon
            for pixel, epsilon in zip(PIXELS, noise, strict=True)
        ]
        fills = [[_grey(value) for value in grey[row : row + 8]] for row in range(0, 64, 8)]
        picture.grid(left, 60, [[""] * 8] * 8, cell=(12, 12), colour="#888", fills=fills)
        picture.text(left + 48, 174, f"*t* = {1000 if t == 999 else t}", size=13)
    picture.line([(640, 196), (60, 196)], colour=BLUE, width=2)
    text = "`ddim_step`: removes the noise that the network predicts"
    picture.text(350, 220, text, colour=BLUE)
    return picture


def _grey(value: float) -> str:
    channel = round(255 * (max(-1.0, min(1.0, value)) + 1) / 2)
    return f"#{channel:02x}{channel:02x}{channel:02x}"


@figure
def dit_block() -> Picture:
    """Draw a DiT block: the residual stream, two branches, and the six vectors computed from the condition."""
    picture = Picture(700, 356)
    stream = 56
    picture.text(30, stream + 5, "*x*", size=16)
    picture.text(30, stream + 26, "*b n d*", size=12, colour=GREY)
    picture.line([(44, stream), (676, stream)], width=2.4)
    names = []
    for left, step, colour, index in ((62, "attention", BLUE, "1"), (376, "network", GREEN, "2")):
        y = 110
        picture.line([(left, stream), (left, y + 16), (left + 13, y + 16)])
        picture.box(left + 16, y, 34, 32, "LN", colour=PINK, size=13)
        picture.line([(left + 50, y + 16), (left + 61, y + 16)])
        text = f"· (1 + scale_{{{index}}})\n+ shift_{{{index}}}"
        picture.box(left + 64, y - 8, 86, 48, text, colour=PINK, size=12)
        picture.line([(left + 150, y + 16), (left + 161, y + 16)])
        picture.box(left + 164, y, 68, 32, step, colour=colour, size=13)
        picture.line([(left + 232, y + 16), (left + 242, y + 16)])
        picture.box(left + 245, y, 52, 32, f"· gate_{{{index}}}", colour=PINK, size=12)
        picture.line([(left + 271, y), (left + 271, stream + 13)])
        picture.plus(left + 271, stream)
        for name, x in (("shift", left + 88), ("scale", left + 126), ("gate", left + 271)):
            names.append((f"{name}_{{{index}}}", x))
    for number, (name, x) in enumerate(names):
        top = 153 if number % 3 < 2 else 145
        start = 124 + number * 91
        picture.box(start - 34, 226, 68, 28, name, colour=PINK, size=13)
        picture.line([(start, 226), (x, top)], colour=PINK, width=1.2)
    picture.text(90, 274, "six vectors, each *b* 1 *d*", at="start", size=12, colour=PINK)
    picture.box(250, 300, 76, 32, "silu", colour=GREY, size=13)
    picture.box(366, 300, 104, 32, "`modulation`", colour=PINK, size=13)
    picture.text(150, 320, "condition", size=14, colour=ORANGE)
    picture.text(150, 340, "*b d*:  step and label", size=12, colour=GREY)
    picture.line([(206, 316), (247, 316)])
    picture.line([(326, 316), (363, 316)])
    picture.line([(418, 300), (418, 262)], colour=PINK)
    picture.text(430, 284, "*b* 6*d*, split into six", at="start", size=12, colour=GREY)
    picture.text(488, 320, "zero at initialisation", at="start", size=13, colour=PINK)
    return picture


@figure
def guidance() -> Picture:
    """Draw the predictions with and without a label, and extrapolated predictions on the line through both."""
    picture = Picture(700, 214)
    start, end = (110.0, 150.0), (290.0, 120.0)
    step = (end[0] - start[0], end[1] - start[1])
    points = [(start[0] + s * step[0], start[1] + s * step[1]) for s in range(4)]
    picture.line([points[0], points[3]], colour=GREY, dashed=True, arrow=False)
    picture.line([points[0], points[1]], colour=ORANGE, width=2.4)
    picture.line([points[1], points[2]], colour=BLUE, width=2.4)
    picture.line([points[2], points[3]], colour=BLUE, width=2.4)
    for s, (x, y) in enumerate(points):
        picture.circle(x, y, 5, colour=BLUE if s > 1 else ORANGE, fill="#fff")
        picture.text(x, y - 18, f"*s* = {s}", bold=True)
    picture.text(points[0][0], points[0][1] + 28, "ε without label", size=13)
    picture.text(points[1][0], points[1][1] + 28, "ε with label 7", size=13)
    picture.text(points[2][0], points[2][1] + 28, "even more of a 7", size=13)
    picture.text(200, 198, "the difference that the label makes …", colour=ORANGE, size=13)
    picture.text(520, 198, "… extrapolated", colour=BLUE, size=13)
    picture.text(20, 30, "Predictions of the noise in the same image at the same step", at="start")
    return picture


@figure
def ddim() -> Picture:
    """Draw one step: remove all noise, then add back part of it."""
    picture = Picture(700, 216)
    picture.text(20, 30, "One step, from more noise to less", at="start", bold=True)
    picture.line([(60, 150), (660, 150)], colour=GREY, arrow=False)
    for x, name, below in (
        (130, "*x*", "ᾱ: more noise"),
        (330, "*x*′", "ᾱ′: less noise"),
        (600, "x̂₀", "1: the image"),
    ):
        picture.circle(x, 150, 6, colour=BLUE, fill="#fff")
        picture.text(x, 176, name, size=16)
        picture.text(x, 198, below, size=13, colour=GREY)
    picture.line([(130, 142), (180, 80), (550, 80), (594, 140)], colour=ORANGE)
    picture.text(365, 70, "1. remove all of ε", colour=ORANGE)
    picture.line([(590, 146), (540, 116), (390, 116), (340, 144)], colour=BLUE)
    picture.text(465, 106, "2. add back part of ε", colour=BLUE)
    return picture


if __name__ == "__main__":
    figure.save()
