"""Convert dict keys to and from message values, and check them.

Entry points: `encode_key` for encoding, and `check_keys` and `decode_key` for decoding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from autograder.plain_text import escape_surrogates
from autograder.protocol.messages import Key, Opaque, Plain, Value, WireError

MAX_STRING = 10_000  # maximum number of characters in a string or in a key
# Building a dict takes quadratic time if all its keys have the same hash, and tuples of numbers can be chosen to collide.
# Some collisions are normal, because hash(-1) == hash(-2).
MAX_EQUAL_HASHES = 1_000


def limited(item: Plain) -> Plain | Opaque:
    """Convert a plain value to the form in which it is sent. If it is too large, return a description instead."""
    if isinstance(item, str):
        is_short = len(item) <= MAX_STRING
        return escape_surrogates(item) if is_short else Opaque(f"a str of {len(item)} characters")
    is_huge = isinstance(item, int) and not -(2**63) <= item < 2**63
    return Opaque("an int of more than 64 bits") if is_huge else item


def encode_key(key: Any, convert: Callable[[Any], Value]) -> Key | Opaque:
    """Convert a dict key to the form in which it is sent. If it cannot be sent, return a description instead."""
    found: Key | Opaque
    if isinstance(key, tuple):
        parts = [_plain(part, convert) for part in key]
        plain = [part for part in parts if isinstance(part, Plain)]
        found = plain if len(plain) == len(parts) else Opaque("a nested tuple")
    else:
        found = _plain(key, convert)
    if not isinstance(found, Opaque) and _length(found) > MAX_STRING:
        return Opaque(f"a {type(key).__name__} of length {len(key)}")
    return found


def _plain(item: Any, convert: Callable[[Any], Value]) -> Plain | Opaque:
    if isinstance(item, tuple):
        return Opaque("a tuple")
    found = item if item is None or type(item) in (bool, int, float, str) else convert(item)
    if isinstance(found, Plain):
        return limited(found)
    return found if isinstance(found, Opaque) else Opaque("an object")


def _length(key: Key) -> int:
    """Return the number of characters in a key. Numbers and empty strings count as one character."""
    parts = key if isinstance(key, list) else [key]
    return sum(len(part) or 1 if isinstance(part, str) else 1 for part in parts)


def check_keys(keys: Sequence[Key]) -> None:
    """Check a dict's keys before the dict is built.

    Raises:
        WireError: A key is too long, or many keys have the same hash.
    """
    if any(_length(key) > MAX_STRING for key in keys):
        raise WireError("a dict has a key that is too long")
    hashes = Counter(hash(decode_key(key)) for key in keys)
    if max(hashes.values(), default=0) > MAX_EQUAL_HASHES:
        raise WireError("a dict has many keys with the same hash")


def decode_key(key: Key) -> Any:
    """Return a key as a plain value or a tuple of plain values."""
    return tuple(key) if isinstance(key, list) else key
