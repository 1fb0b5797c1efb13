"""Grade submissions on a Dask cluster. Entry point: `Cluster`.

Only this process knows the secret and writes to the store. Workers receive submissions and seeds, and return marks.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask.config
import distributed
import msgspec
from distributed.client import ClosedClientError
from distributed.comm import connect
from distributed.scheduler import KilledWorker
from distributed.security import Security
from tornado.ioloop import PeriodicCallback

from autograder.course import state_folder
from autograder.course.config import CourseError, Day
from autograder.course.files import write_atomically
from autograder.course.fingerprint import course_version
from autograder.grading.cluster import MISSING, ClusterLocation, worker
from autograder.grading.cluster.worker import (
    REPLY,
    CourseVersion,
    Graded,
    Postponed,
    RefusedWorker,
    Reply,
    Task,
    WorkerReady,
)
from autograder.grading.internal_errors import ClusterError
from autograder.grading.process_start import SAFE_PATH, protected_start
from autograder.marks.engine_version import engine_version
from autograder.marks.model import SubmissionMarks, ungraded
from autograder.sandbox.client import Sandbox
from autograder.sandbox.errors import MustRunAlone, NoIsolation
from autograder.submissions.submission import Submission

ATTEMPTS = 3  # maximum attempts for a task that workers cannot load
INTERVAL = 1.0  # seconds between checks of the list of workers
PATIENCE = 10.0  # seconds without a worker before warning the user
CONNECT_SECONDS = 3.0  # timeout for a direct connection to a worker
LOST = "the connection to the cluster's scheduler was lost. Run the command again to resume."
LIFETIME = 3600  # seconds before a worker is replaced
STAGGER = 600  # maximum difference between a worker's lifetime and LIFETIME, in seconds
SETTINGS = {
    # A killed worker counts as a failure for all its tasks. The run grades each of them again, alone.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.profile.enabled": False,  # Profiling would take a tenth of the CPU time.
    "distributed.comm.require-encryption": True,
    f"distributed.nanny.pre-spawn-environ.{SAFE_PATH}": "1",  # also for workers that a nanny restarts
    "distributed.admin.large-graph-warning-threshold": "1 GB",
}
KILLED = (
    "two workers ended while they graded it, the second time while no other submission was being graded. "
    "If their time limit is shorter than this submission takes, raise it, or grade this file without --cluster. "
    "The next run tries again."
)
TARGET = "1 s"  # Dask starts SLURM jobs until the remaining tasks would finish in this time
SLURM_SECONDS = 20  # sbatch retries for a minute if it finds no configuration
QUEUE_SECONDS = 10  # seconds between checks of SLURM's queue
MIN_WALLTIME = (
    20 * 60
)  # seconds; with the default limits, a submission ends sooner, even on a busy node
MEMORY = 4  # GiB per worker: the grader, its fork server and the memory that an exercise may use
# Dask does not see the sandbox's processes, so the sandbox limits the memory of student code instead.
NO_MEMORY_LIMIT = 0
# The scheduler and the workers always open an unencrypted HTTP port. This address makes it reachable only from their machine.
NO_DASHBOARD = "127.0.0.1:0"


class Cluster:
    """A Dask cluster that grades a day's submissions.

    Workers that cannot isolate student code or have a different version of the course are retired, and their tasks are
    sent to other workers. If a worker is killed or its job's time ends, its submissions are graded again, one at a time. If that
    happens a second time to a submission, it counts as not graded.
    """

    def __init__(
        self,
        day: Day,
        jobs: int,
        sandbox: Sandbox,
        location: ClusterLocation,
        warn: Callable[[Exception], None],
    ) -> None:
        """Start the cluster or connect to it. `jobs` is the number of workers to start or, on SLURM, the maximum."""
        self._day, self._sandbox = day, sandbox
        root = str(day.root.absolute())
        version = course_version(day), engine_version()
        self._course = CourseVersion(root, day.name, *version, sandbox)
        self._jobs, self._grows, self._counted = jobs, location.is_running, float("-inf")
        with contextlib.ExitStack() as stack:
            ended: list[str] = []
            client = stack.enter_context(_connected(location, jobs, day.root, ended))
            self._workers = Workers(client, self._course, warn, ended)
            self._stack = stack.pop_all()

    @property
    def jobs(self) -> int:
        """Return the number of workers."""
        if self._grows and time.monotonic() > self._counted + INTERVAL:
            self._jobs = max(1, len(self._workers.present()))
            self._counted = time.monotonic()
        return self._jobs

    def isolation(self) -> list[list[str]]:
        """Wait until all connected workers are ready, and return the isolation layers for each machine type."""
        if not self._workers.isolation:
            self._workers.probe()
        return sorted(map(list, self._workers.isolation))

    def submit(
        self, submission: Submission, seed: str, is_alone: bool = False
    ) -> Future[SubmissionMarks]:
        """Return a future for a submission's marks; see `Executor`."""
        future: Future[SubmissionMarks] = Future()
        # The workers do not need the TA's path, which may not be valid Unicode.
        sent = replace(submission, under="")
        self._send(Task(self._course, sent, seed, is_alone), future)
        return future

    def close(self) -> None:
        """Stop the workers that this run started. On an existing cluster, cancel the tasks that have not started."""
        self._stack.close()

    def _send(self, task: Task, future: Future[SubmissionMarks], attempt: int = 1) -> None:
        def receive(sent: Any) -> None:
            try:
                self._receive(sent, task, future, attempt)
            except Exception as error:
                future.set_exception(error)
            finally:
                sent.release()  # lets the scheduler and the worker delete the reply

        self._workers.send(task).add_done_callback(receive)

    def _receive(
        self, sent: Any, task: Task, future: Future[SubmissionMarks], attempt: int
    ) -> None:
        try:
            reply = reply_to(sent)
        except KilledWorker:
            if not task.is_alone:
                raise MustRunAlone from None
            assert task.submission is not None
            marks = ungraded(task.submission, self._course.version, [], self._day.points, KILLED)
            future.set_result(marks)
        except BrokenTask as error:
            if attempt == ATTEMPTS:
                raise ConnectionError(f"the cluster's workers failed: {error}") from None
            self._find_broken_worker(task, future, attempt)
        else:
            if isinstance(reply, Graded):
                future.set_result(reply.marks)
            elif isinstance(reply, Postponed):
                raise MustRunAlone
            elif isinstance(reply, RefusedWorker):
                self._workers.refuse(reply)
                self._send(task, future)

    def _find_broken_worker(
        self, task: Task, future: Future[SubmissionMarks], attempt: int
    ) -> None:
        """Probe all workers, because Dask does not report which one failed. Then resend the task."""

        def probe_and_send() -> None:
            try:
                self._workers.probe()
                self._send(task, future, attempt + 1)
            except Exception as error:
                future.set_exception(error)

        # Probe in a new thread, because the current thread must remain free to receive replies.
        threading.Thread(target=probe_and_send, daemon=True).start()


