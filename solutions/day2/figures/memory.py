"""Draw the figures for the memory chapter. `python -m solutions.day2.figures.memory` writes them beside this file."""

from __future__ import annotations

from pathlib import Path

from solutions.drawing import BLUE, GREEN, GREY, ORANGE, PALE, PINK, Figures, Picture

figure = Figures(Path(__file__).parent)


@figure
def segments() -> Picture:
    """Draw how two layers process three segments, and the receptive field of one position."""
    picture = Picture(700, 292)
    picture.text(
        20,
        30,
        "Each layer also attends to its inputs from the previous segment",
        at="start",
        bold=True,
    )
    names = ("segment 1", "segment 2", "segment 3 (now)")
    rows = {"layer 2": 96, "layer 1": 156, "input": 216}
    for name, y in rows.items():
        picture.text(20, y + 5, name, at="start", size=13)
    for number, name in enumerate(names):
        left = 100 + 200 * number
        colour = BLUE if number == 2 else ORANGE
        picture.text(left + 75, 258, name, colour=colour, size=13)
        for row, y in enumerate(rows.values()):
            for place in range(4):
                reached = number + row >= 2 and (number < 2 or row or place == 3)
                fill = PALE[colour] if reached else "#fff"
                picture.circle(left + 50 * place, y, 11, colour=colour, fill=fill)
    last = 100 + 200 * 2 + 150
    ways = ((last, "layer 2", 450, "layer 1"), (last, "layer 2", 300, "layer 1"))
    for x, top, to, bottom in (
        *ways,
        (300, "layer 1", 250, "input"),
        (300, "layer 1", 100, "input"),
    ):
        picture.line([(to, rows[bottom] - 13), (x, rows[top] + 13)], colour=GREY)
    for x in (275, 475):
        picture.line([(x, 70), (x, 240)], arrow=False, colour=PINK, dashed=True)
    picture.text(275, 60, "no gradient", colour=PINK, size=12)
    picture.text(475, 60, "no gradient", colour=PINK, size=12)
    picture.text(
        350, 282, "filled: what the last position of layer 2 can see", size=12, colour=GREY
    )
    return picture


@figure
def memory_mask() -> Picture:
    """Draw the distances from a segment of three positions to itself and to a memory of two positions."""
    picture = Picture(700, 226)
    picture.text(20, 30, "Distances for *m* = 2 and *n* = 3", at="start", bold=True)
    m, n, left, top = 2, 3, 190, 92
    keys = [f"*m*_{{{j}}}" for j in range(m)] + [f"*x*_{{{j}}}" for j in range(n)]
    picture.text(left + m * 27, 58, "memory", colour=ORANGE, size=13)
    picture.text(left + (m + n / 2) * 54, 58, "segment", colour=BLUE, size=13)
    picture.labels(left + 27, 82, keys, (54, 0), colour=ORANGE)
    picture.labels(left - 14, top + 22, [f"*x*_{{{i}}}" for i in range(n)], (0, 34), at="end")
    picture.text(left - 110, top + 56, "queries", colour=BLUE, size=13)
    cells = [[str(m + i - j) if j <= m + i else None for j in range(m + n)] for i in range(n)]
    fills = [
        ["#fff" if j > m + i else PALE[ORANGE if j < m else BLUE] for j in range(m + n)]
        for i in range(n)
    ]
    picture.grid(left, top, cells, cell=(54, 34), fills=fills)
    picture.text(490, 110, "distance *m* + *i* − *j*,", at="start", size=13)
    picture.text(490, 130, "with *j* counted from the", at="start", size=13)
    picture.text(490, 150, "start of the memory", at="start", size=13)
    picture.text(490, 180, "× is the future", at="start", size=13)
    return picture


@figure
def knn_store() -> Picture:
    """Draw a query, its three nearest keys and the mixture of two distributions."""
    picture = Picture(700, 250)
    picture.text(20, 30, "The datastore: a key for each context", at="start", bold=True)
    keys = ((70, 90, "e"), (120, 190, "a"), (196, 120, "s"), (232, 152, "s"), (176, 176, "t"))
    near = (2, 3, 4)
    picture.circle(198, 150, 46, colour=GREY)
    for number, (x, y, token) in enumerate(keys):
        chosen = number in near
        fill = PALE[ORANGE] if chosen else "#fff"
        picture.circle(x, y, 12, colour=ORANGE, fill=fill)
        picture.text(x, y + 5, token, size=13)
    picture.circle(198, 150, 5, colour=BLUE, fill=BLUE)
    picture.text(198, 222, "query *q* and its *k* = 3 neighbours", colour=BLUE, size=13)
    bars = (
        (300, "*p*_{kNN}", ORANGE, (0.7, 0.3, 0.0)),
        (430, "*p*_{model}", GREEN, (0.2, 0.3, 0.5)),
        (570, "mixture", BLUE, (0.325, 0.3, 0.375)),
    )
    for left, name, colour, shares in bars:
        picture.text(left + 45, 74, name, colour=colour, size=14)
        for place, (token, share) in enumerate(zip("ste", shares, strict=True)):
            x, height = left + 30 * place, 110 * share
            if share:
                picture.box(x, 190 - height, 24, height, colour=colour)
            picture.text(x + 12, 208, token, size=13)
    for x, y, sign in ((288, 140, "λ"), (408, 130, "+"), (408, 150, "(1 − λ)"), (548, 140, "=")):
        picture.text(x, y, sign, size=14)
    picture.text(635, 230, "λ = 0.25", size=12, colour=GREY)
    return picture


if __name__ == "__main__":
    figure.save()
