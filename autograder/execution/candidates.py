"""Grade a student's test: does it accept correct implementations of an exercise, and does it notice broken ones?

Each hidden test of such an exercise is one kind of mistake that the student's test should notice: see `broken`. `Candidates` runs
the student's test on all implementations, each time in a new worker. The implementations run in a worker of their own, so the
student's code cannot read them, and it cannot keep anything from one implementation to the next.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autograder.execution.differences import Mismatch
from autograder.execution.student import Opaque, RemoteModule, RemoteObject, Student, StudentError
from autograder.plain_text import escaped
from autograder.protocol import messages as m

MAX_CALLS = 50  # maximum number of calls that a student's test may make to one implementation
MAX_SHOWN = 400  # maximum length of one argument or result in a message
DEFINE = """def _define(name, code, flags):
    space = {"__name__": "implementation"}
    exec(compile(code, "implementation", "exec", flags), space)
    return space[name]
"""


@dataclass(frozen=True)
class Implementation:
    """An implementation of an exercise: its code, the flags to compile it with, and its mistake ("" if it is correct)."""

    code: str
    flags: int
    mistake: str = ""


@dataclass(frozen=True)
class Implementations:
    """The implementations of the exercise `tested` that a student's test should tell apart.

    Each kind lists the mistakes of one hidden test. A submission gets one mistake of each kind.
    """

    tested: str
    correct: tuple[Implementation, ...]
    broken: Mapping[str, Implementation]
    kinds: tuple[tuple[str, ...], ...]

    def choose(self, draw: random.Random) -> list[Implementation]:
        """Return all correct implementations and one broken one of each kind, in random order."""
        chosen = [*self.correct, *(self.broken[draw.choice(kind)] for kind in self.kinds)]
        draw.shuffle(chosen)
        return chosen

    def load(self, chosen: Sequence[Implementation]) -> m.Load:
        """Return the request that defines each chosen implementation, as `implementation_0` and so on."""
        definitions = [
            f"implementation_{number} = _define({self.tested!r}, {one.code!r}, {one.flags})"
            for number, one in enumerate(chosen)
        ]
        text = DEFINE + "\n".join(definitions)
        piece = (1, text.count("\n") + 1)
        return m.Load(text, [piece], f"implementation_{len(chosen) - 1}", 1)


# Start a worker that runs the student's code (None) or the given request, and stop it at the end of the `with` block.
Start = Callable[[m.Load | None], AbstractContextManager[Student]]


class Candidates:
    """The verdicts of a student's test on implementations, which run when the first hidden test needs them."""

    def __init__(
        self, test: str, implementations: Implementations, start: Start, seed: int
    ) -> None:
        self._test, self._implementations, self._start = test, implementations, start
        self._chosen = implementations.choose(random.Random(seed))
        self._noticed: set[str] | None = None  # mistakes
        self._has_failed = False  # for some implementation, which ended the run

    def check(self, mistakes: Sequence[str]) -> None:
        """Check that the student's test accepts every correct implementation and noticed one of these mistakes."""
        if self._has_failed:
            raise Mismatch("your test earns no points, for the reason that the first message gives")
        if self._noticed is None:
            self._noticed = self._run()
        if self._noticed.isdisjoint(mistakes):
            raise Mismatch("your test accepts an implementation with this mistake")

    def _run(self) -> set[str]:
        noticed = set()
        with self._start(self._implementations.load(self._chosen)) as implementations:
            for number, one in enumerate(self._chosen):
                calls = _Calls(getattr(implementations, f"implementation_{number}"))
                with self._start(None) as student:
                    if self._is_broken(student, calls, one):
                        noticed.add(one.mistake)
        return noticed

    def _is_broken(self, student: Student, calls: _Calls, one: Implementation) -> bool:
        """Return the verdict of the student's test. An exception is also a verdict: the implementation is broken.

        Raises:
            Mismatch: The verdict is wrong for a correct implementation, or is not a bool, or the test made too many calls.
            StudentError: The test raised an exception for a correct implementation.
        """
        self._has_failed = True  # unless nothing below raises
        try:
            verdict = getattr(student, self._test)(calls)
        except StudentError:
            if not one.mistake:
                raise
            verdict = True
        if isinstance(verdict, Tensor) and verdict.dtype == torch.bool and not verdict.dim():
            verdict = bool(verdict)
        if not isinstance(verdict, bool):
            raise Mismatch(f"your test should return True or False, but returned {_kind(verdict)}")
        if verdict and not one.mistake:
            raise Mismatch(
                "your test says that a correct implementation is broken",
                f"your test says that a correct implementation is broken. {calls.last}",
            )
        self._has_failed = False
        return verdict


class _Calls:
    """The implementation as the student's test sees it: a function that only passes on values."""

    def __init__(self, implementation: Callable[..., Any]) -> None:
        self._implementation = implementation
        self._count = 0
        self.last = "It did not call the implementation"
        self.__name__ = "implementation"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._count += 1
        if self._count > MAX_CALLS:
            raise Mismatch(f"your test calls an implementation more than {MAX_CALLS} times")
        if not _is_data([args, kwargs]):
            raise TypeError("an implementation accepts only tensors and plain values")
        try:
            result = self._implementation(*args, **kwargs)
        except StudentError:
            raise RuntimeError("the implementation raised an exception") from None
        if not _is_data(result):
            raise RuntimeError("the implementation returned something other than tensors")
        self.last = f"Its last call: {_shown_call(args, kwargs)} → {_shown(result)}"
        return _copied(result)


def _is_data(value: Any) -> bool:
    """Return whether a value contains only tensors and plain values, which reveal nothing about their origin."""
    if isinstance(value, list | tuple):
        return all(map(_is_data, value))
    if isinstance(value, dict):
        return all(map(_is_data, (*value.keys(), *value.values())))
    return not isinstance(value, RemoteModule | RemoteObject | Opaque | nn.Module) and not callable(
        value
    )


def _copied(value: Any) -> Any:
    """Copy tensors, so that neither their strides nor shared memory reveal how they were computed."""
    if isinstance(value, Tensor):
        return value.contiguous().clone()
    if isinstance(value, list | tuple):
        return type(value)(map(_copied, value))
    return value


def _shown_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    named = (f"{escaped(name)}={_shown(value)}" for name, value in kwargs.items())
    return f"implementation({', '.join([*map(_shown, args), *named])})"


def _shown(value: Any) -> str:
    """Describe a value in one line: tensors with at most eight elements in full, others by shape."""
    if isinstance(value, Tensor):
        if value.numel() > 8 or value.is_meta:
            return f"a tensor of shape {tuple(value.shape)}"
        numbers = value.detach().tolist()
        return f"tensor({torch.tensor(numbers).round(decimals=4).tolist() if value.is_floating_point() else numbers})"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_shown, value))})"[:MAX_SHOWN]
    return escaped(repr(value)[:MAX_SHOWN])


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {str(value.dtype).removeprefix('torch.')}"
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def broken(sentence: str, *mistakes: str, weight: float = 1) -> Callable[..., None]:
    """Return a hidden test: does the student's test notice these known mistakes in the tested exercise?

    A submission gets one of the mistakes, so all of them should have the effect that the `sentence` describes.
    """

    def test(self: object, candidates: Candidates) -> None:
        candidates.check(mistakes)

    test.__doc__ = sentence
    test.weight = weight  # type: ignore[attr-defined]
    test.mistakes = mistakes  # type: ignore[attr-defined]
    return test
