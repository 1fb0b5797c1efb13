"""Grade on a real SLURM cluster of two nodes, which `tests/slurm/start.sh` starts on this machine.

Tests that mostly wait, for SLURM to notice something, run only with the environment variable SLURM.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.grading_runs import untimed
from tests.small_course import COMMAND, RIGHT, WRONG, make

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("slurmctld") or os.getuid() != 0,
        reason="needs slurmctld, slurmd, slurm-client and munge, and root",
    ),
]
waits = pytest.mark.skipif("SLURM" not in os.environ, reason="waits for SLURM; run `make slurm`")
SECONDS = 90  # for whatever should happen soon
ENDLESS = RIGHT.replace("b, n, d = x.shape", "while True: pass")
# The command, without the check that jobs run long enough.
SHORT_JOBS = """
from autograder.cli import main
from autograder.grading.cluster import executor

executor.MIN_WALLTIME = 0
main()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    folder.parent.chmod(0o755)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        subprocess.run(["bash", ROOT / "tests" / "slurm" / "start.sh", folder], check=True)
        yield
    finally:
        for file in (folder / "run").glob("*.pid"):
            os.kill(int(file.read_text()), signal.SIGKILL)
        del os.environ["SLURM_CONF"]
        if before is not None:
            os.environ["SLURM_CONF"] = before


@pytest.fixture
def course(tmp_path: Path, cluster: None) -> Path:
    make(tmp_path)
    (tmp_path / "class").mkdir()
    for number in range(6):
        text = RIGHT if number % 2 else WRONG
        (tmp_path / "class" / f"s{number}.py").write_text(f"{text}\n# {number}\n")
    return tmp_path


def start(
    course: Path, *options: str, command: Sequence[str] = (COMMAND,), **settings: str
) -> subprocess.Popen[str]:
    """Start to grade the class on SLURM, with these settings of dask-jobqueue."""
    set_ = {f"DASK_JOBQUEUE__SLURM__{name.upper()}": value for name, value in settings.items()}
    return subprocess.Popen(
        [*command, "grade", "day1", "class", "--cluster", "slurm", "--jobs", "2", *options],
        cwd=course,
        env={**os.environ, **set_},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def workers(state: str = "RUNNING,PENDING") -> list[str]:
    """Return the ids of the workers' jobs in this state."""
    return slurm("squeue", "-h", "-o", "%i", "-n", "dask-worker", "-t", state).split()


def folders(course: Path) -> list[Path]:
    return [*(course / ".autograder").glob("cluster-*")]


def test_marks_equal_those_of_the_pool_and_nothing_remains(course: Path) -> None:
    before = {path.name for path in course.iterdir()}
    run = start(course, "--json", "slurm.json")
    assert "6 submissions graded" in run.communicate(timeout=SECONDS)[0]
    assert run.returncode == 0
    assert {path.name for path in course.iterdir()} - before == {".autograder", "slurm.json"}
    assert folders(course) == []
    wait_for(lambda: not workers())
    pool = [COMMAND, "grade", "day1", "class", "--no-store", "--json", "pool.json"]
    subprocess.run(pool, cwd=course, check=True, capture_output=True)
    assert untimed(course / "slurm.json") == untimed(course / "pool.json")


@waits
def test_ctrl_c_is_said_and_ends_the_jobs(course: Path) -> None:
    run = start(course)
    wait_for(workers)
    run.send_signal(signal.SIGINT)
    assert "autograder: error: stopped." in run.communicate(timeout=SECONDS)[1]
    assert run.returncode == 130
    assert folders(course) == []
    wait_for(lambda: not workers())


@waits
def test_after_a_killed_client_the_jobs_end_and_the_next_run_removes_its_keys(
    course: Path,
) -> None:
    run = start(course)
    wait_for(lambda: workers("RUNNING"))
    run.kill()
    run.communicate(timeout=SECONDS)
    (left,) = folders(course)
    wait_for(lambda: not workers())
    again = start(course)
    assert "6 submissions graded" in again.communicate(timeout=SECONDS)[0]
    assert not left.exists()


@waits
def test_a_cancelled_job_is_replaced(course: Path) -> None:
    run = start(course)
    wait_for(lambda: [*(course / ".autograder").glob("trivial-*")])  # a worker has started
    slurm("scancel", workers("RUNNING")[0])
    assert "6 submissions graded" in run.communicate(timeout=SECONDS)[0]
    assert run.returncode == 0


@waits
def test_a_job_that_is_cancelled_before_its_worker_connects_is_replaced(course: Path) -> None:
    run = start(course, "--jobs", "1")
    wait_for(lambda: workers("RUNNING"))
    slurm("scancel", workers()[0])
    assert "6 submissions graded" in run.communicate(timeout=SECONDS)[0]
    assert run.returncode == 0


@waits
def test_a_node_with_another_python_is_an_error(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask would wait without end for the workers of jobs that fail."""
    other = f"exec {sys.executable} -S -c 'import distributed'"
    (course / "jobqueue.yaml").write_text(
        f'{{jobqueue: {{slurm: {{job-script-prologue: ["{other}"]}}}}}}'
    )
    monkeypatch.setenv("DASK_CONFIG", str(course))
    run = start(course)
    errors = run.communicate(timeout=SECONDS)[1]
    assert "3 jobs failed. Job " in errors
    assert "No module named 'distributed'" in errors
    assert run.returncode == 2
    assert folders(course) == []


@waits
def test_a_submission_that_outlives_two_jobs_is_reported_as_not_graded(course: Path) -> None:
    (course / "class" / "endless.py").write_text(ENDLESS)
    toml = course / "grading.toml"
    toml.write_text(f"[defaults]\ncpu_seconds = 200\ntotal_cpu_seconds = 200\n{toml.read_text()}")
    short = [sys.executable, "-c", SHORT_JOBS]
    run = start(course, "--json", "marks.json", command=short, walltime="00:01:00")
    output, errors = run.communicate(timeout=6 * SECONDS)
    marks = json.loads((course / "marks.json").read_bytes())["submissions"]
    points = {one["student"]: one["points"] for one in marks}
    assert points == {"endless": None} | {f"s{n}": (60, 100)[n % 2] for n in range(6)}
    assert "two workers ended while they graded it" in output + errors
    assert run.returncode == 1


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"queue": "nowhere"}, "SLURM does not accept the workers' jobs: "),
        ({"memory": "64 GiB"}, "SLURM does not accept the workers' jobs: "),
        ({"walltime": "00:05:00"}, "Set walltime to at least 20 minutes"),
    ],
    ids=["partition", "memory", "walltime"],
)
def test_impossible_jobs_are_an_error(course: Path, settings: dict[str, str], problem: str) -> None:
    run = start(course, **settings)
    assert problem in run.communicate(timeout=SECONDS)[1]
    assert run.returncode == 2
    assert folders(course) == []


@waits
def test_a_slurm_that_does_not_answer_is_an_error(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/nonexistent")
    run = start(course)
    assert "SLURM did not answer within 20 s" in run.communicate(timeout=SECONDS)[1]
    assert run.returncode == 2


@waits
def test_waiting_for_a_free_node_is_a_note(course: Path) -> None:
    busy = ["sbatch", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 300"]
    for _ in range(2):
        slurm(*busy)
    try:
        run = start(course)
        assert run.stderr is not None
        said = run.stderr.readline()
        assert said == "autograder: note: waiting for a worker to connect to the cluster\n"
    finally:
        slurm("scancel", "--name", "wrap")
    assert "6 submissions graded" in run.communicate(timeout=SECONDS)[0]
    assert run.returncode == 0
