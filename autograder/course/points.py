"""Convert the weights of exercises to points. Entry points: `scale` and `share`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def scale(weight: float, weights: Sequence[float], total: float) -> float:
    """Return the points for one weight, rounded to two decimal places. All `weights` together are worth `total` points."""
    exact = Fraction(str(total)) * Fraction(str(weight)) / sum(Fraction(str(w)) for w in weights)
    return float(round(exact, 2))


def share(weights: Sequence[float], total: float) -> list[float]:
    """Return the points for each weight. The last weight gets the remainder, so the points add up to `total`."""
    points = [Fraction(str(scale(weight, weights, total))) for weight in weights[:-1]]
    return [float(each) for each in [*points, Fraction(str(total)) - sum(points)]]
