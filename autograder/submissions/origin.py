"""Represent who submitted a file, when, and where. Reader processes send this data to the grader, which stores it in the marks.

A student is an id: each source (a platform, or the folder's name) gives the student an id, and the student's *key* consists of
the source and this id. Names are only for reading. Entry point: `Origin`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from autograder.plain_text import LONGEST, MAX_PROBLEMS, printable
from autograder.submissions.file_types import is_gradable

METADATA = "submission_metadata.yml"
TIMESTAMP = "timestamp.txt"
MAX_TIMESTAMP = 100  # bytes
# Matches what follows the student's name in Canvas's file names. Canvas omits the names of anonymous students.
CANVAS = re.compile(
    r"(?P<late>LATE_)?(?P<id>\d{2,}|anon_[0-9A-Za-z]+)_"
    r"(?:(?P<upload>\d{5,18})_(?P<original>.+)|(?P<entry>text\.html|link\.html))",
    re.DOTALL,
)
MOODLE_MARK = "_assignsubmission_"
# Students may choose their names, so a name may itself contain `MOODLE_MARK`. In a folder name, nothing follows the last
# mark. In a file name, the student's name is matched lazily, because the student's own file name follows the mark.
MOODLE = [
    re.compile(rf"(?P<name>.+?)(?:_(?P<id>\d+))?{MOODLE_MARK}[a-z]+{rest}", re.DOTALL)
    for rest in ("_?(?P<original>)", "(?:_(?P<original>.*))?")
]
BLIND = "Participant"  # Moodle's name for every student if names are hidden
GRADESCOPE = re.compile(r"submission_\d+")
ON_GRADESCOPE = " on Gradescope"
EXPORT = re.compile(r"assignment_\d+_export")  # the top-level folder of Gradescope's zip


def parse_canvas_name(name: str) -> Origin | None:
    """Parse a file name in Canvas's format. Return None if the name does not match this format."""
    return parse_canvas_names([name]).get(name)


def parse_canvas_names(names: Iterable[str]) -> dict[str, Origin]:
    """Parse the file names of one download from Canvas. Omit names that do not match Canvas's format.

    Students choose their own names, which may end in digits that look like an id. In a download, each id belongs to
    one name, so file names that can be read in only one way help to resolve the others. If a name can still
    be read in several ways, `readings` contains all of them. The person then has an id only if one reading is far more likely.
    """
    matches = {name: canvas_matches(name) for name in names}
    readings = {
        name: [_reading(name, found) for found in all_] for name, all_ in matches.items() if all_
    }
    known = {found[0].id: found[0].name for found in readings.values() if len(found) == 1}
    claimed = {
        all_[0].id for name, all_ in readings.items() if len(all_) == 1 and is_gradable(name)
    }
    return {name: _choose_reading(all_, known, claimed) for name, all_ in readings.items()}


def canvas_matches(name: str) -> list[re.Match[str]]:
    """Return all matches of `CANVAS`, one for each place where the student's name may end."""
    if len(name) > LONGEST:
        return []
    found: dict[int, re.Match[str]] = {}
    for start in (0, *(at.end() for at in re.finditer("_", name))):
        before = name[: max(0, start - 1)]
        match = CANVAS.fullmatch(name, start)
        if match and _is_canvas_name(before) and not (start and match["id"].startswith("anon_")):
            found.setdefault(match.end("id"), match)
    return list(found.values())


def _is_canvas_name(name: str) -> bool:
    """Return whether Canvas could have generated this name: only lower-case letters, combining marks, digits and underscores."""
    is_word = all(c.isalnum() or unicodedata.category(c)[0] == "M" or c == "_" for c in name)
    return is_word and name == name.lower()


def _reading(name: str, found: re.Match[str]) -> NameReading:
    before = name[: max(0, found.start() - 1)]
    return NameReading(before, found["id"], bool(found["late"]), int(found["upload"] or 0))


def _choose_reading(
    found: Sequence[NameReading], known: Mapping[str, str], claimed: Container[str]
) -> Origin:
    possible = [one for one in found if known.get(one.id, one.name) == one.name]
    if len(possible) == 1:
        return possible[0].origin()
    # Students' own file names may start with digits. Canvas removes `_123_` from names, and other underscores are rare.
    usual = [one for one in possible if not re.search(r"_\d+_", one.name)]
    likely = usual if len(usual) == 1 else [one for one in possible[:1] if "_" not in one.name]
    if likely and not any(one.id in claimed for one in possible):
        late = any(one.late for one in found)
        return msgspec.structs.replace(likely[0].origin(), late=late, readings=tuple(found))
    return ambiguous(found)


