"""Events: the envelope every program on these streams writes and reads.

Only its shape; bytes are wire's business, subjects are subjects'.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from types import FunctionType, ModuleType
from typing import Annotated, Any, Generic, NamedTuple, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    Strict,
)
from pydantic.alias_generators import to_camel
from pydantic.errors import PydanticUserError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core import core_schema as schemas
from typing_extensions import TypeVar

from .errors import ConfigError
from .subjects import Address, parse_subject

T = TypeVar("T", default=Any)  # a bare Event holds any payload

# Core event types: their payloads are registered beforehand (see payloads).
DEAD_LETTER = "system.dead_letter"

LONGEST_NAME = 128  # characters of an id or a type in a log line

set_slot = object.__setattr__  # past pydantic's own, which would refuse the slot


class _AsWritten:
    """Any value: what newer programs write is passed on, a number as a number, and never checked.

    A value of another type than expected must not make the whole event unreadable.
    """

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return schemas.any_schema()


class Metadata(BaseModel):
    """Facts about an event beside its payload, snake_case here, camelCase on the wire.

    Keys we do not know are kept and written again (``model_extra``).
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True, alias_generator=to_camel)

    correlation_id: str | None = None
    trace_id: str | None = None
    source: str | None = None
    instance_id: str | None = None
    channel_type: str | None = None
    person_id: str | None = None
    platform_identity_id: str | None = None
    causation_id: Annotated[str | None, _AsWritten()] = None  # the event that caused this one
    ingest_mode: Annotated[str | None, _AsWritten()] = None  # realtime or history-sync
    tenant_id: Annotated[str | None, _AsWritten()] = None  # only with envelope_version
    envelope_version: Annotated[int | None, _AsWritten()] = None


# The names on the wire of all fields, and of those that only text can be.
ALIASES = {name: str(field.alias) for name, field in Metadata.model_fields.items()}
TEXT_KEYS = {
    ALIASES[name]
    for name, field in Metadata.model_fields.items()
    if not any(isinstance(one, _AsWritten) for one in field.metadata)
}


