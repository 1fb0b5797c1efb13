"""Choose which of a student's notebooks to grade, and recognise notebooks for other days.

The choice depends only on the text of the cells. Student code is neither run nor parsed.
Entry points: `choose` and `find_day`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from autograder.submissions.cell import EMPTY_FILE, EMPTY_NOTEBOOK, Cell, definitions
from autograder.submissions.filenames import is_other_day, list_first, stem
from autograder.submissions.platforms import original_name
from autograder.submissions.submission import Submission

STATEMENT = re.compile(r"^[^\s#)\]}]", re.MULTILINE)  # a line that begins a top-level statement
STUB = "NotImplementedError"
EARLIEST = datetime.min.replace(tzinfo=UTC)


def choose(candidates: Sequence[Submission], exercises: Collection[str]) -> Submission:
    """Choose which of a student's submissions to grade, and return it.

    Prefer the submission with the most exercises filled in, then the newest one according to the platform, then the first
    one by name. If there are several candidates, the result's `problems` list the candidates that were not graded. If no
    candidate is readable, `problems` gives the reason for each candidate.
    """
    if len(candidates) == 1:
        return candidates[0]
    names = _short_names(candidates)
    filled = [len(filled_in(each.cells, exercises)) for each in candidates]

    def rank(number: int) -> tuple[bool, int, float, str]:
        each = candidates[number]
        time = each.handed_in.time if each.handed_in else None
        seconds = (time or EARLIEST).timestamp()
        return not each.readable, -filled[number], -seconds, names[number]

    best, *others = sorted(range(len(candidates)), key=rank)
    if not candidates[best].readable:
        reasons = [f"{names[n]}: {'; '.join(candidates[n].problems)}" for n in (best, *others)]
        return replace(candidates[best], problems=tuple(reasons))
    left_out = list_first(_describe(candidates[n], names[n], filled[n]) for n in others)
    taken = _describe(candidates[best], names[best], filled[best])
    problem = f"{len(candidates)} files were submitted; graded: {taken}; not graded: {left_out}"
    own = [f"{names[best]}: {each}" for each in candidates[best].problems]
    return replace(candidates[best], problems=(problem, *own))


def filled_in(cells: Iterable[Cell], exercises: Collection[str]) -> set[str]:
    """Return the exercises whose last definition in the cells is not a stub."""
    found: set[str] = set()
    for cell in (cell for cell in cells if cell.kind == "code"):
        for match in definitions(cell.source):
            if match[1] in exercises:
                end = STATEMENT.search(cell.source, match.end())
                body = cell.source[match.end() : end.start() if end else None]
                (found.discard if STUB in body else found.add)(match[1])
    return found


def find_day(submission: Submission, day: str, exercises: Mapping[str, Collection[str]]) -> str:
    """Return the day to which a submission belongs.

    A notebook that defines an exercise of `day` belongs to that day. Otherwise, the day is determined by the release
    stamp, then by exercises of other days, and then by the file name. `exercises` maps each day to its exercises.
    """
    if defined(submission.cells, exercises[day]):
        return day
    if stamped := submission.release.partition(" ")[0]:
        return stamped
    for name, names in exercises.items():
        if defined(submission.cells, names):
            return name
    file = stem(original_name(os.path.basename(submission.path)))
    return file if is_other_day(file, day) else day


def defined(cells: Iterable[Cell], exercises: Collection[str]) -> set[str]:
    """Return the exercises that the cells define, whether or not they are filled in."""
    code = (cell.source for cell in cells if cell.kind == "code")
    found = (match[1] for source in code for match in definitions(source))
    return {name for name in found if name in exercises}


def _describe(submission: Submission, name: str, filled: int) -> str:
    if not submission.readable:
        is_empty = not {EMPTY_FILE, EMPTY_NOTEBOOK}.isdisjoint(submission.problems)
        return f"{name} ({'empty' if is_empty else 'unreadable'})"
    return f"{name} ({filled} {'exercise' if filled == 1 else 'exercises'} filled in)"


def _short_names(candidates: Sequence[Submission]) -> list[str]:
    """Return the original file names of a student's submissions, or relative paths if the names are not unique."""
    names = [original_name(os.path.basename(each.path)) for each in candidates]
    if len(set(names)) == len(names):
        return names
    above = os.path.commonpath([os.path.dirname(each.path) for each in candidates])
    return [os.path.relpath(each.path, above or ".") for each in candidates]
