"""Run visible checks and demonstrations so that an unfinished exercise does not block later ones.

While a check or a demonstration runs, a stand-in replaces every earlier exercise that is empty or fails its own checks.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import io
import linecache
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

from autograder.in_notebook.error_advice import advice, names_any
from autograder.in_notebook.frames import hide_provided_code, is_provided
from autograder.in_notebook.helper_names import (
    EXERCISES,
    helper_names,
    seeded,
    student_names,
)
from autograder.in_notebook.hints import find_mistake
from autograder.in_notebook.not_allowed import not_allowed
from autograder.in_notebook.predictions import Unanswered

STAND_INS: dict[str, Any] = {}
STAND_INS_FILE = "<stand-ins>"  # the file name in their code objects
EMPTY, NO_CHECK = "is not filled in", "has not been checked"
_outcomes: dict[str, tuple[list[object], str]] = {}  # exercise → the code that was checked, result
_used: set[str] = set()  # the stand-ins that the current check or demonstration has called


def visible_check(check: Callable[[], None]) -> Callable[[], None]:
    """Run a check with stand-ins for earlier exercises, unless the code uses forbidden functions. Add a hint if it fails."""
    exercise = check.__name__.removeprefix("check_")

    @functools.wraps(check)
    @helper_names()
    def run() -> None:
        with stand_ins(before=exercise) as replaced:
            error = _run(exercise, check)
            hint = _hint(exercise, check, error) if error else ""
        _report(replaced)
        if error is None:
            return
        if _is_stub(error):
            raise NotFilledIn(str(error)) from error
        cause = error.__cause__ if _is_failed_check(error) else error
        message = _message(error) + _where(error) + f"\n\nHint: {hint}" * bool(hint)
        raise CheckFailed(message) from cause

    return run


class NotFilledIn(NotImplementedError):
    """Raised for an exercise that is still a stub. Jupyter shows one sentence instead of a traceback."""

    @helper_names()
    def _render_traceback_(self) -> list[str]:
        return [f"✗ `{self}` {EMPTY}."]


class CheckFailed(AssertionError):
    """Raised if a check fails. Instead of a traceback, Jupyter shows the student's own lines and the message."""

    @helper_names()
    def _render_traceback_(self) -> list[str]:
        lines = _own_lines(self.__cause__) if self.__cause__ else []
        return [*lines, f"✗ {self}"]


@contextlib.contextmanager
def demonstration() -> Iterator[None]:
    """Use stand-ins for all unfinished exercises while a demonstration runs. End it early at a result that is not predicted."""
    with helper_names(), stand_ins() as replaced:
        try:
            with student_names():
                yield
        except NotImplementedError as error:
            if not _is_stub(error):
                raise
            print(f"This demonstration needs your `{error}`. Fill it in, then run this cell again.")
        except Unanswered as question:
            print(question)
        except Exception as error:
            hide_provided_code(error)
            raise
        _report(replaced)


@contextlib.contextmanager
def expecting(result: str, look: str = "") -> Iterator[None]:
    """If the code raises an error, fail with a message that starts with `result`, a description of the correct result.

    The message ends with advice on the error. If there is none for this kind of error, it ends with the hint `look` instead.
    """
    try:
        yield
    except Exception as error:
        with helper_names():
            if _is_stub(error) or _is_failed_check(error):
                raise
            message = f"{result}; yours raises {_message(error)}{_advice(error, look)}"
        raise AssertionError(message) from error


@contextlib.contextmanager
def expecting_value_error(case: str, *names: str) -> Iterator[None]:
    """Check that the code raises a ValueError whose message names one of these arguments. See `names_any`."""
    problem, cause = "yours raises nothing", None
    try:
        yield
    except Exception as error:
        with helper_names():
            if _is_stub(error) or _is_failed_check(error):
                raise
            problem, cause = f"yours raises {_message(error)}", error
            if isinstance(error, ValueError):
                problem = "" if names_any(str(error), names) else f"your message is '{error}'"
    if problem:
        raise AssertionError(
            f"{case} should raise a ValueError that names {' or '.join(names[:2])}; {problem}"
        ) from cause


