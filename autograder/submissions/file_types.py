"""Decide which files in a submission to read, based on their names. origin.py finds the student in a name."""

from __future__ import annotations

import re

# Browsers add .txt or .json to files that they display as text, and numbers to names that already exist.
NOTEBOOK = re.compile(r"\.(?:ipynb|py)(?:(?:-\d+| ?\(\d+\))?\.(?:txt|json))?$", re.IGNORECASE)
ARCHIVE_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".zip", ".tar")
# Archives with these suffixes are reported as unreadable so that the students who submitted them are not overlooked.
UNSUPPORTED_SUFFIXES = (".rar", ".7z")
# In a folder with one file per student, files with these suffixes are reported as submissions that cannot be graded.
DOCUMENT_SUFFIXES = (".docx", ".doc", ".odt", ".rtf", ".pdf", ".html", ".htm", ".pages", ".txt")
COURSE_FILES = {
    "readme",
    "requirements",
    "index",
    "license",
}  # names, without suffixes, of documents that are not student work
SKIPPED_FOLDERS = {"__MACOSX", "__pycache__"}
SKIPPED_FILES = {"setup.py", "conftest.py", "__init__.py", "nbgrader_config.py"}


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or was created by an operating system, an editor or Python."""
    return name.startswith((".", "~$")) or name in SKIPPED_FOLDERS


def is_gradable(name: str) -> bool:
    """Return whether a file with this name may be a submission: a notebook, a script or an archive."""
    suffixes = ARCHIVE_SUFFIXES + UNSUPPORTED_SUFFIXES
    is_work = has_notebook_suffix(name) or name.lower().endswith(suffixes)
    return is_work and not is_hidden(name) and name not in SKIPPED_FILES


def is_archive(name: str, beginning: bytes) -> bool:
    """Return whether a file is an archive, based on its name or first bytes."""
    return name.lower().endswith(ARCHIVE_SUFFIXES) or beginning.startswith(
        (b"PK\x03\x04", b"PK\x05\x06")
    )


def is_notebook(name: str) -> bool:
    """Return whether a file with this name may be a notebook or a script."""
    return is_gradable(name) and has_notebook_suffix(name)


def has_notebook_suffix(name: str) -> bool:
    """Return whether a file name has a notebook or script suffix."""
    return NOTEBOOK.search(name) is not None


def is_document(name: str) -> bool:
    """Return whether a file with this name may be student work in a format that cannot be graded."""
    own, dot, suffix = name.lower().rpartition(".")
    return not is_hidden(name) and dot + suffix in DOCUMENT_SUFFIXES and own not in COURSE_FILES


def stem(name: str) -> str:
    """Remove the suffix of a notebook, script, archive or document from a file name."""
    if found := NOTEBOOK.search(name):
        return name[: found.start()] or name
    suffixes = ARCHIVE_SUFFIXES + UNSUPPORTED_SUFFIXES + DOCUMENT_SUFFIXES
    ending = next((end for end in suffixes if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)] or name


def is_day_name(name: str, day: str) -> bool:
    """Return whether a name is a variant of the day's name, such as "Day 1", "day1 (2)", "Copy of day1" or "day1-Copy1"."""
    return _plain(re.sub(r"^copy of | ?\(\d+\)$|-copy\d+$", "", name.casefold())) == _plain(day)


def is_other_day(name: str, day: str) -> bool:
    """Return whether a name is a variant of another day's name, such as "Day 2" if the day is "day1"."""
    series = r"[ _-]?".join(map(re.escape, _plain(day.rstrip("0123456789"))))
    found = re.fullmatch(
        rf"(?:copy of )?({series}[ _-]?\d+)(?: ?\(\d+\)|-copy\d+)?", name.casefold()
    )
    return found is not None and not is_day_name(found[1], day)


def _plain(name: str) -> str:
    """Return a name in lower case, without spaces, hyphens and underscores."""
    return re.sub(r"[ _-]", "", name.casefold())
