"""Changes plain data and bytes at random. Student code gets this source as well, so it imports the standard library alone."""

import copy
import random

ODD = (
    *(None, True, False, 0, -1, 1, 2, 255, 2**31, 2**53, 2**63 - 1, -(2**63), 1.5, -0.0, 1e308),
    *(float("inf"), float("-inf"), float("nan"), "", "x", "code", "\x00", "\x1b[31m", "\u202e"),
    *("=1+1", "../..", "x" * 5_000, "é" * 300, "1", "None", "cell_type", "metadata", "Answer"),
    *([], {}, [[]], [None] * 40, {"": None}, {"message": "Items", "items": []}),
)


def places(value, path=()):
    """Yield the path of each part of a value, its own included."""
    yield path
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from places(part, (*path, key))


def changed(value, draw: random.Random, times=None):
    """Return a copy in which a few parts are replaced, removed, doubled, exchanged or nested."""
    value = copy.deepcopy(value)
    for _ in range(times or draw.choice((1, 1, 1, 2, 3, 8))):
        paths = [path for path in places(value) if path]
        if not paths:
            return draw.choice(ODD)
        *above, key = draw.choice(paths)
        parent = value
        for step in above:
            parent = parent[step]
        _change(parent, key, value, draw)
    return value


def _change(parent, key, value, draw):
    what = draw.randrange(8)
    if what == 0:
        del parent[key]
    elif what == 1:
        parent[key] = [copy.deepcopy(parent[key]) for _ in range(draw.choice((0, 1, 2, 30)))]
    elif what == 2:
        for _ in range(draw.choice((1, 5, 20, 90))):
            parent[key] = draw.choice(([parent[key]], {"a": parent[key]}))
    elif what == 3 and isinstance(parent, list):
        parent[key:key] = [copy.deepcopy(parent[key])] * draw.choice((1, 2, 50))
    elif what == 4 and isinstance(parent, dict):
        parent[draw.choice(("x", "", "message", "source", "cells", "\udc80"))] = parent.pop(key)
    elif what == 5 and isinstance(parent[key], (int, float)):
        parent[key] = draw.choice(
            (-parent[key], parent[key] + 1, parent[key] * 2**20, float("nan"))
        )
    elif what == 6 and isinstance(parent[key], str):
        parent[key] = text(parent[key], draw)
    else:
        parent[key] = copy.deepcopy(draw.choice(ODD))


def text(old, draw):
    """Return a text in which a part is cut out, doubled or replaced."""
    start = draw.randrange(len(old) + 1)
    end = min(len(old), start + draw.choice((0, 1, 5, 100)))
    new = draw.choice(
        ("", old[start:end] * 9, "\n", "\\", '"""', "(" * 50, "\x00", "\udc80", "# %%\n", " " * 500)
    )
    return old[:start] + new + old[end:]


def damaged(data, draw):
    """Return bytes in which a few are flipped, cut out, doubled or made up."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 40))):
        at = draw.randrange(len(data) + 1)
        size = draw.choice((1, 1, 2, 4, 8, 300))
        what = draw.randrange(5)
        if what == 0:
            data[at : at + size] = draw.randbytes(size)
        elif what == 1:
            del data[at : at + size]
        elif what == 2:
            data[at:at] = data[at : at + size]
        elif what == 3:
            data[at : at + 1] = bytes([draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0xC1, 0xDF))])
        else:
            other = draw.randrange(len(data) + 1)
            data[at : at + size] = data[other : other + size]
    return bytes(data)
