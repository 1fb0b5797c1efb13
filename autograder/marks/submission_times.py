"""Add the submission times and the teams from Moodle's worksheets, because Moodle's downloads contain neither.

A worksheet has only one time per participant, the time of the newest file. The time of each graded file is therefore also
stored, so that a file never gets the time of a different file. Times are stored as Moodle writes them: as local times
without an offset. The time zone is applied when a time is used, so that a correction in `grading.toml` affects all
times. Entry point: `SubmissionTimes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cached_property

from msgspec.structs import replace

from autograder.marks.model import SubmissionMarks
from autograder.submissions.origin import Origin, Person, moodle_name

ZONE_STEP = timedelta(minutes=15)  # offsets from UTC are multiples of this
SUMMER = timedelta(hours=1)  # the amount by which daylight saving time changes an offset
FileTimes = Mapping[tuple[str, str], datetime]


@dataclass(frozen=True)
class SubmissionTimes:
    """A day's submission times: each participant's time in the last worksheet, and the time of each graded file.

    `in_worksheet` maps participant numbers to times, and `of_files` maps pairs of a participant number and a file's hash to
    times. A submission that could not be read has the hash "". The times are Moodle's local times, without an offset, and
    `zone` is their time zone. `teams` maps the names of teams, as `moodle_name` returns them, to their members.
    """

    in_worksheet: Mapping[str, datetime] = field(default_factory=dict)
    of_files: FileTimes = field(default_factory=dict)
    zone: tzinfo = UTC
    teams: Mapping[str, tuple[Person, ...]] = field(default_factory=dict)

    def of(self, marks: SubmissionMarks) -> SubmissionMarks:
        """Return marks with the members of their team and the submission time of their file."""
        if marks.origin.source != "moodle":
            return marks
        found = self.added_to(marks.origin, marks.sha256)
        is_same = found.people == marks.origin.people
        return replace(marks, handed_in=found, student=marks.student if is_same else found.student)

    def added_to(self, source: Origin, sha256: str, corrects: bool = False) -> Origin:
        """Return `source` with its team's members and the submission time of the file with this hash filled in.

        A `source` that is not from Moodle is returned unchanged. A time that is already known is replaced with the worksheet's
        only if `corrects` is true. Times in stored marks may have outdated UTC offsets, so these offsets are ignored.
        """
        if source.source != "moodle":
            return source
        name = moodle_name(source.student)
        if members := self.teams.get(name):
            source = replace(source, people=members, participant="", team=source.labels[0])
        elif self.teams and source.participant and self._names.get(source.participant) != name:
            # In a team assignment, this is the team's number, which may also be a student's participant number.
            team = source.labels[0]
            person = Person(source.student, team)
            source = replace(source, people=(person,), participant="", team=team)
        who = source.ids[0]
        known = self.of_files.get((who, sha256)) or source.time
        times = [self.in_worksheet[id_] for id_ in source.ids if id_ in self.in_worksheet]
        worksheet = max(times, default=None)
        files = self._files_at.get((who, worksheet), {sha256})
        if files - {sha256}:
            worksheet = None  # the time belongs to a different file
        local = worksheet or known if corrects else known or worksheet
        return replace(source, time=local and _with_offset(local, self.zone))

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """Map the participant numbers of the teams' members to their names."""
        return {p.id: moodle_name(p.name) for members in self.teams.values() for p in members}

    @cached_property
    def _files_at(self) -> Mapping[tuple[str, datetime | None], set[str]]:
        """Map participants and times to the hashes of the files submitted then."""
        found: dict[tuple[str, datetime | None], set[str]] = {}
        for (participant, file), time in self.of_files.items():
            found.setdefault((participant, time), set()).add(file)
        return found

    def local_times(self, class_: Iterable[SubmissionMarks]) -> dict[tuple[str, str], datetime]:
        """Return the local submission times of a class's files that have a participant number and a known time."""
        sources = [(self.added_to(one.origin, one.sha256), one.sha256) for one in class_]
        return {
            (source.ids[0], file): source.time.replace(tzinfo=None)
            for source, file in sources
            if source.source == "moodle" and source.time
        }


def _with_offset(local: datetime, zone: tzinfo) -> datetime:
    """Attach a time zone's UTC offset to a local time. If the time occurs twice because clocks go back, use the first."""
    time = local.replace(tzinfo=zone, fold=0)
    return time.replace(tzinfo=timezone(time.utcoffset() or timedelta()))


def corrections(known: Mapping[str, datetime], new: Mapping[str, datetime]) -> dict[str, timedelta]:
    """Map participants to the time shift that makes the known time of their graded file match the new worksheet.

    If the times of most participants differ by the same amount, the new worksheet was written in a different time zone, so
    these times are shifted. A time that differs by any other amount may belong to a newer file, which was not graded.
    """
    shifts = {who: new[who] - known[who] for who in known.keys() & new.keys()}
    (usual, _), *_ = Counter(shifts.values()).most_common(1) or [(timedelta(), 0)]
    if not usual or usual % ZONE_STEP:
        return {}
    found = {
        who: shift
        for who, shift in shifts.items()
        if shift and abs(shift - usual) in (timedelta(), SUMMER)
    }
    return found if len(found) > max(1, len(shifts) / 2) else {}
