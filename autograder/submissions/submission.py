"""Read submissions from files, folders and archives.

A file that cannot be read becomes an unreadable submission with a problem, so it never affects the rest of the class.
This process only walks folders and opens files; sandboxed processes parse the contents. Names are escaped, links are
not followed, and archives are not extracted. Entry points: `find_submissions`, which yields one submission per student, and
`read_submissions`, which yields all.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.plain_text import counted, escaped, list_names, printable, printable_problems
from autograder.submissions import reader_messages
from autograder.submissions.cell import EMPTY_FILE, EMPTY_NOTEBOOK, Cell, definitions
from autograder.submissions.disk import DiskFolder, owner_from_path
from autograder.submissions.file_types import is_archive, is_day_name, is_other_day, stem
from autograder.submissions.origin import Origin, from_folder, labels, original_name
from autograder.submissions.places import (
    FoundFile,
    describe_os_error,
    find_for_student,
    find_in_class,
)
from autograder.submissions.reader_client import (
    FileReader,
    NotRegularFile,
    Reader,
    ReadError,
    ReadingTask,
    StudentBudget,
    open_regular,
    positional_reader,
)
from autograder.submissions.roster import NO_ROSTER, Roster

STATEMENT = re.compile(r"^[^\s#)\]}]", re.MULTILINE)  # a line that begins a top-level statement
STUB = "NotImplementedError"
EARLIEST = datetime.min.replace(tzinfo=UTC)
AMBIGUOUS = (
    "the file's name does not show who submitted it: the student's id in Canvas may be {ids}, and the file was graded as "
    "{label}. If that is wrong, the TA can enter the correct id in roster.csv and grade the file again"
)


@dataclass(frozen=True)
class Submission:
    """A notebook or script submitted by a student or group.

    `sha256` is the hash of the file's bytes, or "" if the file was not read. `student` contains the students' names on the
    roster or, if they are not on the roster, in the source. `handed_in` is None if only `student` is known.
    """

    path: str
    student: str
    sha256: str
    cells: tuple[Cell, ...]
    problems: tuple[str, ...]
    readable: bool
    release: str = ""  # the notebook's release stamp; see course/fingerprint.py
    handed_in: Origin | None = None
    wrapper: str = ""  # the folder that contains the class, if different from the TA's path
    under: str = ""  # the TA's path

    @property
    def origin(self) -> Origin:
        """Return who made the submission, and when."""
        return self.handed_in or from_folder(self.student)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return a unique label for each student, for reading."""
        return labels(self.student, self.origin)


def read_students(paths: Sequence[Path], day: str, reader: Reader) -> Iterator[list[Submission]]:
    """Lazily yield each student's or group's submissions."""
    return reader.map(task for path in paths for task in PathReader(path, day, reader).tasks())


def read_submissions(paths: Sequence[Path], day: str, reader: Reader) -> Iterator[Submission]:
    """Lazily yield the submissions under the paths. Within each path, files of the same student or group are consecutive."""
    for submissions in read_students(paths, day, reader):
        yield from submissions