class BrokenTask(Exception):
    """Raised when a worker cannot load or finish a task. The cause is not an error in the submission or the course."""


class Workers:
    """A cluster's workers, excluding workers that cannot grade the given version of the course."""

    def __init__(
        self,
        client: distributed.Client,
        course: CourseVersion,
        warn: Callable[[Exception], None],
        ended: Sequence[str],
    ) -> None:
        """`ended` grows by a message for each job that ends before its worker connects."""
        self.isolation: set[tuple[str, ...]] = set()  # the isolation layers on each type of machine
        self._client, self._course, self._warn, self._ended = client, course, warn, ended
        self._refused: set[str] = set()  # addresses
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
            return {*self._client.nthreads()} - self._refused

    def probe(self) -> None:
        """Wait until every connected worker is ready to grade or has been rejected. If no worker is connected, wait for one."""
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
            elif len(self._ended) >= ATTEMPTS:
                raise ClusterError(f"{ATTEMPTS} jobs failed. {self._ended[-1]}")
            else:
                time.sleep(INTERVAL)
                if time.monotonic() > started + PATIENCE:
                    self._warn(UserWarning("waiting for a worker to connect to the cluster"))
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
        """Reject a worker unless its reply to a probe is `WorkerReady`."""
        try:
            reply = reply_to(probe)
        except KilledWorker:
            return  # The cluster replaces a killed worker.
        except BrokenTask as error:
            machine = urlsplit(address).hostname or address
            reason = f"it cannot load the autograder: {error}"
            reply = RefusedWorker(address, machine, "course", reason)
        if isinstance(reply, WorkerReady):
            self.isolation.add(tuple(reply.isolation))
        elif isinstance(reply, RefusedWorker):
            self.refuse(reply)

    def refuse(self, reply: RefusedWorker) -> None:
        """Retire a worker that cannot grade in this run. Raises NoIsolation or CourseError if no workers are left."""
        message = f"the worker {reply.worker} on {reply.machine} was refused: {reply.reason}"
        error = NoIsolation(message) if reply.cause == "isolation" else CourseError(message)
        is_new = reply.worker not in self._refused
        self._refused.add(reply.worker)
        if not self.present():
            raise error
        if is_new:
            self._warn(error)
            with scheduler_errors():
                self._client.retire_workers([reply.worker], close_workers=True)


