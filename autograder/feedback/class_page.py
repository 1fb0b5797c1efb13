"""Write the class report: an HTML page, plus its tables as CSV files."""

from __future__ import annotations

import csv
import io
import random
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.course.files import make_folder, write_output
from autograder.course.late_policy import ON_TIME, Lateness
from autograder.feedback.exercise_feedback import STATUS
from autograder.feedback.sentences import Sentences
from autograder.feedback.templates import render
from autograder.marks.csv_cells import escape_formula
from autograder.marks.model import ExerciseMarks, Marks, Status, SubmissionMarks
from autograder.plain_text import sanitize

BINS = 10  # number of bars in the histogram, which covers 0 to 100%


@dataclass(frozen=True)
class TestStats:
    """The number of submissions that passed a test, and the number that attempted the test's exercise."""

    name: str
    sentence: str
    passed: int
    attempts: int


@dataclass(frozen=True)
class ExerciseStats:
    """The statistics for one exercise."""

    name: str
    max_points: float
    # The mean share of the points earned by submissions that attempted the exercise.
    mean_score: float | None
    not_attempted: int
    submissions: int
    discrimination: float | None  # correlation with the points for all other exercises
    substituted: int  # number of submissions graded with reference solutions to other exercises
    median_seconds: float
    longest_seconds: float
    tests: Sequence[TestStats]
    optional: bool

    @property
    def attempts(self) -> int:
        return self.submissions - self.not_attempted


@dataclass(frozen=True)
class FailureGroup:
    """Submissions that contain the same known mistake or fail an exercise in the same way."""

    exercise: str
    name: str
    text: str
    example: str
    submissions: Sequence[str]

    @property
    def is_shared(self) -> bool:
        return len(self.submissions) > 1


@dataclass(frozen=True)
class ReportRow:
    """A row in the table of submissions."""

    label: str
    points: float | None  # after late penalties; None if the submission could not be graded
    points_before: float | None
    max_points: float
    late: Lateness
    problems: Sequence[str]
    statuses: Mapping[str, Status]  # the status of each exercise that counts towards the total
    exercises: Mapping[str, float]


@dataclass(frozen=True)
class Analysis:
    """All data shown on the report page and in the CSV files."""

    day: str
    title: str
    language: str
    anonymous: bool
    rows: Sequence[ReportRow]
    unread: int
    other_course: bool
    points: Sequence[float]
    bins: Sequence[int]
    exercises: Sequence[ExerciseStats]
    mistakes: Sequence[FailureGroup]
    other_failures: Sequence[FailureGroup]


def analyse(
    marks: Marks,
    texts: Sentences,
    course: str,
    anonymous: bool = False,
    lateness: Sequence[Lateness] = (),
) -> Analysis:
    """Analyse a class's marks. Unreadable submissions are counted only in `unread`.

    `course` is the current course version. If `anonymous` is true, labels are numbers, and names, paths and addresses are
    removed from messages. `lateness` contains the lateness of each submission. If it is empty, all submissions count as on
    time.
    """
    late = lateness or [ON_TIME] * len(marks.submissions)
    labels = _numbers(marks.submissions) if anonymous else _names(marks.submissions)
    hide: Callable[[str], str] = _Redaction(marks.submissions) if anonymous else str
    read = [(s, label) for s, label in zip(marks.submissions, labels, strict=True) if s.exercises]
    rows = [
        ReportRow(
            label,
            None if s.points is None else one.reduce(s.points),
            s.points,
            s.max_points,
            one,
            [hide(problem) for problem in s.problems],
            {e.name: e.status for e in s.exercises if not e.optional},
            {e.name: e.points for e in s.exercises},
        )
        for s, label, one in zip(marks.submissions, labels, late, strict=True)
    ]
    graded = [(row.points, row.max_points) for row in rows if row.points is not None]
    order = sorted(rows, key=lambda row: int(row.label)) if anonymous else rows
    return Analysis(
        day=marks.day,
        title=texts.day.title,
        language=texts.day.language,
        anonymous=anonymous,
        rows=order,
        unread=len(rows) - len(read),
        other_course=any(s.course != course for s, _ in read),
        points=[points for points, _ in graded],
        bins=_bins([points / most for points, most in graded if most > 0]),
        exercises=_exercises([s for s, _ in read], texts),
        mistakes=_mistakes(read, texts),
        other_failures=_other_failures(read, texts, hide),
    )


def _names(submissions: Sequence[SubmissionMarks]) -> list[str]:
    """Label each submission with the student's name, plus its path if the student has several submissions."""
    count = Counter(s.label for s in submissions)
    return [s.label if count[s.label] == 1 else f"{s.label} ({s.path})" for s in submissions]


def _numbers(submissions: Sequence[SubmissionMarks]) -> list[str]:
    """Label submissions with numbers in random order, so that they cannot be matched to a class list."""
    numbers = [str(n) for n in range(1, len(submissions) + 1)]
    seeds = "".join(s.seed for s in submissions).encode("utf-8", "surrogatepass")
    random.Random(seeds).shuffle(numbers)
    return numbers


