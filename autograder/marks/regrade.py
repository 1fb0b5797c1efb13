"""Compare stored marks with marks from the current course version, and report whose points change and why.

Entry points: `find_again`, `compare` and `report`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from autograder.course.config import Day
from autograder.marks.history import Current
from autograder.marks.model import ExerciseMarks, SubmissionMarks, TestMarks
from autograder.plain_text import counted, format_number
from autograder.submissions.reader_client import Reader
from autograder.submissions.roster import Roster
from autograder.submissions.submission import Submission, find_submissions

ROUNDING = 0.01  # maximum rounding error in a test's points


@dataclass(frozen=True)
class Reason:
    """Why an exercise's points changed: a test, what changed about it, and its message for this submission."""

    test: str
    change: str
    message: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.test, self.change]))


@dataclass(frozen=True)
class ExerciseChange:
    """An exercise whose points or maximum points differ between two gradings."""

    name: str
    before: float
    after: float
    reasons: Sequence[Reason]


@dataclass(frozen=True)
class Change:
    """The marks of one submission before and after regrading."""

    before: SubmissionMarks
    after: SubmissionMarks

    @property
    def points(self) -> float:
        """Return how many points the submission gains, or a negative number if it loses points."""
        return round(self.after.earned - self.before.earned, 2)

    def exercises(self) -> list[ExerciseChange]:
        """Return the exercises whose points or maximum points changed, in course order."""
        before = {exercise.name: exercise for exercise in self.before.exercises}
        after = {exercise.name: exercise for exercise in self.after.exercises}
        pairs = [(name, before.get(name), after.get(name)) for name in {**after, **before}]
        return [
            ExerciseChange(
                name, old.points if old else 0.0, new.points if new else 0.0, _reasons(old, new)
            )
            for name, old, new in pairs
            if _points(old) != _points(new)
        ]

    def changes_only_messages(self) -> bool:
        """Return whether the feedback changes but the points do not."""
        return not self.exercises() and _untimed(self.before) != _untimed(self.after)


def find_again(
    stored: Sequence[Current], day: Day, reader: Reader, roster: Roster
) -> Iterator[Submission]:
    """Reread the files of all submissions that have stored marks. Skip submissions whose files no longer exist."""
    places = {current.path for current in stored}
    paths = dict.fromkeys(current.found_under for current in stored)
    existing = [path for path in paths if os.path.lexists(path)]
    for submission in find_submissions(existing, day, reader, roster):
        path = os.path.abspath(submission.path)
        if path in places:
            places.remove(path)  # One path may contain another, so a submission may be found twice.
            yield submission


def compare(
    stored: Sequence[Current], graded: Iterable[SubmissionMarks]
) -> tuple[list[Change], list[SubmissionMarks]]:
    """Pair stored marks with new marks. Return the pairs, and the stored marks of submissions that no longer exist."""
    before = {current.path: current.marks for current in stored}
    changes = [Change(before.pop(os.path.abspath(after.path)), after) for after in graded]
    return changes, list(before.values())


def _points(exercise: ExerciseMarks | None) -> tuple[float, float, bool] | None:
    return (exercise.points, exercise.max_points, exercise.optional) if exercise else None


def _untimed(marks: SubmissionMarks) -> list[ExerciseMarks]:
    return [replace(exercise, seconds=0.0, statements=[]) for exercise in marks.exercises]


def _reasons(before: ExerciseMarks | None, after: ExerciseMarks | None) -> list[Reason]:
    if before is None or after is None:
        return [Reason("", "is no longer an exercise" if before else "is a new exercise")]
    old, new = ({test.name: test for test in one.tests} for one in (before, after))
    reasons = []
    if before.optional != after.optional:
        reasons.append(Reason("", "is optional now" if after.optional else "is no longer optional"))
    if before.max_points != after.max_points:
        reasons.append(Reason("", _new_worth(before.max_points, after.max_points)))
    scale = after.max_points / before.max_points if before.max_points else 1.0
    reasons += [
        reason
        for name in {**new, **old}
        for reason in _test_reasons(name, old.get(name), new.get(name), scale)
    ]
    same_tests = "passes the same tests, but trivial answers now pass different tests"
    return reasons or [Reason("", same_tests)]


def _new_worth(before: float, after: float) -> str:
    return f"is worth {format_number(after)} instead of {format_number(before)}"


def _test_reasons(
    name: str, before: TestMarks | None, after: TestMarks | None, scale: float
) -> Iterator[Reason]:
    """Yield what changed about a test, ignoring changes that merely result from scaling the exercise's points by `scale`."""
    if before is None or after is None:
        change = "no longer counts" if before else "is new"
        yield Reason(name, change, after.message if after else "")
        return
    error = ROUNDING * (1 + scale)
    is_scaled = scale != 1 and abs(before.max_points * scale - after.max_points) <= error
    if before.max_points != after.max_points and not is_scaled:
        yield Reason(name, _new_worth(before.max_points, after.max_points))
    if before.passed and not after.passed:
        yield Reason(name, "passed before and fails now", after.message)
    elif after.passed and not before.passed:
        yield Reason(name, "failed before and passes now", before.message)


# ---- the report


def report(changes: Sequence[Change], day: str) -> Iterator[str]:
    """Yield the report's lines: totals, changes that affect several submissions, and the submissions whose points change."""
    changed = [(change, exercises) for change in changes if (exercises := change.exercises())]
    yield f"{day}: points change in {len(changed)} of {len(changes)} submissions"
    counts = Counter(
        f"{exercise.name} {reason}"
        for _, exercises in changed
        for exercise in exercises
        for reason in exercise.reasons
    )
    for change, count in counts.most_common():
        if count > 1:
            yield f"  {count} × {change}"
    for submission, exercises in changed:
        yield from _submission_lines(submission, exercises)
    if reworded := sum(change.changes_only_messages() for change in changes):
        yield f"\nIn {counted(reworded, 'other submission')}, only the feedback changes."


def _submission_lines(change: Change, exercises: Sequence[ExerciseChange]) -> Iterator[str]:
    before, after = change.before, change.after
    difference = f"{change.points:+.12g}".replace("-", "−")
    yield f"\n{after.label}: {format_number(before.earned)} → {format_number(after.earned)} ({difference})"
    if before.sha256 != after.sha256:
        yield f"  {after.path} has changed since it was graded"
    if not after.exercises:
        yield f"  {'; '.join(after.problems)}"
    for exercise in exercises:
        yield f"  {exercise.name}: {format_number(exercise.before)} → {format_number(exercise.after)}"
        for reason in exercise.reasons:
            yield f"    {reason}"
            if reason.message:
                yield f"      {reason.message.replace(chr(10), chr(10) + '      ')}"
