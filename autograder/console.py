"""Print messages and tables in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import TextIO

from rich.console import Console

from autograder.plain_text import escaped

MAX_WIDTH = 10_000  # maximum line length in a file or pipe


def output() -> Console:
    """Return a console for stdout. If stdout is a file or pipe, lines are not wrapped."""
    console = plain_console()
    return console if console.is_terminal else plain_console(width=MAX_WIDTH)


def plain_console(width: int | None = None, stderr: bool = False) -> Console:
    """Return a console that prints strings as they are. Names from students may look like Rich's markup or emoji codes."""
    return Console(width=width, stderr=stderr, markup=False, emoji=False)


def print_text(text: object, file: TextIO | None = None) -> None:
    """Print text, escaping control characters, because names and paths from students may contain them."""
    print(escaped(str(text), keep="\n\t"), file=file)


def print_error(message: object) -> None:
    """Print one line to stderr about a failure that makes the exit code nonzero."""
    print_text(f"autograder: error: {message}", sys.stderr)


def print_warning(message: object) -> None:
    """Print one line to stderr about a risk that does not stop the command."""
    print_text(f"autograder: warning: {message}", sys.stderr)


def print_note(message: object) -> None:
    """Print one line of information to stderr, such as which submission counts."""
    print_text(f"autograder: note: {message}", sys.stderr)


def print_errors_once() -> Callable[[Exception], None]:
    """Return a function that prints an error unless it has printed the same message before. A `Warning` is printed as a note."""
    print_once = cache(lambda message, print_line: print_line(message))
    return lambda error: print_once(
        str(error), print_note if isinstance(error, Warning) else print_error
    )
