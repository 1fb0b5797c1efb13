"""Run the command line. The processes that a command starts also import this module, so it imports little at first."""

import contextlib
import sys

# Options with which a command needs a different fork server, or none.
WITHOUT_STANDBY = ("--cluster", "--sandbox", "--help")


def main() -> None:
    """Run a command. If it will grade, first start what takes longest: the fork server, and the imports of the pool."""
    from autograder.sandbox.launch import STANDBY

    try:
        if _will_grade(sys.argv[1:]):
            from autograder.grading import pool_start

            with contextlib.suppress(OSError):  # the pool will report what is wrong
                STANDBY.launch()
                pool_start.start_importing()
        from autograder import cli

        cli.main()
    finally:
        STANDBY.discard()


def _will_grade(arguments: list[str]) -> bool:
    """Return whether a command needs a fork server that grades in the full sandbox on this machine."""
    if not sys.platform.startswith("linux") or arguments[:1] not in (["grade"], ["regrade"]):
        return False
    return not any(argument.startswith(WITHOUT_STANDBY) for argument in arguments)


if __name__ == "__main__":
    main()
