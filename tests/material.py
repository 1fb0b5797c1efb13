"""Test helpers that build marks by hand and check that hostile strings cannot inject code into a page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from html.parser import HTMLParser

from autograder.course.late_policy import ON_TIME, Lateness
from autograder.feedback.sentences import Sentences
from autograder.feedback.student_page import Recipient
from autograder.marks.model import (
    ExerciseMarks,
    Status,
    SubmissionMarks,
    TestMarks,
    Values,
    exact_sum,
)

HOSTILE = (
    "<script>alert(1)</script>",
    "</style></title></p><img src=x onerror=alert(1)>",
    '" autofocus onfocus="alert(1)',
    "{{ 7 * 7 }}{% include 'page.css' %}",
    "`</code><b>`",
    "\u202egnp.exe\u2066\u200b\x00\x1b[31m\r\x85",
    "half a character: \ud800",
    "=cmd|'/c calc'!A1",
    "@SUM(1)",
    "\t=1",
    "a" * 5000,
)


def exercise(
    texts: Sentences,
    name: str,
    failed: Mapping[int, str] | None = None,
    status: Status | None = None,
    mistake: str | None = None,
    reference_for: tuple[str, ...] = (),
    values: Values | None = None,
    seconds: float = 0.1,
) -> ExerciseMarks:
    """Return marks for an exercise. `failed` maps the indices of failed tests to their messages."""
    failed = failed or {}
    points = next(e.points for e in texts.day.exercises if e.name == name)
    part = points / len(texts.tests[name])
    tests = [
        TestMarks(
            name=test,
            points=0.0 if n in failed else part,
            max_points=part,
            passed=n not in failed,
            message=f"{sentence} {failed[n]}" if n in failed else "",
            values=values if n in failed else None,
        )
        for n, (test, sentence) in enumerate(texts.tests[name].items())
    ]
    earned = round(points * (1 - len(failed) / len(tests)), 6)
    status = status or ("passed" if not failed else "partial" if earned else "failed")
    message = next((t.message for t in tests if not t.passed), "")
    return ExerciseMarks(
        name, earned, points, status, message, mistake, list(reference_for), seconds, tests
    )


def untouched(texts: Sentences, name: str) -> ExerciseMarks:
    """Return marks for an exercise that was not attempted."""
    message = f"`{name}` is not filled in"
    all_of_them = dict.fromkeys(range(len(texts.tests[name])), message)
    return exercise(texts, name, all_of_them, "not_attempted")


def submission(
    texts: Sentences,
    *changed: ExerciseMarks,
    student: str = "ada",
    path: str = "in/ada.ipynb",
    problems: tuple[str, ...] = (),
) -> SubmissionMarks:
    """Return marks for a submission that is correct except for the `changed` exercises."""
    given = {marks.name: marks for marks in changed}
    marks = [given.get(name) or exercise(texts, name) for name in texts.day.names]
    points, most = exact_sum([e.points for e in marks]), exact_sum([e.max_points for e in marks])
    return SubmissionMarks(
        path, student, "5ha" * 20, f"seed of {path}", "course", [], points, most, 0.5,
        list(problems), marks,
    )  # fmt: skip


def unread(student: str = "bob", problem: str = "not a notebook") -> SubmissionMarks:
    """Return marks for a submission that could not be read."""
    path = f"in/{student}.ipynb"
    return SubmissionMarks(path, student, "", "seed", "course", [], None, 100.0, 0.0, [problem], [])


def recipient(marks: SubmissionMarks, late: Lateness = ON_TIME) -> Recipient:
    """Return the student who receives the feedback page for these marks."""
    return Recipient(marks.student, marks.label, marks, late)


class Page(HTMLParser):
    """The tags, attributes and text of an HTML page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self._style = False
        self._texts: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self._texts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self._texts.append(data)


def check_harmless(html: str) -> None:
    """Check that a page has no scripts, external resources, external links or invisible characters."""
    page = Page(html)
    assert not {"script", "img", "iframe", "object", "base", "form", "b"} & set(page.tags)
    assert page.tags.count("style") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "autofocus"]
    assert all(value.startswith("#") for name, value in page.attributes if name in ("href", "src"))
    assert not re.search(r"url\(|@import|https?:", html)
    seen = {unicodedata.category(c) for c in html if c != "\n"}
    assert not seen & {"Cc", "Cf", "Cs", "Co", "Cn"}
    html.encode()
