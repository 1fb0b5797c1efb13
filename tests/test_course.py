"""Test that valid settings in grading.toml become typed values, and that errors give the line, key and expected value."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import jupytext
import pytest

from autograder.course import chapters
from autograder.course import config as courses
from autograder.course.config import CourseError, check_day, graded_exercises
from autograder.course.fingerprint import course_version, fingerprint, released_code
from autograder.course.late_policy import Policy
from autograder.execution.collect import collect
from autograder.protocol.limits import Allowance
from tests.conftest import ROOT
from tests.small_course import make

VALID = """\
[defaults]
cpu_seconds = 2
[day1]
title = "One"
[day1.exercises.f]
chapter = "first"
points = 60
memory = "1.5 GB"
[day1.exercises.g]
chapter = "first"
points = 40
not_allowed = ["softmax"]
"""

INVALID = {
    "an unknown key": ("points = 60", "point = 60", "line 7: day1.exercises.f.point: unknown key"),
    "a total with three decimals": (
        'title = "One"',
        'title = "One"\ntotal_points = 77.125',
        "line 5: day1.total_points: 77.125 should be a number greater than 0 and at most 100,000, with at most two decimals",
    ),
    "a total of 0": (
        'title = "One"',
        'title = "One"\ntotal_points = 0',
        "line 5: day1.total_points: 0 should be",
    ),
    "a weight that is too small for a point": (
        "points = 60",
        "points = 0.001",
        "line 7: day1.exercises.f.points: 0.001 is too small",
    ),
    "an unknown selection": (
        'title = "One"',
        'title = "One"\ninclude = "short"',
        """line 5: day1.include: 'short' should be "all" or "core\"""",
    ),
    "a core without exercises": (
        'title = "One"',
        'title = "One"\ninclude = "core"',
        "line 5: day1.include: no exercise counts towards the total",
    ),
    "a flag as a string": (
        "points = 60",
        'points = 60\ngiven = "yes"',
        "line 8: day1.exercises.f.given: 'yes' should be true or false",
    ),
    "points as a string": (
        "points = 60",
        'points = "60"',
        "line 7: day1.exercises.f.points: '60' should be a number greater than 0 and at most 100,000",
    ),
    "zero points": ("points = 60", "points = 0", "0 should be a number greater than 0"),
    "a size without a unit": (
        '"1.5 GB"',
        '"1.5"',
        "line 8: day1.exercises.f.memory: '1.5' should be a size such as",
    ),
    "names that are not strings": (
        '["softmax"]',
        "[1]",
        "line 12: day1.exercises.g.not_allowed: [1] should be a list of names",
    ),
    "an unknown forbidden name": (
        '["softmax"]',
        '["sofmax"]',
        "line 12: day1.exercises.g.not_allowed: unknown name 'sofmax'. To define it, add",
    ),
    "an entry of not_allowed with an unknown key": (
        "[defaults]",
        '[not_allowed.sorted]\nname = ["sorted"]\n[defaults]',
        "line 2: not_allowed.sorted.name: unknown key",
    ),
    "a missing chapter": (
        'chapter = "first"\npoints = 60',
        "points = 60",
        "line 5: day1.exercises.f: chapter is missing; it should be a chapter name",
    ),
    "no seconds": (
        "cpu_seconds = 2",
        "cpu_seconds = 0",
        "line 2: defaults.cpu_seconds: 0 should be a number of",
    ),
    "no budget": (
        "cpu_seconds = 2",
        "submission_idle_seconds = 0",
        "line 2: defaults.submission_idle_seconds: 0 should be a number of seconds",
    ),
    "a budget of one exercise": (
        "points = 60",
        "points = 60\nsubmission_cpu_seconds = 9",
        "line 8: day1.exercises.f.submission_cpu_seconds: unknown key",
    ),
    "an unknown default": (
        "cpu_seconds = 2",
        "cpu_second = 2",
        "line 2: defaults.cpu_second: unknown key",
    ),
    "an unknown kind of feedback": (
        'title = "One"',
        'title = "One"\nfeedback = "numbers"',
        """line 5: day1.feedback: 'numbers' should be "values" or "words\"""",
    ),
    "an unknown language": (
        "[defaults]",
        '[course]\nlanguage = "German"\n[defaults]',
        """line 2: course.language: 'German' should be a language tag such as "de\"""",
    ),
    "invalid TOML": ("[day1]", "[day1", "not valid TOML"),
    "an unknown key of the late policy": (
        "[day1.exercises.f]",
        "[day1.late]\nper_cent = 10\n[day1.exercises.f]",
        "line 6: day1.late.per_cent: unknown key",
    ),
    "a date without its offset": (
        "[day1.exercises.f]",
        "[day1.late]\ndue = 2026-12-01T23:59:00\n[day1.exercises.f]",
        "line 6: day1.late.due: 2026-12-01 23:59:00 should be a date and time with a UTC offset",
    ),
    "a late policy that deducts nothing": (
        "[day1.exercises.f]",
        "[day1.late]\ndue = 2026-12-01T23:59:00Z\n[day1.exercises.f]",
        "line 5: day1.late: percent_per_day is missing",
    ),
    "a late policy that is not a table": (
        'title = "One"',
        'title = "One"\nlate = 10',
        "line 5: day1.late: 10 should be a table",
    ),
    "points that are true": (
        "points = 60",
        "points = true",
        "line 7: day1.exercises.f.points: True should be a number",
    ),
    "no number": ("points = 60", "points = nan", "line 7: day1.exercises.f.points: nan should be"),
    "defaults that are not a table": (
        "[defaults]\ncpu_seconds = 2",
        "defaults = 2",
        "grading.toml: defaults: should be a table",
    ),
    "a day that is not a table": (
        "[defaults]",
        "day2 = 5\n[defaults]",
        "grading.toml: day2: unknown key. To define a day, add a table: [day2]",
    ),
    "an exercise that is not a table": (
        "[day1.exercises.f]",
        "[day1.exercises]\nh = 5\n[day1.exercises.f]",
        "day1.exercises.h: should be a table named after a function or class",
    ),
    "a date as a string": (
        "[defaults]",
        '[late]\ndue = "tomorrow"\n[defaults]',
        "line 2: late.due: 'tomorrow' should be a date and time",
    ),
    "an unknown time zone": (
        "[defaults]",
        '[late]\nmoodle_time_zone = "New York"\n[defaults]',
        """line 2: late.moodle_time_zone: 'New York' should be an IANA time zone such as "America/New_York\"""",
    ),
    "a folder of time zones": (
        "[defaults]",
        '[late]\nmoodle_time_zone = "America"\n[defaults]',
        "line 2: late.moodle_time_zone: 'America' should be an IANA time zone",
    ),
    "a time zone outside the folder": (
        "[defaults]",
        '[late]\nmoodle_time_zone = "../../etc/passwd"\n[defaults]',
        "line 2: late.moodle_time_zone: '../../etc/passwd' should be an IANA time zone",
    ),
    "no time zone": (
        "[defaults]",
        '[late]\nmoodle_time_zone = ""\n[defaults]',
        "line 2: late.moodle_time_zone: '' should be an IANA time zone",
    ),
    "more than 100 %": (
        "[defaults]",
        "[late]\npercent_per_day = 110\n[defaults]",
        "line 2: late.percent_per_day: 110 should be a number between 0 and 100",
    ),
}


