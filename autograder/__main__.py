"""Run a command. Its child processes also import this module, so imports at the top are kept to a minimum."""

import contextlib
import io
import signal
import sys
from types import FrameType

# With these options, a command cannot use the pool and the fork server that `main` would start early.
WITHOUT_STANDBY = ("--cluster", "--sandbox=none", "--help")
_interrupts: list[int] = []  # the signals that stopped the command


def main() -> None:
    """Run a command. Before grading, start the two slowest steps: launching the fork server and importing the grader."""
    from autograder.sandbox.launch import STANDBY

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the encoding may lack symbols like ✓
    _interrupts.clear()
    # In a script, `&` makes a command ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    for number in (signal.SIGTERM, signal.SIGHUP):  # sent by `kill`, and when the terminal closes
        if signal.getsignal(number) == signal.SIG_DFL:  # `nohup` ignores SIGHUP
            signal.signal(number, _interrupt)
    try:
        if _will_grade(sys.argv[1:]):
            with contextlib.suppress(OSError):  # the pool will report what is wrong
                STANDBY.launch()
            from autograder.grading import process_start

            process_start.context(_jobs(sys.argv[1:]))
        from autograder import cli

        cli.main()
    except KeyboardInterrupt:  # the command has not started yet
        sys.exit(130)
    except Exception:
        # If Ctrl-C interrupts an import, the libraries may raise other exceptions, such as ImportError.
        if not _interrupts:
            raise
        sys.exit(130)
    finally:
        STANDBY.discard()


def _stop(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt on Ctrl-C, and remember that the command was stopped."""
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


def _interrupt(*_: object) -> None:
    """Interrupt the command as Ctrl-C would, so that it cleans up. This works even if the command ignores SIGINT."""
    signal.signal(signal.SIGINT, _stop)
    signal.raise_signal(signal.SIGINT)  # delayed while processes are being started


def _will_grade(arguments: list[str]) -> bool:
    """Return whether a command grades on this machine in the full sandbox, and therefore needs a fork server."""
    if not sys.platform.startswith("linux") or arguments[:1] not in (["grade"], ["regrade"]):
        return False
    joined = " ".join(arguments).replace("--sandbox none", "--sandbox=none")
    return not any(argument.startswith(WITHOUT_STANDBY) for argument in joined.split())


def _jobs(arguments: list[str]) -> int:
    """Return the number of processes that a grading command will use."""
    import re

    from autograder.sandbox.clock import cpu_count

    given = re.search(r"--jobs[= ](\d+)", " ".join(arguments))
    return int(given[1]) if given else cpu_count()


if __name__ == "__main__":
    main()
