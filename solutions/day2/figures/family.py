"""Draw the figures for the family chapter. `python -m solutions.day2.figures.family` writes them beside this file."""

from __future__ import annotations

import math
from pathlib import Path

from solutions.drawing import BLUE, GREEN, GREY, ORANGE, PALE, PINK, RED, Figures, Picture

figure = Figures(Path(__file__).parent)


@figure
def rope() -> Picture:
    """Draw which columns form a pair, next to a query and a key that rotate together."""
    picture = Picture(700, 270)
    picture.text(20, 30, "Which columns form a pair?", at="start", bold=True)
    colours = (BLUE, PINK, GREEN)
    for top, note, pairs in (
        (66, "here, in the paper, in Meta's Llama", ((0, 1), (2, 3), (4, 5))),
        (176, "GPT-NeoX, Hugging Face's Llama", ((0, 3), (1, 4), (2, 5))),
    ):
        for number, (a, b) in enumerate(pairs):
            colour = colours[number]
            for column in (a, b):
                x = 20 + 50 * column
                picture.box(x, top, 44, 32, f"*x*_{{{column}}}", colour=colour)
            left, right = 42 + 50 * a, 42 + 50 * b
            y = top - 8 if b == a + 1 else top - 6 - 7 * (number + 1)
            picture.line(
                [(left, top), (left, y), (right, y), (right, top)], colour=colour, arrow=False
            )
        picture.text(20, top + 54, note, at="start", size=13)
    picture.line([(350, 20), (350, 250)], arrow=False, colour=GREY, width=0.7)
    picture.text(370, 30, "Both turn by the same angle: same score", at="start", bold=True)
    for left, query, key in ((448, 1, 3), (612, 4, 6)):
        picture.circle(left, 146, 62)
        for place, colour, name in ((query, BLUE, "query"), (key, ORANGE, "key")):
            start = 0.2 if name == "query" else 0.1
            angle = start + 0.45 * place
            x, y = math.cos(angle), -math.sin(angle)
            picture.line([(left, 146), (left + 60 * x, 146 + 60 * y)], colour=colour, width=2.4)
            picture.text(
                left + 76 * x, 146 + 74 * y + 5, "*q*" if name == "query" else "*k*", colour=colour
            )
        picture.text(left, 246, f"*q* at {query}, *k* at {key}: distance 2", size=13)
    return picture


@figure
def alibi() -> Picture:
    """Draw the biases that ALiBi adds to the scores of two heads."""
    picture = Picture(700, 208)
    for left, slope, name in (
        (90, 4, "steep slope, *s* = 1/4"),
        (410, 64, "gentle slope, *s* = 1/64"),
    ):
        picture.text(left + 110, 28, name, bold=True)
        picture.labels(left + 27, 56, [f"*k*_{{{j}}}" for j in range(4)], (55, 0), colour=ORANGE)
        cells = [
            ["0" if i == j else f"−{i - j}/{slope}" if j < i else "−∞" for j in range(4)]
            for i in range(4)
        ]
        fills = [
            [_mixed(BLUE, 0.6 * math.exp(-(i - j) / slope)) if j <= i else "#fff" for j in range(4)]
            for i in range(4)
        ]
        picture.grid(left, 64, cells, cell=(55, 30), fills=fills)
        picture.labels(
            left - 12, 84, [f"*q*_{{{i}}}" for i in range(4)], (0, 30), at="end", colour=BLUE
        )
    return picture


@figure
def window() -> Picture:
    """Draw sliding windows of three widths, and the receptive field of two layers with a window of 3."""
    picture = Picture(700, 226)
    for number, (title, width, layers) in enumerate(
        (("window 1", 1, 1), ("window 3", 3, 1), ("window ≥ 6", 6, 1), ("window 3, 2 layers", 3, 2))
    ):
        left = 28 + 170 * number
        reach = layers * (width - 1) + 1
        picture.text(left + 66, 28, title, bold=True)
        fills = [
            [
                PALE[BLUE] if i - width < j <= i else PALE[PINK] if i - reach < j <= i else "#fff"
                for j in range(6)
            ]
            for i in range(6)
        ]
        cells = [
            ["✓" if i - width < j <= i else "·" if i - reach < j <= i else "" for j in range(6)]
            for i in range(6)
        ]
        picture.grid(left, 42, cells, cell=(22, 22), fills=fills)
        picture.text(left + 66, 194, "keys", size=12, colour=ORANGE)
    picture.text(14, 112, "*i*", colour=BLUE)
    picture.text(350, 214, "✓ sees directly, · receives via a position in between", size=13)
    return picture