class _Redaction:
    """A function that removes names, paths and addresses from messages produced by students' code."""

    def __init__(self, submissions: Sequence[SubmissionMarks]) -> None:
        stems = [re.split(r"[/\\]", s.path)[-1].split(".")[0] for s in submissions]
        full = {name for s in submissions for name in (s.student, s.sha256) if name} | {*stems}
        parts = {part for name in full for part in re.split(r"[\W_]+", name) if len(part) > 3}
        names = sorted({name for name in full | parts if len(name) > 1}, key=len, reverse=True)
        # Trying thousands of names at each position is slow, so the pattern groups names by their first letter.
        by_letter: dict[str, list[str]] = defaultdict(list)
        for name in names:
            lower = name[0].lower()
            by_letter[lower if len(lower) == 1 else name[0]].append(re.escape(name[1:]))
        any_name = "|".join(rf"{re.escape(k)}(?:{'|'.join(own)})" for k, own in by_letter.items())
        # The pattern matches a path, an address, or any of the names.
        pattern = rf"\S*[/\\@]\S*|(?<!\w)(?:{any_name or '(?!)'})(?!\w)"
        self._pattern = re.compile(pattern, re.IGNORECASE)

    def __call__(self, text: str) -> str:
        return self._pattern.sub("…", text)


def _bins(shares: Sequence[float]) -> list[int]:
    count = Counter(min(max(int(share * BINS), 0), BINS - 1) for share in shares)
    return [count[n] for n in range(BINS)]


def _exercises(submissions: Sequence[SubmissionMarks], texts: Sentences) -> list[ExerciseStats]:
    stats = []
    for exercise in texts.day.exercises:
        marked = [
            (e, s.earned - e.credit)
            for s in submissions
            for e in s.exercises
            if e.name == exercise.name
        ]
        if marked:
            stats.append(_stats([e for e, _ in marked], [rest for _, rest in marked], texts))
    return stats


def _stats(
    marked: Sequence[ExerciseMarks], rest: Sequence[float], texts: Sentences
) -> ExerciseStats:
    """Compute the statistics for one exercise. `rest` contains each submission's points for all other exercises."""
    first = marked[0]
    attempts = [e for e in marked if e.status != "not_attempted"]
    seconds = [e.seconds for e in attempts] or [0.0]
    sentences = texts.tests.get(first.name, {})
    passed = Counter(t.name for e in attempts for t in e.tests if t.passed)
    return ExerciseStats(
        name=first.name,
        max_points=first.max_points,
        mean_score=statistics.fmean(map(_share, attempts)) if attempts else None,
        not_attempted=len(marked) - len(attempts),
        submissions=len(marked),
        discrimination=_correlation([e.points for e in marked], rest),
        substituted=sum(bool(e.reference_for) for e in marked),
        median_seconds=statistics.median(seconds),
        longest_seconds=max(seconds),
        tests=[
            TestStats(t.name, sentences.get(t.name, t.name), passed[t.name], len(attempts))
            for t in first.tests
        ],
        optional=first.optional,
    )


def _share(marks: ExerciseMarks) -> float:
    return marks.points / marks.max_points if marks.max_points else 0.0


def _correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return the Pearson correlation of x and y, or None if there are fewer than three values, or if x or y is constant."""
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return statistics.correlation(x, y)


def _mistakes(read: Sequence[tuple[SubmissionMarks, str]], texts: Sentences) -> list[FailureGroup]:
    """Group the submissions by known mistake, with the largest group first."""
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for submission, label in read:
        for e in submission.exercises:
            for mistake in e.mistakes:
                members[e.name, mistake].append(label)
    groups = [
        FailureGroup(exercise, name, texts.mistakes.get(exercise, {}).get(name, ""), "", labels)
        for (exercise, name), labels in members.items()
    ]
    return sorted(groups, key=lambda group: -len(group.submissions))


def _other_failures(
    read: Sequence[tuple[SubmissionMarks, str]], texts: Sentences, hide: Callable[[str], str]
) -> list[FailureGroup]:
    """Group the failures that match no known mistake.

    Failures are in the same group if they have the same exercise, first failed test and message (ignoring numbers).
    """
    members: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for submission, label in read:
        for e in submission.exercises:
            failed = next((t for t in e.tests if not t.passed), None)
            if failed is None or e.mistake is not None or e.status == "not_attempted":
                continue
            sentence = texts.tests.get(e.name, {}).get(failed.name, failed.name)
            seen = _without_code(failed.message.removeprefix(sentence).strip())
            members[e.name, sentence, without_numbers(seen)].append((label, hide(seen)))
    groups = [
        FailureGroup(exercise, sentence, hide(pattern), seen[0][1], [label for label, _ in seen])
        for (exercise, sentence, pattern), seen in members.items()
    ]
    return sorted(groups, key=lambda group: -len(group.submissions))


def _without_code(message: str) -> str:
    """Remove the quoted line of code from a message, because it differs between students."""
    return re.sub(r"(\(cell \d+, line \d+): `[^`]*`\)", r"\1)", message)


def without_numbers(message: str) -> str:
    """Replace every number in a message with #, so that similar failures compare equal."""
    return re.sub(r"[-−]?\b\d+(\.\d+)?(e[-+]?\d+)?\b|\b(nan|inf)\b", "#", message)


