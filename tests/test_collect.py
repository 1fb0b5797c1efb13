"""Test that `nbgrader collect` copies only what students can read, and that no student keeps others from being collected."""

from __future__ import annotations

import fcntl
import logging
import os
import pwd
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
from nbgrader.api import Gradebook
from nbgrader.apps import CollectApp

from autograder.nbgrader_plugin import collect as collecting
from autograder.release import gradebook
from autograder.submissions import origin
from tests.attacks.as_user import as_nobody
from tests.before_opening import as_student, changes
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

ME = pwd.getpwuid(os.getuid()).pw_name
OTHERS = 65533
EVE = "eve+day1+2026-11-01 10:00:00 UTC+x"
SMALL = "--CourseDirectory.max_dir_size=10"  # kB

only_as_root = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can give files to other accounts"
)


class Exchange:
    """An exchange with submissions, and the course of a TA without privileges who collects them."""

    def __init__(self, root: Path, empty_gradebook: Path) -> None:
        self.root = root
        self.inbound = root / "exchange" / "transformers" / "inbound"
        self.submitted = root / "submitted"
        self.inbound.mkdir(parents=True)
        shutil.copy(ROOT / "nbgrader_config.py", root)
        shutil.copy(empty_gradebook, root)
        self.secret = root / "solutions" / "day1.ipynb"
        self.secret.parent.mkdir()
        self.secret.write_text("secret")
        self.secret.chmod(0o600)
        self.give_to_ta(root)
        self.inbound.chmod(0o777)
        (root / "exchange").chmod(0o777)

    def give_to_ta(self, top: Path) -> None:
        for path in (top, *top.rglob("*")):
            if os.getuid() == 0:
                os.chown(path, 65534, 65534)

    def submit(self, student: str, time: str = "10:00:00", text: str = "{}") -> Path:
        folder = self.inbound / f"{student}+day1+2026-11-01 {time} UTC+x"
        (folder / "data").mkdir(parents=True)
        (folder / "day1.ipynb").write_text(text)
        (folder / "data" / "day1.ipynb").write_text("{}")
        (folder / "timestamp.txt").write_text(f"2026-11-01 {time} UTC")
        return folder

    def collect(self, *options: str, level: int = logging.ERROR) -> list[str]:
        """Run `nbgrader collect` and return its errors, or all messages of at least the given level."""
        app = CollectApp(log_level=level)
        messages = _Messages(level)
        app.log.handlers = [messages]
        with as_nobody():
            exchange = f"--Exchange.root={self.root / 'exchange'}"
            app.initialize(["day1", exchange, *options], root=str(self.root))
            app.start()
        return messages.lines

    def collected(self) -> set[str]:
        return {folder.parent.name for folder in self.submitted.glob("*/day1")}

    def notebook(self, student: str) -> str:
        return (self.submitted / student / "day1" / "day1.ipynb").read_text()


