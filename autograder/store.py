"""What the course keeps beside itself in `.autograder/`: the secret, and what is found once a course."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

VARIABLE = "AUTOGRADER_SECRET"


def course_folder(root: Path) -> Path:
    """The folder, made when it is first needed."""
    folder = root / ".autograder"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def secret(root: Path) -> bytes:
    """The secret that inputs are drawn by: `AUTOGRADER_SECRET`, or the file made by the first build or grade (0600)."""
    given = os.environ.get(VARIABLE)
    if given:
        return given.encode()
    file = course_folder(root) / "secret"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_bytes()
    made = secrets.token_hex(32).encode()
    with os.fdopen(descriptor, "wb") as new:
        new.write(made)
    return made
