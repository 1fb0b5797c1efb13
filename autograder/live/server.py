"""Serve the board's pages with tornado, which Jupyter installs. Entry point: `serve`.

What students wrote is hostile: it appears only in escaped text, and the content security policy forbids all scripts except the
board's own. Web sites that a TA visits are hostile, too: the `Host` and `Origin` headers are checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from autograder.course.files import FileError
from autograder.grading import internal_errors
from autograder.live.pages import Pages

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
TYPES = {"live.css": "text/css", "live.js": "text/javascript"}
LOOPBACK = ("127.0.0.1", "::1", "localhost")  # addresses that only this machine can reach
REFRESH = 10.0  # seconds after which the times on a page are updated
COALESCE = 0.5  # seconds between two updates of a page
PATIENCE = 30.0  # seconds after which a viewer that reads nothing is disconnected


class _Handler(RequestHandler):
    """A request, which must contain `token`. `area` is "room" or "ta"."""

    def initialize(self, pages: Pages, hosts: Sequence[str], area: str, token: str) -> None:
        self.pages, self.hosts, self.area, self.token = pages, hosts, area, token

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse requests that do not come from one of the board's own pages, or that lack the token."""
        host = urlsplit(f"//{self.request.host}").hostname or ""
        try:
            ipaddress.ip_address(host)  # only names can be rebound to this machine's address
        except ValueError:
            if host not in self.hosts:
                raise HTTPError(403) from None
        given = self.get_argument("token", "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise HTTPError(403)
        own = f"{self.request.protocol}://{self.request.host}"
        if self.request.method == "POST" and self.request.headers.get("Origin") != own:
            raise HTTPError(403)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", "text/plain")
        self.finish(f"{status_code}: open the address that `autograder live` printed\n")

    def log_exception(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error and not isinstance(error, HTTPError | StreamClosedError):
            internal_errors.log(self.pages.root, "showing the live board", error)


class _Page(_Handler):
    def get(self, part: str) -> None:
        template = f"{self.area}.html" if part else f"{self.area}_page.html"
        render = self.pages.room if self.area == "room" else self.pages.assistant
        self.finish(render(template, self.token))


class _Answer(_Handler):
    def get(self, number: str, exercise: str) -> None:
        page = self.pages.answer(int(number), exercise, self.token)
        if page is None:
            raise HTTPError(404)
        self.finish(page)


class _Action(_Handler):
    def post(self) -> None:
        pages, action = self.pages, self.get_argument("action")
        number = int(self.get_argument("student", "0"))
        if action == "help":
            pages.helped[number] = pages.board.now()
        elif action == "leave":
            pages.helped.pop(number, None)
        elif action == "show":
            pages.shown = pages.public(number, self.get_argument("exercise"))
        elif action == "hide":
            pages.shown = None
        pages.board.notify()
        self.redirect(f"/ta?token={self.token}", status=303)


class _Events(_Handler):
    async def get(self) -> None:
        """Send an event whenever the page changes. Each event replaces those that the viewer has not read."""
        self.set_header("Content-Type", "text/event-stream")
        with contextlib.suppress(StreamClosedError, asyncio.CancelledError):
            while True:
                changed = self.pages.board.changed
                self.write("data: changed\n\n")
                try:
                    await asyncio.wait_for(self.flush(), PATIENCE)
                except TimeoutError:
                    self.detach().close()
                    return
                await asyncio.sleep(COALESCE)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), REFRESH)


class _File(_Handler):
    def get(self, name: str) -> None:
        self.set_header("Content-Type", TYPES[name])
        self.finish(self.pages.files[name])


def serve(pages: Pages, host: str, port: int, room_token: str, ta_token: str) -> HTTPServer:
    """Start to serve the pages. Raises FileError if the port cannot be used.

    Without `ta_token`, there are no TA's pages. Without `room_token`, everyone who can connect sees the room's page.
    """
    if not (room_token or host in LOOPBACK):
        raise ValueError("the room's page needs a token if other machines can connect")
    hosts = ("localhost", host, socket.gethostname(), socket.getfqdn())
    room = {"pages": pages, "hosts": hosts, "area": "room", "token": room_token}
    routes: list[Any] = [
        (r"/(part)?", _Page, room),
        (r"/events", _Events, room),
        (r"/(live\.css|live\.js)", _File, {**room, "token": ""}),
    ]
    if ta_token:
        ta = {**room, "area": "ta", "token": ta_token}
        routes += [
            (r"/ta(/part)?", _Page, ta),
            (r"/ta/events", _Events, ta),
            (r"/ta/(\d{1,9})/(\w{1,100})", _Answer, ta),
            (r"/ta/act", _Action, ta),
        ]
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        raise FileError(
            f"port {port} of {host} cannot be used: {error.strerror}. Is another board running? Choose one with --port"
        ) from None
    server = HTTPServer(
        Application(routes, log_function=lambda _: None),
        max_body_size=10_000, max_header_size=20_000, idle_connection_timeout=60,
    )  # fmt: skip
    server.add_sockets(sockets)
    return server
