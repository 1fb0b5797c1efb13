"""Randomly change plain data, strings and bytes.

The source code of this module is also embedded in student code, so it imports only the standard library.
"""

import copy
import random
from collections.abc import Iterator
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 255, 2**31, 2**53, 2**63 - 1, -(2**63), 1.5, -0.0, 1e308),
    *(float("inf"), float("-inf"), float("nan"), "", "x", "code", "\x00", "\x1b[31m", "\u202e"),
    *("=1+1", "../..", "x" * 5_000, "é" * 300, "1", "None", "cell_type", "metadata", "Answer"),
    *([], {}, [[]], [None] * 40, {"": None}, {"message": "Items", "items": []}),
)


def iter_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each part of a value, starting with the empty path for the value itself."""
    yield path
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from iter_paths(part, (*path, key))


def change_value(value: Any, draw: random.Random, times: int | None = None) -> Any:
    """Return a copy of a value with a few parts replaced, removed, repeated, renamed or nested."""
    value = copy.deepcopy(value)
    for _ in range(times or draw.choice((1, 1, 1, 2, 3, 8))):
        paths = [path for path in iter_paths(value) if path]
        if not paths:
            return draw.choice(ODD)
        *above, key = draw.choice(paths)
        parent = value
        for step in above:
            parent = parent[step]
        _change(parent, key, value, draw)
    return value


def _change(parent: Any, key: Any, value: Any, draw: random.Random) -> None:
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
        parent[key] = change_text(parent[key], draw)
    else:
        parent[key] = copy.deepcopy(draw.choice(ODD))


def change_text(old: str, draw: random.Random) -> str:
    """Return a copy of a string with one part removed, repeated or replaced."""
    start = draw.randrange(len(old) + 1)
    end = min(len(old), start + draw.choice((0, 1, 5, 100)))
    new = draw.choice(
        (
            *("", old[start:end] * 9, "\n", "\\", '"""', "(" * 50, "\x00", "\udc80", "# %%\n"),
            *(" " * 500, "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\ufeff"),
        )
    )
    return old[:start] + new + old[end:]


def damage_bytes(data: bytes, draw: random.Random) -> bytes:
    """Return a copy of the bytes with a few of them overwritten, removed, repeated or moved."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 40))):
        at = draw.randrange(len(changed) + 1)
        size = draw.choice((1, 1, 2, 4, 8, 300))
        what = draw.randrange(5)
        if what == 0:
            changed[at : at + size] = draw.randbytes(size)
        elif what == 1:
            del changed[at : at + size]
        elif what == 2:
            changed[at:at] = changed[at : at + size]
        elif what == 3:
            changed[at : at + 1] = bytes([draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0xC1, 0xDF))])
        else:
            other = draw.randrange(len(changed) + 1)
            changed[at : at + size] = changed[other : other + size]
    return bytes(changed)
