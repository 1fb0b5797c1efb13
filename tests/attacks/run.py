"""Run attacks as one user, in one sandbox configuration or with the defences disabled. Print the results as JSON.

    python -m tests.attacks.run USER WALL [kernel]

USER is root or nobody. WALL (the sandbox configuration) is full, denied (no namespaces), old (no Landlock) or off. If
`kernel` is given, run only the attacks that the kernel blocks. If WALL is off, disable the defences and run the attacks that
should then succeed as this user: by default, one attack for each combination of effect and defences, or all of them if
ATTACKS=all is set.

The environment contains a canary, which a process that can inspect the grader would find. The list of tests
that trivial answers pass is read from standard input, because it takes a while to compute.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from autograder.protocol import limits
from autograder.sandbox.client import start_server
from tests.attacks.as_user import become_nobody, deny_landlock, deny_namespaces
from tests.attacks.lab import Lab, Seen
from tests.attacks.outside import Outside
from tests.attacks.suite import ATTACKS, HONEST, IS_LONG, Attack
from tests.attacks.undefended import proofs

CANARY = "ATTACKS_CANARY"
# An honest submission is graded after this many attacks.
GROUP = 1 if IS_LONG else 3
SECONDS_TO_DISAPPEAR = 60  # for the private folders of other tests


def walled(outside: Outside, trivial: Any, which: str) -> dict[str, Any]:
    """Run the attacks and all harmless control cells in the sandbox, and return the results."""
    with start_server() as server:
        here = Lab(outside, server, trivial)
        here.honest_after()
        chosen = [a for a in ATTACKS if a.kernel or which != "kernel"]
        attacks, honest = run_all(here, chosen), run_all(here, HONEST)
        return {"isolation": server.isolation, "attacks": attacks, "honest": honest}


def run_all(here: Lab, attacks: Sequence[Attack]) -> dict[str, Any]:
    """Run attacks, grade an honest submission after each group of attacks, and return the results keyed by name."""
    results: dict[str, Seen] = {}
    for start in range(0, len(attacks), GROUP):
        group = attacks[start : start + GROUP]
        seen = [here.observe(a, partial(here.grade, a), a is group[-1]) for a in group]
        results |= {
            a.name: replace(s, after=seen[-1].after) for a, s in zip(group, seen, strict=True)
        }
    return {name: asdict(each) for name, each in results.items()}


def main(user: str, wall: str, which: str = "all") -> None:
    """Switch to the user, run the attacks in this sandbox configuration, and print the results as JSON."""
    if user == "nobody" and os.geteuid() == 0:
        become_nobody(["-m", "tests.attacks.run", user, wall, which])
    if wall == "denied":
        deny_namespaces()
    if wall == "old":
        deny_landlock()
    trivial = json.load(sys.stdin)
    before = private_folders()
    with Outside(os.environ[CANARY]) as outside:
        if wall == "off":
            # With its defence disabled, an attack may wait for an answer that never comes.
            with mock.patch.object(limits, "IDLE_CALLS", 60):
                seen = proofs(outside, trivial, user)
        else:
            seen = walled(outside, trivial, which)
    seen["left"] = left_behind(before)
    print(json.dumps(seen))


def private_folders() -> set[str]:
    """Return the names of the private folders in /tmp that belong to this user."""
    return {path.name for path in Path("/tmp").glob("autograder-*") if is_own(path)}


def is_own(path: Path) -> bool:
    """Return whether a folder belongs to this user, or False if another test has just removed it."""
    try:
        return path.stat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


def left_behind(before: set[str]) -> list[str]:
    """Return the new private folders that remain after a minute. By then, concurrent tests have removed theirs."""
    end = time.monotonic() + SECONDS_TO_DISAPPEAR
    while (made := private_folders() - before) and time.monotonic() < end:
        time.sleep(0.1)
    return sorted(made)


if __name__ == "__main__":
    main(*sys.argv[1:])
