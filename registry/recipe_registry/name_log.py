"""What happens to named results: a log of JSON lines for each name, in the order in which things happened."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

EventKind = Literal["named", "promoted", "retired"]


@dataclass(frozen=True, slots=True)
class NameEvent:
    """Something that happened to a version.

    Attributes:
        kind: ``named``, ``promoted`` or ``retired``.
        version: the version.
        by: who did it.
        at: when, UTC, ISO 8601.
        stage: what it was promoted to, ``""`` otherwise.
    """

    kind: EventKind
    version: str
    by: str
    at: str
    stage: str = ""


def parse_event(line: str | bytes) -> NameEvent | None:
    """The event of a line of a log, None where a kill tore it or it is none."""
    try:
        content = json.loads(line)
        event = NameEvent(**content)
    except (ValueError, TypeError):
        return None
    return event if all(isinstance(value, str) for value in content.values()) else None


def latest_of(lines: Sequence[str]) -> str:
    """The version that was named last and is in use, by a log of events; ``""`` where there is none."""
    events = [event for line in lines if (event := parse_event(line)) is not None]
    retired = {event.version for event in events if event.kind == "retired"}
    named = [event.version for event in events if event.kind == "named" and event.version not in retired]
    return named[-1] if named else ""


def merged_events(*logs: Sequence[str]) -> list[str]:
    """Logs of one name from several registries as one: each event once, by time."""
    known = {line: event for log in logs for line in log if (event := parse_event(line)) is not None}
    return sorted(known, key=lambda line: (known[line].at, line))
