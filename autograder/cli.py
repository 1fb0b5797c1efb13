"""Command-line interface: register the commands, and turn their errors into messages and exit codes.

Each command imports its own dependencies to keep `--help` fast. Exit codes:

- 0: Every submission was graded.
- 1: A submission could not be read or graded, its marks could not be stored, a feedback page was not written, or `try`
  found a problem.
- 2: The arguments or the course are invalid, or a course file or one of the user's files could not be read or
  written.
- 3: This machine cannot isolate student code.
- 130: The command was interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from autograder import (
    VERSION,
    course_commands,
    delivery_commands,
    grading_commands,
    live_commands,
    ta_commands,
)
from autograder.console import print_decisions, print_error
from autograder.sandbox.errors import NoIsolation, ServerLost

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"autograder {VERSION}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def autograder(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Build, release and grade the course's exercises."""
    if context.invoked_subcommand is None:
        print(context.get_help())


for command in (
    grading_commands.grade,
    grading_commands.regrade,
    live_commands.live,
    live_commands.watch,
    ta_commands.explain,
    ta_commands.override,
    delivery_commands.report,
    delivery_commands.export,
    delivery_commands.feedback,
    delivery_commands.roster,
    course_commands.new,
    course_commands.build,
    course_commands.doctor,
):
    app.command()(command)
app.command("try")(course_commands.try_)
app.command("list")(ta_commands.list_students)
app.command()(ta_commands.forget)


def main() -> None:
    """Run a command. Print expected errors on one line, without a traceback."""
    from autograder.course.config import CourseError
    from autograder.course.files import FileError
    from autograder.grading.internal_errors import ClusterError, WorkerKilled

    try:
        app(prog_name="autograder")
    except NoIsolation as error:
        print_error(error)
        sys.exit(3)
    except (
        CourseError,
        FileError,
        WorkerKilled,
        ServerLost,
        ClusterError,
        ConnectionError,
    ) as error:
        print_error(error)
        sys.exit(2)
    finally:
        print_decisions()
