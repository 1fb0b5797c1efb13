"""Test grading on a Dask cluster: marks, killed workers, workers that must not grade, TLS certificates and SLURM jobs."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from distributed.security import Security

from autograder import cli
from autograder.course import config as courses
from autograder.course.config import CourseError, Day
from autograder.grading.class_run import Executor
from autograder.grading.cluster import ClusterLocation, executor
from autograder.grading.cluster.executor import Cluster
from autograder.grading.grader import Grader
from autograder.marks.model import SubmissionMarks
from autograder.sandbox.client import Server
from autograder.sandbox.errors import MustRunAlone, NoIsolation
from autograder.submissions.submission import Submission, read_submissions
from tests import small_course
from tests.conftest import ROOT, handed_in, reader
from tests.dask_cluster import DaskCluster
from tests.grading_runs import without_times

WITHOUT_A_WALL = """
import autograder.grading.cluster.worker as worker
from autograder.sandbox.client import start_server

worker.start_server = lambda sandbox: start_server(sandbox, ["limits"])
"""
DYING = """
import os
import autograder.grading.cluster.worker as worker

class Dying:
    grade_or_log = staticmethod(lambda *_, **__: os._exit(1))

worker._make_grader = lambda course: Dying
"""


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    return courses.load(small_course.make(tmp_path_factory.mktemp("course"))).day("day1")


@pytest.fixture(scope="module")
def class_(day: Day) -> list[Submission]:
    small_course.hand_in(day.root / "class", 6)
    return list(read_submissions([day.root / "class"], day.name, reader()))


@pytest.fixture(scope="module")
def expected(day: Day, class_: list[Submission], server: Server) -> list[SubmissionMarks]:
    grader = Grader(day, server)
    return [
        without_times(grader.grade(one, seed=f"{number:064x}")) for number, one in enumerate(class_)
    ]


@pytest.fixture(scope="module")
def running(day: Day, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Start a Dask cluster with one worker."""
    with ExitStack() as stack:
        running = DaskCluster(tmp_path_factory.mktemp("cluster"), stack)
        running.add_worker()
        yield running


@contextmanager
def connected(day: Day, place: ClusterLocation, warnings: list[Exception]) -> Iterator[Cluster]:
    with closing(Cluster(day, 2, "required", place, warnings.append)) as cluster:
        yield cluster


def grade(executor: Executor, class_: Sequence[Submission]) -> list[SubmissionMarks]:
    futures = [executor.submit(one, f"{number:064x}") for number, one in enumerate(class_)]
    return results(executor, class_, futures)


def results(
    executor: Executor, class_: Sequence[Submission], futures: Sequence[Future[SubmissionMarks]]
) -> list[SubmissionMarks]:
    """Return the marks. Grade submissions again, alone, if their worker was killed."""
    wait(futures)
    marks = []
    for number, (one, future) in enumerate(zip(class_, futures, strict=True)):
        if isinstance(future.exception(), MustRunAlone):
            future = executor.submit(one, f"{number:064x}", is_alone=True)
        marks.append(without_times(future.result()))
    return marks


# ---- a cluster on this machine


@pytest.mark.slow
def test_a_killed_worker_changes_no_marks(
    day: Day, class_: list[Submission], expected: list[SubmissionMarks]
) -> None:
    before = multiprocessing.active_children()
    warnings: list[Exception] = []
    with connected(day, ClusterLocation("local"), warnings) as cluster:
        assert cluster.isolation() == [expected[0].isolation]
        futures = [cluster.submit(one, f"{number:064x}") for number, one in enumerate(class_)]
        wait(futures, return_when=FIRST_COMPLETED)
        started = [p for p in multiprocessing.active_children() if p not in before]
        assert len(started) == 2
        for process in started:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            assert b"PYTHONSAFEPATH=1" in environment
        started[0].kill()
        assert results(cluster, class_, futures) == expected
    assert warnings == []


# ---- a running cluster


@pytest.mark.slow
def test_the_command_grades_on_a_running_cluster(
    day: Day, class_: list[Submission], running: DaskCluster
) -> None:
    command = ("grade", "day1", "class", "--json", "marks.json", "--cluster", running.place.name)
    done = small_course.command(day.root, *command, *running.tls)
    assert (done.returncode, done.stderr) == (0, "")
    marks = json.loads((day.root / "marks.json").read_bytes())["submissions"]
    assert [one["points"] for one in marks] == [100, 60, 100] * 2
    again = small_course.command(day.root, *command, *running.tls)
    assert "6 of 6 submissions have not changed" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("is_reachable", [True, False])
