"""Grade or regrade a class for the command line: read the submissions, and collect notes for the TA.

Entry point: `Session`, which `open_session` creates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autograder.course.config import CourseError, Day
from autograder.course.files import FileError
from autograder.grading.class_run import ClassRun, Executor
from autograder.marks import class_list, class_notes, overrides, regrade
from autograder.marks.class_list import GroupRule, StudentResult
from autograder.marks.class_notes import Resubmission
from autograder.marks.history import History, Replacement
from autograder.marks.model import (
    CompressedMarks,
    SubmissionMarks,
    sorted_indices,
    without_tests,
)
from autograder.marks.regrade import Change
from autograder.plain_text import Decision
from autograder.submissions.origin import EXPORT
from autograder.submissions.reader_client import Reader
from autograder.submissions.roster import Roster
from autograder.submissions.submission import Submission, apply_roster, find_submissions

Adjust = Callable[[SubmissionMarks], SubmissionMarks]
Watch = Callable[[Iterator[SubmissionMarks]], Iterator[SubmissionMarks]]


@dataclass(frozen=True)
class GradedClass:
    """A class's marks, with information for the TA.

    Attributes:
        submissions: Each submission's marks.
        rows: One row per student, with the submission that counts. Results of individual tests are omitted.
        notes: Notes about the download, the roster and the choice of submissions.
        replacements: The students who submitted again, with the marks of both submissions.
        resubmissions: The students whose new submission counts, with the final points of both.
        identical: Groups of students whose submissions contain the same code.
        reused: The number of submissions whose marks were stored by an earlier run.
        unstored: The number of submissions whose marks could not be stored.
        exercises: The number of exercises in newly graded submissions whose code could be run.
        known: The number of these exercises whose result was stored.
    """

    submissions: CompressedMarks
    rows: list[StudentResult]
    notes: list[str]
    replacements: list[Replacement]
    resubmissions: list[Resubmission]
    identical: list[list[str]]
    reused: int
    unstored: int
    exercises: int = 0
    known: int = 0

    def with_tests(self) -> Iterator[StudentResult]:
        """Yield a row for each student who submitted, including individual test results."""
        places = {marks.path: number for number, marks in enumerate(self.submissions)}
        for row in self.rows:
            if row.marks:
                yield replace(row, marks=self.submissions[places[row.marks.path]])

    @property
    def ungraded(self) -> list[SubmissionMarks]:
        """Return the marks of submissions that could not be read or graded. Their `problems` explain why."""
        return [marks for marks in self.submissions if not marks.exercises]


@dataclass(frozen=True)
class RegradedClass:
    """A class's marks before and after regrading.

    Attributes:
        changes: The marks of each submission before and after regrading.
        gone: The stored marks of submissions that no longer exist.
        unstored: The number of submissions whose new marks could not be stored.
    """

    changes: list[Change]
    gone: list[SubmissionMarks]
    unstored: int

    @property
    def ungraded(self) -> list[SubmissionMarks]:
        """Return the new marks of submissions that could not be read or graded."""
        return [change.after for change in self.changes if not change.after.exercises]


@dataclass(frozen=True)
class Session:
    """A grading run for one day. It owns an executor, a reader and, unless `history` is None, the lock on the day's marks."""

    day: Day
    secret: bytes
    executor: Executor
    reader: Reader
    history: History | None
    roster: Roster
    on_store_error: Callable[[FileError], None]

    def grade(
        self,
        paths: Sequence[Path],
        seed: str | None,
        force: bool,
        watch: Watch = iter,
        group: GroupRule = "latest",
        adjust: Adjust = lambda marks: marks,
        corrects_times: bool = False,
    ) -> GradedClass:
        """Grade the submissions under the given paths.

        Args:
            seed: A seed to use for every submission. If it is given, the new marks do not become current.
            force: Grade unchanged submissions again.
            watch: A function that wraps the iterator of marks, to show progress.
            group: Which submission counts for a group on the roster.
            adjust: A function that applies overrides, which are not stored.
            corrects_times: Whether Moodle's worksheet belongs to these submissions. If so, its times replace known times.
        """
        run = self._run(seed=seed, force=force, is_current=seed is None)
        wrappers: dict[str, None] = {}
        found = find_submissions(paths, self.day, self.reader, self.roster)
        found = self._timed(found, corrects_times)
        submissions = CompressedMarks(
            map(adjust, watch(run.grade(_watch_wrappers(found, wrappers))))
        )
        submissions.sort(run.places)
        light = [without_tests(marks) for marks in submissions]
        rows = class_list.results(light, self.day, self.roster, group=group)
        in_store = self.history.keys(self.day.name) if self.history else ()
        notes = class_notes.notes(rows, self.day, self.roster, in_store)
        looked_through = [
            Decision(
                f"{wrapper} was searched: each file or folder in it counts as one student's submission"
            )
            for wrapper in wrappers
            if not EXPORT.fullmatch(Path(wrapper).name)
        ]
        replaced = [replace(one, before=adjust(one.before)) for one in run.replacements]
        submitted = [row for row in rows if row.marks]
        if corrects_times and submitted and not any(row.time for row in submitted):
            looked_through.append(
                Decision(
                    "the worksheet contains no submission time of these students. It may be that of a different assignment"
                )
            )
        again = class_notes.compare(replaced, rows, self.day)
        to_check = class_notes.resubmission_notes(again, group, self.day)
        return GradedClass(
            submissions,
            submitted,
            [*to_check, *notes, *looked_through],
            replaced,
            again,
            self._identical(rows),
            run.reused,
            run.unstored,
            run.exercises,
            run.known,
        )

    def _identical(self, rows: Sequence[StudentResult]) -> list[list[str]]:
        """Return groups of students with the same code, including students graded in earlier runs.

        Students who form a group on the roster are expected to share their code.
        """
        day = self.day.name
        names = {key: row.entry.student for row in rows for key in row.keys}
        groups = {row.entry.student: row.entry.group for row in rows if row.entry.group}
        stored = self.history.codes(day) if self.history else []
        graded = [([*m.origin.keys], m.student, m.code) for row in rows if (m := row.marks)]
        known = {(key, code) for keys, _, code in graded for key in keys}
        # A team's submission may be current for only some of its members.
        codes = graded + [
            (keys.split("\n"), student, code)
            for keys, student, code in stored
            if not any((key, code) in known for key in keys.split("\n"))
        ]
        by_code: dict[str, set[str]] = {}
        for keys, student, code in codes:
            own = [names[key] for key in keys if key in names]
            id_ = keys[0].partition(" ")[2]
            if len(keys) == 1 and id_ not in student and not self.roster.with_keys(keys, day):
                student = f"{student} ({id_})"
            by_code.setdefault(code, set()).add(", ".join(own) or student)
        by_code.pop("", None)  # submissions in which nothing was attempted
        return sorted(
            sorted(same)
            for same in by_code.values()
            if len({groups.get(label, label) for label in same}) > 1
        )

    def regrade(self, is_current: bool = False) -> RegradedClass:
        """Regrade the submissions in the store.

        Args:
            is_current: Whether the new marks become current. Otherwise, they are only stored.

        Raises:
            CourseError: The store contains no marks for the day.
        """
        assert self.history is not None
        day = self.day.name
        stored = self.history.current_with_paths(day)
        if not stored:
            raise CourseError(
                f"the store has no marks for {day}. Run `autograder grade {day}` first."
            )
        found = self._timed(regrade.find_again(stored, self.day, self.reader, self.roster))
        run = self._run(is_current=is_current)
        changes, gone = regrade.compare(stored, run.grade(found))
        changes = [changes[n] for n in sorted_indices(run.places)]
        return RegradedClass(changes, gone, run.unstored)

    def _timed(
        self, found: Iterable[Submission], corrects_times: bool = False
    ) -> Iterator[Submission]:
        """Yield the submissions with the times and teams from Moodle's worksheet, and then store these times.

        They are stored for each file, because the next worksheet contains only the newest file's time.
        """
        times = overrides.read_times(self.day)
        files = {}
        for one in found:
            handed_in = times.added_to(one.origin, one.sha256, corrects_times)
            if handed_in.source == "moodle" and handed_in.time:
                local = handed_in.time.replace(tzinfo=None)
                files[handed_in.ids[0], one.sha256] = local
            is_team = handed_in.people != one.origin.people
            one = replace(one, handed_in=handed_in)
            yield apply_roster(one, self.roster, self.day.name) if is_team else one
        if files and self.history:
            try:
                with overrides.OverrideStore(self.day.root) as store:
                    store.add_times(self.day.name, {}, files, replaces=corrects_times)
            except FileError as error:
                self.on_store_error(error)

    def _run(
        self, seed: str | None = None, force: bool = False, is_current: bool = True
    ) -> ClassRun:
        return ClassRun(
            self.day,
            self.secret,
            self.executor,
            seed,
            self.history,
            force,
            is_current,
            self.on_store_error,
        )


def _watch_wrappers(found: Iterable[Submission], wrappers: dict[str, None]) -> Iterator[Submission]:
    """Yield the submissions, and collect the paths of their wrapper folders in `wrappers`."""
    for one in found:
        if one.wrapper:
            wrappers[one.wrapper] = None
        yield one
