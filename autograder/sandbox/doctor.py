"""What isolation this machine gives, layer by layer: what was tried, and what was seen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autograder.sandbox.control import ENVIRONMENT, LAYERS

# What only this layer stops, for each; and what each is for, in words.
ALONE = {"namespaces": "find", "landlock": "list", "seccomp": "fork", "limits": "memory"}
PURPOSE = {
    "namespaces": "a file system of Python alone, no network, no other processes",
    "landlock": "no files but Python's and its own, no TCP, no signals",
    "seccomp": "no new processes or programs, no sockets",
    "limits": "bounded memory, time, files, threads",
}
REMEDY = {
    "namespaces": "allow unprivileged user namespaces (Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0), "
    "or start as root",
    "landlock": "use Linux 6.2 or later, with landlock among the kernel's lsm",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER on x86-64 or arm64",
    "limits": "raise the hard limits of the shell (ulimit -H)",
}
SECONDS = 60.0
Seen = tuple[str, bool, str]  # what was tried, whether it was stopped, what was seen


@dataclass(frozen=True)
class Finding:
    """A layer, or "all" of them; what was tried behind it, what was seen, and whether that is as it should be."""

    layer: str
    tried: str
    seen: str
    holds: bool


def doctor() -> list[Finding]:
    """Try each layer alone, all but it, and all together, each in processes of their own; takes some seconds."""
    if not sys.platform.startswith("linux"):
        text = "not here: the wall is made of means of Linux; run the grader in the container that SECURITY.md describes"
        return [Finding("all", "looked for Linux", text, False)]
    refused = _run(
        "import json; from autograder.sandbox.walls.wall import unavailable; print(json.dumps(unavailable()))"
    )
    findings = []
    for layer in LAYERS:
        if layer in refused:
            text = f"refused: {refused[layer]}. To have it, {REMEDY[layer]}."
            findings.append(Finding(layer, f"put it up alone ({PURPOSE[layer]})", text, False))
    there = [layer for layer in LAYERS if layer not in refused]
    open_, whole = _observe([]), _observe(there)
    for layer in there:
        findings += _of_layer(layer, there, open_, whole)
    return [*findings, *_of_policy(whole)]


def _of_layer(
    layer: str, there: Sequence[str], open_: dict[str, Seen], whole: dict[str, Seen]
) -> list[Finding]:
    """What the layer stops when it is alone, and what it alone stops among all that are there."""
    alone = _observe([layer])
    findings = [
        Finding(layer, f"{tried}, with this layer alone", text, stopped)
        for name, (tried, stopped, text) in alone.items()
        if stopped and not open_[name][1]
    ]
    name = ALONE[layer]
    without = _observe([other for other in there if other != layer])
    tried, stopped, text = whole[name]
    seen = f"with all layers: {text}; with all but this one: {without[name][2]}"
    return [*findings, Finding(layer, tried, seen, stopped and not without[name][1])]


def _of_policy(whole: dict[str, Seen]) -> list[Finding]:
    from autograder.sandbox.walls.probes import ISOLATES

    return [
        Finding("all", f"{tried} (isolation of {ISOLATES[name]})", text, stopped)
        for name, (tried, stopped, text) in whole.items()
        if name in ISOLATES
    ]


def _observe(layers: Sequence[str]) -> dict[str, Seen]:
    code = "import sys; from autograder.sandbox.walls.probes import main; main(sys.argv[1:])"
    found: dict[str, Seen] = _run(code, *layers)
    return found


def _run(code: str, *arguments: str) -> Any:
    """In a process of its own, as a layer that was put up can not be taken down."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd="/",
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise RuntimeError(f"the probes did not run: {lines[-1]}") from None
