"""Test that `nbgrader collect` does not follow links, and prefers folders that belong to the student's account."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nbgrader.apps import CollectApp

from autograder.submissions import platforms
from tests.conftest import ROOT
from tests.released_course import run_app

pytestmark = pytest.mark.slow

ME = pwd.getpwuid(os.getuid()).pw_name
OTHERS = 65534


@pytest.fixture
def inbound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a course and an exchange, and return the folder in which students put their submissions."""
    monkeypatch.chdir(tmp_path)  # nbgrader also reads the configuration from the working directory
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    folder = tmp_path / "exchange" / "transformers" / "inbound"
    folder.mkdir(parents=True)
    (tmp_path / "exchange").chmod(0o777)
    return folder


def submit(inbound: Path, student: str, time: str = "10:00:00", text: str = "{}") -> Path:
    folder = inbound / f"{student}+day1+2026-11-01 {time} UTC+x"
    folder.mkdir()
    (folder / "day1.ipynb").write_text(text)
    (folder / "timestamp.txt").write_text(f"2026-11-01 {time} UTC")
    return folder


def collect(inbound: Path, *options: str) -> Path:
    """Run `nbgrader collect` and return the folder of the collected submissions."""
    root = inbound.parents[2]
    run_app(CollectApp, root, "day1", f"--Exchange.root={root / 'exchange'}", *options)
    return root / "submitted"


def test_links_are_not_collected(inbound: Path) -> None:
    solutions = inbound.parents[2] / "solutions"
    solutions.mkdir()
    (solutions / "masking.py").write_text("secret")
    folder = submit(inbound, "eve")
    (folder / "day1.ipynb").unlink()
    (folder / "day1.ipynb").symlink_to(solutions / "masking.py")
    (folder / "data").mkdir()
    (folder / "data" / "numbers.txt").write_text("1 2 3")
    (folder / "data" / "solutions").symlink_to(solutions)
    with socket.socket(socket.AF_UNIX) as special:
        special.bind(os.path.relpath(folder / "data" / "socket"))
    (inbound / "bob+day1+2026-11-01 10:00:00 UTC+x").symlink_to(solutions)
    submitted = collect(inbound)
    found = {str(path.relative_to(submitted)) for path in submitted.rglob("*") if path.is_file()}
    assert found == {"eve/day1/timestamp.txt", "eve/day1/data/numbers.txt"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another account")
def test_a_folder_of_another_account_does_not_replace_a_students_own(inbound: Path) -> None:
    submit(inbound, ME, text="own")
    os.chown(submit(inbound, ME, "11:00:00", "forged"), OTHERS, OTHERS)
    os.chown(submit(inbound, "zoe", text="on a hub with one account"), OTHERS, OTHERS)
    submitted = collect(inbound)
    assert (submitted / ME / "day1" / "day1.ipynb").read_text() == "own"
    assert (submitted / "zoe" / "day1" / "day1.ipynb").read_text() == "on a hub with one account"


def test_a_folder_that_is_too_large_keeps_no_other_from_being_collected(inbound: Path) -> None:
    for student in ("ada", "eve", "zoe"):
        submit(inbound, student)
    (inbound / "eve+day1+2026-11-01 10:00:00 UTC+x" / "zeros").touch()
    os.truncate(inbound / "eve+day1+2026-11-01 10:00:00 UTC+x" / "zeros", 1 << 40)
    assert {folder.parent.name for folder in collect(inbound).glob("*/day1")} == {"ada", "zoe"}


def test_an_invalid_name_keeps_no_other_folder_from_being_collected(inbound: Path) -> None:
    submit(inbound, ME, text="own")
    submit(inbound, "o'brien+1@example.org")
    for name in (f"{ME}+day1+soon+x", "eve+day1+2026-99-99+x"):
        (inbound / name).mkdir()
    for student in ("..", '";alert(1);"', "<img src=x onerror=alert(1)>", "\x1b[31m"):
        submit(inbound, student)
    found = {folder.parent.name for folder in collect(inbound).glob("*/day1")}
    assert found == {ME, "o'brien+1@example.org"}
    assert not (inbound.parents[2] / "day1").exists()
    assert (inbound.parents[2] / "submitted" / ME / "day1" / "day1.ipynb").read_text() == "own"


def test_an_invalid_time_does_not_keep_submissions_from_being_updated(inbound: Path) -> None:
    (submit(inbound, "eve") / "timestamp.txt").write_text("soon")
    submit(inbound, "zoe", text="first")
    submitted = collect(inbound)
    submit(inbound, "zoe", "11:00:00", text="second")
    assert collect(inbound, "--update") == submitted
    assert (submitted / "zoe" / "day1" / "day1.ipynb").read_text() == "second"
    time = platforms.parse_timestamp((submitted / "eve" / "day1" / "timestamp.txt").read_text())
    assert time == datetime(2026, 11, 1, 10, tzinfo=UTC)


def test_the_newest_submission_is_collected(inbound: Path) -> None:
    for time in ("10:00:00", "12:00:00", "11:00:00"):
        submit(inbound, ME, time, time)
    assert (collect(inbound) / ME / "day1" / "day1.ipynb").read_text() == "12:00:00"
