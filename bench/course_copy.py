"""Set up folders that share the course's files but have their own `.autograder/`. Entry point: `link_course`."""

from __future__ import annotations

from pathlib import Path

from autograder.course.state_folder import course_folder

ROOT = Path(__file__).parents[1]
COURSE_FILES = ("autograder", "solutions", "graders", "mistakes", "tests", "grading.toml")


def link_course(folder: Path) -> None:
    """Fill an empty folder with links to the course's files."""
    for name in COURSE_FILES:
        (folder / name).symlink_to(ROOT / name)


def link_caches(folder: Path) -> None:
    """Link the recorded results for mistakes, trivial answers and forwarding, which take minutes to record."""
    for pattern in ("mistakes-*.pt", "trivial-*.json", "forwarding-*.json"):
        for file in course_folder(ROOT).glob(pattern):
            (course_folder(folder) / file.name).symlink_to(file)
