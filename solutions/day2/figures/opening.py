"""Draw the figures for Day 2's opening. `python -m solutions.day2.figures.opening` writes them beside this file."""

from __future__ import annotations

from pathlib import Path

from solutions.drawing import BLUE, GREY, ORANGE, PINK, Figures, Picture

figure = Figures(Path(__file__).parent)

# The name, input, new idea and output of each chapter after the warm-up.
CHAPTERS = (
    ("Language models", "characters", "decoder only, with a cache", "text"),
    ("Music", "notes of four voices", "distances between positions", "chorales"),
    ("Vision", "patches of an image", "a class token", "which digit it is"),
    ("Diffusion", "patches of noise, step, label", "step and label modulate each norm", "digits"),
    ("The family", "any sequence", "cheaper attention, longer context", "any sequence"),
    ("Memory", "the segments of a long text", "cached states of earlier segments", "text"),
    ("Decisions", "returns, states, actions", "three tokens per step", "actions"),
)


@figure
def day() -> Picture:
    """Draw each chapter's input, new idea and output."""
    picture = Picture(700, 330)
    columns = ((150, "input", ORANGE), (348, "new idea", PINK), (572, "output", BLUE))
    for x, title, colour in columns:
        picture.text(x + 4, 30, title, at="start", colour=colour, bold=True)
    for number, (name, reads, new, gives) in enumerate(CHAPTERS):
        y = 44 + number * 38 + (10 if number > 4 else 0)
        picture.badge(22, y + 16, str(number + 2))
        picture.text(38, y + 21, name, at="start", size=12.5, bold=True)
        picture.box(150, y, 184, 31, reads, colour=ORANGE, size=12)
        picture.line([(334, y + 15.5), (345, y + 15.5)])
        picture.box(348, y, 210, 31, new, colour=PINK, size=12)
        picture.line([(558, y + 15.5), (569, y + 15.5)])
        picture.box(572, y, 110, 31, gives, colour=BLUE, size=12)
    picture.line([(20, 238), (680, 238)], arrow=False, colour=GREY, width=0.7)
    return picture


if __name__ == "__main__":
    figure.save()