@figure
def brackets() -> Picture:
    """Draw the two orders in which the products of linear attention can be computed."""
    picture = Picture(700, 330)
    long, short = 110, 30
    for top, title, first in (
        (20, "Queries times keys first: *n* × *m* numbers", True),
        (176, "Keys times values first: *d* × *d*_{v} numbers", False),
    ):
        picture.text(20, top + 14, title, at="start", bold=True)
        y = top + 26
        middle = y + long / 2
        picture.box(40, y, short, long, "φ(*Q*)", colour=BLUE, size=12)
        picture.box(
            84,
            middle - short / 2,
            long,
            short,
            "φ(*K*)^T".replace("^T", "ᵀ"),
            colour=ORANGE,
            size=12,
        )
        picture.box(208, y, short + 6, long, "*V*", colour=GREEN, size=13)
        bracket = (34, 200) if first else (78, 250)
        for x, turn in zip(bracket, (1, -1), strict=True):
            picture.line(
                [
                    (x + 6 * turn, y - 4),
                    (x, y - 4),
                    (x, y + long + 4),
                    (x + 6 * turn, y + long + 4),
                ],
                arrow=False,
                width=2,
            )
        picture.text(290, middle + 6, "=", size=20)
        if first:
            picture.box(324, y, long, long, "*n* × *m*", colour=RED)
            picture.box(448, y, short + 6, long, "*V*", colour=GREEN, size=13)
            picture.text(592, middle - 4, "grows with *n* · *m*", size=14, colour=RED)
        else:
            picture.box(324, y, short, long, "φ(*Q*)", colour=BLUE, size=12)
            picture.box(372, middle - 20, short + 34, 40, "*d* × *d*_{v}", colour=GREEN, size=13)
            picture.text(592, middle - 4, "does not grow with *n*", size=14, colour=GREEN)
    return picture


@figure
def running_state() -> Picture:
    """Draw causal linear attention as a state that each position adds to and reads."""
    picture = Picture(700, 330)
    picture.text(
        20, 30, "Causal: each position adds to the state, then reads it", at="start", bold=True
    )
    for j in range(4):
        x = 60 + j * 160
        picture.box(
            x, 252, 116, 42, f"φ(*k*_{{{j}}})*v*_{{{j}}}ᵀ\nφ(*k*_{{{j}}})", colour=ORANGE, size=13
        )
        picture.text(x + 58, 316, f"position {j}", size=13)
        picture.line([(x + 58, 252), (x + 58, 193)], colour=ORANGE)
        picture.plus(x + 58, 179)
        picture.box(x + 18, 116, 80, 40, f"*S*_{{{j}}}, *z*_{{{j}}}", colour=GREEN)
        picture.line([(x + 58, 168), (x + 58, 159)], arrow=False)
        if j < 3:
            picture.line(
                [(x + 98, 136), (x + 134, 136), (x + 134, 179), (x + 204, 179)], colour=GREEN
            )
        picture.line([(x + 58, 116), (x + 58, 87)], colour=BLUE)
        picture.box(x, 54, 116, 30, f"*o*_{{{j}}}", colour=BLUE)
    picture.text(20, 230, "add", at="start", size=13, colour=ORANGE)
    picture.text(20, 106, "read with φ(*q*)", at="start", size=12, colour=BLUE)
    return picture


