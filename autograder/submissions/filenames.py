"""Decide, based on their names, which files in a submission are read. places.py determines which student owns each file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from autograder.submissions import platforms
from autograder.submissions.archives import ARCHIVE_SUFFIXES

NOTEBOOK_SUFFIXES = (".ipynb", ".py")
# Archives with these suffixes are reported as unreadable, so that the students who submitted them are not overlooked.
UNSUPPORTED_SUFFIXES = (".rar", ".7z")
SKIPPED_FOLDERS = {"__MACOSX", "__pycache__"}
SKIPPED_FILES = {"setup.py", "conftest.py", "__init__.py", "nbgrader_config.py"}


def may_hold_day(folder: str, day: str) -> bool:
    """Return whether a folder with this name may contain submissions for the day."""
    is_hidden = folder.startswith(".") and folder not in (".", "..")
    return not (is_hidden or folder in SKIPPED_FOLDERS or _is_other_day(folder, day))


def is_for_day(name: str, day: str) -> bool:
    """Return whether a file with this name may be a submission for the day."""
    return is_readable(name) and not _is_other_day(stem(name), day)


def is_readable(name: str) -> bool:
    """Return whether a file with this name may be a submission for any day."""
    return (
        name.lower().endswith(NOTEBOOK_SUFFIXES + ARCHIVE_SUFFIXES + UNSUPPORTED_SUFFIXES)
        and not name.startswith(".")
        and name not in SKIPPED_FILES
    )


def files_left_out(others: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return one file from `others` for each student who has no file in `names`. Ignore names in unknown formats."""
    read = {platforms.owner_key(name) for name in names}
    first = {platforms.owner_key(name): name for name in reversed(others)}
    return sorted(name for owner, name in first.items() if owner and owner not in read)


def without_online_texts(folders: Sequence[str]) -> list[str]:
    """Return the folders, excluding Moodle's online-text folders for students who also submitted files."""
    owners = [platforms.owner_key(name) for name in folders if "_onlinetext_" not in name]
    return [n for n in folders if "_onlinetext_" not in n or platforms.owner_key(n) not in owners]


def select_files(
    names: Sequence[str], day: str, flat: bool = False, downloaded: bool = False
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the files in one folder that should be read, each with notes about the choice.

    Args:
        names: The files in the folder.
        day: The day being graded. If a notebook is named after the day, the student's other notebooks are not read.
        flat: Whether each file belongs to a different student. If not, all files belong to one student.
        downloaded: Whether the folder was downloaded from a platform. If so, an owner encoded in a file name takes precedence.
    """
    by_owner: dict[str, list[str]] = {}
    for name in names:
        owner = platforms.owner_key(name) if downloaded else ""
        by_owner.setdefault(owner or (name if flat else ""), []).append(name)
    for own in by_owner.values():
        yield from _select_for_student(own, day, downloaded)


def _select_for_student(
    names: Sequence[str], day: str, downloaded: bool
) -> Iterator[tuple[str, tuple[str, ...]]]:
    notebooks = [name for name in names if name.lower().endswith(NOTEBOOK_SUFFIXES)]
    titles = {n: (platforms.original_name(n) if downloaded else n).casefold() for n in notebooks}
    winner = next((name for name in notebooks if titles[name] == f"{day}.ipynb"), None)
    for name in names:
        if name == winner and len(notebooks) > 1:
            others = [other for other in notebooks if other != name]
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            yield name, (f"only {winner} was read, not {', '.join(others[:3])}{more}",)
        elif winner is None or name == winner or not name.lower().endswith(NOTEBOOK_SUFFIXES):
            yield name, ()


def stem(name: str) -> str:
    """Return a file name, stripped of a notebook, script or archive suffix."""
    ending = next(
        (
            end
            for end in NOTEBOOK_SUFFIXES + ARCHIVE_SUFFIXES + UNSUPPORTED_SUFFIXES
            if name.lower().endswith(end)
        ),
        "",
    )
    return name[: len(name) - len(ending)] or name


def is_day_name(name: str, day: str) -> bool:
    """Return whether a name is a variant of the day's name, such as "Day 1", "day1 (2)" or "day1-Copy1"."""
    return re.sub(r" ?\(\d+\)$|-copy\d+$|[ _-]", "", name.casefold()) == day


def _is_other_day(name: str, day: str) -> bool:
    series = re.escape(day.rstrip("0123456789"))
    is_a_day = re.fullmatch(rf"{series}[ _-]?\d+", name.casefold()) is not None
    return is_a_day and not is_day_name(name, day)
