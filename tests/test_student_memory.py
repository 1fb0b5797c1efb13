"""Test that correct code may keep large tables, and that the feedback on too much memory names the limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from autograder.execution.attempt import Attempt, RunSettings
from autograder.execution.source import join_units
from autograder.protocol.limits import Limits
from autograder.sandbox.client import Server
from autograder.slicing.dependencies import slice_for
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell
from tests.hidden_tests import judge_of, solution_of
from tests.timed_work import Scripted, attempt_of

pytestmark = pytest.mark.slow

ATTENTION = "        ### END SOLUTION\n\n    def forward("
MASK = "torch.ones(n, m, dtype=torch.bool, device=x.device).tril(m - n)"
# Statements that keep a large table in every attention layer, and the mask that is computed from the table.
TABLES = {
    "a float mask": (
        'self.register_buffer("mask", torch.triu(torch.ones(4096, 4096), diagonal=1))',
        "self.mask[m - n : m, :m] == 0",
    ),
    "a bool mask of GPT-2's shape": (
        'self.register_buffer("bias", torch.ones(8192, 8192, dtype=torch.bool).tril()[None, None])',
        "self.bias[0, 0, m - n : m, :m]",
    ),
    "a float64 table": (
        'self.register_buffer("table", torch.zeros(4096, 4096, dtype=torch.float64))',
        MASK,
    ),
    "a plain attribute": ("self.table = torch.zeros(4096, 4096)", MASK),
    "copies in a list": (
        "self.tables = [torch.zeros(4096, 4096) for _ in range(2)]",
        MASK,
    ),
    "a reference cycle": ("self.table, self.own = torch.zeros(4096, 4096), lambda: self", MASK),
    "a deep copy": (
        'self.register_buffer("table", copy.deepcopy(torch.zeros(4096, 4096)), persistent=False)',
        MASK,
    ),
}


def lost(server: Server, name: str, own: str) -> Iterator[str]:
    """Grade an exercise with `own` as its CausalSelfAttention. Yield a line for each failed test."""
    judge, exercise = judge_of(name)
    units = [u for u in judge.solutions if "CausalSelfAttention" not in u.binds]
    units += parse_units([Cell(0, "code", own)])[0]
    code = slice_for(name, units, judge.given, judge.day.names)
    assert code is not None
    attempt = Attempt(server, exercise, join_units(code.units), RunSettings("0"))
    for test in judge.tests[name]:
        outcome = attempt.run_test(test)
        if not outcome.passed:
            yield f"{test.name}: {outcome.message}"
    attempt.stop()


@pytest.mark.parametrize("kind", TABLES)
def test_large_tables_cost_no_points(kind: str, server: Server) -> None:
    table, allowed = TABLES[kind]
    own = solution_of("CausalSelfAttention")
    own = own.replace(ATTENTION, f"        {table}\n{ATTENTION}", 1)
    own = "import copy\n" + own.replace(MASK, allowed, 1)
    for name in ("GPT", "CausalSelfAttention"):
        assert [*lost(server, name, own)] == []


HUNGRY = {
    "torch.zeros(2**30, 8)": "RuntimeError",
    "torch.ones(30_000, 30_000) + 1": "RuntimeError",
    "np.zeros(2**33)": "MemoryError",
    "bytearray(2**34)": "MemoryError",
    "[torch.empty(2**26) for _ in range(50)]": "RuntimeError",
    "torch.nn.Linear(60_000, 60_000)": "RuntimeError",
}


@pytest.mark.parametrize("code", HUNGRY)
def test_the_feedback_on_too_much_memory_names_the_limit(code: str, server: Server) -> None:
    def run(student: Any, _: int) -> None:
        student.f()

    limits = Limits(5, 30, 1_500_000_000)
    source = f"import numpy as np\nimport torch\ndef f():\n    return {code}\n"
    (outcome,) = Scripted(run).outcomes(attempt_of(server, limits, source))
    expected = f"`f` raised {HUNGRY[code]}: the exercise used more than 1.5 GB of memory"
    assert outcome.message.startswith(expected)
    assert "allocat" not in outcome.message


def test_loading_too_much_memory_names_the_limit(server: Server) -> None:
    source = "import torch\nTABLE = torch.zeros(2**30, 8)\ndef f():\n    return TABLE.sum()\n"
    limits = dataclasses.replace(judge_of("GPT")[1].limits, memory=800_000_000)
    attempt = attempt_of(server, limits, source)
    (outcome,) = Scripted(lambda student, _: student.f()).outcomes(attempt)
    assert "used more than 800 MB of memory" in " ".join([outcome.message, *attempt.problems])
