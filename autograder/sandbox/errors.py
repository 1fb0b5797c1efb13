"""Define the sandbox's exceptions and retry work when a fork server is lost."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import TypeVar

from autograder.protocol.limits import Excess

# Maximum number of attempts to start a fork server or run a task before `ServerLost` is raised.
ATTEMPTS = 4
ADVICE = (
    "Run the grader on a Linux machine that allows user namespaces, with a kernel since 5.14, or that has Landlock, with a "
    "kernel since 6.2 (`uname -r` shows the version). `autograder doctor` shows what is missing."
)
R = TypeVar("R")


class NoIsolation(Exception):
    """Raised when this machine cannot isolate untrusted code. The message states what is missing and how to fix the problem."""


class ServerLost(Exception):
    """Raised when a fork server exits, which also kills its processes. The code in those processes is not to blame."""

    def __init__(self) -> None:
        super().__init__("the sandbox's fork server exited")


class WorkerDied(Exception):
    """Raised when a process exits or sends an invalid message.

    `code` is its exit code or negated signal number. `exited` is true if a call such as `os._exit` ended the process.
    """

    def __init__(self, code: int, why: str = "") -> None:
        signal_name = signal.strsignal(-code) if code < 0 else None
        super().__init__(why or f"exit code {code}" + (f": {signal_name}" if signal_name else ""))
        self.code = code
        self.exited = code >= 0 and not why

    @property
    def was_killed(self) -> bool:
        """Return whether the process was killed by the kernel or by another process.

        The kernel kills processes if memory runs out. The fork server kills processes that exceed the limits it checks.
        """
        return self.code == -signal.SIGKILL


class LimitExceeded(Exception):
    """Raised when a process reaches a limit. `line` is the source line that was being loaded, or 0."""

    def __init__(self, excess: Excess, line: int = 0) -> None:
        super().__init__(str(excess))
        self.excess = excess
        self.line = line


class MustRunAlone(Exception):
    """Raised when code sleeps for too long or its worker is killed, and other submissions may be the cause.

    The submission must be graded again when no other submission of the run is being graded.
    """


def retry_if_server_lost(work: Callable[[], R]) -> R:
    """Call `work`, which starts its own processes, and call it again each time a fork server is lost.

    Raises:
        ServerLost: The fork server was lost on every attempt.
    """
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(ServerLost):
            return work()
    return work()
