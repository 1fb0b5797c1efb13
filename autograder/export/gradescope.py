"""Gradescope's results.json (its autograder documentation), one file a student: an exercise is a test."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from autograder.feedback.exercise_feedback import as_text, to_feedback
from autograder.feedback.sentences import Texts
from autograder.marks.class_list import Row


def files(rows: Sequence[Row], texts: Texts) -> Iterator[tuple[str, str]]:
    """The name and the content of each file; what stands in it is what the student may read."""
    for row in rows:
        if row.marks:
            made = json.dumps(results(row, texts), indent=2, ensure_ascii=False)
            yield row.entry.student, made + "\n"


def results(row: Row, texts: Texts) -> dict[str, Any]:
    """The object. Its `score` stands above the sum of the tests: it is what is left after the late policy."""
    assert row.marks is not None
    said = [f"Noticed in this notebook: {problem}" for problem in row.marks.problems]
    if row.late.days:
        days = "1 day" if row.late.days == 1 else f"{row.late.days} days"
        said.append(
            f"{days} late: {row.marks.points:g} points less {row.late.per_cent:g} % are {row.points:g}."
        )
    return {
        "score": row.points,
        "execution_time": row.marks.seconds,
        "output": "\n".join(said),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "tests": [
            {
                "number": str(number),
                "name": exercise.name,
                "score": exercise.points,
                "max_score": exercise.max_points,
                "status": "passed" if exercise.points == exercise.max_points else "failed",
                "output": as_text(to_feedback(exercise, texts)),
            }
            for number, exercise in enumerate(row.marks.exercises, 1)
        ],
    }
