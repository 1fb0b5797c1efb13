"""Run a student's source code as a module, piece by piece, and set the state of random number generators.

Entry points: `run_pieces`, `seed_everything` and `set_random_state`.
"""

from __future__ import annotations

import random
import struct
import types
from collections.abc import Callable, Sequence

import numpy as np
import torch

from autograder.sandbox.worker.describe import SUBMISSION_FILE

# The first four fields of the state of torch's Mersenne Twister. They are the seed, the number of words left before new
# words are generated (plus 1), whether the generator is seeded, and the position of the next word.
STATE = struct.Struct("=QiiQ")
MAX_POSITION = 625  # `left + next` after the first number is drawn; there are 624 words


def run_pieces(
    module: types.ModuleType,
    lines: Sequence[str],
    pieces: Sequence[tuple[int, int]],
    flags: int,
    announce: Callable[[int], None],
) -> list[tuple[int, BaseException]]:
    """Run pieces of a source file in a module. Pieces that raise NameError are rerun after the others.

    Args:
        module: The module whose namespace the pieces share.
        lines: The lines of the source file.
        pieces: The first and last line numbers of each piece, counted from 1.
        flags: The compiler flags for the source.
        announce: A function to call with a piece's first line number before each run of that piece.

    Returns:
        The exceptions raised by pieces that never succeeded, each with the piece's first line number.
    """
    pending = [
        (first, "\n" * (first - 1) + "".join(lines[first - 1 : last])) for first, last in pieces
    ]
    errors: list[tuple[int, BaseException]] = []
    while pending:
        postponed: list[tuple[int, str]] = []
        missing: list[tuple[int, BaseException]] = []
        for first, source in pending:
            announce(first)
            try:
                code = compile(source, SUBMISSION_FILE, "exec", flags, dont_inherit=True)
                exec(code, module.__dict__)
                _use_available_device()
            except NameError as error:
                postponed.append((first, source))
                missing.append((first, error))
            except BaseException as error:
                errors.append((first, error))
        if len(postponed) == len(pending):
            errors += missing
            break
        pending = postponed
    return errors


def _use_available_device() -> None:
    """Reset torch's default device if this machine lacks it. The student may have selected a GPU."""
    try:
        torch.empty(0)
    except Exception:
        torch.set_default_device(None)


def seed_everything(seed: int) -> None:
    """Seed every global random number generator that student code may use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # `torch.manual_seed` searches for other devices on each call.
    torch.default_generator.manual_seed(seed)


def set_random_state(state: torch.Tensor) -> None:
    """Set torch's random state to a state received from another process.

    Raises:
        ValueError: The state is invalid. torch does not check this and would read past the end of the state.
    """
    _, left, seeded, position = STATE.unpack_from(state.contiguous().numpy().tobytes())
    if seeded != 1 or left < 1 or left + position > MAX_POSITION:
        raise ValueError("the random state is invalid")
    torch.set_rng_state(state)
