"""Test that workers' private folders are removed, and that folders over the size limits are reported."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from autograder.sandbox.walls import private_folders

pytestmark = pytest.mark.slow


def test_a_folder_of_any_depth_and_mode_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for depth in range(1200):
        os.mkdir("d", dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        if depth % 7 == 0:
            os.fchmod(here, 0)
        os.close(here)
        here = inner
    os.close(here)
    private_folders.remove(str(top))
    assert not top.exists()


def test_a_folder_with_conflicting_names_is_removed(tmp_path: Path) -> None:
    for name in (".1", "1", "2", "deep/.1/1/1", "deep/2/1"):
        (tmp_path / "top" / name).mkdir(parents=True)
        (tmp_path / "top" / name / "file").touch()
    private_folders.remove(str(tmp_path / "top"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", ["bytes", "entries"])
def test_a_folder_beyond_its_limit_is_reported(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders = private_folders.Folders(os.geteuid(), os.getegid())
    try:
        folder = Path(folders.create())
        folders.assign(str(folder), 7)
        assert folders.overfull() == []
        if limit == "bytes":
            (folder / "file").write_bytes(bytes(private_folders.BYTES + 1))
        else:
            for number in range(private_folders.ENTRIES + 1):
                (folder / str(number)).touch()
        assert folders.overfull() == [7]
    finally:
        folders.close()
    assert not os.path.exists(folders.root)
