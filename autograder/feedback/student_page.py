"""What a student reads: a page a submission, and the same of one exercise as text and as HTML for the returned notebook."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autograder.feedback.causes import common, plain, told_once
from autograder.feedback.grids import Grid, grid
from autograder.feedback.sentences import Texts
from autograder.feedback.templates import render
from autograder.grading import faults
from autograder.marks.model import (
    ExerciseMarks,
    Status,
    SubmissionMarks,
    TestMarks,
    exact_sum,
    one_line,
)

STATUS: Mapping[Status, str] = {
    "passed": "right",
    "partial": "partly right",
    "failed": "not right yet",
    "not_attempted": "not filled in",
    "error": "could not be run",
    "timed_out": "did not end in time",
    "crashed": "stopped Python",
    "not_allowed": "uses what is not allowed here",
}
OPEN = 2  # failed tests that are shown at once; the others are folded
LISTED = 4  # names that are written out


@dataclass(frozen=True)
class Lost:
    """A test that did not hold: what should be, what was seen, and both as matrices."""

    sentence: str
    seen: str
    points: float
    grid: Grid | None


@dataclass(frozen=True)
class Told:
    """One exercise as its student reads it."""

    name: str
    points: float
    max_points: float
    status: Status
    mistake: str
    reason: str  # what was seen, where it has one cause in all tests that did not hold
    lost: Sequence[Lost]
    held: Sequence[str]
    reference_for: Sequence[str]
    missing: bool = False  # nothing of this name was found

    @property
    def is_full(self) -> bool:
        return self.points == self.max_points

    @property
    def open(self) -> int:
        """How many failed tests are shown at once: with a name or one reason for all, the tests say less.

        What was seen with a mistake of another exercise is no reason for what did not hold without it.
        """
        if self.reason and not self.reference_for:
            return 0
        return 1 if self.mistake else OPEN

    @property
    def lost_words(self) -> str:
        """What became of the tests that did not pass: not all of them need have been run."""
        if self.status in ("not_allowed", "error"):
            return "were not run"
        if self.status in ("timed_out", "crashed"):
            return "did not hold, or were no longer tried"
        return "did not hold"

    @property
    def needs_work(self) -> bool:
        return not self.is_full and self.status != "not_attempted"

    @property
    def status_words(self) -> str:
        return "not found" if self.missing else STATUS[self.status]


def told(marks: ExerciseMarks, texts: Texts) -> Told:
    """The marks of an exercise in words."""
    sentences = texts.tests[marks.name]
    lost = [_lost(test, sentences, texts) for test in marks.tests if not test.passed]
    seen = [one.seen for one in lost]
    reason = common(seen)
    mistake = texts.mistakes[marks.name].get(marks.mistake or "", "")
    if reason:
        lost = [replace(one, seen="") for one in lost]
    else:
        # What another exercise's mistake made of it is folded; there a repetition says nothing.
        once = told_once(seen, 1 if mistake else OPEN, repeated=not marks.reference_for)
        lost = [replace(lost[n], seen=said) for n, said in once]
    return Told(
        name=marks.name,
        points=marks.points,
        max_points=marks.max_points,
        status=marks.status,
        mistake=mistake,
        reason=reason,
        lost=lost,
        held=[sentences.get(test.name, test.name) for test in marks.tests if test.passed],
        reference_for=marks.reference_for,
        missing=marks.status == "not_attempted" and marks.message.endswith("is not defined"),
    )


def _lost(test: TestMarks, sentences: Mapping[str, str], texts: Texts) -> Lost:
    sentence = sentences.get(test.name, test.name)
    show_values = texts.day.feedback == "values"
    seen = (
        test.message.removeprefix(sentence).strip() if show_values else test.message_without_values
    )
    shown = grid(test.values) if test.values and show_values else None
    return Lost(sentence, _capital(plain(seen)), test.max_points, shown)


def _capital(text: str) -> str:
    """A sentence: messages begin small, for they follow another one in the marks. Names of arguments stay as they are."""
    if re.match(r"(a|[a-z]{2,})\b", text):
        text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".?!…" else f"{text}."


# ---- one exercise in the returned notebook


def text(exercise: Told) -> str:
    """An exercise as plain text."""
    total = f"{exercise.points:g} of {exercise.max_points:g} points"
    lines = [f"{exercise.name}: {total}, {exercise.status_words}.", *_notes(exercise)]
    if exercise.lost:
        lines += ["", f"{exercise.lost_words.removeprefix('were ').capitalize()}:"]
        own = "seen with your own code: " if exercise.reference_for else ""
        for lost in exercise.lost:
            lines.append(f"  - {_indented(lost.sentence)}")
            lines += [f"    {own}{_indented(lost.seen)}"] if lost.seen else []
        if own and exercise.reason:
            lines += ["", f"In all of these, {own}{_indented(exercise.reason)}"]
    if exercise.held:
        lines += ["", f"{held_words(exercise).capitalize()}:"]
        lines += [f"  - {sentence}" for sentence in exercise.held]
    return "\n".join(lines) + "\n"


def _notes(exercise: Told) -> Iterator[str]:
    if exercise.mistake:
        yield exercise.mistake
    if exercise.reason and not exercise.reference_for:
        yield exercise.reason
    if exercise.reference_for:
        yield replaced(exercise)


def held_words(exercise: Told) -> str:
    """Of the tests that held, and why they earn nothing if they are all that did."""
    return (
        "held"
        if exercise.points
        else "held, as with an empty answer, so there are no points for it"
    )


def replaced(exercise: Told) -> str:
    """Why an exercise was graded with the reference for others, and what that is worth."""
    others = listed(exercise.reference_for)
    first = f"Graded with the course's own {others} in place of yours, so that a mistake there costs points only once."
    if exercise.is_full:
        return f"{first} Good news: `{exercise.name}` itself is right and has all its points."
    return (
        f"{first} What is listed below did not hold even then: something in `{exercise.name}` itself is not right, either. "
        f"Mend {others} first; then the checks in your notebook show what is left."
    )


def fragment(exercise: Told) -> str:
    """An exercise as a piece of HTML, with its style."""
    return render("fragment.html", exercise=exercise, **SAID)


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def listed(names: Sequence[str]) -> str:
    """Names as one would say them: a, b and c; of many the first few."""
    names = [f"`{name}`" for name in names]
    if len(names) > LISTED + 1:
        names = [*names[:LISTED], f"{len(names) - LISTED} others"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


SAID = {"replaced": replaced, "listed": listed, "held_words": held_words}  # what templates call


# ---- the page of a submission


def page(marks: SubmissionMarks, texts: Texts) -> str:
    """The whole page of a submission, as HTML."""
    exercises = [told(exercise, texts) for exercise in marks.exercises]
    return render(
        "feedback.html",
        title=texts.day.title,
        marks=marks,
        file=re.split(r"[/\\]", marks.path)[-1],
        exercises=exercises,
        steps=next_steps(exercises, marks.problems),
        **SAID,
    )


def next_steps(exercises: Sequence[Told], problems: Sequence[str] = ()) -> list[str]:
    """What is worth doing, the most useful thing first."""
    short = [e for e in exercises if e.needs_work]
    empty = [e for e in exercises if e.status == "not_attempted" and not e.missing]
    missing = [e for e in exercises if e.missing]
    steps = []
    if problems and (short or empty or missing):
        steps.append(
            "Look first at what was noticed in your notebook, below: it may be why an exercise fails or is missing."
        )
    if short:
        steps.append(_first_step(short[0], exercises))
        most = max(short, key=lambda e: e.max_points - e.points)
        if most is not short[0]:
            steps.append(
                f"Then `{most.name}`: of all that you filled in, it has the most points left "
                f"({most.max_points - most.points:g})."
            )
    if exercises and len(empty) + len(missing) == len(exercises):
        return [
            f"Nothing is filled in: begin with `{exercises[0].name}`. If you did fill it in, "
            "this is another file than the one that you worked in: save that one and hand it in."
        ]
    if missing:
        points = exact_sum([e.max_points for e in missing])
        steps.append(
            f"{listed([e.name for e in missing])} {'was' if len(missing) == 1 else 'were'} not found, worth {points:g} points. "
            "If you did write that: is the name spelled exactly so, and does its cell run?"
        )
    if empty:
        points = exact_sum([e.max_points for e in empty])
        what = "exercise is" if len(empty) == 1 else "exercises are"
        steps.append(
            f"{len(empty)} {what} not filled in yet, worth {points:g} points; "
            f"`{empty[0].name}` is the first."
        )
    if short:
        steps.append("Your notebook has visible checks after each exercise; run them as you go.")
    return steps


def _first_step(first: Told, exercises: Sequence[Told]) -> str:
    users = [e.name for e in exercises if first.name in e.reference_for]
    step = f"Begin with `{first.name}`"
    if users:
        step += f": {listed(users)} {'uses' if len(users) == 1 else 'use'} it"
    return f"{step}."


def write(
    submissions: Sequence[SubmissionMarks], texts: Texts, folder: Path
) -> tuple[list[Path], list[str]]:
    """Write the page of each submission into a folder, named after its student.

    Returns the files, and a sentence for each page that a fault of the autograder kept from being written.
    """
    folder.mkdir(exist_ok=True)
    taken: set[str] = set()
    files: list[Path] = []
    problems: list[str] = []
    for marks in submissions:
        file = folder / f"{file_name(marks.student, taken)}.html"
        try:
            text = page(marks, texts)
        except Exception as error:
            doing = f"writing the page of {marks.student}"
            problems.append(faults.log(texts.day.root, doing, error))
            continue
        file.write_text(text, encoding="utf-8")
        files.append(file)
    return files, problems


def file_name(student: str, taken: set[str]) -> str:
    """A name that every file system takes, and that no other page has."""
    plain = unicodedata.normalize("NFC", one_line(student))
    plain = re.sub(r"[^\w.-]+", "-", plain).strip(".-")[:60] or "student"
    name, number = plain, 1
    while name.casefold() in taken:
        number += 1
        name = f"{plain}-{number}"
    taken.add(name.casefold())
    return name
