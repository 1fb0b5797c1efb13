"""Prevent torch's argument checks from importing sympy, which takes about as long as grading ten exercises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def skip_symbolic_checks() -> None:
    """Import sympy only for checks of symbolic values and for checks that fail.

    Without this, the first check of a plain bool imports it, for example in `tril` on the device `meta`.
    """
    check_with = torch._check_with

    def check(error_type: Any, cond: Any, message: Callable[[], str]) -> None:
        if cond is not True:
            check_with(error_type, cond, message)

    torch._check_with = check
