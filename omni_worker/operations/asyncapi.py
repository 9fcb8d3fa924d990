"""AsyncAPI: the document of an app, for people and programs of other languages. Pure.

An operation for each handler and address it receives from, and one for each type the app
registers, which is what it may send.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ..events import Metadata
from ..handler_consumers import PlannedConsumers
from ..handlers import Handler
from ..options import options_in_force
from ..schemas import SchemaRegistry
from ..subjects import is_wild, matches
from .json_schemas import json_schemas, name_of, own_types, payload_of

VERSION = "3.0.0"
ENVELOPE, METADATA = "EventEnvelope", "EventMetadata"
PARAMETERS = {
    "channel": "The messaging channel, for example whatsapp.",
    "instance": "The instance of the channel, for example wa-001; it may contain dots.",
    "rest": "One or more words.",
}
_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(slots=True)
class _Channel:
    key: str
    address: str
    messages: dict[str, None] = field(default_factory=dict)  # keys, in order


@dataclass(slots=True)
class _Message:
    type: str | None  # None: of any type that the handler's pattern matches
    model: Any
    description: str = ""


def asyncapi(
    app: str,
    planned: Sequence[PlannedConsumers],
    registry: SchemaRegistry,
    *,
    version: str = "0.0.0",
    sends: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the document of an app; ``sends`` are types it sends beside those it registered.

    Raises ConfigError for one of these that the registry does not know.
    """
    document = _Document(registry)
    for one in planned:
        document.receive(one)
    sent = [one.type for one in own_types(registry.list(), SchemaRegistry().list())]
    for type in dict.fromkeys([*sent, *sends]):
        document.send(type)
    return document.whole(app, version)


class _Document:
    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry
        self._channels: dict[str, _Channel] = {}  # by address
        self._messages: dict[str, _Message] = {}
        self._operations: dict[str, dict[str, Any]] = {}

    def receive(self, planned: PlannedConsumers) -> None:
        """Add a handler: an operation for each address."""
        handler = planned.handler
        for address, type in _addresses(handler):
            channel = self._channel(address)
            messages = list(self._received(handler, type))
            self._operation(
                handler.short, channel, messages,
                {
                    "action": "receive",
                    "title": handler.shown,
                    **_description(handler),
                    "x-omni-worker": {
                        "handler": handler.name,
                        "function": handler.function,
                        "shared": planned.is_shared,
                        "consumers": [
                            {"stream": one.stream, "name": one.name} for one in planned.specs
                        ],
                        "options": options_in_force(handler.options),
                    },
                },
            )  # fmt: skip

    def send(self, type: str) -> None:
        """Add a type that the app publishes, to a channel's instance or without both."""
        schema = self._registry.get(type)
        if schema is None:
            raise ConfigError(
                f"event type {type!r} is not known to the app's registry;"
                f" {self._registry.advice(type)}"
            )
        message = self._message(type, _Message(type, schema.model, schema.description))
        for name, address in (
            (f"send-{type}", f"{type}.{{channel}}.{{instance}}"), (f"send-{type}-bare", type)
        ):  # fmt: skip
            self._operation(name, self._channel(address), [message], {"action": "send"})

    def whole(self, app: str, version: str) -> dict[str, Any]:
        """Return the document."""
        models = {key: one.model for key, one in self._messages.items() if one.model is not None}
        payloads, named = json_schemas({METADATA: Metadata, **models})
        envelope = _envelope(payloads.pop(METADATA))
        return {
            "asyncapi": VERSION,
            "info": {"title": app, "version": version},
            "defaultContentType": "application/json",
            "channels": {one.key: _channel(one) for one in self._channels.values()},
            "operations": self._operations,
            "components": {
                "messages": {
                    key: _written(key, one, payloads.get(key))
                    for key, one in sorted(self._messages.items())
                },
                "schemas": {ENVELOPE: envelope, **dict(sorted(named.items()))},
            },
        }

    def _channel(self, address: str) -> _Channel:
        found = self._channels.get(address)
        if found is None:
            taken = {one.key for one in self._channels.values()}
            found = self._channels[address] = _Channel(_free(_key(address), taken), address)
        return found

    def _received(self, handler: Handler, type: str | None) -> Iterator[str]:
        """Add the messages that a handler receives on the address of a type; return their keys."""
        model = payload_of(handler)
        if type is not None and not is_wild(type):
            schema = self._registry.get(type)
            known = schema.model if schema else None
            about = schema.description if schema else ""
            yield self._message(type, _Message(type, model or known, about))
            return
        if model is not None:
            yield self._message(handler.short, _Message(None, model))
            return
        for schema in self._registry.list() if type is not None else ():
            if type is not None and matches(type, schema.type):
                yield self._message(
                    schema.type, _Message(schema.type, schema.model, schema.description)
                )
        # The pattern matches types that are unknown today as well.
        yield self._message("event", _Message(None, None, "An event of any type."))

    def _message(self, key: str, message: _Message) -> str:
        key = _key(key)
        known = self._messages.get(key)
        if known is not None and known.model is not message.model:
            if message.model is None:  # less is known of it here: it is the same event
                return key
            if known.model is not None:
                key = _key(f"{key}.{name_of(message.model)}")
        self._messages[key] = message
        return key

    def _operation(
        self, name: str, channel: _Channel, messages: Sequence[str], facts: Mapping[str, Any]
    ) -> None:
        key = _key(name)
        if key in self._operations:
            key = _free(_key(f"{name}-{channel.key}"), self._operations)
        channel.messages.update(dict.fromkeys(messages))
        where = f"#/channels/{_pointer(channel.key)}"
        self._operations[key] = {
            **facts,
            "channel": {"$ref": where},
            "messages": [{"$ref": f"{where}/messages/{_pointer(one)}"} for one in messages],
        }


