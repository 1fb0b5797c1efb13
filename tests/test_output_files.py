"""Test that commands replace their output files only when the new files are complete."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autograder.arguments import write_marks
from autograder.course import config as courses
from autograder.course.config import Day
from autograder.course.files import FileError, open_output, write_output
from autograder.export.feedback_files import deliver
from autograder.feedback import class_page, sentences, student_page
from autograder.marks import class_list
from autograder.marks.model import FORMAT, Marks
from autograder.submissions.roster import NO_ROSTER
from tests import small_course
from tests.fake_grading import export, results_and_notes
from tests.test_export import CLASS


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Make all writes beyond the first 16 bytes of a file fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_pages(day: Day, folder: Path) -> None:
    rows, _ = results_and_notes(CLASS, day, NO_ROSTER)
    student_page.write(student_page.recipients(rows), sentences.read(day), folder)


def write_zip(day: Day, folder: Path) -> None:
    rows, _ = results_and_notes(CLASS, day, NO_ROSTER)
    assert deliver(rows, sentences.read(day), "canvas", folder / "pages.zip").pages == 2


def write_report(day: Day, folder: Path) -> None:
    late = class_list.lateness_of_each(CLASS, day, NO_ROSTER)
    found = class_page.analyse(
        Marks(FORMAT, "day1", CLASS), sentences.read(day), "course", False, late
    )
    class_page.write(found, folder)


WRITERS: dict[str, Callable[[Day, Path], object]] = {
    "grade --json": lambda day, folder: write_marks(folder / "marks.json", day.name, CLASS),
    "export": lambda day, folder: export(day, "csv", CLASS, folder / "marks.csv"),
    "export --to gradescope": lambda day, folder: export(day, "gradescope", CLASS, folder),
    "feedback --for canvas": write_zip,
    "feedback --for folder": write_pages,
    "report": write_report,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_does_not_destroy_earlier_output(
    write: Callable[[Day, Path], object], tmp_path: Path
) -> None:
    day = courses.load(small_course.make(tmp_path / "course")).day("day1")
    folder = tmp_path / "out"
    folder.mkdir()
    write(day, folder)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert before
    with full_disk(), pytest.raises(FileError, match="cannot be written: File too large"):
        write(day, folder)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def write_half(file: Path) -> None:
    with open_output(file) as new:
        new.write(b"new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for content in (None, b"old"):
        if content:
            file.write_bytes(content)
        with pytest.raises(FileError, match="No space left"):
            write_half(file)
        assert [one.read_bytes() for one in tmp_path.iterdir()] == ([content] if content else [])


def test_output_has_the_usual_permissions(tmp_path: Path) -> None:
    file, usual = tmp_path / "x", tmp_path / "usual"
    usual.write_bytes(b"")
    write_output(file, b"new")
    assert file.stat().st_mode == usual.stat().st_mode
    file.chmod(0o640)
    write_output(file, b"newer")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"newer", 0o640)


def test_links_and_pipes_are_written_directly(tmp_path: Path) -> None:
    file, link = tmp_path / "x", tmp_path / "link"
    link.symlink_to(file)
    write_output(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    receiver, sender = os.pipe()
    try:
        write_output(Path(f"/dev/fd/{sender}"), b"data")
        assert os.read(receiver, 10) == b"data"
    finally:
        os.close(receiver)
        os.close(sender)
