"""Draw the figures for the vision chapter. `python -m solutions.day2.figures.vision` writes them beside this file."""

from __future__ import annotations

import math
from pathlib import Path

from sklearn.datasets import load_digits

from solutions.drawing import BLUE, GREEN, GREY, ORANGE, PALE, PINK, Figures, Picture

figure = Figures(Path(__file__).parent)


@figure
def vit() -> Picture:
    """Draw a ViT from the image to the logits."""
    picture = Picture(700, 300)
    pixels = load_digits().images[7] / 16
    left, top, side = 20, 96, 13
    picture.text(left + 4 * side, 76, "image", bold=True)
    shades = [["#" + f"{round(255 - 215 * p):02x}" * 3 for p in row] for row in pixels]
    blank = [[""] * 8] * 8
    picture.grid(left, top, blank, cell=(side, side), colour=PALE[GREY], fills=shades)
    for i in range(1, 4):
        at = 2 * i * side
        for ends in (
            [(left + at, top), (left + at, top + 8 * side)],
            [(left, top + at), (left + 8 * side, top + at)],
        ):
            picture.line(ends, colour=ORANGE, arrow=False)
    picture.text(left + 4 * side, 222, "*b* × *c* × *H* × *W*", size=12)

    # Patches, tokens and outputs each form a column. The rows are for the class token and patches 0, 1, 2, …, N − 1.
    rows = (52, 94, 136, 178, 232)
    picture.line([(132, 148), (162, 148)])
    picture.text(147, 138, "cut", size=12)
    picture.text(183, 76, "patches", bold=True)
    for place, y in ((0, rows[1]), (1, rows[2]), (2, rows[3]), (15, rows[4])):
        r, s = divmod(place, 4)
        patch = [row[2 * s : 2 * s + 2] for row in shades[2 * r : 2 * r + 2]]
        picture.grid(170, y, [[""] * 2] * 2, cell=(side, side), colour=ORANGE, fills=patch)
        picture.line([(199, y + 13), (219, y + 13)])
        picture.box(222, y, 88, 26, f"projection(*y*_{{{place}}})", colour=ORANGE, size=12)
    picture.box(222, rows[0], 88, 26, "class", colour=BLUE, size=13)
    names = ("0", "1", "2", "3", "16")
    for name, y in zip(names, rows, strict=True):
        picture.text(321, y + 19, "+", size=16)
        picture.box(332, y, 58, 26, f"*e*_{{{name}}}", colour=PINK, size=13)
        picture.line([(390, y + 13), (421, y + 13)])
        if name != "0":
            picture.line([(512, y + 13), (540, y + 13)], colour=GREY)
    for x in (183, 266, 361):
        picture.text(x, 223, "⋮", size=16)
    picture.text(266, 40, "tokens", bold=True)
    picture.text(361, 40, "positions", bold=True)
    picture.text(316, 284, "*b* × (*N* + 1) × *d*", size=12)
    picture.text(183, 284, "*b* × *N* × *c p*²", size=12)

    picture.box(424, rows[0] - 6, 88, 218, "block 1\nblock 2\n⋮\nblock *L*", colour=GREY, size=13)
    picture.text(468, 40, "blocks", bold=True)
    picture.line([(512, rows[0] + 13), (537, rows[0] + 13)], colour=BLUE, width=2.4)
    picture.box(540, rows[0], 52, 26, "norm", colour=BLUE, size=13)
    picture.line([(592, rows[0] + 13), (611, rows[0] + 13)], colour=BLUE)
    picture.box(614, rows[0], 64, 26, "head", colour=BLUE, size=13)
    picture.line([(646, rows[0] + 26), (646, 106)], colour=BLUE)
    picture.text(646, 122, "logits", bold=True)
    picture.text(640, 140, "*b* × *n*_{classes}", size=12)
    picture.text(616, 196, "the patches' outputs", size=12, colour=GREY)
    picture.text(616, 212, "are not used", size=12, colour=GREY)
    return picture