def _addresses(handler: Handler) -> Iterator[tuple[str, str | None]]:
    """Return each address a handler receives from, with its pattern of types."""
    if not handler.types:
        for subject in handler.filters:
            yield _words(subject), None
        return
    for type in handler.types:
        instance = handler.instance or "{instance}"
        for channel in handler.channels or ("{channel}",):
            if type.endswith(">"):
                yield _words(type), type
                break
            yield f"{_words(type)}.{channel}.{instance}", type
        if not handler.channels and handler.instance is None and not type.endswith(">"):
            yield _words(type), type


def _words(pattern: str) -> str:
    """Replace the wildcards of a pattern by parameters: `message.{word2}`."""
    return ".".join(
        "{rest}" if token == ">" else f"{{word{place}}}" if token == "*" else token
        for place, token in enumerate(pattern.split("."), 1)
    )


def _channel(channel: _Channel) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", channel.address)
    parameters = {name: {"description": PARAMETERS.get(name, "One word.")} for name in names}
    return {
        "address": channel.address,
        "messages": {
            key: {"$ref": f"#/components/messages/{_pointer(key)}"} for key in channel.messages
        },
        **({"parameters": parameters} if parameters else {}),
    }


def _written(key: str, message: _Message, payload: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if message.type is not None:
        properties["type"] = {"const": message.type}
    if payload is not None:
        properties["payload"] = payload
    envelope = {"$ref": f"#/components/schemas/{ENVELOPE}"}
    told = " ".join(message.description.split())
    return {
        "name": message.type or key,
        **({"summary": told} if told else {}),
        "contentType": "application/json",
        "payload": {"allOf": [envelope, {"type": "object", "properties": properties}]}
        if properties else envelope,
    }  # fmt: skip


def _envelope(metadata: Any) -> dict[str, Any]:
    """Describe the envelope as it is read: leniently."""
    return {
        "title": ENVELOPE,
        "type": "object",
        "required": ["id", "type", "payload"],
        "properties": {
            "id": {"type": "string", "minLength": 1, "description": "The event's identity."},
            "type": {"type": "string", "minLength": 1},
            "timestamp": {"type": "integer", "description": "Epoch milliseconds."},
            "payload": {},
            "metadata": metadata,
        },
    }


def _description(handler: Handler) -> dict[str, str]:
    text = " ".join((getattr(handler.call, "__doc__", None) or "").split())
    return {"description": text} if text else {}


def _key(text: str) -> str:
    """Make a key of a document: letters, digits, `.`, `-` and `_`."""
    return _UNSAFE.sub("_", text.replace("{", "").replace("}", "")).strip("_") or "unnamed"


def _free(key: str, taken: Any) -> str:
    found, number = key, 2
    while found in taken:
        found, number = f"{key}-{number}", number + 1
    return found


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
