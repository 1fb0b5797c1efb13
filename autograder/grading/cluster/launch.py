"""Start a Dask cluster on this machine or on SLURM, or connect to a running one. Entry point: `connect`.

All connections use TLS. Certificates are temporary if this run starts the cluster. Otherwise, the user provides them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.config
import distributed
from distributed.security import Security

from autograder.course import state_folder
from autograder.course.files import write_atomically
from autograder.grading.cluster.messages import MISSING, ClusterLocation
from autograder.grading.internal_errors import ClusterError
from autograder.grading.process_start import SAFE_PATH, protected_start

LIFETIME = 3600  # seconds before a worker is replaced
STAGGER = 600  # maximum difference between a worker's lifetime and LIFETIME, in seconds
SETTINGS = {
    # A killed worker counts as a failure for all its tasks. With a low limit, one bad submission would make others fail.
    "distributed.scheduler.allowed-failures": 10,
    "distributed.worker.profile.enabled": False,  # Profiling would take a tenth of the CPU time.
    "distributed.comm.require-encryption": True,
    f"distributed.nanny.pre-spawn-environ.{SAFE_PATH}": "1",  # also for workers that a nanny restarts
    "distributed.admin.large-graph-warning-threshold": "1 GB",
}
TARGET = "1 s"  # Dask starts SLURM jobs until the remaining tasks would finish in this time
MEMORY = 4  # GiB per worker: the grader, its fork server and the memory that an exercise may use
# Dask does not see the sandbox's processes, so the sandbox limits the memory of student code instead.
NO_MEMORY_LIMIT = 0
# The scheduler always opens an unencrypted HTTP port. This address makes the port reachable only from this machine.
NO_DASHBOARD = "127.0.0.1:0"


@contextlib.contextmanager
def connect(location: ClusterLocation, jobs: int, root: Path) -> Iterator[distributed.Client]:
    """Start workers or connect to a running scheduler. Afterwards, disconnect and stop any started workers.

    Raises:
        ClusterError: The scheduler cannot be reached, or the connection would not be encrypted.
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
            start = slurm_cluster if location.name == "slurm" else _local_cluster
            where = stack.enter_context(start(jobs, root, security))
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
def _local_cluster(jobs: int, root: Path, security: Security) -> Iterator[Any]:
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
            silence_logs=logging.CRITICAL,
        )
    with cluster:
        yield cluster


@contextlib.contextmanager
def slurm_cluster(jobs: int, root: Path, security: Security) -> Iterator[Any]:
    """Start a scheduler on this machine, and submit worker jobs to SLURM while tasks remain.

    Each job's partition, account, cores, memory and time come from `jobqueue.slurm` in Dask's configuration.
    """
    if not shutil.which("sbatch"):
        raise ClusterError("sbatch was not found. Run the command on a login node of the cluster.")
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise ClusterError(MISSING) from None
    configured = dask.config.get("jobqueue.slurm")
    cores = configured["cores"] or 1
    # This folder has mode 0700 and is on the file system that the nodes share.
    with tempfile.TemporaryDirectory(
        prefix="cluster-", dir=state_folder.course_folder(root)
    ) as shared:
        lifetime = _seconds(configured["walltime"])
        with SLURMCluster(
            cores=cores,
            processes=cores,
            memory=configured["memory"] or f"{MEMORY * cores} GiB",
            python=sys.executable,
            worker_extra_args=[
                *configured["worker-extra-args"],
                *("--memory-limit", str(NO_MEMORY_LIMIT)),
                # A worker shuts down before its job ends, and its tasks go to other workers.
                *(
                    "--lifetime",
                    f"{lifetime * 8 // 10}s",
                    "--lifetime-stagger",
                    f"{lifetime // 10}s",
                ),
            ],
            job_script_prologue=[
                *configured["job-script-prologue"],
                "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False",
                "export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True",
                f"export {SAFE_PATH}=1",
            ],
            security=_in_files(security, Path(shared)),
            protocol="tls://",
            scheduler_options={
                "dashboard_address": NO_DASHBOARD,
                **configured["scheduler-options"],
            },
            silence_logs=logging.CRITICAL,
        ) as cluster:
            most = math.ceil(jobs / cores)
            cluster.adapt(minimum_jobs=1, maximum_jobs=most, target_duration=TARGET)
            yield cluster


def _in_files(security: Security, folder: Path) -> Security:
    """Write temporary certificates to files readable only by this user, because job scripts cannot contain them."""
    parts = {"ca": security.tls_ca_file}
    parts |= {"cert": security.tls_worker_cert, "key": security.tls_worker_key}
    files = {name: str(folder / f"{name}.pem") for name in parts}
    for name, text in parts.items():
        write_atomically(Path(files[name]), text.encode())
    roles = ("client", "scheduler", "worker")
    own = {f"tls_{role}_{kind}": files[kind] for role in roles for kind in ("cert", "key")}
    return Security(require_encryption=True, tls_ca_file=files["ca"], **own)


def _seconds(walltime: str) -> int:
    """Convert a SLURM time limit to seconds: `MINUTES`, `[HOURS:]MINUTES:SECONDS` or `DAYS-HOURS[:MINUTES[:SECONDS]]`."""
    days, _, clock = walltime.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if not days and len(parts) < 3:
        parts = [0, *parts]
    hours, minutes, seconds = [*parts, 0, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