def parse_moodle_name(name: str) -> Origin | None:
    """Parse a folder or file name in Moodle's format. Return None if the name does not match this format.

    The name contains a participant number, not an id. If Moodle hides the students' names, the result's name is
    "Participant" followed by this number.
    """
    found = _match_moodle(name)
    if not found:
        return None
    number = found["id"] or ""
    name = f"{BLIND} {number}".strip() if found["name"] == BLIND else printable(found["name"])
    return Origin((Person(name),), participant=number, source="moodle")


def moodle_name(name: str) -> str:
    """Return a team's name for comparison, because Moodle's file names omit or replace some characters of a name."""
    return re.sub(r"amp;|\.\.+|[&<>\"`|':\\/\x00-\x1f\s_]", "", name).casefold()


def _match_moodle(name: str) -> re.Match[str] | None:
    if len(name) > LONGEST:
        return None
    return next(filter(None, (pattern.fullmatch(name) for pattern in MOODLE)), None)


def parse_file_names(names: Sequence[str]) -> dict[str, Origin]:
    """Parse the top-level file names in a platform's download. Omit names in unknown formats.

    If a Moodle file name can be split into the student's name and the file's name in several ways, use the first way. However,
    if the download also contains that student's files under unambiguous names, treat the student as unknown: a different
    student may be using a misleading name.
    """
    moodle = {name: found for name in names if (found := parse_moodle_name(name))}
    clear = {found.labels for name, found in moodle.items() if name.count(MOODLE_MARK) == 1}
    for name, found in moodle.items():
        if name.count(MOODLE_MARK) > 1 and found.labels in clear:
            moodle[name] = Origin((Person(printable(f"{found.labels[0]}?")),), source="moodle")
    return parse_canvas_names(name for name in names if name not in moodle) | moodle


def owner_key(name: str) -> str:
    """Return a key shared by all files and folders of one student in a download, or "" for names in unknown formats."""
    if found := parse_moodle_name(name):
        return f"moodle {found.labels[0]}"
    if found := parse_canvas_name(name):
        return f"canvas {found.labels[0]}"
    return name if GRADESCOPE.fullmatch(name) else ""


def original_name(name: str) -> str:
    """Return the student's own file name, without the platform's prefix and Canvas's attempt number."""
    if found := _match_moodle(name):
        return found["original"] or name
    matches = canvas_matches(name)
    if not matches:
        return name
    return re.sub(r"-\d+(?=\.\w+$)", "", matches[0]["original"] or matches[0]["entry"])


def is_local_id(id_: str) -> bool:
    """Return whether `gradescope_metadata.py` created this id, which identifies a person only within one download."""
    return bool(GRADESCOPE.fullmatch(id_)) or id_.endswith(ON_GRADESCOPE)


def parse_timestamp(text: str) -> datetime | None:
    """Parse a timestamp in nbgrader's format. Return None if it is malformed or implausible.

    Examples are `2026-12-01 22:59:00.123456 UTC`, `… +0100` and `… Europe/Berlin`. Times without a time zone are UTC.
    """
    text = text.strip()[:MAX_TIMESTAMP]
    moment, _, last = text.rpartition(" ")
    zone = ""
    if moment and last[:1].isalpha():
        text, zone = moment, "" if last in ("Z", "UTC") else last
    try:
        found = datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-"))
        found = found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone) if zone else UTC)
        time = found.astimezone(UTC)
    except (ValueError, OverflowError, OSError, ZoneInfoNotFoundError):
        return None
    return time if time.year in YEARS else None


