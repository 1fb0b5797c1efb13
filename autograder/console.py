"""Print messages and tables in the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple, TextIO

from rich.console import Console

from autograder.plain_text import Decision, counted, escaped

MAX_WIDTH = 10_000  # maximum line length in a file or pipe
MAX_DECISIONS = 10  # maximum number of lines below "Decide:"


class _Notes(NamedTuple):
    """A command's notes, and the file in which they are kept until its next run."""

    file: Path
    is_shown: bool  # whether all notes are printed
    notes: list[str]


_collected: list[_Notes] = []  # at most one item


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
    """Print one line of information to stderr. For a note about marks, use `add_note`."""
    print_text(f"autograder: note: {message}", sys.stderr)


def add_note(note: str) -> None:
    """Collect a note about marks, such as which submission counts, for `print_decisions`."""
    if _collected:
        _collected[0].notes.append(note)
    else:
        print_note(note)


def collect_notes(file: Path, is_shown: bool) -> None:
    """Collect the notes that follow. `file` contains those of the command's last run."""
    _collected[:] = [_Notes(file, is_shown, [])]


def print_decisions() -> None:
    """Write the collected notes to their file, and print new decisions or, with `--all-notes`, all notes."""
    if not _collected:
        return
    file, is_shown, notes = _collected.pop()
    from autograder.course.state_folder import write_cache

    try:
        earlier = set(file.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        earlier = set()
    lines = {escaped(note): isinstance(note, Decision) for note in notes}
    decisions = [note for note, is_decision in lines.items() if is_decision]
    new = decisions if is_shown else [note for note in decisions if note not in earlier]
    shown = new if is_shown else new[:MAX_DECISIONS]
    if lines or earlier:
        # The prefix keeps a decision that was not printed from being an earlier one in the next run.
        text = "".join(f"{'Decide: ' * (note in new[len(shown) :])}{note}\n" for note in lines)
        write_cache(file.parent.parent, file.name, text.encode())
    counts = {
        "new decision": len(new) - len(shown),
        "earlier decision": len(decisions) - len(new),
        "other note": len(lines) - len(decisions),
    }
    if is_shown:
        for note in (note for note, is_decision in lines.items() if not is_decision):
            print_note(note)
    elif any(counts.values()):
        more = ", ".join(counted(number, noun) for noun, number in counts.items() if number)
        print_note(f"--all-notes also prints {more}, which {os.path.relpath(file)} contains")
    if shown:
        print_text("\n".join(["Decide:", *(f"  {note}" for note in shown)]), sys.stderr)


def print_errors_once() -> Callable[[Exception], None]:
    """Return a function that prints an error unless it has printed the same message before. A `Warning` is printed as a note."""
    print_once = cache(lambda message, print_line: print_line(message))
    return lambda error: print_once(
        str(error), print_note if isinstance(error, Warning) else print_error
    )
