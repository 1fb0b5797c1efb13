"""Test that the visible checks identify known mistakes and never report the wrong one.

`make hints` tests every mistake. The test suite covers only the mistakes of one exercise per chapter.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import sys
import tomllib
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import nbformat
import pytest

from autograder.course import config as courses
from autograder.course.config import Day
from autograder.execution.catalogue import known_mistakes
from autograder.in_notebook.hints import explain, results
from autograder.release import helper_cells
from autograder.release.visible_checks import Notebook
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

COURSE = courses.load(ROOT)
NOTICED = tomllib.loads((ROOT / "tests" / "noticed_mistakes.toml").read_text(encoding="utf-8"))
# The number of mistakes that noticed_mistakes.toml lists as detected by the visible checks. It must not decrease.
LENGTHS = {"day1": 350, "day2": 678}
ALL = os.environ.get("HINTS") == "all"
SOME = {
    "day1": ("attention_scores", "causal_mask", "shift_matrix", "split_heads", "LayerNorm"),
    "day2": ("next_token_loss", "skew", "unpatchify", "ddim_step", "alibi_bias"),
}
MAX_BYTES = 300_000


@pytest.fixture
def main_module() -> Iterator[None]:
    """Restore the main module after a test."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@cache
def recorded(day: Day) -> dict[str, Any]:
    """Return the outputs of known mistakes in a day's released notebook."""
    release = nbformat.read(ROOT / "assignments" / day.name / f"{day.name}.ipynb", as_version=4)
    outputs = [helper_cells.recorded_outputs(cell.source, day) for cell in release.cells]
    found = [each for each in outputs if each is not None]
    assert len(found) == 1, (
        f"the release of {day.name} is outdated: run `autograder build {day.name}`"
    )
    return found[0]


def hint(notebook: Notebook, exercise: str, source: str) -> str | None:
    """Run the checks on a wrong version of an exercise. Return the hint, "" if there is none, or None if the checks pass."""
    names = vars(notebook.module)
    own = names[exercise]
    try:
        notebook.run(source, exercise)
        names[f"check_{exercise}"]()
    except Exception as error:
        return str(error).partition("\n\nHint: ")[2]
    else:
        return None
    finally:
        names[exercise] = own


@pytest.mark.parametrize("name", NOTICED)
def test_the_list_of_noticed_mistakes_does_not_shrink(name: str) -> None:
    known = known_mistakes(COURSE.day(name))
    listed = {(exercise, mistake) for exercise, names in NOTICED[name].items() for mistake in names}
    assert len(listed) == LENGTHS[name]
    assert listed <= {(exercise, m.name) for exercise, ms in known.items() for m in ms}


@pytest.mark.parametrize("name", COURSE.days)
def test_the_released_results_are_small(name: str) -> None:
    text = json.dumps(recorded(COURSE.day(name)), separators=(",", ":"))
    assert len(base64.b64encode(zlib.compress(text.encode(), 9))) < MAX_BYTES


# The first words of hints. Each of these mistakes differs from another one only by an additional error, so the hint for
# that other mistake is also correct.
ALSO_TRUE = (
    "In your code, a query with no allowed keys attends to all keys equally. In float16,",
    "Your code takes one row of the table per sequence",
    "Your code uses the noise level of step t + 1, so it fails",
    "The denominator in your exponent is half − 1, which is 0",
    "Your frequencies decay twice as fast as they should, and your code fails for an odd",
    "Your code ignores `dim`: the result always sums to 1 along axis 1",
)


@pytest.mark.parametrize("name", COURSE.days)
def test_an_unknown_mistake_is_not_reported_as_a_known_one(name: str) -> None:
    """Remove each known mistake from the list in turn, making it an unknown mistake."""
    wrong = {}
    for exercise, known in recorded(COURSE.day(name)).items():
        for sentence, numbers in known["mistakes"]:
            others = [pair for pair in known["mistakes"] if pair[0] != sentence]
            seen = explain(results(known, numbers), known | {"mistakes": others})
            if seen and not sentence.startswith(ALSO_TRUE):
                wrong[exercise, sentence] = seen
    assert wrong == {}


@pytest.mark.parametrize("name", COURSE.days)
def test_known_mistakes_are_named_and_none_wrongly(name: str, main_module: None) -> None:
    day = COURSE.day(name)
    chosen = day.names if ALL else SOME[name]
    with contextlib.redirect_stdout(io.StringIO()):
        notebook = Notebook(day)
        vars(notebook.module)["OUTPUTS"].update(recorded(day))
        listed = named = 0
        for exercise in chosen:
            for mistake in known_mistakes(day)[exercise]:
                seen = hint(notebook, exercise, mistake.source)
                assert seen in (None, "", mistake.sentence), (exercise, mistake.name)
                if mistake.name in NOTICED[name][exercise]:
                    assert seen is not None, (
                        f"the checks of {exercise} do not catch the mistake {mistake.name!r}"
                    )
                    listed += 1
                    named += seen == mistake.sentence
    assert named >= 0.9 * listed
