"""Test that all submissions in files, folders and archives are found, even if some are broken."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.course import config as courses
from autograder.plain_text import counted, printable
from autograder.submissions import archives, file_types
from autograder.submissions.submission import Submission, find_submissions, read_submissions
from tests.before_opening import changes
from tests.conftest import ROOT, reader

DAMAGED = "the archive is damaged, truncated or in an unsupported format"
AGAIN = " (if this is a class download, download it again)"


def notebook(source: str = "x = 1") -> bytes:
    cell = {"cell_type": "code", "metadata": {}, "source": source}
    return json.dumps({"nbformat": 4, "cells": [cell]}).encode()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def found(*paths: Path, day: str = "day1") -> list[Submission]:
    return list(read_submissions(paths, day, reader()))


def chosen(*paths: Path) -> list[Submission]:
    """For each student, return the submission that would be graded."""
    day = courses.load(ROOT).day("day1")
    return list(find_submissions(paths, day, reader()))


def students(*paths: Path) -> list[str]:
    return [submission.student for submission in found(*paths)]


# ---- students' names


@pytest.mark.parametrize(
    ("name", "student"),
    [
        ("submitted/ada/day1/day1.ipynb", "ada"),
        ("class/ada/day1.ipynb", "ada"),
        ("class/ada/Day 1.ipynb", "ada"),
        ("class/ada/day1 (2).ipynb", "ada"),
        ("class/ada/day1-Copy1.ipynb", "ada"),
        ("class/ada.ipynb", "ada"),
        ("class/ada.py", "ada"),
        ("class/ada.ipynb.txt", "ada"),
        ("class/ada/day1.ipynb.json", "ada"),
        ("class/ada/Day 1.ipynb (2).TXT", "ada"),
        ("class/ada.py.txt", "ada"),
        ("class/ada/day1.py (2).txt", "ada"),
        ("class/ada_4211_70001_day1.ipynb-3.txt", "ada"),
        ("class/Ada Lovelace_12_assignsubmission_file_/day1.py", None),
    ],
)
def test_student_is_named_after_the_path(tmp_path: Path, name: str, student: str | None) -> None:
    write(tmp_path, {name: notebook()})
    expected = student or "Ada Lovelace"
    assert students(tmp_path / name.split("/")[0]) == [expected]
    assert students(tmp_path / name) == [expected]


@pytest.mark.parametrize(
    "name",
    [
        "my_solution.ipynb",
        "day1.ipynb",
        "homework.zip",
        "Copy of day1 (2).ipynb",
        "a/b/c.py",
        "bob.py",
        "day1.ipynb.txt",
    ],
)
@pytest.mark.parametrize("is_alone", [True, False])
def test_the_topmost_folder_names_the_student_whatever_is_in_it(
    tmp_path: Path, name: str, is_alone: bool
) -> None:
    data = zipped({"zoe/work.ipynb": notebook()}) if name.endswith(".zip") else notebook()
    files = {f"ada/{name}": data} | ({} if is_alone else {"bob/day1.ipynb": notebook()})
    write(tmp_path / "class", files)
    write(tmp_path, {"class.zip": zipped(files)})
    expected = ["ada"] if is_alone else ["ada", "bob"]
    assert students(tmp_path / "class") == students(tmp_path / "class.zip") == expected


def test_a_single_folder_with_several_entries_and_no_notebook_is_looked_through(
    tmp_path: Path,
) -> None:
    wrapped = {
        "export/ada/work.ipynb": notebook(),
        "export/bob.zip": zipped({"x.ipynb": notebook()}),
    }
    write(tmp_path, {"class.zip": zipped(wrapped), **{f"in/{n}": d for n, d in wrapped.items()}})
    for place in (tmp_path / "class.zip", tmp_path / "in"):
        class_ = found(place)
        assert sorted(one.student for one in class_) == ["ada", "bob"]
        assert {one.wrapper for one in class_} == {f"{place}/export/"}
    assert {one.wrapper for one in found(tmp_path / "in" / "export")} == {""}


def test_a_folder_with_a_notebook_of_its_own_is_a_student(tmp_path: Path) -> None:
    write(tmp_path / "ada", {"work.ipynb": notebook(), "old/work.ipynb": notebook()})
    assert [one.student for one in chosen(tmp_path)] == ["ada"]


@pytest.mark.parametrize(
    ("archive", "inside", "student"),
    [
        ("ada.zip", "day1.ipynb", "ada"),
        ("ada.zip", "my solution.ipynb", "ada"),
        ("ada.zip", "day1/day1.ipynb", "ada"),
        ("class.zip", "ada/day1.ipynb", "ada"),
        ("class.zip", "ada\\day1\\day1.ipynb", "ada"),
        ("ada/day1.zip", "day1.ipynb", "ada"),
    ],
)
def test_student_of_an_archive(tmp_path: Path, archive: str, inside: str, student: str) -> None:
    write(tmp_path, {archive: zipped({inside: notebook()})})
    assert students(tmp_path / archive) == [student]


def test_two_submissions_of_a_student_are_both_kept(tmp_path: Path) -> None:
    write(tmp_path, {"a/ada.ipynb": notebook("x = 1"), "b/ada.ipynb": notebook("x = 2")})
    first, second = found(tmp_path / "a", tmp_path / "b")
    assert first.student == second.student == "ada"
    assert first.sha256 != second.sha256


# ---- folders


def test_folder_is_walked_in_order_without_other_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "bob.ipynb": notebook(),
            "ada.ipynb": notebook(),
            "requirements.txt": b"torch",
            "setup.py": b"",
            ".hidden.ipynb": notebook(),
            ".ipynb_checkpoints/ada-checkpoint.ipynb": notebook(),
            "__MACOSX/._ada.ipynb": b"\0\5",
            "__pycache__/cyd.py": b"",
            "dora/day1/day1.ipynb": notebook(),
            "dora/day2/day2.ipynb": notebook(),
            "cyd/day2.ipynb": notebook(),
        },
    )
    assert students(tmp_path) == ["ada", "bob", "cyd", "dora"]


def test_notebook_of_the_day_is_preferred(tmp_path: Path) -> None:
    write(
        tmp_path / "ada",
        {"day1.ipynb": notebook(), "draft.ipynb": notebook(), "tools.py": b"x = 1"},
    )
    (submission,) = chosen(tmp_path)
    assert submission.path.endswith("ada/day1.ipynb")
    assert submission.problems == (
        "3 files were submitted; graded: day1.ipynb (0 exercises filled in); not graded: "
        "draft.ipynb (0 exercises filled in) and tools.py (0 exercises filled in)",
    )


def test_notebook_of_the_day_hides_no_other_student_in_a_class_folder(tmp_path: Path) -> None:
    write(tmp_path, {"day1.ipynb": notebook(), "ada.ipynb": notebook()})
    assert {Path(submission.path).name for submission in found(tmp_path)} == {
        "ada.ipynb",
        "day1.ipynb",
    }


FILLED = "def softmax(x, dim=-1):\n    return x.exp() / x.exp().sum(dim, True)\n"
MASK = "def causal_mask(n, device=None):\n    return torch.ones(n, n).tril()\n"
STUB = "def softmax(x, dim=-1):\n    raise NotImplementedError('softmax')\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.ipynb": STUB, "b.ipynb": FILLED}, "b.ipynb"),
        ({"a.ipynb": FILLED + STUB, "b.ipynb": FILLED}, "b.ipynb"),
        ({"a.ipynb": FILLED, "b.ipynb": FILLED + MASK, "day1.ipynb": STUB}, "b.ipynb"),
        ({"a.ipynb": FILLED, "old/a.ipynb": FILLED + MASK}, "old/a.ipynb"),
        ({"b.ipynb": FILLED, "a.ipynb": FILLED}, "a.ipynb"),
        ({"a.ipynb": "", "b.ipynb": STUB}, "b.ipynb"),
        ({"day2.ipynb": FILLED + MASK, "x.ipynb": STUB}, "x.ipynb"),
        ({"day1.ipynb": "x = 1", "w.zip": FILLED}, "w.zip/b.ipynb"),
    ],
)
def test_the_notebook_with_the_most_exercises_filled_in_is_graded(
    tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    made = {n: notebook(text) if text else b"" for n, text in files.items()}
    made |= {n: zipped({"b.ipynb": made[n]}) for n in made if n.endswith(".zip")}
    write(tmp_path / "ada", made | {"plot.png": b"pixels"})
    (submission,) = chosen(tmp_path)
    assert submission.path == f"{tmp_path}/ada/{expected}"
    if "day2.ipynb" not in files:
        assert len(submission.problems) == 1
        assert "not graded" in submission.problems[0]


def test_a_notebook_named_after_the_day_does_not_take_over_a_class(tmp_path: Path) -> None:
    names = ("ada", "day1", "zoe")
    write(tmp_path / "class" / "day1", {f"{name}.ipynb": notebook() for name in names})
    assert [one.student for one in found(tmp_path / "class")] == ["ada", "class", "zoe"]
    others = {"notes.pdf": b"%PDF", "helpers.py": b"x = 1"}
    write(tmp_path / "eve" / "day1", {"day1.ipynb": notebook(), **others})
    (eve,) = chosen(tmp_path / "eve")
    assert (eve.student, Path(eve.path).name) == ("eve", "day1.ipynb")


def test_a_folder_named_after_the_day_does_not_replace_others_work(tmp_path: Path) -> None:
    files = {"ada/day1.ipynb": notebook("mine"), "zoe/day1.ipynb": notebook()}
    files |= {"day1/ada/day1.ipynb": notebook("forged"), "day1/zoe.ipynb": notebook("forged")}
    write(tmp_path / "folder", files | {"day1/bob/day1.ipynb": notebook()})
    write(tmp_path, {"class.zip": zipped(files | {"day1/bob/day1.ipynb": notebook()})})
    for place in ("folder", "class.zip"):
        by_name = {one.student: one for one in chosen(tmp_path / place)}
        assert sorted(by_name) == ["ada", "bob", "zoe"]
        assert [cell.source for cell in by_name["ada"].cells] == ["mine"]
        assert by_name["ada"].problems[0].endswith("outer folder: day1/ada/day1.ipynb")
        assert not any("forged" in cell.source for cell in by_name["zoe"].cells)


def test_problems_name_the_file_if_there_are_several(tmp_path: Path) -> None:
    script = FILLED.encode()
    write(tmp_path / "ada", {"day1.ipynb": script, "scratch.ipynb": b'{"cells": []}', "z.py": b""})
    (submission,) = chosen(tmp_path)
    several, kind = submission.problems
    assert several.endswith("not graded: scratch.ipynb (empty) and z.py (empty)")
    assert kind == "day1.ipynb: the file is not a notebook; it was read as a Python script"


def test_files_that_cannot_be_read_are_one_submission_with_all_reasons(tmp_path: Path) -> None:
    write(tmp_path / "ada", {"a.ipynb": b"", "b.ipynb": b"%PDF"})
    (submission,) = chosen(tmp_path)
    assert not submission.readable
    assert submission.problems == (
        "a.ipynb: the file is empty",
        "b.ipynb: the file is a PDF, not a notebook",
    )


def test_documents_are_submissions_and_other_files_are_not(tmp_path: Path) -> None:
    files = {"ada.ipynb": notebook(), "bob.docx": b"x", "cyd.html": b"x", "README.txt": b"x"}
    write(tmp_path, files | {"grades.csv": b"x", "zoe/data.csv": b"1", "requirements.txt": b"x"})
    write(tmp_path, {"~$bob.docx": b"x"})  # Word's lock file
    problems = {one.student: one.problems for one in chosen(tmp_path)}
    assert problems == {
        "ada": (),
        "bob": ("no notebook, script or archive was submitted, only bob.docx",),
        "cyd": ("no notebook, script or archive was submitted, only cyd.html",),
        "zoe": ("the folder contains no notebook, script or archive, only data.csv",),
    }


def test_student_without_a_notebook_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {"ada/day1.ipynb": notebook(), "bob/report.docx": b"x"})
    ada, bob = found(tmp_path)
    assert (ada.student, ada.readable) == ("ada", True)
    assert (bob.student, bob.readable) == ("bob", False)
    assert bob.problems == ("the folder contains no notebook, script or archive, only report.docx",)


def test_subfolders_of_a_student_are_not_students(tmp_path: Path) -> None:
    write(tmp_path, {"ada/day1/day1.ipynb": notebook(), "ada/data/numbers.csv": b"1"})
    assert students(tmp_path / "ada") == ["ada"]


# ---- problems


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("ada.ipynb", b"", "the file is empty"),
        (
            "ada.txt",
            b"hello",
            "the file is not a notebook, a script, a zip archive or a tar archive",
        ),
        ("ada.zip", b"PK\x03\x04 cut off", "the archive is damaged: it is truncated" + AGAIN),
        ("ada.zip", b"", "the file is empty" + AGAIN),
        ("ada.tar", b"x" * 1024, DAMAGED + AGAIN),
        ("ada.tgz", b"\x1f\x8b\x08cut", DAMAGED + AGAIN),
        (
            "ada.zip",
            zipped({"notes.txt": b"x"}),
            "no notebook, script or archive was submitted, only notes.txt",
        ),
        (
            "ada.rar",
            b"Rar!",
            "the file is not a notebook, a script, a zip archive or a tar archive",
        ),
    ],
)
def test_unreadable_file(tmp_path: Path, name: str, data: bytes, problem: str) -> None:
    write(tmp_path, {name: data, "bob.ipynb": notebook()})
    ada, bob = found(tmp_path / name, tmp_path / "bob.ipynb")
    assert (ada.readable, ada.problems) == (False, (problem,))
    assert ada.student == "ada"
    assert bob.readable


def test_missing_path_and_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    missing, empty, odd = found(tmp_path / "no.ipynb", tmp_path / "empty", Path("nul\0.ipynb"))
    assert missing.problems == ("the file or folder does not exist",)
    assert empty.problems == ("the folder contains no notebook, script or archive",)
    assert odd.problems == ("the path is invalid",)
    assert [missing.readable, empty.readable, odd.readable] == [False] * 3


def test_links_and_special_files_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path, {"secret/key.ipynb": notebook()})
    folder = tmp_path / "class"
    folder.mkdir()
    (folder / "ada.ipynb").symlink_to(tmp_path / "secret/key.ipynb")
    (folder / "bob").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "cyd.ipynb")
    ada, cyd = found(folder)
    assert ada.problems == ("links are not followed",)
    assert cyd.problems == ("this is not a regular file",)


def test_a_link_is_not_followed_even_as_a_path(tmp_path: Path) -> None:
    """In `grade day1 class/*/day1.ipynb`, a student's link could point to the solutions."""
    write(tmp_path, {"key.ipynb": notebook(), "class/ada/other.ipynb": notebook()})
    (tmp_path / "class/ada/day1.ipynb").symlink_to(tmp_path / "key.ipynb")
    (tmp_path / "folder").symlink_to(tmp_path / "class")
    seen = found(tmp_path / "class/ada/day1.ipynb", tmp_path / "folder")
    assert [one.problems for one in seen] == [("links are not followed",)] * 2