class _Messages(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(scope="module")
def empty_gradebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = gradebook.create(tmp_path_factory.mktemp("gradebook"))
    Gradebook(f"sqlite:///{file}", "transformers").close()
    return file


@pytest.fixture
def exchange(tmp_path: Path, empty_gradebook: Path, monkeypatch: pytest.MonkeyPatch) -> Exchange:
    monkeypatch.chdir(tmp_path)  # nbgrader also reads the configuration from the working directory
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    for parent in takewhile(lambda folder: folder != Path(gettempdir()), tmp_path.parents):
        parent.chmod(0o755)
    return Exchange(tmp_path, empty_gradebook)


# ---- changes between listing and opening


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def become_link(path: Path, secret: Path) -> None:
    _remove(path)
    path.symlink_to(secret)


def become_link_to_folder(path: Path, secret: Path) -> None:
    _remove(path)
    path.symlink_to(secret.parent)


def become_hard_link(path: Path, secret: Path) -> None:
    _remove(path)
    path.hardlink_to(secret)


def become_fifo(path: Path, _secret: Path) -> None:
    _remove(path)
    os.mkfifo(path)


def become_folder(path: Path, secret: Path) -> None:
    _remove(path)
    path.mkdir()
    (path / "day1.ipynb").symlink_to(secret)


def move_parent(path: Path, secret: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to(secret.parent)


def vanish(path: Path, _secret: Path) -> None:
    _remove(path)


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("day1.ipynb", become_link),
        ("day1.ipynb", become_link_to_folder),
        ("day1.ipynb", become_fifo),
        ("day1.ipynb", become_folder),
        ("day1.ipynb", vanish),
        ("day1.ipynb", move_parent),
        pytest.param("day1.ipynb", become_hard_link, marks=only_as_root),
        ("data", become_link),
        ("data", become_link_to_folder),
        ("data", become_fifo),
        ("data", vanish),
        ("data/day1.ipynb", move_parent),
        ("", become_link),
        ("", become_link_to_folder),
        ("", become_fifo),
        ("", vanish),
    ],
)
def test_a_change_before_opening_reveals_nothing(
    place: str, change: Callable[[Path, Path], None], exchange: Exchange
) -> None:
    path = exchange.submit("eve") / place
    if place.startswith("data/"):
        (path.parent.parent / "day1.ipynb").unlink()
    changes[path.name] = lambda: change(path, exchange.secret)
    errors = exchange.collect()
    assert not changes  # the change was made
    copied = [path for path in exchange.submitted.rglob("*") if not path.is_dir()]
    assert not [path for path in copied if path.is_symlink() or path.read_text() == "secret"]
    assert len(errors) == (change is not move_parent)  # the parent's new name does not matter
    assert all(error.startswith(f"{EVE} was ") for error in errors)
    exchange.submit("zoe")
    exchange.collect()
    assert "zoe" in exchange.collected()


