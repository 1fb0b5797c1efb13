"""Draw the README's chart of the time per additional submission (`python -m bench.speed_chart`).

The figures come from `python -m bench.marginal day1` on a two-core machine. Update `MEASURED` after a new measurement.
"""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).parents[1] / "docs" / "speed.svg"
# Seconds per additional correct Day 1 submission.
MEASURED = (("this autograder", 0.8), ("nbgrader", 4.3), ("Otter", 10.0))
WIDTH, LEFT, ROW, UNIT = 640, 130, 30, 44


def svg() -> str:
    """Return a bar chart of `MEASURED` that is readable on light and dark backgrounds."""
    height = ROW * len(MEASURED) + 10
    bars = []
    for number, (name, seconds) in enumerate(MEASURED):
        y, length = 10 + ROW * number, UNIT * seconds
        bars.append(
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{name}</text>\n'
            f'<rect x="{LEFT}" y="{y}" width="{length:g}" height="20"/>\n'
            f'<text x="{LEFT + length + 6:g}" y="{y + 15}">{seconds:g} s</text>\n'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="14" fill="#777">\n'
        f"<title>Seconds per additional submission</title>\n{''.join(bars)}</svg>\n"
    )


if __name__ == "__main__":
    FILE.write_text(svg(), encoding="utf-8")