@contextlib.contextmanager
def stand_ins(before: str = "") -> Iterator[dict[str, str]]:
    """Replace unfinished exercises with stand-ins. Yield a dict that maps each replaced exercise to what is wrong with it.

    If `before` is given, replace only the exercises that precede it.
    """
    notebook = vars(sys.modules["__main__"])
    names = list(EXERCISES)
    if before:
        names = names[: names.index(before)] if before in names else []
    results = {name: outcome(name) for name in names if name in STAND_INS}
    replaced = {name: result for name, result in results.items() if result}
    own = {name: notebook[name] for name in replaced if name in notebook}
    _used.clear()
    notebook.update({name: STAND_INS[name] for name in replaced})
    try:
        yield replaced
    finally:
        for name in replaced:
            notebook.pop(name, None)
        notebook.update(own)


def outcome(exercise: str) -> str:
    """Return what is wrong with an exercise, or "" if it passes. Run its checks unless they have already run on this code."""
    notebook = vars(sys.modules["__main__"])
    check = notebook.get(f"check_{exercise}")
    if exercise not in notebook:
        return EMPTY
    if check is None:
        return NO_CHECK
    known = _outcomes.get(exercise)
    if known is None or [*map(id, known[0])] != [*map(id, _code(exercise))]:
        quiet = io.StringIO()
        with (
            stand_ins(before=exercise),
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
            seeded(),
        ):
            _run(exercise, check.__wrapped__)
    return _outcomes[exercise][1]


def _run(exercise: str, check: Callable[[], None]) -> Exception | None:
    """Run a check and store its result. An interrupted check counts as failed."""
    code = _code(exercise)
    _outcomes[exercise] = code, "the checks did not finish"
    own = types.FunctionType(check.__code__, dict(check.__globals__))
    try:
        for name in not_allowed(exercise):
            raise AssertionError(
                f"This exercise earns no points if your code calls `{name}`, which is not allowed here. "
                "The checks run once you replace it."
            )
        _call(own)
    except Exception as error:
        empty = isinstance(error, NotImplementedError) and str(error) == exercise
        _outcomes[exercise] = code, EMPTY if empty else _message(error)
        for _ in (_run, _call):
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        return error
    _outcomes[exercise] = code, ""
    return None


def _call(check: Callable[[], None]) -> None:
    with student_names():
        check()


def _hint(exercise: str, check: Callable[[], None], error: Exception) -> str:
    if not_allowed(exercise):
        return ""
    return find_mistake(exercise, check) or _hint_on_stand_ins(error)


def _hint_on_stand_ins(error: Exception) -> str:
    """Return a hint if a stand-in raised the error, because a stand-in supports only what the exercise describes."""
    cause = error.__cause__ or error
    frames = _notebook_frames(cause)
    if not frames or not isinstance(cause, (TypeError, AttributeError)):
        return ""
    code = frames[-1].f_code
    if code.co_filename == STAND_INS_FILE:
        name = _owner(code)
    elif _owner(code) == noted_stand_in.__name__:
        name = frames[-1].f_locals["name"]
    else:
        return ""
    return (
        f"This check used a stand-in for `{name}`, which supports only the arguments that the exercise describes. "
        "Compare your call with its docstring. If your own version supports more, finish it before you run this check."
    )


def _code(exercise: str) -> list[object]:
    """Return the objects that must be unchanged for an exercise's stored result to be valid."""
    notebook = vars(sys.modules["__main__"])
    own = notebook.get(exercise)
    return [own, notebook.get(f"check_{exercise}"), *getattr(own, "__dict__", {}).values()]


def _message(error: Exception) -> str:
    if _is_failed_check(error):
        return str(error) or "a check failed"
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _advice(error: Exception, look: str = "") -> str:
    """Return advice on an error, or `look` if there is none for this kind of error. Each sentence starts with a newline."""
    text = advice(type(error).__name__, str(error))
    general = f"{text[:1].upper()}{text[1:]}." if text else look
    return "".join(f"\n{sentence}" for sentence in (_received(error), general) if sentence)