def reply_to(sent: Any) -> Reply:
    """Return the worker's reply from a completed future. Raises KilledWorker if too many workers were killed."""
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


@contextlib.contextmanager
def _connected(
    location: ClusterLocation, jobs: int, root: Path, ended: list[str]
) -> Iterator[distributed.Client]:
    """Start workers or connect to a running scheduler. Afterwards, disconnect and stop any started workers.

    All connections use TLS. Certificates are temporary if this run starts the cluster. Otherwise, the user provides them.
    """
    dask.config.set(SETTINGS)
    # Remove the secret, because workers inherit the environment.
    os.environ.pop(state_folder.VARIABLE, None)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        if location.is_running:
            where, security = location.name, _security(location)
        else:
            try:
                security = Security.temporary()
            except ImportError:
                raise ClusterError(MISSING) from None
            if location.name == "slurm":
                where = stack.enter_context(slurm_cluster(jobs, root, security, ended))
            else:
                where = stack.enter_context(_local_cluster(jobs, security))
        try:
            client = distributed.Client(where, security=security)
        except (OSError, ValueError) as error:
            raise ClusterError(f"cannot connect to {location.name}: {error}") from None
        yield stack.enter_context(client)


def _security(location: ClusterLocation) -> Security:
    """Return the certificates for a running scheduler: those in `location` or, by default, those in Dask's configuration."""
    if not location.name.startswith("tls://"):
        raise ClusterError(
            f"{location.name} is not a TLS address. Start the scheduler with --protocol tls and certificates, "
            "and pass its address, tls://HOST:PORT."
        )
    given = {"tls_ca_file": location.ca_file, "tls_client_cert": location.certificate}
    given["tls_client_key"] = location.key
    files = {name: str(file) for name, file in given.items() if file}
    security = Security(require_encryption=True, **files)
    if not all(getattr(security, name) for name in given):
        raise ClusterError(
            "the certificates for the cluster are missing. Pass --tls-ca-file, --tls-cert and --tls-key."
        )
    for file in files.values():
        if not os.access(file, os.R_OK):
            raise ClusterError(f"{file} cannot be read")
    return security


@contextlib.contextmanager
def _local_cluster(jobs: int, security: Security) -> Iterator[Any]:
    with protected_start():
        cluster = distributed.LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            memory_limit=NO_MEMORY_LIMIT,
            lifetime=LIFETIME,
            lifetime_stagger=STAGGER,
            lifetime_restart=True,
            security=security,
            scheduler_kwargs={"dashboard": False, "dashboard_address": NO_DASHBOARD},
            worker_dashboard_address=NO_DASHBOARD,
            silence_logs=logging.CRITICAL,
        )
    with cluster:
        yield cluster


