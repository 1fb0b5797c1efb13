"""Draw the figures for the language-model chapter.

`python -m solutions.day2.figures.language_model` writes them beside this file.
"""

from __future__ import annotations

from pathlib import Path

from solutions.drawing import BLUE, GREEN, GREY, ORANGE, PALE, PINK, RED, Figures, Picture

figure = Figures(Path(__file__).parent)


@figure
def language_model() -> Picture:
    """Draw the model from tokens to logits, and its three uses."""
    picture = Picture(700, 330)
    x, wide = 30, 250
    middle = x + wide / 2
    picture.text(middle, 312, "tokens  *b* × *n*:   `t h e _ c a`", colour=ORANGE)
    picture.line([(middle, 294), (middle, 279)], colour=ORANGE)
    picture.box(x, 242, wide, 34, "token + position embedding", colour=ORANGE)
    picture.line([(middle, 242), (middle, 227)])
    picture.box(x + 6, 178, wide, 38, dashed=True, fill="none")
    picture.box(x, 184, wide, 40, "`GPTBlock`  × `n_layers`", colour=BLUE)
    picture.line([(middle, 178), (middle, 163)])
    picture.box(x, 126, wide, 34, "norm", colour=PINK)
    picture.line([(middle, 126), (middle, 111)])
    picture.box(x, 74, wide, 34, "× transposed token embedding", colour=ORANGE)
    picture.line([(middle, 74), (middle, 59)])
    picture.text(middle, 48, "logits  *b* × *n* × *v*: scores for the next token", colour=BLUE)
    picture.line(
        [(x + wide, 259), (x + wide + 16, 259), (x + wide + 16, 91), (x + wide + 3, 91)],
        colour=ORANGE,
        dashed=True,
    )
    picture.text(x + wide + 22, 172, "same", at="start", size=12, colour=ORANGE)
    picture.text(x + wide + 22, 188, "table", at="start", size=12, colour=ORANGE)
    for top, name, lines in (
        (40, "training", ("all *n* positions predict at once;", "the target is the next token")),
        (
            136,
            "measuring a text",
            ("its probability is the product", "of its tokens' probabilities"),
        ),
        (
            232,
            "generating",
            ("draw a token from the last prediction,", "append it, run the model again"),
        ),
    ):
        picture.box(370, top, 300, 76, fill="none")
        picture.text(384, top + 24, name, at="start", bold=True)
        for number, line in enumerate(lines):
            picture.text(384, top + 45 + 18 * number, line, at="start", size=13)
    return picture


