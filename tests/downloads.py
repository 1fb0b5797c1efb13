"""Write a class's submissions in each platform's current download format. The formats follow these sources:

- Canvas: `get_filename`, `add_upload_submission` and `add_text_or_url` in canvas-lms, `lib/content_zipper.rb`. A second upload
  with the same name gets the suffix `-1` (`Attachment.make_unique_filename`), and later uploads get higher numbers.
- Moodle: `get_student_prefix` and `load_submissionplugin_filelist` in moodle, `mod/assign/classes/downloader.php`; the worksheet:
  `mod/assign/gradingtable.php` and `mod/assign/feedback/offline/importgradeslib.php`.
- Gradescope does not publish its source code. The layout is that of its “Export submissions” archive:
  `assignment_N_export/submission_M/` and `submission_metadata.yml`, with keys such as `:submitters` and `:created_at`.
- nbgrader: `submitted/STUDENT/ASSIGNMENT/` with `timestamp.txt`, as `nbgrader collect` writes it
  (`nbgrader/exchange/default/collect.py`).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.fake_grading import book, work
from tests.test_submission import notebook, write, zipped

DUE = datetime(2026, 12, 1, 23, 0, tzinfo=UTC)
FIRST_USER, FIRST_PARTICIPANT, FIRST_FILE = 2001, 42001, 70001
HELD_BACK = re.compile(r"[&<>\"`|':\\/\x00-\x1f]")  # characters that Moodle removes from file names


@dataclass(frozen=True)
class HandIn:
    """A submission by a student, or by a group on Gradescope. `points` is None if the submission cannot be graded."""

    number: int  # identifies the student on every platform
    name: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    points: float | None = 0.0
    hours: float = -5.0  # submission time, in hours after the due date
    attempt: int = 0
    partners: tuple[tuple[int, str], ...] = ()  # the other members of a group on Gradescope
    is_text: bool = False  # submitted as text in the platform's editor

    @property
    def user(self) -> int:
        """Return the student's user id in Canvas."""
        return FIRST_USER + self.number

    @property
    def participant(self) -> int:
        """Return the student's participant number in Moodle."""
        return FIRST_PARTICIPANT + self.number

    @property
    def time(self) -> datetime:
        """Return the submission time."""
        return DUE + timedelta(hours=self.hours)


# ---- the downloads


def canvas(class_: Sequence[HandIn], is_anonymous: bool = False) -> bytes:
    """Return an archive in the format of Canvas's “Download Submissions”."""
    files: dict[str, bytes] = {}
    for one in class_:
        last, _, first = one.name.rpartition(" ")
        sortable = f"{first or last}, {last}" if first else last
        parts = [sortable.lower()] if not is_anonymous else []
        parts += ["LATE"] if one.hours > 0 else []
        parts += [f"anon_{one.number:05}" if is_anonymous else str(one.user)]
        prefix = re.sub(r"[^\w]", "", "_".join(parts))
        if one.is_text:
            files[f"{prefix}_text.html"] = b"<html><body>my answer</body></html>"
        for number, (name, data) in enumerate(one.files.items()):
            own, dot, suffix = Path(name).name.rpartition(".")
            again = f"-{one.attempt}" if one.attempt else ""
            shown = re.sub(r'[\x00/\\:*?"<>|]+', "_", f"{own}{again}{dot}{suffix}")
            upload = FIRST_FILE + 10_000 * one.attempt + 10 * one.number + number
            files[f"{prefix}_{upload}_{shown}"] = data
    return zipped(files)


def moodle(
    class_: Sequence[HandIn], is_blind: bool = False, in_folders: bool = True, end: str = ""
) -> bytes:
    """Return an archive in the format of Moodle's “Download all submissions”. For Moodle before 4.0, pass `end="_"`."""
    files: dict[str, bytes] = {}
    for one in class_:
        name = "Participant" if is_blind else one.name.replace("_", " ")
        prefix = HELD_BACK.sub("", f"{name}_{one.participant}")
        separator = f"{end}/" if in_folders else "_"
        if one.is_text:
            files[f"{prefix}_assignsubmission_onlinetext{separator}onlinetext.html"] = (
                b"<p>done</p>"
            )
        for path, data in one.files.items():
            shown = path if in_folders else Path(path).name
            files[f"{prefix}_assignsubmission_file{separator}{shown}"] = data
    return zipped(files)


def worksheet(class_: Sequence[HandIn], is_blind: bool = False) -> str:
    """Return a grading worksheet in Moodle's export format."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\n")
    names = [] if is_blind else ["Full name", "Email address"]
    rest = ["Status", "Grade", "Maximum Grade", "Grade can be changed"]
    times = ["Last modified (submission)", "Last modified (grade)", "Feedback comments"]
    rows.writerow(["Identifier", *names, *rest, *times])
    for one in class_:
        who = [] if is_blind else [one.name, f"s{one.number}@example.org"]
        when = f"{one.time:%A, %d %B %Y, %I:%M %p}"
        fields = ["Submitted for grading", "", "100.00", "Yes", when, "-", ""]
        rows.writerow([f"Participant {one.participant}", *who, *fields])
    return out.getvalue()


def gradebook(class_: Sequence[HandIn]) -> str:
    """Return a gradebook in Canvas's export format."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["Student", "ID", "SIS Login ID", "Section", "day1 (77)", "Current Score"])
    rows.writerow(["    Points Possible", "", "", "", "100.00", "(read only)"])
    for one in class_:
        first, _, last = one.name.rpartition(" ")
        sortable = f"{last}, {first}" if first else last
        rows.writerow([sortable, one.user, f"s{one.number}", "A", "", ""])
    return out.getvalue()


