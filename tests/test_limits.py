"""Test the limits on CPU time and idle time, including on a busy machine and after the fork server has died."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from autograder.course import config as courses
from autograder.course.config import Exercise
from autograder.execution.attempt import Attempt, Outcome
from autograder.execution.collect import Test as Asked
from autograder.execution.run_lock import RunLock
from autograder.execution.source import Source, join_units
from autograder.execution.student import Student
from autograder.grading.grader import Grader
from autograder.marks.model import SubmissionMarks
from autograder.protocol import messages as m
from autograder.protocol.limits import Allowance, Budget, Limits
from autograder.sandbox import meter
from autograder.sandbox.client import Server
from autograder.sandbox.clock import Reading
from autograder.sandbox.errors import LimitExceeded, ServerLost, WorkerDied, retry_if_server_lost
from autograder.sandbox.process import Process
from autograder.slicing.dependencies import parse_units
from autograder.submissions.cells import Cell
from tests.conftest import handed_in
from tests.fork_server import process_of
from tests.small_course import RIGHT, WRONG, make

pytestmark = pytest.mark.slow

# How often fork servers are killed at random. `make attacks` does it more often.
KILLS = 10 if os.environ.get("ATTACKS") == "all" else 1
QUICK = Limits(cpu_seconds=0.5, total_cpu_seconds=30, memory=1 << 30)
WORK = """
import threading, time
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
    return seconds
def sleep(seconds):
    time.sleep(seconds)
    return seconds
def burn_in_threads(seconds):
    import numpy as np
    def work():
        x = np.ones((400, 400)); end = time.thread_time() + seconds
        while time.thread_time() < end: x @ x  # without the lock of the interpreter
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
def leave_burning():
    threading.Thread(target=burn, args=(100,), daemon=True).start()
def used():
    return time.process_time()
def die():
    import os
    os._exit(3)
def f(seconds):
    return sleep(seconds)
"""


@contextmanager
def loaded(server: Server, limits: Limits, budget: Budget | None = None) -> Iterator[Student]:
    process = Process(server, limits, budget)
    student = Student(process)
    try:
        student.load(m.Load(WORK, [(1, WORK.count("\n"))], "f", 1))
        yield student
    finally:
        process.stop()


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
    with loaded(server, QUICK) as student:
        student.burn(0.3)
        own = student.used()
        measured = student.connection._process._meter._clock.read().cpu  # type: ignore[attr-defined]
    assert own <= measured < own + 0.1


@pytest.mark.usefixtures("busy")
def test_cpu_time_counts_on_a_busy_machine(server: Server) -> None:
    with loaded(server, QUICK) as student:
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
    with loaded(server, limits, budget) as student, pytest.raises(LimitExceeded) as caught:
        _keep_calling(student, how)
    assert caught.value.excess.kind == "processor"
    assert 0.5 <= budget.cpu < 1.5


def _keep_calling(student: Any, how: str) -> None:
    getattr(student, how)(*([10] if how == "burn_in_threads" else []))
    for _ in range(1000):
        student.sleep(0.01)


def test_many_short_calls_reach_the_total_limit(server: Server) -> None:
    limits = Limits(cpu_seconds=10, total_cpu_seconds=0.3, memory=1 << 30)
    with loaded(server, limits) as student, pytest.raises(LimitExceeded) as caught:
        _burn_many_times(student)
    assert (caught.value.excess.kind, caught.value.excess.scope) == ("processor", "exercise")


def _burn_many_times(student: Any) -> None:
    for _ in range(1000):
        student.burn(0.01)


# ---- sleeping and waiting


def test_a_call_may_sleep_ten_times_as_long(server: Server) -> None:
    limits = Limits(cpu_seconds=0.1, total_cpu_seconds=30, memory=1 << 30)
    budget = Budget(limits.allowance, "exercise")
    with loaded(server, limits, budget) as student:
        assert student.sleep(0.5) == 0.5
        with pytest.raises(LimitExceeded, match="hardly used the CPU") as caught:
            student.sleep(60)
    assert caught.value.excess.kind == "idle"
    assert budget.cpu < 0.2
    assert budget.idle > 1.5


class Scripted:
    """Hidden tests for `f`, each of which runs one of the given functions. `counts` holds how many times each has run."""

    def __init__(self, *runs: Callable[[Any, int], None]) -> None:
        self.counts = [0] * len(runs)
        self._runs = runs

    def hidden_test(self, number: int) -> Asked:
        def run(owner: object, student: Any) -> None:
            self.counts[number] += 1
            self._runs[number](student, self.counts[number])

        return Asked("f", f"test_{number}", "It answers.", 1.0, object, run)

    def outcomes(self, attempt: Attempt) -> list[Outcome]:
        try:
            return [attempt.run_test(self.hidden_test(number)) for number in range(len(self._runs))]
        finally:
            attempt.stop()


def attempt_of(server: Server, limits: Limits, code: str = WORK, **more: Any) -> Attempt:
    return Attempt(server, Exercise("f", "chapter", 1, (), limits), source_of(code), "0", **more)


def source_of(code: str) -> Source:
    return join_units(parse_units([Cell(1, "code", code)])[0])


SLEEPY = Limits(cpu_seconds=0.05, total_cpu_seconds=30, memory=1 << 30)


def test_a_call_that_slept_is_repeated_once(server: Server) -> None:
    tests = Scripted(
        lambda student, run: student.f(60 if run == 1 else 0),  # sleeps only during the first run
        lambda student, run: student.f(60),
        lambda student, run: student.burn(60),
        lambda student, run: student.f(0),
    )
    outcomes = tests.outcomes(attempt_of(server, SLEEPY))
    assert [outcome.status for outcome in outcomes if not outcome.passed] == ["timed_out"] * 2
    assert [outcome.passed for outcome in outcomes] == [True, False, False, True]
    assert tests.counts == [2, 2, 1, 1]
    assert "hardly used the CPU" in outcomes[1].message
    assert "0.05 s of CPU time: is there an infinite loop?" in outcomes[2].message


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
    """A grader that waits for a worker that does nothing, with a clock that only `stop` and `wait` advance."""

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


# ---- fork server failures


def kill(server: Server) -> None:
    """Kill the fork server and wait until it has exited."""
    os.kill(inner(server), signal.SIGKILL)
    poll = select.poll()
    poll.register(server._control, 0)
    assert poll.poll(10_000)


def inner(server: Server) -> int:
    """Return the id of the process that forks workers: either the fork server's outer process or its only child."""
    # Reading `isolation` waits until the server is up.
    has_inner = "namespaces" in server.isolation
    outer = process_of(server).pid
    children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    return int(children[0]) if has_inner else outer


