"""Render the room's page and the TA's pages. Entry point: `Pages`."""

from __future__ import annotations

import ast
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader

from autograder.course.config import Day
from autograder.feedback.exercise_feedback import to_feedback, unattempted_in
from autograder.feedback.sentences import Sentences
from autograder.feedback.templates import TEMPLATES
from autograder.live.board import Board
from autograder.live.room import State
from autograder.marks.model import ExerciseMarks

FOLDER = Path(__file__).parent
FEEDBACK = FOLDER.parent / "feedback"
STYLES = ("light.css", "dark.css", "page.css", "exercise.css")
SYMBOLS: Mapping[State, str] = {"not_begun": "·", "working": "✗", "passes": "✓", "too_long": "T"}
WORDS: Mapping[State, str] = {
    "not_begun": "no attempt",
    "working": "not correct yet",
    "passes": "correct",
    "too_long": "takes too long",
}
MOST_MISTAKES = 3  # on the room's page
FEWEST_PEOPLE = 2  # a mistake of one person is not shown to the room
LONGEST_ANSWER = 4000  # characters of code that the room can be shown


class Shown(NamedTuple):
    """An anonymous wrong answer, and the sentences about its mistakes."""

    exercise: str
    code: str
    sentences: Sequence[str]


class _Anonymous(ast.NodeTransformer):
    """Replaces strings, and removes those that are statements, such as docstrings. Parsing has already removed comments."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("…") if isinstance(node.value, str | bytes) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:
        return ast.Constant("…")

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        found = self.generic_visit(node)
        return None if isinstance(node.value, ast.Constant) else found


def anonymous(code: str) -> str:
    """Return code without comments and strings, or "" if it is too long or cannot be parsed."""
    if len(code) > LONGEST_ANSWER:
        return ""
    try:
        return ast.unparse(_Anonymous().visit(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def templates() -> Environment:
    """Return the templates of this package and of `feedback`. The filter `clock` formats a time."""
    found = TEMPLATES.overlay(loader=FileSystemLoader([FOLDER, FEEDBACK]))
    clock = {"clock": lambda moment: time.strftime("%H:%M", time.localtime(moment))}
    found.filters = {**found.filters, **clock}
    return found


class Pages:
    """The pages of a board. TAs' notes and the answer that they show to the room are kept until the board stops."""

    def __init__(self, day: Day, texts: Sentences, board: Board) -> None:
        self.board, self.root = board, day.root
        self._day, self._texts = day, texts
        self.shown: Shown | None = None
        self.helped: dict[int, float] = {}  # since when a TA helps a student
        self._templates = templates()
        styles = [*(FEEDBACK / name for name in STYLES), FOLDER / "live.css"]
        self.files = {
            "live.css": "\n".join(style.read_text("utf-8") for style in styles),
            "live.js": (FOLDER / "live.js").read_text("utf-8"),
        }

    def room(self, template: str, token: str) -> str:
        """Return the room's page, or with the template "room.html" only its changing part."""
        view = self.board.room.view(self.board.now())
        often = [m for m in view.mistakes if m.people >= FEWEST_PEOPLE][:MOST_MISTAKES]
        sentences = [(m, *self._sentences(m.exercise, [m.name])) for m in often]
        return self._render(template, token, view=view, mistakes=sentences, points=self._points())

    def assistant(self, template: str, token: str) -> str:
        """Return the TA's page, or with the template "ta.html" only its changing part."""
        view = self.board.room.view(self.board.now())
        rows = sorted(view.rows, key=lambda row: row.person.number in self.helped)
        problems = [s for s in self.board.students.values() if s.problem]
        return self._render(template, token, view=view, rows=rows, problems=problems)

    def answer(self, number: int, exercise: str, token: str) -> str | None:
        """Return a page with the feedback for a student's exercise, or None if it was not graded."""
        found = self._marks(number, exercise)
        if not found:
            return None
        label, marks, others = found
        feedback = to_feedback(marks, self._texts, unattempted_in(others))
        shown = self.public(number, exercise)
        return self._render(
            "answer.html", token, label=label, number=number, exercise=feedback, shown=shown
        )

    def public(self, number: int, exercise: str) -> Shown | None:
        """Return a student's wrong answer as the room may see it, or None if there is no such answer."""
        found = self._marks(number, exercise)
        own = [s.source for s in found[1].statements if not s.given] if found else []
        code = anonymous("\n\n".join(own))
        if not found or not code:
            return None
        return Shown(exercise, code, self._sentences(exercise, found[1].mistakes))

    def _marks(
        self, number: int, exercise: str
    ) -> tuple[str, ExerciseMarks, Sequence[ExerciseMarks]] | None:
        people = self.board.room.people
        key = next((key for key, person in people.items() if person.number == number), "")
        student = self.board.students.get(key)
        every = student.marks.exercises if student and student.marks else []
        marks = next((one for one in every if one.name == exercise), None)
        return (student.label, marks, every) if student and marks else None

    def _sentences(self, exercise: str, mistakes: Sequence[str]) -> list[str]:
        known = self._texts.mistakes.get(exercise, {})  # the course may have changed
        return [known.get(name, name) for name in mistakes]

    def _points(self) -> str:
        """Return how many exercises the median student had solved over time, as the points of a line in a 100 × 40 box."""
        history = self.board.room.history
        if not history:
            return ""
        start = history[0][0]
        seconds = max(self.board.now() - start, 1.0)
        xs = [100 * (at - start) / seconds for at, _ in history]
        ys = [40 - 40 * solved / len(self._day.names) for _, solved in history]
        steps = zip([*xs, 100.0], [ys[0], *ys], [*ys, ys[-1]], strict=True)
        return " ".join(f"{x:.1f},{y:.1f}" for x, *both in steps for y in both)

    def _render(self, template: str, token: str, **values: Any) -> str:
        return self._templates.get_template(template).render(
            **values, day=self._day, token=token, students=self.board.students, pages=self,
            symbols=SYMBOLS, words=WORDS, sentences=self._sentences,
        )  # fmt: skip
