"""Provide targets outside the sandbox (a course with canaries, and sockets) and detect how attacks affect them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import select
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
# A killed process exits within this time. A process that an attack leaves behind runs longer.
EXIT_SECONDS = 5.0


class Outside:
    """A context manager that creates a copy of the course and listening sockets as targets for attacks."""

    def __init__(self, canary: str) -> None:
        self.canary = canary
        self.secret = canary.encode()
        self.name = "x" + secrets.token_hex(5)
        # Keys of System V objects are shared by all processes, and several runs may take place at the same time.
        self._key = 1 + secrets.randbits(30)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self.root = Path(self._folder.name)
        self.root.chmod(0o777)
        self._course()
        self._files = self._state()
        self._times: dict[str, int] = {}
        self._signals = 0
        self._processes: set[str] = set()
        signal.signal(signal.SIGUSR1, self._signalled)
        self._listen()
        # A carelessly started process would inherit this descriptor.
        self._held = os.open(self.root / ".autograder" / "secret", os.O_RDONLY)
        os.set_inheritable(self._held, True)
        self._in_memory = ctypes.create_string_buffer(self.secret)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        os.close(self._held)
        for listener in self._listeners:
            listener.close()
        self._folder.cleanup()

    def _course(self) -> None:
        for name in ("solutions", "graders", "mistakes"):
            shutil.copytree(ROOT / name, self.root / name)
        shutil.copy(ROOT / "grading.toml", self.root)
        for path in (
            self.root / "grading.toml",
            self.root / "graders" / "day1" / "test_masking.py",
            self.root / "solutions" / "day1" / "masking.py",
        ):
            path.write_text(
                f"{path.read_text(encoding='utf-8')}\n# {self.canary}\n", encoding="utf-8"
            )
        mistakes = self.root / "mistakes" / "day1" / "causal_mask.md"
        # Add the canary to the last diff, because a file of known mistakes must end with a code block.
        text = mistakes.read_text(encoding="utf-8").removesuffix("```\n")
        mistakes.write_text(f"{text}+# {self.canary}\n```\n", encoding="utf-8")
        for name in (
            *(
                ".autograder/secret",
                ".git/ORIG_HEAD",
                "gradebook.db",
                "submitted/bob/day1/day1.ipynb",
            ),
            *("readable", "writable"),
        ):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.canary)
            path.chmod(0o666)
            path.parent.chmod(0o777)

    def _listen(self) -> None:
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._udp = socket.socket(type=socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        self._abstract = socket.socket(socket.AF_UNIX)
        self._abstract.bind(f"\0{self.name}")
        self._abstract.listen()
        self._path = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._path.bind(str(self.root / "datagrams"))
        self._stream = socket.socket(socket.AF_UNIX)
        self._stream.bind(str(self.root / "stream"))
        self._stream.listen()
        for name in ("datagrams", "stream"):
            (self.root / name).chmod(0o777)
        self._listeners = [self._tcp, self._udp, self._abstract, self._path, self._stream]
        for listener in self._listeners:
            listener.setblocking(False)

    def targets(self) -> dict[str, Any]:
        """Return the paths, ports and addresses that attacks target. None of these values contains a canary."""
        return {
            "root": str(self.root),
            "grader": str(self.root / "graders" / "day1" / "test_masking.py"),
            "mistake": str(self.root / "mistakes" / "day1" / "causal_mask.md"),
            "solution": str(self.root / "solutions" / "day1" / "masking.py"),
            "secret": str(self.root / ".autograder" / "secret"),
            "gradebook": str(self.root / "gradebook.db"),
            "neighbour": str(self.root / "submitted" / "bob" / "day1" / "day1.ipynb"),
            "readable": str(self.root / "readable"),
            "writable": str(self.root / "writable"),
            "tcp": self._tcp.getsockname()[1],
            "udp": self._udp.getsockname()[1],
            "abstract": f"\0{self.name}",
            "stream": str(self.root / "stream"),
            "datagrams": str(self.root / "datagrams"),
            "process": os.getpid(),
            "descriptor": self._held,
            "address": ctypes.addressof(self._in_memory),
            "length": len(self.secret),
            "name": self.name,
            "key": self._key,
        }

    # ---- effects

    def seen(self) -> list[str]:
        """Return the names (keys of `suite.EFFECTS`) of all effects since the last call, and undo these effects."""
        happened: dict[str, Callable[[], bool]] = {
            "changes": self._has_changes,
            "connects": self._has_connections,
            "signals": self._has_signals,
            "survives": self._has_survivors,
            "remains": self._has_remains,
        }
        return [name for name, check in happened.items() if check()]

    def leaks(self, text: str) -> bool:
        """Return whether a string contains any text that should occur only in hidden files."""
        hidden = (
            self.canary,
            "root:x:0:0",
            "Hidden tests for",
            "autograder.execution.checks",
            "graders.day",
        )
        return any(word in text for word in hidden)

    def _state(self) -> dict[str, tuple[int, int, bytes]]:
        state = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_socket() or "__pycache__" in path.parts or path.name.startswith("trivial-"):
                continue
            found = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            state[str(path)] = (found.st_mode, found.st_mtime_ns if data else 0, data)
        return state

    def _change_times(self) -> dict[str, int]:
        """Return the ctime of each file and folder. Unlike the modification time, it cannot be set by a program."""
        return {str(path): path.lstat().st_ctime_ns for path in self.root.rglob("*")}

    def _has_changes(self) -> bool:
        times = self._change_times()
        if times == self._times:  # avoids reading the files again
            return False
        self._times = times
        state = self._state()
        if state == self._files:
            return False
        for path, (mode, _, data) in self._files.items():
            if os.path.isdir(path):
                continue
            Path(path).unlink(missing_ok=True)
            Path(path).write_bytes(data)
            os.chmod(path, mode)
        for path in sorted(set(state) - set(self._files), reverse=True):
            os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
        self._times = self._change_times()
        self._files = self._state()
        return True

    def _has_connections(self) -> bool:
        received = [self._received(each) for each in self._listeners]
        return any(received)

    def _received(self, listener: socket.socket) -> bool:
        received = False
        while True:
            try:
                if listener in (self._udp, self._path):
                    listener.recv(100)
                else:
                    listener.accept()[0].close()
            except BlockingIOError:
                return received
            received = True

    def _signalled(self, number: int, frame: object) -> None:
        self._signals += 1

    def _has_signals(self) -> bool:
        count, self._signals = self._signals, 0
        return count > 0

    def _has_survivors(self) -> bool:
        """Kill all remaining processes with the name that attacks use, and return whether there were any.

        A process that exits within `EXIT_SECONDS` does not count: the grader kills its workers without waiting for them to exit.
        """
        found = False
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text().strip() == self.name:
                    process = os.pidfd_open(int(entry.name))
                    if not select.select([process], [], [], EXIT_SECONDS)[0]:
                        found = True
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                    os.close(process)
        return found

    def _has_remains(self) -> bool:
        files = [Path(folder) / self.name for folder in ("/tmp", "/dev/shm", "/var/tmp")]
        left = [path for path in files if path.exists()]
        for path in left:
            path.unlink()
        return _remove_shared(self._key) or bool(left)


def _remove_shared(key: int) -> bool:
    """Remove System V shared memory, queues and semaphores with this key. Return whether any existed."""
    libc = ctypes.CDLL(None)
    memory, queue, semaphore = (
        libc.shmget(key, 0, 0),
        libc.msgget(key, 0),
        libc.semget(key, 0, 0),
    )
    if memory >= 0:
        libc.shmctl(memory, 0, None)
    if queue >= 0:
        libc.msgctl(queue, 0, None)
    if semaphore >= 0:
        libc.semctl(semaphore, 0, 0)
    return bool(max(memory, queue, semaphore) >= 0)
