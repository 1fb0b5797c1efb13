"""Start the processes for a grading run, and open its session. Entry point: `open_session`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from autograder.course import state_folder
from autograder.course.config import Day
from autograder.grading.class_run import Executor
from autograder.grading.cluster import MISSING, ClusterLocation
from autograder.grading.internal_errors import ClusterError
from autograder.grading.pool import Pool
from autograder.sandbox.client import Sandbox
from autograder.sandbox.clock import cpu_count

if TYPE_CHECKING:
    from autograder.grading.session import Session


@contextlib.contextmanager
def open_session(
    day: Day,
    jobs: int,
    sandbox: Sandbox,
    on_error: Callable[[Exception], None],
    use_store: bool = True,
    location: ClusterLocation | None = None,
    force: bool = False,
) -> Iterator[Session]:
    """Start the pool or cluster and a reader, and open and lock the store.

    Args:
        on_error: A function to call with errors that do not end the run.
        location: Where to grade, if not in a pool on this machine.
        force: Run code although its results are stored.

    Raises:
        ClusterError: The cluster cannot be used.
        CourseError: The roster is invalid.
        FileError: The store is damaged or locked by another run, or the secret cannot be read.
        NoIsolation: The sandbox cannot be set up on this machine.
    """
    secret = state_folder.secret(day.root)
    with contextlib.ExitStack() as stack:
        executor = _start_executor(day, jobs, sandbox, on_error, location, use_store and not force)
        stack.enter_context(contextlib.closing(executor))
        # The first process starts while this process imports the rest.
        from autograder.grading.session import Session
        from autograder.marks import overrides
        from autograder.marks.history import History
        from autograder.submissions import roster
        from autograder.submissions.reader_client import Reader

        # Reading takes this machine's cores, wherever submissions are graded.
        reader = stack.enter_context(Reader(sandbox, min(jobs, cpu_count())))
        times = overrides.read_times(day)
        history = stack.enter_context(History(day.root, times)) if use_store else None
        if history:
            stack.enter_context(history.lock(day.name))
        students = roster.for_course(day.root)
        yield Session(day, secret, executor, reader, history, students, on_error)


def _start_executor(
    day: Day,
    jobs: int,
    sandbox: Sandbox,
    on_error: Callable[[Exception], None],
    location: ClusterLocation | None,
    use_results: bool,
) -> Executor:
    if location is None:
        return Pool(day, jobs, sandbox, use_results)
    try:
        from autograder.grading.cluster.executor import Cluster
    except ModuleNotFoundError:
        raise ClusterError(MISSING) from None
    return Cluster(day, jobs, sandbox, location, on_error)
