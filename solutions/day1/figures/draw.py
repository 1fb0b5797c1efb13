"""Draw Day 1's figures. `python -m solutions.day1.figures.draw` writes them beside this file."""

from __future__ import annotations

import json
import math
from pathlib import Path

from solutions.drawing import BLUE, GREEN, GREY, INK, ORANGE, PALE, PINK, RED, Figures, Picture

FOLDER = Path(__file__).parent
figure = Figures(FOLDER)

# The running example of the day: three tokens with d = 2, which serve as queries, keys and values.
TOKENS = ("red", "blue", "purple")
VECTORS = ((1, 0), (0, 1), (1, 1))
SCORES = [
    [sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(2) for k in VECTORS] for q in VECTORS
]


def weights(scores: list[list[float]], causal: bool = False) -> list[list[float]]:
    """Return the softmax of each row. If `causal` is true, entries after the diagonal get a weight of 0."""
    rows = []
    for i, row in enumerate(scores):
        powers = [math.exp(score) if j <= i or not causal else 0.0 for j, score in enumerate(row)]
        rows.append([power / sum(powers) for power in powers])
    return rows


def outputs(shares: list[list[float]]) -> list[list[str]]:
    """Return the weighted means of the vectors, formatted with two decimals."""
    sums = [
        [sum(w * v[c] for w, v in zip(row, VECTORS, strict=True)) for c in (0, 1)] for row in shares
    ]
    return [[f"{value:.2f}" for value in row] for row in sums]


@figure
def result() -> Picture:
    """Draw the cross-attention weights of the model trained in the last chapter (seed 0)."""
    found = json.loads((FOLDER / "result.json").read_text(encoding="utf-8"))
    picture = Picture(700, 372)
    left, top, width, height = 76, 92, 25, 21
    columns = ["bos", *found["source"].replace(" ", "␣"), "eos"]
    picture.text(
        350, 28, "What the model attends to while it writes 1987-03-04", size=16, bold=True
    )
    picture.text(left + 11.5 * width, 54, "it reads (keys)", colour=ORANGE, size=13)
    picture.labels(left + width / 2, 82, columns, (width, 0), colour=ORANGE, size=12)
    fills = [[_blue(share) for share in row] for row in found["weights"]]
    picture.grid(
        left,
        top,
        [["" for _ in columns] for _ in found["weights"]],
        cell=(width, height),
        fills=fills,
    )
    picture.labels(
        left - 10, top + 15, [*found["target"], "eos"], (0, height), at="end", colour=BLUE
    )
    picture.text(24, top + 6 * height, "it", colour=BLUE, size=13)
    picture.text(24, top + 7 * height, "writes", colour=BLUE, size=13)
    picture.text(left, 350, "weight", at="start", size=12)
    for step in range(5):
        x = left + 60 + step * 46
        picture.grid(x, 338, [[""]], cell=(46, 14), fills=[[_blue(step / 4)]])
        picture.text(x + 23, 366, f"{step / 4:g}", size=11)
    return picture


def _blue(share: float) -> str:
    return "#" + "".join(
        f"{round(255 - share * (255 - channel)):02x}" for channel in (0x00, 0x3F, 0x88)
    )


@figure
def recurrent() -> Picture:
    """Draw the paths from source to target in a recurrent network and with attention."""
    picture = Picture(700, 364)
    picture.text(20, 30, "Recurrent: one step at a time", at="start", bold=True)
    source, target = ("4", "March", "1987"), ("1987", "-03", "-04")
    for i, word in enumerate(source):
        picture.box(40 + i * 90, 74, 60, 34, "state", colour=ORANGE, size=13)
        picture.text(70 + i * 90, 144, word, colour=ORANGE)
        picture.line([(70 + i * 90, 129), (70 + i * 90, 111)], colour=ORANGE)
        if i:
            picture.line([(10 + i * 90, 91), (37 + i * 90, 91)])
    picture.box(316, 70, 74, 42, "one\nvector", colour=PINK, size=13)
    picture.line([(280, 91), (313, 91)])
    for i, word in enumerate(target):
        picture.box(426 + i * 90, 74, 60, 34, "state", colour=BLUE, size=13)
        picture.text(456 + i * 90, 144, word, colour=BLUE)
        picture.line([(456 + i * 90, 108), (456 + i * 90, 127)], colour=BLUE)
        picture.line([(396 + i * 90 - (6 if not i else 0), 91), (423 + i * 90, 91)])
    picture.text(353, 44, "everything about the source", size=12, colour=PINK)
    picture.text(353, 60, "has to fit in here", size=12, colour=PINK)
    picture.line([(20, 166), (680, 166)], arrow=False, colour=GREY, width=0.7)
    picture.text(
        20,
        192,
        "Attention: each target position reads all source positions in one step",
        at="start",
        bold=True,
    )
    for i, word in enumerate(source):
        x = 170 + i * 180
        picture.text(x, 352, word, colour=ORANGE)
        picture.box(x - 30, 302, 60, 34, "vector", colour=ORANGE, size=13)
    for i, word in enumerate(target):
        for j in range(3):
            strong = (i, j) in ((0, 2), (1, 1), (2, 0))
            ends = [(170 + j * 180, 302), (170 + i * 180, 248)]
            picture.line(ends, colour=BLUE if strong else GREY, width=2.4 if strong else 0.8)
        picture.box(140 + i * 180, 212, 60, 34, word, colour=BLUE, size=13)
    return picture