@figure
def qkv() -> Picture:
    """Draw how the 3·d features of one position are divided into queries, keys, values and heads."""
    picture = Picture(700, 300)
    left, size = 70, 46
    parts = ((BLUE, "*q*"), (ORANGE, "*k*"), (GREEN, "*v*"))
    picture.text(350, 28, "One position of `qkv(x)`, for *d* = 4 and *h* = 2", bold=True)
    for part, (colour, name) in enumerate(parts):
        x = left + part * 4 * size
        picture.grid(
            x,
            70,
            [[f"{name}_{{{head}}}" for head in (0, 0, 1, 1)]],
            cell=(size, 34),
            colour=colour,
            fills=[[PALE[colour]] * 4],
        )
        title = ("queries", "keys", "values")[part]
        picture.text(x + 2 * size, 58, f"{title}: *d* features", colour=colour, size=13)
    picture.line([(348, 108), (348, 134)])
    picture.text(362, 126, "first 3 parts, then *h* heads in each", at="start", size=13)
    for part, (colour, name) in enumerate(parts):
        for head in range(2):
            x = left + part * 4 * size + 4 + head * 90
            picture.grid(
                x,
                144,
                [[f"{name}_{{{head}}}"] * 2],
                cell=(42, 34),
                colour=colour,
                fills=[[PALE[colour]] * 2],
            )
            picture.text(x + 42, 196, f"head {head}", size=12)
    picture.line([(20, 214), (680, 214)], arrow=False, colour=GREY, width=0.7)
    picture.text(left, 240, "×", size=20, colour=RED)
    picture.text(
        left + 16, 239, "First *h* heads, then 3 parts in each: right shapes,", at="start", size=13
    )
    picture.text(left + 16, 257, "wrong numbers. Head 0 would get these 6:", at="start", size=13)
    colours = [BLUE] * 4 + [ORANGE] * 2
    texts = ["*q*_{0}", "*q*_{0}", "*q*_{1}", "*q*_{1}", "*k*_{0}", "*k*_{0}"]
    for place, (colour, text) in enumerate(zip(colours, texts, strict=True)):
        picture.grid(
            400 + place * 38 + (place // 2) * 10,
            236,
            [[text]],
            cell=(38, 30),
            colour=colour,
            fills=[[PALE[colour]]],
        )
    for place, title in enumerate(("query", "key", "value")):
        picture.text(438 + place * 86, 284, title, size=12)
    return picture


@figure
def kv_cache() -> Picture:
    """Draw what three calls compute and what they read from the cache, and the mask for two new positions."""
    picture = Picture(700, 330)
    picture.text(190, 28, "Generating with a cache", bold=True)
    for call, (cached, new) in enumerate(((0, 3), (3, 1), (4, 1))):
        y = 50 + call * 92
        picture.text(20, y + 20, f"call {call + 1}", at="start", bold=True, size=13)
        picture.text(112, y + 20, "queries", at="end", size=13, colour=BLUE)
        picture.text(112, y + 50, "keys, values", at="end", size=13, colour=ORANGE)
        for position in range(cached + new):
            x = 122 + position * 44
            if position >= cached:
                picture.box(x, y + 2, 38, 26, f"{position}", colour=BLUE, size=13)
            picture.box(
                x,
                y + 34,
                38,
                26,
                f"{position}",
                colour=ORANGE if position >= cached else GREY,
                dashed=position < cached,
                size=13,
            )
    picture.text(122, 320, "dashed: read from the cache, not computed", at="start", size=12)
    picture.line([(386, 20), (386, 312)], arrow=False, colour=GREY, width=0.7)
    picture.text(546, 28, "The mask with a cache", bold=True)
    picture.text(546, 54, "3 positions are cached, *x* has *n* = 2", size=13)
    picture.text(566, 84, "keys: *m* = 5", size=13, colour=ORANGE)
    picture.labels(486, 106, ["0", "1", "2", "3", "4"], (40, 0), colour=ORANGE)
    rows = [["✓", "✓", "✓", "✓", None], ["✓"] * 5]
    fills = [[PALE[BLUE] if cell else "#fff" for cell in row] for row in rows]
    picture.grid(466, 116, rows, cell=(40, 34), fills=fills)
    picture.labels(456, 138, ["query 3", "query 4"], (0, 34), at="end", colour=BLUE)
    picture.line([(546, 192), (546, 208)])
    picture.text(546, 226, "the last *n* rows of the *m* × *m* triangle", size=13)
    picture.text(430, 256, "×", size=20, colour=RED)
    picture.text(446, 255, "A triangle in the upper-left corner", at="start", size=13)
    picture.text(446, 273, "would hide positions 1 to 3 from query 3:", at="start", size=13)
    wrong = [["✓", None, None, None, None], ["✓", "✓", None, None, None]]
    fills = [[PALE[RED] if cell else "#fff" for cell in row] for row in wrong]
    picture.grid(486, 284, wrong, cell=(28, 17), colour=GREY, fills=fills, size=11)
    return picture


@figure
def pre_norm() -> Picture:
    """Draw the post-norm layer of Vaswani et al. (2017) next to the pre-norm layer of GPT-2."""
    picture = Picture(700, 400)
    for left, title, pre in ((0, "post-norm (Vaswani et al. 2017)", False), (350, "", True)):
        title = title or "pre-norm (GPT-2): your `GPTBlock`"
        middle = left + 120
        picture.text(left + 175, 28, title, bold=True)
        picture.text(middle, 388, "*x*   *b* × *n* × *d*")
        stream = 3.0 if pre else 1.5
        top = 62
        picture.line([(middle, 372), (middle, top)], width=stream)
        for branch, (name, norm) in enumerate((("attention", "norm1"), ("network", "norm2"))):
            bottom = 360 - branch * 150
            plus = bottom - (104 if pre else 70)
            right = left + 215
            colour = GREEN if name == "network" else BLUE
            picture.line([(middle, bottom), (right + 50, bottom), (right + 50, bottom - 14)])
            if pre:
                picture.box(right, bottom - 44, 100, 28, norm, colour=PINK, size=13)
                picture.line([(right + 50, bottom - 44), (right + 50, bottom - 55)])
            where = bottom - (86 if pre else 46)
            picture.box(right, where, 100, 29, name, colour=colour, size=13)
            picture.line([(right + 50, where), (right + 50, plus), (middle + 13, plus)])
            picture.plus(middle, plus)
            if not pre:
                picture.box(middle - 50, plus - 52, 100, 28, norm, colour=PINK, size=13)
        picture.text(middle, 54, "to the next layer", size=13)
    picture.text(370, 226, "only sums", at="start", size=12, colour=GREY)
    picture.text(370, 242, "on this line", at="start", size=12, colour=GREY)
    picture.line([(350, 20), (350, 380)], arrow=False, colour=GREY, width=0.7)
    return picture


@figure
def nucleus() -> Picture:
    """Draw which of four tokens top-p keeps. Compare top-k and top-p for a confident and an uncertain model."""
    picture = Picture(700, 330)
    picture.text(170, 28, "`top_p = 0.6`, step by step", bold=True)
    names = ("probability", "sum before", "kept?", "result")
    columns = (("0.5", "0", "✓", "2/3"), ("0.25", "0.5", "✓", "1/3"))
    columns += (("0.15", "0.75", "", "0"), ("0.1", "0.9", "", "0"))
    picture.labels(
        132, 66, [f"token {letter}" for letter in "abcd"], (60, 0), size=12, colour=ORANGE
    )
    cells = [[column[row] or None for column in columns] for row in range(4)]
    fills = [[PALE[BLUE] if column < 2 else "#fff" for column in range(4)] for _ in range(4)]
    picture.grid(102, 76, cells, cell=(60, 34), fills=fills)
    picture.labels(94, 98, names, (0, 34), at="end")
    picture.text(222, 240, "kept if the sum before it is below 0.6:", size=13)
    picture.text(222, 258, "*b* crosses the threshold and stays", size=13)
    picture.line([(362, 20), (362, 312)], arrow=False, colour=GREY, width=0.7)
    picture.text(532, 28, "A fixed number, or a fixed probability", bold=True)
    sure, unsure = (0.9, 0.04, 0.03, 0.02, 0.01), (0.24, 0.22, 0.2, 0.18, 0.16)
    for row, (name, kept) in enumerate((("top_k = 2", (2, 2)), ("top_p = 0.8", (1, 4)))):
        base = 160 + row * 128
        picture.text(384, base - 90, f"`{name}`", at="start", size=13)
        for column, values in enumerate((sure, unsure)):
            for token, value in enumerate(values):
                chosen = token < kept[column]
                height = value * 84
                x = 400 + column * 150 + token * 24
                fill, colour = (BLUE, BLUE) if chosen else ("#fff", GREY)
                picture.box(x, base - height, 18, height, colour=colour, fill=fill)
            note = f"keeps {kept[column]}"
            picture.text(458 + column * 150, base + 18, note, size=12)
    picture.text(458, 320, "confident", size=12, colour=GREY)
    picture.text(608, 320, "uncertain", size=12, colour=GREY)
    return picture


if __name__ == "__main__":
    figure.save()