def test_a_link_in_a_students_folder_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {"key.ipynb": notebook()})
    folder = tmp_path / "submitted/ada/day1"
    folder.mkdir(parents=True)
    (folder / "day1.ipynb").symlink_to(tmp_path / "key.ipynb")
    (tmp_path / "submitted/bob").mkdir()
    (tmp_path / "submitted/bob/day1").symlink_to(folder)
    ada, bob = found(folder / "day1.ipynb", tmp_path / "submitted/bob/day1")
    assert ada.problems == bob.problems == ("links are not followed",)


def _become_link(path: Path, target: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("opened", "replaced"),
    [
        ("day1.ipynb", "class/ada/work/day1.ipynb"),
        ("day1.ipynb", "class/ada/work"),
        ("day1.ipynb", "class/ada"),
        ("work", "class/ada/work"),
        ("work", "class/ada"),
        ("ada", "class/ada"),
    ],
)
def test_a_change_before_opening_reveals_nothing(
    opened: str, replaced: str, tmp_path: Path
) -> None:
    """Students may be able to write to the folders that are graded."""
    private = {"day1.ipynb": notebook("secret"), "private.docx": b""}
    write(tmp_path / "private", private)
    write(tmp_path / "private/work", private)
    write(tmp_path, {"class/ada/work/day1.ipynb": notebook(), "class/bob.ipynb": notebook()})
    target = tmp_path / "private"
    if "." in replaced:
        target /= "day1.ipynb"
    changes[opened] = lambda: _become_link(tmp_path / replaced, target)
    submissions = found(tmp_path / "class")
    assert not changes  # the change was made
    sources = [cell.source for each in submissions for cell in each.cells]
    assert sources in (["x = 1"], ["x = 1", "x = 1"])
    assert not any("private" in problem for each in submissions for problem in each.problems)


