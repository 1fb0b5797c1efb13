"""Test the limits on CPU time and idle time, including on a busy machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from autograder.course import config as courses
from autograder.grading.grader import Grader
from autograder.protocol.limits import Allowance, Budget, Limits
from autograder.recognition.recognizer import Recognizer
from autograder.sandbox import meter
from autograder.sandbox.client import Server
from autograder.sandbox.clock import Reading
from autograder.sandbox.errors import LimitExceeded, MustRunAlone, WorkerDied
from tests.conftest import handed_in
from tests.small_course import RIGHT, WRONG, make
from tests.timed_work import QUICK, SLEEPY, Scripted, attempt_of, working

pytestmark = pytest.mark.slow


@pytest.fixture
def busy() -> Iterator[None]:
    """Run four busy loops in the background, each in its own session, because Linux divides CPU time fairly between sessions."""
    command = [sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(command, start_new_session=True) for _ in range(4)]
    yield
    for burner in burners:
        burner.kill()
        burner.wait()


# ---- CPU time


def test_cpu_time_is_measured_from_outside(server: Server) -> None:
    with working(server, QUICK) as student:
        student.burn(0.3)
        own = student.used()
        measured = student.connection._process._meter._clock.read().cpu  # type: ignore[attr-defined]
    assert own <= measured < own + 0.1


@pytest.mark.usefixtures("busy")
def test_cpu_time_counts_on_a_busy_machine(server: Server) -> None:
    with working(server, QUICK) as student:
        started = time.monotonic()
        assert student.burn(0.35) == 0.35
        with pytest.raises(LimitExceeded, match=r"0\.5 s of CPU time") as caught:
            student.burn(100)
        assert time.monotonic() - started > 1.0, "the machine was not busy"
    assert caught.value.excess.scope == "call"


@pytest.mark.parametrize("how", ["burn_in_threads", "leave_burning"])
def test_threads_are_charged(how: str, server: Server) -> None:
    limits = Limits(cpu_seconds=0.5, total_cpu_seconds=0.8, memory=1 << 30)
    budget = Budget(limits.allowance, "exercise")
    with working(server, limits, budget) as student, pytest.raises(LimitExceeded) as caught:
        _keep_calling(student, how)
    assert caught.value.excess.kind == "processor"
    assert 0.5 <= budget.cpu < 1.5


def _keep_calling(student: Any, how: str) -> None:
    getattr(student, how)(*([10] if how == "burn_in_threads" else []))
    for _ in range(1000):
        student.sleep(0.01)


def test_many_short_calls_reach_the_total_limit(server: Server) -> None:
    limits = Limits(cpu_seconds=10, total_cpu_seconds=0.3, memory=1 << 30)
    with working(server, limits) as student, pytest.raises(LimitExceeded) as caught:
        _burn_many_times(student)
    assert (caught.value.excess.kind, caught.value.excess.scope) == ("processor", "exercise")


def _burn_many_times(student: Any) -> None:
    for _ in range(1000):
        student.burn(0.01)


# ---- sleeping and waiting


def test_a_call_may_sleep_for_a_third_of_its_exercises_limit(server: Server) -> None:
    limits = Limits(cpu_seconds=0.1, total_cpu_seconds=30, memory=1 << 30, idle_seconds=3)
    budget = Budget(limits.allowance, "exercise")
    with working(server, limits, budget) as student:
        assert student.sleep(0.5) == 0.5
        with pytest.raises(LimitExceeded, match="hardly used the CPU") as caught:
            student.sleep(60)
    assert caught.value.excess.kind == "idle"
    assert budget.cpu < 0.2
    # Both calls count. The time that the process needed to start, which is longer on a busy machine, is deducted.
    assert budget.idle > 1.2


def test_threads_that_keep_each_other_waiting_may_not_sleep_longer(server: Server) -> None:
    """If 60 threads wait for a core at the same time, their waiting time is counted only once, not 60 times."""
    patient = Limits(cpu_seconds=200, total_cpu_seconds=200, memory=1 << 30)
    with working(server, patient) as student:
        started = time.monotonic()
        student.crowd(0.6)
        elapsed = time.monotonic() - started
        queued = student.connection._process._meter._clock.read().queued  # type: ignore[attr-defined]
    assert queued <= elapsed + 0.1


def test_a_call_that_sleeps_costs_only_its_test(server: Server) -> None:
    tests = Scripted(
        lambda student, run: student.f(60),
        lambda student, run: student.burn(60),
        lambda student, run: student.f(0),
    )
    outcomes = tests.outcomes(attempt_of(server, SLEEPY))
    assert [outcome.status for outcome in outcomes if not outcome.passed] == ["timed_out"] * 2
    assert [outcome.passed for outcome in outcomes] == [False, False, True]
    assert tests.counts == [1, 1, 1]
    assert "0.4 s, although the code hardly used the CPU" in outcomes[0].message
    assert "0.05 s of CPU time: is there an infinite loop?" in outcomes[1].message


def test_a_call_that_sleeps_beside_other_submissions_does_not_count(server: Server) -> None:
    tests = Scripted(lambda student, run: student.burn(60), lambda student, run: student.f(60))
    with pytest.raises(MustRunAlone):
        tests.outcomes(attempt_of(server, SLEEPY, is_alone=False))
    assert tests.counts == [1, 1]


def test_a_crash_counts_even_if_the_hidden_test_caught_it(server: Server) -> None:
    def catches(student: Any, run: int) -> None:
        with pytest.raises(WorkerDied):
            student.die()

    outcomes = Scripted(catches).outcomes(attempt_of(server, QUICK))
    assert outcomes[0].status == "crashed"


# ---- budgets


def test_exercises_share_the_budget_of_the_submission(server: Server) -> None:
    budget = Budget(Allowance(0.5, 60), "submission")
    asked = [lambda student, run: student.burn(0.3)] * 3
    first = Scripted(*asked).outcomes(attempt_of(server, QUICK, budget=budget))
    assert [outcome.passed for outcome in first] == [True, False, False]
    assert first[1].status == "timed_out"
    assert "the whole submission took more than 0.5 s of CPU time" in first[1].message
    tests = Scripted(*asked)
    assert tests.outcomes(attempt_of(server, QUICK, budget=budget)) == [first[1]] * 3
    assert tests.counts == [0, 0, 0], "the remaining tests should be skipped"
    assert 0.5 <= budget.cpu < 1


def test_idle_time_has_a_budget(server: Server) -> None:
    budget = Budget(Allowance(60, 0.7), "submission")
    tests = Scripted(*[lambda student, run: student.sleep(0.3)] * 4)
    outcomes = tests.outcomes(attempt_of(server, QUICK, budget=budget))
    assert [outcome.passed for outcome in outcomes] == [True, True, False, False]
    assert tests.counts == [1, 1, 1, 0], "a call should not be repeated after the budget is used up"


class Waiting:
    """A simulated grader that waits for an idle worker. Only `stop` and `wait` advance its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(meter, "own_queue_seconds", lambda: 0.0)
        self.budget = Budget(Allowance(60, 60), "exercise")
        clock: Any = SimpleNamespace(read=Reading)
        self.meter = meter.Meter(clock, cpu_seconds=10, idle_seconds=10, budget=self.budget)

    def stop(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += self.meter.seconds_to_wait()


def test_a_call_has_the_same_limit_if_the_grader_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grader = Waiting(monkeypatch)
    grader.meter.begin()
    for _ in range(2):
        grader.wait(2)
        grader.stop(300)
    grader.wait(2)
    with pytest.raises(LimitExceeded):
        grader.wait(5)


def test_a_response_to_a_stopped_grader_costs_no_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    grader = Waiting(monkeypatch)
    grader.meter.begin()
    grader.wait(2)
    grader.stop(300)
    grader.meter.close()
    assert 2 <= grader.budget.idle <= 4


# ---- submissions that sleep


@pytest.fixture(scope="module")
def grader(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Grader:
    root = make(tmp_path_factory.mktemp("course"))
    limits = "[defaults]\nidle_seconds = 0.9\nsubmission_idle_seconds = 1.2\n"
    (root / "grading.toml").write_text(limits + (root / "grading.toml").read_text())
    return Grader(courses.load(root).day("day1"), server, b"secret")


def sleeping(body: str, before: str = "", after: str = "") -> str:
    """Return a submission with a correct split_heads whose body first runs the given code."""
    code = RIGHT.replace("    b, n, d = x.shape", f"    {body}\n    b, n, d = x.shape")
    return f"import threading, time\n{before}\n{code}\n{after}"


SLEEPING = {
    "a long call": sleeping("time.sleep(60)"),
    "many short waits": sleeping("for _ in range(2000): time.sleep(0.02)"),
    "a lock taken twice": sleeping("lock.acquire(); lock.acquire()", "lock = threading.Lock()"),
    "a thread that never ends": sleeping(
        "thread = threading.Thread(target=time.sleep, args=(60,), daemon=True); thread.start(); thread.join()"
    ),
    "a slow statement": sleeping("Late", "class Late:\n    time.sleep(60)"),
    "both exercises": sleeping("time.sleep(60)").replace(
        "return (tokens", "return time.sleep(60) or (tokens"
    ),
}


@pytest.mark.parametrize("code", SLEEPING.values(), ids=SLEEPING)
def test_a_sleeping_submission_soon_makes_room_for_others(code: str, grader: Grader) -> None:
    started = time.monotonic()
    with pytest.raises(MustRunAlone):
        grader.grade(handed_in(code), is_alone=False)
    given_up = time.monotonic()
    marks = grader.grade(handed_in(code))
    assert "timed_out" in {exercise.status for exercise in marks.exercises} or marks.problems
    # Starting a process takes longer on a busy machine.
    assert given_up - started < 20
    assert time.monotonic() - given_up < 20


def test_honest_code_may_wait_a_little_beside_others(grader: Grader) -> None:
    assert grader.grade(handed_in(sleeping("time.sleep(0.1)")), is_alone=False).points == 100


def test_a_search_for_mistakes_that_was_cut_short_does_not_count(
    grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recognize(self: object, exercise: object, source: object, tests: object, budget: Budget):  # type: ignore[no-untyped-def]
        budget.charge(0.0, 60.0)

    monkeypatch.setattr(Recognizer, "recognize", recognize)
    with pytest.raises(MustRunAlone):
        grader.grade(handed_in(WRONG), is_alone=False)
    assert grader.grade(handed_in(WRONG)).points == 60


def test_code_that_sleeps_only_in_a_wider_slice_makes_room_for_others(grader: Grader) -> None:
    code = "import time\n" + RIGHT.replace("b, n, d = x.shape", "b, n, d = sizes(x)")
    code += "\ndef sizes(x):\n    return names[0]\nnames = []\ndef fill():\n    time.sleep(60)\nfill()\n"
    code += "names.append(fill())\n"
    with pytest.raises(MustRunAlone):
        grader.grade(handed_in(code), is_alone=False)
    assert grader.grade(handed_in(code)).points == 60
