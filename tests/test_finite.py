"""A model that cannot hold NaN is told from one that can, and a NaN gets past neither."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    field_validator,
    model_validator,
)

from omni_worker import Event
from omni_worker.dispatch import Dispatcher
from omni_worker.finite import payload_is_finite
from omni_worker.handlers import declare
from omni_worker.outcomes import Rejected
from omni_worker.schemas import SchemaRegistry
from omni_worker.transports.base import Delivery


class Kind(Enum):
    TEXT = "text"


class Content(BaseModel):
    text: str


class Usual(BaseModel):
    chatId: str
    content: Content
    count: int | None = None
    when: datetime | None = None
    tags: list[str] = []
    counts: dict[str, int] = {}
    uuid: UUID | None = None
    kind: Kind = Kind.TEXT


class Tree(BaseModel):
    name: str
    parts: list[Tree] = []


class One(BaseModel):
    k: Literal["1"]


class Two(BaseModel):
    k: Literal["2"]
    inner: One


class Tagged(BaseModel):
    x: Annotated[One | Two, Field(discriminator="k")]


class After(BaseModel):
    x: str

    @field_validator("x")
    @classmethod
    def same(cls, x: str) -> str:
        return x

    @model_validator(mode="after")
    def whole(self) -> After:
        return self


class Finite(BaseModel):
    x: FiniteFloat


class Weight(BaseModel):
    x: float = 0.0


class WeighedTree(BaseModel):
    parts: list[WeighedTree] = []
    weight: float = 0.0


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Anything(BaseModel):
    x: Any = None


class Before(BaseModel):
    x: str = ""

    @field_validator("x", mode="before")
    @classmethod
    def text(cls, x: Any) -> str:
        return str(x)


class Money(BaseModel):
    x: Decimal = Decimal(0)


class Loose(BaseModel):
    x: dict = {}  # type: ignore[type-arg]
    y: list = []  # type: ignore[type-arg]


class Nested(BaseModel):
    x: Sequence[Weight] = ()


@dataclasses.dataclass
class PlainWeight:
    a: float = 0.0


@pytest.mark.parametrize(
    "payload",
    [Usual, Tree, Tagged, After, Finite, str, int, None, list[str], dict[str, int]],
)
def test_a_payload_without_a_float_cannot_hold_nan(payload: Any) -> None:
    assert payload_is_finite(Event[payload])


@pytest.mark.parametrize(
    "payload",
    [
        Weight, WeighedTree, Open, Anything, Before, Money, Loose, Nested, PlainWeight,
        Any, float, object, dict, dict[str, Any], list[float],
    ],
)  # fmt: skip
def test_a_payload_with_a_float_or_anything_in_it_may_hold_nan(payload: Any) -> None:
    assert not payload_is_finite(Event[payload])


@pytest.mark.parametrize(
    ("payload", "more"),
    [
        (Weight, b'"payload":{"x":NaN}'),
        (Any, b'"payload":{"x":[Infinity]}'),
        (Open, b'"payload":{"y":-Infinity}'),
        (Content, b'"payload":{"text":"t"},"other":NaN'),
        (Content, b'"payload":{"text":"t"},"metadata":{"source":"s","other":NaN}'),
        (Content, b'"payload":{"text":"t"},"metadata":{"other":{"a":[Infinity]}}'),
    ],
)
def test_nan_is_unreadable_wherever_an_event_can_hold_it(payload: Any, more: bytes) -> None:
    async def handle(event: Event[Any]) -> None: ...

    handler = declare(
        handle,
        app="app",
        types=["custom.thing"],
        options={} if payload is Any else {"schema": payload},
    )
    dispatcher = Dispatcher(handler, registry=SchemaRegistry())
    body = b'{"id":"1","type":"custom.thing","timestamp":1,"metadata":{},%b}' % more
    if b'"metadata":{"' in more:
        body = body.replace(b'"metadata":{},', b"")
    source: Any = None

    read = dispatcher.read(
        Delivery(source, "custom.thing", body, None, b"", sequence=1, stored_at=0, count=1)
    )

    assert isinstance(read, Rejected)
    assert read.unreadable
