"""Test that signals stop a command with the documented exit code and no traceback."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

import pytest

from autograder import __main__ as command_line


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """After the test, restore the signal handlers that a command replaces."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_a_command_starts_gives_no_traceback(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, signal_handlers: None
) -> None:
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, usual)
    monkeypatch.setattr("autograder.cli.main", lambda: signal.raise_signal(number))
    monkeypatch.setattr("sys.argv", ["autograder", "list"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 130


def _fail_after(number: int) -> Callable[[], None]:
    """Return a command that turns the signal's KeyboardInterrupt into an ImportError, as NumPy and torch may do."""

    def command() -> None:
        if number:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(number)
        raise ImportError("cannot load module more than once per process")

    return command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_exception_that_follows_a_signal_gives_no_traceback(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, signal_handlers: None
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr("sys.argv", ["autograder", "report"])
    monkeypatch.setattr("autograder.cli.main", _fail_after(number))
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 130
    monkeypatch.setattr("autograder.cli.main", _fail_after(0))
    with pytest.raises(
        ImportError
    ):  # without a signal, the exception is an error in the autograder
        command_line.main()


def test_nohup_protects_a_command_from_the_end_of_its_terminal(
    monkeypatch: pytest.MonkeyPatch, signal_handlers: None
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr("autograder.cli.main", lambda: signal.raise_signal(signal.SIGHUP))
    monkeypatch.setattr("sys.argv", ["autograder", "list"])
    command_line.main()
