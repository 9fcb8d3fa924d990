"""Schemas: the event types, the models of their payloads, and the streams that keep them."""

from __future__ import annotations

import builtins
import difflib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from .errors import ConfigError, InvalidSubject, UnknownEventType
from .events import DEAD_LETTER, Event
from .payloads import CORE_PAYLOADS, UNTYPED, Payload
from .subjects import check_type
from .validation import explain, misnamed_keys, quiet

log = logging.getLogger("omni_worker.schemas")

# System events of this framework and of related programs; we do not check their payloads.
SYSTEM_TYPES = (
    DEAD_LETTER,
    "system.replay.started",
    "system.replay.completed",
    "system.health.degraded",
    "system.connector.stalled",
    "system.connector.recovered",
    "system.consumer.created",
    "system.consumer.deleted",
)
OWN_DOMAINS = ("custom", "system")  # where types are registered; all others are core types
STREAM_OF_DOMAIN = {
    "message": "MESSAGE",
    "instance": "INSTANCE",
    "identity": "IDENTITY",
    "media": "MEDIA",
    "access": "ACCESS",
    "custom": "CUSTOM",
    "system": "SYSTEM",
}

# Types whose payload never changed: other programs rely on it.
FIXED = frozenset(
    f"{domain}.{action}"
    for domain, actions in (
        ("message", "received sent delivered read failed"),
        ("instance", "connected disconnected qr_code"),
        ("identity", "created linked merged unlinked"),
        ("media", "received processed"),
        ("access", "allowed denied"),
    )
    for action in actions.split()
)

TYPES_WARNED = 1_000  # types without a schema that are named in the log
NEAR = 0.85  # similarity of a misspelt type to the intended one; 1 is identical

TAKEN_STREAMS = (*STREAM_OF_DOMAIN.values(), "REACTION", "AGENT", "SESSION", "OMNI_WORKER")


@dataclass(frozen=True, slots=True)
class Schema:
    """Registered event type; ``model`` None means any payload."""

    type: str
    model: builtins.type[BaseModel] | None = None
    stream: str | None = None  # overrides the stream of the type's domain, with a copy of it
    description: str = ""
    home: str | None = None  # another program's stream that stores the type; never made by us


class _CoreSchema(Schema):
    """Schema of a core type; its model is imported when it is asked for."""

    __slots__ = ()

    def __init__(self, type: str) -> None:
        for name, value in {"type": type, "stream": None, "home": None}.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in ("model", "description"):
            raise AttributeError(name)
        model = CORE_PAYLOADS[self.type]
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "description", (model.__doc__ or "").strip())
        return getattr(self, name)


@dataclass(frozen=True, slots=True)
class Valid:
    """The payload fits; ``value`` is the validated payload."""

    value: Any


@dataclass(frozen=True, slots=True)
class Invalid:
    """The payload does not fit; ``error`` says where, without repeating the payload."""

    error: str


