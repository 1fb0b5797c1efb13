"""`make mutants`: small changes in the reference solutions, each of which a hidden grader should refuse.

mutmut and cosmic-ray change whole files and start pytest for each change. Here only what stands between the
solution markers is changed, and a change costs a forked process and the exercise's tests up to the first that fails.
The survivors stand in tests/survivors.toml, each with the reason why no test could tell it from the right solution.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import io
import os
import re
import resource
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.course import config as courses
from autograder.course.chapters import BEGIN, END
from autograder.course.config import Day, Exercise
from autograder.execution.answer_key import given_units, solution_units
from autograder.execution.attempt import derive_seed
from autograder.execution.collect import Test, collect
from autograder.execution.source import join_units
from autograder.execution.student import Student
from autograder.protocol import messages as m
from autograder.sandbox.worker.in_process import LocalProcess
from autograder.slicing.dependencies import Unit, parse_units, slice_for
from autograder.submissions.cells import Cell

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests" / "survivors.toml"
SEEDS = ("0", "1", "2")
SECONDS = (
    20  # of the processor for all tests of an exercise, after which a change counts as noticed
)

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
PAIRS = [
    ("sin", "cos"), ("tril", "triu"), ("ones", "zeros"), ("any", "all"), ("sum", "mean"),
    ("amax", "amin"), ("argmax", "argmin"), ("min", "max"), ("exp", "square"), ("double", "float"),
    ("train", "eval"), ("norm1", "norm2"), ("query", "key"), ("float64", "float32"),
]  # fmt: skip
NAMES = dict(PAIRS) | {second: first for first, second in PAIRS}


Key = tuple[str, int, int, str, str]


@dataclass(frozen=True)
class Mutant:
    """One change in one exercise's solution; `line` and `column` are those of its cell in the chapter."""

    exercise: str
    line: int
    column: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> Key:
        return (self.exercise, self.line, self.column, self.before, self.after)


def mutants(day: Day, exercise: Exercise) -> Iterator[Mutant]:
    """Each change once, in the order of the code."""
    source = solution(day, exercise)
    tree, inside = ast.parse(source), _solution_lines(source)
    seen: set[Key] = set()
    parts_of_texts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for place, node in enumerate(ast.walk(tree)):
        if getattr(node, "lineno", 0) not in inside or id(node) in parts_of_texts:
            continue
        for changed in _changes(node):
            before, after = ast.unparse(node), ast.unparse(changed) or "pass"
            key = (exercise.name, node.lineno, node.col_offset, before, after)
            if before == after or key in seen:
                continue
            seen.add(key)
            whole = copy.deepcopy(tree)
            target = list(ast.walk(whole))[place]
            text = ast.unparse(ast.fix_missing_locations(_Replacing(target, changed).visit(whole)))
            yield Mutant(*key, text)


def solution(day: Day, exercise: Exercise) -> str:
    """The cell that defines an exercise."""
    chapter = next(chapter for chapter in day.chapters if chapter.name == exercise.chapter)
    return chapter.exercise(exercise.name).source


def _solution_lines(source: str) -> set[int]:
    lines: set[int] = set()
    inside = False
    for number, line in enumerate(source.split("\n"), 1):
        inside = (inside or BEGIN in line) and END not in line
        if inside:
            lines.add(number)
    return lines


class _Replacing(ast.NodeTransformer):
    def __init__(self, target: ast.AST, changed: ast.AST) -> None:
        self._target, self._changed = target, changed

    def visit(self, node: ast.AST) -> ast.AST:
        return self._changed if node is self._target else self.generic_visit(node)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""

    def other(**fields: object) -> ast.AST:
        changed = copy.copy(node)
        for name, value in fields.items():
            setattr(changed, name, value)
        return changed

    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARISONS:
            yield other(ops=[COMPARISONS[type(operator)]()])
        case ast.BinOp(op=operator) if type(operator) in OPERATORS:
            yield other(op=OPERATORS[type(operator)]())
            yield node.left
            yield node.right
        case ast.UnaryOp():
            yield node.operand
        case ast.BoolOp(op=operator, values=values):
            yield other(op=ast.Or() if isinstance(operator, ast.And) else ast.And())
            yield from values
        case ast.Constant(value=bool() as value):
            yield other(value=not value)
        case ast.Constant(value=int() | float() as value):
            yield other(value=value + 1)
            yield other(value=value - 1)
        case ast.Constant(value=str()) | ast.JoinedStr():
            yield ast.Constant("")
        case ast.Attribute(attr=name) if name in NAMES:
            yield other(attr=NAMES[name])
        case ast.Call():
            yield from _calls(node, other)
        case ast.Slice():
            yield from (other(**{end: None}) for end in ("lower", "upper") if getattr(node, end))
        case ast.IfExp():
            yield node.body
            yield node.orelse
        case ast.If():
            yield other(test=ast.Constant(True))
            yield other(test=ast.Constant(False))
        case ast.Assign() | ast.AugAssign() | ast.Expr() | ast.Break() | ast.Continue():
            yield ast.Pass()


