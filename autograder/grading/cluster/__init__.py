"""Grade submissions on a Dask cluster. Entry point: `executor.Cluster`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MISSING = (
    "--cluster needs packages that are not installed. Run "
    "`pip install cryptography dask-jobqueue distributed`."
)


@dataclass(frozen=True)
class ClusterLocation:
    """Where the workers run: `local`, `slurm` or the address of a running scheduler, plus the scheduler's certificates."""

    name: str
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_running(self) -> bool:
        """Return whether this is the address of a running scheduler."""
        return self.name not in ("local", "slurm")
