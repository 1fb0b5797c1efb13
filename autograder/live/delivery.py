"""Grade what has arrived in a folder, and write the pages that changed. Entry point: `Delivery`.

Feedback on hidden tests lets students try answers until they pass, so each student gets a limited number of pages a day.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import msgspec

from autograder.course.config import Day
from autograder.course.files import make_folder, write_output
from autograder.course.state_folder import read_json_cache, write_cache
from autograder.feedback import student_page
from autograder.feedback.sentences import Sentences
from autograder.grading.session import Session
from autograder.marks.overrides import read_stored


class Delivery:
    """Writes feedback pages to a folder, at most `limit` per student and calendar day."""

    def __init__(self, day: Day, texts: Sentences, folder: Path, limit: int) -> None:
        self._day, self._texts, self._folder, self._limit = day, texts, folder, limit
        self._counts = f"pages-{day.name}.json"  # also counts the pages of a stopped run
        make_folder(folder)

    def deliver(self, session: Session, inbox: Path) -> tuple[int, list[str]]:
        """Grade the inbox. Return how many pages were written, and what went wrong."""
        overrides = read_stored(self._day)
        graded = session.grade([inbox], None, False, adjust=overrides.apply)
        today = date.today().isoformat()
        counts = read_json_cache(self._day.root, self._counts, dict[str, dict[str, int]]) or {}
        counts = {today: counts.get(today, {})}
        taken: set[str] = set()
        problems: list[str] = []
        written = 0
        for student in student_page.recipients(graded.with_tests()):
            file = self._folder / f"{student_page.file_name(student.label, taken)}.html"
            data = student_page.page_or_problem(student, self._texts, problems).encode()
            if not data or (file.is_file() and file.read_bytes() == data):
                continue
            if counts[today].get(student.label, 0) >= self._limit:
                problems.append(f"{student.label} already got {self._limit} pages today")
                continue
            write_output(file, data)
            written += 1
            counts[today][student.label] = counts[today].get(student.label, 0) + 1
        write_cache(self._day.root, self._counts, msgspec.json.encode(counts))
        return written, problems