@pytest.mark.parametrize("moment", ["before the call", "during the call", "after a crash"])
def test_losing_a_server_affects_neither_the_code_nor_new_processes(
    moment: str, server: Server
) -> None:
    with loaded(server, QUICK) as old:
        if moment == "after a crash":
            # After the server has died, the exit status of its workers is unknown.
            with pytest.raises(ServerLost):
                _die_and_kill(old, server)
        elif moment == "before the call":
            kill(server)
        else:
            threading.Timer(0.3, kill, [server]).start()
        if moment != "after a crash":
            with pytest.raises(ServerLost):
                old.sleep(2)  # a short call could finish before the worker is killed
        with pytest.raises(ServerLost):
            old.f(0)
        with loaded(server, QUICK) as new:
            old.connection._process.stop()
            assert new.f(0) == 0
            with pytest.raises(WorkerDied, match="exit code 3"):
                new.die()


def _die_and_kill(student: Any, server: Server) -> None:
    end = server.end

    def later(number: int) -> Any:
        kill(server)
        return end(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "end", later)
        student.die()


def test_a_server_serves_several_processes_at_once(server: Server) -> None:
    with loaded(server, QUICK) as first, loaded(server, QUICK) as second:
        assert first.f(0) == second.f(0) == 0
        with pytest.raises(WorkerDied, match="exit code 3"):
            first.die()
        with loaded(server, SLEEPY) as third:
            assert second.f(0) == third.f(0) == 0
        with pytest.raises(WorkerDied, match="exit code 3"):
            second.die()


def test_the_kernel_kills_student_code_first_when_memory_runs_out(server: Server) -> None:
    with loaded(server, QUICK) as student:
        pid = student.connection._process._meter._clock._pid  # type: ignore[attr-defined]
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"


def test_a_hidden_test_runs_again_after_its_server_was_lost(server: Server) -> None:
    def killed(student: Any, run: int) -> None:
        student.f(0)
        if run == 1:
            kill(server)
            while True:  # the worker may briefly outlive its server
                student.f(0)

    tests = Scripted(killed, lambda student, run: student.f(0))
    outcomes = tests.outcomes(attempt_of(server, QUICK))
    assert [outcome.passed for outcome in outcomes] == [True, True]
    assert tests.counts == [2, 1]


