"""Show a student's progress. Entry point: `progress`."""

from __future__ import annotations

import html
from dataclasses import dataclass

from IPython.display import display

from autograder.in_notebook.checks import EMPTY, NO_CHECK, outcome
from autograder.in_notebook.helper_names import EXERCISES, helper_names
from autograder.in_notebook.predictions import predict

_SIGNS = {"done": "✓", "failing": "✗", "not checked": "?", "not started": "·"}
_COLOURS = {
    "done": "#2e8b57",
    "failing": "#d9822b",
    "not checked": "#888888",
    "not started": "#88888866",
}


@dataclass(frozen=True)
class ProgressRow:
    """The state of one exercise. `message` describes the failure."""

    exercise: str
    chapter: str
    points: float  # 0 for an optional exercise
    minutes: int
    state: str
    message: str


class ProgressTable:
    """A table of the exercises in each chapter: HTML in a notebook, text elsewhere."""

    def __init__(self, rows: list[ProgressRow]) -> None:
        self.rows = rows
        self.chapters = {row.chapter: [r for r in rows if r.chapter == row.chapter] for row in rows}

    def __repr__(self) -> str:
        width = max((len(row.exercise) for row in self.rows), default=0)
        lines = [_count(self.rows)]
        for chapter, rows in self.chapters.items():
            lines += ["", f"{chapter}: {_count(rows)}"]
            for row in rows:
                line = (
                    f"  {_SIGNS[row.state]} {row.exercise:<{width}}  {row.state:<11}  {row.message}"
                )
                lines.append(line.rstrip())
        lines += [f"\n{line}" for line in _predicted()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [f"<p><strong>{_count(self.rows)}</strong></p>", _bar(self.rows)]
        for chapter, rows in self.chapters.items():
            states = {row.state for row in rows}
            is_open = " open" if len(states) > 1 or "failing" in states else ""
            title = f"{html.escape(chapter)}: {_count(rows)}"
            parts += [f"<details{is_open}><summary>{title}</summary><table>"]
            parts += [_table_row("th", "exercise", "state", "minutes", "points", "")]
            for row in rows:
                name, state = f"<code>{row.exercise}</code>", f"{_SIGNS[row.state]} {row.state}"
                message, points = (
                    html.escape(row.message),
                    f"{row.points:g}" if row.points else "optional",
                )
                parts += [_table_row("td", name, state, str(row.minutes), points, message)]
            parts += ["</table></details>"]
        parts += [f"<p>{line}</p>" for line in _predicted()]
        return "\n".join(parts)


@helper_names()
def progress() -> None:
    """Show your progress. Rerun the checks of exercises that have changed."""
    display(ProgressTable([_progress_row(name) for name in EXERCISES]))  # type: ignore[no-untyped-call]


def _progress_row(exercise: str) -> ProgressRow:
    """Return the table row for an exercise."""
    result = outcome(exercise)
    state = {"": "done", EMPTY: "not started", NO_CHECK: "not checked"}.get(result, "failing")
    line = " ".join(result.split()) if state == "failing" else ""
    return ProgressRow(
        exercise, *EXERCISES[exercise], state, line if len(line) <= 90 else f"{line[:89]}…"
    )


def _count(rows: list[ProgressRow]) -> str:
    """Return how many exercises are done, and how many minutes the others take."""
    done = sum(row.state == "done" for row in rows)
    left = sum(row.minutes for row in rows if row.state != "done")
    return f"{done} of {len(rows)} done" + (f", about {left} minutes left" if left else "")


def _predicted() -> list[str]:
    """Return a line with the number of predictions, or nothing if no question has been asked."""
    answered, asked = predict.count()
    return [f"Predictions so far: {answered} of {asked}"] if asked else []


def _bar(rows: list[ProgressRow]) -> str:
    """Return a bar with a segment for each exercise. Widths are proportional to minutes."""
    segments = [
        f'<span title="{row.exercise}: {row.state}"'
        f' style="flex: {max(row.minutes, 1)}; background: {_COLOURS[row.state]}"></span>'
        for row in rows
    ]
    style = "display: flex; gap: 2px; height: 14px; max-width: 640px"
    return f'<div role="img" aria-label="{_count(rows)}" style="{style}">{"".join(segments)}</div>'


def _table_row(tag: str, *cells: str) -> str:
    """Return a table row. Columns have the same widths in all chapters."""
    widths = (14, 8, 5, 4, 0)
    style = "text-align: left; vertical-align: top"
    shown = [
        f'<{tag} style="{style}; min-width: {width}em">{cell}</{tag}>'
        for width, cell in zip(widths, cells, strict=True)
    ]
    return f"<tr>{''.join(shown)}</tr>"
