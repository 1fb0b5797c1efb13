"""Who handed a file in, and when, as the system that it was downloaded from says it: by names, or by a file beside.

Canvas (its `lib/content_zipper.rb`) has one flat folder, `lovelaceada_LATE_USER_ATTACHMENT_day1-2.ipynb`; Moodle
(`mod/assign`) a folder a student, `Ada Lovelace_PARTICIPANT_assignsubmission_file_/`; Gradescope a folder a submission,
`submission_NUMBER/`, and `submission_metadata.yml` with its students; nbgrader `STUDENT/day1/` with `timestamp.txt`.
places.py says where such names count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from autograder.protocol.plain_text import LONGEST, printable
from autograder.submissions.people import MAX_PEOPLE, YEARS, HandedIn, Person

METADATA = "submission_metadata.yml"
MAX_METADATA = 50_000_000  # bytes
MAX_DEPTH = 8  # levels of what is read of it
TIMESTAMP = "timestamp.txt"
MAX_TIMESTAMP = 100  # bytes
# Canvas takes out of a name whatever is no letter, digit or _, and makes it small; of an anonymous student it gives no name.
CANVAS = re.compile(
    r"(?P<name>\w*?)_?(?P<late>LATE_)?(?P<id>\d{2,}|anon_[0-9A-Za-z]+)_\d{5,}_(?P<original>.+)",
    re.DOTALL,
)
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_(?P<kind>file|onlinetext)_", re.S)
GRADESCOPE = re.compile(r"submission_\d+")
EXPORT = re.compile(r"assignment_\d+_export")  # the one folder of Gradescope's zip


def parse_canvas_name(name: str) -> HandedIn | None:
    """Of a file of Canvas; None of any other."""
    found = CANVAS.fullmatch(name) if len(name) <= LONGEST else None
    if not found or found["name"] != found["name"].lower():
        return None
    person = Person(found["name"] or found["id"], found["id"])
    return HandedIn((person,), late=bool(found["late"]))


def parse_moodle_name(name: str) -> HandedIn | None:
    """Of a folder of Moodle; None of any other. The number is a participant's, no student's id."""
    found = MOODLE.match(name) if len(name) <= LONGEST else None
    if not found:
        return None
    return HandedIn((Person(printable(found["name"])),), participant=found["id"])


def owner_key(name: str) -> str:
    """What the names of all files and folders of one student have in common, in one download; "" of any other name."""
    if found := parse_canvas_name(name):
        return f"canvas {found.people[0].id}"
    if found := parse_moodle_name(name):
        return f"moodle {found.participant}"
    return name if GRADESCOPE.fullmatch(name) else ""


def original_name(name: str) -> str:
    """A file's name as the student gave it, without the number of the attempt that Canvas adds."""
    found = CANVAS.fullmatch(name) if parse_canvas_name(name) else None
    return re.sub(r"-\d+(?=\.\w+$)", "", found["original"]) if found else name


def parse_timestamp(text: str) -> datetime | None:
    """A moment as nbgrader writes it: `2026-12-01 22:59:00.123456 UTC`, `… +0100`, `… Europe/Berlin`; without a zone, UTC."""
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


# ---- Gradescope's metadata


class MetadataError(Exception):
    """The metadata say nothing; the message says why."""


def parse_gradescope_metadata(data: bytes) -> dict[str, HandedIn]:
    """The submissions of an export, each by its folder, from `submission_metadata.yml`.

    Raises:
        MetadataError: it can not be read.
    """
    if len(data) > MAX_METADATA:
        raise MetadataError(f"it is larger than {MAX_METADATA:,} bytes")
    events = yaml.parse(data, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
    try:
        return dict(_submissions(_nodes(events)))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise MetadataError("it is not YAML") from error


def _nodes(events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    """The events without those of the stream: an alias may stand for a billion nodes, and Gradescope writes none."""
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise MetadataError("it has aliases, which Gradescope does not write")
        if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            yield event


def _submissions(events: Iterator[yaml.Event]) -> Iterator[tuple[str, HandedIn]]:
    if not isinstance(next(events, None), yaml.MappingStartEvent):
        raise MetadataError("it has no submissions")
    for key in events:
        if isinstance(key, yaml.MappingEndEvent):
            return
        record = _record(events)
        _skip(key, events)
        if isinstance(key, yaml.ScalarEvent) and (people := _people(record.get(":submitters"))):
            yield key.value[:LONGEST], HandedIn(people, time=_time(record.get(":created_at")))


def _record(events: Iterator[yaml.Event]) -> dict[str, Any]:
    """Of one submission what is needed; the rest, which may be long, is not built."""
    record: dict[str, Any] = {}
    start = next(events)
    if not isinstance(start, yaml.MappingStartEvent):
        _skip(start, events)
        return record
    for key in events:
        if isinstance(key, yaml.MappingEndEvent):
            break
        name = key.value if isinstance(key, yaml.ScalarEvent) else ""
        _skip(key, events)
        value = next(events)
        if name in (":submitters", ":created_at"):
            record[name] = _built(value, events)
        else:
            _skip(value, events)
    return record


def _skip(start: yaml.Event, events: Iterator[yaml.Event]) -> None:
    depth = int(isinstance(start, yaml.CollectionStartEvent))
    while depth:
        event = next(events)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)


def _built(start: yaml.Event, events: Iterator[yaml.Event], depth: int = 0) -> Any:
    """Texts, lists and mappings: whatever a tag says, a scalar is the text that is written there."""
    if depth > MAX_DEPTH:
        raise MetadataError("it is nested too deeply")
    if isinstance(start, yaml.ScalarEvent):
        is_null = not start.style and start.value in ("", "~", "null")
        return "" if is_null else start.value
    items = []
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            break
        items.append(_built(event, events, depth + 1))
    if isinstance(start, yaml.SequenceStartEvent):
        return items
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if isinstance(key, str)}


def _people(listed: Any) -> tuple[Person, ...]:
    records = listed[:MAX_PEOPLE] if isinstance(listed, list) else []
    people = []
    for record in (record for record in records if isinstance(record, dict)):
        texts = (record.get(key) for key in (":name", ":sid", ":email"))
        name, id_, email = (printable(t) if isinstance(t, str) else "" for t in texts)
        people.append(Person(name or email or id_, id_, email))
    return tuple(people)


def _time(value: Any) -> datetime | None:
    if isinstance(value, dict):  # Rails' TimeWithZone
        value = value.get("utc")
    return parse_timestamp(value) if isinstance(value, str) else None
