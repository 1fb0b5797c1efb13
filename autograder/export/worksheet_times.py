"""Read submission times from Moodle's worksheets, and correct the times of graded files.

Entry points: `store` and `update`, and `add` for marks that are not in the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace

from autograder.course.config import Day
from autograder.export.moodle import Worksheet
from autograder.marks.model import SubmissionMarks
from autograder.marks.overrides import OverrideStore, read_times
from autograder.marks.submission_times import SubmissionTimes, corrections
from autograder.plain_text import counted, list_with_count, utc_offset


def store(day: Day, file: Path) -> tuple[str, list[str]]:
    """Store the submission times from a worksheet. Return a message with their count and time zone, and notes for the TA.

    Raises:
        CourseError: The file is not a worksheet.
        FileError: The times cannot be stored.
    """
    times, notes = Worksheet.read(file).submission_times()
    with OverrideStore(day.root) as opened:
        opened.add_times(day.name, times)
    return _describe(day, file, len(times)), notes


def add(
    day: Day, file: Path, class_: Iterable[SubmissionMarks]
) -> tuple[list[SubmissionMarks], str, list[str]]:
    """Add the worksheet's times to files without a time, but do not store them.

    Return the class with these times, and the same message and notes as `store`.

    Raises:
        CourseError: The file is not a worksheet.
    """
    found, notes = Worksheet.read(file).submission_times()
    times = SubmissionTimes(found, zone=day.late.moodle_zone)
    updated = [
        replace(marks, handed_in=times.added_to(marks.handed_in, marks.sha256)) for marks in class_
    ]
    return updated, _describe(day, file, len(found)), notes


def update(
    day: Day, file: Path, class_: Iterable[SubmissionMarks]
) -> tuple[list[SubmissionMarks], str, list[str]]:
    """Store the submission times from a worksheet that may be newer or older than the graded files.

    A graded file without a time gets the worksheet's time. A file with a time keeps it, unless the worksheet shows all
    times in a different time zone. Return the class with these times, and the message and notes from `store`.

    Raises:
        CourseError: The file is not a worksheet.
        FileError: The times cannot be stored.
    """
    class_ = list(class_)
    _store_files(day, class_)
    message, notes = store(day, file)
    times = read_times(day)
    known = {
        source.participant: source.time.replace(tzinfo=None)
        for source in (marks.handed_in for marks in class_)
        if source and source.participant and source.time
    }
    shifts = corrections(known, times.in_worksheet)
    with OverrideStore(day.root) as opened:
        opened.shift_file_times(day.name, shifts)
    times = read_times(day)
    updated, different = [], []
    for marks in class_:
        participant = marks.handed_in.participant if marks.handed_in else ""
        updated.append(replace(marks, handed_in=times.added_to(marks.handed_in, marks.sha256)))
        if participant in known and participant not in shifts:
            is_same = times.in_worksheet.get(participant, known[participant]) == known[participant]
            different += [] if is_same else [marks.label]
    _store_files(day, updated)
    if shifts:
        files = counted(len(shifts), "graded file")
        notes.append(f"{file} corrects the submission times of {files}")
    if different:
        notes.append(
            f"the submission times in {file} differ from those of the graded files {list_with_count(different)}. "
            "The times of the graded files count. If the students submitted again, grade a new download. If the times "
            f"of the graded files are wrong, run `autograder grade {day.name} PATH --worksheet {file}`"
        )
    return updated, message, notes


def _store_files(day: Day, class_: Sequence[SubmissionMarks]) -> None:
    """Store when the graded files were submitted, because the next worksheet contains only the newest file's time."""
    with OverrideStore(day.root) as opened:
        opened.add_file_times(day.name, [(marks.handed_in, marks.sha256) for marks in class_])


def _describe(day: Day, file: Path, count: int) -> str:
    read = f"{count} submission {'time was' if count == 1 else 'times were'} read"
    return f"{read} from {file} and assumed to be in {_describe_zone(day)}"


def _describe_zone(day: Day) -> str:
    late = day.late
    if late.moodle_time_zone:
        return f"{late.moodle_time_zone}, the `moodle_time_zone` in grading.toml"
    if late.due:
        return (
            f"{utc_offset(late.due)}, like `due`. If Moodle shows you times in a different time zone, "
            "set `moodle_time_zone` in grading.toml"
        )
    return f"UTC, because grading.toml sets no `due` for {day.name}. Once you set it, its offset applies"
