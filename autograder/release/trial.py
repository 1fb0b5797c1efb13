"""Try out an exercise: run its checks and tests on the solution, other correct answers and the known mistakes.

Entry point: `try_exercises`. Other correct answers are optional and are read from `tests/styles/DAY/*.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from autograder.course.config import CourseError, Day, Exercise
from autograder.execution.answer_key import AnswerKey
from autograder.execution.attempt import Outcome, RunSettings
from autograder.execution.catalogue import Mistake
from autograder.execution.source import join_units
from autograder.grading.runner import Runner, passed_by_trivial_answers
from autograder.plain_text import counted
from autograder.recognition.recognizer import Recognizer
from autograder.release import static_checks, visible_checks
from autograder.sandbox.client import Server, start_server
from autograder.slicing import slicer as slicing
from autograder.slicing.slicer import Slice, Slicer
from autograder.submissions.cell import Cell
from autograder.submissions.cell_reader import read_cells

SOLUTION = "the solution"  # the name of the first candidate
SEEDS = ("1", "2", "3")  # correct answers are tested with every seed, mistakes only with the first


@dataclass(frozen=True)
class Candidate:
    """An answer to an exercise: its name, its cells, and the known mistake in it, if any."""

    name: str
    cells: Sequence[Cell]
    mistake: Mistake | None = None


@dataclass(frozen=True)
class Result:
    """The results of testing an answer. `failed` maps test names to messages. `faults` lists problems for the author to fix."""

    answer: Candidate
    check: str = ""  # the visible check's output, or "" if it passes
    failed: dict[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """The results for one exercise, and the sentences shown to students when its tests fail."""

    exercise: Exercise
    sentences: dict[str, str]
    results: tuple[Result, ...]
    faults: tuple[str, ...]  # faults in the exercise itself

    @property
    def has_faults(self) -> bool:
        """Return whether the trial found any faults that the author should fix."""
        return bool(self.faults) or any(result.faults for result in self.results)


def try_exercises(day: Day, names: Sequence[str]) -> Iterator[Trial]:
    """Try out the named exercises, or all of the day's exercises if `names` is empty.

    Raises:
        CourseError: The day is inconsistent, its code does not run, or a named exercise does not exist.
    """
    for name in names:
        day.check_exercise(name)
    static_checks.check([day])
    exercises = [exercise for exercise in day.exercises if exercise.name in (names or day.names)]
    with start_server() as server:
        attempts = _Attempts(day, server)
        answers = {exercise.name: attempts.answers(exercise) for exercise in exercises}
        slices = {name: [attempts.slice(name, a) for a in found] for name, found in answers.items()}
        codes = {
            name: ["\n\n".join(s.source for s in code.own) for code in found]
            for name, found in slices.items()
        }
        checks = visible_checks.messages(day, codes)
        for exercise in exercises:
            name = exercise.name
            tried = zip(answers[name], slices[name], checks[name], strict=True)
            results, faults = attempts.results(exercise, list(tried))
            sentences = {test.name: test.sentence for test in attempts.key.tests[name]}
            yield Trial(exercise, sentences, results, (*faults, *attempts.trivial_faults(exercise)))


class _Attempts:
    """Runs a day's visible checks and hidden tests on answers to its exercises."""

    def __init__(self, day: Day, server: Server) -> None:
        self.key = AnswerKey.read(day)
        self._server = server
        self._runner = Runner(self.key, server)
        self._recognizer = Recognizer(self.key, server)
        self._course = slicing.prepare(server, day)
        cells = [cell for chapter in day.chapters for cell in chapter.cells]
        self._solutions = {
            cell.name: Cell(number, "code", cell.source)
            for number, cell in enumerate(cells)
            if cell.role == "exercise"
        }
        self._styles = [
            Candidate(
                f"tests/styles/{day.name}/{file.name}", read_cells(file.read_bytes(), file.name)[0]
            )
            for file in day.styles
        ]

    def answers(self, exercise: Exercise) -> list[Candidate]:
        """Return an exercise's solution, other correct answers and known mistakes."""
        name = exercise.name
        styles = [a for a in self._styles if self.slice(name, a).state == "written"]
        solutions = list(self._solutions.values())
        number = self._solutions[name].number
        wrong = [
            Candidate(one.name, [*solutions, Cell(number, "code", one.source)], one)
            for one in self._recognizer.mistakes[name]
        ]
        return [Candidate(SOLUTION, solutions), *styles, *wrong]

    def slice(self, name: str, answer: Candidate) -> Slice:
        """Return the part of the answer's code that the exercise needs."""
        with Slicer(self._server, self._course, answer.cells) as slicer:
            return slicer.slice_all().slices[name]

    def results(
        self, exercise: Exercise, tried: Sequence[tuple[Candidate, Slice, str]]
    ) -> tuple[tuple[Result, ...], tuple[str, ...]]:
        """Run the hidden tests on each answer, starting with the solution. Return the results, and any faults in the exercise.

        Mistakes are recognised by comparing them with the solution, so they are left out if the solution fails a test.
        """
        correct = [self.result(exercise, *each) for each in tried if not each[0].mistake]
        mistakes = [each for each in tried if each[0].mistake]
        solution = correct[0]
        if mistakes and (solution.failed or (solution.faults and not solution.check)):
            return tuple(correct), (
                "the known mistakes were not tried, because the solution fails",
            )
        try:
            return (*correct, *(self.result(exercise, *each) for each in mistakes)), ()
        except CourseError as error:  # The solution passes only with some inputs.
            return tuple(correct), (str(error),)

    def result(self, exercise: Exercise, answer: Candidate, code: Slice, check: str) -> Result:
        """Run an exercise's hidden tests on an answer."""
        if code.state != "written":
            return Result(answer, check, faults=("the exercise is not filled in",))
        if code.used:
            used = f"this answer uses {', '.join(code.used)}, which is not allowed"
            return Result(answer, check, faults=(used,))
        # Code that students submit may use names that the notebook provides. The course's own code has to import them.
        is_solution = answer.name == SOLUTION
        source = (
            self.key.solution_source(exercise.name) if is_solution else join_units(code.statements)
        )
        failed: dict[str, str] = {}
        for seed in SEEDS[:1] if answer.mistake else SEEDS:
            outcomes = self._runner.outcomes(exercise, source, RunSettings(seed))
            failed = {**self._messages(exercise, outcomes), **failed}
        if answer.mistake is None:
            return Result(answer, check, failed, tuple(_faults_of_correct(check, failed)))
        named = self._recognizer.recognize(exercise, source, list(failed)) if failed else None
        return Result(
            answer, check, failed, tuple(_faults_of_mistake(answer.mistake, failed, named))
        )

    def _messages(self, exercise: Exercise, outcomes: Sequence[Outcome]) -> dict[str, str]:
        return {
            test.name: o.message + (f"; see {o.test_line}" if o.test_line else "")
            for test, o in zip(self.key.tests[exercise.name], outcomes, strict=True)
            if not o.passed
        }

    def trivial_faults(self, exercise: Exercise) -> Iterator[str]:
        """Yield a fault if a trivial answer passes every test of an exercise."""
        passed = passed_by_trivial_answers(self._runner, exercise)
        if all(passed.get(test.name) == "value" for test in self.key.tests[exercise.name]):
            yield "a trivial answer, such as None or zeros, passes every hidden test"