class PathReader:
    """A reader for the submissions under one of the TA's paths. `find` lists the files, and `read` reads some of them."""

    def __init__(self, path: Path, day: str, reader: Reader) -> None:
        self.path, self._day, self._reader = path, day, reader
        self._student = student_from_path(path, day)

    def tasks(self) -> Iterator[ReadingTask[list[Submission]]]:
        """Yield a function for each student or group that reads the files."""
        for _, own in groupby(self.find(), key=lambda file: file.keys):
            yield partial(self.read, list(own))

    def find(self) -> list[FoundFile]:
        """Return the files under the path. Files of the same student or group are consecutive."""
        student, owner = self._student, None
        try:
            mode = os.lstat(self.path).st_mode
            owner = owner_from_path(self.path, self._day, self._reader)
            student = owner.student if owner else student
            if stat.S_ISDIR(mode):
                folder = DiskFolder(self.path, self._reader)
                return (
                    find_for_student(folder, self._day, student, owner)
                    if owner
                    else find_in_class(folder, self._day, student)
                )
            with open_regular(self.path) as file:
                is_class = owner is None and is_archive(self.path.name, file.read(8))
            if is_class:
                with self._reader.borrow() as reader:
                    return reader.list_archive(self.path, self._day, student).members
            problem = ""
        except OSError as error:
            problem = describe_os_error(error)
        except ValueError:
            problem = "the path is invalid"
        except (NotRegularFile, ReadError) as error:
            problem = str(error)
        return [FoundFile("", student, owner, problem=problem)]

    def read(
        self, files: Sequence[FoundFile], reader: FileReader, budget: StudentBudget
    ) -> list[Submission]:
        """Read one student's files."""
        return [one for file in files for one in self._read_file(file, reader, budget)]

    def _read_file(
        self, found: FoundFile, reader: FileReader, budget: StudentBudget
    ) -> Iterator[Submission]:
        """Yield a submission for each notebook or script in one of a student's files."""
        if found.problem:
            yield self._unreadable(found)
            return
        name = printable(found.place.rpartition("/")[2] or self.path.name)
        try:
            if found.member >= 0:
                listing = reader.list_archive(self.path, self._day, self._student)
                file = listing.open_member(found, budget)
                files = reader.read(name, file, self._day, budget)
            else:
                with open_regular(self.path, found.place) as opened:
                    file = positional_reader(opened)
                    files = reader.read(name, file, self._day, budget)
        except OSError as error:
            yield self._unreadable(found, describe_os_error(error))
            return
        except (NotRegularFile, ReadError) as error:
            yield self._unreadable(found, str(error))
            return
        for each in files:
            problems = [*found.notes, *([each.reason] if each.reason else each.problems)]
            yield self._submission(found, problems, each)

    def _unreadable(self, found: FoundFile, problem: str = "") -> Submission:
        return self._submission(
            found, [*found.notes, problem or found.problem], reader_messages.File("")
        )

    def _submission(
        self, found: FoundFile, problems: Iterable[str], file: reader_messages.File
    ) -> Submission:
        path = os.path.join(os.fspath(self.path), *filter(None, [found.place.rstrip("/")]))
        path = f"{path}/{file.place}" if file.place else path
        return Submission(
            escaped(path),  # not truncated, so that the file can be found again
            printable(found.student),
            printable(file.sha256),
            file.cells,
            printable_problems(problems),
            bool(file.cells),
            printable(file.release),
            found.handed_in or from_folder(printable(found.student)),
            escaped(os.path.join(os.fspath(self.path), found.wrapper)) if found.wrapper else "",
            os.fspath(self.path),
        )


def student_from_path(path: Path, day: str) -> str:
    """Return the student's name: the last path component that is not the day's name, without suffixes."""
    *above, last = os.path.abspath(path).split("/")
    own = stem(last)
    if own == last and not os.path.isdir(path):
        own, _ = os.path.splitext(last)
    names = [own, *map(stem, reversed(above))]
    return next((name for name in names if name and not is_day_name(name, day)), day)


def seed_of(day: str, secret: bytes) -> str:
    """Return the seed for a day, from which the grader derives the seed for each exercise's code."""
    return hmac.digest(secret, day.encode(), "sha256").hex()


def choose(candidates: Sequence[Submission], exercises: Collection[str]) -> Submission:
    """Choose which of a student's submissions to grade, and return it.

    Prefer the submission with the most exercises filled in, then the newest one according to the platform, then the first
    one by name. If there are several candidates, the result's `problems` list the candidates that were not graded. If no
    candidate is readable, `problems` gives the reason for each candidate.
    """
    if len(candidates) == 1:
        return candidates[0]
    names = _short_names(candidates)
    filled = [len(filled_in(each.cells, exercises)) for each in candidates]

    def rank(number: int) -> tuple[bool, int, float, str]:
        each = candidates[number]
        time = each.handed_in.time if each.handed_in else None
        seconds = (time or EARLIEST).timestamp()
        return not each.readable, -filled[number], -seconds, names[number]

    best, *others = sorted(range(len(candidates)), key=rank)
    if not candidates[best].readable:
        reasons = [f"{names[n]}: {'; '.join(candidates[n].problems)}" for n in (best, *others)]
        return replace(candidates[best], problems=tuple(reasons))
    left_out = list_names(_describe(candidates[n], names[n], filled[n]) for n in others)
    taken = _describe(candidates[best], names[best], filled[best])
    problem = f"{len(candidates)} files were submitted; graded: {taken}; not graded: {left_out}"
    own = [f"{names[best]}: {each}" for each in candidates[best].problems]
    return replace(candidates[best], problems=(problem, *own))


