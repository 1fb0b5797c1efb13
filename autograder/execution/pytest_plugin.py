"""Pytest plugin for hidden graders, so that `pytest graders` works without the autograder.

`pytest graders` tests the reference solutions, and `pytest graders --submission FILE` tests a notebook or script
as `autograder grade` does. Pytest loads this module for every project in the environment, so it adds the fixtures
only when it finds a grader.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder.course.files import GRADING_TOML


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options `--submission` and `--autograder-seed`."""
    group = parser.getgroup("autograder", "hidden graders of a course")
    group.addoption(
        "--submission", help="notebook or script to grade (default: the reference solutions)"
    )
    text = "seed for the random inputs of graders"
    group.addoption("--autograder-seed", type=int, default=0, help=text)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> None:
    """Add the graders' fixtures if the file is in a course's `graders` folder."""
    for folder in file_path.parents:
        if folder.name == "graders" and (folder.parent / GRADING_TOML).is_file():
            parent.config.pluginmanager.import_plugin("autograder.execution.grader_fixtures")