def test_a_file_that_grows_while_it_is_read_is_too_large(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exchange.submit("eve") / "day1.ipynb"
    read = os.read

    def growing_read(descriptor: int, size: int) -> bytes:
        as_student(lambda: os.truncate(file, file.stat().st_size + 2 * size))
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", growing_read)
    exchange.submit("zoe")
    assert exchange.collect(SMALL) == [f"{EVE} was not collected: it is too large"]
    assert exchange.collected() == {"zoe"}


def test_a_folder_that_vanishes_after_opening_ends_only_its_own_submission(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = exchange.submit("eve") / "data"
    exchange.submit("zoe")
    scandir = os.scandir

    def late_scandir(path: Any) -> Any:
        if isinstance(path, int) and os.readlink(f"/proc/self/fd/{path}") == str(data):
            monkeypatch.setattr(os, "scandir", scandir)
            as_student(lambda: shutil.rmtree(data))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", late_scandir)
    exchange.collect()
    assert "zoe" in exchange.collected()
    assert not data.exists()


def test_a_file_that_grows_after_listing_ends_only_its_own_submission(exchange: Exchange) -> None:
    file = exchange.submit("eve") / "day1.ipynb"
    exchange.submit("zoe")
    changes[file.name] = lambda: os.truncate(file, 1 << 20)
    assert exchange.collect(SMALL) == [f"{EVE} was not collected: it is too large"]
    assert exchange.collected() == {"zoe"}


# ---- trouble that concerns one submission

_leases: list[int] = []


@pytest.fixture
def leases() -> Iterator[None]:
    yield
    while _leases:
        os.close(_leases.pop())


def dangling_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nothing")


def link_to_itself(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.name)


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("{}")


def fifo(folder: Path) -> None:
    shutil.rmtree(folder)
    os.mkfifo(folder)


def unreadable(folder: Path) -> None:
    folder.chmod(0)


def not_searchable(folder: Path) -> None:
    folder.chmod(0o644)


def unreadable_file(folder: Path) -> None:
    (folder / "day1.ipynb").chmod(0)


def unreadable_folder(folder: Path) -> None:
    (folder / "data").chmod(0)


def leased_file(folder: Path) -> None:
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # asks the holder to end the lease
    file = os.open(folder / "day1.ipynb", os.O_RDWR)  # closed by the fixture `leases`
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    _leases.append(file)


def deep_folders(folder: Path) -> None:
    folder.joinpath(*"d" * 300).mkdir(parents=True)


def long_names(folder: Path) -> None:
    inner = os.open(folder, os.O_RDONLY)
    for _ in range(18):
        os.mkdir("n" * 255, dir_fd=inner)
        outer, inner = inner, os.open("n" * 255, os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)


def many_files(folder: Path) -> None:
    for number in range(50):
        (folder / f"{number}.txt").touch()


def many_folders(folder: Path) -> None:
    for number in range(50):
        (folder / str(number % 7) / str(number)).mkdir(parents=True)


def sparse_file(folder: Path) -> None:
    (folder / "zeros").touch()
    os.truncate(folder / "zeros", 1 << 40)


def many_sparse_files(folder: Path) -> None:
    for number in range(20):
        (folder / str(number)).touch()
        os.truncate(folder / str(number), 10_000_000)


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize(
    "trouble",
    [
        dangling_link,
        link_to_itself,
        no_folder,
        fifo,
        unreadable,
        not_searchable,
        unreadable_file,
        unreadable_folder,
        leased_file,
        deep_folders,
        long_names,
        many_files,
        many_folders,
        sparse_file,
        many_sparse_files,
    ],
)
def test_trouble_with_one_submission_keeps_no_other_from_being_collected(
    trouble: Callable[[Path], None], exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "MAX_ENTRIES", 30, raising=False)
    for student in ("ada", "eve", "zoe"):
        exchange.submit(student)
    trouble(exchange.inbound / EVE)
    (error,) = exchange.collect()
    assert error.startswith(f"{EVE} was not collected: ")
    assert "\n" not in error
    assert exchange.collected() == {"ada", "zoe"}
    assert not list(exchange.submitted.glob("eve/*"))


# ---- files that are left out, and modes


def test_links_and_special_files_are_left_out(exchange: Exchange) -> None:
    folder = exchange.submit("eve")
    (folder / "day1.ipynb").unlink()
    (folder / "day1.ipynb").symlink_to(exchange.secret)
    (folder / "data" / "solutions").symlink_to(exchange.secret.parent)
    (folder / "data" / "dangling").symlink_to("nothing")
    os.mkfifo(folder / "data" / "fifo")
    with socket.socket(socket.AF_UNIX) as special:
        special.bind(os.path.relpath(folder / "data" / "socket"))
    (error,) = exchange.collect()
    assert error == (
        f"{EVE} was collected without some files (5): data/dangling is a link, data/fifo is not a regular file, "
        "data/socket is not a regular file, data/solutions is a link, day1.ipynb is a link"
    )
    found = exchange.submitted.rglob("*.*")
    assert {path.name for path in found} == {"timestamp.txt", "day1.ipynb"}
    assert not (exchange.submitted / "eve/day1/day1.ipynb").exists()


@only_as_root
def test_a_hard_link_to_a_file_that_the_student_cannot_read_is_left_out(exchange: Exchange) -> None:
    folder = exchange.submit("eve")
    (folder / "solution.ipynb").hardlink_to(exchange.secret)
    (folder / "own.txt").hardlink_to(folder / "day1.ipynb")
    public = exchange.root / "public.txt"
    public.write_text("public")
    os.chown(public, 65534, 65534)
    (folder / "public.txt").hardlink_to(public)
    (error,) = exchange.collect()
    assert "(1): solution.ipynb belongs to a different account" in error
    found = {path.name for path in (exchange.submitted / "eve/day1").iterdir()}
    assert found == {"data", "day1.ipynb", "own.txt", "public.txt", "timestamp.txt"}


@pytest.mark.parametrize(
    ("shared", "of_file", "of_folder"), [(False, 0o640, 0o750), (True, 0o660, 0o2770)]
)
def test_students_do_not_choose_modes(
    shared: bool, of_file: int, of_folder: int, exchange: Exchange
) -> None:
    folder = exchange.submit("eve")
    for number, mode in enumerate((0o4755, 0o2755, 0o6777, 0o1777, 0o444, 0o600, 0o666)):
        (folder / f"program{number}").write_text("#!/bin/sh")
        (folder / f"program{number}").chmod(mode | 0o044)
        (folder / f"folder{number}").mkdir()
        (folder / f"folder{number}").chmod(mode | 0o055)
    (folder / "data").chmod(0o555)
    (folder / "timestamp.txt").chmod(0o4744)
    folder.chmod(0o7777)
    assert exchange.collect(f"--CourseDirectory.groupshared={shared}") == []
    for path in [exchange.submitted / "eve/day1", *(exchange.submitted / "eve/day1").rglob("*")]:
        status = path.lstat()
        assert stat.S_IMODE(status.st_mode) == (of_folder if path.is_dir() else of_file), path
        assert status.st_uid == (os.getuid() or 65534)


def test_nbgraders_options_for_files_are_used(exchange: Exchange) -> None:
    folder = exchange.submit("eve")
    (folder / "large.txt").write_text("x" * 5_001)
    (folder / "data" / "model.pt").write_text("x")
    for name in ("__pycache__", ".ipynb_checkpoints", "feedback"):
        (folder / name).mkdir()
        (folder / name / "x.txt").touch()
    errors = exchange.collect(
        "--CourseDirectory.max_file_size=5",
        "--CourseDirectory.include=*.ipynb",
        "--CourseDirectory.include=*.txt",
    )
    assert errors == [f"{EVE} was collected without some files (1): large.txt is too large"]
    place = exchange.submitted / "eve/day1"
    found = {str(path.relative_to(place)) for path in place.rglob("*")}
    assert found == {"day1.ipynb", "data", "data/day1.ipynb", "timestamp.txt"}


def test_any_names_of_files_are_collected(exchange: Exchange) -> None:
    folder = exchange.submit("eve")
    names = [b"\xff.ipynb", b"[*?].txt", b"line\nbreak", "日本 語.txt".encode(), b"-rf", b"n" * 255]
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
    assert exchange.collect() == []
    found = {os.fsencode(path.name) for path in (exchange.submitted / "eve/day1").iterdir()}
    assert found == {*names, b"day1.ipynb", b"data", b"timestamp.txt"}


@pytest.mark.parametrize("kind", ["folder", "link", "fifo", "unreadable", "dangling"])
def test_the_students_timestamp_does_not_matter(kind: str, exchange: Exchange) -> None:
    file = exchange.submit("eve") / "timestamp.txt"
    file.unlink()
    match kind:
        case "folder":
            file.mkdir()
        case "link":
            file.symlink_to(exchange.secret)
        case "fifo":
            os.mkfifo(file)
        case "unreadable":
            file.touch(0)
        case "dangling":
            file.symlink_to(exchange.root / "timestamp.txt")
    assert exchange.collect() == []
    text = (exchange.submitted / "eve/day1/timestamp.txt").read_text()
    assert origin.parse_timestamp(text) == datetime(2026, 11, 1, 10, tzinfo=UTC)


# ---- names and owners


@only_as_root
@pytest.mark.parametrize("options", [[], ["--before-duedate"]])
def test_a_folder_of_another_account_does_not_replace_a_students_own(
    options: list[str], exchange: Exchange
) -> None:
    with Gradebook(f"sqlite:///{exchange.root}/gradebook.db", "transformers") as book:
        book.add_assignment("day1", duedate="2026-11-01 10:30:00 UTC")
    exchange.submit(ME, "10:45:00", text="own")
    os.chown(exchange.submit(ME, "11:00:00", "forged, later"), OTHERS, OTHERS)
    os.chown(exchange.submit(ME, "10:15:00", "forged, before the deadline"), OTHERS, OTHERS)
    invalid = exchange.inbound / f"{ME}+day1+soon+x"
    invalid.mkdir()
    os.chown(invalid, OTHERS, OTHERS)
    (exchange.inbound / f"{ME}+day1+2026-11-01 12:00:00 UTC+x").hardlink_to(
        exchange.inbound / f"{ME}+day1+2026-11-01 10:45:00 UTC+x" / "day1.ipynb"
    )
    os.chown(exchange.submit("zoe", text="on a hub with one account"), OTHERS, OTHERS)
    exchange.collect(*options)
    assert exchange.notebook(ME) == "own"
    assert exchange.notebook("zoe") == "on a hub with one account"


@only_as_root
def test_folders_of_the_students_own_accounts_are_collected_first(exchange: Exchange) -> None:
    for number in range(30):
        os.chown(exchange.submit(f"{number}"), OTHERS, OTHERS)
    exchange.submit(ME)
    messages = exchange.collect(level=logging.INFO)
    collected = [each for each in messages if each.startswith("Collecting ")]
    assert len(collected) == 31
    assert collected[0] == f"Collecting {EVE.replace('eve', ME)}"


@only_as_root
def test_a_folder_of_another_account_is_reported(
    exchange: Exchange,
) -> None:
    for student, uid in ((ME, 0), ("daemon", 65534), ("zoe", OTHERS), ("bob", 0)):
        os.chown(exchange.submit(student), uid, uid)
    warnings = exchange.collect(level=logging.WARNING)
    assert {each.partition("+")[0]: each for each in warnings}.keys() == {"daemon", "zoe", "bob"}
    assert all("; cheating attempt? " in each for each in warnings)
    assert "claims to be submitted by daemon but is owned by nobody" in "".join(warnings)
    assert "claims to be submitted by zoe but is owned by unknown id" in "".join(warnings)
    assert exchange.collect("--ExchangeCollect.check_owner=False", level=logging.WARNING) == []


def test_an_invalid_name_keeps_no_other_folder_from_being_collected(exchange: Exchange) -> None:
    exchange.submit(ME, text="own")
    exchange.submit("o'brien+1@example.org")
    for name in (f"{ME}+day1+soon+x", "eve+day1+2026-99-99+x"):
        (exchange.inbound / name).mkdir()
    invalid = [
        "..",
        "",
        '";alert(1);"',
        "<img src=x onerror=alert(1)>",
        "\x1b[31m",
        "*",
        "a?a",
        "[a]da",
        "ada]",
        "\udcff",
        "a\u202eda",
    ]
    for student in invalid:
        exchange.submit(student)
    errors = exchange.collect()
    assert exchange.collected() == {ME, "o'brien+1@example.org"}
    assert not (exchange.root / "day1").exists()
    assert exchange.notebook(ME) == "own"
    assert len(errors) == len(invalid)  # without "..", which is hidden, and with 2026-99-99
    assert all(error.endswith(" was not collected: its name is invalid") for error in errors)
    assert all(error.isprintable() for error in errors)


# ---- newer submissions


def test_the_newest_submission_is_collected(exchange: Exchange) -> None:
    for time in ("10:00:00", "12:00:00", "11:00:00"):
        exchange.submit(ME, time, time)
    assert exchange.collect() == []
    assert exchange.notebook(ME) == "12:00:00"


def test_only_an_update_replaces_an_older_submission(exchange: Exchange) -> None:
    exchange.submit("eve", text="first")
    exchange.collect()
    exchange.submit("eve", "11:00:00", text="second")
    assert exchange.collect() == []
    assert exchange.notebook("eve") == "first"
    assert exchange.collect("--update") == []
    assert exchange.notebook("eve") == "second"
    (exchange.submitted / "eve/day1/day1.ipynb").write_text("changed by the TA")
    assert exchange.collect("--update") == []
    assert exchange.notebook("eve") == "changed by the TA"
    assert os.listdir(exchange.submitted / "eve") == ["day1"]


@pytest.mark.parametrize("text", ["soon", "", None, "\xff", "2026-11-01 09:00:00 UTC"])
def test_earlier_copies_do_not_keep_submissions_from_being_updated(
    text: str | None, exchange: Exchange
) -> None:
    """Earlier versions kept the modes and the times that students chose."""
    for student in ("ada", "eve", "zoe"):
        exchange.submit(student)
    exchange.collect()
    earlier = exchange.submitted / "eve/day1"
    (earlier / "timestamp.txt").unlink()
    if text is not None:
        (earlier / "timestamp.txt").write_bytes(text.encode("latin-1"))
    (earlier / "data" / "inner").mkdir()
    (earlier / "data" / "inner" / "file.txt").touch()
    exchange.give_to_ta(earlier)
    for folder in ("data/inner", "data", ""):
        (earlier / folder).chmod(0o555)
    for student in ("ada", "eve", "zoe"):
        exchange.submit(student, "11:00:00", text="second")
    assert exchange.collect("--update") == []
    assert [exchange.notebook(student) for student in ("ada", "eve", "zoe")] == ["second"] * 3
    assert os.listdir(exchange.submitted / "eve") == ["day1"]


def test_a_submission_that_cannot_be_copied_does_not_replace_an_earlier_one(
    exchange: Exchange,
) -> None:
    exchange.submit("eve", text="first")
    exchange.collect()
    (exchange.submit("eve", "11:00:00") / "data").chmod(0)
    (error,) = exchange.collect("--update")
    name = EVE.replace("10:00", "11:00")
    assert error == f"{name} was not collected: data: Permission denied"
    assert exchange.notebook("eve") == "first"
    assert os.listdir(exchange.submitted / "eve") == ["day1"]