@figure
def architecture() -> Picture:
    """Draw the whole model. Each part is numbered with the chapter in which students write it."""
    picture = Picture(700, 596)
    left, right, wide = 60, 398, 240
    middle = left + wide / 2, right + wide / 2
    for x, colour, tokens in (
        (left, ORANGE, "source tokens  *b* × *m*"),
        (right, BLUE, "target tokens so far  *b* × *n*"),
    ):
        centre = x + wide / 2
        picture.text(centre, 578, tokens, colour=colour)
        picture.line([(centre, 562), (centre, 547)], colour=colour)
        picture.box(x, 510, wide, 34, "embedding × √*d*", colour=colour)
        picture.badge(x + wide - 26, 511, "6")
        picture.line([(centre, 510), (centre, 493)])
        picture.box(x, 456, wide, 34, "+ positional encoding", colour=PINK)
        picture.badge(x + wide - 26, 457, "3")
        picture.line([(centre, 456), (centre, 413)])
    # Encoder
    picture.box(left - 22, 250, wide + 44, 184, fill="none", dashed=True)
    picture.text(left - 12, 270, "EncoderLayer  × 2", at="start", size=13, bold=True)
    _step(picture, left, 360, wide, "self-attention", ORANGE, "1 2 4 5")
    picture.line([(middle[0], 360), (middle[0], 345)])
    _step(picture, left, 292, wide, "feed-forward", GREEN, "5")
    picture.line([(middle[0], 292), (middle[0], 219)])
    picture.box(left, 182, wide, 34, "memory  *b* × *m* × *d*", colour=ORANGE)
    # Decoder
    picture.box(right - 22, 182, wide + 44, 252, fill="none", dashed=True)
    picture.text(right - 12, 202, "DecoderLayer  × 2", at="start", size=13, bold=True)
    _step(picture, right, 360, wide, "masked self-attention", BLUE, "1 2 4 5")
    picture.line([(middle[1], 360), (middle[1], 345)])
    _step(picture, right, 292, wide, "cross-attention", BLUE, "1 2 4 5")
    picture.line([(middle[1], 292), (middle[1], 277)])
    _step(picture, right, 224, wide, "feed-forward", GREEN, "5")
    picture.line([(left + wide, 199), (348, 199), (348, 317), (right - 3, 317)], colour=ORANGE)
    picture.line([(middle[1], 224), (middle[1], 151)])
    picture.box(right, 114, wide, 34, "linear: *d* → vocabulary", colour=BLUE)
    picture.badge(right + wide - 26, 115, "6")
    picture.line([(middle[1], 114), (middle[1], 97)])
    picture.box(right, 60, wide, 34, "logits  *b* × *n* × *v*", colour=BLUE)
    picture.line([(middle[1], 60), (middle[1], 45)])
    picture.text(middle[1], 34, "scores for the next token at each position", size=13, colour=BLUE)
    # Chapters
    for number, name in enumerate(
        (
            "Attention",
            "Masking",
            "Positional encoding",
            "Multi-head attention",
            "Layers",
            "The Transformer",
        )
    ):
        picture.badge(52, 28 + number * 25, str(number + 1))
        picture.text(74, 33 + number * 25, name, at="start", size=13)
    return picture


