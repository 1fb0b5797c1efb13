"""What the present course would change in marks that are stored: who, by how much, in which test, and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from autograder.marks.history import Current
from autograder.marks.model import ExerciseMarks, SubmissionMarks, TestMarks
from autograder.submissions.class_source import Found, found
from autograder.submissions.client import Reader
from autograder.submissions.roster import NO_ROSTER, Roster


@dataclass(frozen=True)
class Reason:
    """One test of an exercise, what became of it, and what was seen in this submission."""

    test: str
    why: str
    seen: str = ""


@dataclass(frozen=True)
class Moved:
    """An exercise that is worth another number of points to somebody."""

    name: str
    before: float
    after: float
    reasons: Sequence[Reason]


@dataclass(frozen=True)
class Change:
    """One submission before and after."""

    before: SubmissionMarks
    after: SubmissionMarks

    @property
    def points(self) -> float:
        """What it gains, or loses where that is negative."""
        return round(self.after.points - self.before.points, 2)

    def moved(self) -> list[Moved]:
        """The exercises with other points, or worth other points, in the order of the course."""
        before = {exercise.name: exercise for exercise in self.before.exercises}
        after = {exercise.name: exercise for exercise in self.after.exercises}
        pairs = [(name, before.get(name), after.get(name)) for name in {**after, **before}]
        return [
            Moved(name, old.points if old else 0.0, new.points if new else 0.0, _reasons(old, new))
            for name, old, new in pairs
            if _worth(old) != _worth(new)
        ]

    def is_of_words(self) -> bool:
        """Whether the student reads something else, for the same points."""
        return not self.moved() and _lasting(self.before) != _lasting(self.after)


def found_again(
    stored: Sequence[Current], day: str, reader: Reader, roster: Roster = NO_ROSTER
) -> Iterator[Found]:
    """The submissions of these marks as they are now, where their files are there still."""
    places = {(current.marks.student, current.path) for current in stored}
    unders = dict.fromkeys(current.under for current in stored)
    there = [under for under in unders if os.path.lexists(under)]
    for handed_in in found(there, day, reader, roster=roster):
        key = handed_in.submission.student, handed_in.submission.path
        if key in places:
            places.remove(key)  # paths that were given may lie in one another
            yield handed_in


def changes(
    stored: Sequence[Current], graded: Iterable[SubmissionMarks]
) -> tuple[list[Change], list[SubmissionMarks]]:
    """The submissions that were graded again, before and after; and the marks of those that were not, for they are gone."""
    before = {(current.marks.student, current.path): current.marks for current in stored}
    again = [Change(before.pop((after.student, after.path)), after) for after in graded]
    return again, list(before.values())


def _worth(exercise: ExerciseMarks | None) -> tuple[float, float] | None:
    return (exercise.points, exercise.max_points) if exercise else None


def _lasting(marks: SubmissionMarks) -> list[ExerciseMarks]:
    return [replace(exercise, seconds=0.0) for exercise in marks.exercises]


def _reasons(before: ExerciseMarks | None, after: ExerciseMarks | None) -> list[Reason]:
    if before is None or after is None:
        return [Reason("", "is no longer an exercise" if before else "is a new exercise")]
    old, new = _tests(before), _tests(after)
    reasons = [
        reason for test in {**new, **old} for reason in _of_test(test, old.get(test), new.get(test))
    ]
    return reasons or [Reason("", "earns its points by other tests")]


def _tests(exercise: ExerciseMarks) -> Mapping[str, TestMarks]:
    return {test.name: test for test in exercise.tests}


def _of_test(name: str, before: TestMarks | None, after: TestMarks | None) -> Iterator[Reason]:
    if before is None or after is None:
        yield Reason(
            name, "no longer counts" if before else "is new", after.message if after else ""
        )
        return
    if before.max_points != after.max_points:
        yield Reason(name, f"is worth {after.max_points:g} instead of {before.max_points:g}")
    if before.passed and not after.passed:
        yield Reason(name, "held before and does not now", after.message)
    elif after.passed and not before.passed:
        yield Reason(name, "holds now and did not before", before.message)


# ---- in words


def report(changes: Sequence[Change], day: str) -> Iterator[str]:
    """Lines of text: what became of which test, and then each submission that has other points."""
    moved = [(change, change.moved()) for change in changes]
    moved = [(change, exercises) for change, exercises in moved if exercises]
    yield f"{day}: {len(moved)} of {len(changes)} submissions have other points"
    worded = sum(change.is_of_words() for change in changes)
    if worded:
        yield f"{worded} more keep their points, and something else is said of them"
    causes = Counter(
        (exercise.name, reason.test, reason.why)
        for _, exercises in moved
        for exercise in exercises
        for reason in exercise.reasons
    )
    for (name, test, why), count in causes.most_common():
        yield f"  {count} × {' '.join(filter(None, [name, test]))} {why}"
    for change, exercises in moved:
        yield from _told(change, exercises)


def _told(change: Change, exercises: Sequence[Moved]) -> Iterator[str]:
    before, after = change.before, change.after
    yield f"\n{after.student}: {before.points:g} → {after.points:g} ({change.points:+g})"
    if before.sha256 != after.sha256:
        yield f"  {after.path} is not the file that was graded before"
    if not after.exercises:
        yield f"  {'; '.join(after.problems)}"
    for exercise in exercises:
        yield f"  {exercise.name}: {exercise.before:g} → {exercise.after:g}"
        for reason in exercise.reasons:
            yield f"    {' '.join(filter(None, [reason.test, reason.why]))}"
            if reason.seen:
                yield f"      {reason.seen.replace(chr(10), chr(10) + '      ')}"
