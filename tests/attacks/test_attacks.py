"""Test that no attack works in the sandbox, that each one works if its defences are disabled, and that honest code passes.

`run.py` runs all attacks as `root`. As `nobody`, it runs only the attacks that the kernel blocks, with namespaces denied.
By default, one attack per effect and set of defences also runs with these defences disabled. With `ATTACKS=all`
(`make attacks`), every attack with an effect runs with its defences disabled, `nobody` also runs attacks with namespaces
enabled, and both run attacks without Landlock, as on older kernels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import pytest

from autograder.grading.grader import Grader
from tests.attacks.run import CANARY
from tests.attacks.suite import (
    ATTACKS,
    DESIGN,
    EFFECTS,
    FAMILIES,
    HONEST,
    IS_LONG,
    KERNEL,
    PROVED,
    Attack,
)
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

# Attacks that are impossible by design are run only once: their results depend on neither the user nor namespaces.
IS_ROOT = os.geteuid() == 0
WALLS = [
    ("root" if IS_ROOT else "nobody", "full", "all"),
    *([("nobody", "full", "kernel"), ("root", "old", "kernel")] if IS_ROOT and IS_LONG else []),
    ("nobody", "denied", "kernel"),
    *([("nobody", "old", "kernel")] if IS_LONG else []),
]
OFF = {
    user: (user, "off", "all")
    for user in sorted({attack.user for attack in PROVED})
    if IS_ROOT or user == "nobody"
}
CASES = [
    pytest.param(wall, attack, id=f"{'-'.join(wall[:2])}: {attack.family}: {attack.name}")
    for wall in WALLS
    for attack in ATTACKS
    if attack.kernel or wall[2] == "all"
]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    CANARY: f"CANARY-{os.urandom(8).hex()}",
}


# A user's runs do not overlap, because an attack without limits may exhaust resources that all of a user's processes
# share.
RUNNING = {user: Lock() for user in ("root", "nobody")}


@pytest.fixture(scope="module")
def runs(grader: Grader) -> Iterator[dict[tuple[str, str, str], Future[dict[str, Any]]]]:
    """Run the attacks for every user and sandbox configuration. Runs for the same user do not overlap."""
    trivial = json.dumps(grader.exercises.trivial_passes)
    cases = [*WALLS, *OFF.values()]
    with ThreadPoolExecutor(len(cases)) as pool:
        yield {case: pool.submit(run, *case, trivial) for case in cases}


def run(user: str, wall: str, which: str, trivial: str) -> dict[str, Any]:
    with RUNNING[user]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.attacks.run", user, wall, which],
            env=ENVIRONMENT,
            input=trivial,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            cwd=ROOT,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=WALLS, ids="-".join)
def walled(request: pytest.FixtureRequest, runs: Any) -> dict[str, Any]:
    return runs[request.param].result()  # type: ignore[no-any-return]


def test_the_suite_is_complete_and_consistent() -> None:
    names = [attack.name for attack in [*ATTACKS, *HONEST]]
    assert len(set(names)) == len(names)
    assert len(ATTACKS) >= 80
    assert len(HONEST) >= 25
    assert {attack.family for attack in ATTACKS} == set(FAMILIES)
    for attack in ATTACKS:
        assert attack.stopped_by, attack.name
        assert set(attack.stopped_by) <= {*KERNEL, *DESIGN}, attack.name
        assert attack.effect in ("", *EFFECTS), attack.name
        assert attack.effect or attack.says or attack.status, attack.name


@pytest.mark.parametrize(("wall", "attack"), CASES)
def test_an_attack_has_no_effect(runs: Any, wall: tuple[str, str, str], attack: Attack) -> None:
    walled = runs[wall].result()
    seen = walled["attacks"][attack.name]
    # Landlock does not hide that a file exists; only namespaces do.
    alone = "namespaces" not in walled["isolation"] and attack.stopped_by == ("namespaces",)
    assert seen["effects"] == ([attack.effect] if alone and attack.effect else []), seen
    assert seen["after"] == 3, "the next honest submission lost points"
    if attack.says:
        assert any(attack.says in text for text in seen["messages"]), seen
    if attack.status:
        assert seen["status"] == attack.status, seen


@pytest.mark.parametrize(
    "attack",
    [attack for attack in PROVED if attack.user in OFF],
    ids=lambda attack: f"{attack.family}: {attack.name}",
)
def test_an_attack_has_its_effect_without_the_defence(runs: Any, attack: Attack) -> None:
    seen = runs[OFF[attack.user]].result()["attacks"][attack.name]
    assert attack.effect in seen["effects"], seen


@pytest.mark.parametrize("control", HONEST, ids=lambda control: control.name)
def test_honest_code_gets_full_marks(walled: dict[str, Any], control: Attack) -> None:
    seen = walled["honest"][control.name]
    assert (seen["status"], seen["effects"]) == ("passed", []), seen


def test_nothing_is_left_on_disk(walled: dict[str, Any]) -> None:
    assert walled["left"] == []
