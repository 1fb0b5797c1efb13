"""The attacks and the honest controls: cells of students in `cells/`, a file a family.

A cell begins with its name, and says in `#:` lines what stops it and what would be seen if nothing did:

    # %% the secret that inputs are drawn by
    #: stopped by namespaces, landlock
    #: effect leaks

Layers of the kernel (namespaces, landlock, seccomp, limits) are switched off to show that the attack is real. What holds by
design is shown otherwise: `process` by running the same code in the grader's own process, `needs` by running all of the
notebook, `rule` without `not_allowed`, `escaping` by the text before it is made safe; `wire`, `deadline` and `inputs` by what
the grader `says`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CELLS = Path(__file__).parent / "cells"
KERNEL = ("namespaces", "landlock", "seccomp", "limits")
DESIGN = ("process", "needs", "rule", "escaping", "wire", "deadline", "inputs")
EFFECTS = {
    "leaks": "a canary of the course comes back in marks, messages or problems",
    "marks": "it earns what its code is not worth, or what it asks of the kernel is done",
    "changes": "a file of the course is written, removed or made",
    "connects": "a socket outside gets something",
    "signals": "the grader gets a signal",
    "survives": "a process is there afterwards",
    "remains": "shared memory or a file is there afterwards",
    "marker": "the next submission finds a trace",
    "shows": "characters that act on a terminal, or hide, come through",
    "costs": "the exercise loses marks",
    "grows": "the grader holds more descriptors than before",
}
FAMILIES = (
    *("read", "tamper", "forge", "escape", "exhaust", "persist", "exfiltrate", "inject", "cheat"),
)


@dataclass(frozen=True)
class Attack:
    """A student's cell, what stops it, and the effect that it has where that is off."""

    family: str
    name: str
    source: str
    stopped_by: tuple[str, ...]
    effect: str = ""
    says: str = ""
    status: str = ""
    exercise: str = "causal_mask"
    seconds: float = 5.0
    user: str = "nobody"  # who it takes to show the effect

    @property
    def kernel(self) -> tuple[str, ...]:
        """The layers of the kernel among those that stop it."""
        return tuple(layer for layer in KERNEL if layer in self.stopped_by)


def read(family: str) -> list[Attack]:
    """The cells of one file."""
    text = (CELLS / f"{family}.py").read_text(encoding="utf-8")
    found = []
    for part in re.split(r"^# %% ", text, flags=re.M)[1:]:
        name, _, body = part.partition("\n")
        said = dict(re.findall(r"^#: (stopped by|\w+) (.*)$", body, re.M))
        source = re.sub(r"^#: .*\n", "", body, flags=re.M).strip() + "\n"
        layers = tuple(said.pop("stopped by", "").replace(",", " ").split())
        seconds = float(said.pop("seconds", 5))
        found.append(Attack(family, name, source, layers, seconds=seconds, **said))
    return found


ATTACKS = [attack for family in FAMILIES for attack in read(family)]
HONEST = read("honest")
