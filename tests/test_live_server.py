"""Test that the live board's server shows students' text safely and refuses requests that are not from its own pages."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from tornado.iostream import IOStream

from autograder.course.files import FileError
from autograder.live import board, server, watching
from autograder.live.pages import anonymous
from autograder.live.timeline import Timeline
from tests import small_course
from tests.fake_grading import book
from tests.live_room import START_CODE, FakeRoom, marks, update
from tests.material import HOSTILE, Page
from tests.test_submission import notebook

TOKEN = "t0ken"
EVENTS = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
HOSTILE_NAME = "<img src=x onerror=alert(1)>"


class Answer(NamedTuple):
    status: int
    head: str
    body: str


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRoom]:
    monkeypatch.setattr(watching, "STABLE", 0.0)
    monkeypatch.setattr(board, "REST", 0)
    root = small_course.make(tmp_path / "course")
    with Timeline(root, "day1") as events:
        yield FakeRoom(root, events)


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def ask(port: int, path: str, post: str = "", **headers: str) -> Answer:
    """Send a request, a POST if there is a body, and return the answer."""
    fields = {"Host": f"localhost:{port}", "Connection": "close", **headers}
    if post:
        fields |= {"Content-Type": "application/x-www-form-urlencoded"}
        fields |= {"Content-Length": str(len(post))}
    lines = [f"{'POST' if post else 'GET'} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    stream, out = await asyncio.open_connection("127.0.0.1", port)
    out.write("\r\n".join([*lines, "", post]).encode())
    data = (await stream.read()).decode()
    out.close()
    head, _, body = data.partition("\r\n\r\n")
    return Answer(int(head.split()[1]), head, body)


def served(room: FakeRoom, play: Callable[[int], Awaitable[None]], ta: str = TOKEN) -> None:
    """Serve a room's pages and run `play` with the port."""

    async def run() -> None:
        port = free_port()
        running = server.serve(room.pages, "127.0.0.1", port, "", ta)
        try:
            await play(port)
        finally:
            running.stop()
            await running.close_all_connections()

    asyncio.run(run())


def test_the_room_sees_no_names_and_the_tas_do(room: FakeRoom) -> None:
    room.save("ada-lovelace", book(20))
    room.grade()

    async def play(port: int) -> None:
        page = await ask(port, "/")
        assert page.status == 200
        assert "padding_mask" in page.body
        assert "lovelace" not in page.body + (await ask(port, "/part")).body
        assert "default-src 'none'; script-src 'self'" in page.head
        assert "ada-lovelace" in (await ask(port, f"/ta?token={TOKEN}")).body
        answer = await ask(port, f"/ta/1/padding_mask?token={TOKEN}")
        assert "ada-lovelace" in answer.body
        for file in ("/live.css", "/live.js"):
            assert (await ask(port, file)).status == 200

    served(room, play)


def test_wrong_tokens_hosts_origins_and_paths_are_refused(room: FakeRoom) -> None:
    room.save("ada", book(20))
    room.grade()

    async def play(port: int) -> None:
        own = f"http://localhost:{port}"
        body = f"token={TOKEN}&action=help&student=1"
        requests = {
            "/ta": 403, "/ta?token=": 403, "/ta?token=wrong": 403, "/ta/part": 403, "/ta/events": 403,
            "/ta/1/padding_mask": 403, f"/ta/9/padding_mask?token={TOKEN}": 404,
            f"/ta/1/..%2f..%2fsecret?token={TOKEN}": 404, "/../../etc/passwd": 404,
            "/live.css/../../board.py": 404, "/%2e%2e/board.py": 404,
        }  # fmt: skip
        for path, status in requests.items():
            assert (await ask(port, path)).status == status, path
        assert (await ask(port, "/", Host="evil.example")).status == 403
        assert (await ask(port, "/", Host="127.0.0.1:1")).status == 200
        for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            assert (await ask(port, "/ta/act", body, **origin)).status == 403
        guess = await ask(port, "/ta/act", "token=guess&action=help&student=1", Origin=own)
        assert guess.status == 403
        assert room.pages.helped == {}
        assert (await ask(port, "/ta/act", body, Origin=own)).status == 303
        assert [*room.pages.helped] == [1]
        large = await ask(port, "/ta/act", "x" * 50_000, Origin=own)
        assert large.status == 400

    served(room, play)


def test_without_names_there_is_no_page_for_tas(room: FakeRoom) -> None:
    async def play(port: int) -> None:
        for path in ("/ta", "/ta?token=", "/ta/events?token="):
            assert (await ask(port, path)).status == 404

    served(room, play, ta="")


