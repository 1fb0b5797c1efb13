"""Test that in classes with hostile submissions, honest students keep their marks and hostile ones get the expected results.

Grading must also stay within its time and memory limits. By default, only two classes with the short cases are
graded. With `ATTACKS=all`, which `make attacks` sets, every case is graded in a separate class. Groups of a dozen cases are then
also graded as the user `nobody`, with and without namespaces.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attacks.classes.cases import ALL, ALONE, GROUPED, SHORT, WHOLE
from tests.attacks.classes.running import (
    MODES,
    Course,
    HostileClass,
    Mode,
    complaints,
    student,
)

pytestmark = pytest.mark.slow

IS_LONG = os.environ.get("ATTACKS") == "all"
LONG = [
    *((MODES[0], class_) for class_ in [*ALONE, WHOLE]),
    *((m, g) for m in MODES[1:] for g in GROUPED),
]
RUNS = [
    pytest.param(mode, class_, id=f"{mode}: {class_.name}")
    for mode, class_ in (LONG if IS_LONG else [(MODES[0], class_) for class_ in SHORT])
]
GRACE = 30.0  # A run is killed this many seconds after its limit.


@pytest.fixture(scope="module")
def courses() -> Iterator[Callable[[Mode], Course]]:
    """Return a function that copies the course to a temporary folder, for a given user and sandbox configuration."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def course(mode: Mode) -> Course:
            return Course(Path(stack.enter_context(tempfile.TemporaryDirectory())), mode)

        yield course


def test_the_cases_are_complete_and_consistent() -> None:
    names = Counter(student(case) for case in ALL)
    assert not [name for name, count in names.items() if count > 1]
    assert len(ALONE) >= 40
    assert all(case.outcomes for case in ALL)


@pytest.mark.parametrize(("mode", "class_"), RUNS)
def test_a_hostile_class(
    courses: Callable[[Mode], Course], mode: Mode, class_: HostileClass
) -> None:
    graded = courses(mode).grade(class_, class_.seconds + GRACE)
    found = list(complaints(class_, graded))
    assert not found, "\n".join(found)
