"""Write submissions that impersonate other students, fake an early submission time, or inject formulas into exported tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.attacks.classes.case import (
    FULL,
    HARMLESS,
    HONEST,
    RIGHT,
    SCRIPT,
    Points,
    Unread,
    code,
    member,
    notebook,
    raw,
    script,
    tarred,
    zipped,
)
from tests.attacks.classes.running import HostileClass

BOOK, WRONG = notebook(), notebook(code("def causal_mask(n, device=None):\n    return n"))
WHEN = "2026-12-10 20:00:00 UTC"
EARLY = "2026-11-01 00:00:00 Z"
GRADED = (Points(0.0, FULL),)
ANY = (*GRADED, Unread())


def roster(students: Sequence[str]) -> str:
    """Return a roster of these students."""
    rows = [
        f"{n},{who},{who.title()} Example,{who}@example.org" for n, who in enumerate(students, 11)
    ]
    return "\n".join(["id,student,name,email", *rows])


def gradescope(name: str, when: str = EARLY) -> str:
    """Return submission metadata in Gradescope's format."""
    person = (
        f"  :submitters:\n  - :name: {name}\n    :sid: {name}\n    :email: {name}@example.org\n"
    )
    return f"submission_1:\n{person}  :created_at: {when}\n"


# ---- nbgrader's folders

Claim = Callable[[Path], object]


def tree(name: str, claims: Mapping[str, Claim]) -> HostileClass:
    """Return a class in nbgrader's folder layout with ada, zoe, bob and a hostile student per forged claim. All submit late."""
    eves = {f"eve-{title.replace('_', '-')}": claim for title, claim in claims.items()}
    everybody = ["ada", "zoe", "bob", *eves]

    def write(folder: Path) -> list[str]:
        for who in everybody:
            place = folder / "submitted" / who / "day1"
            place.mkdir(parents=True)
            (place / "timestamp.txt").write_text(WHEN)
            eves.get(who, honest)(place)
        return [f"submitted/{who}/day1" for who in everybody]

    students = {**dict.fromkeys(("ada", "zoe", "bob"), HONEST), **dict.fromkeys(eves, ANY)}
    days = dict.fromkeys(everybody, 9)
    return HostileClass(name, write, students, roster(everybody), True, days)


def honest(place: Path) -> None:
    """Write a correct notebook to a student's folder."""
    (place / "day1.ipynb").write_text(BOOK)


def of_pairs(*files: tuple[str, str]) -> Claim:
    """Return a function that writes a day1.zip containing these files."""
    return lambda place: (place / "day1.zip").write_bytes(zipped(files))


def of_files(*files: tuple[str, str]) -> Claim:
    """Return a function that writes these files and creates any missing folders."""

    def write(place: Path) -> None:
        for name, text in files:
            file = place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return write


METADATA = {
    "authors": [{"name": "bob"}], "student": "bob", "user": "bob", "sid": "13",
    "nbgrader": {"student_id": "bob", "timestamp": EARLY}, "timestamp": EARLY,
}  # fmt: skip
CLAIMS: Mapping[str, Claim] = {
    "metadata_names_bob": of_pairs(
        ("submission_metadata.yml", gradescope("bob", "2030-01-01 00:00:00 Z")),
        ("submission_1/day1.ipynb", WRONG),
    ),
    "metadata_claims_early": of_pairs(
        ("submission_metadata.yml", gradescope("eve")), ("submission_1/day1.ipynb", BOOK)
    ),
    "metadata_in_a_folder": of_files(
        ("submission_metadata.yml", gradescope("bob")), ("submission_1/day1.ipynb", WRONG)
    ),
    "metadata_beside_the_notebook": of_files(
        ("submission_metadata.yml", gradescope("bob")), ("day1.ipynb", WRONG)
    ),
    "metadata_in_an_archive_in_an_archive": lambda place: (place / "day1.zip").write_bytes(
        zipped(
            {
                "inner.zip": zipped(
                    {
                        "submission_metadata.yml": gradescope("bob"),
                        "submission_1/day1.ipynb": WRONG,
                    }
                )
            }
        )
    ),
    "timestamp_in_an_archive": of_pairs(
        ("timestamp.txt", EARLY),
        ("day1.ipynb", BOOK),
        ("eve/day1/timestamp.txt", EARLY),
    ),
    "tree_in_an_archive": of_pairs(
        ("bob/day1/day1.ipynb", WRONG),
        ("bob/day1/timestamp.txt", "2030-01-01 00:00:00 UTC"),
    ),
    "tree_in_a_folder": of_files(
        ("bob/day1/day1.ipynb", WRONG),
        ("bob/day1/timestamp.txt", "2030-01-01 00:00:00 UTC"),
    ),
    "early_tree_in_a_folder": of_files(
        ("eve/day1/day1.ipynb", BOOK),
        ("eve/day1/timestamp.txt", "2026-11-01 00:00:00 UTC"),
    ),
    "canvas_names_in_an_archive": of_pairs(
        ("bobexample_13_98765_day1.ipynb", WRONG), ("eveexample_14_98766_day1.ipynb", WRONG)
    ),
    "canvas_names_in_a_folder": of_files(("bobexample_13_98765_day1.ipynb", WRONG)),
    "moodle_names_in_an_archive": of_pairs(
        ("Bob Example_4711_assignsubmission_file_/day1.ipynb", WRONG)
    ),
    "moodle_names_in_a_folder": of_files(
        ("Bob Example_4711_assignsubmission_file_/day1.ipynb", WRONG)
    ),
    "many_notebooks": of_files(*((f"f{n}/day1.ipynb", WRONG) for n in range(300))),
    "file_called_bob": of_files(("bob.ipynb", WRONG)),
    "notebook_metadata": of_files(
        ("day1.ipynb", notebook(code(RIGHT, metadata=METADATA), metadata=METADATA))
    ),
    "script_header": of_files(
        ("day1.py", f"# ---\n# student: bob\n# date: {EARLY}\n# ---\n{SCRIPT}")
    ),
    "tree_in_a_tar": lambda place: (place / "day1.tar").write_bytes(
        tarred(
            [
                member("../../bob/day1/day1.ipynb", WRONG.encode()),
                member("submission_metadata.yml", gradescope("bob").encode()),
                member("submission_1/day1.ipynb", WRONG.encode()),
            ]
        )
    ),
}


