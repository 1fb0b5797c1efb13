"""Test that the wheel contains the engine and its data files but nothing from this course."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

NOT_SOURCES = (".*", "build", "source", "demo", "fuzz-failures", "__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel from a copy of the repository, because the build leaves files in the source folder."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "copy", ignore=shutil.ignore_patterns(*NOT_SOURCES))
    # `pip wheel --no-build-isolation` calls the same function.
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run(
        [sys.executable, "-c", build], cwd=folder / "copy", check=True, capture_output=True
    )
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_every_file_of_the_engine_and_no_other(wheel: zipfile.ZipFile) -> None:
    files = {file for file in (ROOT / "autograder").rglob("*") if file.is_file()}
    engine = {str(f.relative_to(ROOT)) for f in files if f.parent.name != "__pycache__"}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == engine


def test_the_wheel_has_the_command_the_fixtures_and_the_extras(wheel: zipfile.ZipFile) -> None:
    metadata = _metadata(wheel)
    points = wheel.read(f"{_metadata_folder(wheel)}/entry_points.txt").decode()
    assert metadata["Name"] == "notebook-autograder"
    assert "cluster" in metadata.get_all("Provides-Extra", [])
    assert "autograder = autograder.__main__:main" in points
    assert "autograder = autograder.execution.pytest_plugin" in points
    required = {line.split(";")[0] for line in metadata.get_all("Requires-Dist", [])}
    assert not required & {"music21", "scikit-learn"}, (
        "the wheel must not require packages that only this course needs"
    )


def _metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(wheel.read(f"{_metadata_folder(wheel)}/METADATA").decode())


def _metadata_folder(wheel: zipfile.ZipFile) -> str:
    return str(next(Path(name).parent for name in wheel.namelist() if name.endswith("METADATA")))
