"""Add a badge that opens the released notebook in Google Colab. Entry point: `add_badge`."""

from __future__ import annotations

import re

from nbformat import NotebookNode

from autograder.course.config import CourseError, Day

COLAB = "https://colab.research.google.com"
FOLDER = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)/(?:tree|blob)/([^\s?#()]+?)/*")


def add_badge(notebook: NotebookNode, day: Day, public_url: str) -> None:
    """Add the badge to the notebook's title cell.

    Args:
        notebook: The day's notebook.
        day: The day.
        public_url: The GitHub address of the folder that contains the release.

    Raises:
        CourseError: Colab cannot open notebooks at this address.
    """
    found = FOLDER.fullmatch(public_url.strip())
    if not found:
        raise CourseError(
            f"--public-url: {public_url} is not the address of a folder on GitHub, such as "
            "https://github.com/OWNER/REPOSITORY/tree/main/assignments"
        )
    repository, folder = found.groups()
    page = f"{COLAB}/github/{repository}/blob/{folder}/{day.name}/{day.name}.ipynb"
    image = f"{COLAB}/assets/colab-badge.svg"
    notebook.cells[0].source += f"\n\n[![Open in Colab]({image})]({page})"
