"""Trace as JSON, for programs."""

from __future__ import annotations

from typing import Any

from ..schedules.messages import as_datetime
from ..transports.timestamps import iso
from .letter_json import as_json as letter_as_json
from .schedules import as_json as schedule_as_json
from .trace import EventPlace, Trace
from .trace_failures import failures_of
from .trace_waiting import Word


def as_json(trace: Trace) -> dict[str, Any]:
    """Write a trace for programs."""
    return {
        "id": trace.id,
        "places": [_place_json(one) for one in trace.places],
        "consumers": [
            {
                "stream": one.stream,
                "consumer": one.consumer,
                "handler": one.handler,
                "function": one.function,
                "app": one.app,
                "state": one.word,
                "failures": failures_of(one, trace.letters) or None,
                "error": one.note.error if one.note else None,
            }
            for one in trace.consumers
        ],
        "deadLetters": [letter_as_json(one) for one in trace.letters],
        "scheduled": [schedule_as_json(one) for one in trace.scheduled],
        "forwarding": [
            {"app": one.app, "consumer": one.consumer, "sequence": one.sequence,
             "since": iso(one.since), "due": None if one.due is None else iso(one.due),
             "state": one.word, "paused": one.is_paused}
            for one in trace.forwardings
        ],
        "sentBack": [_place_json(one) for one in trace.returns],
        "longRetries": [
            {"app": one.retry.app, "handler": one.retry.handler, "failures": one.retry.failures,
             "due": iso(as_datetime(one.retry.due)), "state": one.word or Word.RETRY}
            for one in trace.retries
        ],
        "sameCorrelation": [_place_json(one) for one in trace.related],
        "sameCorrelationLater": [schedule_as_json(one) for one in trace.later],
        "more": trace.more_related,
        "scanned": trace.scanned,
        "candidates": [
            {"id": one.id, "type": one.type, "stream": one.stream, "sequence": one.sequence,
             "time": iso(one.time)}
            for one in trace.candidates
        ],
    }  # fmt: skip


def _place_json(place: EventPlace) -> dict[str, Any]:
    return {
        "stream": place.stream,
        "sequence": place.sequence,
        "time": iso(place.time),
        "subject": place.subject,
        "id": place.id,
        "type": place.type,
        "source": place.source,
        "correlationId": place.correlation_id,
    }