@dataclass(slots=True)
class SchemaRegistry:
    """Registry of event types, prefilled with the core ones. Each App and bus has its own."""

    _schemas: dict[str, Schema] = field(default_factory=lambda: dict(_CORE))
    _warned: set[str] = field(default_factory=set)

    def register(
        self,
        type: str,
        model: type[BaseModel] | None = None,
        *,
        stream: str | None = None,
        description: str = "",
    ) -> Schema:
        """Register a `custom.*` or `system.*` type.

        ``stream`` has the type's handlers read a stream of that name, sourced from the default
        one. Registering the same again changes nothing. Raises ConfigError for a different schema
        of a registered type, a core type, our dead letters, a stream that holds other events,
        or a model that is not a pydantic model.
        """
        try:
            check_type(type)
        except InvalidSubject as error:
            raise ConfigError(f"register: {error}") from None
        if type.split(".", 1)[0] not in OWN_DOMAINS or type == DEAD_LETTER:
            raise ConfigError(
                f"register({type!r}): only custom.* and system.* types of yours can be registered;"
                " a handler takes schema= for any type, and extend adds a type of another program"
            )
        if model is not None:
            check_model(model, f"register({type!r}, {model!r})")
        if stream is not None:
            stream = _override(type, stream)
        return self._add("register", Schema(type, model, stream, description))

    def extend(
        self,
        type: str,
        model: builtins.type[BaseModel] | None = None,
        *,
        stream: str | None = None,
        description: str = "",
    ) -> Schema:
        """Add a core type of another program that this version does not know.

        It can be published and is validated then. ``stream`` names the other program's stream
        that stores it, for error texts and ``get_stream``: it is never made by us. A type that a
        later version knows may still be added: the model given here wins. Raises ConfigError for
        `custom.*` and `system.*`, a type whose payload is fixed, such as message.received, a type
        that was added with another schema, and as ``register``.
        """
        try:
            check_type(type)
        except InvalidSubject as error:
            raise ConfigError(f"extend: {error}") from None
        if type.split(".", 1)[0] in OWN_DOMAINS:
            raise ConfigError(
                f"extend({type!r}): custom.* and system.* types are registered;"
                f" write register({type!r}, Model)"
            )
        if type in FIXED:
            raise ConfigError(
                f"extend({type!r}): the payload of this type is fixed; a handler takes schema="
            )
        if model is not None:
            check_model(model, f"extend({type!r}, {model!r})")
        if stream is not None:
            check_name(stream, f"extend({type!r}, stream={stream!r})")
        return self._add("extend", Schema(type, model, None, description, home=stream))

    def _add(self, by: str, schema: Schema) -> Schema:
        type = schema.type
        known = self._schemas.get(type)
        if known is not None and known != schema and known is not _CORE.get(type):
            raise ConfigError(
                f"{by}({type!r}): already registered, with another schema"
                f" ({_differences(known, schema)}); register it once, or choose another type"
            )
        self._schemas[type] = schema
        return schema

    def validate(self, type: str, payload: Any) -> Valid | Invalid:
        """Check a payload against its type's model; a type without one takes anything.

        The payload is checked as it goes on the wire: core keys in camelCase, a time as text.
        """
        schema = self._schemas.get(type)
        if schema is None or schema.model is None:
            return Valid(payload)
        if payload.__class__ is not dict:  # a plain dict, the usual case, needs no conversion
            if isinstance(payload, schema.model):
                return Valid(payload)
            if isinstance(payload, BaseModel):
                payload = payload.model_dump(by_alias=True, warnings=False)
        # Our own models accept snake_case as well, but other programs do not read it.
        by_name = False if issubclass(schema.model, Payload) else None
        try:
            return Valid(schema.model.model_validate(payload, by_alias=True, by_name=by_name))
        except ValidationError as error:
            strictly = error
        # A strict model accepts a time as text in JSON only, and events are sent as JSON.
        try:
            body = to_json(payload, inf_nan_mode="constants")
            value = quiet(schema.model).validate_json(body, by_alias=True, by_name=by_name)
        except (ValueError, PydanticSerializationError):
            value = None
        if value is not None:
            return Valid(value)
        return Invalid(explain(strictly) + misnamed_keys(schema.model, payload))

    def get(self, type: str) -> Schema | None:
        """Return the schema registered for a type."""
        return self._schemas.get(type)

    def get_stream(self, type: str) -> str | None:
        """Return the stream of a type: its override or home, else its domain's, else None."""
        schema = self._schemas.get(type)
        if schema is not None and (named := schema.stream or schema.home) is not None:
            return named
        return STREAM_OF_DOMAIN.get(type.split(".", 1)[0])

    def list(self) -> list[Schema]:
        """Return every known type, sorted."""
        return sorted(self._schemas.values(), key=lambda schema: schema.type)

    def check_known(self, type: str, warn: Callable[[str], None] | None = None) -> None:
        """Refuse to publish an unknown type; an unknown `custom.*` type logs one warning."""
        if type in self._schemas:
            return
        if not type.startswith("custom."):
            raise UnknownEventType(f"event type {type!r} is not known; {self.advice(type)}")
        if type not in self._warned and len(self._warned) < TYPES_WARNED:
            self._warned.add(type)
            (warn or log.warning)(
                f"{type} has no schema, so what is published is not checked:"
                f" registry.register({type!r}, Model), of the app or the bus, adds one"
            )

    def nearest(self, type: str) -> str | None:
        """Find the type that is probably meant by an unknown one.

        It is misspelt, or it is an own type without `custom.` (of a domain in which no known type
        is). None for `custom.*`, where any name is possible, and for a clearly different word such
        as `instance.reconnected`: other programs extend the core domains.
        """
        domain, _, action = type.partition(".")
        if type in self._schemas or domain == "custom":
            return None
        if domain not in self._domains():
            near = difflib.get_close_matches(type, self._schemas, 1, NEAR)
            return near[0] if near else f"custom.{type}"
        actions = [one.partition(".")[2] for one in _neighbours(type, self._schemas)]
        near = [
            one
            for one in difflib.get_close_matches(action, actions, 3, NEAR)
            if not action.endswith(one)
        ]
        return f"{domain}.{near[0]}" if near else None

    def doubt(self, type: str) -> str | None:
        """Return a sentence about a type that is probably meant otherwise, else None.

        No error: another program may publish the type; then it is handled like any other.
        """
        meant = self._meant(type)
        return f"{type} is not a known event type; {meant}" if meant else None

    def advice(self, type: str) -> str:
        """Tell what to do about a type that is not known here and has to be."""
        meant = f"{asked} " if (asked := self._meant(type)) else ""
        known = _neighbours(self.nearest(type) or core_type_of(type) or type, self._schemas)
        listed = f"{'K' if meant else 'k'}nown are {', '.join(known)}; " if known else ""
        add = "register" if type.split(".", 1)[0] in OWN_DOMAINS else "extend"
        whose = "yours" if type.startswith("custom.") else "another program"
        return f"{meant}{listed}registry.{add}({type!r}, Model) adds a type of {whose}"

    def include(self, other: SchemaRegistry) -> None:
        """Add every type of another registry. Raises ConfigError where the two disagree."""
        for schema in other._schemas.values():
            if schema is not _CORE.get(schema.type):
                self._add("register", schema)

    def _domains(self) -> set[str]:
        return {*STREAM_OF_DOMAIN, *(type.partition(".")[0] for type in self._schemas)}

    def _meant(self, type: str) -> str | None:
        """Ask about the type that is probably meant, with what tells it from the unknown one."""
        if (near := self.nearest(type)) is not None:
            if not near.startswith("custom."):
                return f"did you mean {near}?"
            return f"types of your own begin with custom.: did you mean {near}?"
        core = None if type in self._schemas else core_type_of(type)
        if core is None:
            return None
        channel = type.removeprefix(f"{core}.").partition(".")[0]
        return f"did you mean {core} with channel={channel!r}?"