def _received(error: Exception) -> str:
    """Say which arguments the exercise passed to another one, if the other one raised the error. Otherwise, return ""."""
    called = [frame for frame in _notebook_frames(error) if _owner(frame.f_code) in EXERCISES]
    for frame in called:
        code = frame.f_code
        if _owner(code) == _owner(called[0].f_code):
            continue
        # Code may reassign its parameters; such values are no longer the arguments.
        steps = [step for step in dis.get_instructions(code) if step.opname.startswith("STORE_")]
        changed = {*re.findall(r"\w+", " ".join(str(step.argval) for step in steps)), "self"}
        passed = [
            f"{name}: {_described(frame.f_locals[name])}"
            for name in code.co_varnames[: code.co_argcount]
            if name not in changed
        ]
        function = code.co_qualname.removesuffix(".__init__")
        return f"`{function}` received {', '.join(passed)}." if passed else ""
    return ""


def _owner(code: types.CodeType) -> str:
    """Return the name of the top-level function or class that contains this code."""
    return code.co_qualname.partition(".")[0]


def _described(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        kind = "array" if type(value).__name__ == "ndarray" else "tensor"
        return f"a {value.dtype} {kind} of shape {tuple(value.shape)}".replace(" torch.", " ")
    return f"a {type(value).__name__}"


def _where(error: Exception) -> str:
    """Return a newline and advice on an error, or a note if the check, rather than student code, raised it.

    Return "" if an assertion in the check failed.
    """
    if _is_failed_check(error):
        return ""
    if _own_lines(error):
        return _advice(error)
    return (
        "\nThe check raised this error when it called your code or used its result. Compare names, "
        "arguments, types and dtypes with the docstring."
    )


def _is_stub(error: Exception) -> bool:
    """Return whether a stub raised the error. Its message is then just the exercise's name, unlike PyTorch's messages."""
    return isinstance(error, NotImplementedError) and str(error).isidentifier()


def _is_failed_check(error: Exception) -> bool:
    """Return whether an assertion in a check failed, rather than one in the code that the check calls."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, AssertionError) and (not files or files[-1] in _files_of_check(error))


def _notebook_frames(error: BaseException) -> list[types.FrameType]:
    """Return the frames of notebook code and stand-ins in an error's traceback, omitting libraries."""
    notebook, noted = vars(sys.modules["__main__"]), noted_stand_in.__name__
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [f for f in frames if f.f_globals is notebook or _owner(f.f_code) == noted]


def _own_lines(error: BaseException) -> list[str]:
    """Return the last lines of student code in an error's traceback, omitting the check, its helpers and stand-ins."""
    notebook, hidden = vars(sys.modules["__main__"]), (*_files_of_check(error), STAND_INS_FILE)
    lines = []
    for frame, number in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if frame.f_globals is notebook and code.co_filename not in hidden and not is_provided(code):
            line = linecache.getline(code.co_filename, number).strip()
            lines.append(f"{code.co_name}, line {number}: {line}")
    return lines[-8:]


def _files_of_check(error: BaseException) -> tuple[str, str]:
    """Return the files of these helpers and of the check that raised an error."""
    helpers = _message.__code__.co_filename
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return helpers, next((file for file in files if file != helpers), helpers)


def _report(replaced: dict[str, str]) -> None:
    """Print which stand-ins were used, and why."""
    for reason in (EMPTY, NO_CHECK, ""):
        names = [
            f"`{name}`"
            for name, why in replaced.items()
            if name in _used and (why if why in (EMPTY, NO_CHECK) else "") == reason
        ]
        if names:
            print(
                f"Used a stand-in, because your version {reason or 'fails its checks'}: {', '.join(names)}."
            )


def noted_stand_in(name: str, stand_in: Any) -> Any:
    """Return a stand-in that records its use."""
    function: Any = stand_in.__init__ if isinstance(stand_in, type) else stand_in  # type: ignore[misc]

    @functools.wraps(function)
    def noted(*args: Any, **kwargs: Any) -> Any:
        _used.add(name)
        return function(*args, **kwargs)

    if isinstance(stand_in, type):
        stand_in.__init__ = noted  # type: ignore[misc]
        return stand_in
    return noted
