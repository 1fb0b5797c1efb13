"""Who handed a file in, and when, as the system that it was downloaded from says it: by names, or by a file beside.

Canvas (its `lib/content_zipper.rb`) has one flat folder, `lovelaceada_LATE_USER_ATTACHMENT_day1-2.ipynb`; Moodle
(`mod/assign`) a folder a student, `Ada Lovelace_PARTICIPANT_assignsubmission_file_/`; Gradescope a folder a submission,
`submission_NUMBER/`, and `submission_metadata.yml` with its students; nbgrader `STUDENT/day1/` with `timestamp.txt`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from autograder.archives import MAX_MEMBER, Refused, entries
from autograder.roster import Person

METADATA = "submission_metadata.yml"
TIMESTAMP = "timestamp.txt"
# Canvas takes out of a name whatever is no letter, digit or _, and makes it small; of an anonymous student it gives no name.
CANVAS = re.compile(
    r"(?P<name>\w*?)_?(?P<late>LATE_)?(?P<id>\d{2,}|anon_[0-9A-Za-z]+)_\d{5,}_(?P<original>.+)",
    re.DOTALL,
)
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_(?P<kind>file|onlinetext)_", re.S)
GRADESCOPE = re.compile(r"submission_\d+")


@dataclass(frozen=True)
class HandedIn:
    """Who, and when: `late` is a mark of being late without how late; a file's own time is never taken."""

    people: tuple[Person, ...]
    late: bool = False
    time: datetime | None = None

    @property
    def student(self) -> str:
        """The name, or the names with commas between them."""
        return ", ".join(person.name or person.id for person in self.people)


def handed_in(path: str, day: str) -> HandedIn | None:
    """What the names in an absolute path, outermost first, and the files beside it say; None where they say nothing.

    The platform's own names are outside; whatever a student put into an archive is inside.
    """
    parts = path.split("/")
    for place, part in enumerate(parts):
        found = canvas(part) or moodle(part)
        if GRADESCOPE.fullmatch(part):
            found = _metadata("/".join(parts[:place])).get(part)
        if found:
            return found
    return _of_nbgrader(path, day)


def canvas(name: str) -> HandedIn | None:
    """Of a file of Canvas; None of any other."""
    found = CANVAS.fullmatch(name)
    if not found or found["name"] != found["name"].lower():
        return None
    person = Person(found["name"] or found["id"], found["id"])
    return HandedIn((person,), late=bool(found["late"]))


def moodle(name: str) -> HandedIn | None:
    """Of a folder of Moodle; None of any other. The number is a participant's, no student's id."""
    found = MOODLE.match(name)
    return HandedIn((Person(found["name"]),)) if found else None


def participant(path: str) -> str:
    """The number in the name of a Moodle folder on this path, as the grading worksheet has it; "" where there is none."""
    found = next(filter(None, map(MOODLE.match, path.split("/"))), None)
    return found["id"] if found else ""


def owner(name: str) -> str:
    """What the names of all files and folders of one student have in common, in one download; "" of any other name."""
    if found := CANVAS.fullmatch(name):
        return f"canvas {found['id']}" if canvas(name) else ""
    if found := MOODLE.match(name):
        return f"moodle {found['id']}"
    return name if GRADESCOPE.fullmatch(name) else ""


def original(name: str) -> str:
    """A file's name as the student gave it, without the number of the attempt that Canvas adds."""
    found = CANVAS.fullmatch(name)
    return re.sub(r"-\d+(?=\.\w+$)", "", found["original"]) if found and canvas(name) else name


# ---- files beside


def gradescope(data: bytes) -> dict[str, HandedIn]:
    """The submissions of an export, each by its folder, from `submission_metadata.yml`; empty if it can not be read."""
    try:
        table = yaml.load(data, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    found = {}
    for folder, record in table.items() if isinstance(table, dict) else ():
        if isinstance(record, dict):
            listed = record.get(":submitters")
            submitters = listed if isinstance(listed, list) else []
            people = [_submitter(one) for one in submitters if isinstance(one, dict)]
            if people:
                found[str(folder)] = HandedIn(tuple(people), time=_time(record.get(":created_at")))
    return found


def _submitter(record: Mapping[str, Any]) -> Person:
    name, id_, email = (str(record.get(key) or "") for key in (":name", ":sid", ":email"))
    return Person(name or email or id_, id_, email)


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Data alone; what Ruby calls by the names of its classes is read as what it is written as."""


def _plainly(loader: _Loader, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("!ruby/", _plainly)


def _time(value: Any) -> datetime | None:
    if isinstance(value, dict):  # Rails' TimeWithZone
        value = value.get("utc")
    if isinstance(value, str):
        return timestamp(value)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None


def timestamp(text: str) -> datetime | None:
    """A moment as nbgrader writes it: `2026-12-01 22:59:00.123456 UTC`, `… +0100`, `… Europe/Berlin`; without a zone, UTC."""
    plain, zone = re.sub(r"(\.\d{6})\d+", r"\1", text.strip()), None
    if named := re.fullmatch(r"(.*\d) ([A-Za-z_]+(?:/[\w+-]+)*)", plain):
        plain, zone = named[1], "UTC" if named[2] == "Z" else named[2]
    try:
        found = datetime.fromisoformat(plain.replace(" +", "+").replace(" -", "-"))
        return found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone) if zone else UTC)
    except (ValueError, ZoneInfoNotFoundError):
        return None


def _of_nbgrader(path: str, day: str) -> HandedIn | None:
    """Of `STUDENT/DAY/FILE`. nbgrader writes the time beside the file; none is taken from an archive."""
    folder, _ = os.path.split(path)
    above, name = os.path.split(folder)
    if name != day:
        return None
    data = _read(os.path.join(folder, TIMESTAMP), 1000)
    time = timestamp(data.decode("utf-8", "replace")) if data else None
    return HandedIn((Person(os.path.basename(above)),), time=time) if time else None


@lru_cache(maxsize=8)
def _metadata(folder: str) -> dict[str, HandedIn]:
    """What Gradescope says of the folders in this one, which may lie in an archive."""
    if data := _read(f"{folder}/{METADATA}", MAX_MEMBER):
        return gradescope(data)
    archive = folder
    while archive and not os.path.lexists(archive):
        archive = os.path.dirname(archive)
    inside = f"{folder[len(archive) + 1 :]}/{METADATA}".lstrip("/")
    with contextlib.suppress(OSError, Refused), open(archive, "rb", opener=_opener) as file:
        for entry in entries(file):
            if entry.name == inside and not entry.problem:
                return gradescope(entry.read())
    return {}


def _read(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb", opener=_opener) as file:
            return file.read(limit) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except (OSError, ValueError):
        return b""


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
