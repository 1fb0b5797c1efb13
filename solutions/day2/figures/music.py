"""Draw the figures for the music chapter. `python -m solutions.day2.figures.music` writes them beside this file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from solutions.drawing import BLUE, GREEN, GREY, INK, ORANGE, PINK, Figures, Picture

figure = Figures(Path(__file__).parent)

VOICES = {"soprano": BLUE, "alto": ORANGE, "tenor": GREEN, "bass": PINK}
QUERIES = "abcd"
SHADES = ("#f9eaf2", "#f0c9de", "#e3a3c6", "#d27fae")  # from distance 0 to 3


@figure
def chorale_tokens() -> Picture:
    """Draw how three time steps of four voices become twelve tokens."""
    picture = Picture(700, 266)
    notes = (("G4", "·", "A4"), ("D4", "·", "·"), ("B3", "·", "C4"), ("G3", "·", "rest"))
    tokens = (36, 31, 28, 24, 1, 1, 1, 1, 38, 1, 29, 0)
    picture.text(210, 30, "four voices, one column per time step", bold=True)
    for number, (voice, colour) in enumerate(VOICES.items()):
        y = 44 + number * 30
        picture.text(136, y + 20, voice, at="end", colour=colour, size=13)
        picture.grid(150, y, [notes[number]], cell=(56, 30), colour=colour, fills=[["#fff"] * 3])
    picture.text(370, 66, "A dot means that the note continues.", at="start", size=13)
    picture.text(370, 92, "Pitch: 2 or more, one step per semitone", at="start", size=13)
    picture.text(370, 114, "Hold: 1", at="start", size=13)
    picture.text(370, 136, "Rest: 0", at="start", size=13)
    picture.text(350, 194, "one sequence: S, A, T, B at each time step", bold=True)
    colours = list(VOICES.values())
    for number, token in enumerate(tokens):
        x = 50 + number * 50 + (number // 4 - 1) * 6
        picture.box(x, 204, 46, 28, str(token), colour=colours[number % 4])
    for step in range(3):
        picture.text(147 + step * 206, 252, f"step {step}", size=12, colour=GREY)
    return picture


@figure
def skewing() -> Picture:
    """Draw the logits with one column per distance, and the same logits with one column per key."""
    picture = Picture(700, 262)
    for left, title, columns, names, distance in (
        (90, "`x`: one column per distance", "distance", "3210", lambda i, j: 3 - j),
        (430, "`skew(x)`: one column per key", "key", "0123", lambda i, j: i - j),
    ):
        picture.text(left + 88, 30, title, size=15)
        picture.text(left + 88, 54, columns, size=12, colour=ORANGE)
        picture.labels(left + 22, 76, names, (44, 0), colour=ORANGE)
        _logits(picture, left, 84, distance)
        for i, name in enumerate(QUERIES):
            picture.text(left - 12, 104 + i * 32, f"query {name}", at="end", size=12, colour=BLUE)
    picture.line([(280, 148), (344, 148)], width=2.4)
    picture.text(312, 138, "shift", size=13)
    picture.text(178, 236, "· before the start of the sequence", size=12)
    picture.text(518, 236, "? future key: any finite number", size=12)
    return picture


@figure
def skewing_trick() -> Picture:
    """Draw how an added column of zeros shifts each row into place."""
    picture = Picture(700, 250)
    picture.text(160, 30, "pad with a column of zeros", bold=True)
    picture.text(480, 30, "the same numbers, four per row", bold=True)
    rows = [["0", *(_name(i, 3 - j, "·") for j in range(4))] for i in range(4)]
    flat = [entry for row in rows for entry in row]
    _table(picture, 50, 48, rows)
    again = [flat[start : start + 4] for start in range(0, 20, 4)]
    _table(picture, 392, 48, again)
    picture.line([(292, 112), (372, 112)], width=2.4)
    picture.text(332, 102, "reshape", size=13)
    picture.line([(386, 64), (574, 64)], arrow=False, colour=INK, width=2)
    picture.text(582, 69, "drop this row", at="start", size=13)
    picture.text(
        350, 232, "The numbers in memory stay the same. Only the row length changes.", size=13
    )
    return picture


@figure
def relative_table() -> Picture:
    """Draw which rows of `relative` a short sequence uses."""
    picture = Picture(700, 172)
    names = ("…", "distance *n*", "distance *n* − 1", "…", "distance 1", "distance 0")
    picture.text(20, 30, "`relative` of one head: a vector for each distance", at="start", size=14)
    x = 20.0
    for number, name in enumerate(names):
        width = 44 if name == "…" else 140
        used = number >= 2
        picture.box(x, 46, width, 34, name, colour=PINK if used else GREY, size=13)
        if number == 2:
            start = x
        x += width + 4
    picture.line([(start, 92), (start, 102), (x - 4, 102), (x - 4, 92)], colour=PINK, arrow=False)
    picture.text((start + x) / 2, 122, "*R*: the last *n* rows", colour=PINK)
    picture.text(112, 122, "too far back for *n* tokens", size=13, colour=GREY)
    picture.text(350, 156, "row 0 belongs to distance `max_length` − 1", size=13)
    return picture


def _name(query: int, distance: int, other: str) -> str:
    return f"{QUERIES[query]}{distance}" if 0 <= distance <= query else other


def _logits(picture: Picture, left: float, top: float, distance: Callable[[int, int], int]) -> None:
    cells, fills = [], []
    for i in range(4):
        steps = [distance(i, j) for j in range(4)]
        cells.append([_name(i, d, "?" if d < 0 else "·") for d in steps])
        fills.append([SHADES[d] if 0 <= d <= i else "#fff" for d in steps])
    picture.grid(left, top, cells, cell=(44, 32), fills=fills, colour=PINK)


def _table(picture: Picture, left: float, top: float, rows: list[list[str]]) -> None:
    fills = [[SHADES[int(c[1])] if len(c) == 2 else "#fff" for c in row] for row in rows]
    picture.grid(left, top, rows, cell=(44, 32), fills=fills, colour=PINK)


if __name__ == "__main__":
    figure.save()
