"""Set up folders that share the course's files but have their own `.autograder/`. Entry point: `link_course`."""

from __future__ import annotations

from pathlib import Path

from autograder.course.state_folder import course_folder

ROOT = Path(__file__).parents[1]
COURSE_FILES = ("autograder", "solutions", "graders", "mistakes", "grading.toml")


def link_course(folder: Path) -> None:
    """Link the course's files into an empty folder."""
    for name in COURSE_FILES:
        (folder / name).symlink_to(ROOT / name)


def link_known_mistakes(folder: Path) -> None:
    """Link the recorded outputs of the known mistakes into a linked course, because recording them again takes a minute."""
    for file in course_folder(ROOT).glob("mistakes-*.pt"):
        (course_folder(folder) / file.name).symlink_to(file)
