"""Release, submit, grade and return a day on a real JupyterHub with two local users. `make hub` installs what it needs.

As root, it creates two accounts and removes them. The students use nbgrader's assignment list on their own servers, which run
in an environment without this course: the folder in the environment variable HUB.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests import released_course
from tests.small_course import RIGHT, WRONG, command

HUB = os.environ.get("HUB", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not HUB or os.getuid() != 0, reason="needs root and JupyterHub; run `make hub`"
    ),
]
SECONDS = 120  # for a server to start
WORKS = {"autograder-ada": RIGHT, "autograder-ben": WRONG}
POINTS = {"autograder-ada": 100.0, "autograder-ben": 60.0}
EXCHANGE = """
c.CourseDirectory.course_id = "transformers"
c.Exchange.root = "{folder}/exchange"
"""
CONFIGURATION = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.ConfigurableHTTPProxy.command = ["{hub}/node_modules/.bin/configurable-http-proxy"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.pid_file = "{folder}/proxy.pid"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allowed_users = {users}
c.Spawner.cmd = ["{hub}/bin/python", "-m", "jupyterhub.singleuser"]
c.Spawner.environment = {{"JUPYTER_CONFIG_PATH": "{folder}/jupyter"}}
c.JupyterHub.services = [{{"name": "test", "api_token": "{token}"}}]
scopes = ["admin:servers", "access:servers"]
c.JupyterHub.load_roles = [{{"name": "test", "scopes": scopes, "services": ["test"]}}]
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


class Hub:
    """A running JupyterHub. `folder` also contains the exchange and the accounts' home folders."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._token = folder, secrets.token_hex(16)
        ports = {"port": free_port(), "hub_port": free_port(), "api_port": free_port()}
        self._url = f"http://127.0.0.1:{ports['port']}"
        (folder / "exchange").mkdir()
        (folder / "exchange").chmod(0o777)
        (folder / "jupyter").mkdir()
        (folder / "jupyter/nbgrader_config.py").write_text(EXCHANGE.format(folder=folder))
        settings = {"folder": folder, "hub": HUB, "users": {*WORKS}, "token": self._token}
        (folder / "jupyterhub_config.py").write_text(CONFIGURATION.format(**settings, **ports))
        for user in WORKS:
            home = ("--create-home", "--home-dir", folder / user)
            subprocess.run(["useradd", "--shell", "/bin/sh", *home, user], check=True)
            stack.callback(subprocess.run, ["userdel", user], check=True)
        with (folder / "hub.log").open("w") as log:
            run = [f"{HUB}/bin/python", "-m", "jupyterhub"]
            hub = subprocess.Popen(run, cwd=folder, stdout=log, stderr=log)
        stack.callback(hub.wait, SECONDS)
        stack.callback(hub.terminate)  # stops the students' servers, too
        self.wait_for("/hub/api")

    def send(self, path: str, method: str = "GET", body: dict[str, Any] | None = None) -> Any:
        """Send a request to the hub or, under /user/NAME, to a student's server. Return the reply."""
        request = urllib.request.Request(self._url + path, method=method)
        request.add_header("Authorization", f"token {self._token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            return json.loads(reply.read() or b"null")

    def wait_for(self, path: str) -> None:
        """Wait until a request succeeds."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError):
                self.send(path)
                return
            time.sleep(0.5)
        pytest.fail((self.folder / "hub.log").read_text())

    def click(self, user: str, action: str) -> None:
        """Do what a button in nbgrader's assignment list does."""
        query = "course_id=transformers&assignment_id=day1"
        reply = self.send(f"/user/{user}/assignments/{action}?{query}", "POST")
        assert reply["success"], reply


@pytest.fixture
def hub() -> Iterator[Hub]:
    # Other users cannot open pytest's temporary folders.
    with tempfile.TemporaryDirectory(prefix="hub-") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        yield Hub(Path(folder), stack)


def test_feedback_returns_to_the_students_who_submitted_on_a_hub(hub: Hub) -> None:
    course = released_course.make(hub.folder / "course")
    course.chmod(0o700)

    def run(program: str, *arguments: str) -> None:
        settings = {"JUPYTER_CONFIG_PATH": str(hub.folder / "jupyter")}
        done = command(course, *arguments, program=program, **settings)
        assert done.returncode == 0, done.stdout + done.stderr

    run("autograder", "build")
    run("nbgrader", "release_assignment", "day1")
    for user, work in WORKS.items():
        hub.send(f"/hub/api/users/{user}/server", "POST")
        hub.wait_for(f"/user/{user}/api/status")
        hub.click(user, "fetch")
        notebook = f"/user/{user}/api/contents/day1/day1.ipynb"
        fetched = nbformat.from_dict(hub.send(notebook)["content"])
        assert "padding_mask" in nbformat.writes(fetched)
        fetched.cells.append(nbformat.v4.new_code_cell(work))
        hub.send(notebook, "PUT", {"type": "notebook", "format": "json", "content": fetched})
        hub.click(user, "submit")
    run("nbgrader", "collect", "day1")
    run("autograder", "grade", "day1")
    run("nbgrader", "generate_feedback", "day1")
    run("nbgrader", "release_feedback", "day1")
    for user, points in POINTS.items():
        hub.click(user, "fetch_feedback")
        (page,) = (hub.folder / user).glob("day1/feedback/*/day1.html")
        assert f"(Score: {points} / 100.0)" in page.read_text()
        assert page.owner() == user
