"""Write the class report: an HTML page, plus its tables as CSV files."""

from __future__ import annotations

import csv
import io
import random
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.course.files import make_folder, write_output
from autograder.course.late_policy import ON_TIME, Lateness
from autograder.feedback.exercise_feedback import STATUS
from autograder.feedback.sentences import Sentences
from autograder.feedback.templates import render
from autograder.marks.model import ExerciseMarks, Marks, SubmissionMarks
from autograder.plain_text import escape_formula, sanitize

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
    marks: SubmissionMarks
    late: Lateness
    problems: Sequence[str]

    @property
    def points(self) -> float | None:
        """Return the points after late penalties, or None if the submission could not be graded."""
        return None if self.marks.points is None else self.late.reduce(self.marks.points)

    @property
    def exercises(self) -> Mapping[str, float]:
        return {exercise.name: exercise.points for exercise in self.marks.exercises}

    @property
    def required(self) -> Sequence[ExerciseMarks]:
        return [exercise for exercise in self.marks.exercises if not exercise.optional]

    @property
    def lost(self) -> str:
        """List the exercises that lost points, and the number of those that were not attempted."""
        names = [
            f"`{e.name}`" + ("" if e.status == "partial" else f" ({STATUS[e.status]})")
            for e in self.required
            if e.status not in ("passed", "not_attempted")
        ]
        count = sum(e.status == "not_attempted" for e in self.required)
        parts = [", ".join(names), f"{count} not attempted" if count else ""]
        return "; ".join(filter(None, parts))


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
    hide = _redaction(marks.submissions) if anonymous else str
    read = [(s, label) for s, label in zip(marks.submissions, labels, strict=True) if s.exercises]
    rows = [
        ReportRow(label, s, one, [hide(problem) for problem in s.problems])
        for s, label, one in zip(marks.submissions, labels, late, strict=True)
    ]
    graded = [(p, row.marks.max_points) for row in rows if (p := row.points) is not None]
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


def _redaction(submissions: Sequence[SubmissionMarks]) -> Callable[[str], str]:
    """Return a function that removes names, paths and addresses from messages produced by students' code."""
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
    text = rf"\S*[/\\@]\S*|(?<!\w)(?:{any_name or '(?!)'})(?!\w)"
    pattern = re.compile(text, re.IGNORECASE)
    return lambda message: pattern.sub("…", message)


def _bins(shares: Sequence[float]) -> list[int]:
    count = Counter(min(max(int(share * BINS), 0), BINS - 1) for share in shares)
    return [count[n] for n in range(BINS)]


def _exercises(submissions: Sequence[SubmissionMarks], texts: Sentences) -> list[ExerciseStats]:
    marked: dict[str, list[ExerciseMarks]] = defaultdict(list)
    rest: dict[str, list[float]] = defaultdict(list)  # each submission's points for all others
    for submission in submissions:
        for e in submission.exercises:
            marked[e.name].append(e)
            rest[e.name].append(submission.earned - e.credit)
    names = [exercise.name for exercise in texts.day.exercises if exercise.name in marked]
    return [_stats(marked[name], rest[name], texts) for name in names]


def _stats(
    marked: Sequence[ExerciseMarks], rest: Sequence[float], texts: Sentences
) -> ExerciseStats:
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
    """Group the submissions by known mistake."""
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for submission, label in read:
        for e in submission.exercises:
            for mistake in e.mistakes:
                members[e.name, mistake].append(label)
    return _largest_first(
        FailureGroup(exercise, name, texts.mistakes.get(exercise, {}).get(name, ""), "", labels)
        for (exercise, name), labels in members.items()
    )


def _largest_first(groups: Iterable[FailureGroup]) -> list[FailureGroup]:
    return sorted(groups, key=lambda group: -len(group.submissions))


def _other_failures(
    read: Sequence[tuple[SubmissionMarks, str]], texts: Sentences, hide: Callable[[str], str]
) -> list[FailureGroup]:
    """Group the failures that match no known mistake by exercise, first failed test and message (ignoring numbers)."""
    members: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for submission, label in read:
        for e in submission.exercises:
            failed = next((t for t in e.tests if not t.passed), None)
            if failed is None or e.mistake is not None or e.status == "not_attempted":
                continue
            sentence = texts.tests.get(e.name, {}).get(failed.name, failed.name)
            seen = _without_code(failed.message.removeprefix(sentence).strip())
            members[e.name, sentence, without_numbers(seen)].append((label, seen))
    return _largest_first(
        FailureGroup(
            exercise, sentence, hide(pattern), hide(seen[0][1]), [label for label, _ in seen]
        )
        for (exercise, sentence, pattern), seen in members.items()
    )


def _without_code(message: str) -> str:
    """Remove the quoted line of code from a message, because it differs between students."""
    return re.sub(r"(\(cell \d+, line \d+): `[^`]*`\)", r"\1)", message)


def without_numbers(message: str) -> str:
    """Replace every number in a message with #, so that similar failures compare equal."""
    return re.sub(r"[-−]?\b\d+(\.\d+)?(e[-+]?\d+)?\b|\b(nan|inf)\b", "#", message)


Cell = str | float | None
# The columns of exercises.csv, each of which is an attribute of `ExerciseStats`.
EXERCISE_COLUMNS = (
    *("max_points", "mean_score", "not_attempted", "submissions", "discrimination"),
    *("substituted", "median_seconds", "longest_seconds"),
)


def write(analysis: Analysis, folder: Path) -> list[Path]:
    """Write `report.html` and the CSV files to a folder, and return their paths."""
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
    )


def tables(analysis: Analysis) -> dict[str, list[list[Cell]]]:
    """Return a dictionary that maps each CSV file's name to its rows. The first row contains the headings."""
    names = [e.name for e in analysis.exercises]
    submissions: list[list[Cell]] = [
        [
            *("student", "points", "late_days", "late_per_cent", "points_before", "max_points"),
            *(f"{e.name} (optional)" if e.optional else e.name for e in analysis.exercises),
            "problems",
        ]
    ]
    for row in analysis.rows:
        total = [row.points, row.late.days, row.late.percent, row.marks.points]
        earned = row.exercises
        by_exercise = [earned.get(name) for name in names]
        problems = "; ".join(row.problems)
        submissions.append([row.label, *total, row.marks.max_points, *by_exercise, problems])
    exercises: list[list[Cell]] = [["exercise", *EXERCISE_COLUMNS]]
    tests: list[list[Cell]] = [["exercise", "test", "sentence", "passed", "attempts"]]
    for e in analysis.exercises:
        values = (getattr(e, attribute) for attribute in EXERCISE_COLUMNS)
        exercises.append([e.name, *(v if v is None else round(v, 4) for v in values)])
        tests += [[e.name, t.name, t.sentence, t.passed, t.attempts] for t in e.tests]
    mistakes: list[list[Cell]] = [["exercise", "mistake", "explanation", "count", "students"]]
    for m in analysis.mistakes:
        mistakes.append([m.exercise, m.name, m.text, len(m.submissions), ", ".join(m.submissions)])
    failures: list[list[Cell]] = [
        ["exercise", "first_failed_test", "message", "example", "count", "students"]
    ]
    for m in analysis.other_failures:
        students = ", ".join(m.submissions)
        cells = (m.exercise, m.name, m.text, m.example, len(m.submissions), students)
        failures.append([*cells])
    return {
        "submissions": submissions,
        "exercises": exercises,
        "tests": tests,
        "known_mistakes": mistakes,
        "other_failures": failures,
    }
