"""Dispatch: the ending of a handler whose tasks end together, in a TaskGroup."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from omni_worker import App, Context, Event, Reject, Retry, dispatch
from omni_worker.dispatch import Dispatcher
from omni_worker.handlers import declare
from omni_worker.outcomes import Failed, HandBack, Outcome, Rejected, Skip
from omni_worker.schemas import SchemaRegistry
from omni_worker.testing import TestWorker
from omni_worker.transports.base import Delivery, Message
from omni_worker.transports.memory import MemoryTransport

from .waiting import until


async def ending_of(*errors: Exception | Sequence[Exception]) -> Outcome:
    """How the first run of a handler ends whose tasks raise these; a list is a group in there."""
    app = App("groups")

    @app.on("custom.thing", durable="d", max_retries=0, reject_on=(KeyError,))
    async def handle(event: Event[Any]) -> None:
        await _raise_together(errors)

    async with TestWorker(app) as t:
        await t.publish("custom.thing", {})
        await t.settle()
    return t.outcomes(handle)[0]


async def _raise_together(errors: Sequence[Exception | Sequence[Exception]]) -> None:
    met = asyncio.Barrier(len(errors))

    async def fail(error: Exception | Sequence[Exception]) -> None:
        await met.wait()  # so that none is cancelled before it raised
        if isinstance(error, Exception):
            raise error
        await _raise_together(error)

    async with asyncio.TaskGroup() as group:
        for one in errors:
            group.create_task(fail(one))


async def test_one_reject_among_the_tasks_is_a_reject_and_says_why() -> None:
    ended = await ending_of(Reject("no such chat"))

    assert isinstance(ended, Rejected)
    assert str(ended.error) == "no such chat"
    assert ended.error.__traceback__ is not None


@pytest.mark.parametrize("errors", [(Reject("a"), KeyError("b")), (Reject("a"), [Reject("b")])])
async def test_all_that_rejects_is_a_reject(errors: Any) -> None:
    ended = await ending_of(*errors)

    assert isinstance(ended, Rejected)
    assert isinstance(ended.error, Reject | KeyError)


async def test_of_several_retries_the_longest_wait_counts() -> None:
    ended = await ending_of(Retry(), Retry(after=60), Retry(after=30))

    assert isinstance(ended, Failed)
    assert isinstance(ended.error, Retry)
    assert ended.after == 60


async def test_retries_that_name_no_wait_leave_it_to_the_policy() -> None:
    ended = await ending_of(Retry("not yet"))

    assert isinstance(ended, Failed)
    assert str(ended.error) == "not yet"
    assert ended.after is None


@pytest.mark.parametrize(
    "errors",
    [(ValueError(),), (Reject(), ValueError()), (Reject(), Retry(after=60)), (Retry(), OSError())],
    ids=str,
)
async def test_anything_else_among_them_is_a_failure_with_all_of_them(errors: Any) -> None:
    ended = await ending_of(*errors)

    assert isinstance(ended, Failed)
    assert isinstance(ended.error, ExceptionGroup)
    assert set(ended.error.exceptions) == set(errors)
    assert ended.after is None


@pytest.mark.parametrize("by_registry", [False, True])
async def test_a_models_validator_that_raises_anything_makes_a_letter(by_registry: bool) -> None:
    seen = 0

    class Odd(BaseModel):
        @model_validator(mode="before")
        @classmethod
        def odd(cls, values: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen > by_registry:  # the publisher's own look at it comes first
                raise KeyError("private")
            return values

    app = App("odd")
    options: dict[str, Any] = {"validate": True} if by_registry else {"schema": Odd}
    if by_registry:
        app.registry.register("custom.thing", Odd)

    @app.on("custom.thing", durable="d", **options)
    async def handle(event: Event[Any]) -> None: ...

    async with TestWorker(app) as t:
        await t.publish("custom.thing", {})
        await t.settle()

    assert [letter.payload["error"] for letter in t.dead_letters] == [
        "custom.thing: a validator of its model raised KeyError"
    ]
    assert t.runs(handle) == []


async def test_no_subject_is_remembered() -> None:
    async def handle(event: Event[Any]) -> None: ...

    handler = declare(handle, app="app", types=["custom.>"], options={})
    dispatcher = Dispatcher(handler, registry=SchemaRegistry())
    body = b'{"id":"1","type":"custom.thing","payload":{}}'
    source: Any = None

    for number in range(50):
        subject = f"custom.thing.whatsapp.{number}"
        delivery = Delivery(source, subject, body, None, b"", sequence=1, stored_at=0, count=1)
        event = dispatcher.read(delivery)
        assert isinstance(event, Event)
        assert event.instance == str(number)

    assert dispatcher._prefixes == {"custom.thing": ("custom.thing.",)}


@pytest.mark.parametrize(
    ("types", "channel", "subject", "is_ours"),
    [
        (["custom.thing"], None, "custom.thing", True),
        (["custom.thing"], None, "custom.thing.whatsapp.wa-1", True),
        (["custom.thing"], "whatsapp", "custom.thing.whatsapp.wa-1", True),
        (["custom.thing"], "whatsapp", "custom.thing.discord.d-1", False),
        (["custom.thing"], "whatsapp", "custom.thing.whatsappx.d-1", False),
        (["custom.thing"], "whatsapp", "custom.thing", False),
        (["custom.*"], "whatsapp", "custom.thing.whatsapp.wa-1", True),
        (["custom.*"], "whatsapp", "custom.thing.discord.wa-1", False),
        (["custom.>"], None, "custom.thing.whatsapp.wa-1", True),
    ],
)
async def test_an_event_is_ours_by_its_subject_also_when_its_type_was_seen_before(
    types: list[str], channel: str | None, subject: str, is_ours: bool
) -> None:
    async def handle(event: Event[Any]) -> None: ...

    handler = declare(handle, app="app", types=types, channel=channel, options={})
    dispatcher = Dispatcher(handler, registry=SchemaRegistry())
    body = b'{"id":"1","type":"custom.thing","payload":{}}'
    source: Any = None

    def read(on: str) -> Any:
        return dispatcher.read(
            Delivery(source, on, body, None, b"", sequence=1, stored_at=0, count=1)
        )

    first, second = read(subject), read(subject)
    read("custom.thing.whatsapp.wa-2")
    third = read(subject)

    assert [isinstance(one, Event) for one in (first, second, third)] == [is_ours] * 3


@pytest.mark.parametrize("depth", [2_000, 20_000])
async def test_a_group_nested_deeper_than_calls_may_go_is_a_failure(depth: int) -> None:
    error: Exception = ValueError("the real cause")
    for _ in range(depth):
        error = ExceptionGroup("again", [error])

    ended = await ending_of(error)

    assert isinstance(ended, Failed)


async def test_rejects_in_a_deep_group_are_a_reject() -> None:
    error: Exception = Reject("no such chat")
    for _ in range(2_000):
        error = ExceptionGroup("again", [error])

    ended = await ending_of(error)

    assert isinstance(ended, Rejected)


async def test_an_error_whose_text_ends_the_process_is_a_failure_with_its_type() -> None:
    class Leaving(Exception):
        def __str__(self) -> str:
            raise SystemExit(3)

    app = App("leaving")

    @app.on("custom.thing", durable="d", max_retries=1)
    async def handle(event: Event[Any]) -> None:
        raise Leaving

    async with TestWorker(app) as t:
        await t.publish("custom.thing", {})
        await t.settle()

    assert t.attempts(handle) == 2
    assert t.dead_letters[0].payload["errorType"].endswith("Leaving")
    assert t.dead_letters[0].payload["error"] == "its text cannot be read: SystemExit"


# --- events that are not new -------------------------------------------------------------------


class Received(BaseModel):
    chatId: str


HISTORY = {"ingestMode": "history-sync"}
REPLAY = {"source": "replay"}
FITS = {"chatId": "c"}
MARKED = {"instanceId": "wa-001", "channel": "whatsapp", "textContent": "hi", "_replay": True}


def read_as_sent(payload: Any, metadata: dict[str, Any], **options: Any) -> Any:
    """Read one event of a foreign program: return the event, or its outcome."""

    async def handle(event: Event[Any]) -> None: ...

    handler = declare(handle, app="app", types=["message.received"], options=options)
    source: Any = None
    body = envelope(payload, metadata)
    delivery = Delivery(
        source, "message.received", body, None, b"", sequence=1, stored_at=0, count=1
    )
    return Dispatcher(handler, registry=SchemaRegistry()).read(delivery)


def envelope(payload: Any, metadata: dict[str, Any]) -> bytes:
    facts = {"id": "e", "type": "message.received", "timestamp": 1}
    return json.dumps(facts | {"payload": payload, "metadata": metadata}).encode()


@pytest.mark.parametrize("payload", [FITS, {"of": "an older sender"}])
@pytest.mark.parametrize("metadata", [HISTORY, HISTORY | {"envelopeVersion": 1}])
def test_a_message_of_a_synchronised_history_is_skipped_where_only_live_ones_are_wanted(
    payload: Any, metadata: dict[str, Any]
) -> None:
    assert read_as_sent(payload, metadata, schema=Received, live_only=True) == Skip(
        "message.received"
    )


@pytest.mark.parametrize(
    ("metadata", "live_only"),
    [({"ingestMode": "realtime"}, True), ({}, True), ({"ingestMode": 5}, True), (HISTORY, False)],
)
def test_every_other_message_runs(metadata: dict[str, Any], live_only: bool) -> None:
    read = read_as_sent(FITS, metadata, schema=Received, live_only=live_only)

    assert isinstance(read, Event)


@pytest.mark.parametrize("options", [{"schema": Received}, {"validate": True}])
def test_a_replay_that_does_not_fit_the_model_is_skipped(options: dict[str, Any]) -> None:
    assert read_as_sent(MARKED, REPLAY, **options) == Skip("message.received")


@pytest.mark.parametrize("options", [{"schema": Received}, {"validate": True}])
@pytest.mark.parametrize(
    ("payload", "metadata"),
    [
        (MARKED, {}),
        (MARKED, {"source": "omni"}),
        ({"textContent": "hi"}, REPLAY),
        ("_replay", REPLAY),
    ],
)
def test_what_only_looks_like_a_replay_is_a_dead_letter(
    options: dict[str, Any], payload: Any, metadata: dict[str, Any]
) -> None:
    assert isinstance(read_as_sent(payload, metadata, **options), Rejected)


async def test_skipped_events_are_counted_and_a_replay_is_said_to_be_one() -> None:
    app, replays, transport = App("again"), list[bool](), MemoryTransport()

    @app.on("message.received", durable="d", live_only=True)
    async def handle(event: Event[Received], ctx: Context) -> None:
        replays.append(ctx.replay)

    async with app.running(transport=transport) as bus:
        for payload, metadata in (
            (FITS, {}), (FITS, HISTORY), (MARKED, REPLAY), (FITS | MARKED, REPLAY), (FITS, REPLAY),
        ):  # fmt: skip
            body = envelope(payload, metadata)
            await transport.publish(Message("message.received", body, ""), timeout=5)
        [subscription] = bus.subscriptions
        await until(lambda: subscription.counts.handled + subscription.counts.skipped == 5)

    assert replays == [False, True, False]
    assert (subscription.counts.skipped, subscription.counts.dead_lettered) == (2, 0)


# --- deliveries without their body ---------------------------------------------------------------


def headers_only(dispatcher: Dispatcher, sequence: int, count: int = 1) -> Any:
    """Read an event as a consumer delivers it that others have set to headers only."""
    source: Any = SimpleNamespace(stream="MESSAGE")
    headers = b"NATS/1.0\r\nNats-Msg-Size: 325\r\n\r\n"
    delivery = Delivery(
        source, "message.received", b"", headers, b"", sequence=sequence, stored_at=0, count=count
    )
    return dispatcher.read(delivery)


def test_a_delivery_without_its_body_comes_again_however_often_its_event_had_failed() -> None:
    async def handle(event: Event[Any]) -> None: ...

    handler = declare(handle, app="app", types=["message.received"], options={})
    dispatcher = Dispatcher(handler, registry=SchemaRegistry())

    back = [headers_only(dispatcher, 1, count) for count in range(7, 11)]
    assert all(isinstance(one, HandBack) and one.bodiless for one in back)
    assert isinstance(headers_only(dispatcher, 2), HandBack)  # each event counts by itself
    assert isinstance(headers_only(dispatcher, 1, 11), Rejected)  # the lack is its own


def test_few_events_without_a_body_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(event: Event[Any]) -> None: ...

    monkeypatch.setattr(dispatch, "LACKING_REMEMBERED", 3)
    handler = declare(handle, app="app", types=["message.received"], options={})
    dispatcher = Dispatcher(handler, registry=SchemaRegistry())

    for sequence in range(1, 11):
        assert isinstance(headers_only(dispatcher, sequence), HandBack)

    assert [sequence for _, sequence, _ in dispatcher._lacking] == [8, 9, 10]
