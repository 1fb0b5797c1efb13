"""Start a Dask cluster on this machine from the command line, for use with `--cluster ADDRESS`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from distributed.security import Security

from autograder.grading.cluster import ClusterLocation


class DaskCluster:
    """A Dask scheduler that uses TLS, and its workers.

    `place` and `tls` specify how to connect to the scheduler. `last` is the most recently started process.
    """

    def __init__(self, folder: Path, stack: ExitStack, **variables: str) -> None:
        """Start the scheduler. Its certificates are written to `folder`; closing `stack` stops all processes."""
        security = Security.temporary()
        pem = {
            "--tls-ca-file": security.tls_ca_file,
            "--tls-cert": security.tls_scheduler_cert,
            "--tls-key": security.tls_scheduler_key,
        }
        self._stack = stack
        self.tls: list[str] = []
        for option, text in pem.items():
            file = folder / f"{option[2:]}.pem"
            file.write_text(text)
            self.tls += [option, str(file)]
        line = self._start(
            "scheduler", "Scheduler at:", "--host", "127.0.0.1", "--port", "0", **variables
        )
        self.place = ClusterLocation(line.split()[-1], *map(Path, self.tls[1::2]))

    def add_worker(self, *options: str, **variables: str) -> None:
        """Start a worker, and wait until it has joined the cluster."""
        common = ("--no-nanny", "--nthreads", "1", "--memory-limit", "0")
        self._start("worker", "Registered to:", self.place.name, *common, *options, **variables)

    def _start(self, kind: str, until: str, *options: str, **variables: str) -> str:
        """Start one of the cluster's processes, and return the first line of its log that contains `until`."""
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}"]
        command += ["--protocol", "tls", "--no-dashboard", *self.tls, *options]
        self.last = subprocess.Popen(
            command, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True
        )
        self._stack.callback(_stop, self.last)
        assert self.last.stderr is not None
        return next(line for line in self.last.stderr if until in line)


def _stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
