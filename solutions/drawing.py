"""Draw all figures in one style. Entry points: `Picture`, `Figures`.

A picture is a white card, so it is readable on light and dark pages. Colour-blind readers can distinguish its colours, which
have the same meaning in every figure: queries and the target are blue, keys and the source orange, values green.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path

BLUE, ORANGE, GREEN, PINK, RED = "#0072b2", "#b36b00", "#00785a", "#a8437a", "#c44900"
GREY, INK = "#57606a", "#1f2328"
PALE = {
    BLUE: "#dcebf6",
    ORANGE: "#fdeccb",
    GREEN: "#d5f0e6",
    PINK: "#f7e1ee",
    RED: "#fbe3d8",
    GREY: "#eef0f3",
}
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
CODE = "Menlo, Consolas, 'DejaVu Sans Mono', monospace"
MARKUP = re.compile(r"\*(?P<italic>[^*]+)\*|`(?P<code>[^`]+)`|_\{(?P<sub>[^}]+)\}")


class Picture:
    """An SVG picture, sized in pixels, with the origin at the top left. Text may contain `*italic*`, code and `_{sub}`."""

    def __init__(self, width: int, height: int) -> None:
        self.size = width, height
        self._parts: list[str] = []

    def save(self, file: Path) -> None:
        """Write the picture to a file."""
        file.write_text(self.svg(), encoding="utf-8")

    def svg(self) -> str:
        """Return the picture as an SVG document."""
        width, height = self.size
        heads = "".join(
            f'<marker id="head{colour[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
            for colour in (*PALE, INK)
        )
        card = f'<rect x="1" y="1" width="{width - 2}" height="{height - 2}" rx="10" fill="#fff" stroke="#d0d7de"/>'
        body = "\n".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'font-family="{FONT}" font-size="14" fill="{INK}">\n<defs>{heads}</defs>\n{card}\n{body}\n</svg>\n'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        at: str = "middle",
        size: float = 14,
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        """Write a line of text with its baseline at y. `at` is the alignment: "start", "middle" or "end"."""
        weight = ' font-weight="bold"' if bold else ""
        self._add(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{at}" font-size="{size:g}" fill="{colour}"{weight}>{_marked_up(text)}</text>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str = "",
        *,
        colour: str = GREY,
        size: float = 14,
        dashed: bool = False,
        fill: str | None = None,
    ) -> None:
        """Draw a rounded box with one or more centred lines of text."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._add(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{PALE[colour] if fill is None else fill}" stroke="{colour}"{dash}/>'
        )
        lines = text.split("\n") if text else []
        top = y + height / 2 + size * 0.35 - (len(lines) - 1) * size * 0.62
        for number, line in enumerate(lines):
            self.text(x + width / 2, top + number * size * 1.24, line, size=size)

    def line(
        self,
        points: Sequence[tuple[float, float]],
        *,
        colour: str = INK,
        arrow: bool = True,
        width: float = 1.5,
        dashed: bool = False,
    ) -> None:
        """Draw a line through points, by default with an arrowhead at its end."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        head = f' marker-end="url(#head{colour[1:]})"' if arrow else ""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._add(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dash}{head}/>'
        )

    def circle(
        self, x: float, y: float, radius: float, *, colour: str = GREY, fill: str = "none"
    ) -> None:
        """Draw a circle centred on a point."""
        self._add(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{colour}"/>')

    def plus(self, x: float, y: float) -> None:
        """Draw the plus sign of a residual connection."""
        self.circle(x, y, 11, colour=INK, fill="#fff")
        self.line([(x - 6, y), (x + 6, y)], arrow=False)
        self.line([(x, y - 6), (x, y + 6)], arrow=False)

    def badge(self, x: float, y: float, text: str) -> None:
        """Draw a short text in a dark, pill-shaped badge."""
        half = 4 + 4 * len(text) + (3 if len(text) == 1 else 0)
        self._add(
            f'<rect x="{x - half:g}" y="{y - 10:g}" width="{2 * half}" height="20" rx="10" fill="{INK}"/>'
        )
        self.text(x, y + 4.5, text, size=13, colour="#fff", bold=True)

    def grid(
        self,
        x: float,
        y: float,
        cells: Sequence[Sequence[str | float | None]],
        *,
        cell: tuple[float, float] = (44, 30),
        colour: str = BLUE,
        fills: Sequence[Sequence[str]] | None = None,
        size: float = 13,
    ) -> None:
        """Draw a matrix. Shade cells with numbers from 0 to 1, unless `fills` is given, and draw None as a red cross."""
        width, height = cell
        self._add(f'<g stroke="{colour}" stroke-width="0.8">')
        for i, row in enumerate(cells):
            for j, entry in enumerate(row):
                fill = fills[i][j] if fills else _shade(entry, colour)
                self._add(
                    f'<rect x="{x + j * width:g}" y="{y + i * height:g}" width="{width:g}" height="{height:g}" fill="{fill}"/>'
                )
        self._add("</g>")
        for i, row in enumerate(cells):
            for j, entry in enumerate(row):
                middle = x + (j + 0.5) * width, y + (i + 0.5) * height + size * 0.36
                if entry is None:
                    self.text(*middle, "×", size=size + 2, colour=RED)
                elif entry != "":
                    shown = f"{entry:.2f}" if isinstance(entry, float) else str(entry)
                    dark = isinstance(entry, float) and entry > 0.8 and not fills
                    self.text(*middle, shown, size=size, colour="#fff" if dark else INK)

    def labels(
        self,
        x: float,
        y: float,
        names: Sequence[str],
        step: tuple[float, float],
        *,
        at: str = "middle",
        colour: str = INK,
        size: float = 13,
    ) -> None:
        """Write evenly spaced labels. `step` is the offset from one label to the next."""
        for number, name in enumerate(names):
            self.text(
                x + number * step[0], y + number * step[1], name, at=at, colour=colour, size=size
            )

    def _add(self, part: str) -> None:
        self._parts.append(part)


class Figures:
    """The figures that a module draws. An instance is a decorator for functions, each of which draws one figure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drawn_by: dict[str, Callable[[], Picture]] = {}

    def __call__(self, function: Callable[[], Picture]) -> Callable[[], Picture]:
        """Register a function that draws a figure. For example, the function `kv_cache` draws kv-cache.svg."""
        self.drawn_by[function.__name__.replace("_", "-")] = function
        return function

    def save(self) -> None:
        """Write every figure to an SVG file in `folder`."""
        for name, draw in self.drawn_by.items():
            draw().save(self.folder / f"{name}.svg")


def _shade(entry: str | float | None, colour: str) -> str:
    """Return a colour between white and `colour` for a number from 0 to 1, and white for anything else."""
    if not isinstance(entry, float):
        return "#fff"
    share = max(0.0, min(1.0, entry))
    channels = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - channel)):02x}" for channel in channels)


def _marked_up(text: str) -> str:
    """Convert a text to SVG, with `<tspan>` elements for its markup."""

    def span(found: re.Match[str]) -> str:
        if found["italic"]:
            return f'<tspan font-style="italic">{found["italic"]}</tspan>'
        if found["code"]:
            return f'<tspan font-family="{CODE}" font-size="0.93em">{found["code"]}</tspan>'
        # A zero-width space after the subscript returns to the baseline.
        return f'<tspan dy="4" font-size="0.75em">{found["sub"]}</tspan><tspan dy="-4">​</tspan>'

    return MARKUP.sub(span, html.escape(text, quote=False))
