"""Stored payloads: the events that streams hold, read against the models of an app of today.

Every handler reads an event as a worker would, and does not run. No consumer is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from ..dispatch import Dispatcher
from ..errors import InvalidEvent
from ..events import Event
from ..failures import error_line
from ..handler_consumers import PlannedConsumers
from ..handlers import Handler
from ..letters.read import stored_time
from ..outcomes import Rejected
from ..schemas import SchemaRegistry
from ..subjects import fold, matches
from ..transports.base import StoredMessage, Transport
from ..transports.timestamps import iso
from ..validation import problems
from ..wire import Envelope, read_envelope
from .json_schemas import payload_of
from .replay import past_delivery
from .scan import Scan

TYPES_KEPT = 200  # types counted for each handler; what more there are count together
FAULTS_KEPT = 50  # paths counted for each type, likewise
OTHER = "(others)"
UNREADABLE = "(unreadable)"
ENOUGH = 20  # problems of one event that are counted


@dataclass(slots=True)
class Fault:
    """Mismatch of payloads and a model at one path, and the first event that has it."""

    where: str  # payload.content.text
    what: str  # Field required
    stream: str
    sequence: int
    stored_at: datetime
    events: int = 0


@dataclass(slots=True)
class Counts:
    """Events of one type, read for one handler."""

    fit: int = 0
    fail: int = 0
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)


@dataclass(slots=True)
class Checked:
    """A handler, and what it would make of the stored events, by type."""

    handler: Handler
    streams: dict[str, tuple[str, ...]]  # stream → its filters there
    types: dict[str, Counts] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Number of events that would become dead letters."""
        return sum(one.fail for one in self.types.values())


async def check_stored(
    transport: Transport,
    planned: Sequence[PlannedConsumers],
    registry: SchemaRegistry,
    *,
    since: datetime,
    told: Callable[[int, int], None] = lambda read, total: None,
) -> list[Checked]:
    """Read every event stored ``since`` for the handlers that subscribe to it, one at a time.

    Each stream is read once. ``told`` is called with the number of events read, and of all.
    """
    readers = [_Reader(one, registry) for one in planned]
    streams = sorted({stream for one in readers for stream in one.checked.streams})
    before = 0
    for stream in streams:
        mine = [one for one in readers if stream in one.checked.streams]
        filters = fold(one for reader in mine for one in reader.checked.streams[stream])
        read = 0
        async with Scan(transport, stream, filters=filters, since=since) as messages:
            async for message in messages:
                read += 1
                for reader in mine:
                    if any(matches(one, message.subject) for one in reader.filters[stream]):
                        reader.read(message)
                told(before + read, before + messages.total)
        before += read
    return [one.checked for one in readers]


def as_json(checked: Iterable[Checked]) -> dict[str, Any]:
    """Write the result for programs."""
    return {
        "handlers": [
            {
                "name": one.handler.name,
                "function": one.handler.function,
                "checks": payload_of(one.handler) is not None or one.handler.options.validate,
                "types": [
                    {
                        "type": type,
                        "fit": counts.fit,
                        "fail": counts.fail,
                        "failures": [
                            {
                                "path": fault.where,
                                "message": fault.what,
                                "events": fault.events,
                                "first": {
                                    "stream": fault.stream,
                                    "sequence": fault.sequence,
                                    "time": iso(fault.stored_at),
                                },
                            }
                            for fault in sorted_faults(counts)
                        ],
                    }
                    for type, counts in sorted(one.types.items())
                ],
            }
            for one in checked
        ]
    }


def sorted_faults(counts: Counts) -> list[Fault]:
    """Return the faults of a type, those of most events first."""
    return sorted(counts.faults.values(), key=lambda one: (-one.events, one.where))


class _Reader:
    """Reader for one handler: reads an event as its worker would."""

    def __init__(self, planned: PlannedConsumers, registry: SchemaRegistry) -> None:
        streams: dict[str, tuple[str, ...]] = {}
        for spec in planned.specs:
            streams[spec.stream] = fold([*streams.get(spec.stream, ()), *spec.filters])
        self.filters = streams
        self.checked = Checked(planned.handler, streams)
        self._registry = registry
        self._dispatcher = Dispatcher(planned.handler, registry=registry)

    def read(self, message: StoredMessage) -> None:
        """Count one event, unless it is none of the handler's."""
        outcome = self._dispatcher.read(past_delivery(message))
        if isinstance(outcome, Event):
            self._counts(outcome.type).fit += 1
        elif isinstance(outcome, Rejected):
            self._failed(message, outcome.error)

    def _failed(self, message: StoredMessage, error: BaseException) -> None:
        try:
            envelope = read_envelope(message.body, stored_at=message.stored_at // 1_000_000)
        except InvalidEvent as unreadable:
            type, found = UNREADABLE, [("(event)", str(unreadable))]
        else:
            type = envelope.type
            found = self._problems(envelope) or [("(event)", error_line(error))]
        counts = self._counts(type)
        counts.fail += 1
        for key in dict.fromkeys(found[:ENOUGH]):
            if key not in counts.faults and len(counts.faults) >= FAULTS_KEPT:
                key = (OTHER, "other problems")
            fault = counts.faults.get(key)
            if fault is None:
                fault = counts.faults[key] = Fault(
                    *key, message.stream, message.sequence, stored_time(message)
                )
            fault.events += 1

    def _problems(self, envelope: Envelope) -> list[tuple[str, str]]:
        """Return path and message of each problem of a payload."""
        schema = self._registry.get(envelope.type) if self._validates else None
        for model in (payload_of(self.checked.handler), schema.model if schema else None):
            if model is None:
                continue
            try:
                TypeAdapter(model).validate_json(to_json(envelope.payload), by_name=True)
            except ValidationError as error:
                return [
                    (f"payload.{at}" if at else "payload", what) for at, what in problems(error)
                ]
            except Exception as error:  # of a validator
                return [("payload", f"a validator of its model raised {type(error).__name__}")]
        return []

    @property
    def _validates(self) -> bool:
        return self.checked.handler.options.validate

    def _counts(self, type: str) -> Counts:
        types = self.checked.types
        if type not in types and len(types) >= TYPES_KEPT:
            type = OTHER
        return types.setdefault(type, Counts())