FILES = [
    "solutions/day1/first.py",
    "graders/day1/test_first.py",
    "mistakes/day1/f.md",
    "mistakes/day1/g.md",
]


def write_files(root: Path, edited: str = "") -> None:
    """Write the files for day1, and add a comment to the file named by `edited`."""
    for file in FILES:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        text = "# %%\nx = 1\n" + "# An edit.\n" * (file == edited)
        (root / file).write_text(text, encoding="utf-8")


def load(tmp_path: Path, text: str) -> courses.Course:
    (tmp_path / courses.GRADING_TOML).write_text(text, encoding="utf-8")
    return courses.load(tmp_path)


def test_a_valid_file_becomes_typed_values(tmp_path: Path) -> None:
    f, g = load(tmp_path, VALID).day("day1").exercises
    assert (f.name, f.points, f.limits.cpu_seconds, f.limits.memory) == ("f", 60, 2, 1_500_000_000)
    assert (g.not_allowed, g.limits.memory) == (("softmax",), 2_000_000_000)


def test_a_file_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / courses.GRADING_TOML).write_bytes(VALID.encode() + b"\xff")
    with pytest.raises(CourseError, match=r"grading\.toml cannot be read: it is not UTF-8"):
        courses.load(tmp_path)


@pytest.mark.parametrize("weights", [(60, 40), (1, 2), (33, 44), (0.5, 77)])
@pytest.mark.parametrize("total", [100, 77, 12.34])
def test_points_are_shares_of_the_total(
    weights: tuple[float, float], total: float, tmp_path: Path
) -> None:
    text = VALID.replace("points = 60", f"points = {weights[0]}")
    text = text.replace("points = 40", f"points = {weights[1]}")
    day = load(tmp_path, text.replace('title = "One"', f'title = "One"\ntotal_points = {total}'))
    f, g = day.day("day1").exercises
    assert f.points == round(total * weights[0] / sum(weights), 2)
    assert Decimal(str(f.points)) + Decimal(str(g.points)) == Decimal(str(total))


