"""Wire: the bytes other programs write are read, and ours are theirs to the byte."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Annotated, Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from omni_worker.errors import InvalidEvent, InvalidPayload
from omni_worker.events import Event, Metadata, addressed
from omni_worker.payloads import MessageReadPayload, MessageReceivedPayload
from omni_worker.subjects import Address
from omni_worker.validation import quiet
from omni_worker.wire import (
    LARGE,
    SchemaMismatch,
    Unreadable,
    encode_event,
    encode_payload,
    read_envelope,
    read_fast,
    read_timestamp,
    read_traceparent,
    to_event,
)

STORED_AT = 1_700_000_000_000

# As the existing bus writes it, byte for byte.
BODY = (
    '{"id":"3ce1decf-27b8-41bf-8f25-6122aec543a7","type":"message.received",'
    '"payload":{"externalId":"t-dc-1","chatId":"chat-1","from":"discord-user-1",'
    '"content":{"type":"text","text":"t dc message #1 – olá ✅ \\"quoted\\" \\\\ 日本"}},'
    '"timestamp":1795419310014,"metadata":{"correlationId":"3ce1decf-27b8-41bf-8f25-6122aec543a7",'
    '"instanceId":"dc-002","channelType":"discord",'
    '"traceId":"3ce1decf-27b8-41bf-8f25-6122aec543a7","source":"omni-interop-pub"}}'
).encode()


def write(payload: Any, **more: Any) -> bytes:
    """The body, written in one pass and around a payload that is JSON already: the same."""
    fields = {"id": "1", "type": "custom.x", "timestamp": 1, "metadata": {}} | more
    bodies = []
    refused: list[InvalidPayload] = []
    for apart in (False, True):
        try:
            given = {"content": encode_payload("custom.x", payload)} if apart else {}
            bodies.append(encode_event(payload=payload, **given, **fields))
        except InvalidPayload as error:
            refused.append(error)
    assert len(set(bodies)) + len({str(error) for error in refused}) == 1, (bodies, refused)
    if refused:
        raise refused[0]
    return bodies[0]


def body(**keys: Any) -> bytes:
    return json.dumps({"id": "1", "type": "a.b", "payload": {}} | keys).encode()


def read(model: Any, written: bytes) -> Event[Any]:
    """As a handler of this model gets it."""
    event = read_fast(quiet(model), written)
    return event or to_event(model, read_envelope(written, stored_at=7))


def test_the_body_is_the_existing_bus_s_to_the_byte() -> None:
    payload = MessageReceivedPayload.model_validate(
        {
            "externalId": "t-dc-1",
            "chatId": "chat-1",
            "from": "discord-user-1",
            "content": {"type": "text", "text": 't dc message #1 – olá ✅ "quoted" \\ 日本'},
        }
    )
    id = "3ce1decf-27b8-41bf-8f25-6122aec543a7"

    written = encode_event(
        id=id,
        type="message.received",
        content=encode_payload("message.received", payload),
        timestamp=1795419310014,
        metadata={
            "correlationId": id,
            "instanceId": "dc-002",
            "channelType": "discord",
            "personId": None,
            "traceId": id,
            "source": "omni-interop-pub",
        },
    )

    assert written == BODY
    assert len(BODY) == 449


def test_the_usual_body_is_read_in_one_pass() -> None:
    event = read_fast(quiet(Event[MessageReceivedPayload]), BODY)

    assert event is not None
    assert event.payload.chat_id == "chat-1"
    assert event.metadata.instance_id == "dc-002"
    assert event.timestamp == 1795419310014


def test_fields_of_a_core_payload_that_are_none_are_left_out_and_a_dict_goes_as_given() -> None:
    core = MessageReceivedPayload(
        external_id="1", chat_id="2", from_="3", content={"type": "text"}, raw_payload={"a": None}
    )

    assert json.loads(write(core))["payload"] == {
        "externalId": "1", "chatId": "2", "from": "3", "content": {"type": "text"},
        "rawPayload": {"a": None},
    }  # fmt: skip
    assert json.loads(write({"a": None}))["payload"] == {"a": None}


def test_a_model_of_the_users_goes_out_whole() -> None:
    class Mine(BaseModel):
        a: int | None = None
        at: datetime = datetime(2026, 1, 2, 3, 4, 5)

    assert json.loads(write(Mine()))["payload"] == {"a": None, "at": "2026-01-02T03:04:05"}


class Measured(BaseModel):
    x: float


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "put", [lambda x: x, lambda x: {"a": [x]}, lambda x: Measured(x=x),
            lambda x: {"a": Measured(x=x)}, lambda x: [Measured(x=x)]],
    ids=["bare", "in a dict", "in a model", "in a model in a dict", "in a model in a list"],
)  # fmt: skip
def test_nan_and_infinity_are_refused_wherever_they_hide(put: Any, number: float) -> None:
    with pytest.raises(InvalidPayload, match=r"custom\.x.*NaN or infinity"):
        write(put(number))


def test_nan_of_a_model_in_metadata_or_extra_is_refused() -> None:
    class Number(BaseModel):
        number: float = float("nan")

    for where in ({"metadata": {"k": Number()}}, {"extra": {"k": [Number()]}}):
        with pytest.raises(InvalidPayload, match="NaN"):
            write({}, **where)


def test_a_generator_beside_a_null_is_written_whole() -> None:
    payload = {"items": (number for number in (1, 2, 3)), "none": None}

    assert encode_payload("custom.x", payload) == b'{"items":[1,2,3],"none":null}'


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity is not NaN"])
def test_the_words_nan_and_infinity_are_fine_in_a_text(text: str) -> None:
    assert json.loads(write({"text": text}))["payload"] == {"text": text}
    assert to_event(Event[Any], read_envelope(write({"t": text}), stored_at=1)).payload["t"] == text


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    "payload",
    [object(), {"a": object()}, b"\xff", "\ud800", {"\ud800": 1}, _circle(),
     MessageReceivedPayload(external_id="1", chat_id="2", from_="3", content={"type": "t"},
                            raw_payload={"a": object()})],
)  # fmt: skip
def test_what_json_cannot_say_is_the_callers_error(payload: Any) -> None:
    with pytest.raises(InvalidPayload, match=r"custom\.x: the payload is not JSON"):
        write(payload)


def test_a_core_payload_changed_to_a_wrong_type_is_refused_without_its_value() -> None:
    payload = MessageReadPayload(external_id="1", chat_id="2", read_at=3)
    payload.chat_id = ["private"]  # type: ignore[assignment]

    with pytest.raises(InvalidPayload) as refused:
        write(payload)

    assert "private" not in str(refused.value)


def test_keys_we_do_not_know_survive_and_never_replace_ours() -> None:
    written = json.loads(write({}, metadata={"timings": [1]}, extra={"version": 2, "id": "other"}))

    assert written["id"] == "1"
    assert written["version"] == 2
    assert written["metadata"] == {"timings": [1]}


def test_an_envelope_keeps_keys_it_does_not_know() -> None:
    envelope = read_envelope(body(version=2, metadata={"timings": [1]}), stored_at=STORED_AT)
    event = to_event(Event[Any], envelope)

    assert event.model_extra == {"version": 2}
    assert event.metadata.model_extra == {"timings": [1]}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (1769700000000, 1769700000000),
        (1769700000000.6, 1769700000001),
        ("2026-01-29T15:20:00Z", 1769700000000),
        ("2026-01-29T15:20:00.5+00:00", 1769700000500),
        ("2026-01-29T16:20:00+01:00", 1769700000000),
        ("2026-01-29T15:20:00", 1769700000000),  # no zone is UTC, not this machine's
        ("yesterday", STORED_AT),
        ("", STORED_AT),
        (None, STORED_AT),
        (True, STORED_AT),
        ([1], STORED_AT),
        ({}, STORED_AT),
        (float("inf"), STORED_AT),
        (float("nan"), STORED_AT),
    ],
)
def test_a_timestamp_is_read_from_whatever_was_written(written: Any, expected: int) -> None:
    assert expected == read_timestamp(written, STORED_AT)


def test_a_time_without_zone_does_not_depend_on_where_the_process_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert read_timestamp("2026-01-29T15:20:00", 0) == 1769700000000
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}, {"metadata": {}}])
def test_missing_or_null_metadata_is_empty(metadata: dict[str, Any]) -> None:
    event = to_event(Event[Any], read_envelope(body(**metadata), stored_at=STORED_AT))

    assert event.metadata == Metadata()
    assert event.timestamp == STORED_AT


@pytest.mark.parametrize("payload", [None, "text", 5, [], {"a": 1}])
def test_the_payload_may_be_any_json(payload: Any) -> None:
    assert payload == read_envelope(body(payload=payload), stored_at=1).payload


HOSTILE = {
    "nothing": b"",
    "no json": b"hello",
    "no utf-8": b'{"id":"\xff"}',
    "utf-16": json.dumps({"id": "1", "type": "a.b", "payload": 1}).encode("utf-16"),
    "null": b"null",
    "a list": b"[]",
    "a number": b"5",
    "an unfinished object": body()[:-1],
    "two objects": body() + body(),
    "nested a thousand deep": b'{"a":' * 1000,
    "an array half a million deep": b"[" * 500_000,
    "a number of 5000 digits": b'{"id":"1","type":"a.b","payload":' + b"9" * 5000 + b"}",
    "NaN": b'{"id":"1","type":"a.b","payload":NaN}',
    "no id": b'{"type":"a.b","payload":1}',
    "id null": body(id=None),
    "id empty": body(id=""),
    "id a number": body(id=5),
    "type null": body(type=None),
    "type a list": body(type=["a.b"]),
    "no payload": b'{"id":"1","type":"a.b"}',
    "metadata a text": body(metadata="x"),
    "metadata a list": body(metadata=[]),
    "correlation id a number": body(metadata={"correlationId": 5}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_unreadable_and_nothing_else(name: str) -> None:
    assert read_fast(quiet(Event[Any]), HOSTILE[name]) is None
    with pytest.raises(Unreadable) as unreadable:
        read_envelope(HOSTILE[name], stored_at=STORED_AT)

    assert len(str(unreadable.value)) < 300


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (rb"a\ud83d", "a\ufffd"),
        (rb"\uDE00b", "\ufffdb"),
        (rb"\ud83d\ud83d\ude00\ude00", "\ufffd\U0001f600\ufffd"),
        (rb"\\ud83d\ud83d", "\\ud83d\ufffd"),
        (rb"\\\ud83d", "\\\ufffd"),
        (rb"\ud83d\\ude00", "\ufffd\\ude00"),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("model", [Event[Any], Event[dict[str, str]]])
def test_half_a_surrogate_pair_and_a_byte_order_mark_are_read(
    written: bytes, text: str, mark: bytes, model: Any
) -> None:
    data = mark + b'{"id":"1","type":"a.b","payload":{"t":"%b"}}' % written

    event = to_event(model, read_envelope(data, stored_at=1))

    assert event.payload == {"t": text}


def _nested(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels - 1):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("payload", "what"),
    [(_nested(201), "199 levels"), (10**4300, "4300 digits"), ([1, -(10**9000)], "4300 digits")],
    ids=["deep", "long", "longer"],
)
def test_what_no_worker_could_read_is_refused_by_its_name(payload: Any, what: str) -> None:
    with pytest.raises(InvalidPayload, match=rf"custom\.x.*{what}"):
        write(payload)


@pytest.mark.parametrize(
    "payload",
    [_nested(199), 10**4299, "9" * 9000, [[]] * 500, "[" * 500],
    ids=["deep", "long", "text", "wide", "brackets"],
)
def test_what_is_just_short_of_unreadable_is_written_and_read(payload: Any) -> None:
    assert read_envelope(write(payload), stored_at=1).payload == payload


@given(st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_unreadable(data: bytes) -> None:
    try:
        read_envelope(data, stored_at=STORED_AT)
    except Unreadable:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: json_values
            for key in ("id", "type", "payload", "timestamp", "metadata", "other", "_address")
        },
    )
)
def test_any_json_becomes_an_event_or_an_invalid_event(keys: dict[str, Any]) -> None:
    data = json.dumps(keys).encode()

    try:
        event = to_event(Event[Any], read_envelope(data, stored_at=STORED_AT))
    except InvalidEvent:
        assert read_fast(quiet(Event[Any]), data) is None
        return

    assert event.id == keys["id"]
    assert event.channel is None


@pytest.mark.parametrize(
    ("bare", "lacking"),
    [
        (b'{"customer": "ana"}', "id, type, payload missing"),
        (b'{"id": 7, "type": "order"}', "payload missing"),
        (b"[1]", "got a list"),
    ],
)
def test_a_message_without_an_envelope_is_told_what_an_event_has(bare: bytes, lacking: str) -> None:
    with pytest.raises(Unreadable) as unreadable:
        read_envelope(bare, stored_at=1)

    said = str(unreadable.value)
    assert said.startswith(
        "no event: expected an envelope, a JSON object with id, type and payload"
    )
    assert said.endswith(lacking)


def test_a_reason_never_repeats_what_was_in_the_event() -> None:
    class Strict(BaseModel):
        number: int

    hostile = body(payload={"number": "private"}, metadata={"personId": ["private"]})
    with pytest.raises(Unreadable) as unreadable:
        read_envelope(hostile, stored_at=1)
    with pytest.raises(SchemaMismatch, match=r"a\.b: payload\.number") as mismatch:
        to_event(Event[Strict], read_envelope(body(payload={"number": "private"}), stored_at=1))

    assert "private" not in str(unreadable.value)
    assert "private" not in str(mismatch.value)


def test_the_second_look_takes_what_the_first_would_have_taken() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        at: datetime
        score: float

    payload = {"at": "2026-01-01T00:00:00Z", "score": 1.5}

    event = to_event(Event[Strict], read_envelope(body(payload=payload), stored_at=1))

    assert event.payload.at.year == 2026


@pytest.mark.parametrize("missing", [{}, {"timestamp": 1, "metadata": {}}])
@pytest.mark.parametrize("size", [1, LARGE])
def test_a_model_has_its_payload_as_json_whatever_its_size_and_envelope(
    missing: dict[str, Any], size: int
) -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        at: datetime
        either: datetime | str
        text: str

        @field_validator("either")
        @classmethod
        def as_utc(cls, value: datetime) -> datetime:
            return value.astimezone(UTC)  # a str has none: in Python it would be one

    now = "2026-01-01T00:00:00Z"
    written = body(payload={"at": now, "either": now, "text": "x" * size}, **missing)

    event = read(Event[Strict], written)

    assert event.payload.at == event.payload.either == datetime.fromisoformat(now)
    assert event.payload.text == "x" * size


def test_what_stands_around_a_payload_sees_it_first_whatever_its_size() -> None:
    class Text(BaseModel):
        text: str
        one: int

    def with_one(value: Any) -> Any:
        return {"one": 1, **value}

    class Own(Event[Text]):
        @field_validator("payload", mode="before")
        @classmethod
        def fill(cls, value: Any) -> Any:
            return with_one(value)

    for model in (Own, Event[Annotated[Text, BeforeValidator(with_one)]]):
        for size in (1, LARGE):
            assert read(model, body(payload={"text": "x" * size})).payload.one == 1


def test_a_validator_that_raises_anything_is_a_mismatch_without_its_words() -> None:
    class Odd(BaseModel):
        @model_validator(mode="before")
        @classmethod
        def odd(cls, values: Any) -> Any:
            raise KeyError("private")

    for size in (1, LARGE):
        with pytest.raises(SchemaMismatch) as mismatch:
            read(Event[Odd], body(payload={"text": "x" * size}))
        assert str(mismatch.value) == "a.b: a validator of its model raised KeyError"


def test_a_strict_model_names_what_is_wrong_as_json_whatever_the_size() -> None:
    class Inner(BaseModel):
        model_config = ConfigDict(strict=True)
        at: datetime
        number: int

    class Outer(BaseModel):
        inner: Inner
        text: str

    for size in (1, LARGE):
        for wrong in ("one", 1.5):
            inner = {"at": "2026-01-01T00:00:00Z", "number": wrong}
            with pytest.raises(SchemaMismatch, match=r"payload\.inner\.number") as mismatch:
                read(Event[Outer], body(payload={"inner": inner, "text": "x" * size}))
            assert "inner.at" not in str(mismatch.value)


def test_what_fits_in_python_only_is_a_mismatch_too() -> None:
    class JsonOnly(BaseModel):
        text: str

        @model_validator(mode="after")
        def in_python(self, info: ValidationInfo) -> Self:
            assert info.mode == "python"
            return self

    with pytest.raises(SchemaMismatch, match=r"a\.b: it does not fit its model"):
        read(Event[JsonOnly], body(payload={"text": "x" * LARGE}))


def test_a_typed_event_gets_what_its_envelope_cannot_say() -> None:
    class Text(BaseModel):
        text: str

    loose = (
        b' {"id":"1","type":"a.b","timestamp":"x","metadata":null,"payload":{"text":"y"},"z":1}\r\n'
    )

    event = to_event(Event[Text], read_envelope(loose, stored_at=7))

    assert (event.timestamp, event.metadata, event.payload) == (7, Metadata(), Text(text="y"))
    assert event.model_extra == {"z": 1}


@pytest.mark.parametrize("size", [1, LARGE])
def test_every_field_a_payload_lacks_is_named(size: int) -> None:
    class Wanting(BaseModel):
        text: str
        one: int
        two: int = Field(alias="Two")

    with pytest.raises(SchemaMismatch) as lacking:
        read(Event[Wanting], body(payload={"text": "x" * size}))

    assert str(lacking.value) == "a.b: payload.one: Field required; payload.Two: Field required"


def test_a_payload_wrong_in_half_a_million_places_is_told_in_one_line() -> None:
    class Numbers(BaseModel):
        numbers: list[int]

    wrong = body(payload={"numbers": ["x"] * 5_000})
    with pytest.raises(SchemaMismatch, match=r"a\.b: 5000 problems, too many to list"):
        to_event(Event[Numbers], read_envelope(wrong, stored_at=1))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda event: event.model_copy()])
def test_a_copy_of_an_event_came_on_the_same_subject(duplicate: Any) -> None:
    event = to_event(Event[Any], read_envelope(body(), stored_at=1))
    addressed(event, Address("a.b", "whatsapp", "wa-001"))

    copied = duplicate(event)

    assert (copied.channel, copied.instance) == ("whatsapp", "wa-001")


def test_an_envelope_cannot_name_a_channel_its_subject_does_not() -> None:
    event = read_fast(
        quiet(Event[Any]),
        body(timestamp=1, metadata={}, channel="discord", instance="dc", _address=["x"]),
    )

    assert event is not None
    assert (event.channel, event.instance) == (None, None)
    assert event.model_extra == {"channel": "discord", "instance": "dc", "_address": ["x"]}


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": [TRACE]}, TRACE),
        ({"Traceparent": [TRACE, "other"]}, TRACE),
        ({"traceparent": []}, None),
        ({"traceparent": ["x\r\nNats-Msg-Id: 1"]}, None),
        ({"traceparent": [TRACE + "\r\n"]}, None),
        ({"traceparent": [TRACE.upper()]}, None),
        ({}, None),
    ],
)
def test_only_a_trace_context_is_carried_on(
    headers: dict[str, list[str]], expected: str | None
) -> None:
    assert expected == read_traceparent(headers)