def _step(
    picture: Picture, x: float, y: float, width: float, name: str, colour: str, chapters: str
) -> None:
    picture.box(x, y, width, 50, f"{name}\nadd & norm", colour=colour, size=13)
    picture.badge(x + width - 34, y - 3, chapters)


@figure
def numbers() -> Picture:
    """Draw how the model processes one date, with the shape of each tensor."""
    picture = Picture(700, 300)
    rows = (
        ("text", "`3/4/1987`", "", ORANGE),
        ("tokens", "`1  11  7  12  7  9  17  16  15  2`", "1 × 10", ORANGE),
        ("embeddings", "each token: 64 numbers, learned", "1 × 10 × 64", ORANGE),
        ("memory", "each token: 64 numbers, with context from the others", "1 × 10 × 64", ORANGE),
        ("logits", "each position: 70 scores, one per vocabulary token", "1 × 11 × 70", BLUE),
        ("text", "`1987-03-04`", "", BLUE),
    )
    steps = (
        "split into characters, add bos and eos",
        "look up",
        "encoder",
        "decoder, which also reads the target so far",
        "take the argmax, token by token",
    )
    for number, (name, content, shape, colour) in enumerate(rows):
        y = 14 + number * 47
        picture.text(118, y + 19, name, at="end", bold=True, size=13)
        picture.box(130, y, 430, 28, content, colour=colour, size=13)
        picture.text(576, y + 19, shape, at="start", size=13)
        if number < len(steps):
            picture.line([(300, y + 29), (300, y + 45)])
            picture.text(312, y + 42, steps[number], at="start", size=12, colour=GREY)
    return picture


@figure
def lookup() -> Picture:
    """Draw a dictionary lookup, which returns one value, next to attention, which returns a weighted mean of all values."""
    picture = Picture(700, 254)
    shares = weights(SCORES)[0]
    picture.text(20, 30, "A dictionary returns one value", at="start", bold=True)
    picture.text(330, 30, "Attention returns a weighted mean of all", at="start", bold=True)
    picture.box(20, 112, 62, 32, "red", colour=BLUE)
    picture.text(51, 104, "query", size=12, colour=BLUE)
    picture.text(145, 64, "keys", size=12, colour=ORANGE)
    picture.text(245, 64, "values", size=12, colour=GREEN)
    for i, token in enumerate(TOKENS):
        y = 72 + i * 42
        picture.box(110, y, 70, 32, token, colour=ORANGE)
        picture.box(205, y, 80, 32, str(VECTORS[i]), colour=GREEN)
        picture.line(
            [(180, y + 16), (202, y + 16)],
            colour=INK if i == 0 else GREY,
            width=2.5 if i == 0 else 0.8,
            arrow=i == 0,
        )
    picture.line([(82, 124), (107, 90)], width=2.5)
    picture.text(245, 222, "result: (1, 0)", size=14)
    picture.line([(308, 20), (308, 236)], arrow=False, colour=GREY, width=0.7)
    picture.box(330, 112, 62, 32, "red", colour=BLUE)
    picture.text(361, 104, "query", size=12, colour=BLUE)
    picture.text(463, 64, "keys", size=12, colour=ORANGE)
    picture.text(548, 64, "weights", size=12)
    picture.text(641, 64, "values", size=12, colour=GREEN)
    for i, token in enumerate(TOKENS):
        y = 72 + i * 42
        picture.box(428, y, 70, 32, token, colour=ORANGE)
        picture.line([(392, 128), (425, y + 16)], width=0.5 + 6 * shares[i])
        picture.grid(521, y, [[shares[i]]], cell=(54, 32), colour=BLUE)
        picture.text(508, y + 21, "→", size=13)
        picture.box(603, y, 78, 32, str(VECTORS[i]), colour=GREEN)
        picture.text(589, y + 21, "×", size=14)
    picture.text(508, 222, "result: 0.40·(1, 0) + 0.20·(0, 1) + 0.40·(1, 1)", size=13)
    picture.text(508, 242, "= (0.80, 0.60)", size=13)
    return picture