@figure
def patches() -> Picture:
    """Draw an image of 4 × 6 pixels, its patches, and what a plain reshape would produce."""
    picture = Picture(700, 244)
    width, height = 34, 30
    left, top = 24, 54
    picture.text(left + 3 * width, 32, "image: *H* × *W* = 4 × 6", bold=True)
    cells = [[str(6 * row + column) for column in range(6)] for row in range(4)]
    hues = (PALE[BLUE], PALE[ORANGE], PALE[GREEN], PALE[PINK], PALE[GREY], "#fff")
    fills = [[hues[row // 2 * 3 + column // 2] for column in range(6)] for row in range(4)]
    picture.grid(left, top, cells, cell=(width, height), colour=GREY, fills=fills)
    for i in (1, 2):
        x = left + 2 * i * width
        picture.line([(x, top), (x, top + 4 * height)], arrow=False, width=2)
    picture.line([(left, top + 60), (left + 6 * width, top + 60)], arrow=False, width=2)
    picture.line([(246, 114), (280, 114)])
    picture.text(263, 104, "*p* = 2", size=12)
    picture.text(394, 32, "`patchify`: *N* × *cp*² = 6 × 4", bold=True)
    for number in range(6):
        r, s = divmod(number, 3)
        row = [cells[2 * r + u][2 * s + v] for u in (0, 1) for v in (0, 1)]
        y = 44 + 28 * number
        picture.text(346, y + 18, f"patch {number}", at="end", size=13)
        picture.grid(354, y, [row], cell=(34, 24), colour=GREY, fills=[[hues[number]] * 4], size=12)
    picture.text(608, 32, "plain `reshape`", bold=True)
    for number in range(6):
        row = [str(4 * number + i) for i in range(4)]
        colours = [fills[int(n) // 6][int(n) % 6] for n in row]
        picture.grid(
            540, 44 + 28 * number, [row], cell=(34, 24), colour=GREY, fills=[colours], size=12
        )
    picture.text(608, 230, "strips, not squares", size=13)
    picture.text(422, 230, "squares", size=13)
    return picture


@figure
def attention_distance() -> Picture:
    """Draw the distances from one patch to all patches, and the attention weights of a local and a global head."""
    picture = Picture(700, 226)
    shown = [["1·*p*", "√2·*p*", "√5·*p*"], ["0", "1·*p*", "2·*p*"], ["1·*p*", "√2·*p*", "√5·*p*"]]
    steps = [math.hypot(row - 1, column) for row in range(3) for column in range(3)]
    cell = 46
    picture.text(89, 32, "distance", bold=True)
    fills = [["#fff"] * 3 for _ in range(3)]
    fills[1][0] = PALE[BLUE]
    picture.grid(20, 46, shown, cell=(cell, cell), colour=GREY, fills=fills, size=14)
    picture.text(89, 204, "from the query, patch 3", size=13, colour=BLUE)
    local = [0.4, 0.0, 0.0, 0.3, 0.1, 0.0, 0.2, 0.0, 0.0]
    picture.text(205, 122, "×", size=20)
    picture.text(440, 122, "or", size=14)
    for left, name, shares in (
        (240, "a local head", local),
        (496, "a global head", [1 / 9] * 9),
    ):
        rows = [[float(share) for share in shares[i : i + 3]] for i in (0, 3, 6)]
        picture.text(left + 69, 32, f"weights of {name}", bold=True)
        picture.grid(left, 46, rows, cell=(cell, cell), colour=BLUE)
        mean = sum(share * step for share, step in zip(shares, steps, strict=True))
        picture.text(left + 69, 204, f"mean distance: {mean:.2f}·*p*", size=14)
    return picture


@figure
def cka() -> Picture:
    """Draw how CKA compares two layers of different widths: by whether the same images are similar in both."""
    picture = Picture(700, 268)
    images = ("0", "0", "3", "7")
    layers = (
        (
            "X",
            ORANGE,
            [[0.9, 0.1, 0.2], [0.8, 0.2, 0.1], [0.2, 0.9, 0.3], [0.1, 0.4, 0.9]],
            (146, "one layer, *d*_{1} = 3"),
        ),
        (
            "Y",
            GREEN,
            [
                [0.1, 0.8, 0.7, 0.1, 0.2],
                [0.2, 0.9, 0.6, 0.2, 0.1],
                [0.7, 0.2, 0.3, 0.8, 0.2],
                [0.3, 0.1, 0.2, 0.5, 0.9],
            ],
            (170, "another layer, *d*_{2} = 5"),
        ),
    )
    for number, (name, colour, values, (middle, title)) in enumerate(layers):
        y = 40 + number * 124
        picture.labels(78, y + 15, images, (0, 22), at="end", size=13)
        picture.text(28, y + 38, "four", size=12, colour=GREY)
        picture.text(28, y + 53, "images", size=12, colour=GREY)
        blank = [["" for _ in row] for row in values]
        fills = _shades(values, colour)
        picture.grid(88, y, blank, cell=(33, 22), colour=colour, fills=fills)
        picture.text(middle, y - 9, f"*{name}*: {title}", size=13)
        gram = _similarities(values)
        picture.line([(266, y + 44), (318, y + 44)])
        picture.text(292, y + 18, "centre,", size=13)
        picture.text(292, y + 34, f"*{name}{name}*ᵀ", size=13)
        picture.grid(356, y, [[""] * 4 for _ in range(4)], cell=(33, 22), fills=_shades(gram, BLUE))
        picture.labels(350, y + 15, images, (0, 22), at="end", size=13)
        picture.text(422, y - 9, "which images are alike?", size=13)
        picture.line([(490, y + 44), (548, 112 + number * 50)])
    picture.box(550, 100, 130, 76, "CKA:\nhow well do these\ntwo agree?", colour=BLUE)
    return picture


def _similarities(values: list[list[float]]) -> list[list[float]]:
    """Return the dot products of the rows after centring the columns, scaled to a maximum of 1. Negative products become 0."""
    means = [sum(column) / len(column) for column in zip(*values, strict=True)]
    rows = [[v - m for v, m in zip(row, means, strict=True)] for row in values]
    gram = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
    largest = max(map(max, gram))
    return [[max(0.0, entry / largest) for entry in row] for row in gram]


def _shades(values: list[list[float]], colour: str) -> list[list[str]]:
    """Return a colour between white and `colour` for each number from 0 to 1."""
    channels = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return [
        ["#" + "".join(f"{round(255 - value * (255 - c)):02x}" for c in channels) for value in row]
        for row in values
    ]


if __name__ == "__main__":
    figure.save()
