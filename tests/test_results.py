"""Results by content: equal code is run once, and nothing else gets its result."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from autograder.course import config as courses
from autograder.execution.attempt import Outcome, RunSettings
from autograder.execution.source import join_units
from autograder.grading.grader import Grader
from autograder.grading.results import FILE, Result, ResultStore
from autograder.grading.runner import Runner
from autograder.marks.model import SubmissionMarks
from autograder.protocol.limits import Allowance, Budget
from autograder.sandbox.client import Server
from autograder.slicing.normal_form import normal_form
from tests import small_course
from tests.conftest import handed_in

KEY = b"k" * 32
RESULT = Result([Outcome(False, "wrong", values=None)], ["problem"], None, 1.0, 0.5)


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path)


def test_store_returns_what_was_committed(store: ResultStore, tmp_path: Path) -> None:
    store.add(KEY, RESULT)
    store.commit("day1", ["ada"])
    assert ResultStore(tmp_path).find(KEY, "") == RESULT
    assert (tmp_path / ".autograder" / FILE).stat().st_mode & 0o777 == 0o600


def test_result_with_places_counts_only_for_these_places(store: ResultStore) -> None:
    store.add(KEY, msgspec.structs.replace(RESULT, places="here"))
    store.commit("day1", ["ada"])
    assert store.find(KEY, "elsewhere") is None
    assert store.find(KEY, "here") is not None


def test_discarded_results_are_not_written(store: ResultStore) -> None:
    store.add(KEY, RESULT)
    store.discard()
    store.commit("day1", ["ada"])
    assert store.find(KEY, "") is None


def test_forget_keeps_what_others_used(store: ResultStore) -> None:
    store.add(KEY, RESULT)
    store.commit("day1", ["ada"])
    store.use(KEY)
    store.commit("day1", ["grace"])
    store.forget("day1", "ada")
    assert store.find(KEY, "") == RESULT
    store.forget("day1", "grace")
    assert store.find(KEY, "") is None


def test_oldest_results_leave_first(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.grading.results.MAX_SIZE", 200_000)
    large = msgspec.structs.replace(RESULT, problems=["x" * 20_000])
    for number in range(20):
        store.add(bytes([number]), large)
        store.commit("day1", ["ada"])
    kept = [store.find(bytes([number]), "") is not None for number in range(20)]
    assert kept == sorted(kept)
    assert kept[-1]
    assert not kept[0]


@pytest.mark.parametrize("column", ["value", "digest"])
def test_damaged_row_is_ignored(store: ResultStore, tmp_path: Path, column: str) -> None:
    store.add(KEY, RESULT)
    store.commit("day1", ["ada"])
    with sqlite3.connect(tmp_path / ".autograder" / FILE) as database:
        database.execute(f"UPDATE result SET {column} = x'00'")
    assert store.find(KEY, "") is None


def test_row_of_other_key_is_ignored(store: ResultStore, tmp_path: Path) -> None:
    store.add(KEY, RESULT)
    store.commit("day1", ["ada"])
    with sqlite3.connect(tmp_path / ".autograder" / FILE) as database:
        database.execute("UPDATE result SET key = ?", (b"j" * 32,))
    assert store.find(b"j" * 32, "") is None


def test_damaged_file_is_recreated(tmp_path: Path) -> None:
    folder = tmp_path / ".autograder"
    folder.mkdir()
    (folder / FILE).write_bytes(b"not a database" * 100)
    store = ResultStore(tmp_path)
    store.add(KEY, RESULT)
    store.commit("day1", ["ada"])
    assert store.find(KEY, "") == RESULT


def _write(root: Path, progress: Connection) -> None:
    store = ResultStore(root)
    for number in range(10**6):
        store.add(b"%d" % number, Result([Outcome(True, "m" * 5000)], [str(number)]))
        store.commit("day1", ["ada"])
        progress.send(number)


def test_killed_writer_leaves_only_whole_results(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for last in range(0, 40, 2):
        receiver, sender = fork.Pipe(duplex=False)
        writer = fork.Process(target=_write, args=(tmp_path, sender))
        writer.start()
        while receiver.recv() < last:
            pass
        writer.kill()
        writer.join()
        store = ResultStore(tmp_path)
        for number in range(last + 1):
            found = store.find(b"%d" % number, "")
            assert found == Result([Outcome(True, "m" * 5000)], [str(number)])


# ---- the text that is run


@pytest.mark.parametrize(
    "other",
    [
        "def f(x):  # comment\n\n    return x+1",
        "def f( x ):\n    # comment\n    return (x +\n  1)",
    ],
)
def test_formatting_does_not_change_the_normal_form(other: str) -> None:
    assert normal_form(other)[0] == normal_form("def f(x):\n    return x + 1")[0]


@pytest.mark.parametrize(
    "other",
    [
        "def f(x):\n    return x + 2",
        "def f(x):\n    return x + 1.0",
        "def f(x):\n    'doc'\n    return x + 1",
        "def f(y):\n    return y + 1",
        "def f(x: int):\n    return x + 1",
    ],
)
def test_other_code_has_another_normal_form(other: str) -> None:
    assert normal_form(other)[0] != normal_form("def f(x):\n    return x + 1")[0]


def test_docstrings_and_strings_are_kept() -> None:
    assert normal_form("x = '\ufb01'")[0] != normal_form("x = 'fi'")[0]
    code = normal_form('def f():\n    """A  # not a comment"""')[0]
    scope: dict[str, object] = {}
    exec(code, scope)
    assert scope["f"].__doc__ == "A  # not a comment"