@figure
def shared_heads() -> Picture:
    """Draw which key head each of six query heads uses, for three numbers of key heads."""
    picture = Picture(700, 220)
    for number, (g, name) in enumerate(((6, "multi-head"), (2, "grouped"), (1, "multi-query"))):
        left = 26 + 228 * number
        picture.text(left + 96, 30, f"*g* = {g}: {name}", bold=True)
        for a in range(6):
            k = a * g // 6
            x, end = left + 16 + 32 * a, left + 16 + 32 * ((k + 0.5) * 6 / g - 0.5)
            picture.line([(x, 78), (end, 132)], arrow=False, colour=GREY)
        for a in range(6):
            picture.box(left + 3 + 32 * a, 52, 26, 28, str(a), colour=BLUE, size=13)
        for k in range(g):
            x = left + 16 + 32 * ((k + 0.5) * 6 / g - 0.5)
            picture.box(x - 13, 130, 26, 28, str(k), colour=ORANGE, size=13)
        share = {6: "cache 100%", 2: "cache 33%", 1: "cache 17%"}[g]
        picture.text(left + 96, 184, share, size=13)
    picture.text(
        350, 208, "query heads above, key and value heads below (*h* = 6)", size=12, colour=GREY
    )
    return picture


# Sections of Weng's post, with rows of exercises (in backticks) and papers. † marks what the post leaves out.
MAP: tuple[tuple[str, str, tuple[tuple[str, tuple[str, ...]], ...]], ...] = (
    (
        "Positions",
        PINK,
        (
            ("absolute", ("`sinusoidal_encoding`",)),
            ("relative", ("`skew`†", "`rotary_embedding`")),
        ),
    ),
    (
        "Longer\ncontext",
        ORANGE,
        (
            ("context memory", ("`RecurrentAttention`", "Compressive Transformer")),
            ("external memory", ("`knn_probabilities`", "Memorizing Transformer")),
            ("distance in the scores", ("`alibi_bias`",)),
            ("recurrence in depth", ("Universal Transformer",)),
        ),
    ),
    (
        "Adaptive\nmodels",
        GREEN,
        (
            ("attention span", ("Adaptive Attention Span",)),
            ("depth", ("Depth-Adaptive Transformer", "CALM")),
        ),
    ),
    (
        "Efficient\nattention",
        BLUE,
        (
            ("fixed patterns", ("`sliding_window_mask`", "Sparse Transformer")),
            ("local and global", ("Longformer", "Big Bird", "ETC")),
            ("learned patterns", ("Reformer", "Routing Transformer")),
            ("low rank", ("Linformer",)),
            ("kernels", ("`linear_attention`†", "`performer_features`")),
            ("shared keys", ("`grouped_query_attention`†",)),
        ),
    ),
    (
        "Decisions",
        RED,
        (("reinforcement learning", ("`DecisionTransformer`", "GTrXL")),),
    ),
)


@figure
def family_map() -> Picture:
    """Draw the Transformer family, grouped by the sections of Weng's post. Exercises are filled; papers are white."""
    row, gap = 31, 12
    height = sum(row * len(rows) + gap for _, _, rows in MAP)
    picture = Picture(720, height + 62)
    picture.box(14, 24 + height / 2 - 40, 74, 80, "Trans-\nformer\n2017", colour=GREY)
    y = 24.0
    for group, colour, rows in MAP:
        size = row * len(rows)
        centre = y + size / 2
        picture.line(
            [(88, 24 + height / 2), (100, 24 + height / 2), (100, centre), (112, centre)],
            arrow=False,
            colour=GREY,
        )
        picture.box(112, y + 1, 78, size - 2, group, colour=colour, size=13)
        for number, (name, members) in enumerate(rows):
            middle = y + (number + 0.5) * row
            picture.line([(190, middle), (200, middle)], arrow=False, colour=colour)
            picture.text(206, middle + 4.5, name, at="start", size=12)
            x = 366.0
            for member in members:
                exercise = member.startswith("`")
                width = (7.3 if exercise else 6.4) * len(member.replace("`", "")) + 18
                picture.box(
                    x,
                    middle - 12,
                    width,
                    24,
                    member,
                    colour=colour,
                    size=12,
                    fill=None if exercise else "#fff",
                )
                x += width + 8
        y += size + gap
    picture.box(206, height + 30, 150, 24, "`exercise` of this course", colour=GREY, size=12)
    picture.box(372, height + 30, 60, 24, "paper", colour=GREY, size=12, fill="#fff")
    picture.text(448, height + 46.5, "† not in Weng's post", at="start", size=12)
    return picture


def _mixed(colour: str, share: float) -> str:
    """Mix `colour` with white. `share` is the fraction of `colour`, from 0 to 1."""
    channels = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - channel)):02x}" for channel in channels)


if __name__ == "__main__":
    figure.save()
