"""Write a Gradescope results.json file for each student, with one test per exercise. Entry point: `write`.

Gradescope's autograder documentation describes the keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from autograder.course.config import Day
from autograder.course.files import make_folder, write_output
from autograder.feedback import sentences
from autograder.feedback.exercise_feedback import as_text, to_feedback, unattempted_in
from autograder.feedback.sentences import Sentences
from autograder.feedback.student_page import file_name
from autograder.marks.class_list import StudentResult
from autograder.plain_text import counted, format_number


def write(results: Iterable[StudentResult], day: Day, folder: Path) -> None:
    """Write a file for each student with a grade. Students can read everything in their files."""
    texts = sentences.read(day)
    taken: set[str] = set()
    for result in results:
        if result.marks and result.points is not None:
            make_folder(folder)
            data = msgspec.json.format(msgspec.json.encode(_contents(result, texts)), indent=2)
            name = file_name(result.entry.student, taken)
            write_output(folder / f"{name}.json", data + b"\n")


def _contents(result: StudentResult, texts: Sentences) -> dict[str, Any]:
    """Return a student's results. The overall `score` includes the late penalty; the test scores do not."""
    marks = result.marks
    assert marks is not None
    output = [f"Note about this notebook: {problem}" for problem in marks.problems]
    unattempted = unattempted_in(marks.exercises)
    if result.late.percent and marks.exercises and result.points is not None:
        output.append(
            f"{counted(result.late.days, 'day')} late: {counted(marks.earned, 'point')} − "
            f"{format_number(result.late.percent)}% = {counted(result.points, 'point')}."
        )
    tests: list[dict[str, Any]] = []
    for number, exercise in enumerate(marks.exercises, 1):
        score = {"score": exercise.points, "max_score": exercise.max_points}
        tests.append(
            {
                "number": str(number),
                "name": f"{exercise.name} (optional)" if exercise.optional else exercise.name,
                **({} if exercise.optional else score),
                "status": "passed" if exercise.points == exercise.max_points else "failed",
                "output": as_text(to_feedback(exercise, texts, unattempted)),
            }
        )
    return {
        "score": result.points,
        "execution_time": marks.seconds,
        "output": "\n".join(output),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "tests": tests,
    }