def test_losing_a_server_repeatedly_is_an_error() -> None:
    tried = []

    def lost() -> None:
        tried.append(1)
        raise ServerLost

    with pytest.raises(ServerLost):
        retry_if_server_lost(lost)
    assert len(tried) == 4


DYING = RIGHT.replace("b, n, d = x.shape", "import os; os._exit(3)")
ENDLESS = RIGHT.replace("b, n, d = x.shape", "while True: pass")


def test_killing_servers_at_random_changes_no_marks(tmp_path: Path, server: Server) -> None:
    make(tmp_path)
    toml = tmp_path / "grading.toml"
    toml.write_text(f"[defaults]\ncpu_seconds = 0.2\n{toml.read_text()}")
    works = [handed_in(work) for work in (RIGHT, WRONG, DYING, ENDLESS)]
    draw = random.Random(0)
    grader = Grader(courses.load(tmp_path).day("day1"), server, b"tests")

    def grade() -> list[Any]:
        return [without_seconds(grader.grade(work)) for work in works]

    undisturbed = grade()
    started = time.monotonic()
    assert grade() == undisturbed
    seconds = time.monotonic() - started
    for _ in range(KILLS):
        # The second kill may happen while a new server is starting, or later.
        delays = [draw.uniform(0, seconds), draw.uniform(0, seconds + 4)]
        killers = [threading.Timer(delay, kill_any, [server, draw]) for delay in delays]
        for killer in killers:
            killer.start()
        try:
            assert grade() == undisturbed, delays
        finally:
            for killer in killers:
                killer.cancel()
                killer.join()


def kill_any(server: Server, draw: random.Random) -> None:
    """Kill either the fork server's outer process or one of its child processes, chosen at random."""
    outer = process_of(server).pid
    with suppress(OSError):  # the process may have exited already
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        os.kill(draw.choice([outer, *map(int, children)]), signal.SIGKILL)


def without_seconds(marks: SubmissionMarks) -> SubmissionMarks:
    exercises = [msgspec.structs.replace(one, seconds=0.0) for one in marks.exercises]
    return msgspec.structs.replace(marks, seconds=0.0, exercises=exercises)


# ---- exclusive runs

HOLDER = """
import sys
from pathlib import Path
from autograder.execution.run_lock import RunLock
print("ready", flush=True)
with getattr(RunLock(Path(sys.argv[1])), sys.argv[2])():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(root: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield holder
        holder.kill()


def gets_lock(holder: subprocess.Popen[str], seconds: float) -> bool:
    """Wait up to `seconds` for a process to get its lock. Return whether it did."""
    stdout = holder.stdout
    assert stdout is not None
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.append(stdout.readline()))
    reading.start()
    reading.join(seconds)
    return lines == ["held\n"]


@pytest.mark.parametrize("first", ["shared", "exclusive"])
@pytest.mark.parametrize("second", ["shared", "exclusive"])
def test_an_exclusive_turn_excludes_all_others(first: str, second: str, tmp_path: Path) -> None:
    with holding(tmp_path, first) as holder:
        assert gets_lock(holder, 10)
        with holding(tmp_path, second) as other:
            has_to_wait = "exclusive" in (first, second)
            assert gets_lock(other, 0.5 if has_to_wait else 10) != has_to_wait
            holder.kill()  # the kernel releases the lock when the process dies
            assert other.poll() is None
            if has_to_wait:
                time.sleep(0.1)
            with holding(tmp_path, "shared") as third:
                other.kill()
                assert gets_lock(third, 10)


def test_waiting_for_an_exclusive_turn_blocks_later_ones(tmp_path: Path) -> None:
    locks = [RunLock(tmp_path) for _ in range(3)]
    order = []

    def alone() -> None:
        with locks[1].exclusive():
            order.append("alone")

    def beside() -> None:
        with locks[2].shared():
            order.append("beside")

    with locks[0].shared():
        threads = [threading.Thread(target=work) for work in (alone, beside)]
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == ["alone", "beside"]


def test_without_a_writable_folder_there_are_no_locks(tmp_path: Path) -> None:
    for root in (None, tmp_path / "not there"):
        with RunLock(root).shared(), RunLock(root).exclusive():
            pass
