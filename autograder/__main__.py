"""Run the command line. The processes that a command starts import this module, too, so it imports nothing else at first."""


def main() -> None:
    """Run a command."""
    from autograder import cli

    cli.main()


if __name__ == "__main__":
    main()
