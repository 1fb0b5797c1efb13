"""Test that one student's files share one budget, and that several students' files are read at the same time."""

from __future__ import annotations

import base64
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from autograder.submissions import reader_client
from autograder.submissions.reader_client import FileReader, Reader, ReadError, StudentBudget
from autograder.submissions.submission import Submission, read_submissions
from tests.test_submission import chosen, found, notebook, tarred, write, zipped

pytestmark = pytest.mark.slow

RIGHT = notebook("def softmax(x, dim=-1):\n    return x\n")
MANY = {f"{number}.txt": b"" for number in range(30_000)} | {"random": os.urandom(200_000)}


def mixed(text: bytes, count: int) -> bytes:
    """Repeat a text. Mix in random digits, because archives are not read if they shrink by a factor of more than 200."""
    return b"".join(text * 1_000 + b"%d" % random.getrandbits(300) for _ in range(count))


def cell(source: bytes) -> bytes:
    """Return a notebook with one cell, whose source is given as JSON."""
    return b'{"cells": [{"cell_type": "code", "source": ' + source + b"}]}"


# Each of these files takes at least 0.1 s of CPU time.
SLOW: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty lines": ("py", lambda: b"<<<<<<< a\n" + mixed(b"\n", 10_000)),
    "empty lines in a zip archive": (
        "zip",
        lambda: zipped({"a.ipynb": b"<<<<<<< a\n" + mixed(b"\n", 10_000)}),
    ),
    "many keys": ("ipynb", lambda: b"{" + b",".join(b'"%d":1' % n for n in range(400_000))),
    "many numbers": ("ipynb", lambda: cell(b"[" + mixed(b"1,", 3_000) + b"]")),
    "many surrogates": ("ipynb", lambda: cell(b'"' + mixed(b"\\ud800", 2_000) + b'"')),
    "many entries": ("zip", lambda: zipped({"a.ipynb": notebook(), **MANY})),
    "a compressed tar archive": ("tar.xz", lambda: tarred({"a.ipynb": notebook(), **MANY}, "w:xz")),
}


@pytest.mark.parametrize("in_archive", [False, True], ids=["in a folder", "in a class archive"])
@pytest.mark.parametrize(("ending", "make"), SLOW.values(), ids=SLOW)
def test_a_students_slow_files_share_one_limit(
    ending: str,
    make: Callable[[], bytes],
    in_archive: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_client, "STUDENT_SECONDS", 0.4)
    slow = make()
    files = {f"class/ada/{n}.{ending}": slow for n in range(8)}
    files |= {"class/ada/-.ipynb": RIGHT, "class/bob/a.ipynb": RIGHT}
    if in_archive:
        files = {"class.zip": zipped(files)}
    write(tmp_path, files)
    ada, bob = chosen(tmp_path / ("class.zip" if in_archive else "class"))
    assert (ada.readable, bob.readable, bob.problems) == (True, True, ())
    assert "-.ipynb (1 exercise filled in)" in ada.problems[0]
    candidates = found(tmp_path / ("class.zip" if in_archive else "class"))
    late = [one for one in candidates if not one.readable and one.student == "ada"]
    reasons = [one.problems[0] for one in late]
    assert sum("more than 0.4 s of CPU time in total" in reason for reason in reasons) >= 3


@pytest.mark.parametrize("in_archive", [False, True], ids=["in a folder", "in a class archive"])
@pytest.mark.parametrize(
    ("name", "limit", "reason"),
    [
        ("STUDENT_BYTES", 1_600_000, "files are too large (limit: 1,600,000 bytes in total)"),
        ("STUDENT_TEXT", 800_000, "contain too much text (limit: 800,000 bytes in total)"),
    ],
)
def test_a_students_files_share_limits_on_their_size(
    name: str,
    limit: int,
    reason: str,
    in_archive: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_client, name, limit)
    large = notebook(f"# {os.urandom(150_000).hex()}")
    files = {f"class/{who}/{n}.ipynb": large for who in ("ada", "bob") for n in range(6)}
    if in_archive:
        files = {"class.zip": zipped(files)}
    write(tmp_path, files)
    submissions = found(tmp_path / ("class.zip" if in_archive else "class"))
    for who in ("ada", "bob"):
        readable = [one.readable for one in submissions if one.student == who]
        assert 1 <= readable.count(True) < 6
        assert readable == sorted(readable, reverse=True)
    assert all(reason in one.problems[0] for one in submissions if not one.readable)


