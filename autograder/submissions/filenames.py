"""Which of the files that were handed in are read, told by their names alone; places.py says whose they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from autograder.submissions import platforms
from autograder.submissions.archives import ARCHIVE_SUFFIXES

NOTEBOOK_SUFFIXES = (".ipynb", ".py")
UNSUPPORTED_SUFFIXES = (
    ".rar",
    ".7z",
)  # named as unreadable, so that their student is not overlooked
SKIPPED_FOLDERS = {"__MACOSX", "__pycache__"}
SKIPPED_FILES = {"setup.py", "conftest.py", "__init__.py", "nbgrader_config.py"}


def may_hold_day(folder: str, day: str) -> bool:
    """Whether a folder may hold something of the day."""
    is_hidden = folder.startswith(".") and folder not in (".", "..")
    return not (is_hidden or folder in SKIPPED_FOLDERS or _names_another_day(folder, day))


def is_for_day(name: str, day: str) -> bool:
    """Whether a file may be of the day."""
    return is_readable(name) and not _names_another_day(stem(name), day)


def is_readable(name: str) -> bool:
    """Whether a file may be a submission of any day."""
    return (
        name.lower().endswith(NOTEBOOK_SUFFIXES + ARCHIVE_SUFFIXES + UNSUPPORTED_SUFFIXES)
        and not name.startswith(".")
        and name not in SKIPPED_FILES
    )


def files_left_out(others: Sequence[str], names: Sequence[str]) -> list[str]:
    """A file of each student of a platform who has one among the others and none among these names."""
    read = {platforms.owner_key(name) for name in names}
    first = {platforms.owner_key(name): name for name in reversed(others)}
    return sorted(name for owner, name in first.items() if owner and owner not in read)


def without_online_texts(folders: Sequence[str]) -> list[str]:
    """The folders without Moodle's of a text typed in, where the student has one with files too."""
    owners = [platforms.owner_key(name) for name in folders if "_onlinetext_" not in name]
    return [n for n in folders if "_onlinetext_" not in n or platforms.owner_key(n) not in owners]


def select_files(
    names: Sequence[str], day: str, flat: bool = False, downloaded: bool = False
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The files of one folder that are read, each with what is to be said about the choice.

    A folder holds one student's files; in a flat one each is another's, and in a download they are whose the platform says.
    """
    own: dict[str, list[str]] = {}
    for name in names:
        owner = platforms.owner_key(name) if downloaded else ""
        own.setdefault(owner or (name if flat else ""), []).append(name)
    for of_one in own.values():
        yield from _chosen_of_one(of_one, day, downloaded)


def _chosen_of_one(
    names: Sequence[str], day: str, downloaded: bool
) -> Iterator[tuple[str, tuple[str, ...]]]:
    notebooks = [name for name in names if name.lower().endswith(NOTEBOOK_SUFFIXES)]
    titles = {n: (platforms.original_name(n) if downloaded else n).casefold() for n in notebooks}
    winner = next((name for name in notebooks if titles[name] == f"{day}.ipynb"), None)
    for name in names:
        if name == winner and len(notebooks) > 1:
            others = [other for other in notebooks if other != name]
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            yield name, (f"not read, for {winner} is beside: {', '.join(others[:3])}{more}",)
        elif winner is None or name == winner or not name.lower().endswith(NOTEBOOK_SUFFIXES):
            yield name, ()


def stem(name: str) -> str:
    """The name without an ending that tells a notebook, script or archive."""
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
    """Whether this is the day's name, also as "Day 1", "day1 (2)" (a browser) or "day1-Copy1"."""
    return re.sub(r" ?\(\d+\)$|-copy\d+$|[ _-]", "", name.casefold()) == day


def _names_another_day(name: str, day: str) -> bool:
    series = re.escape(day.rstrip("0123456789"))
    is_a_day = re.fullmatch(rf"{series}[ _-]?\d+", name.casefold()) is not None
    return is_a_day and not is_day_name(name, day)
