"""Read the attacks and the harmless control cells from `cells/`, which contains one file per family.

A cell begins with its name. Its `#:` lines state which defences stop the attack, and what effect the attack has without them:

    # %% the secret that seeds the inputs
    #: stopped by namespaces, landlock
    #: effect leaks

Kernel layers (namespaces, landlock, seccomp, limits) are disabled to show that the attack is real. Other defences
are tested differently:

- `process`: the attack runs in the grader's own process.
- `needs`: the whole notebook runs, not only the code that the exercise needs.
- `rule`: `not_allowed` is ignored.
- `escaping`: messages are displayed without sanitizing them.
- `wire`, `deadline` and `inputs`: the grader must report the message given in the `says` line.

In a cell, a Unicode character name in angle brackets, such as `<FORM FEED>`, represents that character.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CELLS = Path(__file__).parent / "cells"
KERNEL = ("namespaces", "landlock", "seccomp", "limits")
DESIGN = ("process", "needs", "rule", "escaping", "wire", "deadline", "inputs")
EFFECTS = {
    "leaks": "a canary from the course appears in marks, messages or problems",
    "marks": "the attack earns undeserved points, or the kernel grants its request",
    "changes": "a file in the course is written, removed or created",
    "connects": "a socket outside the sandbox receives data",
    "signals": "the grader receives a signal",
    "survives": "a process is still running afterwards",
    "remains": "shared memory or a file is left behind",
    "marker": "the next submission finds traces of the attack",
    "shows": "control or invisible characters are displayed",
    "costs": "the exercise loses marks",
    "grows": "the grader has more descriptors open than before",
}
FAMILIES = (
    *("read", "tamper", "forge", "escape", "exhaust", "persist", "exfiltrate", "inject", "cheat"),
)


@dataclass(frozen=True)
class Attack:
    """An attack: a student's cell, the defences that stop it, and its effect if these defences are disabled."""

    family: str
    name: str
    source: str
    stopped_by: tuple[str, ...]
    effect: str = ""
    says: str = ""
    status: str = ""
    exercise: str = "causal_mask"
    seconds: float = 5.0
    user: str = "nobody"  # the user that the attack runs as when its defence is disabled

    @property
    def kernel(self) -> tuple[str, ...]:
        """Return the kernel layers that stop the attack."""
        return tuple(layer for layer in KERNEL if layer in self.stopped_by)


def read(family: str) -> list[Attack]:
    """Parse the file of one family in `cells/`. Return its attacks or harmless control cells."""
    text = (CELLS / f"{family}.py").read_text(encoding="utf-8")
    found = []
    for part in re.split(r"^# %% ", text, flags=re.M)[1:]:
        name, _, body = part.partition("\n")
        options = dict(re.findall(r"^#: (stopped by|\w+) (.*)$", body, re.M))
        source = re.sub(r"^#: .*\n", "", body, flags=re.M).strip() + "\n"
        source = re.sub(r"<([A-Z]+ [A-Z ]+)>", lambda name: unicodedata.lookup(name[1]), source)
        layers = tuple(options.pop("stopped by", "").replace(",", " ").split())
        seconds = float(options.pop("seconds", 5))
        found.append(Attack(family, name, source, layers, seconds=seconds, **options))
    return found


def one_per_defence(attacks: Iterable[Attack]) -> list[Attack]:
    """Return the first attack for each effect and set of defences."""
    first: dict[tuple[str, tuple[str, ...]], Attack] = {}
    for attack in attacks:
        first.setdefault((attack.effect, attack.stopped_by), attack)
    return list(first.values())


IS_LONG = os.environ.get("ATTACKS") == "all"
ATTACKS = [attack for family in FAMILIES for attack in read(family)]
HONEST = read("honest")
# The attacks that must have an effect if the defences against them are disabled.
EFFECTIVE = [attack for attack in ATTACKS if attack.effect]
PROVED = EFFECTIVE if IS_LONG else one_per_defence(EFFECTIVE)
