"""Check that randomly changed marks are either rejected with an error message or read and displayed without errors."""

from __future__ import annotations

import contextlib
import io
import json
import random
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.console import Console

from autograder.course.files import FileError
from autograder.feedback.terminal_table import table
from autograder.marks.class_list import StudentResult
from autograder.marks.history import Basis, History
from autograder.marks.model import (
    ExerciseMarks,
    InvalidMarks,
    SubmissionMarks,
    TestMarks,
    Values,
    decode,
    encode,
)
from autograder.submissions.roster import Entry
from tests.fuzz import mutate

VALUES = Values("result", [2, 2], [], 0, 0, [[1.0, "NaN"]], [[1.0, 2.0]], [[False, True]])
TESTS = [
    TestMarks("test_a", 1.5, 1.5, True, ""),
    TestMarks("test_b", 0.0, 1.5, False, "It is wrong.", "wrong", VALUES),
]
EXERCISE = ExerciseMarks(
    "causal_mask", 1.5, 3.0, "partial", "It is wrong.", "strict", ["softmax"], 0.1, TESTS
)
ADA = SubmissionMarks(
    "in/ada.py",
    "ada",
    "5ha",
    "seed",
    "course",
    ["limits"],
    1.5,
    3.0,
    0.5,
    ["a problem"],
    [EXERCISE],
)
BOB = msgspec.structs.replace(ADA, path="in/bob.py", student="bob")
MARKS = b"".join(encode("day1", [ADA, BOB]))


def find_failures(seed: int, count: int) -> Iterator[str]:
    """Read randomly changed marks and database rows. For each unexpected exception, yield a message that identifies the input."""
    for number in range(count):
        data = random_marks(random.Random(f"{seed} {number}"))
        try:
            read_marks(data)
        except Exception as error:
            yield f"reading the marks {data!r} raised {type(error).__name__}: {error}"
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count // 20):
            draw = random.Random(f"{seed} row {number}")
            try:
                read_store(Path(folder), random_marks(draw), draw)
            except Exception as error:
                yield f"reading database row {number} (seed {seed}) raised {type(error).__name__}: {error}"


def random_marks(draw: random.Random) -> bytes:
    """Return encoded marks with random changes to their structure or their bytes."""
    if draw.random() < 0.7:
        changed = mutate.change_value(json.loads(MARKS), draw)
        return json.dumps(changed).encode()
    return mutate.damage_bytes(MARKS, draw)


def read_marks(data: bytes) -> None:
    """Read marks, write them back and display them. Invalid marks must be rejected with an error message."""
    try:
        marks = decode(data, "day1")
    except InvalidMarks:
        return
    b"".join(encode("day1", marks.submissions))
    rows = [StudentResult(Entry("", one.label, one.student), one) for one in marks.submissions]
    Console(file=io.StringIO()).print(table(rows))


def read_store(folder: Path, data: bytes, draw: random.Random) -> None:
    """Change bob's row in a store that also contains ada's marks, and read the current marks."""
    file = folder / ".autograder" / "marks.db"
    file.unlink(missing_ok=True)
    basis = Basis("day1", "code", "course", "autograder", "seed", "limits")
    with History(folder) as history:
        for marks in (ADA, BOB):
            history.add(basis, marks, folder)
    column = draw.choice(("marks", "path", "student", "sha256", "isolation"))
    text = data.decode("utf-8", "replace")
    value = draw.choice(
        (text, data, None, 7, 1.5, mutate.change_text(text, draw).replace("\udc80", ""))
    )
    with sqlite3.connect(file) as database:
        try:
            database.execute(f"UPDATE grading SET {column} = ? WHERE student = 'bob'", (value,))
        except sqlite3.IntegrityError:
            return
    database.close()
    with History(folder) as history, contextlib.suppress(FileError):
        history.current("day1")