def filled_in(cells: Iterable[Cell], exercises: Collection[str]) -> set[str]:
    """Return the exercises whose last definition in the cells is not a stub."""
    found: set[str] = set()
    for cell in (cell for cell in cells if cell.kind == "code"):
        for match in definitions(cell.source):
            if match[1] in exercises:
                end = STATEMENT.search(cell.source, match.end())
                body = cell.source[match.end() : end.start() if end else None]
                (found.discard if STUB in body else found.add)(match[1])
    return found


def find_day(submission: Submission, day: str, exercises: Mapping[str, Collection[str]]) -> str:
    """Return the day to which a submission belongs.

    A notebook that defines an exercise of `day` belongs to that day. Otherwise, the day is determined by the release
    stamp, then by exercises of other days, and then by the file name. `exercises` maps each day to its exercises.
    """
    if defined(submission.cells, exercises[day]):
        return day
    if stamped := submission.release.partition(" ")[0]:
        return stamped
    for name, names in exercises.items():
        if defined(submission.cells, names):
            return name
    file = stem(original_name(os.path.basename(submission.path)))
    return file if is_other_day(file, day) else day


def defined(cells: Iterable[Cell], exercises: Collection[str]) -> set[str]:
    """Return the exercises that the cells define, whether or not they are filled in."""
    code = (cell.source for cell in cells if cell.kind == "code")
    found = (match[1] for source in code for match in definitions(source))
    return {name for name in found if name in exercises}


def _describe(submission: Submission, name: str, filled: int) -> str:
    if not submission.readable:
        is_empty = not {EMPTY_FILE, EMPTY_NOTEBOOK}.isdisjoint(submission.problems)
        return f"{name} ({'empty' if is_empty else 'unreadable'})"
    return f"{name} ({counted(filled, 'exercise')} filled in)"


def _short_names(candidates: Sequence[Submission]) -> list[str]:
    """Return the original file names of a student's submissions, or relative paths if the names are not unique."""
    names = [original_name(os.path.basename(each.path)) for each in candidates]
    if len(set(names)) == len(names):
        return names
    above = os.path.commonpath([os.path.dirname(each.path) for each in candidates])
    return [os.path.relpath(each.path, above or ".") for each in candidates]


def find_submissions(
    paths: Sequence[Path], day: Day, reader: Reader, roster: Roster = NO_ROSTER
) -> Iterator[Submission]:
    """Yield one submission per student or group under each path, with student names from the roster.

    A notebook for a different day becomes an unreadable submission.
    """
    exercises = exercises_by_day(day)
    for of_student in read_students(paths, day.name, reader):
        yield choose_for_day(of_student, day, exercises, roster)


def exercises_by_day(day: Day) -> dict[str, Collection[str]]:
    """Return the exercises of each day of the course."""
    exercises = {other.name: other.names for other in courses.load(day.root).days.values()}
    return {**exercises, day.name: day.names}


def choose_for_day(
    of_student: Sequence[Submission],
    day: Day,
    exercises: Mapping[str, Collection[str]],
    roster: Roster,
) -> Submission:
    """Choose which of a student's submissions to grade; see `find_submissions`. `exercises` contains those of each day."""
    chosen = choose(of_student, exercises[day.name])
    found = find_day(chosen, day.name, exercises) if chosen.readable else day.name
    if found != day.name:
        problem = f"this is the notebook for {found}, not for {day.name}"
        chosen = replace(chosen, problems=(problem,), readable=False, release="")
    return apply_roster(chosen, roster, day.name)


def apply_roster(submission: Submission, roster: Roster, day: str) -> Submission:
    """Return a copy of the submission with student names from the roster. Keep names that are not on the roster."""
    origin = roster.read(submission.origin, day)
    found = zip(roster.find(origin, day), origin.people, strict=True)
    names = [entry.student if entry else person.name or person.id for entry, person in found]
    problems = submission.problems
    if origin.readings:
        ids = " or ".join(reading.id for reading in origin.readings)
        problems = (AMBIGUOUS.format(ids=ids, label=origin.labels[0]), *problems)
    student = ", ".join(dict.fromkeys(names))
    return replace(submission, student=student, handed_in=origin, problems=problems)