def test_lines_lead_to_the_students_lines() -> None:
    text, lines = normal_form("def f(x):\n    # comment\n\n    y = (x +\n  1)\n    return y")
    assert text.split("\n") == ["def f(x):", "    y = x + 1", "    return y"]
    assert lines == (0, 3, 5)


def test_code_that_cannot_be_printed_is_run_as_it_is() -> None:
    assert normal_form("x = " + "(" * 300 + ")" * 300) == ("", ())
    assert normal_form("# NAME: the reference") == ("", ())


# ---- grading with a store

RIGHT, WRONG = small_course.RIGHT, small_course.WRONG
RAISING = RIGHT.replace("b, n, d = x.shape", "b, n, d = x.shape[1:]")


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return small_course.make(tmp_path)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the exercises whose code is run."""
    run: list[str] = []
    attempt = Runner.attempt

    def counted(self: Runner, exercise, source, settings):  # type: ignore[no-untyped-def]
        if settings.seed != "0":  # not the course's own checks
            run.append(exercise.name)
        return attempt(self, exercise, source, settings)

    monkeypatch.setattr(Runner, "attempt", counted)
    return run


def grade(root: Path, server: Server, *works: str) -> list[SubmissionMarks]:
    grader = Grader(courses.load(root).day("day1"), server, b"tests", results=ResultStore(root))
    return [grader.grade(handed_in(work)) for work in works]


def without_seconds(marks: SubmissionMarks) -> SubmissionMarks:
    exercises = [msgspec.structs.replace(e, seconds=0.0) for e in marks.exercises]
    return msgspec.structs.replace(marks, seconds=0.0, exercises=exercises)


def test_known_code_is_not_run_again(course: Path, server: Server, runs: list[str]) -> None:
    works = RIGHT, WRONG, RAISING
    cold = grade(course, server, *works)
    assert runs
    runs.clear()
    warm = grade(course, server, *works)
    assert runs == []
    assert [*map(without_seconds, warm)] == [*map(without_seconds, cold)]
    assert all(e.seconds == 0 for marks in warm for e in marks.exercises)


def test_order_changes_nothing(course: Path, server: Server) -> None:
    works = RIGHT, WRONG, RAISING
    cold = grade(course, server, *works)
    (course / ".autograder" / FILE).unlink()
    reverse = grade(course, server, *reversed(works))
    assert [*map(without_seconds, reversed(reverse))] == [*map(without_seconds, cold)]


def test_only_the_changed_exercise_runs(course: Path, server: Server, runs: list[str]) -> None:
    grade(course, server, RIGHT)
    runs.clear()
    changed = RIGHT.replace("d // n_heads)", "d // n_heads + 0)")
    grade(course, server, changed)
    assert runs == ["split_heads"]


@pytest.mark.parametrize(
    "work",
    [
        RIGHT.replace("    ### BEGIN SOLUTION\n", "\n    # a comment\n\n"),
        RIGHT.replace("x.shape", "( x ).shape"),
        "# %%\nprint('another cell')\n" + RIGHT,
    ],
)
def test_comments_and_other_cells_change_no_result(
    course: Path, server: Server, runs: list[str], work: str
) -> None:
    (plain,) = grade(course, server, RIGHT)
    runs.clear()
    (marks,) = grade(course, server, work)
    assert runs == []
    assert [e.tests for e in marks.exercises] == [e.tests for e in plain.exercises]


def test_message_names_the_place_in_this_notebook(course: Path, server: Server) -> None:
    moved = RAISING.replace("    b, n, d", "    # moved down\n    b, n, d")
    first, second = (marks.exercises[1].message for marks in grade(course, server, RAISING, moved))
    assert first != second
    assert "b, n, d = x.shape[1:]" in first
    line = 3
    assert f"line {line}: " in first
    assert first.replace(f"line {line}: ", f"line {line + 1}: ") == second


def test_only_the_edited_graders_exercise_runs(
    course: Path, server: Server, runs: list[str]
) -> None:
    grade(course, server, RIGHT)
    runs.clear()
    file = course / "graders" / "day1" / "test_heads.py"
    file.write_text(file.read_text().replace("normal(2, 3, 8)", "normal(2, 4, 8)"))
    grade(course, server, RIGHT)
    assert runs == ["split_heads"]


@pytest.mark.parametrize(
    "change",
    [
        ("return x.view", "'doc'\n    return x.view"),
        ("n_heads, d //", "n_heads, d - 0 //"),
        ("b, n, d = x.shape", "import inspect; b, n, d = x.shape"),
    ],
)
def test_result_of_right_code_does_not_count_for_similar_code(
    course: Path, server: Server, runs: list[str], change: tuple[str, str]
) -> None:
    grade(course, server, RIGHT)
    runs.clear()
    grade(course, server, RIGHT.replace(*change))
    assert runs[0] == "split_heads"


READS_ITS_LINES = """
    import inspect, linecache, sys
    frame = sys._getframe()
    if frame.f_lineno - frame.f_code.co_firstlineno > 4:
        return x
