"""Tell the TA about students, submissions and roster rows to check.

Entry points: `notes`, `roster_notes`, `export_notes` and, for students who submitted again, `compare` and
`resubmission_notes`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from autograder.course.config import Day
from autograder.marks.class_list import GroupRule, StudentResult, is_on_time, lateness_for
from autograder.marks.history import Replacement
from autograder.marks.model import SubmissionMarks
from autograder.marks.overrides import describe
from autograder.plain_text import Decision, counted, format_number, list_with_count
from autograder.submissions.roster import Roster

NEW_ROSTER = Decision(
    "roster.csv has no column with a platform's ids, so its column `id` is compared with the ids of every platform. "
    "`autograder roster` writes a roster with the ids of each platform"
)


def notes(
    results: Sequence[StudentResult], day: Day, roster: Roster, stored: Collection[str] = ()
) -> Iterator[str]:
    """Yield all notes about a graded class. `stored` contains the keys of all students whose marks are in the store."""
    yield from roster_notes(results, day, roster, stored)
    absent = [
        r.entry.label
        for r in _absent(results, roster, day, stored)
        if not _affects_lateness(r, day)
    ]
    strangers = not_on_roster(results, roster)
    # If most students are not on the roster, it does not cover the whole class.
    if strangers and len(strangers) <= len(roster.entries):
        yield f"these students are not {roster.place} {list_with_count(strangers)}"
    if absent:
        yield f"these students {roster.place} have no submission {list_with_count(absent)}"
    for result in results:
        if result.marks is None:
            continue
        if result.marks.origin.readings:
            yield Decision(f"{result.entry.student}: {result.marks.problems[0]}")
        yield from note_of_others(result.entry.student, result, result.others)
        if result.late.note and result.marks.points is not None:
            kind = str if result.entry.is_excused(day.name) else Decision
            yield kind(f"{result.entry.student}: {result.late.note}")
    yield from _late_notes(results, day)


def roster_notes(
    results: Sequence[StudentResult], day: Day, roster: Roster, stored: Collection[str] = ()
) -> Iterator[str]:
    """Yield notes about roster rows that may not affect marks in the way that the TA expects. See also `notes`."""
    late = [
        r.entry.label for r in _absent(results, roster, day, stored) if _affects_lateness(r, day)
    ]
    if late:
        yield Decision(
            "these roster rows set extension, late_hours or excused, but match no submission "
            f"{list_with_count(late)}. If one of these students submitted work, enter the id from "
            f"`autograder list {day.name}`"
        )
    is_from_platform = any(r.entry.key and not r.entry.key.startswith("folder ") for r in results)
    if roster.lacks_platform_ids and is_from_platform:
        yield NEW_ROSTER
    for result in results:
        team = result.marks.origin.team if result.marks else ""
        if result.marks and team and {*result.keys}.isdisjoint(result.marks.origin.keys):
            yield Decision(
                f"{result.entry.student} gets the marks of {team}, because roster.csv sets the group {result.entry.group!r}, "
                "but is not in this team in Moodle's worksheet. If the worksheet is right, delete the group from roster.csv"
            )
        hours = result.entry.hours_late(day.name)
        if hours and result.marks and is_on_time(result.marks):
            yield Decision(
                f"{result.entry.student}: late_hours is {format_number(hours)} in roster.csv, but Canvas did not mark this "
                "submission late. Check whether the hours are for a different submission"
            )


def not_on_roster(results: Iterable[StudentResult], roster: Roster) -> list[str]:
    """Return the students who submitted, but are not on the roster. If there is no roster, return an empty list."""
    found = [r.entry.student for r in results if r.marks and r.entry.key]
    return found if roster.entries else []


def _absent(
    results: Iterable[StudentResult], roster: Roster, day: Day, stored: Collection[str]
) -> list[StudentResult]:
    """Return the students on the roster without a submission, neither in the class nor in the store."""
    in_store = {one for one in roster.with_keys(stored, day.name) for one in roster.group(one)}
    return [r for r in results if r.marks is None and r.entry not in in_store]


def _affects_lateness(result: StudentResult, day: Day) -> bool:
    return bool(day.late.percent_per_day) and result.entry.affects_lateness(day.name)


def note_of_others(
    student: str, result: StudentResult, others: Iterable[SubmissionMarks]
) -> Iterator[str]:
    """Yield a note if the student has submissions that do not count. `result` contains the submission that counts."""
    assert result.marks is not None
    others = list(others)
    paths = {marks.path for marks in others} - {result.marks.path}
    if paths:
        points = "no points" if result.points is None else counted(result.points, "point")
        yield Decision(
            f"{student} has {len(paths) + 1} submissions; {result.marks.path} counts "
            f"({points}), and these do not: {', '.join(sorted(paths))}"
            f"{_differing_names([result.marks, *others])}. `autograder forget` deletes one that should not count"
        )


def _differing_names(class_: Iterable[SubmissionMarks]) -> str:
    """Return a warning if these submissions from Canvas have the same student id, but different names."""
    sources = [marks.origin for marks in class_]
    # The name is not certain if the file name is ambiguous.
    readings = [[reading.name for reading in source.readings] for source in sources]
    names = [found for found in readings if found]
    names += [[person.name for person in source.people] for source in sources if source.upload]
    if not names or set.intersection(*map(set, names)):
        return ""
    listed = ", ".join(sorted({found[0] for found in names}))
    return f". Their names in Canvas differ: {listed}. Check whether they are from the same student"


def export_notes(results: Sequence[StudentResult], day: Day, roster: Roster) -> Iterator[str]:
    """Yield all notes about a class, plus notes about missing grades, students who attempted nothing, and overrides."""
    yield from notes(results, day, roster)
    for result in results:
        if result.marks and result.marks.points is None:
            grade = "no grade" if result.points is None else counted(result.points, "point")
            yield Decision(f"{result.entry.label}: {grade}, because {result.marks.reason}")
    names = [
        result.entry.label
        for result in results
        if result.marks
        and result.marks.exercises
        and result.marks.points == 0
        and all(exercise.status == "not_attempted" for exercise in result.marks.exercises)
    ]
    if names:
        yield Decision(
            f"these students get 0 points because they attempted no exercises {list_with_count(names)}. Ask whether they "
            f"submitted the wrong file. To leave a grade empty, run `autograder forget {day.name} STUDENT` just "
            "before you export"
        )
    for result in results:
        for exercise in result.marks.exercises if result.marks else ():
            if exercise.override:
                yield f"override: {result.entry.student}: {describe(exercise)}"


def _late_notes(results: Sequence[StudentResult], day: Day) -> Iterator[str]:
    """Yield a note if late submissions lose no points, and a note about submissions whose times are unknown."""
    is_any_late = any(result.late.days and result.points is not None for result in results)
    if is_any_late and not day.late.percent_per_day:
        yield Decision(
            f"late submissions lose no points, because grading.toml sets no late policy for {day.name}. "
            "Set percent_per_day if they should"
        )
    if unknown := _without_time(results, day):
        names = list_with_count([result.entry.student for result in unknown])
        yield Decision(
            f"the late policy was not applied to submissions whose times are unknown {names}. "
            f"{_source_of_times(unknown, day)}"
        )


def _without_time(results: Iterable[StudentResult], day: Day) -> list[StudentResult]:
    """Return the students to whom the late policy was not applied, because their submission times are unknown."""
    if day.late.due is None or not day.late.percent_per_day:
        return []
    return [
        result
        for result in results
        if result.marks
        and result.marks.points is not None
        and result.is_late_unknown
        and result.hours is None
        and not result.entry.is_excused(day.name)
    ]


def _source_of_times(results: Iterable[StudentResult], day: Day) -> str:
    """Return advice on how a TA can add the missing submission times."""
    class_ = [result.marks for result in results if result.marks]
    if any(marks.origin.source == "moodle" for marks in class_):
        return (
            "Download Moodle's worksheet after downloading the submissions, and pass it with --worksheet, "
            f"or enter late_hours_{day.name} in roster.csv"
        )
    if any(day.name in marks.path.split("/")[1:-1] for marks in class_):
        return (
            f"In nbgrader's folders, the times are in submitted/STUDENT/{day.name}/timestamp.txt, and the top folder must be "
            f"named `submitted`. Otherwise, enter late_hours_{day.name} in roster.csv"
        )
    return f"Enter late_hours_{day.name} in roster.csv"


# ---- resubmissions


@dataclass(frozen=True)
class Resubmission:
    """A student's final points before and after a resubmission, or None if there is no grade."""

    result: StudentResult
    before: float | None

    def __str__(self) -> str:
        points = [
            "no grade" if one is None else format_number(one)
            for one in (self.before, self.result.points)
        ]
        return f"{self.result.entry.student}: {' → '.join(points)}"