def _faults_of_correct(check: str, failed: dict[str, str]) -> Iterator[str]:
    if check:
        yield f"this answer fails the visible check: {check}"
    for test, message in failed.items():
        yield f"this answer fails {test}: {message}"


def _faults_of_mistake(
    mistake: Mistake, failed: dict[str, str], named: str | None
) -> Iterator[str]:
    if not failed:
        yield "no hidden test fails. Add a test input for which the mistake and the solution return different results."
    elif named is None:
        yield "this mistake is not recognised: its results match either no known mistake or more than one"
    elif named != mistake.name:
        yield f"this mistake is recognised as a different one: {named!r}"


def lines(trial: Trial) -> Iterator[str]:
    """Yield the lines that `autograder try` prints about an exercise."""
    exercise = trial.exercise
    tests = counted(len(trial.sentences), "hidden test")
    yield f"{exercise.name}: {counted(exercise.points, 'point')}, {tests}"
    yield from (f"✗ {fault}" for fault in trial.faults)
    for result in trial.results:
        kind = "mistake: " if result.answer.mistake else ""
        yield f"{'✗' if result.faults else '✓'} {kind}{result.answer.name}"
        yield from (f"    ✗ {fault}" for fault in result.faults)
        if result.answer.mistake:
            yield from (f"    {line}" for line in _feedback(trial, result))


def _feedback(trial: Trial, result: Result) -> Iterator[str]:
    """Yield the messages shown to a student who makes a known mistake."""
    assert result.answer.mistake
    first, *rest = filter(None, (result.check or "it passes").splitlines())
    yield f"visible check: {first}"
    yield from (f"    {line}" for line in rest)
    for test in list(result.failed)[:1]:
        more = len(result.failed) - 1
        yield f"{test}{f' and {more} more' if more else ''}: {trial.sentences[test]}"
    yield f"feedback: {result.answer.mistake.sentence}"