def _calls(node: ast.Call, other: object) -> Iterator[ast.AST]:
    """Without a keyword, without an argument, and what it is called on or with instead of it."""
    for index in range(len(node.keywords)):
        kept = node.keywords[:index] + node.keywords[index + 1 :]
        yield other(keywords=kept)  # type: ignore[operator]
    if len(node.args) > 1:
        yield other(args=node.args[:-1])  # type: ignore[operator]
    if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
        yield node.func.value
    if len(node.args) == 1 and not isinstance(node.args[0], ast.Starred):
        yield node.args[0]


def _is_module(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("torch", "math", "nn", "F")


# ---- running


class Judge:
    """Runs a day's tests on changed solutions."""

    def __init__(self, day: Day) -> None:
        self.day = day
        self.tests = collect(day)
        self._given, self._reference = given_units(day), solution_units(day)

    def survives(self, exercise: Exercise, mutant: Mutant) -> bool:
        """Whether all tests of the exercise pass, in a forked process that can not run for ever."""
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            passed = False
            try:
                passed = self._passes(exercise, self._units(mutant))
            finally:
                os._exit(0 if passed else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def _units(self, mutant: Mutant) -> Sequence[Unit]:
        right = [unit for unit in self._reference if mutant.exercise not in unit.binds]
        units = [*right, *parse_units([Cell(0, "code", mutant.source)])[0]]
        code = slice_for(mutant.exercise, units, self._given, self.day.names)
        assert code is not None
        return code.units

    def _passes(self, exercise: Exercise, units: Sequence[Unit]) -> bool:
        sys.stdout = sys.stderr = io.StringIO()
        student = Student(LocalProcess())
        source = join_units(units)
        # What is not allowed is left out: in one process it would be refused to the tests as well.
        student.load(m.Load(source.text, list(source.pieces), exercise.name, 0))
        return all(
            self._holds(test, student, seed) for seed in SEEDS for test in self.tests[exercise.name]
        )

    def _holds(self, test: Test, student: Student, seed: str) -> bool:
        try:
            test.run(student, derive_seed(seed, test.exercise, test.name))
        except Exception:
            return False
        return True


def fingerprint(day: Day) -> str:
    """Of the code of the solutions and the graders; comments and the chapters' texts do not count."""
    exercises = [
        c.source for chapter in day.chapters for c in chapter.cells if c.role == "exercise"
    ]
    graders = [file.read_text(encoding="utf-8") for file in sorted(day.graders.glob("*.py"))]
    code = "\n".join(ast.dump(ast.parse(text)) for text in (*exercises, *graders))
    return hashlib.sha256(code.encode()).hexdigest()[:16]


# ---- the list


def listed() -> dict[str, dict]:
    """The list: for each day the fingerprint, the number of mutants, and the survivors with their reasons."""
    return tomllib.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def texts_of_days() -> dict[str, str]:
    """The list in parts, as it is written: the days that do not run keep theirs."""
    text = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""
    parts = re.split(r"^(?=\[\w+\]$)", text, flags=re.MULTILINE)
    return {part[1 : part.index("]")]: part.rstrip("\n") + "\n" for part in parts if part}


def reasons(day: Day) -> dict[Key, str]:
    """The reason of each survivor in the list."""
    entries = listed().get(day.name, {}).get("survivors", [])
    return {
        (e["exercise"], e["line"], e["column"], e["before"], e["after"]): e["reason"]
        for e in entries
    }


def run(day: Day) -> tuple[int, list[Mutant]]:
    """How many mutants there are, and those that survive."""
    judge, count, alive = Judge(day), 0, []
    for exercise in day.exercises:
        for mutant in mutants(day, exercise):
            count += 1
            if judge.survives(exercise, mutant):
                alive.append(mutant)
                print(exercise.name, mutant.line, mutant.before, "→", mutant.after, flush=True)
    return count, alive


def written(day: Day, count: int, alive: Sequence[Mutant]) -> str:
    """The day's part of the list; reasons that were there stay, also where a line has moved."""
    known = {(key[0], *key[3:]): reason for key, reason in reasons(day).items()}
    lines = [f"[{day.name}]", f'fingerprint = "{fingerprint(day)}"', f"mutants = {count}", ""]
    for mutant in alive:
        reason = known.get((mutant.exercise, mutant.before, mutant.after), "")
        chapter = next(e.chapter for e in day.exercises if e.name == mutant.exercise)
        lines += [
            f"[[{day.name}.survivors]]",
            f'file = "solutions/{day.name}/{chapter}.py"',
            f'exercise = "{mutant.exercise}"',
            f"line = {mutant.line}",
            f"column = {mutant.column}",
            f"before = {_quoted(mutant.before)}",
            f"after = {_quoted(mutant.after)}",
            f"reason = {_quoted(reason)}",
            "",
        ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def main() -> None:
    """Run the days, write the list, and say which survivors have no reason yet."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.split("\n")[0])
    parser.add_argument("days", nargs="*", default=list(listed()) or ["day1"])
    course = courses.load(ROOT)
    parts = {name: course.day(name) for name in parser.parse_args().days}
    texts = {name: written(day, *run(day)) for name, day in parts.items()}
    FILE.write_text("\n".join((texts_of_days() | texts).values()), encoding="utf-8")
    missing = [key for day in parts.values() for key, reason in reasons(day).items() if not reason]
    for exercise, line, _, before, after in missing:
        print(f"no reason yet: {exercise}, line {line}: {before}  →  {after}", file=sys.stderr)
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
