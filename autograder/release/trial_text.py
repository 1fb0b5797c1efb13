"""Format an exercise's trial results as lines of text. Entry point: `lines`."""

from __future__ import annotations

from collections.abc import Iterator

from autograder.plain_text import counted
from autograder.release.trial import Result, Trial


def lines(trial: Trial) -> Iterator[str]:
    """Yield the lines that `autograder try` prints about an exercise."""
    exercise = trial.exercise
    tests = counted(len(trial.sentences), "hidden test")
    yield f"{exercise.name}: {counted(exercise.points, 'point')}, {tests}"
    yield from (f"✗ {fault}" for fault in trial.faults)
    for result in trial.results:
        yield f"{'✗' if result.faults else '✓'} {_title(result)}"
        yield from (f"    ✗ {fault}" for fault in result.faults)
        if result.answer.mistake:
            yield from (f"    {line}" for line in _feedback(trial, result))


def _title(result: Result) -> str:
    return f"mistake: {result.answer.name}" if result.answer.mistake else result.answer.name


def _feedback(trial: Trial, result: Result) -> Iterator[str]:
    """Yield the messages shown to a student who makes a known mistake."""
    assert result.answer.mistake
    message = next((line for line in result.check.splitlines() if line), "it passes")
    yield f"visible check: {message}"
    for test in list(result.failed)[:1]:
        more = len(result.failed) - 1
        yield f"{test}{f' and {more} more' if more else ''}: {trial.sentences[test]}"
    yield f"feedback: {result.answer.mistake.sentence}"
