"""Loads: which events lie in a stream before a run, or are published in it. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

STREAM = "MESSAGE"
TYPE = "message.received"
CHANNEL = "whatsapp"
SMALL = 440  # bytes of a usual event; a little more with many digits
AT_ONCE = 1_000  # events a continuous pull asks for; again when half has come
# More bytes than this are not asked for: the server queues 64 MB for a client, then cuts it off.
BYTES_AT_ONCE = 16 * 1024 * 1024
TASKS = "TASKIQ"  # taskiq reads tasks of its own form, so they get a stream of their own
TASK = "handle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many events of one size, spread over instances and types."""

    events: int
    instances: int = 50
    types: int = 1
    size: int = SMALL
    tasks: bool = False  # as taskiq's tasks around the same events
    headers: bool = True  # Nats-Msg-Id, as events published by omni-worker carry it


def type_of(load: Load, number: int) -> str:
    """The event type of the event ``number``."""
    return TYPE if load.types == 1 else f"message.kind{number % load.types:03d}"


def types_of(load: Load) -> list[str]:
    """All event types of a load."""
    return [type_of(load, number) for number in range(load.types)]


def instance_of(load: Load, number: int) -> str:
    """The instance the event ``number`` is of."""
    return f"wa-{number // load.types % load.instances:04d}"


def stream_of(load: Load) -> str:
    """The stream a load lies in."""
    return TASKS if load.tasks else STREAM


def subject_of(load: Load, number: int) -> str:
    """Where the event ``number`` is published."""
    prefix = "taskiq." if load.tasks else ""
    return f"{prefix}{type_of(load, number)}.{CHANNEL}.{instance_of(load, number)}"


def pulled_at_once(load: Load) -> int:
    """How many of its events a continuous pull asks for."""
    return min(AT_ONCE, BYTES_AT_ONCE // load.size)


def id_of(number: int) -> str:
    """An id of an event, shaped like a UUID."""
    return f"4c1b9a54-6b4a-4a35-9b6f-{number:012d}"


def payload_of(load: Load, number: int) -> dict[str, object]:
    """A payload that fits both our model and the registered one, padded to the load's size."""
    return {
        "externalId": f"ext-{number}",
        "chatId": f"chat-{number % 1000}",
        "from": "somebody",
        "content": {"type": "text", "text": _text(max(0, load.size - SMALL))},
    }


@lru_cache(maxsize=8)
def _text(more: int) -> str:
    """What people write, so many characters longer than usual."""
    sentence = "Nina asked whether I have seen it. "
    return "a message of usual length – olá ✅" + (sentence * (more // len(sentence) + 1))[:more]


def envelope_of(load: Load, number: int) -> dict[str, object]:
    """The whole event, as any publisher of ours writes it."""
    id = id_of(number)
    return {
        "id": id,
        "type": type_of(load, number),
        "payload": payload_of(load, number),
        "timestamp": 1_769_700_000_000 + number,
        "metadata": {
            "correlationId": id,
            "traceId": id,
            "source": "benchmark",
            "instanceId": instance_of(load, number),
            "channelType": CHANNEL,
        },
    }


def body_of(load: Load, number: int) -> bytes:
    """What is stored."""
    whole = envelope_of(load, number)
    if load.tasks:
        whole = {
            "task_id": id_of(number),
            "task_name": TASK,
            "labels": {},
            "labels_types": {},
            "args": [],
            "kwargs": {"event": whole},
        }
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()