def test_optional_and_given_exercises_are_not_part_of_the_total(tmp_path: Path) -> None:
    optional = load(tmp_path, VALID.replace("points = 40", "points = 40\noptional = true"))
    f, g = optional.day("day1").exercises
    assert (f.points, g.points, g.optional, optional.day("day1").points) == (100, 66.67, True, 100)
    day = load(tmp_path, VALID.replace("points = 60", "points = 60\ngiven = true")).day("day1")
    assert (day.names, day.exercises[0].points, day.points) == (("g",), 100, 100)
    assert [(e.name, e.given) for e in day.unassigned] == [("f", True)]


def test_a_day_can_be_reduced_to_its_core(tmp_path: Path) -> None:
    text = VALID.replace("points = 60", "points = 60\ncore = true")
    assert load(tmp_path, text).day("day1").names == ("f", "g")
    short = text.replace('title = "One"', 'title = "One"\ninclude = "core"')
    day = load(tmp_path, short).day("day1")
    assert (day.names, day.points) == (("f",), 100)
    assert [exercise.name for exercise in day.unassigned] == ["g"]


def test_limits_include_budgets_and_idle_time(tmp_path: Path) -> None:
    text = VALID.replace("cpu_seconds = 2", "cpu_seconds = 2\nsubmission_cpu_seconds = 90")
    text = text.replace("points = 60", "points = 60\nidle_seconds = 6", 1)
    day = load(tmp_path, text).day("day1")
    assert day.budget == Allowance(cpu_seconds=90, idle_seconds=60)
    first, second = (exercise.limits for exercise in day.exercises)
    assert (first.call_idle_seconds, first.allowance) == (2, Allowance(30, 6))
    assert (second.call_idle_seconds, second.allowance) == (10, Allowance(30, 30))


@pytest.mark.parametrize("kind", ["values", "words"])
def test_a_day_selects_the_kind_of_feedback(kind: str, tmp_path: Path) -> None:
    text = VALID.replace('title = "One"', f'title = "One"\nfeedback = "{kind}"')
    assert load(tmp_path, text).day("day1").feedback == kind
    assert load(tmp_path, VALID).day("day1").feedback == "values"


def test_a_day_overrides_keys_of_the_courses_late_policy(tmp_path: Path) -> None:
    late = "[late]\npercent_per_day = 10\ngrace_minutes = 15\n"
    own = "[day1.late]\ndue = 2026-12-01T23:59:00+01:00\npercent_per_day = 5\n"
    day = load(tmp_path, late + VALID + own).day("day1")
    due = datetime(2026, 12, 1, 22, 59, tzinfo=UTC)
    assert day.late == Policy(due, grace_minutes=15, percent_per_day=5)
    assert load(tmp_path, VALID).day("day1").late == Policy()
    free = "[late]\npercent_per_day = 0\n"
    assert load(tmp_path, free + VALID + own.rpartition("percent")[0]).day("day1").late.due == due


def test_only_what_affects_marks_changes_the_fingerprint(tmp_path: Path) -> None:
    """Changes to the late policy or to other days must not cause a day's submissions to be regraded."""

    def made_from(text: str, edited: str = "") -> str:
        write_files(tmp_path, edited)
        return fingerprint(load(tmp_path, text).day("day1"))

    before = made_from(VALID)
    assert len({before, *(made_from(VALID, edited) for edited in FILES)}) == 1 + len(FILES)
    assert made_from("[late]\npercent_per_day = 10\n" + VALID) == before
    assert made_from(VALID.replace("cpu_seconds = 2", "cpu_seconds = 3")) != before
    assert made_from(VALID.replace("cpu_seconds = 2", "submission_cpu_seconds = 3")) != before
    assert (
        made_from(
            VALID.replace(
                'chapter = "first"\npoints = 60', 'chapter = "first"\npoints = 61'
            ).replace("points = 40", "points = 39")
        )
        != before
    )