@pytest.mark.parametrize("target", ["", "day1.ipynb"])
def test_a_folder_that_vanishes_affects_only_its_student(target: str, tmp_path: Path) -> None:
    write(tmp_path, {"ada/work/day1.ipynb": notebook(), "bob.ipynb": notebook()})
    changes[target or "work"] = lambda: shutil.rmtree(tmp_path / "ada")
    ada, bob = sorted(found(tmp_path), key=lambda each: each.student)
    assert ada.problems == ("the file or folder does not exist",)
    assert (bob.student, bob.readable) == ("bob", True)


def test_hard_link_on_disk_is_a_regular_file(tmp_path: Path) -> None:
    write(tmp_path, {"ada.ipynb": notebook()})
    os.link(tmp_path / "ada.ipynb", tmp_path / "bob.ipynb")
    assert [submission.readable for submission in found(tmp_path)] == [True, True]


def test_digest_is_the_hash_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"ada.ipynb": notebook()})
    assert found(tmp_path)[0].sha256 == hashlib.sha256(notebook()).hexdigest()


# ---- archives


PACKED: list[tuple[str, Callable[[dict[str, bytes]], bytes]]] = [
    ("class.zip", zipped),
    ("class.tar", tarred),
    ("class.tar.gz", lambda files: tarred(files, "w:gz")),
    ("class.tgz", lambda files: tarred(files, "w:gz")),
    ("class.tar.bz2", lambda files: tarred(files, "w:bz2")),
    ("class.tar.xz", lambda files: tarred(files, "w:xz")),
]