@contextlib.contextmanager
def slurm_cluster(jobs: int, root: Path, security: Security, ended: list[str]) -> Iterator[Any]:
    """Start a scheduler on this machine, and submit worker jobs to SLURM while tasks remain.

    `ended` gets a message for each job that ends before a worker connects. Each job's partition, account, cores, memory and time
    come from `jobqueue.slurm` in Dask's configuration.
    """
    if not shutil.which("sbatch"):
        raise ClusterError("sbatch was not found. Run the command on a login node of the cluster.")
    slurm = _import_slurm_cluster()
    configured = dask.config.get("jobqueue.slurm")
    cores = configured["cores"] or 1
    if _seconds(configured["walltime"]) < MIN_WALLTIME:
        raise ClusterError(
            f"the time limit of the jobs is {configured['walltime']}, in which a slow submission might not be graded. "
            f"Set walltime to at least {MIN_WALLTIME // 60} minutes."
        )
    with (
        _shared_folder(root) as shared,
        slurm(
            cores=cores,
            processes=cores,
            memory=configured["memory"] or f"{MEMORY * cores} GiB",
            python=sys.executable,
            log_directory=configured["log-directory"] or str(shared),
            worker_extra_args=[
                *configured["worker-extra-args"],
                f"--memory-limit {NO_MEMORY_LIMIT}",
                f"--dashboard-address {NO_DASHBOARD}",
            ],
            job_script_prologue=[
                *configured["job-script-prologue"],
                "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False",
                "export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True",
                f"export {SAFE_PATH}=1",
            ],
            security=_in_files(security, shared),
            protocol="tls://",
            scheduler_options={
                "dashboard_address": NO_DASHBOARD,
                **configured["scheduler-options"],
            },
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        _check_job(cluster.job_script())
        most = math.ceil(jobs / cores)
        cluster.adapt(minimum_jobs=1, maximum_jobs=most, target_duration=TARGET)

        async def replace_ended_jobs() -> None:
            await _replace_ended_jobs(cluster, ended)

        watch = PeriodicCallback(replace_ended_jobs, QUEUE_SECONDS * 1000)
        cluster.loop.add_callback(watch.start)
        try:
            yield cluster
        finally:
            cluster.loop.add_callback(watch.stop)


async def _replace_ended_jobs(cluster: Any, ended: list[str]) -> None:
    """Forget jobs that left the queue, so that Dask submits others. It notices only the end of connected workers.

    `ended` gets a message for each of these jobs until a worker is connected.
    """
    jobs = dict(cluster.workers)
    try:
        queue = await cluster.job_cls._call(["squeue", "--me", "--noheader", "--format=%i"])
    except (OSError, RuntimeError):  # SLURM does not answer at the moment
        return
    if cluster.observed:
        ended.clear()
    for name, job in jobs.items():
        if job.job_id not in queue.split() and cluster.workers.get(name) is job:
            del cluster.workers[name]
            log = Path(job.log_directory, f"{job.job_name or 'worker'}-{job.job_id}.err")
            lines = log.read_text(errors="replace").split("\n") if log.exists() else []
            last = next((line for line in reversed(lines) if line.strip()), "It wrote no output.")
            ended.append(f"Job {job.job_id} ended before its worker connected: {last}")


def _import_slurm_cluster() -> Any:
    """Return dask-jobqueue's class. Importing it replaces the handler of Ctrl-C, so restore the handler."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise ClusterError(MISSING) from None
    finally:
        signal.signal(signal.SIGINT, handler)
    return SLURMCluster


def _check_job(script: str) -> None:
    """Ask SLURM whether it would accept a job, because Dask waits endlessly for jobs that are rejected."""
    command = ["sbatch", "--test-only"]
    try:
        done = subprocess.run(
            command, input=script, capture_output=True, text=True, timeout=SLURM_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"SLURM did not answer within {SLURM_SECONDS} s. Check whether `sinfo` works on this machine."
        ) from None
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise ClusterError(f"SLURM does not accept the workers' jobs: {reason}")


@contextlib.contextmanager
def _shared_folder(root: Path) -> Iterator[Path]:
    """Create a folder with mode 0700 on the file system that the nodes share. Remove those of runs that were killed."""
    parent = state_folder.course_folder(root)
    for old in parent.glob("cluster-*"):
        with contextlib.suppress(OSError), _locked(old):
            shutil.rmtree(old)
    with (
        tempfile.TemporaryDirectory(prefix="cluster-", dir=parent) as shared,
        _locked(Path(shared)),
    ):
        yield Path(shared)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder. Raises BlockingIOError if another process holds it."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _in_files(security: Security, folder: Path) -> Security:
    """Write temporary certificates to files readable only by this user, because job scripts cannot contain them."""
    names = ["tls_ca_file"]
    names += [
        f"tls_{role}_{kind}"
        for role in ("client", "scheduler", "worker")
        for kind in ("cert", "key")
    ]
    for name in names:
        write_atomically(folder / f"{name}.pem", getattr(security, name).encode())
    files = {name: str(folder / f"{name}.pem") for name in names}
    return Security(require_encryption=True, **files)


def _seconds(walltime: str) -> int:
    """Convert a SLURM time limit to seconds: `MINUTES`, `[HOURS:]MINUTES:SECONDS` or `DAYS-HOURS[:MINUTES[:SECONDS]]`."""
    days, _, clock = walltime.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if not days and len(parts) < 3:
        parts = [0, *parts]
    hours, minutes, seconds = [*parts, 0, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