"""


def test_code_cannot_see_comments_and_line_numbers(course: Path, server: Server) -> None:
    code = RIGHT.replace(
        "    b, n, d = x.shape", READS_ITS_LINES.strip("\n") + "\n    b, n, d = x.shape"
    )
    spread = code.replace("    frame =", "\n" * 9 + "    # comment\n    frame =")
    (first,) = grade(course, server, code)
    (course / ".autograder" / FILE).unlink()
    (second,) = grade(course, server, spread)
    assert first.exercises[1].tests == second.exercises[1].tests
    assert first.points == second.points


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", ["import os; os._exit(1)", "raise MemoryError", "while True: pass"]
)
def test_crashes_timeouts_and_memory_failures_are_not_kept(
    course: Path, server: Server, runs: list[str], body: str
) -> None:
    work = RIGHT.replace("b, n, d = x.shape", body)
    grade(course, server, work)
    runs.clear()
    grade(course, server, work)
    assert "split_heads" in runs


# Pairs of a student's code and code that looks the same to someone who compares it carelessly.
ALIKE = {
    "docstring": ('"""one"""; b', "b"),
    "constant type": ("scale = 1; b", "scale = 1.0; b"),
    "sign of zero": ("scale = 0.0; b", "scale = -0.0; b"),
    "similar letters": ('name = "a"; b', 'name = "\u0430"; b'),
    "letters that normalise alike": ('name = "\ufb01"; b', 'name = "fi"; b'),
    "string prefix": ('name = "a"; b', 'name = b"a"; b'),
    "separator": ('name = "a\\0b"; b', 'name = "ab"; b'),
    "placeholder": ("# padding_mask: the reference\n    b", "b"),
}
# Each version passes only if its result is not that of the other version.
TELLING = """
    import inspect
    if len(inspect.getsource(split_heads)) % 2:
        return x
