"""Explain common errors in plain words, and judge the messages of required ones. Entry points: `advice` and `names_any`.

The hidden tests and the feedback pages also use this module.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NONE = "one of the values is None, such as the result of a function without `return`, or an optional argument"
TUPLE = "one of the values is a tuple, such as the results of a function that returns a pair; take the one that you need"
# An exception's type, a pattern that its message must contain, and the advice.
ADVICE: tuple[tuple[str, str, str], ...] = (
    ("NameError", "", "check the spelling, and whether `self.` is missing"),
    ("AttributeError", r"'NoneType' object", NONE),
    ("TypeError", r"NoneType", NONE),
    ("AttributeError", r"'tuple' object", TUPLE),
    (
        "AttributeError",
        r"'(float|int|list)' object",
        "one of the values is a number or a list, but your code treats it as a tensor",
    ),
    (
        "RuntimeError",
        r"in-?place operation|written-to tensor",
        "in-place operations such as `+=` and `masked_fill_` are not possible here; create a new tensor instead",
    ),
    ("TypeError", r"must be Tensor, not tuple|operand type.*'tuple'|concatenate tuple", TUPLE),
    (
        "ValueError",
        r"values to unpack",
        "the value that you unpack has a different number of parts than there are variables; print it",
    ),
    (
        "AttributeError",
        r"before Module.__init__\(\) call",
        "call `super().__init__()` first in `__init__`",
    ),
    (
        "AttributeError",
        r"object has no attribute",
        "check the spelling, and whether `__init__` sets this attribute",
    ),
    (
        "RuntimeError",
        r"Boolean value of Tensor with more than one value",
        "for masks, use `&`, `|` and `~` instead of `and`, `or` and `not`, and `torch.where` instead of `if`",
    ),
    (
        "TypeError",
        r"'float' object cannot be interpreted as an integer|tuple of ints, ?(but|not) .*float|slice indices must be integers",
        "an int is needed here, but this value is a float; `/` always returns a float, and `//` returns an int",
    ),
    (
        "RuntimeError",
        r"size of tensor a \(\d+\) must match the size of tensor b",
        "broadcasting compares axes starting from the last one; print both shapes",
    ),
    (
        "RuntimeError",
        r"shapes cannot be multiplied|Expected size for first two dimensions of batch2",
        "in a matrix product, the last axis of the first tensor and the second-to-last axis of the second one must be equally "
        "long; print both shapes",
    ),
    (
        "RuntimeError",
        r"is invalid for input of size",
        "the new shape must have as many elements as the old one; print the old shape",
    ),
    (
        "RuntimeError",
        r"expected m1 and m2 to have the same dtype|expected scalar type \w+ but found|did not match \w+$|"
        r"have the same dtype",
        "two tensors have different dtypes; print both, and create new ones with `dtype=x.dtype`",
    ),
    (
        "RuntimeError",
        r"must be a 3D tensor",
        "this function accepts only tensors with three axes; `@` accepts any number of leading axes",
    ),
    (
        "RuntimeError",
        r"all tensors to be on the same device|must be on the same device",
        "create new tensors with `device=x.device`",
    ),
    (
        "RuntimeError",
        r"must have same number of dimensions|Tensors must have same number",
        "add the missing axis with `unsqueeze` or `[:, None]`",
    ),
    (
        "RuntimeError",
        r"does not require grad and does not have a grad_fn",
        "gradients do not pass through `.detach()`, `.data`, `.item()` or new tensors made from numbers",
    ),
    (
        "IndexError",
        r"Dimension out of range|too many indices for tensor",
        "the tensor has fewer axes than your code expects; print its shape",
    ),
    (
        "IndexError",
        r"index out of range in self",
        "an index into an embedding is negative, or not smaller than the number of rows",
    ),
    (
        "UnboundLocalError",
        "",
        "your code reads this variable before it assigns it, or assigns it only in some branches",
    ),
)

# Each line contains the beginnings of words with which messages name the same quantity.
QUANTITIES = (
    r"len|long|seq|position|token|context|ctx|block|step|max|limit|exceed|episode|trajector",
    r"d\b|d?model|dim|emb|hidden|feature|channel|width|even\b|odd\b",
    r"n?heads?|h\b|g\b|n?group|kv\b",
    r"image|img|picture|resolution|height|width|patch",
    r"semitone|pitch|note|transpos",
    r"k\b|neighbou?r|nearest",
    r"mix|interpolat|lambda",
    r"top ?p\b|nucleus",
)


def names_any(message: str, names: Sequence[str]) -> bool:
    """Return whether a message contains one of these arguments, in any spelling, or names its quantity in words."""
    if any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) for name in names):
        return True
    text = _as_words(message)
    for name in map(_as_words, names):
        spellings = [name.replace(" ", "[ -]?")] * (len(name) > 1)
        spellings += [words for words in QUANTITIES if re.match(rf".*\b(?:{words})", name)]
        if any(re.search(rf"\b(?:{spelling})", text) for spelling in spellings):
            return True
    return False


def _as_words(text: str) -> str:
    """Separate the words of identifiers such as `max_length` and `maxLength`, and convert them to lower case."""
    return re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", text).lower()


def advice(kind: str, message: str) -> str:
    """Return advice on an exception with this type and message, or "" if the message needs no explanation."""
    for type_, pattern, text in ADVICE:
        if kind == type_ and re.search(pattern, message):
            return text
    return ""
