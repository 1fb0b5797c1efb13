"""Name and pack feedback pages so that Canvas and Moodle match each page to its student. Entry point: `deliver`.

- Canvas, “Upload submissions”: `infer_comment_context_from_filename` in `app/models/abstract_assignment.rb` reads the
  IDs for the user and the uploaded file. A page's name therefore begins with the same IDs as the uploaded file's name.
- Moodle, “Upload multiple feedback files in a zip”: `mod/assign/feedback/file/importziplib.php` reads
  `NAME_PARTICIPANT_assignfeedback_file_FILE`.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autograder.course.config import Day
from autograder.course.files import open_output
from autograder.export import Target, moodle
from autograder.feedback import student_page
from autograder.feedback.sentences import Sentences
from autograder.feedback.student_page import Recipient, page_or_problem
from autograder.marks.class_list import GroupRule, StudentResult
from autograder.plain_text import format_number
from autograder.submissions import origin

# Every file in a zip has this date, so that identical pages produce identical archives.
FIXED_DATE = (2000, 1, 1, 0, 0, 0)


@dataclass
class Delivery:
    """The number of pages written, the number left out, notes for the TA, and messages about pages that could not be written.

    `received` maps each student in `Recipient.students` to the hash of the page that the student has after this delivery.
    """

    pages: int
    unchanged: int
    notes: list[str]
    problems: list[str]
    received: dict[str, str] = field(default_factory=dict)


def deliver(
    rows: Sequence[StudentResult],
    texts: Sentences,
    to: Target,
    out: Path,
    worksheet: Path | None = None,
    received: Mapping[str, str] | None = None,
    group: GroupRule = "latest",
) -> Delivery:
    """Write the students' pages to a folder, or to a zip that Canvas or Moodle can import.

    Args:
        worksheet: Moodle's grading worksheet. It is needed if a submission's name does not contain the participant number.
        received: The hash of the page that each student received last. If given, only pages that differ are written.
        group: Which submission counts if several match one worksheet line.

    Raises:
        CourseError: The worksheet is invalid.
        FileError: The output cannot be written.
    """
    if to == "folder":
        files, problems = student_page.write(student_page.recipients(rows), texts, out)
        return Delivery(len(files), 0, [], problems)
    if to == "canvas":
        named, notes = _canvas_names(rows, texts.day)
    else:
        named, notes = _moodle_names(rows, texts.day, worksheet, group)
    done = Delivery(0, 0, notes, [])
    _write_zip(named, texts, out, received or {}, done)
    return done


def _write_zip(
    named: Mapping[str, Recipient],
    texts: Sentences,
    out: Path,
    known: Mapping[str, str],
    done: Delivery,
) -> None:
    """Write the pages that differ from those in `known`. If there are none, the zip is neither created nor changed."""
    with contextlib.ExitStack() as stack:
        archive: zipfile.ZipFile | None = None
        for name, student in named.items():
            if not (text := page_or_problem(student, texts, done.problems)):
                continue
            page = dict.fromkeys(student.students, hashlib.sha256(text.encode()).hexdigest())
            done.received |= page
            if page.items() <= known.items():
                done.unchanged += 1
            else:
                if archive is None:
                    file = stack.enter_context(open_output(out))
                    archive = stack.enter_context(zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED))
                archive.writestr(zipfile.ZipInfo(name, FIXED_DATE), text, zipfile.ZIP_DEFLATED)
                done.pages += 1


def _page_name(day: Day) -> str:
    return f"{day.name}-feedback.html"


# ---- Canvas


def _canvas_names(
    rows: Iterable[StudentResult], day: Day
) -> tuple[dict[str, Recipient], list[str]]:
    """Map each page's file name to its recipient. A group gets one page, because Canvas shows it to all members."""
    shared: dict[str, list[StudentResult]] = {}
    notes = []
    for row in (row for row in rows if row.marks):
        assert row.marks is not None
        if name := _canvas_name(row.marks.path, row.marks.origin.upload, day):
            shared.setdefault(name, []).append(row)
        else:
            notes.append(
                f"{row.entry.label}: no page, because {_reason_for_no_page(row.marks.path)}"
            )
    named = {}
    for name, group in shared.items():
        all_ = [*student_page.recipients(group)]
        students = tuple(one for each in all_ for one in each.students)
        title = ", ".join(one.name for one in all_)
        named[name] = replace(all_[0], name=title, students=students)
        notes += [
            f"{row.entry.label}: the group's page is attached to the submission that counts. Canvas shows it to this student "
            "only if the students are also a group in Canvas"
            for row in group
            if row.marks and row.keys and {*row.keys}.isdisjoint(row.marks.origin.keys)
        ]
        if len({row.points for row in group}) > 1:
            points = ", ".join(
                f"{row.entry.student} {format_number(row.points or 0)}" for row in group
            )
            notes.append(
                f"the group's page shows the points of {group[0].entry.student}, but the members' points differ: {points}"
            )
    return named, notes


def _reason_for_no_page(path: str) -> str:
    if any(found["entry"] for found in origin.canvas_matches(Path(path).name)):
        return "this submission is a text entry or a link, and Canvas attaches pages only to files"
    return f"{path} does not have a Canvas file name, and Canvas attaches pages only to files from its own downloads"


def _canvas_name(path: str, upload: int, day: Day) -> str:
    """Return a page's file name: the prefix that Canvas gave the submitted file, plus the page's own name.

    Return "" if Canvas did not name the submitted file.
    """
    for part in path.split("/"):
        for found in origin.canvas_matches(part):
            if not found["upload"] or int(found["upload"]) != upload:
                continue
            return f"{part[: found.start('original')]}{_page_name(day)}"
    return ""


# ---- Moodle


def _moodle_names(
    rows: Sequence[StudentResult], day: Day, worksheet: Path | None, group: GroupRule
) -> tuple[dict[str, Recipient], list[str]]:
    """Map each page's file name to its recipient."""
    submitted = [row for row in rows if row.marks]
    notes: list[str] = []
    hint = ""
    if worksheet:
        sheet = moodle.Worksheet.read(worksheet)
        chosen, notes = sheet.choose(submitted, day.name, group)
        participants = [(row, sheet.participant(line)) for line, row in chosen.items()]
        participants += [(row, "") for row in submitted if sheet.line(row, day.name) is None]
    else:
        participants = [(row, row.id_on("moodle", day.name)) for row in submitted]
        hint = ". Add Moodle's grading worksheet with --worksheet"
    named = {}
    for row, participant in participants:
        (student,) = student_page.recipients([row])
        if participant.isdecimal():
            # Moodle ignores the name.
            name = re.sub(r"[^\w -]|_", "", student.name).strip() or "student"
            named[f"{name}_{participant}_assignfeedback_file_{_page_name(day)}"] = student
        else:
            notes.append(
                f"{row.entry.label}: no page, because the participant number is unknown{hint}"
            )
    return named, notes
