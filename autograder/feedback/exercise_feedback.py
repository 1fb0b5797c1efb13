"""Convert the marks for one exercise to the student's feedback, as plain text and as HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from autograder.feedback.sentences import Sentences
from autograder.feedback.templates import render
from autograder.marks.causes import order_by_cause, shared_message, simplify
from autograder.marks.model import ExerciseMarks, Status, TestMarks, Value, Values
from autograder.plain_text import format_number, list_names
from autograder.submissions.reader_messages import Statement

STATUS: Mapping[Status, str] = {
    "passed": "correct",
    "partial": "partly correct",
    "failed": "not correct yet",
    "not_attempted": "not attempted",
    "error": "could not be run",
    "timed_out": "timed out",
    "crashed": "crashed",
    "not_allowed": "uses something that is not allowed here",
}
# Statuses of exercises whose tests did not run.
NOT_RUN: Sequence[Status] = ("not_attempted", "not_allowed", "error")
# Statuses of exercises whose tests may not all have run.
CUT_SHORT: Sequence[Status] = ("timed_out", "crashed")
UNFOLDED = 2  # number of failed tests shown initially; the others are collapsed


@dataclass(frozen=True)
class FailedTest:
    """A failed test: the expected and observed behaviour, and the two results if feedback shows them."""

    sentence: str
    observed: str
    values: Values | None

    @cached_property
    def grid(self) -> Grid | None:
        """Return the two results as matrices, if they can be drawn."""
        return make_grid(self.values) if self.values else None


@dataclass(frozen=True)
class ExerciseFeedback:
    """The feedback for one exercise."""

    name: str
    points: float
    max_points: float
    status: Status
    mistakes: Sequence[str]  # an explanation of each known mistake
    reason: str  # the message that explains all failed tests, or "" if their causes differ
    failed: Sequence[FailedTest]
    passed: Sequence[str]
    reference_for: Sequence[str]
    unattempted: Sequence[str]  # the unattempted exercises in `reference_for`
    missing: bool  # whether the exercise is not defined in the submission
    override: str  # how a TA changed the points, and the TA's comment
    code: Sequence[Statement]  # the student's code, if the exercise lost points
    optional: bool

    @property
    def own_versions(self) -> str:
        """Return the names of the exercises that the student attempted, but that reference solutions replaced."""
        return list_code([name for name in self.reference_for if name not in self.unattempted])

    @property
    def is_full(self) -> bool:
        return self.points == self.max_points

    @property
    def needs_work(self) -> bool:
        return not self.is_full and self.status != "not_attempted"

    @property
    def has_section(self) -> bool:
        """Return whether the page has a section about this exercise."""
        return self.needs_work or bool(self.override)

    @property
    def status_text(self) -> str:
        return "not found" if self.missing else STATUS[self.status]

    @property
    def unfolded(self) -> int:
        """Return how many failed tests to show initially: fewer if a known mistake or a single reason explains them all.

        If the student's own versions of other exercises were replaced, the reason comes from the first run, so it does not
        explain the failures shown.
        """
        if self.reason and not self.own_versions:
            return 0
        return 1 if self.mistakes else UNFOLDED

    @property
    def failed_heading(self) -> str:
        if self.status in NOT_RUN:
            return "Checks that were not run"
        return (
            "Checks that failed or were not run"
            if self.status in CUT_SHORT
            else "Failed hidden checks"
        )

    @property
    def folded_heading(self) -> str:
        """Return the heading for the failed tests that are initially hidden, such as "3 more checks failed"."""
        count = len(self.failed) - self.unfolded
        not_run = "was not run" if count == 1 else "were not run"
        verb = "failed"
        if self.status in NOT_RUN:
            verb = not_run
        elif self.status in CUT_SHORT:
            verb = f"failed or {not_run}"
        noun = "check" if count == 1 else "checks"
        if not self.unfolded:
            return f"{count} {noun} {verb}"
        return f"{count} more {noun} {verb}, often for the same reason"

    @property
    def passed_heading(self) -> str:
        count = len(self.passed)
        heading = "1 check passed" if count == 1 else f"{count} checks passed"
        if self.points:
            return heading
        return f"{heading}, but earned no points: even a trivial answer passes {'it' if count == 1 else 'them'}"

    @property
    def substitution_note(self) -> str:
        """Explain that reference solutions to other exercises were used, and how this affects the points."""
        wrong = self.own_versions
        empty = list_code(self.unattempted)
        notes = []
        if wrong:
            notes.append(
                f"Graded with the course's own {wrong} instead of yours, "
                "so that a mistake in one exercise costs points only once."
            )
        if empty:
            also = "also " if wrong else ""
            notes.append(
                f"Your notebook has no solution for {empty} yet, so the grader {also}used the course's own code there."
            )
        if self.is_full:
            notes.append(f"Good news: `{self.name}` itself is correct and gets full points.")
        elif wrong:
            notes.append(
                f"Some checks failed even then, so there is also a mistake in `{self.name}` itself. "
                f"Fix {wrong} first. Then run the checks in your notebook to see what is left."
            )
        else:
            notes.append(
                f"The mistake is in `{self.name}` itself. Run its checks in your notebook: "
                "they use a stand-in for what is missing."
            )
        return " ".join(notes)


def to_feedback(
    marks: ExerciseMarks, texts: Sentences, unattempted: Collection[str] = ()
) -> ExerciseFeedback:
    """Convert the marks for an exercise to feedback. `unattempted` contains the exercises that the student did not attempt."""
    sentences = texts.tests.get(marks.name, {})  # the course may have changed
    unattempted = [name for name in marks.reference_for if name in unattempted]
    failed = [_failed_test(test, sentences, texts) for test in marks.tests if not test.passed]
    own = [name for name in marks.reference_for if name not in unattempted]
    observed = [one.observed for one in failed]
    reason = shared_message(observed)
    explanations = texts.mistakes.get(marks.name, {})
    mistakes = [explanations[name] for name in marks.mistakes if name in explanations]
    if reason:
        failed = [replace(one, observed="") for one in failed]
    else:
        visible = 1 if mistakes else UNFOLDED
        # If the student's own versions were replaced, all messages are collapsed, so "same as above" would not help.
        ordered = order_by_cause(observed, visible, mark_repeats=not own)
        failed = [replace(failed[n], observed=text) for n, text in ordered]
    return ExerciseFeedback(
        name=marks.name,
        points=marks.points,
        max_points=marks.max_points,
        status=marks.status,
        mistakes=mistakes,
        reason=reason,
        failed=failed,
        passed=[sentences.get(test.name, test.name) for test in marks.tests if test.passed],
        reference_for=marks.reference_for,
        unattempted=unattempted,
        missing=marks.status == "not_attempted" and marks.message.endswith("is not defined"),
        override=_override(marks),
        code=marks.statements,
        optional=marks.optional,
    )


def unattempted_in(exercises: Iterable[ExerciseMarks]) -> list[str]:
    """Return the names of the exercises that the student did not attempt."""
    return [exercise.name for exercise in exercises if exercise.status == "not_attempted"]


def _override(marks: ExerciseMarks) -> str:
    override = marks.override
    if override is None:
        return ""
    by = " on ".join(filter(None, [override.author, override.time[:10]]))
    if override.points is None:
        return f"Comment by {by}: {override.comment}"
    points = f"{override.change()}, given by {by}"
    return f"{points}: {override.comment}" if override.comment else f"{points}."


def _failed_test(test: TestMarks, sentences: Mapping[str, str], texts: Sentences) -> FailedTest:
    sentence = sentences.get(test.name, test.name)
    show_values = texts.day.feedback == "values"
    observed = (
        test.message.removeprefix(sentence).strip() if show_values else test.message_without_values
    )
    values = test.values if show_values else None
    return FailedTest(sentence, _to_sentence(simplify(observed)), values)


def _to_sentence(text: str) -> str:
    """Capitalise the first word and add a full stop. A first word that may be a name, such as `x` or `f.g`, is left unchanged."""
    if re.match(r"(a|[a-z]{2,})\b(?!\.\w)", text):
        text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".?!…。？！" else f"{text}."


def as_text(exercise: ExerciseFeedback) -> str:
    """Return the feedback for an exercise as plain text."""
    optional = "optional exercise, " if exercise.optional else ""
    total = (
        f"{optional}{format_number(exercise.points)} of {format_number(exercise.max_points)} points"
    )
    lines = [f"{exercise.name}: {total}, {exercise.status_text}.", *_notes(exercise)]
    if exercise.failed:
        lines += ["", f"{exercise.failed_heading}:"]
        own = "with your own code: " if exercise.own_versions else ""
        for test in exercise.failed:
            lines.append(f"  - {_indent(test.sentence)}")
            lines += [f"    {own}{_indent(test.observed)}"] if test.observed else []
        if own and exercise.reason:
            lines += ["", f"For all of these, {own}{_indent(exercise.reason)}"]
    if exercise.passed:
        lines += ["", f"{exercise.passed_heading}:"]
        lines += [f"  - {sentence}" for sentence in exercise.passed]
    return "\n".join(lines) + "\n"


def _notes(exercise: ExerciseFeedback) -> Iterator[str]:
    if exercise.override:
        yield exercise.override
    yield from exercise.mistakes
    if exercise.reason and not exercise.own_versions:
        yield exercise.reason
    if exercise.reference_for:
        yield exercise.substitution_note


def _indent(text: str) -> str:
    return text.replace("\n", "\n    ")


def as_html(exercise: ExerciseFeedback) -> str:
    """Return the feedback for an exercise as an HTML fragment that includes its CSS."""
    return render("fragment.html", exercise=exercise)


def list_code(names: Iterable[str]) -> str:
    """Put names in backticks and join them; see `list_names`."""
    return list_names(f"`{name}`" for name in names)


SHADES = 4  # number of colours on each side of 0
LISTED_POSITIONS = 6  # maximum number of differing positions listed in the text


@dataclass(frozen=True)
class GridCell:
    """A table cell: its text, its CSS class (see exercise.css) and whether it has a frame."""

    text: str
    shade: str
    wrong: bool


@dataclass(frozen=True)
class Grid:
    """Two matrices of cells. `crop` describes the visible part of the tensor; `differences` lists the positions that differ."""

    what: str
    crop: str
    differences: str
    boolean: bool
    columns: range
    first_row: int
    actual: list[list[GridCell]]
    expected: list[list[GridCell]]


def make_grid(values: Values) -> Grid | None:
    """Return two matrices coloured on the same scale, with their differences, or None if colours would show no pattern."""
    all_values = [x for row in (*values.seen, *values.expected) for x in row]
    boolean = all(isinstance(x, bool) for x in all_values)
    all_wrong = all(wrong for row in values.wrong for wrong in row)
    if len(all_values) == 2 or (all_wrong and not boolean):
        return None
    largest = max((abs(x) for x in all_values if not isinstance(x, str)), default=0.0)
    positions = [
        (values.top + r, values.left + c)
        for r, row in enumerate(values.wrong)
        for c, wrong in enumerate(row)
        if wrong
    ]
    actual, expected = (
        [
            [
                GridCell(_format(x), _shade(x, largest), wrong and is_actual)
                for x, wrong in zip(row, flags, strict=True)
            ]
            for row, flags in zip(matrix, values.wrong, strict=True)
        ]
        for matrix, is_actual in ((values.seen, True), (values.expected, False))
    )
    return Grid(
        what=values.what,
        crop=_describe_crop(values),
        differences=_describe_positions(positions, len(values.shape) == 1),
        boolean=boolean,
        columns=range(values.left, values.left + len(actual[0])),
        first_row=values.top,
        actual=actual,
        expected=expected,
    )


def _format(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(int(value)).replace("-", "−")
    fits = value == 0 or 0.01 <= abs(value) < 1000
    text = f"{value:.3g}" if fits else f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return text.replace("-", "−")


def _shade(value: Value, largest: float) -> str:
    if isinstance(value, str):
        return "odd"
    step = math.ceil(SHADES * (abs(value) / largest)) if largest else 0
    return f"{'minus' if value < 0 else 'plus'}{step}" if step else "zero"


def _describe_crop(values: Values) -> str:
    """Describe which part of the tensor is shown, or return "" if the whole tensor is shown."""
    parts = []
    if values.matrix:
        indices = ", ".join(str(i) for i in values.matrix)
        parts.append(f"slice [{indices}] of a tensor of shape {tuple(values.shape)}")
    rows, columns = [1, *values.shape][-2:]
    height, width = len(values.seen), len(values.seen[0])
    if height < rows:
        parts.append(f"rows {values.top} to {values.top + height - 1} of {rows}")
    if width < columns:
        parts.append(f"columns {values.left} to {values.left + width - 1} of {columns}")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:]


def _describe_positions(positions: Sequence[tuple[int, int]], one_row: bool) -> str:
    listed = list_names(
        (f"{c}" if one_row else f"({r}, {c})" for r, c in positions), LISTED_POSITIONS
    )
    where = f"position{'s' * (len(positions) > 1)}" if one_row else "(row, column)"
    differ = "differs" if len(positions) == 1 else "differ"
    return f"{len(positions)} of the values shown {differ}, at {where} {listed}"
