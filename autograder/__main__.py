"""Run the command line. The processes that a command starts also import this module, so it imports little at first."""

import sys

# Options with which a command needs a different fork server, or none.
OTHER_SERVER = ("--cluster", "--sandbox", "--help")


def main() -> None:
    """Run a command. If it will grade, first launch the fork server, which takes longest to start."""
    from autograder.sandbox.launch import STANDBY

    command, *options = sys.argv[1:] or [""]
    if command in ("grade", "regrade") and not any(o.startswith(OTHER_SERVER) for o in options):
        STANDBY.launch()
    try:
        from autograder import cli

        cli.main()
    finally:
        STANDBY.discard()


if __name__ == "__main__":
    main()
