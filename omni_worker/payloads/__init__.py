"""Payloads: the core event types' models, and the names people use for them.

Enumerations are open strings and extra keys are kept: a newer Omni must not break an old worker.
A key that other programs write as null may be missing, since we leave out what is None.

A file of models is imported when one of its names is asked for: to build them all takes a fifth
of a worker's start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import agent, chat, identity, instance, job, media, message, reaction, voice
    from .agent import *
    from .base import Payload
    from .chat import *
    from .identity import *
    from .instance import *
    from .job import *
    from .media import *
    from .message import *
    from .reaction import *
    from .voice import *

    __all__ = ["Payload"]  # and the models, without the tables: these are public names
    __all__ += agent.__all__
    __all__ += chat.__all__
    __all__ += identity.__all__
    __all__ += instance.__all__
    __all__ += job.__all__
    __all__ += media.__all__
    __all__ += message.__all__
    __all__ += reaction.__all__
    __all__ += voice.__all__

# Core types with a model, by its file: `message.received` has the names MessageReceivedPayload,
# MessageReceivedEvent and MessageReceivedHandler.
TYPES: dict[str, tuple[str, ...]] = {
    "message": (
        "message.received", "message.sent", "message.delivered", "message.read", "message.failed",
        "message.pinned", "message.unpinned", "message.button_click", "message.poll",
        "message.poll_vote",
    ),
    "reaction": (
        "reaction.removed", "reaction.received", "presence.typing", "presence.online",
        "presence.offline",
    ),
    "media": (
        "media.received", "media.processed", "media.processing.failed",
    ),
    "identity": (
        "identity.created", "identity.linked", "identity.merged", "identity.unlinked",
        "profile.synced",
    ),
    "instance": (
        "instance.connected", "instance.disconnected", "instance.qr_code", "access.allowed",
        "access.denied", "access.pairing_requested", "access.pairing_approved", "channel.alert",
        "template.status_changed", "flow.data_exchange",
    ),
    "job": (
        "sync.started", "sync.progress", "sync.completed", "sync.failed", "batch-job.created",
        "batch-job.started", "batch-job.progress", "batch-job.completed", "batch-job.cancelled",
        "batch-job.failed",
    ),
    "chat": (
        "chat.idle_timeout", "chat.handoff_activated", "chat.archived", "chat.closed",
        "follow_up.armed", "follow_up.fired", "follow_up.skipped", "follow_up.disarmed",
    ),
    "agent": (
        "agent.state.changed", "agent.run.cancel_requested", "agent.task.created",
        "agent.task.updated", "agent.task.completed", "agent.task.failed", "agent.task.cancelled",
        "session.reset", "conversation.created", "conversation.updated", "conversation.deleted",
    ),
    "voice": (
        "voice.session_started", "voice.stream_ready", "voice.stream_ended",
        "voice.session_ended", "voice.user_joined_channel", "voice.user_left_channel",
    ),
}  # fmt: skip
PARTS = {
    "base": ("Payload",),
    "message": ("ReceivedContent", "SentContent"),
    "job": ("BatchProgress", "SyncProgress"),
}

# Core types whose payload is any object.
UNTYPED = (
    "agent.a2a.task_received",
    "agent.a2a.task_updated",
    "agent.a2a.task_completed",
    "agent.a2a.task_failed",
    "agent.internal.forwarded",
)


def _stem(type: str) -> str:
    """The beginning of the names of a type: `MessageReceived`."""
    return "".join(word.title() for word in re.split(r"[._-]", type))


class _CorePayloads(Mapping[str, "type[Payload]"]):
    """The model of each core type that has one, imported when it is asked for."""

    def __init__(self) -> None:
        self._files = {type: file for file, types in TYPES.items() for type in types}

    def __getitem__(self, key: str) -> type[Payload]:
        model: type[Payload] = getattr(_file(self._files[key]), f"{_stem(key)}Payload")
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _file(name: str) -> ModuleType:
    return import_module(f".{name}", __name__)


CORE_PAYLOADS = _CorePayloads()

if not TYPE_CHECKING:
    _KINDS = ("Payload", "Event", "Handler")
    _FILES = {name: file for file, names in PARTS.items() for name in names} | {
        _stem(type) + kind: file
        for file, types in TYPES.items()
        for type in types
        for kind in _KINDS
    }
    __all__ = [*_FILES]

    def __getattr__(name: str) -> Any:
        """Import a name that people use, when it is asked for."""
        if name not in _FILES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(_file(_FILES[name]), name)
        return found
