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
from .payloads import CORE_PAYLOADS, Payload
from .subjects import DEEP_DOMAINS, check_type
from .validation import explain, quiet

log = logging.getLogger("omni_worker.schemas")

# System events of this framework and of related programs; we do not check their payloads.
SYSTEM_TYPES = (
    DEAD_LETTER,
    "system.replay.started",
    "system.replay.completed",
    "system.health.degraded",
)
STREAM_OF_DOMAIN = {
    "message": "MESSAGE",
    "instance": "INSTANCE",
    "identity": "IDENTITY",
    "media": "MEDIA",
    "access": "ACCESS",
    "custom": "CUSTOM",
    "system": "SYSTEM",
}

TYPES_WARNED = 1_000  # types without a schema that are named in the log
NEAR = 0.85  # similarity of a misspelt type to the intended one; 1 is identical

TAKEN_STREAMS = (*STREAM_OF_DOMAIN.values(), "REACTION", "OMNI_WORKER")


@dataclass(frozen=True, slots=True)
class Schema:
    """Registered event type; ``model`` None means any payload."""

    type: str
    model: builtins.type[BaseModel] | None = None
    stream: str | None = None  # overrides the stream of the type's domain
    description: str = ""


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
        if type.split(".", 1)[0] not in DEEP_DOMAINS or type == DEAD_LETTER:
            raise ConfigError(
                f"register({type!r}): only custom.* and system.* types of yours can be registered;"
                " a handler takes schema= for any type"
            )
        if model is not None:
            check_model(model, f"register({type!r}, {model!r})")
        if stream is not None:
            stream = _override(type, stream)
        schema = Schema(type, model, stream, description)
        known = self._schemas.get(type)
        if known is not None and known != schema and known not in _CORE.values():
            raise ConfigError(f"register({type!r}): already registered, with another schema")
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
        return Invalid(explain(strictly)) if value is None else Valid(value)

    def get(self, type: str) -> Schema | None:
        """Return the schema registered for a type."""
        return self._schemas.get(type)

    def get_stream(self, type: str) -> str | None:
        """Return the stream of a type: its override, else its domain's, else None."""
        schema = self._schemas.get(type)
        if schema is not None and schema.stream is not None:
            return schema.stream
        return STREAM_OF_DOMAIN.get(type.split(".", 1)[0])

    def list(self) -> list[Schema]:
        """Return every known type, sorted."""
        return sorted(self._schemas.values(), key=lambda schema: schema.type)

    def check_known(self, type: str, warn: Callable[[str], None] | None = None) -> None:
        """Refuse to publish an unknown type; an unknown `custom.*` type logs one warning."""
        if type in self._schemas:
            return
        if not type.startswith("custom."):
            raise UnknownEventType(
                f"event type {type!r} is not known: register custom.* types,"
                f" or use one of {', '.join(_neighbours(type, self._schemas))}"
            )
        if type not in self._warned and len(self._warned) < TYPES_WARNED:
            self._warned.add(type)
            (warn or log.warning)(
                f"{type} has no schema: registry.register({type!r}, Model) checks what is published"
            )

    def nearest(self, type: str) -> str | None:
        """Find the known type of which an unknown one is probably a misspelling.

        None for `custom.*`, where any name is possible, and for a clearly different word such as
        `instance.reconnected`: other programs extend the core domains.
        """
        domain, _, action = type.partition(".")
        if type in self._schemas or domain == "custom":
            return None
        if domain not in STREAM_OF_DOMAIN:
            return next(iter(difflib.get_close_matches(type, self._schemas, 1, NEAR)), None)
        actions = [one.partition(".")[2] for one in _neighbours(type, self._schemas)]
        near = [
            one
            for one in difflib.get_close_matches(action, actions, 3, NEAR)
            if not action.endswith(one)
        ]
        return f"{domain}.{near[0]}" if near else None

    def include(self, other: SchemaRegistry) -> None:
        """Add every type of another registry."""
        for schema in other._schemas.values():
            if self._schemas.get(schema.type) != schema:
                self.register(
                    schema.type,
                    schema.model,
                    stream=schema.stream,
                    description=schema.description,
                )


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


def _neighbours(type: str, known: dict[str, Schema]) -> list[str]:
    domain = type.split(".", 1)[0] + "."
    return sorted(name for name in known if name.startswith(domain)) or ["message.received", "…"]


_CORE: dict[str, Schema] = {
    **{
        type: Schema(type, model, description=(model.__doc__ or "").strip())
        for type, model in CORE_PAYLOADS.items()
    },
    **{type: Schema(type) for type in SYSTEM_TYPES},
}
