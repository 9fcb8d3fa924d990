"""Metadata is built when it is asked for, and no one can tell that it was not there before."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from omni_worker.events import Event, Metadata
from omni_worker.validation import quiet


class Payload(BaseModel):
    number: int = 1


Model = Event[Payload]
MANY = {
    "empty": {},
    "text": {"correlationId": "c", "traceId": "t"},
    "snake": {"correlation_id": "c"},
    "both names": {"correlation_id": "a", "correlationId": "b"},
    "null": {"traceId": None},
    "unknown": {"timings": [1, {"a": None}], "x": 1.5},
    "any type": {"tenantId": 5, "envelopeVersion": "2", "ingestMode": []},
    "names of pydantic": {"__dict__": "x", "model_extra": "y", "self": "z", "__class__": 1},
    "one name odd": {"correlationId": "a", "correlation_id": 5},
}
keys = st.sampled_from(
    ["correlationId", "correlation_id", "traceId", "tenantId", "tenant_id", "x", "metadata", ""]
)
values = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.booleans(), max_size=1)


def written(metadata: Any) -> bytes:
    event = {"id": "1", "type": "a.b", "payload": {}, "timestamp": 1, "metadata": metadata}
    return json.dumps(event).encode()


def read(metadata: Any) -> Event[Any] | None:
    event: Event[Any] | None = quiet(Model).validate_json(written(metadata))
    return event


def at_once(metadata: Any) -> Event[Any]:
    return Model.model_validate(json.loads(written(metadata)))


@given(st.dictionaries(keys, values, max_size=4))
def test_what_is_read_and_what_is_refused_is_what_metadata_says(metadata: dict[str, Any]) -> None:
    try:
        expected = Metadata.model_validate(metadata)
    except ValidationError:
        assert read(metadata) is None
        return

    event = read(metadata)

    assert event is not None
    assert event.metadata == expected
    assert event.metadata.model_fields_set == expected.model_fields_set
    assert event.metadata.model_extra == expected.model_extra


@pytest.mark.parametrize("metadata", [[], "x", 5, {"traceId": 5}, {"traceId": ["x"]}, {"a": 1e999}])
def test_metadata_that_nothing_could_be_built_of_is_refused_when_it_is_read(metadata: Any) -> None:
    assert read(metadata) is None


SAME: dict[str, Callable[[Event[Any]], Any]] = {
    "dump": lambda event: event.model_dump(),
    "dump of the wire": lambda event: event.model_dump(mode="json", by_alias=True),
    "dump of what was set": lambda event: event.model_dump(exclude_unset=True, exclude_none=True),
    "dump of some": lambda event: event.model_dump(include={"metadata": {"trace_id"}}),
    "json": lambda event: event.model_dump_json(),
    "repr": repr,
    "text": str,
    "items": dict,
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "model copy": lambda event: event.model_copy(update={"id": "2"}),
    "pickle": lambda event: pickle.loads(pickle.dumps(event)),
    "again": lambda event: Model.model_validate(event),
    "round trip": lambda event: Model.model_validate_json(event.model_dump_json(by_alias=True)),
    "itself": lambda event: event,
}


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("what", SAME)
def test_an_event_is_the_same_before_its_metadata_is_asked_for(name: str, what: str) -> None:
    event, expected = read(MANY[name]), at_once(MANY[name])
    assert event is not None

    got, wanted = SAME[what](event), SAME[what](expected)

    assert got == wanted
    assert wanted == got


def test_the_json_schema_of_an_event_shows_its_metadata() -> None:
    schema = Model.model_json_schema()

    assert schema == Model.model_json_schema(mode="serialization")
    assert "correlationId" in schema["$defs"]["Metadata"]["properties"]


def test_a_copy_shares_the_metadata_as_any_shallow_copy_does() -> None:
    event = read({"traceId": "t"})
    assert event is not None

    shallow, deep = copy.copy(event), copy.deepcopy(event)
    event.metadata.trace_id = "changed"

    assert shallow.metadata.trace_id == "changed"
    assert deep.metadata.trace_id == "t"


def test_metadata_is_built_once_and_can_be_replaced_and_deleted() -> None:
    event = read({"traceId": "t"})
    assert event is not None

    first = event.metadata
    assert event.metadata is first

    event.metadata = Metadata(source="s")
    assert event.metadata.source == "s"

    del event.metadata
    with pytest.raises(AttributeError, match="metadata"):
        _ = event.metadata


def test_a_model_with_metadata_of_its_own_has_it_as_declared() -> None:
    class More(Metadata):
        tries: int = 0

    class Own(Event[Payload]):
        metadata: More

    class Plain(Event[Payload]):
        metadata: dict[str, Any]  # type: ignore[assignment]

    own = Own.model_validate_json(written({"tries": 3, "x": 1}))
    plain = Plain.model_validate_json(written({"tries": 3, "traceId": 5}))

    assert own.metadata == More(tries=3, x=1)  # type: ignore[call-arg]
    assert plain.metadata == {"tries": 3, "traceId": 5}
    assert plain.model_dump()["metadata"] == {"tries": 3, "traceId": 5}
