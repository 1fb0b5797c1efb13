"""Run the command line. The processes that a command starts also import this module, so it imports nothing at first."""


def main() -> None:
    """Run a command."""
    from autograder import cli

    cli.main()


if __name__ == "__main__":
    main()
