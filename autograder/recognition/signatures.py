"""What tells a known mistake from right code, from other mistakes, and from code that is wrong in no known way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from autograder.recognition.recording import (
    ASKED,
    KIND,
    RAISED,
    READ,
    TOLERANCE,
    WITH,
    Leaf,
    Leaves,
    same,
)


@dataclass(frozen=True)
class Known:
    """What tells a known mistake: the tests that it fails, its answers to them that are no chance, those that are not right.

    What right solutions do in several ways is `free`: how a model is asked (once or twice, in one batch or in two), and where
    parameters begin.
    """

    failed: list[str]
    certain: Leaves
    free: Leaves
    telling: Leaves
    values: list[str]  # the places of what tells by finite values, shapes, dtypes or missing names
    by_chance: bool  # some answers depend on random numbers

    @property
    def answers(self) -> Leaves:
        """All that it is known by."""
        return self.certain | self.free | self.telling


def named_by(known: Mapping[str, Known], failed: Sequence[str], answers: Leaves) -> str | None:
    """The name of the one known mistake that fails these tests with these answers, or all but one of them.

    Of several it is the one that asks models as the code does, and whose parameters begin alike.
    """
    names = [name for name, k in known.items() if k.failed == failed and _equal(k, answers)]
    if len(names) > 1:
        names = [name for name in names if _all_in(answers, known[name].free)]
    elif not names:
        names = [name for name, k in known.items() if _with_another(k, failed, answers)]
    return names[0] if len(names) == 1 else None


def _with_another(known: Known, failed: Sequence[str], seen: Leaves) -> bool:
    """Whether answers are those of a known mistake in code that has another fault, which shows in one test alone.

    That is a test that the mistake passes, or one in which the code fails to answer where the mistake answers. Or the
    other fault is the dtype: wherever answers differ they are the mistake's in another dtype. The values of the other
    tests tell.
    """
    different = [place for place, leaf in known.certain.items() if not _same(leaf, seen, place)]
    fault = {_test(place) for place in different} | set(failed) - set(known.failed)
    other_dtype = bool(different) and all(_in_another_dtype(known, seen, p) for p in different)
    return (
        set(known.failed) <= set(failed)
        and (len(fault) == 1 or (other_dtype and fault == {_test(place) for place in different}))
        and (other_dtype or not any(_answered(place, seen) for place in different))
        and any(
            _test(place) not in fault and _same(known.telling[place], seen, place)
            for place in known.values
        )
    )


def _in_another_dtype(known: Known, seen: Leaves, place: str) -> bool:
    """Whether the answer at this place is the mistake's but for its dtype."""
    place = place.removesuffix(KIND)
    mine, theirs = known.certain.get(place), seen.get(place)
    if not isinstance(mine, Tensor) or not isinstance(theirs, Tensor) or mine.dtype == theirs.dtype:
        return False
    if theirs.is_meta or not mine.is_floating_point() or not theirs.is_floating_point():
        return mine.shape == theirs.shape and mine.device == theirs.device
    coarser = min(mine.dtype, theirs.dtype, key=lambda dtype: -TOLERANCE[dtype])
    return same(mine.to(coarser), theirs.to(coarser))


def _test(place: str) -> str:
    return place.split(" ")[0]


def _answered(place: str, seen: Leaves) -> bool:
    """Whether the call of this place has an answer; without one there may be no later call either."""
    call = " ".join(place.split(" ")[:2])
    return f"{call} failure" not in seen and f"{call} modes {ASKED}" in seen


def what_tells(failed: list[str], first: Leaves, second: Leaves, right: Leaves) -> Known:
    """From the answers of two runs with different random numbers."""
    certain = {place: leaf for place, leaf in first.items() if _same(leaf, second, place)}
    by_chance = len(certain) < len(first)
    free = {place: leaf for place, leaf in certain.items() if _is_free(place, leaf, right)}
    certain = {place: leaf for place, leaf in certain.items() if place not in free}
    telling = {
        place: leaf
        for place, leaf in first.items()
        if not _same(leaf, right, place, 4)
        and not (place.endswith(READ) and _is_free(place, leaf, right))
    }
    values = [p for p, leaf in telling.items() if p in certain and _is_value(p, leaf, right)]
    return Known(failed, certain, free, telling, values, by_chance)


def _is_free(place: str, leaf: Leaf, right: Leaves) -> bool:
    """With what a model is asked, in which right modes, and where a parameter begins, unless the reference fills it evenly."""
    if not place.endswith(READ):
        return place.endswith(WITH) or (place.endswith(ASKED) and _same(leaf, right, place))
    other = right.get(place)
    filled = isinstance(other, Tensor) and not other.is_meta and len(other.unique()) == 1
    return not filled or _same(leaf, right, place)


def tells(known: Known, tests: int) -> bool:
    """Whether what a mistake does can be no accident of code that is wrong in another way.

    A test that fails though all that is seen is right tells by itself, and so do values. Failures and NaN
    do only beside tests that pass.
    """
    if not known.telling:
        return not known.by_chance
    return bool(known.values) or len(known.failed) < tests


def _is_value(place: str, leaf: Leaf, right: Leaves) -> bool:
    if place.endswith(" failure"):
        return leaf not in RAISED  # but says what is missing
    other = right.get(place)
    if not isinstance(leaf, Tensor) or not isinstance(other, Tensor):
        return place.endswith(KIND) and place in right
    if leaf.shape != other.shape or leaf.is_meta or other.is_meta:
        return True
    finite = leaf.isfinite() & other.isfinite()
    return not same(leaf[finite], other[finite])


def _equal(known: Known, seen: Leaves) -> bool:
    """Whether answers are those of a known mistake, wrong ones among them."""
    told = any(_same(leaf, seen, place) for place, leaf in known.telling.items())
    return _all_in(seen, known.certain) and (told or not known.telling)


def _all_in(seen: Leaves, leaves: Leaves) -> bool:
    return all(_same(leaf, seen, place) for place, leaf in leaves.items())


def _same(leaf: Leaf, answers: Leaves, place: str, times: float = 1.0) -> bool:
    return place in answers and same(leaf, answers[place], times)
