"""What a class made of each exercise and test: the numbers behind the instructor's page."""

from __future__ import annotations

import random
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autograder.feedback.sentences import Texts
from autograder.marks.model import ExerciseMarks, Marks, Status, SubmissionMarks, one_line

BINS = 10  # of 10 points each, where a day has 100


@dataclass(frozen=True)
class TestItem:
    """How many passed a test, of those who filled the exercise in."""

    name: str
    sentence: str
    passed: int
    of: int


@dataclass(frozen=True)
class ExerciseItem:
    """One exercise in the class."""

    name: str
    max_points: float
    mean_share: float  # of its points: the lower, the harder
    untouched: int
    of: int
    discrimination: float | None  # correlation of its points with those of all other exercises
    carried: int  # graded with the reference for another exercise
    median_seconds: float
    longest_seconds: float
    tests: Sequence[TestItem]


@dataclass(frozen=True)
class Found:
    """A known mistake, or failures alike that nobody named, and the submissions behind it."""

    exercise: str
    name: str
    text: str
    example: str
    submissions: Sequence[str]


@dataclass(frozen=True)
class Row:
    """One submission."""

    label: str
    points: float
    max_points: float
    problems: Sequence[str]
    statuses: Mapping[str, Status]
    exercises: Mapping[str, float]


@dataclass(frozen=True)
class Analysis:
    """All that the page and the CSV files show."""

    day: str
    title: str
    anonymous: bool
    rows: Sequence[Row]
    unread: int
    other_course: bool
    points: Sequence[float]
    bins: Sequence[int]
    exercises: Sequence[ExerciseItem]
    mistakes: Sequence[Found]
    unnamed: Sequence[Found]


def analyse(marks: Marks, texts: Texts, course: str, anonymous: bool = False) -> Analysis:
    """Count what a class did; what could not be read is counted as that and nothing else."""
    labels = _numbers(marks.submissions) if anonymous else _names(marks.submissions)
    hide: Callable[[str], str] = _Redaction(marks.submissions) if anonymous else one_line
    read = [(s, at) for s, at in zip(marks.submissions, labels, strict=True) if s.exercises]
    points = [s.points for s, _ in read]
    rows = [
        Row(
            label,
            s.points,
            s.max_points,
            [hide(problem) for problem in s.problems],
            {e.name: e.status for e in s.exercises},
            {e.name: e.points for e in s.exercises},
        )
        for s, label in zip(marks.submissions, labels, strict=True)
    ]
    order = sorted(rows, key=lambda row: int(row.label)) if anonymous else rows
    return Analysis(
        day=marks.day,
        title=texts.day.title,
        anonymous=anonymous,
        rows=order,
        unread=len(rows) - len(read),
        other_course=any(s.course != course for s, _ in read),
        points=points,
        bins=_bins([s.points / s.max_points for s, _ in read if s.max_points > 0]),
        exercises=_exercises([s for s, _ in read], texts),
        mistakes=_mistakes(read, texts),
        unnamed=_unnamed(read, texts, hide),
    )


def _names(submissions: Sequence[SubmissionMarks]) -> list[str]:
    """Each submission by its student, and by its path where a student has several."""
    count = Counter(s.student for s in submissions)
    return [
        one_line(s.student if count[s.student] == 1 else f"{s.student} ({s.path})")
        for s in submissions
    ]


def _numbers(submissions: Sequence[SubmissionMarks]) -> list[str]:
    """A number for each, in an order that a class list does not give away."""
    numbers = [str(n) for n in range(1, len(submissions) + 1)]
    seeds = "".join(s.seed for s in submissions).encode("utf-8", "surrogatepass")
    random.Random(seeds).shuffle(numbers)
    return numbers


class _Redaction:
    """Takes names and paths out of what students' code said."""

    def __init__(self, submissions: Sequence[SubmissionMarks]) -> None:
        stems = [re.split(r"[/\\]", s.path)[-1].split(".")[0] for s in submissions]
        whole = {name for s in submissions for name in (s.student, s.sha256) if name} | {*stems}
        parts = {part for name in whole for part in re.split(r"[\W_]+", name) if len(part) > 3}
        known = sorted({name for name in whole | parts if len(name) > 1}, key=len, reverse=True)
        # A path, an address, or any of the names.
        pattern = r"\S*[/\\@]\S*" + "".join(rf"|(?<!\w){re.escape(name)}(?!\w)" for name in known)
        self._pattern = re.compile(pattern, re.IGNORECASE)

    def __call__(self, text: str) -> str:
        return one_line(self._pattern.sub("…", text))


