"""Derive the seed for a submission's hidden inputs. Entry point: `seed_of`."""

from __future__ import annotations

import hashlib
import hmac

from autograder.submissions.submission import Submission


def seed_of(day: str, secret: bytes, submission: Submission) -> str:
    """Return the seed for a submission: an HMAC of the day's name and the submission's code cells.

    Other cells, outputs and metadata do not affect the seed, so resaving a notebook does not change it.
    """
    sources = (cell.source for cell in submission.cells if cell.kind == "code")
    # Escape the separator. Otherwise, a student could split cells at NUL characters, which would change the code but not
    # its seed, and submit again with the expected values that the feedback has shown.
    code = "\0".join(source.replace("\1", "\1\1").replace("\0", "\1\0") for source in sources)
    digest = hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()
    return hmac.digest(secret, day.encode() + b"\0" + digest, "sha256").hex()
