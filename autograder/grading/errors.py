"""Define the exceptions raised by grading. This module imports nothing, so that the command line starts quickly."""


class WorkerKilled(Exception):
    """Raised when a worker process is killed. Marks that are already stored remain in the store."""


class ClusterError(Exception):
    """Raised when a cluster cannot be used. The message explains what to do."""