@figure
def shapes() -> Picture:
    """Draw the matrices of attention as rectangles, labelled with their shapes."""
    picture = Picture(700, 206)
    _matrix(picture, 20, 66, 52, 84, "Q", "*n* × *d*", BLUE, "queries")
    _matrix(picture, 100, 82, 92, 52, "Kᵀ", "*d* × *m*", ORANGE, "keys, transposed")
    _matrix(picture, 242, 66, 92, 84, "S", "*n* × *m*", GREY, "scores")
    _matrix(picture, 392, 66, 92, 84, "A", "*n* × *m*", BLUE, "weights")
    _matrix(picture, 510, 54, 68, 108, "V", "*m* × *d*_{v}", GREEN, "values")
    _matrix(picture, 606, 66, 68, 84, "O", "*n* × *d*_{v}", BLUE, "output")
    for x, sign in ((86, "×"), (497, "×"), (592, "=")):
        picture.text(x, 114, sign, size=18)
    picture.text(217, 113, "/ √*d* =", size=15)
    picture.line([(338, 108), (388, 108)])
    picture.text(363, 98, "softmax", size=12)
    picture.text(363, 128, "per row", size=12)
    picture.line([(398, 76), (478, 76)], colour=BLUE, dashed=True)
    picture.text(438, 28, "each row sums to 1", size=12, colour=BLUE)
    return picture


def _matrix(
    picture: Picture,
    x: float,
    y: float,
    width: float,
    height: float,
    name: str,
    shape: str,
    colour: str,
    title: str,
) -> None:
    picture.box(x, y, width, height, colour=colour)
    picture.text(x + width / 2, y + height / 2 + 7, f"*{name}*", size=20)
    picture.text(x + width / 2, y + height + 20, shape, size=13)
    picture.text(x + width / 2, y - 10, title, size=13, colour=colour)


@figure
def masks() -> Picture:
    """Draw the three masks of the masking chapter for three words and one padding token."""
    picture = Picture(700, 246)
    words = ("the", "sea", "shore", "pad")
    for number, (name, allowed) in enumerate(
        (
            ("`padding_mask`", [[j < 3 for j in range(4)]]),
            ("`causal_mask`", [[j <= i for j in range(4)] for i in range(4)]),
            ("`decoder_mask`", [[j <= i and j < 3 for j in range(4)] for i in range(4)]),
        )
    ):
        left = 76 + number * 222
        picture.text(left + 80, 32, name, size=15)
        picture.labels(left + 20, 62, words, (40, 0), colour=ORANGE)
        fills = [[PALE[BLUE] if entry else "#fff" for entry in row] for row in allowed]
        picture.grid(
            left,
            70,
            [["✓" if entry else None for entry in row] for row in allowed],
            cell=(40, 30),
            fills=fills,
        )
        if len(allowed) > 1:
            picture.labels(left - 8, 90, words, (0, 30), at="end", colour=BLUE)
        else:
            picture.text(left - 8, 90, "any", at="end", colour=BLUE)
    picture.text(156, 128, "one row for", size=13)
    picture.text(156, 146, "all queries", size=13)
    picture.text(
        350,
        226,
        "rows are queries, columns are keys;  ✓ (True): attention is allowed,  × (False): it is not",
        size=13,
    )
    return picture


@figure
def mask() -> Picture:
    """Draw the running example's scores, masked scores, weights and outputs."""
    picture = Picture(700, 206)
    shown = [[SCORES[i][j] if j <= i else None for j in range(3)] for i in range(3)]
    shares = weights(SCORES, causal=True)
    plain = [["#fff"] * 3] * 3
    masked = [[PALE[RED] if entry is None else "#fff" for entry in row] for row in shown]
    for left, name, cells, fills in (
        (70, "scores", SCORES, plain),
        (242, "scores, masked", shown, masked),
        (448, "weights", shares, None),
    ):
        picture.text(left + 69, 30, name, bold=True)
        picture.labels(left + 23, 56, TOKENS, (46, 0), colour=ORANGE, size=12)
        picture.grid(left, 64, cells, cell=(46, 34), fills=fills)
    picture.labels(60, 86, TOKENS, (0, 34), at="end", colour=BLUE)
    picture.text(649, 30, "output", bold=True)
    picture.grid(613, 64, outputs(shares), cell=(36, 34), colour=GREEN, size=12)
    for start, end in ((212, 238), (386, 442), (590, 609)):
        picture.line([(start, 116), (end, 116)])
    picture.text(413, 106, "softmax", size=12)
    picture.text(
        350,
        192,
        "each row is a query; the mask is applied before softmax, so each row of weights sums to 1",
        size=13,
    )
    return picture