class _ReadLater:
    """Metadata that is read from JSON as a plain dict, checked, and built when it is asked for.

    The usual metadata is all text, which is checked fastest; any other is checked by its keys; and
    what is odd there is built at once, so that nothing is refused that Metadata takes.
    """

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        text = schemas.str_schema(strict=True)
        known = schemas.typed_dict_field(schemas.nullable_schema(text), required=False)
        fields = {
            key: known
            for name, alias in ALIASES.items()
            if alias in TEXT_KEYS
            for key in (name, alias)
        }
        as_json = schemas.union_schema(
            [
                schemas.dict_schema(text, text),
                schemas.no_info_after_validator_function(
                    _finite, schemas.typed_dict_schema(fields, extra_behavior="allow")
                ),
                schemas.no_info_after_validator_function(_built_now, schemas.dict_schema(text)),
            ],
            mode="left_to_right",
        )
        model = handler(source)
        return schemas.json_or_python_schema(
            as_json,
            model,
            serialization=schemas.wrap_serializer_function_ser_schema(_serialize, schema=model),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(cast(schemas.JsonOrPythonSchema, schema)["python_schema"])


def _finite(metadata: dict[str, Any]) -> dict[str, Any]:
    json.dumps(metadata, allow_nan=False)  # JSON has no NaN, pydantic's parser takes it
    return metadata


def _built_now(metadata: dict[str, Any]) -> Metadata:
    return _built(_finite(metadata))


def _serialize(metadata: Any, go: SerializerFunctionWrapHandler) -> Any:
    return go(_built(metadata) if type(metadata) is dict else metadata)


def _built(metadata: dict[str, Any]) -> Metadata:
    built: Metadata = Metadata.__pydantic_validator__.validate_python(metadata)
    return built


class _BuiltOnAccess:
    """Descriptor of ``Event.metadata``: what was read as a dict becomes a Metadata on access.

    On the class there is nothing to see, as with every field of pydantic's.
    """

    def __get__(self, event: Event[Any] | None, owner: type) -> Metadata:
        if event is None:
            raise AttributeError("metadata")
        fields = vars(event)
        try:
            metadata = fields["metadata"]
        except KeyError:
            raise AttributeError("metadata") from None
        if type(metadata) is dict and _is_read_later(type(event)):
            metadata = fields["metadata"] = _built(metadata)
        return cast(Metadata, metadata)

    def __set__(self, event: Event[Any], metadata: Any) -> None:
        vars(event)["metadata"] = metadata

    def __delete__(self, event: Event[Any]) -> None:
        del vars(event)["metadata"]


def _is_read_later(model: type[Event[Any]]) -> bool:
    """Return False for a model of the user's that declares metadata of its own."""
    return any(isinstance(one, _ReadLater) for one in model.model_fields["metadata"].metadata)


class Event(BaseModel, Generic[T]):
    """An event: something that happened. ``Event[Model]`` validates the payload as ``Model``.

    ``id`` is the event's identity everywhere. ``channel`` and ``instance`` are those of the
    subject it came on, both None on a bare one, so they can always be passed on together;
    ``metadata`` keeps what the publisher wrote, which may differ.
    """

    model_config = ConfigDict(extra="allow")
    # A slot rather than a private attribute: pydantic's cost a microsecond per event.
    __slots__ = ("_address",)

    def __class_getitem__(cls, payload: Any) -> Any:
        if inspect.isroutine(payload):  # pydantic would call it with each payload
            raise _unusable(payload, "a function is no type")
        if isinstance(payload, type) and issubclass(payload, Event):
            raise _unusable(payload, "it is the whole event's type")
        try:
            made = super().__class_getitem__(payload)
        except PydanticUserError as error:
            why = str(error).partition("\n")[0].partition(". Set ")[0]  # without its advice
            raise _unusable(payload, why.rstrip(".")) from None
        except TypeError as error:
            raise _unusable(payload, str(error)) from None
        frame = sys._getframe(1)
        if frame.f_locals is frame.f_globals:  # so that it can be pickled, as pydantic sees to it
            vars(sys.modules[made.__module__]).setdefault(made.__name__, made)
        return made

    id: str = Field(min_length=1)
    type: str = Field(min_length=1)
    payload: T
    timestamp: Annotated[int, Strict()]  # epoch milliseconds
    metadata: Annotated[Metadata, _ReadLater()]

    @property
    def channel(self) -> str | None:
        """The channel of the subject, `whatsapp`; None on a bare subject."""
        address = _address_of(self)
        return address.channel if address else None

    @property
    def instance(self) -> str | None:
        """The instance of the subject, `wa-001`; None on a bare subject."""
        address = _address_of(self)
        return address.instance if address else None

    @property
    def time(self) -> datetime:
        """``timestamp`` as an aware datetime in UTC. Raises OverflowError beyond year 9999."""
        return datetime.fromtimestamp(self.timestamp / 1000, UTC)

    def __eq__(self, other: object) -> bool:
        _build(self)
        _build(other)
        return super().__eq__(other)

    def __repr_args__(self) -> Any:
        _build(self)
        return super().__repr_args__()

    def __iter__(self) -> Generator[tuple[str, Any], None, None]:
        _build(self)
        return super().__iter__()

    # A copy came on the same subject; pydantic's own copies do not know our slot.
    def __copy__(self) -> Self:
        _build(self)  # the two share it
        return _same_address(super().__copy__(), self)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return _same_address(super().__deepcopy__(memo), self)


type.__setattr__(Event, "metadata", _BuiltOnAccess())  # after the class: else it were a default


def _build(event: object) -> None:
    if isinstance(event, Event) and "metadata" in vars(event):
        _ = event.metadata


def raw_metadata(event: Event[Any]) -> Mapping[str, Any]:
    """Return the metadata by its names on the wire, without building what was read as a dict."""
    metadata = vars(event)["metadata"]
    if type(metadata) is dict:
        return metadata
    if type(metadata) is not Metadata:
        return cast(Metadata, metadata).model_dump(by_alias=True, exclude_none=True)
    # By hand: pydantic's dump takes three times as long.
    given = {ALIASES[name]: value for name, value in vars(metadata).items()}
    return given | (metadata.model_extra or {})


def addressed(event: Event[T], address: Address) -> Event[T]:
    """Attach the address an event came on; return the same event."""
    set_slot(event, "_address", address)
    return event


def came_on(event: Event[T], subject: str) -> Event[T]:
    """Attach the subject an event came on; it is parsed when the address is asked for.

    The event's type is known to be a prefix of the subject.
    """
    set_slot(event, "_address", (subject, event.type))
    return event


def names_of(event: Event[Any]) -> dict[str, str]:
    """Log fields that identify an event. Long ids are cut: a publisher may send any length."""
    names = {
        "event": event.id,
        "type": event.type,
        "correlation": event.metadata.correlation_id or event.id,
        "trace": event.metadata.trace_id or event.id,
    }
    return {key: name[:LONGEST_NAME] for key, name in names.items()}


AnyEvent = TypeVar("AnyEvent", bound=Event[Any])


def _same_address(copy: AnyEvent, original: AnyEvent) -> AnyEvent:
    set_slot(copy, "_address", _address_of(original))
    return copy


def _unusable(payload: Any, why: str) -> ConfigError:
    """Return the error of an annotation `Event[payload]`."""
    parts = payload if isinstance(payload, tuple) else (payload,)
    has_name = (type, ModuleType, FunctionType)
    shown = ", ".join(one.__name__ if isinstance(one, has_name) else repr(one) for one in parts)
    return ConfigError(
        f"Event[{shown}]: {why}; expected the payload's type: a pydantic model, a dataclass, or a"
        " type such as dict[str, int]"
    )


def _address_of(event: Event[Any]) -> Address | None:
    try:
        # Not by getattr: pydantic would look among the envelope's unknown keys as well.
        address: Address | tuple[str, str] | None = object.__getattribute__(event, "_address")
    except AttributeError:
        return None
    if address is None or isinstance(address, Address):
        return address
    parsed = parse_subject(*address)
    set_slot(event, "_address", parsed)
    return parsed


class Published(NamedTuple):
    """The server's confirmation: the event is stored, in ``stream`` as the server names it."""

    id: str
    stream: str
    sequence: int
    duplicate: bool  # this id was already there: nothing new was stored
