"""Write a Gradescope results.json file for each student, with one test per exercise.

Gradescope's autograder documentation describes the keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from autograder.feedback.exercise_feedback import as_text, to_feedback, unattempted_in
from autograder.feedback.sentences import Sentences
from autograder.marks.class_list import StudentResult
from autograder.marks.model import ExerciseMarks
from autograder.plain_text import counted, format_number


def files(rows: Sequence[StudentResult], texts: Sentences) -> Iterator[tuple[str, str]]:
    """Yield each submitter's name and the contents of their results file. Students can read everything in their files."""
    for row in rows:
        if row.points is not None:
            content = json.dumps(results(row, texts), indent=2, ensure_ascii=False)
            yield row.entry.student, content + "\n"


def _score(exercise: ExerciseMarks) -> dict[str, float]:
    return {"score": exercise.points, "max_score": exercise.max_points}


def results(row: StudentResult, texts: Sentences) -> dict[str, Any]:
    """Return the results for a student. The overall `score` includes the late penalty; the test scores do not."""
    assert row.marks is not None
    output = [f"Note about this notebook: {problem}" for problem in row.marks.problems]
    unattempted = unattempted_in(row.marks.exercises)
    if row.late.percent and row.marks.exercises and row.points is not None:
        output.append(
            f"{counted(row.late.days, 'day')} late: {counted(row.marks.earned, 'point')} − "
            f"{format_number(row.late.percent)}% = {counted(row.points, 'point')}."
        )
    return {
        "score": row.points,
        "execution_time": row.marks.seconds,
        "output": "\n".join(output),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "tests": [
            {
                "number": str(number),
                "name": f"{exercise.name} (optional)" if exercise.optional else exercise.name,
                **({} if exercise.optional else _score(exercise)),
                "status": "passed" if exercise.points == exercise.max_points else "failed",
                "output": as_text(to_feedback(exercise, texts, unattempted)),
            }
            for number, exercise in enumerate(row.marks.exercises, 1)
        ],
    }