def test_other_machines_need_a_token(room: FakeRoom) -> None:
    with pytest.raises(ValueError, match="needs a token"):
        server.serve(room.pages, "0.0.0.0", free_port(), "", "")

    async def play() -> None:
        port = free_port()
        running = server.serve(room.pages, "0.0.0.0", port, "s3cret", "")
        assert (await ask(port, "/")).status == 403
        assert (await ask(port, "/events")).status == 403
        assert (await ask(port, "/?token=s3cret")).status == 200
        running.stop()

    asyncio.run(play())


def test_a_port_in_use_is_named(room: FakeRoom) -> None:
    async def play(port: int) -> None:
        with pytest.raises(FileError, match=f"port {port} .* cannot be used"):
            server.serve(room.pages, "127.0.0.1", port, "", "")

    served(room, play)


def test_names_notebooks_and_large_cells_cannot_inject_scripts(room: FakeRoom) -> None:
    source = "# points: 20\ndef padding_mask():\n    '''</script><script>alert(1)</script>'''\n"
    room.save(HOSTILE_NAME, notebook(source))
    room.save("large", notebook(source + "#" * 10_000_000))
    room.save("<script>alert(2)<", b"{")
    asyncio.run(room.step())
    for number, text in enumerate(HOSTILE):
        update(room.board.room, 0, f"h{number}", marks(room.day, "failed", "passed", mistake=text))
        update(room.board.room, 0, f"i{number}", marks(room.day, "failed", "passed", mistake=text))
        room.board.students.setdefault(f"h{number}", board.Student(text)).problem = text

    async def play(port: int) -> None:
        for path in ("/", f"/ta?token={TOKEN}", f"/ta/1/padding_mask?token={TOKEN}"):
            page = await ask(port, path)
            assert page.status == 200
            found = Page(page.body)
            assert found.tags.count("script") == 1, path
            assert not {"img", "b", "iframe", "object"} & {*found.tags}
            names = [name for name, _ in found.attributes]
            assert not [n for n in names if n.startswith("on") or n == "autofocus"]

    served(room, play)


def test_an_answer_is_shown_without_names_comments_and_strings(room: FakeRoom) -> None:
    room.save("ada", book(20))
    room.grade()
    room.board.students["folder ada"].marks = marks(room.day, "failed", "passed", code=START_CODE)

    async def play(port: int) -> None:
        own = f"http://localhost:{port}"
        preview = await ask(port, f"/ta/1/padding_mask?token={TOKEN}")
        assert "Show it to everybody" in preview.body
        show = f"token={TOKEN}&action=show&student=1&exercise=padding_mask"
        assert (await ask(port, "/ta/act", show, Origin=own)).status == 303
        page = (await ask(port, "/")).body
        assert "return x + 1" in page
        for private in ("Ada", "Lovelace", "secret"):
            assert private not in page
        hide = f"token={TOKEN}&action=hide"
        await ask(port, "/ta/act", hide, Origin=own)
        assert "return x + 1" not in (await ask(port, "/")).body

    served(room, play)
    assert room.pages.shown is None
    assert room.pages.public(1, "split_heads") is None


def test_code_that_cannot_be_made_anonymous_is_not_shown() -> None:
    assert anonymous("x = 'a'  # b") == "x = '…'"
    assert anonymous("f'{x} Ada'") == ""
    for code in ("def f(:", "x = 1\n" * 1000, "(" * 900, "\0"):
        assert anonymous(code) == ""


def test_five_viewers_get_updates(room: FakeRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "COALESCE", 0.01)

    async def play(port: int) -> None:
        viewers = []
        for _ in range(5):
            stream, out = await asyncio.open_connection("127.0.0.1", port)
            out.write(EVENTS)
            await stream.readuntil(b"data: changed\n\n")
            viewers.append((stream, out))
        room.save("ada", book(20))
        await room.step()
        for stream, _ in viewers:
            await asyncio.wait_for(stream.readuntil(b"data: changed\n\n"), 5)
            assert "+1" in (await ask(port, "/part")).body
        for _, out in viewers:
            out.close()

    served(room, play)


def test_a_viewer_that_reads_nothing_is_disconnected(
    room: FakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    monkeypatch.setattr(server, "COALESCE", 0)
    monkeypatch.setattr(server, "REFRESH", 0)
    gone, detach = asyncio.Event(), server._Events.detach

    def detach_and_tell(events: server._Events) -> IOStream:
        gone.set()
        return detach(events)

    monkeypatch.setattr(server._Events, "detach", detach_and_tell)

    async def play(port: int) -> None:
        with socket.socket() as viewer:
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            viewer.connect(("127.0.0.1", port))
            viewer.sendall(EVENTS)
            await asyncio.wait_for(gone.wait(), 60)
        assert (await ask(port, "/part")).status == 200

    served(room, play)