def core_type_of(subject: str) -> str | None:
    """Return the longest core type with which a subject begins, None if there is none."""
    head = subject
    while head:
        if head in _CORE:
            return head
        head = head.rpartition(".")[0]
    return None


def is_model(candidate: object) -> bool:
    """Tell whether the argument is a pydantic model class."""
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def check_model(model: object, where: str) -> None:
    """Refuse a model that cannot describe a payload; ``where`` begins the message."""
    if not is_model(model):
        raise ConfigError(f"{where}: expected a pydantic model class")
    if issubclass(model, Event):  # type: ignore[arg-type]
        raise ConfigError(f"{where}: expected the payload's model, this is the whole event's")


def check_name(name: str, where: str) -> None:
    """Refuse a stream or consumer name the server would refuse."""
    if not isinstance(name, str):
        raise ConfigError(f"{where}: expected a string")
    bad = [c for c in name if c in ".*>/\\" or c.isspace() or not c.isprintable()]
    if not name or bad or len(name) > 128 or name.startswith("$"):
        raise ConfigError(
            f"{where}: a name takes 1 to 128 printable characters,"
            " without white space . * > / \\ and no leading $"
        )


def _override(type: str, stream: str) -> str | None:
    """Return the stream a type is copied to; None if the type is stored there anyway."""
    where = f"register({type!r}, stream={stream!r})"
    check_name(stream, where)
    if stream == STREAM_OF_DOMAIN[type.split(".", 1)[0]]:
        return None
    if stream in TAKEN_STREAMS or stream.startswith(("KV_", "OBJ_")):
        raise ConfigError(f"{where}: that stream holds something else; choose another name")
    return stream


def _differences(known: Schema, given: Schema) -> str:
    """Name what differs between two schemas of one type: what is known, what is given now."""
    pairs = [
        ("model", known.model and known.model.__name__, given.model and given.model.__name__),
        ("stream", known.stream or known.home, given.stream or given.home),
        ("description", known.description, given.description),
    ]
    differ = [f"{name} was {old!r}, is {new!r}" for name, old, new in pairs if old != new]
    return ", ".join(differ) or "two models of one name"


def _neighbours(type: str, known: dict[str, Schema]) -> list[str]:
    domain = type.split(".", 1)[0] + "."
    return sorted(name for name in known if name.startswith(domain))


_CORE: dict[str, Schema] = {
    **{type: _CoreSchema(type) for type in CORE_PAYLOADS},
    **{type: Schema(type) for type in (*UNTYPED, *SYSTEM_TYPES)},
}