Cell = str | float | None

# The columns of exercises.csv, each of which is an attribute of `ExerciseStats`.
EXERCISE_COLUMNS = (
    "max_points",
    "mean_score",
    "not_attempted",
    "submissions",
    "discrimination",
    "substituted",
    "median_seconds",
    "longest_seconds",
)
# Each of these maps CSV headings to attributes of `FailureGroup`.
MISTAKE_COLUMNS = {"exercise": "exercise", "mistake": "name", "explanation": "text"}
FAILURE_COLUMNS = {
    "exercise": "exercise",
    "first_failed_test": "name",
    "message": "text",
    "example": "example",
}


def write(analysis: Analysis, folder: Path) -> list[Path]:
    """Write `report.html` and the CSV files to a folder, and return their paths.

    Raises:
        FileError: The folder or a file cannot be written.
    """
    make_folder(folder)
    page = folder / "report.html"
    write_output(page, html(analysis).encode())
    files = [page]
    for name, rows in tables(analysis).items():
        file = folder / f"{name}.csv"
        text = io.StringIO(newline="")
        csv.writer(text).writerows([[_escape(cell) for cell in row] for row in rows])
        write_output(file, text.getvalue().encode())
        files.append(file)
    return files


def _escape(cell: Cell) -> Cell:
    """Escape a text cell so that a spreadsheet displays it unchanged, even if it looks like a number, such as "+1"."""
    if not isinstance(cell, str):
        return cell
    return escape_formula(sanitize(cell).replace("\n", " "), keep_numbers=False)


def html(analysis: Analysis) -> str:
    """Return the report as an HTML page."""
    scores = [(e.name, e.mean_score) for e in analysis.exercises if e.mean_score is not None]
    imperfect = [(name, score) for name, score in scores if score < 1]
    return render(
        "class.html",
        language=analysis.language,
        it=analysis,
        hardest=sorted(imperfect, key=lambda one: one[1])[:3],
        width=100 // BINS,
        mean=statistics.fmean(analysis.points) if analysis.points else 0.0,
        median=statistics.median(analysis.points) if analysis.points else 0.0,
        deviation=statistics.pstdev(analysis.points) if analysis.points else 0.0,
        status=STATUS,
    )


def tables(analysis: Analysis) -> dict[str, list[list[Cell]]]:
    """Return a dictionary that maps each CSV file's name to its rows. The first row contains the headings."""
    return {
        "submissions": _submission_rows(analysis),
        "exercises": _exercise_rows(analysis),
        "tests": _test_rows(analysis),
        "known_mistakes": _groups(analysis.mistakes, MISTAKE_COLUMNS),
        "other_failures": _groups(analysis.other_failures, FAILURE_COLUMNS),
    }


def _submission_rows(analysis: Analysis) -> list[list[Cell]]:
    names = [e.name for e in analysis.exercises]
    labels = [f"{e.name} (optional)" if e.optional else e.name for e in analysis.exercises]
    head: list[Cell] = ["student", "points", "late_days", "late_per_cent", "points_before"]
    head += ["max_points", *labels, "problems"]
    rows: list[list[Cell]] = []
    for row in analysis.rows:
        total = [row.points, row.late.days, row.late.percent, row.points_before, row.max_points]
        by_exercise = [row.exercises.get(name) for name in names]
        rows.append([row.label, *total, *by_exercise, "; ".join(row.problems)])
    return [head, *rows]


def _exercise_rows(analysis: Analysis) -> list[list[Cell]]:
    rows: list[list[Cell]] = [["exercise", *EXERCISE_COLUMNS]]
    for e in analysis.exercises:
        values = (getattr(e, attribute) for attribute in EXERCISE_COLUMNS)
        rows.append([e.name, *(v if v is None else round(v, 4) for v in values)])
    return rows


def _test_rows(analysis: Analysis) -> list[list[Cell]]:
    rows: list[list[Cell]] = [["exercise", "test", "sentence", "passed", "attempts"]]
    for e in analysis.exercises:
        rows += [[e.name, t.name, t.sentence, t.passed, t.attempts] for t in e.tests]
    return rows


def _groups(groups: Sequence[FailureGroup], columns: Mapping[str, str]) -> list[list[Cell]]:
    """Return a table of groups. `columns` maps headings to attributes of `FailureGroup`."""
    rows: list[list[Cell]] = [[*columns, "count", "students"]]
    for group in groups:
        cells = [getattr(group, attribute) for attribute in columns.values()]
        rows.append([*cells, len(group.submissions), ", ".join(group.submissions)])
    return rows
