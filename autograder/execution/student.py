"""Give hidden graders access to one exercise's code in the sandbox. Entry point: `Student`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from autograder.execution.connection import (
    Channel,
    Connection,
    Cost,
    NotAllowed,
    RemoteModule,
    RemoteObject,
    StudentError,
)
from autograder.execution.references import ReferenceProcess
from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing
from autograder.protocol.messages import Opaque

__all__ = [
    "Cost",
    "NotAllowed",
    "Opaque",
    "RemoteModule",
    "RemoteObject",
    "Student",
    "StudentError",
]


class Student:
    """The functions and classes in one exercise's code, available as attributes. See graders/README.md."""

    def __init__(self, process: Channel, references: ReferenceProcess | None = None) -> None:
        self.connection = Connection(process, references)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.connection.call(name, "", (args, kwargs), name)

        return call

    @property
    def changed(self) -> list[str]:
        """Return the names of the arguments that the last call changed in place."""
        return self.connection.changed

    @property
    def last_call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
        """Return the name and arguments of the last function or method call."""
        return self.connection.last_call

    def load(self, load: m.Load) -> list[tuple[int, str, str]]:
        """Run the exercise's code. Return the line, exception name and message for each failed piece of code.

        Raises:
            StudentError: The code does not define the exercise, because a piece of the code failed.
        """
        errors = self.connection.request(load, Outgoing(), load.wanted)
        if not isinstance(errors, list) or not all(map(_is_error, errors)):
            raise m.WireError("the answer to a load request is not a list of errors")
        return [(line, kind, text) for line, kind, text in errors]

    @contextmanager
    def measuring(self) -> Iterator[Cost]:
        """Measure the total cost of calls in the `with` block."""
        self.connection.cost = cost = Cost()
        try:
            yield cost
        finally:
            self.connection.cost = None


def _is_error(item: Any) -> bool:
    """Return whether an item consists of a line number, an exception name and a message."""
    return isinstance(item, list) and [type(part) for part in item] == [int, str, str]
