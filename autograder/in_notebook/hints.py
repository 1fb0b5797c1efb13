"""Identify a known mistake when a visible check fails. Entry point: `find_mistake`."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import itertools
import sys
from collections.abc import Sized
from typing import Any

from autograder.in_notebook.helper_names import loaded_torch, seeded, student_names

# Exercise → methods to record, summaries of calls, and the indices of these calls for the solution and each known mistake.
OUTPUTS: dict[str, Any] = {}


def find_mistake(exercise: str, check: Any) -> str:
    """Return a hint if the code has the same results as exactly one known mistake. Otherwise, return ""."""
    with ignoring_errors():  # hints are optional: the check's message is always shown
        known = OUTPUTS[exercise]
        return explain(observe(exercise, check, known["methods"]), known)
    return ""


def explain(seen: list[list[Any]], known: dict[str, Any]) -> str:
    """Return a hint if exactly one known mistake has these results. Otherwise, return ""."""
    correct = results(known, known["correct"])
    mistakes = [(str(hint), results(known, numbers)) for hint, numbers in known["mistakes"]]
    exact = {hint for hint, wrong in mistakes if are_alike(seen, wrong)}
    found = exact or {hint for hint, wrong in mistakes if _alike_if_run(seen, wrong, correct)}
    return found.pop() if len(found) == 1 else ""


def results(known: dict[str, Any], numbers: list[list[int]]) -> list[list[Any]]:
    """Look up the summaries of recorded calls. `numbers` contains a list of call numbers for each statement in the check."""
    return [[known["calls"][number] for number in statement] for statement in numbers]


def _alike_if_run(seen: list[list[Any]], wrong: list[list[Any]], correct: list[list[Any]]) -> bool:
    """Return whether results match a mistake up to the first error. Later results may differ if part of the code is unfinished.

    In each statement of the check, calls are compared until the student's code raises an error that the solution does not
    raise. The check reports the first of these errors. The mistake must therefore change an earlier result, or raise an
    error in the same call.
    """
    noticed = False
    for statement in zip(seen, wrong, correct, strict=True):
        for own, mistaken, right in itertools.zip_longest(*statement):
            if _is_error(own) and not _is_error(right):
                if not noticed and not _is_error(mistaken):
                    return False
                break
            if not are_alike(own, mistaken):
                return False
            noticed = noticed or not are_alike(mistaken, right)
    return noticed


def _is_error(call: Any) -> bool:
    return isinstance(call, list) and call[0] == "error"


def are_alike(a: Any, b: Any) -> bool:
    """Return whether two summaries are equal, with a tolerance for numbers."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(are_alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b) or abs(a - b) <= 2e-3 * (1 + abs(b)) < float("inf")
    return bool(a == b)


def observe(exercise: str, check: Any, methods: list[str]) -> list[list[Any]]:
    """Run a check with two seeds, ignoring assertions. Return a summary of each call, or "random" if it depends on the seed."""
    tree = ast.fix_missing_locations(_WithoutAsserts().visit(ast.parse(inspect.getsource(check))))
    runs: list[list[list[Any]]] = [[], []]
    for seed, statements in enumerate(runs):
        calls: list[Any] = []
        scope = dict(vars(sys.modules["__main__"]))
        scope[exercise] = _recorded(scope[exercise], methods, calls, seed)
        scope |= dict.fromkeys(("expecting", "expecting_value_error"), ignoring_errors)
        with seeded(0), contextlib.redirect_stdout(io.StringIO()):
            for statement in tree.body[0].body:
                calls.clear()
                with ignoring_errors():
                    exec(compile(ast.Module([statement], []), exercise, "exec"), scope)
                statements.append(calls[:])
    return [
        [a if are_alike(a, b) else "random" for a, b in zip(*pair, strict=False)]
        for pair in zip(*runs, strict=True)
    ]


def ignoring_errors(*_: str) -> contextlib.suppress:
    return contextlib.suppress(Exception)


class _WithoutAsserts(ast.NodeTransformer):
    visit_Assert = staticmethod(lambda node: ast.Expr(node.test))
    visit_Raise = staticmethod(lambda node: ast.Pass())


def _recorded(function: Any, methods: list[str], calls: list[Any], seed: int) -> Any:
    """Wrap a function, or a class and its methods, so that each call adds a summary to `calls`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        number, inputs, record = len(calls), [*args, *kwargs.values()], ["error"]
        before = _summary(inputs)
        calls.append(record)
        try:
            with seeded(seed), student_names():
                result = function(*args, **kwargs)
        except Exception as error:
            record.append(type(error).__name__)
            raise
        finally:
            del calls[number + 1 :]  # only the outermost call counts
        after = _summary(inputs)
        record[:] = [_summary(result), [] if are_alike(before, after) else after]
        with ignoring_errors():
            torch = loaded_torch()
            leaves = [x for x in inputs if x.requires_grad]
            total = sum(map(torch.norm, result if isinstance(result, list | tuple) else [result]))
            record.append(_summary(torch.autograd.grad(total, leaves, retain_graph=True)))
        for name in methods:
            setattr(result, name, _recorded(getattr(result, name), [], calls, seed))
        return result

    return call


def _summary(value: Any) -> Any:
    """Convert a result to lists, strings and numbers. A tensor or array is reduced to at most 32 entries."""
    torch = loaded_torch()
    if type(value).__name__ == "ndarray":
        places = value.ravel()[:: 1 + (value.size - 1) // 32] if value.dtype.kind in "biufc" else []
        numbers = [part for x in places for part in ((x.real, x.imag) if x.imag.any() else (x,))]
        return [f"{value.dtype} {value.shape}", *(float(f"{number:.4g}") for number in numbers)]
    if torch and isinstance(value, torch.Tensor):
        places = torch.linspace(0, value.numel() - 1, min(value.numel(), 32)).long()
        numbers = [] if value.is_meta else value.detach().double().flatten()[places].tolist()
        kind = f"{value.dtype} {value.device} {tuple(value.shape)} {value.requires_grad}"
        return [kind, *(float(f"{number:.4g}") for number in numbers)]
    if torch and isinstance(value, torch.nn.Module):
        shapes = sorted(f"{name} {tuple(p.shape)}" for name, p in value.named_parameters())
        kept = sorted(str(tuple(entry.shape)) for entry in value.state_dict().values())
        # A check's own model may record calls in lists.
        lists = [v for name, v in vars(value).items() if isinstance(v, list) and name[0] != "_"]
        return [*shapes, *kept, str(value.training), *map(_summary, lists)]
    if type(value).__name__ == "Generator":
        return "generator"  # its repr contains a memory address
    if isinstance(value, float):
        return ["float", float(f"{value:.4g}")]
    if isinstance(value, bool | int | str):
        return [type(value).__name__, str(value)]
    if isinstance(value, Sized) and not isinstance(value, list | tuple | dict):
        return [type(value).__name__, str(len(value))]  # a cache, whose repr is an address
    if type(value).__module__ == "__main__" and not isinstance(value, tuple):
        return [type(value).__name__]
    return list(map(_summary, value)) if isinstance(value, list | tuple) else str(value)