Name = Annotated[str, msgspec.Meta(max_length=LONGEST)]
Sentences = Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_PROBLEMS)]
Source = Literal["canvas", "moodle", "gradescope", "folder"]
MAX_PEOPLE = 100  # maximum number of people per submission in a download
MAX_MEMBERS = 10_000  # maximum size of a team in Moodle, such as “Default group”
MAX_UPLOAD = 1 << 62
YEARS = range(2000, 2100)  # other years are implausible and could overflow in date arithmetic


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person as identified by a source. Unknown fields are empty."""

    name: Name = ""
    id: Name = ""
    email: Name = ""

    @property
    def label(self) -> str:
        """Return the name and the id, which distinguishes people with the same name."""
        key = self.id or self.email
        if self.name and key.startswith(f"{self.name} "):
            return key
        return (
            f"{self.name} ({key})" if self.name and key not in ("", self.name) else self.name or key
        )


class NameReading(msgspec.Struct, frozen=True):
    """One way to interpret a file name in Canvas's format, which is ambiguous if the student's name contains digits."""

    name: Name
    id: Name
    late: bool = False
    upload: Annotated[int, msgspec.Meta(ge=0, le=MAX_UPLOAD)] = 0

    def origin(self) -> Origin:
        """Return the person and submission according to this interpretation."""
        person = Person(self.name or self.id, self.id)
        return Origin((person,), self.late, upload=self.upload, source="canvas")


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """The people who made a submission, the submission time and the source that reported them.

    File modification times are never used. `late` is set if the platform marks the submission as late without giving a
    time. `participant` is the participant number in Moodle's grading worksheet. `upload` is Canvas's file number, which
    is higher for later uploads. If a file's name is ambiguous, `readings` contains all ways to interpret it.
    """

    people: Annotated[tuple[Person, ...], msgspec.Meta(max_length=MAX_MEMBERS)]
    late: bool = False
    time: datetime | None = None
    participant: Name = ""
    upload: Annotated[int, msgspec.Meta(ge=0, le=MAX_UPLOAD)] = 0
    readings: Annotated[tuple[NameReading, ...], msgspec.Meta(max_length=MAX_PEOPLE)] = ()
    source: Source = "folder"
    team: Name = ""  # the label of a team in Moodle; see `SubmissionTimes.added_to`

    def __post_init__(self) -> None:
        if self.source == "folder" and any(one.id or one.email for one in self.people):
            # Marks from versions before 0.2 do not contain the source.
            known = "canvas" if self.upload or self.readings else "gradescope"
            msgspec.structs.force_setattr(self, "source", known)
        elif self.source == "folder" and (self.participant or self.readings):
            known = "moodle" if self.participant else "canvas"
            msgspec.structs.force_setattr(self, "source", known)

    @property
    def student(self) -> str:
        """Return the people's names, separated by commas."""
        return ", ".join(dict.fromkeys(person.name or person.id for person in self.people))

    @property
    def ids(self) -> tuple[str, ...]:
        """Return each person's id in the source: an id, a participant number, an email address or a folder's name."""
        return tuple(p.id or self.participant or p.email or p.name for p in self.people)

    @property
    def keys(self) -> tuple[str, ...]:
        """Return each person's key, such as "canvas 4211". Ids of different sources are never compared."""
        return tuple(f"{self.source} {id_}" for id_ in self.ids)

    @property
    def team_keys(self) -> tuple[str, ...]:
        """Return the keys that the team had before its members were known."""
        number = self.team.rpartition(" (")[2].removesuffix(")")
        return (f"moodle {self.team}", f"moodle {number}") if self.team else ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Return a label for each person. No two people in the source have the same label."""
        if not self.participant:
            return tuple(person.label for person in self.people)
        number = f" {self.participant}"  # a hidden name in Moodle ends with the participant number
        return tuple(
            p.name if p.name.endswith(number) else f"{p.name} ({self.participant})"
            for p in self.people
        )

    def sanitized(self) -> Origin:
        """Return a copy with printable strings and a plausible time. Use this method for data from a reader process."""
        people = [
            [printable(text) for text in (p.name, p.id, p.email)] for p in self.people[:MAX_PEOPLE]
        ]
        time = self.time if self.time and self.time.tzinfo and self.time.year in YEARS else None
        persons = tuple(Person(*texts) for texts in people)
        readings = tuple(
            msgspec.structs.replace(r, name=printable(r.name), id=printable(r.id))
            for r in self.readings
        )
        number = printable(self.participant)
        return Origin(persons, self.late, time, number, self.upload, readings, self.source)

    def is_older(self, other: Origin) -> bool:
        """Return whether, according to the platform, this submission was made before `other`."""
        if self.time and other.time:
            return self.time < other.time
        return bool(self.upload and other.upload) and self.upload < other.upload


def ambiguous(readings: Sequence[NameReading]) -> Origin:
    """Return a submission whose student is unknown, because its file name is ambiguous."""
    first = readings[0]
    # The label must not contain the upload number, which changes with each submission.
    person = Person(f"{first.name} ({first.id}?)")
    late = any(one.late for one in readings)
    return Origin((person,), late, readings=tuple(readings), source="canvas")


def from_folder(name: str) -> Origin:
    """Return the origin of a file whose student is known only by the name of its folder, or by its own name."""
    return Origin((Person(name),))


def labels(student: str, origin: Origin) -> tuple[str, ...]:
    """Return a label for each student: the names in `student`, unless they are the platform's, which need an id."""
    if printable(origin.student) == student:
        return origin.labels
    names = tuple(student.split(", "))
    return names if len(names) == len(origin.people) else (student,)