def test_the_version_covers_the_code_that_students_received(tmp_path: Path) -> None:
    """Marks depend on released code: the grader distinguishes it from code by students, and reports copies of stand-ins."""
    write_files(tmp_path)
    day = load(tmp_path, VALID).day("day1")
    seen = [course_version(day)]

    def write(file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        seen.append(course_version(day))

    def release(code: str, words: str) -> None:
        cells = [
            {"cell_type": "markdown", "source": [words]},
            {"cell_type": "code", "source": code.splitlines(keepends=True)},
        ]
        write(day.release, json.dumps({"cells": cells}))

    release("x = 1\ny = 2", "words")
    release("x = 1\ny = 2", "other words")
    release("x = 1\ny = 3", "words")
    write(day.stand_ins, "def f(): return 1")
    assert seen[1] == seen[2]
    assert len(set(seen)) == 4
    write(day.release, "<<<<<<< HEAD")  # as after a merge conflict
    assert seen[-1] not in seen[:-1]
    assert released_code(day) == []


def test_without_graders_there_is_no_fingerprint(tmp_path: Path) -> None:
    """Computing the fingerprint of a day without graders must fail. Otherwise, outdated marks would still count as current."""
    write_files(tmp_path)
    day = load(tmp_path, VALID).day("day1")
    for grader in day.graders.glob("*.py"):
        grader.unlink()
    with pytest.raises(CourseError, match="contains no grader"):
        fingerprint(day)


def test_graders_of_other_days_count_only_if_they_are_imported(tmp_path: Path) -> None:
    write_files(tmp_path)
    day = load(tmp_path, VALID).day("day1")
    graders = day.graders.parent
    (graders / "day2").mkdir()
    for name in ("test_unused", "test_used", "test_used_by_it"):
        (graders / "day2" / f"{name}.py").write_text("before = 1")
    imports = {
        next(day.graders.glob("*.py")): "from graders.day2.test_used import before",
        graders / "day2" / "test_used.py": "from graders.day2 import (\n    test_used_by_it,\n)",
    }
    for file, line in imports.items():
        file.write_text(f"{line}\n{file.read_text()}")
    seen = [fingerprint(day)]
    for name in ("test_unused", "test_used", "test_used_by_it"):
        with (graders / "day2" / f"{name}.py").open("a") as grader:
            grader.write("\nafter = 1")
        seen.append(fingerprint(day))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_removing_known_mistakes_changes_the_fingerprint(tmp_path: Path) -> None:
    write_files(tmp_path)
    day = load(tmp_path, VALID).day("day1")
    before = fingerprint(day)
    (day.mistakes / "f.md").unlink()
    assert fingerprint(day) != before


@pytest.mark.parametrize(("old", "new", "message"), INVALID.values(), ids=INVALID)
def test_an_invalid_file_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in VALID
    with pytest.raises(CourseError) as error:
        load(tmp_path, VALID.replace(old, new, 1))
    assert message in str(error.value)


def test_the_course_says_what_help_students_may_use(tmp_path: Path) -> None:
    assert "Write the stubs yourself" in load(tmp_path, VALID).day("day1").assistants
    own = '[course]\nassistants = "Use no assistants."\n'
    assert load(tmp_path, own + VALID).day("day1").assistants == "Use no assistants."


def test_the_course_has_a_language(tmp_path: Path) -> None:
    assert load(tmp_path, VALID).day("day1").language == "en"
    text = f'[course]\nlanguage = "zh-Hans"\n{VALID}'
    assert load(tmp_path, text).day("day1").language == "zh-Hans"


def test_names_of_exercises_become_ids_of_cells(tmp_path: Path) -> None:
    toml = VALID.replace("[day1.exercises.g]", '[day1.exercises."größe"]')
    write_files(tmp_path)
    with pytest.raises(CourseError, match="größe: the name becomes part of a cell ID"):
        check_day(load(tmp_path, toml).day("day1"))


@pytest.mark.parametrize("missing", ["reference", "checks", "grader", "exercise"])
def test_missing_parts_are_named(missing: str, tmp_path: Path) -> None:
    """Errors must name any exercise without a reference solution, checks or a grader, and any grader without an exercise."""
    toml = VALID.replace("points = 40", "points = 20").replace("points = 60", "points = 80")
    text = (
        toml if missing != "exercise" else toml.split("[day1.exercises.g]")[0].replace("80", "100")
    )
    chapter = [
        f"# %%\ndef {n}():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n\n# %%\n"
        f'if __name__ == "__main__":\n    def check_{n}(): pass\n    check_{n}()\n'
        for n in ("f", "g")
    ]
    if missing == "exercise":
        chapter.pop()
    if missing == "reference":
        chapter[1] = "# %%\n" + chapter[1].split("# %%\n")[2]
    if missing == "checks":
        chapter[1] = "# %%\n" + chapter[1].split("# %%\n")[1]
    graders = [f'class Test{n}:\n    exercise = "{n}"\n' for n in ("f", "g")]
    if missing == "grader":
        graders.pop()
    solutions, hidden = tmp_path / "solutions/day1", tmp_path / "graders/day1"
    solutions.mkdir(parents=True)
    hidden.mkdir(parents=True)
    (solutions / "first.py").write_text("\n".join(chapter), encoding="utf-8")
    (hidden / "test_first.py").write_text("\n".join(graders), encoding="utf-8")
    with pytest.raises(CourseError, match=r"\bg\b"):
        check_day(load(tmp_path, text).day("day1"))


def test_a_grader_may_name_its_exercise_in_any_python_style(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "graders/day1/test_masking.py"
    file.write_text("class TestPaddingMask:\n  exercise: str = 'padding_mask'\n")
    day = courses.load(tmp_path).day("day1")
    assert graded_exercises(day)["padding_mask"] == file


@pytest.mark.parametrize("text", ["# Größe\n", "class\n", "\0"])
def test_a_grader_that_is_not_python_is_an_error_of_the_course(text: str, tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "graders/day1/test_masking.py"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(CourseError, match=rf"{file} cannot be (read|imported)"):
        graded_exercises(courses.load(tmp_path).day("day1"))


def test_this_course_is_consistent() -> None:
    check_day(courses.load(ROOT).day("day1"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "self, student, seed",
            "self, student, sed",
            "'sed' should be `student`, `seed` or `candidates`",
        ),
        (
            "    def test_zero(self, student, seed):",
            "    @__import__('pytest').mark.parametrize('seed', [1])\n    def test_zero(self, student, seed):",
            "cannot be parametrized",
        ),
        ('"""The mask is True at real tokens."""', "pass", "add a docstring"),
        ('exercise = "padding_mask"', 'exercise = "mask"', "must set `exercise`"),
        ("@weight(2)", "@weight(-2)", "the weight -2 should be a number"),
        ("@weight(2)", "@weight(float('nan'))", "the weight nan should be a number"),
        ("@weight(2)", "@weight('two')", "the weight 'two' should be a number"),
        ("class Test", "class _", "padding_mask has no test"),
        ("import Draw", "import draw", "cannot be imported"),
    ],
)
def test_a_faulty_grader_is_an_error_of_the_course(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    make(tmp_path)
    file = tmp_path / "graders" / "day1" / "test_masking.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(CourseError, match=message):
        collect(courses.load(tmp_path).day("day1"))


def test_a_syntax_error_in_a_grader_is_reported_with_its_place(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "graders" / "day1" / "test_masking.py"
    lines = len(file.read_text().splitlines())
    file.write_text(file.read_text() + "def f(:\n")
    day = courses.load(tmp_path).day("day1")
    with pytest.raises(CourseError, match=rf"test_masking\.py, line {lines + 1}: SyntaxError"):
        collect(day)
    with pytest.raises(CourseError, match=rf"\(test_masking\.py, line {lines + 1}\)"):
        graded_exercises(day)


def test_a_course_may_be_in_a_folder_with_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "course[1]"
    folder.mkdir()
    make(folder)
    assert all(collect(courses.load(folder).day("day1")).values())


CHAPTERS = [
    path
    for day in courses.load(ROOT).days.values()
    for path in (day.chapters[0].path.with_name("opening.py"), *(c.path for c in day.chapters))
]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_chapters_are_read_as_jupytext_reads_them(path: Path) -> None:
    expected = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent").cells
    assert [cell.source for cell in chapters.read(path, ()).cells] == [c.source for c in expected]