def _bins(shares: Sequence[float]) -> list[int]:
    count = Counter(min(max(int(share * BINS), 0), BINS - 1) for share in shares)
    return [count[n] for n in range(BINS)]


def _exercises(submissions: Sequence[SubmissionMarks], texts: Texts) -> list[ExerciseItem]:
    found = []
    for exercise in texts.day.exercises:
        marked = [
            (e, s.points - e.points)
            for s in submissions
            for e in s.exercises
            if e.name == exercise.name
        ]
        if marked:
            found.append(_item([e for e, _ in marked], [rest for _, rest in marked], texts))
    return found


def _item(marked: Sequence[ExerciseMarks], rest: Sequence[float], texts: Texts) -> ExerciseItem:
    first = marked[0]
    tried = [e for e in marked if e.status != "not_attempted"]
    seconds = [e.seconds for e in tried] or [0.0]
    sentences = texts.tests.get(first.name, {})
    passed = Counter(t.name for e in tried for t in e.tests if t.passed)
    return ExerciseItem(
        name=first.name,
        max_points=first.max_points,
        mean_share=statistics.fmean(_share(e) for e in marked),
        untouched=len(marked) - len(tried),
        of=len(marked),
        discrimination=_correlation([e.points for e in marked], rest),
        carried=sum(bool(e.reference_for) for e in marked),
        median_seconds=statistics.median(seconds),
        longest_seconds=max(seconds),
        tests=[
            TestItem(t.name, sentences.get(t.name, t.name), passed[t.name], len(tried))
            for t in first.tests
        ],
    )


def _share(marks: ExerciseMarks) -> float:
    return marks.points / marks.max_points if marks.max_points else 0.0


def _correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's; None where it says nothing: under three submissions, or all alike."""
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return statistics.correlation(x, y)


def _mistakes(read: Sequence[tuple[SubmissionMarks, str]], texts: Texts) -> list[Found]:
    behind: dict[tuple[str, str], list[str]] = defaultdict(list)
    for submission, label in read:
        for e in submission.exercises:
            if e.mistake is not None:
                behind[e.name, e.mistake].append(label)
    found = [
        Found(exercise, one_line(name), texts.mistakes.get(exercise, {}).get(name, ""), "", labels)
        for (exercise, name), labels in behind.items()
    ]
    return sorted(found, key=lambda f: -len(f.submissions))


def _unnamed(
    read: Sequence[tuple[SubmissionMarks, str]], texts: Texts, hide: Callable[[str], str]
) -> list[Found]:
    """Failures without a name by exercise, first failed test, and what was seen without its numbers."""
    behind: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for submission, label in read:
        for e in submission.exercises:
            failed = next((t for t in e.tests if not t.passed), None)
            if failed is None or e.mistake is not None or e.status == "not_attempted":
                continue
            sentence = texts.tests.get(e.name, {}).get(failed.name, failed.name)
            seen = _without_code(failed.message.removeprefix(sentence).strip())
            behind[e.name, sentence, without_numbers(seen)].append((label, hide(seen)))
    found = [
        Found(exercise, sentence, hide(alike), seen[0][1], [label for label, _ in seen])
        for (exercise, sentence, alike), seen in behind.items()
    ]
    return sorted(found, key=lambda f: -len(f.submissions))


def _without_code(message: str) -> str:
    """A message without the student's own line, which is nobody else's."""
    return re.sub(r"(\(cell \d+, line \d+): `[^`]*`\)", r"\1)", message)


def without_numbers(message: str) -> str:
    """A message in which every number is #, so that failures alike read alike."""
    return re.sub(r"[-−]?\b\d+(\.\d+)?(e[-+]?\d+)?\b|\b(nan|inf)\b", "#", message)
