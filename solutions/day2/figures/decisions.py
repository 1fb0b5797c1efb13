"""Draw the figures for the decisions chapter. `python -m solutions.day2.figures.decisions` writes them beside this file."""

from __future__ import annotations

import itertools
from pathlib import Path

from solutions.drawing import BLUE, GREEN, GREY, ORANGE, PINK, Figures, Picture

figure = Figures(Path(__file__).parent)


@figure
def decision_tokens() -> Picture:
    """Draw the interleaved tokens of three steps, and the positions that predict the actions."""
    picture = Picture(700, 282)
    picture.text(20, 30, "An episode as a sequence", at="start", bold=True)
    kinds = (("return", PINK), ("state", BLUE), ("action", ORANGE))
    numbers = (("−3", "A", "B"), ("−2", "B", "D"), ("−1", "D", "goal"))
    for step, values in enumerate(numbers):
        left = 26 + 224 * step
        for place, ((kind, colour), value) in enumerate(zip(kinds, values, strict=True)):
            x = left + 70 * place
            picture.text(x + 30, 196, kind, colour=colour, size=13)
            picture.box(x, 204, 60, 30, value, colour=colour)
            picture.line([(x + 30, 180), (x + 30, 153)], colour=GREY)
        picture.text(left + 100, 262, f"step {step}", size=13)
        picture.line([(left, 244), (left + 200, 244)], arrow=False, colour=GREY)
        state = left + 100
        picture.line([(state, 118), (state, 90)], colour=GREEN)
        picture.box(state - 44, 58, 88, 30, f"go to {values[2]}", colour=GREEN)
    picture.box(20, 120, 660, 32, "causal blocks")
    return picture


@figure
def stitching() -> Picture:
    """Draw two walks, and a shorter path that combines parts of both."""
    picture = Picture(700, 250)
    places = {
        "start": (70, 130),
        "p": (190, 70),
        "q": (190, 190),
        "hub": (320, 130),
        "r": (450, 60),
        "s": (560, 80),
        "goal": (610, 170),
    }
    walks = (
        (ORANGE, ("start", "hub", "r", "s", "goal"), "walk 1: return −4"),
        (PINK, ("start", "p", "q", "hub", "goal"), "walk 2: return −4"),
    )
    picture.text(20, 30, "Two walks in the data", at="start", bold=True)
    for number, (colour, names, note) in enumerate(walks):
        shift = 4 - 8 * number
        for a, b in itertools.pairwise(names):
            (x, y), (to_x, to_y) = places[a], places[b]
            far = ((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5
            unit = (to_x - x) / far, (to_y - y) / far
            ends = [
                (x + 24 * unit[0], y + 24 * unit[1] + shift),
                (to_x - 24 * unit[0], to_y - 24 * unit[1] + shift),
            ]
            picture.line(ends, colour=colour, width=2)
        picture.text(330 + 180 * number, 30, note, colour=colour, size=13)
    for name, (x, y) in places.items():
        picture.circle(x, y, 22, colour=GREY, fill="#fff")
        picture.text(x, y + 5, name, size=12)
    picture.text(
        350,
        234,
        "start → hub → goal has the return −2 and is not in the data",
        colour=GREEN,
        size=14,
    )
    return picture


if __name__ == "__main__":
    figure.save()
