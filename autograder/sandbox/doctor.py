"""Check how well this machine isolates code, layer by layer. Entry point: `examine`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autograder.sandbox.command import ENVIRONMENT, LAYERS
from autograder.sandbox.errors import NoIsolation

# For each layer, a probe that no other layer blocks.
ONLY_PROBE = {"namespaces": "find", "landlock": "list", "seccomp": "fork", "limits": "memory"}
PURPOSE = {
    "namespaces": "a file system with only Python, no network, no other processes",
    "landlock": "no files except Python's and the process's own, no TCP, no signals",
    "seccomp": "no new processes or programs, no sockets",
    "limits": "limited memory, time, files and threads",
}
REMEDY = {
    "namespaces": "allow unprivileged user namespaces (Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0), "
    "or start as root",
    "landlock": "use a kernel since Linux 6.2 (`uname -r`) with landlock in its lsm list; namespaces suffice without it",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER on x86-64 or arm64",
    "limits": "raise the hard limits of the shell (ulimit -H)",
}
SECONDS = 60.0
# By probe: the attempted action, whether it was blocked, and what happened.
Attempts = dict[str, tuple[str, bool, str]]


@dataclass(frozen=True)
class Finding:
    """The result of probing one sandbox layer or, if `layer` is "all", the complete sandbox."""

    layer: str
    tried: str
    seen: str
    passed: bool


def examine() -> list[Finding]:
    """Probe the sandbox with all layers, with each layer alone, and with each layer left out. This takes a few seconds.

    Raises:
        NoIsolation: The probes did not run.
    """
    if not sys.platform.startswith("linux"):
        text = "not found; the sandbox needs Linux. Run the grader in the container that docs/sandbox.md describes"
        return [Finding("all", "find Linux", text, False)]
    refused = _run(
        "import json; from autograder.sandbox.walls.wall import refused_layers; print(json.dumps(refused_layers()))"
    )
    findings = []
    for layer in LAYERS:
        if layer in refused:
            text = f"refused: {refused[layer]}. To enable it, {REMEDY[layer]}."
            findings.append(
                Finding(layer, f"enable only this layer ({PURPOSE[layer]})", text, False)
            )
    available = [layer for layer in LAYERS if layer not in refused]
    unwalled, complete = _observe([]), _observe(available)
    for layer in available:
        findings += _layer_findings(layer, available, unwalled, complete)
    return [*findings, *_policy_findings(complete)]


def _layer_findings(
    layer: str,
    available: Sequence[str],
    unwalled: Attempts,
    complete: Attempts,
) -> list[Finding]:
    """Check which probes a layer blocks on its own, and whether its probe in `ONLY_PROBE` succeeds if the layer is left out."""
    alone = _observe([layer])
    findings = [
        Finding(layer, f"{tried}, with only this layer", text, blocked)
        for name, (tried, blocked, text) in alone.items()
        if blocked and not unwalled[name][1]
    ]
    name = ONLY_PROBE[layer]
    without = _observe([other for other in available if other != layer])
    tried, blocked, text = complete[name]
    seen = f"with all layers: {text}; with all layers except this one: {without[name][2]}"
    return [*findings, Finding(layer, tried, seen, blocked and not without[name][1])]


def _policy_findings(complete: Attempts) -> list[Finding]:
    from autograder.sandbox.walls.probes import ISOLATES

    return [
        Finding("all", f"{tried} (isolation of {ISOLATES[name]})", text, blocked)
        for name, (tried, blocked, text) in complete.items()
        if name in ISOLATES
    ]


def _observe(layers: Sequence[str]) -> Attempts:
    code = "import sys; from autograder.sandbox.walls.probes import main; main(sys.argv[1:])"
    found: Attempts = _run(code, *layers)
    return found


def _run(code: str, *arguments: str) -> Any:
    """Run code in a separate process, because a layer cannot be disabled once it is active. Raises NoIsolation if it fails."""
    command = [sys.executable, "-I", "-c", code, *arguments]
    try:
        done = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS, cwd="/"
        )
    except subprocess.TimeoutExpired:
        raise NoIsolation(f"the sandbox probes timed out after {SECONDS:g} seconds") from None
    except OSError as error:
        raise NoIsolation(f"the sandbox probes did not run: {error}") from None
    try:
        return json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or [f"no output, exit code {done.returncode}"]
        raise NoIsolation(f"the sandbox probes did not run: {lines[-1]}") from None
