"""Validate a TA's override requests, and convert them to overrides. Entry points: `resolve` and `find_keys`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autograder.course.config import CourseError, Day
from autograder.marks import adjustments, lookup, overrides
from autograder.marks.history import login
from autograder.marks.model import Override, SubmissionMarks
from autograder.marks.overrides import StudentOverride
from autograder.plain_text import counted, format_number
from autograder.submissions.roster import Roster

MAX_COMMENT = 2000  # characters
NUMBER = re.compile(r"\d+[.,]?\d*|[.,]\d+")  # `float` also accepts 1_0 and 1e1
SIGNS = ("+", "-", "−")


@dataclass(frozen=True)
class Request:
    """A TA's override. `student` is a name, id or email address. An empty `points` or `comment` keeps the stored value."""

    student: str
    exercise: str
    points: str
    comment: str
    where: str = ""  # the file and row of the request, for error messages, or ""


def resolve(
    requests: Sequence[Request],
    class_: Sequence[SubmissionMarks],
    day: Day,
    roster: Roster,
    by: str = "",
    stored: Iterable[StudentOverride] = (),
) -> list[StudentOverride]:
    """Return the overrides to store. A request for a group submission becomes one override per student.

    If `by` is empty, the overrides are stored under the login name. If a request omits the points or the comment,
    the value is taken from the `stored` overrides or from earlier requests.

    Raises:
        CourseError: A student or exercise is unknown, or the points are invalid. The message lists all problems.
    """
    known = {(one.key, one.exercise): one for one in stored}
    found: dict[tuple[str, str], StudentOverride] = {}
    problems: list[str] = []
    time = overrides.now()
    for request in requests:
        try:
            marks = lookup.find_stored(request.student, class_, day, roster)
            points, comment = _points(request, marks, day), _comment(request)
        except CourseError as error:
            problems.append(f"{request.where}{error}")
            continue
        exercise = next((e for e in marks.exercises if e.name == request.exercise), None)
        earned = exercise.points if exercise else None
        if earlier := adjustments.stored_for(marks, known.values()).get(request.exercise):
            if points is None and not (exercise and earlier.is_outdone_by(exercise)):
                points, earned = earlier.override.points, earlier.earned
            comment = comment or earlier.override.comment
        who = by or login()
        override = Override(points, comment, who, time, is_login=not by)
        for key in overrides.keys(marks):
            one = StudentOverride(key, marks.student, request.exercise, override, earned)
            found[key, request.exercise] = known[key, request.exercise] = one
    if problems:
        raise CourseError("; ".join(problems))
    return list(found.values())


def find_keys(
    student: str,
    stored: Sequence[StudentOverride],
    class_: Sequence[SubmissionMarks],
    day: Day,
    roster: Roster,
) -> set[str]:
    """Return the keys of the student with this name, id or email address, and of the other members of their group.

    If the student no longer has marks, match only the keys and names in the `stored` overrides.

    Raises:
        CourseError: No student matches, or several students do.
    """
    by_name = {one.key for one in stored if student in (one.key, one.student)}
    if by_name and not lookup.find(student, class_, roster):
        return by_name
    own = set(overrides.keys(lookup.find_stored(student, class_, day, roster)))
    return own if any(one.key in own for one in stored) else by_name


def _points(request: Request, marks: SubmissionMarks, day: Day) -> float | None:
    day.check_exercise(request.exercise)
    if not marks.exercises:
        raise CourseError(
            f"the submission of {marks.student} could not be graded, so it has no exercises"
        )
    text = request.points.strip()
    if not text:
        return None
    most = next(e.points for e in day.exercises if e.name == request.exercise)
    if text.startswith(SIGNS):
        raise CourseError(
            f"{request.points!r} has a sign. Enter the new points for {request.exercise}, from 0 to {format_number(most)}, "
            "not the change in points. The late penalty is deducted afterwards"
        )
    points = round(float(text.replace(",", ".")), 2) if NUMBER.fullmatch(text) else math.nan
    if not 0 <= points <= most:
        raise CourseError(
            f"{request.exercise} is worth {counted(most, 'point')}; {request.points!r} is not a number from 0 to "
            f"{format_number(most)}"
        )
    return points


def _comment(request: Request) -> str:
    comment = request.comment.strip()
    if not comment and not request.points.strip():
        raise CourseError(f"{request.student}, {request.exercise}: enter points, a comment or both")
    if len(comment) > MAX_COMMENT:
        raise CourseError(f"the comment is longer than {MAX_COMMENT} characters")
    return comment