# ---- downloads from a platform


def canvas(folder: Path) -> list[str]:
    """Write a Canvas download in which eve's files are named like bob's."""
    place = folder / "class"
    place.mkdir()
    for number, who in enumerate(("ada", "zoe", "bob"), 11):
        (place / f"{who}example_{number}_{number + 55555}_day1.ipynb").write_text(BOOK)
    (place / "eveexample_14_66666_bobexample_13_77777_day1.ipynb").write_text(WRONG)
    (place / "eveexample_14_66667_bob.zip").write_bytes(
        zipped({"bobexample_13_77778_day1.ipynb": WRONG})
    )
    return ["class"]


def moodle(folder: Path) -> list[str]:
    """Write a Moodle download in which eve's folder contains a folder and an archive that look like bob's."""
    for number, who in enumerate(("Ada", "Zoe", "Bob", "Eve"), 4711):
        place = folder / "class" / f"{who} Example_{number}_assignsubmission_file_"
        place.mkdir(parents=True)
        if who != "Eve":
            (place / "day1.ipynb").write_text(BOOK)
    inner = "Bob Example_4713_assignsubmission_file_/day1.ipynb"
    raw(place / "work", zipped({inner: WRONG}), ".zip")
    (place / inner).parent.mkdir()
    (place / inner).write_text(WRONG)
    return ["class"]


def gradescopes(folder: Path) -> list[str]:
    """Write a Gradescope download in which eve's folder contains forged metadata and a submission folder."""
    place = folder / "class"
    people = ""
    for number, who in enumerate(("ada", "zoe", "bob", "eve"), 1):
        own = place / f"submission_{number}"
        own.mkdir(parents=True)
        people += gradescope(who, WHEN.replace("UTC", "Z")).replace("submission_1", own.name)
        if who != "eve":
            (own / "day1.ipynb").write_text(BOOK)
    (place / "submission_metadata.yml").write_text(people)
    for inside in (own, own / "submission_1"):
        inside.mkdir(exist_ok=True)
        (inside / "submission_metadata.yml").write_text(gradescope("bob"))
    (own / "submission_1" / "day1.ipynb").write_text(WRONG)
    archive = {"submission_metadata.yml": gradescope("bob"), "submission_1/day1.ipynb": WRONG}
    raw(own / "more", zipped(archive), ".zip")
    return ["class"]


def platform(name: str, write: Callable[[Path], list[str]]) -> HostileClass:
    """Return a `HostileClass` in the format of a platform's download. All students are on the roster."""
    students = {**dict.fromkeys(("ada", "zoe", "bob"), HONEST), "eve": ANY}
    return HostileClass(name, write, students, roster(("ada", "zoe", "bob", "eve")))


# ---- formulas in exported tables


TEXTS = (
    'int("a;=HYPERLINK(A1)")', "int('=1+1')", "int('x\\n=cmd|/c calc!A1')", "int('a\\t=1+1')",
    "int('a,@SUM(1)')", "int('\"\\n\"=1+1;\"')", "int('＝1+1;＝2')", "int('-1+1;-2;+3')",
)  # fmt: skip


def tables(folder: Path) -> list[str]:
    """Write submissions whose file names and messages contain CSV separators followed by formulas."""
    place = folder / "class;=1+1;"
    place.mkdir()
    for who in ("ada", "zoe"):
        (place / f"{who}.py").write_text(SCRIPT)
    lines = "".join(f"causal_mask.x = {text}\n" for text in TEXTS)
    script(place / "eve", f"{SCRIPT}# %%\n{lines}")
    (place / "=1+1;=2.py").write_text(SCRIPT)
    (place / "a;=HYPERLINK(A1).py").write_text(SCRIPT)
    (place / "@SUM(1)|=1.ipynb").write_text(json.dumps({"cells": "=1+1;=1"}))
    return ["class;=1+1;"]


CLASSES = [
    *(tree(name, {name: claim}) for name, claim in CLAIMS.items()),
    platform("canvas", canvas),
    platform("moodle", moodle),
    platform("gradescope", gradescopes),
    HostileClass(
        "formulas",
        tables,
        {
            **dict.fromkeys(("ada", "zoe", "=1+1;=2", "a;=HYPERLINK(A1)"), HONEST),
            "eve": HARMLESS,
            "@SUM(1)|=1": (Unread(),),
        },
        exports=True,
    ),
]
# All claims are in one class.
CLAIMED = tree("claims", CLAIMS)
GROUPED = [CLAIMED, *CLASSES[len(CLAIMS) :]]
