"""Hidden tests for the warm-up. The versions that students hunt bugs in are given code, so the grader runs the course's."""

import math

import torch
from torch import Tensor

from autograder.execution.checks import Draw, close, finite, shaped, unchanged, weight
from solutions.day2.bug_hunt import largest_error, why_invalid

ATOL = 1e-3


def valid_inputs(seen: object) -> tuple[int, Tensor, Tensor, Tensor]:
    """Return the version's number and its inputs, after checking them."""
    is_right = isinstance(seen, list | tuple) and len(seen) == 4
    assert is_right, "the result should consist of four values: number, query, key and mask"
    number, *inputs = seen
    reason = why_invalid(number, *inputs)
    assert not reason, f"this is not a valid input, because {reason}"
    return number, *inputs


class TestCounterexample:
    exercise = "counterexample"

    @weight(1)
    def test_valid(self, student):
        """Your function returns the number of a version and valid inputs for it."""
        valid_inputs(student.counterexample())

    @weight(3)
    def test_exposes(self, student):
        """For your inputs, the version's weights contain NaN, or an error of more than 0.01."""
        number, *inputs = valid_inputs(student.counterexample())
        error = largest_error(number, *inputs)
        assert error > 0.01, (
            f"version {number} is right for your inputs: its largest error is {error:.2g}"
        )


def oracle(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Compute each weight by the formula, in float64."""
    rows = []
    for q, allowed in zip(query.double(), mask.tolist(), strict=True):
        scores = [float(q @ k.double()) / math.sqrt(len(q)) for k in key]
        largest = max(s for s, shown in zip(scores, allowed, strict=True) if shown)
        powers = [
            math.exp(s - largest) if shown else 0.0
            for s, shown in zip(scores, allowed, strict=True)
        ]
        rows.append([power / sum(powers) for power in powers])
    return torch.tensor(rows)


def check_weights(student, query: Tensor, key: Tensor, mask: Tensor) -> None:
    """Compare the student's weights with the oracle's."""
    seen = shaped(
        student.repaired_weights(query, key, mask), mask.shape, torch.float32, "the weights"
    )
    close(finite(seen, "the weights"), oracle(query, key, mask), "the weights", ATOL, ATOL)


class TestRepairedWeights:
    exercise = "repaired_weights"

    @weight(2)
    def test_without_mask(self, student, seed):
        """If every key is allowed, the weights are the softmax of the scores, divided by √d."""
        draw = Draw(seed)
        query, key = draw.normal(4, 6, scale=2.0), draw.normal(3, 6)
        check_weights(student, query, key, torch.ones(4, 3, dtype=torch.bool))

    @weight(3)
    def test_with_mask(self, student, seed):
        """Each query has its own mask, which may have gaps. The weights of its allowed keys sum to 1."""
        draw = Draw(seed)
        query, key = draw.normal(3, 5), draw.normal(7, 5)
        mask = torch.tensor([[0, 1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 1, 1], [0, 0, 1, 0, 1, 0, 1]])
        check_weights(student, query, key, mask.bool())
        unchanged(student)

    @weight(2)
    def test_large_scores(self, student, seed):
        """Large scores cause no overflow, whether the keys are allowed or hidden."""
        draw = Draw(seed)
        query, key = 50 * torch.ones(1, 4), draw.normal(6, 4, scale=0.004)
        key += torch.tensor([2.0, 2, -2, -2, 2, 2])[:, None]
        for mask in ([1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0]):
            check_weights(student, query, key, torch.tensor([mask]).bool())
