"""Define the commands that grade while students work. `cli.py` registers them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from autograder.arguments import DayArgument, JobsOption, SandboxOption, check_folder, load_day
from autograder.console import print_error, print_errors_once, print_text, print_warning
from autograder.plain_text import counted
from autograder.sandbox.clock import cpu_count

CORES = cpu_count()
LivePathsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help="notebooks, folders with one entry per student, or quoted patterns such as '/home/*/day1/day1.ipynb'",
    ),
]
EveryOption = Annotated[
    float, typer.Option(min=1.0, metavar="SECONDS", help="how often to look for changed files")
]


def live(
    day: DayArgument,
    paths: LivePathsArgument,
    names: Annotated[
        bool, typer.Option("--names", help="also serve a page for TAs that shows students' names")
    ] = False,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="the address to listen on")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8765,
    every: EveryOption = 5.0,
    jobs: JobsOption = CORES,
    sandbox: SandboxOption = "required",
) -> None:
    """Show the progress of a room on a web page while students work. This changes no marks.

    Keep the timeline, so that `report` can show how the session went.
    """
    from autograder.course import state_folder
    from autograder.feedback import sentences
    from autograder.grading.pool import Pool
    from autograder.live.board import CODE, Board
    from autograder.live.pages import Pages
    from autograder.live.timeline import Timeline
    from autograder.live.watching import WILDCARD, Watcher
    from autograder.submissions import roster
    from autograder.submissions.reader_client import Reader

    try:
        from autograder.live.server import LOOPBACK, serve
    except ModuleNotFoundError:
        print_error("the board needs tornado, which comes with Jupyter: pip install tornado")
        raise typer.Exit(2) from None
    chosen = load_day(day)
    for path in paths:
        if not (WILDCARD.search(path) or os.path.lexists(path)):
            raise typer.BadParameter(f"there is no file or folder {path!r}")
    room_token = "" if host in LOOPBACK else secrets.token_urlsafe(16)
    ta_token = secrets.token_urlsafe(16) if names else ""

    async def run() -> None:
        with contextlib.ExitStack() as stack:
            timeline = stack.enter_context(Timeline(chosen.root, day))
            pool = stack.enter_context(Pool(replace(chosen, budget=CODE), jobs, sandbox, True))
            reader = stack.enter_context(Reader(sandbox))
            students = roster.for_course(chosen.root)
            secret = state_folder.secret(chosen.root)
            watcher = Watcher(paths, chosen, reader)
            board = Board(chosen, students, secret, watcher, reader, pool, timeline, print_warning)
            pages = Pages(chosen, sentences.read(chosen), board)
            server = serve(pages, host, port, room_token, ta_token)
            stack.callback(server.stop)
            shown = f"[{host}]" if ":" in host else host
            for place, token in (("", room_token), ("ta", ta_token)):
                if not place or token:
                    address = f"http://{shown}:{port}/{place}{token and f'?token={token}'}"
                    print_text(f"{'For TAs only' if place else 'The room'}: {address}")
            await asyncio.to_thread(pool.isolation)
            await board.run(every)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        print_text(f"stopped. `autograder report {day}` shows how the session went")


def watch(
    day: DayArgument,
    inbox: Annotated[Path, typer.Argument(metavar="INBOX", exists=True, file_okay=False)],
    feedback: Annotated[
        Path, typer.Option(metavar="FOLDER", help="write each student's feedback page here")
    ],
    pages_per_day: Annotated[
        int, typer.Option(min=1, metavar="N", help="most new pages per student and day")
    ] = 10,
    every: EveryOption = 5.0,
    jobs: JobsOption = CORES,
    sandbox: SandboxOption = "required",
) -> None:
    """Grade submissions as they arrive, store the marks, and write feedback pages. Ctrl-C ends it."""
    from autograder.feedback import sentences
    from autograder.grading.open_session import open_session
    from autograder.live.delivery import Delivery
    from autograder.live.watching import Watcher

    chosen = load_day(day)
    check_folder(feedback)
    try:
        with open_session(chosen, jobs, sandbox, print_errors_once()) as session:
            watcher = Watcher([str(inbox)], chosen, session.reader)
            delivery = Delivery(chosen, sentences.read(chosen), feedback, pages_per_day)
            while True:
                ready = watcher.poll(time.monotonic())
                if ready:
                    for found in ready:
                        watcher.take(found)
                    written, problems = delivery.deliver(session, inbox)
                    for problem in problems:
                        print_error(problem)
                    print_text(f"{counted(len(ready), 'new file')}, {counted(written, 'new page')}")
                time.sleep(1.0 if watcher.is_settling else every)
    except KeyboardInterrupt:
        print_text("stopped. All marks are stored; run the same command again to continue")