@figure
def clocks() -> Picture:
    """Draw positional encodings as clock hands, for d = 8."""
    picture = Picture(700, 340)
    positions = (0, 1, 2, 3, 4, 10, 20, 30)
    picture.text(
        350,
        28,
        "Each pair of columns is a hand: its height is the sine, its width the cosine",
        bold=True,
    )
    picture.labels(170, 60, [f"*p* = {p}" for p in positions], (68, 0), size=13)
    for pair in range(3):
        y = 106 + pair * 80
        speed = 10.0**-pair
        picture.text(20, y - 4, f"pair {pair}", at="start", bold=True)
        picture.text(
            20, y + 14, f"columns {2 * pair}, {2 * pair + 1}", at="start", size=12, colour=GREY
        )
        picture.text(
            20,
            y + 30,
            f"angle {'*p*' if pair == 0 else f'*p*/{10**pair}'}",
            at="start",
            size=12,
            colour=GREY,
        )
        for column, p in enumerate(positions):
            x = 170 + column * 68
            picture.circle(x, y, 27)
            picture.line([(x - 27, y), (x + 27, y)], arrow=False, colour=GREY, width=0.4)
            picture.line([(x, y - 27), (x, y + 27)], arrow=False, colour=GREY, width=0.4)
            angle = p * speed
            picture.line(
                [(x, y), (x + 25 * math.cos(angle), y - 25 * math.sin(angle))],
                colour=PINK,
                width=2.4,
            )
    picture.text(
        350,
        326,
        "*d* = 8: each pair turns ten times more slowly than the one before (pair 3 hardly moves)",
        size=13,
    )
    return picture


