"""Run `autograder` as another user or without namespaces.

    python -m tests.attacks.classes.start USER WALL ARGUMENTS

USER is root or nobody. WALL is the sandbox configuration: full, or denied (no namespaces).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from autograder import cli
from tests.attacks.as_user import become_nobody, deny_namespaces

MODULE = "tests.attacks.classes.start"


def main(user: str, wall: str, arguments: Sequence[str]) -> None:
    """Switch to the given user, deny namespaces if requested, and run the command."""
    if user == "nobody" and os.geteuid() == 0:
        become_nobody(["-m", MODULE, user, wall, *arguments])
    if wall == "denied":
        deny_namespaces()
    sys.argv[1:] = arguments
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
