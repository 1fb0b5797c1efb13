"""Test the provided cell, how much code students see, and that the cell does not affect grading."""

from __future__ import annotations

import inspect
import re
import sys
import types
from typing import Any

import msgspec
import pytest
from nbformat import NotebookNode

from autograder.course import config as courses
from autograder.course.chapters import CHECK_PREFIX
from autograder.course.config import Day
from autograder.in_notebook.frames import hide_provided_code
from autograder.release import helper_cells
from autograder.release.notebook import solution_notebook
from autograder.slicing import notebook_slicer
from autograder.slicing.slicer import encode_course
from autograder.submissions.cell import Cell
from autograder.submissions.reader_messages import ReleasedCourse
from tests.conftest import ROOT

COURSE = courses.load(ROOT)
MAX_LINES = {"day1": 900, "day2": 2000}  # of visible code
PROVIDED = "helper-2"


def visible_code(day: Day) -> dict[str, str]:
    """Return the sources of the code cells that students get."""
    cells = [cell for chapter in day.chapters for cell in chapter.cells]
    stubs = {cell.name: cell.stub for cell in cells if cell.role == "exercise"}
    return {
        c.id: stubs.get(c.id, re.sub(r"\n### BEGIN HIDDEN TESTS.*", "", c.source, flags=re.DOTALL))
        for c in solution_notebook(day).cells
        if c.cell_type == "code"
    }


def n_lines(source: str) -> int:
    return source.count("\n") + 1


@pytest.mark.parametrize("name", MAX_LINES)
def test_students_see_little_code_that_is_not_theirs(name: str) -> None:
    code = visible_code(COURSE.day(name))
    assert [id_ for id_, source in code.items() if helper_cells.unpacked(source)[0]] == [PROVIDED]
    assert n_lines(code[PROVIDED]) <= 12
    checks = {exercise: code[CHECK_PREFIX + exercise] for exercise in COURSE.day(name).names}
    assert checks == {e: f"check_{e}(){helper_cells.ORIGIN}" for e in checks}
    assert sum(map(n_lines, code.values())) <= MAX_LINES[name]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return vars(module)


@pytest.mark.parametrize("name", MAX_LINES)
def test_the_code_of_a_check_can_be_read(name: str, main: dict[str, Any]) -> None:
    day = COURSE.day(name)
    exec(helper_cells.provided_cell(day, {}), main)
    for exercise in day.names:
        source = inspect.getsource(main[f"check_{exercise}"])
        assert source.startswith(f"@visible_check\ndef check_{exercise}():")


def test_two_versions_are_both_named(
    main: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    results: list[dict[str, Any]] = [{}, {"softmax": {}}]
    cells = [helper_cells.provided_cell(COURSE.day("day1"), outputs) for outputs in results]
    versions = [found[1] for cell in cells if (found := re.search(r'run_provided\("(\w+)"', cell))]
    exec(cells[0], main)
    exec(cells[0], main)
    assert capsys.readouterr().out == ""
    exec(cells[1], main)
    printed = capsys.readouterr().out
    assert all(version in printed for version in versions)
    assert len(set(versions)) == 2


def test_tracebacks_show_only_the_students_frames(main: dict[str, Any]) -> None:
    exec(compile("def call(f): f()", "<provided: a.py>", "exec"), main)
    exec(compile("def own(): 1 / 0", "<own>", "exec"), main)
    exec(compile("def start(): call(own)", "<cell>", "exec"), main)
    with pytest.raises(ZeroDivisionError) as raised:
        main["start"]()
    hide_provided_code(raised.value)
    shown = []
    entry = raised.value.__traceback__
    while entry is not None:
        shown.append(entry.tb_frame.f_code.co_name)
        entry = entry.tb_next
    assert shown[-2:] == ["start", "own"]


def slices(day: Day, cells: list[NotebookNode]) -> list[tuple[str, list[str]]]:
    course = msgspec.msgpack.decode(encode_course(day), type=ReleasedCourse)
    code = [
        Cell(n, "code", cell.source) for n, cell in enumerate(cells) if cell.cell_type == "code"
    ]
    found = notebook_slicer.NotebookSlicer(notebook_slicer._prepared(course), code).slice_all()
    return [(s.exercise, [found.statements[n].source for n in s.statements]) for s in found.slices]


@pytest.mark.parametrize("name", MAX_LINES)
def test_an_edited_or_deleted_provided_cell_changes_no_slice(name: str) -> None:
    day = COURSE.day(name)
    cells = list(solution_notebook(day).cells)
    whole = slices(day, cells)
    assert [exercise for exercise, code in whole if code] == list(day.names)
    assert not [code for _, code in whole if "run_provided" in "\n".join(code)]
    (at,) = (n for n, cell in enumerate(cells) if cell.id == PROVIDED)
    assert slices(day, cells[:at] + cells[at + 1 :]) == whole
    cells[at] = NotebookNode(cells[at], source=cells[at].source.replace('("', '("edited', 1))
    assert slices(day, cells) == whole