def gradescope(class_: Sequence[HandIn]) -> bytes:
    """Return an archive in the format of Gradescope's “Export submissions”."""
    files: dict[str, bytes] = {}
    lines = ["---"]
    for one in class_:
        people = [(one.number, one.name), *one.partners]
        folder = f"submission_{9000 + one.number + 1000 * one.attempt}"
        lines += [f"{folder}:", "  :submitters:"]
        for number, name in people:
            lines += [f"  - :name: {json.dumps(name)}", f"    :sid: '{FIRST_USER + number}'"]
            lines += [f"    :email: s{number}@example.org"]
        lines += [f"  :created_at: {one.time:%Y-%m-%d %H:%M:%S.000000000 Z}", "  :score: 0.0"]
        for path, data in one.files.items():
            files[f"assignment_5_export/{folder}/{path}"] = data
        if not one.files:
            files[f"assignment_5_export/{folder}/answer.txt"] = b"done"
    files["assignment_5_export/submission_metadata.yml"] = "\n".join([*lines, ""]).encode()
    return zipped(files)


def nbgrader(root: Path, class_: Sequence[HandIn]) -> None:
    """Write each student's files to `submitted/STUDENT/day1/` in a folder."""
    for one in class_:
        files = dict(one.files) or {"answer.txt": b"done"}
        time = f"{one.time:%Y-%m-%d %H:%M:%S.%f} UTC".encode()
        write(root / "submitted" / student_id(one) / "day1", {**files, "timestamp.txt": time})


def student_id(one: HandIn) -> str:
    """Return the student's user name, which is unique."""
    return f"s{one.number}"


# ---- what students submit

NAMES = (
    "Ada Lovelace", "Zoë Ünal-Çelik", "王 小明", "Олег Иванов", "محمد علي", "Ελένη Παπά", "अनिता शर्मा",
    "Bob O'Neil", "Mary Jo Smith", "J. R. R. Tolkien", "Nguyễn Văn A", "Prince",
)  # fmt: skip
STUB = "def padding_mask(tokens, pad_id):\n    raise NotImplementedError('padding_mask')\n"
OTHER_DAY = notebook("def patchify(x):\n    return x")


def files_of(kind: str, points: float, mark: str) -> tuple[dict[str, bytes], float | None]:
    """Return the files that a student submits and the points expected for them. `mark` makes the code unique."""
    done = book(points, mark)
    made: dict[str, tuple[dict[str, bytes], float | None]] = {
        "notebook": ({"day1.ipynb": done}, points),
        "other name": ({"my_solution.ipynb": done}, points),
        "copy": ({"Copy of day1 (2).ipynb": done}, points),
        "script": ({"work.py": work(points, mark).encode()}, points),
        "archive": ({"homework.zip": zipped({"hw/day1.ipynb": done, "hw/data.csv": b"1"})}, points),
        "two notebooks": ({"a_draft.ipynb": notebook(STUB), "final.ipynb": done}, points),
        "with a plot": ({"day1.ipynb": done, "plot.png": b"pixels", "report.docx": b"x"}, points),
        "a name like Canvas's": ({"byronbob_12346_67891_day1.ipynb": done}, points),
        "nothing done": ({"day1.ipynb": notebook(STUB + mark)}, 0.0),
        "document": ({"report.docx": b"PK\x03\x04 words"}, None),
        "web page": ({"day1.html": b"<html>" + mark.encode()}, None),
        "empty file": ({"day1.ipynb": b""}, None),
        "damaged archive": ({"day1.zip": b"PK\x03\x04 cut"}, None),
        "another day": ({"day2.ipynb": OTHER_DAY}, None),
        "text": ({}, None),
    }
    return made[kind]


KINDS = (
    *("notebook", "other name", "copy", "script", "archive", "two notebooks", "with a plot"),
    *("a name like Canvas's", "nothing done", "document", "web page", "empty file"),
    *("damaged archive", "another day", "text"),
)


def hand_in(
    number: int, name: str, kind: str, points: float, hours: float = -5.0, attempt: int = 0
) -> HandIn:
    """Return a submission of the given kind, which is one of `KINDS`."""
    files, expected = files_of(kind, points, f"x_{number}_{attempt} = 1")
    return HandIn(number, name, files, expected, hours, attempt, (), kind == "text")


def whole_class(count: int = 42) -> list[HandIn]:
    """Return a class with every kind of submission, names in seven writing systems, duplicate names and late submissions."""
    return [
        hand_in(
            number,
            NAMES[number % len(NAMES)],
            KINDS[number % len(KINDS)],
            (7 * number) % 60 + 0.5,
            hours=(-5.0, 3.0, -30.0, 30.0)[number % 4],
        )
        for number in range(count)
    ]
