"""Test that the graders detect modules that set a seed in every call, or store their settings on the class."""

from __future__ import annotations

import re
from functools import cache

import pytest

from autograder.course import config as courses
from autograder.execution.attempt import derive_seed
from autograder.execution.source import join_units
from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.sandbox.worker.in_process import LocalProcess
from autograder.slicing.dependencies import slice_for
from autograder.slicing.statements import parse_units
from autograder.submissions.cell import Cell
from bench.mutants import Judge
from bench.mutations import solution
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

WITH_DROPOUT = {
    "day1": ("PositionalEncoding", "FeedForward", "EncoderLayer", "DecoderLayer", "Transformer"),
    "day2": ("CausalSelfAttention", "GPTBlock", "GPT"),
}
SEEDED = [(day, name) for day, names in WITH_DROPOUT.items() for name in names]
# A day, an exercise, a statement of its solution, and the same statement for the class instead of the instance.
ON_THE_CLASS = [
    (
        "day1",
        "PositionalEncoding",
        'self.register_buffer("table", table, persistent=False)',
        "type(self).table = table",
    ),
    ("day1", "MultiHeadAttention", "self.n_heads = n_heads", "type(self).n_heads = n_heads"),
    ("day1", "Transformer", "self.pad_id = pad_id", "type(self).pad_id = pad_id"),
    ("day2", "CausalSelfAttention", "self.n_heads, self", "type(self).n_heads, self"),
    (
        "day2",
        "PatchEmbedding",
        "self.patch_size = patch_size",
        "type(self).patch_size = patch_size",
    ),
]


@cache
def judge(day: str) -> Judge:
    return Judge(courses.load(ROOT).day(day))


def own_solution(day: str, name: str) -> str:
    exercise = next(exercise for exercise in judge(day).day.exercises if exercise.name == name)
    return solution(judge(day).day, exercise)


def failures(day: str, name: str, source: str) -> dict[str, str]:
    """Run an exercise's hidden tests on a version of its solution. Return the messages of the tests that fail."""
    assert source != own_solution(day, name)
    others = [unit for unit in judge(day).solutions if name not in unit.binds]
    units = [*others, *parse_units([Cell(0, "code", source)])[0]]
    code = slice_for(name, units, judge(day).given, judge(day).day.names)
    assert code is not None
    text, student = join_units(code.units), Student(LocalProcess())
    student.load(m.Load(text.text, list(text.pieces), name, 0))
    found: dict[str, str] = {}
    for test in judge(day).tests[name]:
        try:
            test.run(student, derive_seed("1", test.exercise, test.name))
        except Exception as error:
            found[test.name] = str(error)
    return found


@pytest.mark.parametrize(("day", "name"), SEEDED)
def test_setting_a_seed_in_every_call_fails_one_test(day: str, name: str) -> None:
    method = "encode" if name == "Transformer" else "forward"
    body = re.compile(rf"def {method}\(.*?### BEGIN SOLUTION\n", re.DOTALL)
    seeded = body.sub(
        lambda found: f"{found[0]}        torch.manual_seed(0)\n", own_solution(day, name)
    )
    (message,) = failures(day, name, seeded).values()
    assert "two calls give the same result; does your code set a seed?" in message


@pytest.mark.parametrize(("day", "name", "before", "after"), ON_THE_CLASS)
def test_storing_settings_on_the_class_is_detected(
    day: str, name: str, before: str, after: str
) -> None:
    source = own_solution(day, name)
    assert before in source
    assert failures(day, name, source.replace(before, after))
