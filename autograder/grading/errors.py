"""Exceptions of grading, in a module that imports nothing, because the command line needs them at once."""


class WorkerKilled(Exception):
    """Raised when a worker process was killed. Marks that were stored before stay in the store."""