@figure
def shift() -> Picture:
    """Draw the matrix that shifts the encoding by k positions."""
    picture = Picture(700, 220)
    left, top = 150, 44
    size = 6
    cells = [["" if i // 2 == j // 2 else "0" for j in range(size)] for i in range(size)]
    picture.grid(left, top, cells, cell=(36, 25), fills=[["#fff"] * size] * size, colour=PINK)
    for pair in range(3):
        turn = f"turn by\n*kω*_{{{pair}}}"
        picture.box(left + pair * 72, top + pair * 50, 72, 50, turn, colour=PINK, size=12)
    names = ["sin", "cos"] * 3
    for x in (402, 528):
        picture.grid(
            x, top, [[name] for name in names], cell=(48, 25), fills=[["#fff"]] * 6, colour=BLUE
        )
    picture.text(left + 108, 30, "*M*_{k}", size=16)
    picture.text(426, 30, "PE(*p*)")
    picture.text(552, 30, "PE(*p* + *k*)")
    picture.text(384, top + 80, "×", size=18)
    picture.text(490, top + 80, "=", size=18)
    picture.labels(left - 14, top + 30, ("pair 0", "pair 1", "pair 2"), (0, 50), at="end")
    return picture


@figure
def heads() -> Picture:
    """Draw how features are split into heads and merged again."""
    picture = Picture(700, 236)
    letters = [list("abcdef"), list("ghijkl")]
    left_fill, right_fill = PALE[BLUE], PALE[ORANGE]
    both = [[left_fill] * 3 + [right_fill] * 3] * 2
    picture.text(118, 34, "*x*:  *n* × *d* = 2 × 6", size=14)
    picture.grid(34, 88, letters, cell=(28, 30), fills=both, colour=GREY)
    picture.labels(28, 108, ("0", "1"), (0, 30), at="end", size=12, colour=GREY)
    picture.text(118, 168, "rows are positions,", size=12, colour=GREY)
    picture.text(118, 184, "columns are features", size=12, colour=GREY)
    picture.line([(208, 108), (304, 86)])
    picture.line([(208, 128), (304, 170)])
    picture.text(244, 64, "`split_heads`", size=13)
    picture.text(352, 34, "*h* × *n* × *d*_{head} = 2 × 2 × 3", size=14)
    for top, fill, part, name in (
        (54, left_fill, slice(0, 3), "head 0"),
        (142, right_fill, slice(3, 6), "head 1"),
    ):
        picture.grid(
            310,
            top,
            [row[part] for row in letters],
            cell=(28, 30),
            fills=[[fill] * 3] * 2,
            colour=GREY,
        )
        picture.text(352, top + 78, name, size=13)
    picture.line([(398, 86), (486, 108)])
    picture.line([(398, 170), (486, 128)])
    picture.text(450, 64, "`merge_heads`", size=13)
    picture.grid(490, 88, letters, cell=(28, 30), fills=both, colour=GREY)
    picture.text(574, 34, "*n* × *d* = 2 × 6", size=14)
    picture.text(574, 168, "as before", size=12, colour=GREY)
    return picture


@figure
def multi_head() -> Picture:
    """Draw multi-head attention with two heads, from its inputs to its output."""
    picture = Picture(700, 292)
    for number, (name, size, colour) in enumerate(
        (("query", "n", BLUE), ("key", "m", ORANGE), ("value", "m", GREEN))
    ):
        y = 44 + number * 76
        picture.box(20, y, 76, 42, f"{name}\n*b {size} d*", colour=colour, size=13)
        picture.line([(96, y + 21), (117, y + 21)])
        picture.box(120, y, 86, 42, f"linear *W*_{{{name[0]}}}", colour=colour, size=13)
        picture.line([(206, y + 21), (227, y + 21)])
        picture.box(230, y, 76, 42, f"split\n*b h {size} d*_{{head}}", colour=colour, size=13)
        for target in (94, 190):
            picture.line(
                [(306, y + 21), (347, target + (number - 1) * 14)], colour=colour, width=1.2
            )
    for number, y in enumerate((60, 156)):
        picture.box(
            350, y, 110, 68, f"attention\nhead {number}\n*b n d*_{{head}}", colour=GREY, size=13
        )
        picture.line([(460, y + 34), (491, 142 + 8 * (number - 0.5))])
    picture.box(494, 121, 66, 42, "merge\n*b n d*", colour=GREY, size=13)
    picture.line([(560, 142), (581, 142)])
    picture.box(584, 121, 90, 42, "linear *W*_{o}\n*b n d*", colour=GREY, size=13)
    picture.text(
        350,
        276,
        "all heads share one mask; each head has its own weights: *b h n m* in all",
        size=13,
    )
    return picture


@figure
def norms() -> Picture:
    """Draw what layer normalisation and batch normalisation average over."""
    picture = Picture(700, 210)
    for left, name, chosen in (
        (110, "layer normalisation", lambda i, j: i == 0),
        (430, "batch normalisation (not used here)", lambda i, j: j == 0),
    ):
        fills = [[PALE[BLUE] if chosen(i, j) else "#fff" for j in range(6)] for i in range(4)]
        cells = [["■" if chosen(i, j) else "" for j in range(6)] for i in range(4)]
        picture.text(left + 96, 30, name, bold=True)
        picture.text(left + 96, 56, "features *d*", size=13)
        picture.grid(left, 66, cells, cell=(32, 26), fills=fills)
        picture.labels(
            left - 8, 84, [f"position {i}" for i in range(4)], (0, 26), at="end", size=12
        )
    picture.text(206, 194, "one mean and variance per position", size=13)
    picture.text(526, 194, "one mean and variance per feature", size=13)
    return picture


@figure
def residual() -> Picture:
    """Draw a post-norm layer and, below it, a pre-norm layer."""
    picture = Picture(700, 330)
    for top, title, pre in (
        (14, "Post-norm (this chapter): every norm is on the main path", False),
        (174, "Pre-norm (Day 2): the norms are inside the branches", True),
    ):
        y = top + 50
        picture.text(20, top + 16, title, at="start", bold=True)
        picture.text(30, y + 5, "*x*", size=16)
        end = 672
        picture.line([(44, y), (end, y)], width=2.4)
        for left, step in ((70, "attention"), (370, "feed-forward")):
            at = left + 186
            picture.line([(left, y), (left, y + 66), (left + 28, y + 66)])
            if pre:
                picture.box(left + 31, y + 50, 50, 32, "norm", colour=PINK, size=13)
                picture.line([(left + 81, y + 66), (left + 92, y + 66)])
                picture.box(
                    left + 95,
                    y + 50,
                    90,
                    32,
                    step,
                    colour=GREEN if "feed" in step else BLUE,
                    size=13,
                )
                picture.line([(left + 185, y + 66), (left + 206, y + 66), (left + 206, y + 13)])
                picture.plus(left + 206, y)
            else:
                picture.box(
                    left + 31,
                    y + 50,
                    110,
                    32,
                    step,
                    colour=GREEN if "feed" in step else BLUE,
                    size=13,
                )
                picture.line([(left + 141, y + 66), (at, y + 66), (at, y + 13)])
                picture.plus(at, y)
                picture.box(at + 22, y - 16, 58, 32, "norm", colour=PINK, size=13)
    return picture


@figure
def layers() -> Picture:
    """Draw the encoder layer and the decoder layer side by side."""
    picture = Picture(700, 480)
    _layer(
        picture,
        40,
        "`EncoderLayer`",
        "*x*  (*b n d*)",
        (("self-attention", "mask", ORANGE), ("feed-forward", "", GREEN)),
    )
    _layer(
        picture,
        370,
        "`DecoderLayer`",
        "*x*  (*b n d*)",
        (
            ("self-attention", "mask", BLUE),
            ("cross-attention", "memory_mask", BLUE),
            ("feed-forward", "", GREEN),
        ),
    )
    return picture


def _layer(
    picture: Picture, left: float, title: str, source: str, steps: tuple[tuple[str, str, str], ...]
) -> None:
    middle = left + 110
    picture.text(middle, 30, title, size=15)
    picture.text(middle, 468, source)
    bottom = 452.0
    for number, (name, hint, colour) in enumerate(steps):
        picture.line([(middle, bottom), (middle, bottom - 25)])
        picture.box(left + 40, bottom - 58, 140, 32, name, colour=colour, size=13)
        picture.line([(middle, bottom - 58), (middle, bottom - 68)], arrow=False)
        picture.line(
            [
                (middle, bottom - 8),
                (left + 8, bottom - 8),
                (left + 8, bottom - 79),
                (middle - 13, bottom - 79),
            ]
        )
        picture.text(middle + 20, bottom - 68, "dropout", at="start", size=11, colour=GREY)
        picture.plus(middle, bottom - 79)
        picture.line([(middle, bottom - 90), (middle, bottom - 96)], arrow=False)
        picture.box(left + 60, bottom - 122, 100, 26, f"norm{number + 1}", colour=PINK, size=13)
        if hint:
            picture.text(left + 190, bottom - 38, f"← `{hint}`", at="start", size=12)
        if name == "cross-attention":
            picture.text(left + 190, bottom - 54, "← `memory`", at="start", size=12, colour=ORANGE)
        bottom -= 122
    picture.line([(middle, bottom), (middle, bottom - 24)])


@figure
def cross_attention() -> Picture:
    """Draw which positions the decoder's self-attention and cross-attention can attend to."""
    picture = Picture(700, 290)
    target, source = ("bos", "1", "9", "8"), ("bos", "3", "/", "4", "eos", "pad")
    picture.text(170, 30, "self-attention", bold=True)
    picture.text(170, 50, "keys: the target, *n*", size=13, colour=BLUE)
    picture.labels(110, 76, target, (40, 0), colour=BLUE)
    allowed = [[j <= i for j in range(4)] for i in range(4)]
    fills = [[PALE[BLUE] if entry else "#fff" for entry in row] for row in allowed]
    picture.grid(
        90,
        84,
        [["✓" if entry else None for entry in row] for row in allowed],
        cell=(40, 34),
        fills=fills,
    )
    picture.text(170, 246, "`mask`", size=14)
    picture.text(170, 268, "no future, no padding", size=12)
    picture.text(530, 30, "cross-attention", bold=True)
    picture.text(530, 50, "keys and values: the memory, *m*", size=13, colour=ORANGE)
    picture.labels(430, 76, source, (40, 0), colour=ORANGE)
    allowed = [[j < 5 for j in range(6)] for _ in range(4)]
    fills = [[PALE[ORANGE] if entry else "#fff" for entry in row] for row in allowed]
    picture.grid(
        410,
        84,
        [["✓" if entry else None for entry in row] for row in allowed],
        cell=(40, 34),
        fills=fills,
        colour=ORANGE,
    )
    picture.text(530, 246, "`memory_mask`", size=14)
    picture.text(530, 268, "no source padding", size=12)
    for x in (80, 400):
        picture.labels(x, 106, target, (0, 34), at="end", colour=BLUE)
    picture.text(310, 144, "queries:", size=13, colour=BLUE)
    picture.text(310, 162, "the target, *n*", size=13, colour=BLUE)
    return picture


@figure
def teacher_forcing() -> Picture:
    """Draw training, where all targets are given, next to generation, where each output is fed back."""
    picture = Picture(700, 352)
    picture.text(
        20,
        30,
        "Training: the target is known, so one pass predicts all positions",
        at="start",
        bold=True,
    )
    given, wanted = ("bos", "1", "9", "8", "7"), ("1", "9", "8", "7", "eos")
    for i in range(5):
        x = 132 + i * 116
        picture.box(x - 28, 144, 56, 28, given[i], colour=ORANGE)
        picture.line([(x, 144), (x, 127)])
        picture.line([(x, 94), (x, 77)])
        picture.box(x - 28, 46, 56, 28, wanted[i], colour=BLUE)
    picture.box(94, 94, 540, 30, "decoder with causal mask", colour=GREY)
    picture.text(84, 163, "input", at="end", size=13, colour=ORANGE)
    picture.text(84, 65, "target", at="end", size=13, colour=BLUE)
    picture.line([(20, 192), (680, 192)], arrow=False, colour=GREY, width=0.7)
    picture.text(
        20,
        218,
        "Generation: one pass per token, and each output becomes an input",
        at="start",
        bold=True,
    )
    for i in range(4):
        x = 110 + i * 160
        picture.box(x - 38, 268, 76, 30, f"pass {i + 1}", colour=GREY)
        picture.line([(x, 318), (x, 301)])
        picture.text(x, 336, " ".join(given[: i + 1]), colour=ORANGE)
        picture.line([(x, 268), (x, 253)])
        picture.text(x, 247, wanted[i], colour=BLUE, bold=True)
        if i < 3:
            picture.line(
                [(x + 12, 242), (x + 80, 242), (x + 80, 331), (x + 134 - 7 * i, 331)],
                colour=BLUE,
                width=1.2,
            )
    return picture


@figure
def smoothing() -> Picture:
    """Draw a target over v = 5 classes, without label smoothing and with ε = 0.1."""
    picture = Picture(700, 230)
    for left, title, high, low in ((60, "ε = 0", 1.0, 0.0), (390, "ε = 0.1", 0.92, 0.02)):
        picture.text(left + 125, 28, f"*y* with {title}", bold=True)
        picture.line([(left, 178), (left + 250, 178)], arrow=False)
        for c in range(5):
            share = high if c == 2 else low
            height = share * 120
            x = left + 8 + c * 50
            if height:
                fill = PALE[BLUE] if c == 2 else PALE[GREY]
                picture.grid(x, 178 - height, [[""]], cell=(34, height), fills=[[fill]])
            picture.text(x + 17, 170 - height, f"{share:g}", size=13)
            picture.text(x + 17, 196, f"{c}", size=13)
        picture.text(left + 125, 218, "token; the target is 2", size=12, colour=GREY)
    return picture


@figure
def greedy() -> Picture:
    """Draw greedy decoding of two sequences that end at different steps."""
    picture = Picture(700, 200)
    rows = (("bos", "h", "i", "eos", "pad"), ("bos", "y", "o", "u", "eos"))
    colours = {"bos": ORANGE, "eos": RED, "pad": GREY}
    picture.labels(
        121, 36, ["start", *(f"step {i}" for i in range(1, 5))], (98, 0), size=12, colour=GREY
    )
    for number, row in enumerate(rows):
        y = 50 + number * 60
        picture.text(72, y + 24, f"row {number}", at="end")
        for i, token in enumerate(row):
            x = 86 + i * 98
            picture.box(x, y, 70, 38, token, colour=colours.get(token, BLUE), dashed=token == "pad")
            if i:
                picture.line(
                    [(x - 28, y + 19), (x - 3, y + 19)], colour=GREY if token == "pad" else INK
                )
    for y, first, second in (
        (66, "finished at step 3,", "then padded"),
        (126, "finished at step 4:", "now stop"),
    ):
        picture.text(566, y, first, at="start", size=13)
        picture.text(566, y + 17, second, at="start", size=13)
    picture.text(
        350,
        186,
        "each step: decode the tokens so far, take the argmax at the last position, append it",
        size=13,
    )
    return picture


if __name__ == "__main__":
    figure.save()
