"""Send tasks to a Dask cluster's workers, and exclude unsuitable workers from grading. Entry point: `Workers`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import CancelledError
from typing import Any
from urllib.parse import urlsplit

import distributed
import msgspec
from distributed.client import ClosedClientError
from distributed.comm import connect
from distributed.scheduler import KilledWorker

from autograder.course.config import CourseError
from autograder.grading.cluster import worker
from autograder.grading.cluster.messages import (
    REPLY,
    CourseVersion,
    Ready,
    RefusedWorker,
    Reply,
    Task,
)
from autograder.sandbox.errors import NoIsolation

INTERVAL = 1.0  # seconds between checks of the list of workers
PATIENCE = 10.0  # seconds without a worker before warning the user
CONNECT_SECONDS = 3.0  # timeout for a direct connection to a worker
LOST = "the connection to the cluster's scheduler was lost. Run the command again to resume."


class BrokenTask(Exception):
    """Raised when a worker cannot load or finish a task. The cause is not an error in the submission or the course."""


class Workers:
    """A cluster's workers, excluding workers that cannot grade the given version of the course."""

    def __init__(
        self, client: distributed.Client, course: CourseVersion, warn: Callable[[Exception], None]
    ) -> None:
        self.isolation: set[tuple[str, ...]] = set()  # the isolation layers on each type of machine
        self._client, self._course, self._warn = client, course, warn
        self._refused: dict[str, RefusedWorker] = {}  # by address
        self._numbers = itertools.count()
        self._group = f"grade-{uuid.uuid4().hex}"
        with contextlib.suppress(Exception):  # a worker that cannot load the plugin fails its probe
            client.register_plugin(worker.GraderPlugin())

    def send(self, task: Task, address: str | None = None) -> Any:
        """Send a task to any worker or, if `address` is given, to that worker. Return Dask's future for the reply."""
        # Keys with the same first part form a group. Dask queues tasks in a group instead of assigning all of them at
        # once.
        key = (self._group, next(self._numbers))
        with scheduler_errors():
            return self._client.submit(
                worker.grade, msgspec.json.encode(task), key=key, pure=False, workers=address
            )

    def present(self) -> set[str]:
        """Return the addresses of the connected workers that were not rejected."""
        with scheduler_errors():
            return {*self._client.nthreads()} - self._refused.keys()

    def probe(self) -> None:
        """Wait until every connected worker is ready to grade or has been rejected. If no worker is connected, wait for one.

        Raises:
            NoIsolation, CourseError: All workers were rejected as unsuitable.
            ConnectionError: The connection to the scheduler was lost.
        """
        probes: dict[str, Any] = {}
        checked: set[str] = set()
        started = time.monotonic()
        while not (present := self.present()) or present - checked:
            for address in present - probes.keys():
                probes[address] = self.send(Task(self._course), address)
            waiting = [probes[address] for address in present - checked]
            if waiting:
                with contextlib.suppress(TimeoutError):
                    distributed.wait(waiting, timeout=INTERVAL, return_when="FIRST_COMPLETED")
            else:
                time.sleep(INTERVAL)
                if time.monotonic() > started + PATIENCE:
                    self._warn(ConnectionError("waiting for a worker to connect to the cluster"))
            for address in present - checked:
                if probes[address].done():
                    checked.add(address)
                    self._check(probes[address], address)
        for probe in probes.values():
            probe.release()
        # The scheduler has less to do if it does not relay the replies.
        reachable = self._client.sync(self._can_connect, self.present() & checked)
        self._client.direct_to_workers = reachable

    async def _can_connect(self, addresses: Collection[str]) -> bool:
        """Return whether this process can connect to all of these workers."""
        secure = self._client.security.get_connection_args("client")
        waiting = [asyncio.ensure_future(connect(address, **secure)) for address in addresses]
        if not waiting:
            return False
        done, late = await asyncio.wait(waiting, timeout=CONNECT_SECONDS)
        for connecting in late:
            connecting.cancel()
        failed = [made for made in done if made.exception()]
        for made in done.difference(failed):
            made.result().abort()
        return not late and not failed

    def _check(self, probe: Any, address: str) -> None:
        """Reject a worker unless its reply to a probe is `Ready`."""
        try:
            reply = reply_to(probe)
        except KilledWorker:
            return  # The cluster replaces a killed worker.
        except BrokenTask as error:
            machine = urlsplit(address).hostname or address
            reason = f"it cannot load the autograder: {error}"
            reply = RefusedWorker(address, machine, "course", reason)
        if isinstance(reply, Ready):
            self.isolation.add(tuple(reply.isolation))
        elif isinstance(reply, RefusedWorker):
            self.refuse(reply)

    def refuse(self, reply: RefusedWorker) -> None:
        """Retire a worker that cannot grade in this run.

        Raises:
            NoIsolation, CourseError: No workers are left.
        """
        message = f"the worker {reply.worker} on {reply.machine} was refused: {reply.reason}"
        error = NoIsolation(message) if reply.cause == "isolation" else CourseError(message)
        is_new = reply.worker not in self._refused
        self._refused[reply.worker] = reply
        if not self.present():
            raise error
        if is_new:
            self._warn(error)
            with scheduler_errors():
                self._client.retire_workers([reply.worker], close_workers=True)


def reply_to(sent: Any) -> Reply:
    """Return the worker's reply from a completed future.

    Raises:
        KilledWorker: Too many workers were killed while carrying out the task.
        BrokenTask: A worker cannot load or finish the task.
        ConnectionError: The connection to the scheduler was lost.
    """
    with scheduler_errors():
        error = sent.exception() if sent.status == "error" else None
        data = sent.result() if error is None else b""
    if isinstance(error, KilledWorker):
        raise error
    if error is not None:
        raise BrokenTask(repr(error))
    return REPLY.decode(data)


@contextlib.contextmanager
def scheduler_errors() -> Iterator[None]:
    """If the connection to the scheduler is lost, raise ConnectionError instead of Dask's own errors."""
    try:
        yield
    except (OSError, CancelledError, ClosedClientError):
        raise ConnectionError(LOST) from None