"""


@pytest.mark.parametrize("telling", ["", TELLING], ids=["", "reads its own code"])
def test_a_stored_result_never_changes_another_submissions_marks(
    course: Path, server: Server, telling: str
) -> None:
    parts = [part for pair in ALIKE.values() for part in pair]
    works = [RIGHT.replace("    b, n, d =", f"{telling}    {part}, n, d =") for part in parts]
    alone = Grader(courses.load(course).day("day1"), server, b"tests")
    expected = [without_seconds(alone.grade(handed_in(work))) for work in works]
    assert [*map(without_seconds, grade(course, server, *works))] == expected
    (course / ".autograder" / FILE).unlink()
    assert [*map(without_seconds, grade(course, server, *works[::-1]))] == expected[::-1]


FORGER = """
    import gc, msgspec, os, sys
    for number in range(3, 64):
        try:
            os.write(number, FORGED)
        except OSError:
            pass
"""


def test_messages_forged_by_a_worker_change_no_stored_result(course: Path, server: Server) -> None:
    (honest,) = grade(course, server, WRONG)
    (course / ".autograder" / FILE).unlink()
    result = msgspec.msgpack.encode(Result([Outcome(True, "")] * 9))
    forger = WRONG.replace(
        "    b, n, d =", FORGER.replace("FORGED", repr(result)) + "    b, n, d ="
    )
    first, second = grade(course, server, forger, WRONG)
    assert without_seconds(second) == without_seconds(honest)
    assert (first.points or 0) <= (honest.points or 0)


def test_result_with_a_reference_is_not_that_of_the_students_own_code(
    course: Path, server: Server, runs: list[str]
) -> None:
    calling = RIGHT.replace("    b, n, d =", "    padding_mask(x[0].long(), 0)\n    b, n, d =")
    broken = calling.replace("tokens != pad_id", "tokens.missing")
    works = calling, broken
    cold = [*map(without_seconds, grade(course, server, *works))]
    assert [e.reference_for for m in cold for e in m.exercises] == [[], [], [], ["padding_mask"]]
    runs.clear()
    assert [*map(without_seconds, grade(course, server, *works))] == cold
    assert runs == []
    (course / ".autograder" / FILE).unlink()
    assert [*map(without_seconds, grade(course, server, *works[::-1]))] == cold[::-1]


def test_budget_is_charged_for_known_code(course: Path, server: Server) -> None:
    grade(course, server, RIGHT)
    day = courses.load(course).day("day1")
    grader = Grader(day, server, b"tests", results=ResultStore(course))
    budget = Budget(Allowance(100, 100), "submission")
    allowed = Budget(Allowance(1e-9, 1e-9), "submission")
    exercise = day.exercises[0]
    source = join_units(grader.key.slice_for(exercise.name, grader.key.solutions).units)
    results = grader.exercises.results
    assert results
    grader.exercises._result(exercise, source, RunSettings("s"))
    results.commit("day1", ["ada"])
    _, is_new = grader.exercises._result(exercise, source, RunSettings("s", budget))
    assert not is_new
    assert budget.cpu > 0
    _, is_new = grader.exercises._result(exercise, source, RunSettings("s", allowed))
    assert is_new


def test_marks_do_not_depend_on_what_is_known(course: Path) -> None:
    """The rest of the JSON is the same whether code is run or known, for any number of processes."""

    def marks(*options: str) -> str:
        done = small_course.command(
            course, "grade", "day1", "work", "--json", "marks.json", *options
        )
        assert done.returncode == 0, done.stderr
        stored = json.loads((course / "marks.json").read_bytes())
        return json.dumps(_without_seconds(stored))

    small_course.hand_in(course / "work", 6)
    cold = marks("--jobs", "1")
    (course / ".autograder" / "marks.db").unlink()
    assert marks("--jobs", "2") == cold
    assert marks("--jobs", "2", "--force") == cold
    (course / ".autograder" / FILE).unlink()
    assert marks("--jobs", "2", "--force") == cold


def _without_seconds(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_seconds(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_seconds(v) for key, v in value.items() if key != "seconds"}
    return value


def test_grade_says_how_many_exercises_were_known(course: Path) -> None:
    def grade_class(*options: str) -> str:
        done = small_course.command(course, "grade", "day1", "work", "--jobs", "2", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    small_course.hand_in(course / "work", 1)
    assert "known" not in grade_class()
    (course / "work" / "student00.py").write_text(RIGHT + "# edited\n")
    assert "2 of 2 exercises were known" in grade_class()
    assert "known" not in grade_class("--force")
    small_course.command(course, "forget", "day1", "student00")
    assert "known" not in grade_class()