@pytest.mark.parametrize(("name", "pack"), PACKED)
def test_archive_of_a_class(
    tmp_path: Path, name: str, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    files = {
        "bob/day1.ipynb": notebook("b = 2"),
        "ada/day1.ipynb": notebook("a = 1"),
        "ada/draft.ipynb": notebook(),
        "__MACOSX/ada/._day1.ipynb": b"\0",
        "cyd.zip": zipped({"work.ipynb": notebook("c = 3")}),
    }
    write(tmp_path, {name: pack(files)})
    class_ = chosen(tmp_path / name)
    assert [(s.student, s.cells[0].source) for s in class_] == [
        ("cyd", "c = 3"),
        ("ada", "a = 1"),
        ("bob", "b = 2"),
    ]
    assert class_[1].path == f"{tmp_path}/{name}/ada/day1.ipynb"


def test_archive_named_like_a_notebook(tmp_path: Path) -> None:
    write(tmp_path, {"ada.ipynb": zipped({"day1.ipynb": notebook()})})
    assert students(tmp_path) == ["ada"]


def test_an_archive_within_a_student_s_archive_is_read(tmp_path: Path) -> None:
    name = "lovelaceada_4211_70001_work.zip"
    twice = zipped({"again.zip": zipped({"day1.ipynb": notebook("a = 1")})})
    thrice = zipped({"work.zip": twice})
    write(tmp_path, {"class.zip": zipped({name: twice}), f"folder/{name}": twice})
    for place in ("class.zip", "folder"):
        (submission,) = chosen(tmp_path / place)
        assert submission.cells[0].source == "a = 1"
        assert submission.path.endswith(f"{name}/again.zip/day1.ipynb")
    write(tmp_path, {"deep.zip": zipped({name: thrice})})
    (submission,) = found(tmp_path / "deep.zip")
    assert submission.problems == (
        "archives are nested too deeply; submit a notebook or a single archive",
    )


@pytest.mark.parametrize(
    "name", ["../../etc/ada.ipynb", "/etc/ada.ipynb", "a/" * 500 + "ada.ipynb"]
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_paths_in_archives_cannot_leave_the_archive(
    tmp_path: Path, name: str, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    write(tmp_path, {"class.zip": pack({name: notebook(), "bob.ipynb": notebook()})})
    by_file = {Path(s.path).name: s for s in found(tmp_path / "class.zip")}
    assert sorted(by_file) == ["ada.ipynb", "bob.ipynb"]
    assert all(submission.readable for submission in by_file.values())
    # If a folder is next to other students' files, all files in the folder belong to one student.
    outer = next(part for part in name.split("/") if part not in ("", ".", ".."))
    assert [by_file[f"{who}.ipynb"].student for who in ("ada", "bob")] == [outer, "bob"]
    assert os.listdir(tmp_path) == ["class.zip"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("ada.ipynb")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    write(tmp_path, {"class.tar": buffer.getvalue()})
    (submission,) = found(tmp_path)
    assert not submission.readable
    assert "link" in submission.problems[0] or "special" in submission.problems[0]


def test_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("ada.ipynb")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
        archive.writestr("bob.ipynb", notebook())
    ada, bob = found(tmp_path / "class.zip")
    assert ada.problems == ("links and special files in archives are not read",)
    assert bob.readable


def test_encrypted_member_does_not_affect_others(tmp_path: Path) -> None:
    data = bytearray(zipped({"ada.ipynb": notebook(), "bob.ipynb": notebook()}))
    # Set the encryption flag in the first entry of the central directory.
    data[data.index(b"PK\x01\x02") + 8] |= 1
    write(tmp_path, {"class.zip": bytes(data)})
    ada, bob = found(tmp_path / "class.zip")
    assert ada.problems == ("the file is encrypted",)
    assert bob.readable


def test_damaged_member_does_not_affect_others(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as archive:
        archive.writestr("ada.ipynb", notebook("x = 1"))
        archive.writestr("bob.ipynb", notebook("x = 1"))
    data = (tmp_path / "class.zip").read_bytes()
    (tmp_path / "class.zip").write_bytes(data.replace(b"x = 1", b"x = 2", 1))
    ada, bob = found(tmp_path / "class.zip")
    assert ada.problems == ("the file is damaged or compressed with an unsupported method",)
    assert bob.readable


def test_archive_bombs_are_refused(tmp_path: Path) -> None:
    zeros = bytes(30_000_000)
    write(
        tmp_path,
        {
            "a.zip": zipped({"ada.ipynb": zeros, "bob.ipynb": notebook()}),
            "b.tar.xz": tarred({"cyd.ipynb": zeros}, "w:xz"),
            "c.tgz": gzip.compress(zeros),
        },
    )
    ada, bob, cyd, dora = found(*(tmp_path / name for name in ("a.zip", "b.tar.xz", "c.tgz")))
    assert ada.problems == ("the file would unpack to more than 200 times its compressed size",)
    assert bob.readable
    assert cyd.problems == dora.problems
    assert cyd.problems == ("the archive would unpack to more than 200 times its size",)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_too_many_entries(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    limits = archives.ArchiveLimits(20, math.inf, math.inf)
    packed = pack({f"{i}.ipynb": b"" for i in range(21)})
    with pytest.raises(archives.RefusedFile, match="the archive has more than 20 entries"):
        list(archives.iter_entries(io.BytesIO(packed), limits))


def test_truncated_tar_keeps_its_complete_members(tmp_path: Path) -> None:
    whole = tarred({"ada.ipynb": notebook(), "bob.ipynb": notebook()})
    write(tmp_path, {"class.tar": whole[:1100]})
    broken, ada = found(tmp_path / "class.tar")
    assert "truncated" in broken.problems[0]
    assert (ada.student, ada.readable) == ("ada", True)


CLASS = {"ada/day1.ipynb": notebook(), "bob.zip": zipped({"b.ipynb": notebook()})}


@pytest.mark.slow
@settings(derandomize=True, max_examples=100, deadline=None, database=None)
@given(
    st.sampled_from([pack(CLASS) for _, pack in PACKED]),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=5),
    st.floats(0.3, 1),
)
def test_damaged_archives_never_raise(
    tmp_path_factory: pytest.TempPathFactory,
    archive: bytes,
    changes: list[tuple[float, int]],
    kept: float,
) -> None:
    data = bytearray(archive[: int(kept * len(archive))])
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path_factory.getbasetemp() / "class.zip"
    path.write_bytes(data)
    for submission in found(path):
        assert submission.readable or submission.problems


# ---- names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ada Lovelace", "Ada Lovelace"),
        ("Zoë 王", "Zoë 王"),
        ("a\x1b[31m\n", r"a\x1b[31m\n"),
        ("a\u202eb", r"a\u202eb"),
        (os.fsdecode(b"a\xff"), r"a\xff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert len(printable(text * 1000)) <= 300


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 pages"), (1, "1 page"), (1.0, "1 page"), (2.5, "2.5 pages"), (10**6, "1000000 pages")],
)
def test_numbers_agree_with_their_nouns(number: float, shown: str) -> None:
    assert counted(number, "page") == shown


@pytest.mark.parametrize("name", [b"a\xff.ipynb", b"a\x1b[2J\n.ipynb", "a\u202e.ipynb".encode()])
def test_unprintable_file_names_are_escaped(tmp_path: Path, name: bytes) -> None:
    with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
        file.write(notebook())
    (submission,) = found(tmp_path)
    assert submission.readable
    assert submission.path.isprintable()
    assert submission.student.startswith("a\\")


def test_a_long_path_is_kept_in_full(tmp_path: Path) -> None:
    folder = tmp_path / "/".join(["a" * 200, "b" * 200])
    write(folder, {"day1.ipynb": notebook()})
    (submission,) = found(folder)
    assert submission.path == str(folder / "day1.ipynb")


def test_submissions_are_read_lazily(tmp_path: Path) -> None:
    write(tmp_path, {"ada.ipynb": notebook(), "bob.ipynb": notebook()})
    lazily = read_submissions([tmp_path], "day1", reader())
    assert next(lazily).student == "ada"
    (tmp_path / "bob.ipynb").write_bytes(b"")
    assert next(lazily).problems == ("the file is empty",)


@pytest.mark.parametrize("day", ["day1", "week_1", "Week-1", "hw"])
def test_the_days_own_name_is_never_another_day(day: str) -> None:
    for name in (day, day.upper(), f"{day} (2)", f"Copy of {day}", f"{day}-Copy1"):
        assert file_types.is_day_name(name, day)
        assert not file_types.is_other_day(name, day)


@pytest.mark.parametrize("name", ["week_2", "Week 2", "week2 (1)", "Copy of week-12"])
def test_another_day_has_the_same_name_and_another_number(name: str) -> None:
    assert file_types.is_other_day(name, "week_1")
    assert not file_types.is_day_name(name, "week_1")
