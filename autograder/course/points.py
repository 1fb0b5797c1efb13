"""Convert exercise weights to points. Entry points: `scale` and `share`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache


def scale(weight: float, weights: Sequence[float], total: float) -> float:
    """Return the points for one weight, rounded to two decimal places. All `weights` together are worth `total` points."""
    return float(round(_exact(total) * _exact(weight) / sum(map(_exact, weights)), 2))


def share(weights: Sequence[float], total: float) -> list[float]:
    """Return the points for each weight. The last weight gets the remainder, so the points add up to `total`."""
    points = [_exact(scale(weight, weights, total)) for weight in weights[:-1]]
    return [float(each) for each in [*points, _exact(total) - sum(points)]]


@cache
def _exact(number: float) -> Fraction:
    """Return the exact decimal value of a number, as a fraction."""
    return Fraction(str(number))