def compare(
    replacements: Iterable[Replacement], results: Iterable[StudentResult], day: Day
) -> list[Resubmission]:
    """Return each student's final points before and after resubmission, if the new submission counts."""
    earlier = {one.key: one.before for one in replacements if not one.is_older}
    return [
        Resubmission(result, _final_points(earlier[key], result, day))
        for result in results
        for key in result.keys
        if key in earlier
    ]


def _final_points(earlier: SubmissionMarks, result: StudentResult, day: Day) -> float | None:
    # If Canvas did not mark the earlier submission late, the hours in the roster are for the new one.
    if earlier.points is None or is_on_time(earlier):
        return earlier.points
    return lateness_for(day, earlier.origin, result.entry, result.hours).reduce(earlier.points)


def resubmission_notes(again: Sequence[Resubmission], group: GroupRule, day: Day) -> Iterator[str]:
    """Yield notes about resubmissions that the TA should check."""
    worse = [
        one for one in again if one.before is not None and (one.result.points or 0.0) < one.before
    ]
    if worse:
        names = list_with_count([str(one) for one in worse])
        newest = "The newest submission counts. " if group == "latest" else ""
        yield Decision(
            f"these resubmissions lower the final points {names}. {newest}To make an earlier one count, run "
            f"`autograder forget {day.name} STUDENT`, and grade the earlier download again"
        )
    timed = [
        one.result.entry.label for one in again if one.result.entry.hours_late(day.name) is not None
    ]
    if timed:
        yield Decision(
            f"these students resubmitted and have late_hours in roster.csv {list_with_count(timed)}. If you have not "
            "done so, enter how many hours late the new submissions are"
        )
