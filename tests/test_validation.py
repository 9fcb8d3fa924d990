"""Validation: which keys a payload lacks, for any model people write; no code of theirs is run."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    computed_field,
    model_serializer,
    root_validator,
)
from pydantic import model_validator as sees

from omni_worker.errors import ConfigError
from omni_worker.events import Event
from omni_worker.payloads import MessageReadPayload
from omni_worker.validation import lacking, never_sent, quiet


class Plain(BaseModel):
    one: int
    two: str = "default"


class Aliased(BaseModel):
    one: int = Field(alias="One")
    two: int = Field(validation_alias=AliasChoices("second", AliasPath("list", 0)))


class ByName(BaseModel):
    model_config = ConfigDict(validate_by_name=True)
    one: int = Field(alias="One")


class Before(Plain):
    @sees(mode="before")
    @classmethod
    def fill(cls, values: Any) -> Any:
        return {"one": 1, **values}


class Heir(Before):
    three: int = 3


class Wrap(Plain):
    @sees(mode="wrap")
    @classmethod
    def fill(cls, values: Any, handler: Any) -> Any:
        return handler({"one": 1, **values})


def _old_before() -> type[BaseModel]:
    with pytest.warns(DeprecationWarning, match="root_validator"):
        decorate = root_validator(pre=True)  # as pydantic 1 wrote it

    class OldBefore(Plain):
        @decorate
        def fill(cls, values: Any) -> Any:
            return {"one": 1, **values}

    return OldBefore


class After(Plain):
    @sees(mode="after")
    def checked(self) -> After:
        return self


class OwnInit(Plain):
    def __init__(self, **values: Any) -> None:
        super().__init__(**{"one": 1, **values})


class OwnSchema(Plain):
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(source)


class Root(RootModel[Plain]):
    pass


class Deferred(BaseModel):
    model_config = ConfigDict(defer_build=True)
    one: int


def test_a_model_that_is_built_late_is_built_now() -> None:
    assert quiet(Deferred).validate_json(b'{"one":1}') == Deferred(one=1)


class Unfinished(BaseModel):
    later: NobodyHasThis  # type: ignore[name-defined]  # noqa: F821


def test_a_model_that_is_not_finished_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"Event\[Unfinished\] names types that are not"):
        quiet(Event[Unfinished])


@pytest.mark.parametrize(
    ("model", "payload", "missing"),
    [
        (Plain, {}, ["one"]),
        (Plain, {"one": "no number"}, []),
        (After, {}, ["one"]),
        (Aliased, {}, ["One", "two"]),
        (Aliased, {"One": 1, "second": 2}, []),
        (Aliased, {"One": 1, "list": [2]}, []),
        (ByName, {"one": 1}, []),
        (MessageReadPayload, {"externalId": "x"}, ["chatId", "readAt"]),  # an alias generator's
        (MessageReadPayload, {"externalId": "x", "chatId": "y", "readAt": 1}, []),
        (Before, {}, []),
        (Heir, {}, []),
        (_old_before(), {}, []),
        (Wrap, {}, []),
        (OwnInit, {}, []),
        (OwnSchema, {}, []),
        (Root, {}, []),
        (Plain | Aliased, {}, []),
        (dict[str, int], {}, []),
        (Any, {}, []),
        (Plain, [], []),
    ],
)
def test_the_keys_that_are_missing(model: Any, payload: Any, missing: list[str]) -> None:
    assert lacking(model, payload) == missing
    if missing:  # and pydantic would say so as well
        assert quiet(model).validate_python(payload) is None


class Other(BaseModel):
    two: str


class Open(Other):
    model_config = ConfigDict(extra="allow")


class Computing(Other):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def one(self) -> int:
        return 1


class Serializing(Other):
    @model_serializer
    def write(self) -> dict[str, Any]:
        return {"one": 1}


class SentByAlias(BaseModel):
    number: int = Field(serialization_alias="one")


@pytest.mark.parametrize(
    ("model", "sent", "missing"),
    [
        (Plain, Other, ["one"]),
        (Plain, Plain, []),
        (Heir, Plain, []),
        (Other, Aliased, []),
        (Aliased, Plain, []),  # a model may take the names as well
        (MessageReadPayload, Plain, ["externalId", "chatId", "readAt"]),
        (Plain, MessageReadPayload, []),  # takes further keys
        (Plain, Open, []),
        (Plain, Computing, []),
        (Plain, Serializing, []),
        (Plain, SentByAlias, []),
        (Plain, Root, []),
        (Plain, Before, []),
        (Any, Other, []),
        (dict[str, int], Other, []),
    ],
)
def test_the_keys_that_no_payload_of_another_model_has(
    model: Any, sent: Any, missing: list[str]
) -> None:
    assert never_sent(model, sent) == missing
