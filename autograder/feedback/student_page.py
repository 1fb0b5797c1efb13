"""Render a feedback page for each student. Entry points: `page` and `write`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.course.files import make_folder, write_output
from autograder.course.late_policy import ON_TIME, Lateness
from autograder.feedback.exercise_feedback import (
    ExerciseFeedback,
    list_code,
    to_feedback,
    unattempted_in,
)
from autograder.feedback.sentences import Sentences
from autograder.feedback.templates import render
from autograder.grading import internal_errors
from autograder.marks.class_list import StudentResult
from autograder.marks.model import SubmissionMarks, exact_sum
from autograder.plain_text import counted, format_number, printable

# Problems may already contain this advice, for example if the file is truncated.
RESUBMIT = re.compile(r"\bsubmit .+ again\b")
# Windows reserves these names for devices, whatever the file's suffix.
DEVICE = re.compile(r"^(con|prn|aux|nul|(?:com|lpt)\d)(?=\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Recipient:
    """A student who gets a feedback page. `name` is for the page's heading, and `label` is for its file name."""

    name: str
    label: str
    marks: SubmissionMarks
    late: Lateness = ON_TIME
    id: str = ""  # distinguishes students with the same name
    students: tuple[str, ...] = ()  # the keys or roster names of everyone who gets the page


def recipients(rows: Iterable[StudentResult]) -> Iterator[Recipient]:
    """Yield the students who get a page: every student with a submission."""
    for row in rows:
        if row.marks:
            name = row.entry.name or row.entry.student
            number = row.marks.origin.participant
            students = (row.entry.key or row.entry.student,)
            id_ = row.id or number
            yield Recipient(name, row.entry.student, row.marks, row.late, id_, students)


def page(recipient: Recipient, texts: Sentences) -> str:
    """Return a feedback page as HTML. Like the exports, it shows points with the late penalty applied."""
    marks = recipient.marks
    unattempted = unattempted_in(marks.exercises)
    exercises = [to_feedback(exercise, texts, unattempted) for exercise in marks.exercises]
    return render(
        "feedback.html",
        language=texts.day.language,
        title=texts.day.title,
        name=recipient.name,
        id="" if recipient.name.endswith((recipient.id, f"({recipient.id})")) else recipient.id,
        marks=marks,
        points=recipient.late.reduce(marks.earned),
        late=recipient.late,
        is_other_day=sum(e.missing for e in exercises) == len(texts.day.exercises),
        has_advice=any(RESUBMIT.search(problem) for problem in marks.problems),
        notebook=f"{texts.day.name}.ipynb",
        file=re.split(r"[/\\]", marks.path)[-1],
        exercises=exercises,
        steps=next_steps(exercises, marks.problems),
        list_code=list_code,
    )


def next_steps(exercises: Sequence[ExerciseFeedback], problems: Sequence[str] = ()) -> list[str]:
    """Return the student's next steps, most useful first."""
    unfinished = [e for e in exercises if e.needs_work]
    if exercises and all(e.status == "not_attempted" for e in exercises):
        return [
            f"No exercise is solved yet. Start with `{exercises[0].name}`. If you have solved some, "
            "you may have submitted the wrong file. Save the notebook that you worked in and submit it."
        ]
    required = [e for e in exercises if not e.optional]
    empty = [e for e in required if e.status == "not_attempted" and not e.missing]
    missing = [e for e in required if e.missing]
    steps = []
    if problems and (unfinished or empty or missing):
        steps.append(
            "Read the notes below about your notebook. They may explain why an exercise fails or is missing."
        )
    if unfinished:
        steps += _fix_steps(unfinished, exercises)
    if missing:
        steps.append(_missing_step(missing))
    if empty:
        steps.append(_empty_step(empty))
    if unfinished:
        steps.append("Run the checks below each exercise in your notebook as you go.")
    return steps


def _fix_steps(
    unfinished: Sequence[ExerciseFeedback], exercises: Sequence[ExerciseFeedback]
) -> list[str]:
    first = unfinished[0]
    users = [e.name for e in exercises if first.name in e.reference_for]
    uses = f": {list_code(users)} {'uses' if len(users) == 1 else 'use'} it" if users else ""
    steps = [f"Start with `{first.name}`{uses}."]
    required = [e for e in unfinished if not e.optional]
    most = max(required or unfinished, key=lambda e: e.max_points - e.points)
    if most is not first and not most.optional:
        before = [e.name for e in unfinished[1:] if e.name in most.reference_for]
        after = f", after {list_code(before)}" if before else ""
        steps.append(
            f"Then work on `{most.name}`{after}. Of the exercises you attempted, it has the most points left "
            f"({format_number(most.max_points - most.points)})."
        )
    return steps


def _missing_step(missing: Sequence[ExerciseFeedback]) -> str:
    names = list_code([e.name for e in missing])
    if len(missing) == 1:
        return (
            f"{names} was not found ({_worth(missing)}). "
            "If you wrote it, check that its name is spelled exactly like this and that its cell runs."
        )
    return (
        f"{names} were not found ({_worth(missing)}). "
        "If you wrote them, check that their names are spelled exactly like this and that their cells run."
    )


def _empty_step(empty: Sequence[ExerciseFeedback]) -> str:
    if len(empty) == 1:
        return f"1 exercise has not been attempted yet ({_worth(empty)}): `{empty[0].name}`."
    return f"{len(empty)} exercises have not been attempted yet ({_worth(empty)}). The first is `{empty[0].name}`."


def _worth(exercises: Sequence[ExerciseFeedback]) -> str:
    points = counted(exact_sum([e.max_points for e in exercises]), "point")
    return points if len(exercises) == 1 else f"{points} in total"


def write(
    students: Iterable[Recipient], texts: Sentences, folder: Path
) -> tuple[list[Path], list[str]]:
    """Write each student's page to a folder, in a file named after the student.

    Return the files, and a message for each page that could not be written because of an internal error.
    """
    make_folder(folder)
    taken: set[str] = set()
    files: list[Path] = []
    problems: list[str] = []
    for student in students:
        file = folder / f"{file_name(student.label, taken)}.html"
        text = page_or_problem(student, texts, problems)
        if text:
            write_output(file, text.encode())
            files.append(file)
    return files, problems


def page_or_problem(student: Recipient, texts: Sentences, problems: list[str]) -> str:
    """Return a student's page. If an internal error occurs, return "" and add a message to `problems`."""
    try:
        return page(student, texts)
    except Exception as error:
        doing = f"writing the feedback page for {student.label}"
        problems.append(internal_errors.log(texts.day.root, doing, error))
        return ""


def file_name(student: str, taken: set[str]) -> str:
    """Return a file name for a student that is valid on every file system and not in `taken`, and add it to `taken`."""
    stem = unicodedata.normalize("NFC", printable(student))
    stem = re.sub(r"[^\w.-]+", "-", stem).strip(".-")[:60] or "student"
    stem = DEVICE.sub(r"\1-", stem)
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name
