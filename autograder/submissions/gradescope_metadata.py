"""Read `submission_metadata.yml` in a download from Gradescope. Entry point: `parse_metadata`.

Only the sandboxed reader imports this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
import yaml

from autograder.plain_text import LONGEST, printable
from autograder.submissions import origin
from autograder.submissions.origin import MAX_PEOPLE, Origin, Person

MAX_METADATA = 50_000_000  # bytes
MAX_DEPTH = 8  # maximum nesting depth in the parsed parts of the YAML


class MetadataError(Exception):
    """Raised when a metadata file cannot be read. The message gives the reason."""


def parse_metadata(data: bytes) -> dict[str, Origin]:
    """Parse the file. Return each submission's people and time, keyed by folder name. Raises MetadataError."""
    if len(data) > MAX_METADATA:
        raise MetadataError(f"the file is larger than {MAX_METADATA:,} bytes")
    events = yaml.parse(data, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
    try:
        return _with_ids(dict(_submissions(_nodes(events))))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise MetadataError("the file is not valid YAML") from error


def _nodes(events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    """Yield the YAML events that belong to nodes. Reject aliases, because they could expand to billions of nodes."""
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise MetadataError("the file contains YAML aliases, which Gradescope does not write")
        if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            yield event


def _submissions(events: Iterator[yaml.Event]) -> Iterator[tuple[str, Origin]]:
    if not isinstance(next(events, None), yaml.MappingStartEvent):
        raise MetadataError("the file contains no submissions")
    for key in events:
        if isinstance(key, yaml.MappingEndEvent):
            return
        record = _read_record(events)
        _skip(key, events)
        folder = key.value[:LONGEST] if isinstance(key, yaml.ScalarEvent) else ""
        if folder and (people := _people(record.get(":submitters"))):
            yield folder, Origin(people, time=_time(record.get(":created_at")), source="gradescope")


def _read_record(events: Iterator[yaml.Event]) -> dict[str, Any]:
    """Read the required fields of one submission in the metadata. Skip all other fields, which may be long."""
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
            record[name] = _build(value, events)
        else:
            _skip(value, events)
    return record


def _skip(start: yaml.Event, events: Iterator[yaml.Event]) -> None:
    depth = int(isinstance(start, yaml.CollectionStartEvent))
    while depth:
        event = next(events)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)


def _build(start: yaml.Event, events: Iterator[yaml.Event], depth: int = 0) -> Any:
    """Build a Python value from YAML events. Every scalar becomes a string, because YAML tags are ignored."""
    if depth > MAX_DEPTH:
        raise MetadataError("the file is nested too deeply")
    if isinstance(start, yaml.ScalarEvent):
        is_null = not start.style and start.value in ("", "~", "null")
        return "" if is_null else start.value
    items = []
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            break
        items.append(_build(event, events, depth + 1))
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


def _with_ids(found: Mapping[str, Origin]) -> dict[str, Origin]:
    """Give an id to people who have neither an id nor an email address.

    The id is the person's name, or the folder's name if several people have the same name. Each submission has a new folder,
    so the folder's name does not identify a person across submissions.
    """
    names = Counter(p.name for one in found.values() for p in one.people if not (p.id or p.email))

    def with_id(person: Person, folder: str) -> Person:
        id_ = (
            folder if names[person.name] > 1 else printable(f"{person.name}{origin.ON_GRADESCOPE}")
        )
        has_id = person.id or person.email
        return person if has_id else msgspec.structs.replace(person, id=id_)

    return {
        folder: msgspec.structs.replace(one, people=tuple(with_id(p, folder) for p in one.people))
        for folder, one in found.items()
    }


def _time(value: Any) -> datetime | None:
    if isinstance(value, dict):  # a serialised instance of the TimeWithZone class in Rails
        value = value.get("utc")
    return origin.parse_timestamp(value) if isinstance(value, str) else None