def test_replies_come_directly_from_workers_that_can_be_reached(
    is_reachable: bool,
    day: Day,
    class_: list[Submission],
    expected: list[SubmissionMarks],
    running: DaskCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    if not is_reachable:
        monkeypatch.setattr(executor, "connect", refuse)
    with connected(day, running.place, []) as cluster:
        assert cluster.isolation() == [expected[0].isolation]
        assert cluster._workers._client.direct_to_workers is is_reachable
        assert grade(cluster, class_[:2]) == expected[:2]


@pytest.mark.slow
def test_a_worker_exempts_the_grader_from_garbage_collection(
    day: Day, running: DaskCluster
) -> None:
    """Without the exemption, each full garbage collection would examine some 400,000 objects, which takes 0.2 s."""
    with connected(day, running.place, []) as cluster:
        cluster.isolation()
        (count,) = cluster._workers._client.run(gc.get_freeze_count).values()
    assert count > 100_000


@pytest.mark.slow
def test_a_late_worker_without_a_wall_grades_nothing(
    day: Day,
    class_: list[Submission],
    expected: list[SubmissionMarks],
    running: DaskCluster,
    tmp_path: Path,
) -> None:
    warnings: list[Exception] = []
    with connected(day, running.place, warnings) as cluster:
        assert cluster.isolation() == [expected[0].isolation]
        preload = tmp_path / "without_a_wall.py"
        preload.write_text(WITHOUT_A_WALL)
        running.add_worker("--preload", str(preload))
        assert grade(cluster, class_) == expected
        running.last.wait(30)
    assert [type(warning) for warning in warnings] == [NoIsolation]
    assert "127.0.0.1" in str(warnings[0])


@pytest.mark.slow
def test_a_worker_with_another_version_of_the_course_is_refused(
    day: Day,
    class_: list[Submission],
    expected: list[SubmissionMarks],
    running: DaskCluster,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    shutil.copytree(day.root, other)
    grader = other / "graders" / "day1" / "test_heads.py"
    grader.write_text(grader.read_text() + "# edited\n")
    running.add_worker(AUTOGRADER_COURSE=str(other))
    warnings: list[Exception] = []
    with connected(day, running.place, warnings) as cluster:
        cluster.isolation()
        running.last.wait(30)
        assert grade(cluster, class_[:2]) == expected[:2]
    assert [type(warning) for warning in warnings] == [CourseError]
    assert f"{other} contains a different version of the course" in str(warnings[0])


@pytest.mark.slow
def test_a_submission_whose_workers_are_killed_is_reported_as_not_graded(
    day: Day, tmp_path: Path
) -> None:
    preload = tmp_path / "dying.py"
    preload.write_text(DYING)
    with ExitStack() as stack:
        running = DaskCluster(tmp_path, stack, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
        running.add_worker("--preload", str(preload))
        running.add_worker("--preload", str(preload))
        with connected(day, running.place, []) as cluster:
            (marks,) = grade(cluster, [handed_in("# 60")])
    assert marks.points is None
    assert marks.problems == [executor.KILLED]


@pytest.mark.slow
def test_a_run_without_suitable_workers_ends(day: Day, tmp_path: Path) -> None:
    with ExitStack() as stack:
        running = DaskCluster(tmp_path, stack)
        running.add_worker(AUTOGRADER_COURSE=str(tmp_path))
        with (
            connected(day, running.place, []) as cluster,
            pytest.raises(CourseError, match=r"was refused: .*grading\.toml"),
        ):
            cluster.isolation()


@pytest.mark.slow
def test_a_lost_scheduler_ends_the_run(day: Day, class_: list[Submission], tmp_path: Path) -> None:
    with ExitStack() as stack:
        running = DaskCluster(tmp_path, stack)
        scheduler = running.last
        with connected(day, running.place, []) as cluster:
            future = cluster.submit(class_[0], "0" * 64)
            scheduler.send_signal(signal.SIGKILL)
            with pytest.raises(ConnectionError, match="scheduler was lost"):
                future.result()


# ---- starting a cluster


@pytest.mark.slow
@pytest.mark.usefixtures("class_")
@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("tcp://127.0.0.1:8786", "tcp://127.0.0.1:8786 is not a TLS address"),
        ("tls://127.0.0.1:8786", "--tls-ca-file"),
    ],
)
def test_an_unencrypted_cluster_is_refused(
    address: str,
    problem: str,
    day: Day,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(day.root)
    monkeypatch.setattr(sys, "argv", ["autograder", "grade", "day1", "class", "--cluster", address])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    errors = capsys.readouterr().err
    assert ended.value.code == 2
    assert problem in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
def test_the_extra_is_named_if_it_is_not_installed(day: Day) -> None:
    code = "import sys; sys.modules['distributed'] = None; from autograder.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "grade", "day1", __file__, "--cluster", "local"],
        cwd=day.root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        "autograder: error: --cluster needs packages that are not installed"
    )
    # The advice works wherever the autograder comes from, so it lists the packages of the extra.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (advised,) = re.findall("`pip install (.*)`", done.stderr)
    extra = project["optional-dependencies"]["cluster"]
    assert advised.split() == [one.split(">=")[0] for one in extra]


def test_the_script_of_a_slurm_job(
    day: Day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho Submitted batch job 1\n")
    sbatch.chmod(0o700)
    (tmp_path / "scancel").symlink_to(sbatch)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("AUTOGRADER_SECRET", "the secret")
    with executor.slurm_cluster(4, day.root, Security.temporary(), []) as cluster:
        script = cluster.job_script()
        (folder,) = (day.root / ".autograder").glob("cluster-*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in folder.glob("*.pem"))
        lines = script.splitlines()
        command = lines[-1]
        for directive in ("--cpus-per-task=1", "--mem=4G", "-t 00:30:00"):
            assert f"#SBATCH {directive}" in lines
        assert "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False" in lines
        assert "export PYTHONSAFEPATH=1" in lines
        assert f"{sys.executable} -m distributed.cli.dask_worker tls://" in command
        assert "--nthreads 1 " in command
        assert command.rindex("--memory-limit 0 ") > command.index("--memory-limit 4.00GiB ")
        for option in (
            "--nanny",
            "--protocol tls://",
            "--dashboard-address 127.0.0.1:0",
        ):
            assert option in command
        for option in ("--tls-ca-file", "--tls-cert", "--tls-key"):
            assert f"{option} {folder}/" in command
        assert "the secret" not in script
    assert not folder.exists()
