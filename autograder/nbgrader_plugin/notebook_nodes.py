"""Build the cells and outputs of an autograded notebook."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from nbformat import NotebookNode, v4

from autograder.feedback.exercise_feedback import ExerciseFeedback, as_html, as_text


def make_node(make: Any, *arguments: Any, **keywords: Any) -> NotebookNode:
    """Call one of nbformat's constructors, which lack type hints."""
    node: NotebookNode = make(*arguments, **keywords)
    return node


def verbatim(text: str) -> str:
    """Wrap text in a fenced code block, because nbgrader's pages run HTML and scripts in markdown and raw cells."""
    runs = (len(list(run)) for character, run in groupby(text) if character == "`")
    longest = max(runs, default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}" if text.strip() else ""


def text_output(text: str) -> NotebookNode:
    """Return a plain-text output."""
    return make_node(v4.new_output, "stream", name="stdout", text=text)


def feedback_output(exercise: ExerciseFeedback) -> NotebookNode:
    """Return an output with the feedback for an exercise, as HTML and as plain text for viewers that do not render HTML."""
    data = {"text/plain": as_text(exercise), "text/html": as_html(exercise)}
    return make_node(v4.new_output, "display_data", data=data)


def points_output(points: float) -> NotebookNode:
    """Return the output from which nbgrader reads the points for a check cell.

    The points must be a plain float: nbgrader gives full points for any other value, including NaN and NumPy numbers.
    """
    return make_node(v4.new_output, "execute_result", data={"text/plain": repr(float(points))})