# ---- honest submissions


@cache
def with_pictures() -> bytes:
    """Return a notebook whose outputs contain pictures with 20 MB."""
    pictures = [base64.b64encode(os.urandom(2_500_000)).decode() for _ in range(6)]
    data = json.loads(RIGHT)
    data["cells"] += [
        {
            "cell_type": "code",
            "source": "plot()",
            "outputs": [{"output_type": "display_data", "data": {"image/png": picture}}],
        }
        for picture in pictures
    ]
    return json.dumps(data, indent=1).encode()


@pytest.mark.parametrize("ending", ["", ".tar"], ids=["in a folder", "in an archive"])
def test_ten_large_notebooks_are_read(ending: str, tmp_path: Path) -> None:
    files = {f"{n}.ipynb": with_pictures() for n in range(10)}
    folder = {f"ada/{name}": data for name, data in files.items()}
    write(tmp_path / "class", {"ada.tar": tarred(files)} if ending else folder)
    write(tmp_path / "class", {"bob.ipynb" if ending else "bob/day1.ipynb": RIGHT})
    ada, bob = chosen(tmp_path / "class")
    assert ada.readable
    assert ada.problems[0].startswith("10 files were submitted; graded: 0.ipynb")
    assert "unreadable" not in ada.problems[0]
    assert bob.readable


def test_a_large_truncated_notebook_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"ada.ipynb": with_pictures()[:-10_000]})
    (ada,) = found(tmp_path)
    assert ada.readable
    assert "truncated" in ada.problems[0]


# ---- several students at the same time


@pytest.fixture(scope="module")
def readers() -> Iterator[Reader]:
    with Reader(jobs=3) as several:
        yield several


def test_several_students_are_read_at_the_same_time_and_in_order(readers: Reader) -> None:
    together = threading.Barrier(3)

    def task(number: int) -> Callable[[FileReader, StudentBudget], tuple[int, FileReader]]:
        def read(reader: FileReader, budget: StudentBudget) -> tuple[int, FileReader]:
            if number < 3:
                together.wait(30)
            return number, reader

        return read

    results = list(readers.map(task(number) for number in range(8)))
    assert [number for number, _ in results] == list(range(8))
    assert len({id(reader) for _, reader in results[:3]}) == 3


def test_the_number_of_jobs_does_not_change_what_is_read(readers: Reader, tmp_path: Path) -> None:
    files = {f"{who}/{n}.ipynb": notebook(f"{who}{n}") for who in "abcdefgh" for n in range(2)}
    files |= {
        "i/a.zip": zipped({"x.ipynb": RIGHT, "y.py": b"y = 1\n"}),
        "j.ipynb": b"",
        "k.py": b"1",
    }
    files |= {"l.zip": b"PK\x03\x04", "m/notes.txt": b"x"}
    write(tmp_path / "class", files)
    write(tmp_path, {"class.zip": zipped({f"class/{name}": data for name, data in files.items()})})
    paths = [
        tmp_path / "class",
        tmp_path / "class.zip",
        tmp_path / "missing",
        tmp_path / "class/k.py",
    ]
    one_by_one = found(*paths)
    assert list(read_submissions(paths, "day1", readers)) == one_by_one
    assert len(one_by_one) > 30


def test_reading_that_is_no_longer_needed_ends(readers: Reader, tmp_path: Path) -> None:
    slow = b"{" + b",".join(b'"%d":1' % n for n in range(8_000_000))
    write(tmp_path, {"ada.ipynb": RIGHT, **{f"eve{n}.py": slow for n in range(4)}})
    lazily: Iterator[Submission] = read_submissions([tmp_path], "day1", readers)
    assert next(lazily).student == "ada"
    started = time.monotonic()
    lazily.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 5  # reading takes longer, even on an idle machine
    (again,) = read_submissions([tmp_path / "ada.ipynb"], "day1", readers)
    assert again.readable


def test_an_error_in_one_task_ends_the_others(readers: Reader) -> None:
    def fails(reader: FileReader, budget: StudentBudget) -> None:
        raise ReadError("broken")

    with pytest.raises(ReadError, match="broken"):
        list(readers.map([fails] * 10))
    assert list(readers.map([lambda reader, budget: 1])) == [1]
