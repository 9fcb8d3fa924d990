"""Publisher: what leaves is checked, enriched and addressed. The transport is a recorder."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import uuid
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import fields
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker.context import Context, RunSetup
from omni_worker.errors import (
    ConfigError,
    EventTooLarge,
    InvalidEvent,
    InvalidPayload,
    InvalidSubject,
    TransportError,
    UnknownEventType,
)
from omni_worker.events import Event, Metadata, Published
from omni_worker.payloads import MessageReadPayload
from omni_worker.publisher import Draft, Publisher, PublishManyError, draft_of
from omni_worker.schemas import SchemaRegistry
from omni_worker.transports.base import Delivery, Message, Stored
from omni_worker.wire import read_envelope

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorder:
    """The two verbs of the port that publishing uses; remembers every message."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.timeouts: list[float] = []
        self.max_payload = 1_048_576
        self.stops_after: int | None = None
        self.refused: set[int] = set()  # which message, counted from zero, is not taken

    async def publish(self, message: Message, *, timeout: float) -> Stored:
        [result] = await self.publish_many([message], timeout=timeout)
        if isinstance(result, Exception):
            raise result
        return result

    async def publish_many(
        self, messages: Iterable[Message], *, timeout: float
    ) -> list[Stored | Exception]:
        self.timeouts.append(timeout)
        results: list[Stored | Exception] = []
        for message in messages:
            if len(results) == self.stops_after:
                break
            number = len(self.messages)
            self.messages.append(message)
            results.append(
                TransportError("no room")
                if number in self.refused
                else Stored("STREAM", number + 1, False)
            )
        return results

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(message.body) for message in self.messages]


@pytest.fixture
def transport() -> Recorder:
    return Recorder()


@pytest.fixture
def publisher(transport: Recorder) -> Publisher:
    return Publisher(transport, SchemaRegistry(), "router")  # type: ignore[arg-type]


def draft(type: str = "custom.x", payload: Any = None, **more: Any) -> Draft:
    return Draft(type=type, payload={} if payload is None else payload, **more)


# --- one event -----------------------------------------------------------------------------


async def test_what_is_missing_is_filled_in(publisher: Publisher, transport: Recorder) -> None:
    published = await publisher.publish(draft(payload={"a": 1}))

    [body], [message] = transport.bodies, transport.messages
    assert published == Published(published.id, "STREAM", 1, duplicate=False)
    assert uuid.UUID(published.id).version == 4
    assert list(body) == ["id", "type", "payload", "timestamp", "metadata"]
    assert body["id"] == message.id == published.id
    assert isinstance(body["timestamp"], int)
    assert body["metadata"] == {
        "correlationId": published.id, "traceId": published.id, "source": "router",
    }  # fmt: skip
    assert (message.subject, message.headers) == ("custom.x", {})


async def test_what_is_given_wins(publisher: Publisher, transport: Recorder) -> None:
    await publisher.publish(
        draft(
            channel="whatsapp", instance="wa-001", id="mine", correlation_id="c", trace_id="t",
            person_id="p", platform_identity_id="pi", traceparent=TRACE,
            metadata={"timings": [1], "source": "import", "channelType": "other"},
        )
    )  # fmt: skip

    [message] = transport.messages
    assert transport.bodies[0]["metadata"] == {
        "timings": [1], "source": "import", "channelType": "whatsapp", "correlationId": "c",
        "traceId": "t", "instanceId": "wa-001", "personId": "p", "platformIdentityId": "pi",
    }  # fmt: skip
    assert message.subject == "custom.x.whatsapp.wa-001"
    assert (message.id, message.headers) == ("mine", {"traceparent": TRACE})


@pytest.mark.parametrize(
    ("given", "error", "hint"),
    [
        ({"type": "message.recieved"}, UnknownEventType, "message.received"),
        ({"type": "system.mine"}, UnknownEventType, "system.mine"),
        ({"type": "custom..x"}, InvalidSubject, "empty token"),
        ({"type": 5}, InvalidSubject, "expected a string"),
        ({"channel": "x"}, InvalidSubject, "they go together"),
        ({"channel": "x", "instance": "a b"}, InvalidSubject, "instance 'a b'"),
        ({"channel": "x", "instance": 5}, InvalidSubject, "instance 5"),
        ({"type": "message.read", "payload": {"chatId": "private"}}, InvalidPayload, "externalId"),
        ({"payload": {"x": float("nan")}}, InvalidPayload, "NaN"),
        ({"payload": object()}, InvalidPayload, "not JSON"),
        ({"id": ""}, InvalidEvent, "event id"),
        ({"id": "a\r\nb"}, InvalidEvent, "event id"),
        ({"id": "a\x00"}, InvalidEvent, "event id"),
        ({"id": " a"}, InvalidEvent, "spaces"),
        ({"id": "a\u2028"}, InvalidEvent, "event id"),
        ({"id": "x" * 257}, InvalidEvent, "256"),
        ({"id": uuid.uuid4()}, InvalidEvent, "event id of type UUID: expected a string"),
        ({"correlation_id": 5}, InvalidEvent, "metadata correlationId: expected a string, got int"),
        ({"metadata": {"traceId": ["private"]}}, InvalidEvent, "metadata traceId.*got list"),
        ({"metadata": {"personId": 5}}, InvalidEvent, "metadata personId"),
        ({"metadata": "private"}, InvalidEvent, "custom.*metadata=: expected a mapping, got str"),
        ({"metadata": [("a", "b")]}, InvalidEvent, "metadata=: expected a mapping, got list"),
        ({"traceparent": "x\r\nNats-Msg-Id: 1"}, InvalidEvent, "traceparent="),
        ({"traceparent": ""}, InvalidEvent, "traceparent="),
    ],
)
@pytest.mark.parametrize("many", [False, True])
async def test_what_cannot_be_published_is_refused_before_anything_is_sent(
    publisher: Publisher,
    transport: Recorder,
    given: dict[str, Any],
    error: type[Exception],
    hint: str,
    many: bool,
) -> None:
    bad = draft(**given)

    with pytest.raises(error, match=hint) as refused:
        await (publisher.publish_many([draft(), bad]) if many else publisher.publish(bad))

    assert transport.messages == []
    assert "private" not in str(refused.value)


async def test_a_core_payload_may_be_a_model_or_a_dict_in_camel_case(
    publisher: Publisher, transport: Recorder
) -> None:
    payload = MessageReadPayload(external_id="1", chat_id="2", read_at=3)

    await publisher.publish(draft("message.read", payload))
    await publisher.publish(draft("message.read", {"externalId": "1", "chatId": "2", "readAt": 3}))

    assert transport.bodies[0]["payload"] == transport.bodies[1]["payload"]


async def test_what_was_read_is_published_again_with_every_key_it_had(
    publisher: Publisher, transport: Recorder
) -> None:
    body = json.dumps(
        {"id": "1", "type": "custom.x", "payload": {"a": None}, "timestamp": 5, "version": 2,
         "metadata": {"correlationId": "c", "traceId": "t", "source": "s", "timings": [1]}}
    ).encode()  # fmt: skip
    envelope = read_envelope(body, stored_at=1)

    await publisher.publish(
        Draft(
            type=envelope.type, payload=envelope.payload, id=envelope.id,
            metadata=envelope.metadata, extra=envelope.extra,
        )
    )  # fmt: skip

    assert {**json.loads(body), "timestamp": 0} == {**transport.bodies[0], "timestamp": 0}


# --- timeouts ------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [120, 1000, 0, -1, float("nan"), float("inf"), "5", None, True])
async def test_a_timeout_in_which_the_server_may_forget_the_id_is_refused(
    publisher: Publisher, transport: Recorder, timeout: Any
) -> None:
    for publishing in (
        publisher.publish(draft(), timeout=timeout),
        publisher.publish_many([draft()], timeout=timeout),
    ):
        with pytest.raises(ConfigError, match=r"timeout=.*below 120"):
            await publishing

    assert transport.messages == []


async def test_the_timeout_is_thirty_seconds_unless_given(
    publisher: Publisher, transport: Recorder
) -> None:
    await publisher.publish(draft())
    await publisher.publish(draft(), timeout=119.9)

    assert transport.timeouts == [30.0, 119.9]


async def test_a_short_window_cuts_the_timeout_to_three_quarters_and_is_said_once(
    publisher: Publisher, transport: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.short_windows = {"custom.>": 20.0}

    with caplog.at_level(logging.WARNING, "omni_worker.publish"):
        await publisher.publish(draft())
        await publisher.publish(draft(), timeout=10)
        await publisher.publish_many([draft("system.replay.started"), draft()])
        await publisher.publish(draft("system.replay.started"))

    assert transport.timeouts == [15.0, 10, 15.0, 30.0]
    said = [one.message for one in caplog.records if one.name == "omni_worker.publish"]
    assert len(said) == 1
    assert "custom.> is given up after 15.0 s" in said[0]


# --- many ----------------------------------------------------------------------------------


async def test_many_keep_their_order_and_each_has_its_confirmation(
    publisher: Publisher, transport: Recorder
) -> None:
    published = await publisher.publish_many(draft(id=str(n)) for n in range(3))

    assert [one.id for one in published] == ["0", "1", "2"]
    assert [one.sequence for one in published] == [1, 2, 3]
    assert await publisher.publish_many([]) == []


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
async def test_the_confirmations_of_many_read_like_a_list(publisher: Publisher, count: int) -> None:
    expected = [Published(f"é-{n}", "STREAM", n + 1, False) for n in range(count)]

    published = await publisher.publish_many(draft(id=f"é-{n}") for n in range(count))

    assert published == expected
    assert list(published) == expected
    assert [*reversed(published)] == expected[::-1]
    assert (published[0], published[-1]) == (expected[0], expected[-1])
    assert published[-3:] == expected[-3:]
    assert published != expected[1:]
    assert repr(published) == repr(expected)


@pytest.mark.parametrize("with_middleware", [False, True])
async def test_of_many_it_is_said_which_were_not_confirmed(
    publisher: Publisher, transport: Recorder, with_middleware: bool
) -> None:
    async def middleware(event: Event[Any], call_next: Any) -> Published:
        published: Published = await call_next(event)
        return published

    if with_middleware:
        publisher.middlewares.append(middleware)
    transport.refused = {1}

    with pytest.raises(PublishManyError, match=r"1 of 3 .* the first: no room") as failed:
        await publisher.publish_many(draft(id=str(n)) for n in range(3))

    assert [one and one.id for one in failed.value.published] == ["0", None, "2"]
    assert list(failed.value.errors) == [1]
    assert failed.value.event_id == "1"


@pytest.mark.parametrize(
    ("bad", "kind"),
    [("y" * 2_000_000, EventTooLarge), (float("nan"), InvalidPayload)],
    ids=["too large", "NaN"],
)
async def test_a_bad_draft_of_a_list_is_named_by_its_index_before_any_is_sent(
    publisher: Publisher, transport: Recorder, bad: Any, kind: type[Exception]
) -> None:
    drafts = [draft(payload={"x": bad if n == 2 else n}) for n in range(4)]

    with pytest.raises(kind, match=r"^draft 2: custom\.x: "):
        await publisher.publish_many(drafts)

    assert transport.messages == []


async def test_a_generator_is_read_until_a_draft_is_refused(
    publisher: Publisher, transport: Recorder
) -> None:
    read: list[int] = []

    def drafts() -> Iterator[Draft]:
        for n in range(5):
            read.append(n)
            yield draft(id=str(n), payload={"x": float("nan") if n == 2 else n})

    with pytest.raises(PublishManyError, match=r"1 of 3 .*NaN") as failed:
        await publisher.publish_many(drafts())

    assert isinstance(failed.value.__cause__, InvalidPayload)
    assert [one and one.id for one in failed.value.published] == ["0", "1", None]
    assert read == [0, 1, 2]


async def test_whoever_makes_the_drafts_may_fail_and_it_is_said_what_is_stored(
    publisher: Publisher, transport: Recorder
) -> None:
    def drafts() -> Iterator[Draft]:
        yield draft(id="0")
        raise KeyError("a row")

    with pytest.raises(PublishManyError, match=r"1 of 2 .*a row") as failed:
        await publisher.publish_many(drafts())

    assert isinstance(failed.value.__cause__, KeyError)
    assert [one and one.id for one in failed.value.published] == ["0", None]


async def test_what_was_not_sent_any_more_is_an_error_of_its_own(
    publisher: Publisher, transport: Recorder
) -> None:
    transport.stops_after = 1

    with pytest.raises(PublishManyError, match=r"2 of 3 .*one before it was not stored") as failed:
        await publisher.publish_many([draft(id=str(n)) for n in range(3)])

    assert list(failed.value.errors) == [1, 2]


async def test_of_one_it_is_said_in_the_singular(publisher: Publisher, transport: Recorder) -> None:
    transport.refused = {0}

    with pytest.raises(PublishManyError, match=r"^1 of 1 event was not confirmed; the first"):
        await publisher.publish_many([draft()])


# --- middlewares ---------------------------------------------------------------------------


async def test_publish_middlewares_run_in_order_and_may_change_the_event(
    publisher: Publisher, transport: Recorder
) -> None:
    async def outer(event: Event[Any], call_next: Any) -> Published:
        event.payload = {**event.payload, "path": ["outer"]}
        return await call_next(event)  # type: ignore[no-any-return]

    async def inner(event: Event[Any], call_next: Any) -> Published:
        event.payload["path"].append("inner")
        event.metadata.person_id = "p"
        event.version = 2  # type: ignore[attr-defined]
        copied = event.model_copy(update={"type": "custom.y"})
        return await call_next(copied)  # type: ignore[no-any-return]

    publisher.middlewares += [outer, inner]

    await publisher.publish(draft(payload={"a": 1}, channel="x", instance="y", traceparent=TRACE))

    [body], [message] = transport.bodies, transport.messages
    assert body["payload"] == {"a": 1, "path": ["outer", "inner"]}
    assert body["metadata"]["personId"] == "p"
    assert body["version"] == 2
    assert message.subject == "custom.y.x.y"
    assert message.headers == {"traceparent": TRACE}


async def test_a_middleware_can_refuse(publisher: Publisher, transport: Recorder) -> None:
    async def never(event: Event[Any], call_next: Any) -> Published:
        raise InvalidEvent("not today")

    publisher.middlewares.append(never)

    with pytest.raises(InvalidEvent, match="not today"):
        await publisher.publish(draft())

    assert transport.messages == []


async def test_a_middleware_that_forgets_to_return_is_named(publisher: Publisher) -> None:
    async def forgetful(event: Event[Any], call_next: Any) -> None:
        await call_next(event)

    publisher.middlewares.append(forgetful)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match="forgetful returned NoneType: write return await"):
        await publisher.publish(draft())


async def test_what_a_middleware_makes_is_checked_like_anything_else(
    publisher: Publisher, transport: Recorder
) -> None:
    async def breaks(event: Event[Any], call_next: Any) -> Published:
        event.id = "a\nb"
        return await call_next(event)  # type: ignore[no-any-return]

    publisher.middlewares.append(breaks)

    with pytest.raises(InvalidEvent, match="event id"):
        await publisher.publish(draft())

    assert transport.messages == []


async def test_no_middleware_stands_before_a_dead_letter(
    publisher: Publisher, transport: Recorder
) -> None:
    async def never(event: Event[Any], call_next: Any) -> Published:
        raise InvalidEvent("not today")

    publisher.middlewares.append(never)

    await publisher.publish_letter("1", {"error": "x"}, {"correlationId": "c"})

    assert transport.messages[0].subject == "system.dead_letter"
    assert transport.bodies[0]["metadata"]["correlationId"] == "c"


# --- many through a middleware -------------------------------------------------------------


async def test_of_many_those_a_middleware_holds_up_keep_their_place(
    publisher: Publisher, transport: Recorder
) -> None:
    begun: list[int] = []
    opened = asyncio.Event()

    async def slow(event: Event[Any], call_next: Any) -> Published:
        begun.append(int(event.id))
        if event.id == "1":
            await opened.wait()
        if event.id == "4":
            opened.set()  # it begins although 1 waits
        published: Published = await call_next(event)
        return published

    publisher.middlewares.append(slow)

    async with asyncio.timeout(10):
        published = await publisher.publish_many([draft(id=str(n)) for n in range(300)])

    assert begun == list(range(300))
    assert [message.id for message in transport.messages] == [str(n) for n in range(300)]
    assert [one.id for one in published] == [str(n) for n in range(300)]


async def test_many_that_all_wait_do_so_at_the_same_time(
    publisher: Publisher, transport: Recorder
) -> None:
    everyone = asyncio.Barrier(100)

    async def waits(event: Event[Any], call_next: Any) -> Published:
        await everyone.wait()
        published: Published = await call_next(event)
        await asyncio.sleep(0)
        return published

    publisher.middlewares.append(waits)

    async with asyncio.timeout(10):
        await publisher.publish_many(draft(id=str(n)) for n in range(100))

    assert [message.id for message in transport.messages] == [str(n) for n in range(100)]


async def test_a_timeout_in_a_middleware_ends_its_own_event_only(
    publisher: Publisher, transport: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def impatient(event: Event[Any], call_next: Any) -> Published:
        async with asyncio.timeout(0.01 if event.id == "1" else None):
            if event.id == "1":
                await never.wait()
            published: Published = await call_next(event)
        return published

    publisher.middlewares.append(impatient)

    with pytest.raises(PublishManyError) as failed:
        await publisher.publish_many([draft(id=str(n)) for n in range(3)])

    assert isinstance(failed.value.errors[1], TimeoutError)
    assert [one and one.id for one in failed.value.published] == ["0", None, "2"]


async def test_a_timeout_around_the_confirmation_ends_its_own_event_only(
    publisher: Publisher, transport: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, confirmed = transport.publish_many, asyncio.Event()

    async def slowly(messages: Iterable[Message], *, timeout: float) -> list[Stored | Exception]:
        results = await stored(messages, timeout=timeout)
        await confirmed.wait()
        return results

    async def impatient(event: Event[Any], call_next: Any) -> Published:
        async with asyncio.timeout(0.01 if event.id == "1" else None):
            published: Published = await call_next(event)
        return published

    monkeypatch.setattr(transport, "publish_many", slowly)
    publisher.middlewares.append(impatient)
    asyncio.get_running_loop().call_later(0.05, confirmed.set)

    with pytest.raises(PublishManyError) as failed:
        await publisher.publish_many([draft(id=str(n)) for n in range(3)])

    assert isinstance(failed.value.errors[1], TimeoutError)
    assert [one and one.id for one in failed.value.published] == ["0", None, "2"]


async def test_a_task_group_in_a_middleware_cancels_its_own_event_only(
    publisher: Publisher, transport: Recorder
) -> None:
    async def fails() -> None:
        raise KeyError("no")

    async def grouped(event: Event[Any], call_next: Any) -> Published:
        async with asyncio.TaskGroup() as group:
            if event.id == "1":
                group.create_task(fails())
            published: Published = await call_next(event)
            if event.id == "1":
                await asyncio.Event().wait()
        return published

    publisher.middlewares.append(grouped)

    with pytest.raises(PublishManyError, match="1 of 3") as failed:
        await publisher.publish_many([draft(id=str(n)) for n in range(3)])

    assert isinstance(failed.value.errors[1], ExceptionGroup)
    assert [one and one.id for one in failed.value.published] == ["0", None, "2"]


async def test_a_middleware_is_in_one_task_and_one_context_from_begin_to_end(
    publisher: Publisher, transport: Recorder
) -> None:
    inside: ContextVar[str] = ContextVar("inside", default="")
    seen: list[tuple[str, bool]] = []

    async def traced(event: Event[Any], call_next: Any) -> Published:
        task, before = asyncio.current_task(), inside.get()
        token = inside.set(event.id)
        if int(event.id) % 2:
            await asyncio.sleep(0)
        published: Published = await call_next(event)
        seen.append((before, (asyncio.current_task() is task) and inside.get() == event.id))
        inside.reset(token)
        return published

    publisher.middlewares.append(traced)

    await publisher.publish_many([draft(id=str(n)) for n in range(6)])

    assert seen == [("", True)] * 6
    assert inside.get() == ""


async def test_a_middleware_that_cancels_its_task_ends_its_own_event_only(
    publisher: Publisher, transport: Recorder
) -> None:
    async def gives_up(event: Event[Any], call_next: Any) -> Published:
        task = asyncio.current_task()
        assert task is not None
        if event.id in "13":
            task.cancel()
        if event.id == "3":
            await asyncio.sleep(0)
        published: Published = await call_next(event)
        return published

    publisher.middlewares.append(gives_up)

    async with asyncio.timeout(10):
        with pytest.raises(PublishManyError, match=r"2 of 5 .*middleware was cancelled"):
            await publisher.publish_many([draft(id=str(n)) for n in range(5)])

    assert [message.id for message in transport.messages] == ["0", "2", "4"]


async def test_an_event_that_was_cancelled_before_its_turn_is_not_sent(
    publisher: Publisher, transport: Recorder
) -> None:
    async def gives_up(event: Event[Any], call_next: Any) -> Published:
        task = asyncio.current_task()
        assert task is not None
        if event.id == "1":
            task.cancel()
        else:
            for _ in range(5):
                await asyncio.sleep(0)
        published: Published = await call_next(event)
        return published

    publisher.middlewares.append(gives_up)

    async with asyncio.timeout(10):
        with pytest.raises(PublishManyError, match="1 of 3"):
            await publisher.publish_many([draft(id=str(n)) for n in range(3)])

    assert [message.id for message in transport.messages] == ["0", "2"]


async def test_a_task_has_a_name_for_log_lines_before_it_is_a_task_of_its_own(
    publisher: Publisher, transport: Recorder
) -> None:
    names: list[str] = []

    async def logs(event: Event[Any], call_next: Any) -> Published:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())
        published: Published = await call_next(event)
        return published

    publisher.middlewares.append(logs)

    await publisher.publish_many([draft(id=str(n)) for n in range(3)])

    assert names == ["publish-0", "publish-1", "publish-2"]
    assert len(transport.timeouts) == 1  # all of them in one batch, as without a name


async def test_what_a_middleware_does_with_its_task_is_about_its_own_event(
    publisher: Publisher, transport: Recorder
) -> None:
    tasks: dict[str, Any] = {}

    async def collects(event: Event[Any], call_next: Any) -> Published:
        tasks[event.id] = asyncio.current_task()
        if event.id == "2":
            tasks["1"].cancel()  # it waits for its confirmation
        published: Published = await call_next(event)
        return published

    publisher.middlewares.append(collects)

    async with asyncio.timeout(10):
        with pytest.raises(PublishManyError, match="1 of 4") as failed:
            await publisher.publish_many([draft(id=str(n)) for n in range(4)])

    assert list(failed.value.errors) == [1]
    assert len(set(map(id, tasks.values()))) == 4


async def test_a_middleware_may_send_in_a_task_of_its_own(
    publisher: Publisher, transport: Recorder
) -> None:
    async def in_a_task(event: Event[Any], call_next: Any) -> Published:
        published: Published = await asyncio.create_task(call_next(event))
        return published

    publisher.middlewares.append(in_a_task)

    published = await publisher.publish_many(draft(id=str(n)) for n in range(200))

    assert [one.id for one in published] == [str(n) for n in range(200)]
    assert [message.id for message in transport.messages] == [str(n) for n in range(200)]


async def test_of_middlewares_that_wait_a_thousand_do_at_a_time(
    publisher: Publisher, transport: Recorder
) -> None:
    waiting = 0
    a_thousand_wait = asyncio.Event()

    async def waits(event: Event[Any], call_next: Any) -> Published:
        nonlocal waiting
        waiting += 1
        if waiting > 1_000:
            a_thousand_wait.set()
        await a_thousand_wait.wait()
        published: Published = await call_next(event)
        return published

    publisher.middlewares.append(waits)

    async with asyncio.timeout(10):
        published = await publisher.publish_many(draft(id=str(n)) for n in range(3_000))

    assert [one.id for one in published] == [str(n) for n in range(3_000)]


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_middlewares_do_each_event_is_sent_once_and_in_order(
    publisher: Publisher, transport: Recorder, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("omni_worker.publisher.pipeline.IN_FLIGHT", 10)
    monkeypatch.setattr("omni_worker.publisher.pipeline.BATCH", 4)
    dice = random.Random(seed)
    refused = {str(n) for n in range(300) if dice.random() < 0.1}

    async def does_anything(event: Event[Any], call_next: Any) -> Published:
        for _ in range(dice.choice([0, 0, 0, 1, 3])):
            await asyncio.sleep(0)
        if event.id in refused:
            raise KeyError(event.id)
        if dice.random() < 0.2:
            async with asyncio.timeout(30):
                published: Published = await call_next(event)
        elif dice.random() < 0.2:
            published = await asyncio.create_task(call_next(event))
        else:
            published = await call_next(event)
        for _ in range(dice.choice([0, 0, 0, 1, 3])):
            await asyncio.sleep(0)
        return published

    publisher.middlewares.append(does_anything)

    async with asyncio.timeout(30):
        with pytest.raises(PublishManyError) as failed:
            await publisher.publish_many([draft(id=str(n)) for n in range(300)])

    sent = [str(n) for n in range(300) if str(n) not in refused]
    assert [message.id for message in transport.messages] == sent
    assert [one.id for one in failed.value.published if one] == sent


async def test_a_middleware_may_publish_again_and_another_event_meanwhile(
    publisher: Publisher, transport: Recorder
) -> None:
    transport.refused = {0}

    async def again(event: Event[Any], call_next: Any) -> Published:
        try:
            published: Published = await call_next(event)
        except TransportError:
            published = await call_next(event)
        if event.type == "custom.x":
            await publisher.publish(draft("custom.audit", id=f"audit-{event.id}"))
        return published

    publisher.middlewares.append(again)

    await publisher.publish_many([draft(id=str(n)) for n in range(2)])

    assert sorted(message.id for message in transport.messages) == [
        "0", "0", "1", "audit-0", "audit-1",
    ]  # fmt: skip


async def test_of_a_list_all_are_tried_of_a_generator_none_after_a_refused_one(
    publisher: Publisher, transport: Recorder
) -> None:
    async def picky(event: Event[Any], call_next: Any) -> Published:
        if event.id == "1":
            raise KeyError("not today")
        published: Published = await call_next(event)
        return published

    publisher.middlewares.append(picky)
    drafts = [draft(id=str(n)) for n in range(4)]

    with pytest.raises(PublishManyError, match="1 of 4") as of_list:
        await publisher.publish_many(drafts)
    with pytest.raises(PublishManyError, match="1 of 2") as of_generator:
        await publisher.publish_many(iter(drafts))

    assert [one and one.id for one in of_list.value.published] == ["0", None, "2", "3"]
    assert [one and one.id for one in of_generator.value.published] == ["0", None]
    assert isinstance(of_list.value.__cause__, KeyError)


async def test_a_middleware_that_is_cancelled_is_one_failure(publisher: Publisher) -> None:
    async def cancelled(event: Event[Any], call_next: Any) -> Published:
        if event.id == "0":
            await asyncio.sleep(0)
        if event.id in ("0", "1"):
            raise asyncio.CancelledError
        published: Published = await call_next(event)
        return published

    publisher.middlewares.append(cancelled)

    with pytest.raises(PublishManyError, match=r"2 of 3 .*its publish middleware was cancelled"):
        await publisher.publish_many([draft(id=str(n)) for n in range(3)])


async def test_many_that_are_cancelled_leave_nothing_running(publisher: Publisher) -> None:
    async def forever(event: Event[Any], call_next: Any) -> Published:
        await asyncio.Event().wait()
        raise AssertionError

    publisher.middlewares.append(forever)
    before = asyncio.all_tasks()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await publisher.publish_many([draft() for _ in range(5)])

    assert asyncio.all_tasks() == before


async def test_a_generator_is_read_no_further_than_there_is_room(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.publisher.pipeline.IN_FLIGHT", 10)
    read, most = 0, 0
    ended = 0

    def drafts() -> Iterator[Draft]:
        nonlocal read, most
        for n in range(200):
            read += 1
            most = max(most, read - ended)
            yield draft(id=str(n))

    async def waits(event: Event[Any], call_next: Any) -> Published:
        nonlocal ended
        await asyncio.sleep(0)
        published: Published = await call_next(event)
        ended += 1
        return published

    publisher.middlewares.append(waits)

    assert len(await publisher.publish_many(drafts())) == 200
    assert most <= 11


async def test_a_new_field_of_a_draft_survives_a_middleware(
    publisher: Publisher, transport: Recorder
) -> None:
    seen: list[Draft] = []

    async def passes(event: Event[Any], call_next: Any) -> Published:
        event.payload = {"b": 2}
        published: Published = await call_next(event)
        return published

    publisher.middlewares.append(passes)
    publisher.stamps.append(lambda draft, headers: seen.append(draft))
    given = draft(payload={"a": 1}, person_id="p", traceparent=TRACE, extra={"version": 2})

    await publisher.publish(given)

    [sent] = seen
    [body] = transport.bodies
    unchanged = {field.name for field in fields(Draft)} - {
        "payload", "id", "metadata", "correlation_id", "trace_id", "content",
    }  # fmt: skip
    assert {name: getattr(sent, name) for name in unchanged} == {
        name: getattr(given, name) for name in unchanged
    }
    assert (sent.payload, body["payload"]) == ({"b": 2}, {"b": 2})


# --- inside a handler ----------------------------------------------------------------------


class Source:
    """Where a delivery says it came from."""

    stream = "CUSTOM"


def context(publisher: Publisher, handler: str = "r1", **changed: Any) -> Context:
    """A run of a handler."""
    usual = {"id": "in", "type": "custom.in", "payload": {}, "timestamp": 1}
    metadata = changed.pop("metadata", Metadata(correlation_id="c", trace_id="t"))
    event = Event[Any](**(usual | changed), metadata=metadata)
    block = f"NATS/1.0\r\ntraceparent: {TRACE}\r\n\r\n".encode()
    delivery = Delivery(Source(), "custom.in.x.y", b"", block, b"", 1, 1, 1)  # type: ignore[arg-type]
    around = RunSetup(handler=handler, publisher=publisher, loop=asyncio.get_running_loop())
    return Context(event, delivery, 1, 0.0, around)


async def test_correlation_and_trace_are_inherited_channel_and_instance_never(
    publisher: Publisher, transport: Recorder
) -> None:
    await context(publisher).publish("custom.out", {})

    [body], [message] = transport.bodies, transport.messages
    assert body["metadata"] == {
        "correlationId": "c", "traceId": "t", "source": "router", "causationId": "in",
    }  # fmt: skip
    assert message.subject == "custom.out"
    assert message.headers == {"traceparent": TRACE}


async def test_without_a_correlation_the_incoming_events_id_begins_one(
    publisher: Publisher, transport: Recorder
) -> None:
    await context(publisher, metadata=Metadata()).publish("custom.out", {})

    assert transport.bodies[0]["metadata"]["correlationId"] == "in"
    assert transport.bodies[0]["metadata"]["traceId"] == "in"


def as_read(metadata: dict[str, Any]) -> Event[Any]:
    """An event as a handler gets it, from JSON."""
    envelope = {"id": "in", "type": "custom.in", "payload": {}, "timestamp": 1}
    return Event[Any].model_validate_json(json.dumps(envelope | {"metadata": metadata}))


@pytest.mark.parametrize("version", [1, 2.0, "1", 2**70])
@pytest.mark.parametrize("is_built", [False, True])
async def test_a_tenant_is_passed_on_as_it_was_written_with_the_envelopes_version(
    publisher: Publisher, transport: Recorder, version: Any, is_built: bool
) -> None:
    tenant = {"tenantId": "acme", "envelopeVersion": version}
    run = context(publisher)
    run.event = as_read(tenant)
    if is_built:
        assert (run.event.metadata.tenant_id, run.event.metadata.envelope_version) == (
            "acme", version,
        )  # fmt: skip

    await run.publish("custom.out", {})
    await run.publish_many([Draft(type="custom.out", metadata={"mood": "calm"})])

    for body in transport.bodies:
        passed_on = {key: body["metadata"][key] for key in tenant}
        assert passed_on == tenant
        assert type(passed_on["envelopeVersion"]) is type(version)
        assert body["metadata"]["causationId"] == "in"
    assert transport.bodies[1]["metadata"]["mood"] == "calm"


@pytest.mark.parametrize("half", [{"tenantId": "acme"}, {"envelopeVersion": 1}, {"tenantId": None}])
async def test_half_of_a_tenant_is_not_passed_on(
    publisher: Publisher, transport: Recorder, half: dict[str, Any]
) -> None:
    run = context(publisher)
    run.event = as_read(half)

    await run.publish("custom.out", {})

    assert transport.bodies[0]["metadata"].keys().isdisjoint({"tenantId", "envelopeVersion"})


async def test_a_cause_and_a_tenant_that_are_given_win(
    publisher: Publisher, transport: Recorder
) -> None:
    run = context(publisher)
    run.event = as_read({"tenantId": "acme", "envelopeVersion": 1})
    given = {"causationId": "earlier", "tenantId": "other"}

    await run.publish("custom.out", {}, metadata=given)

    assert transport.bodies[0]["metadata"].items() >= {**given, "envelopeVersion": 1}.items()
    assert given == {"causationId": "earlier", "tenantId": "other"}


@pytest.mark.parametrize("odd", [5, ["x"], {"a": 1}, None])
async def test_odd_values_of_newer_metadata_make_no_event_unreadable(odd: Any) -> None:
    event = as_read({"causationId": odd, "ingestMode": odd, "tenantId": odd, "traceId": "t"})

    assert event.metadata.causation_id == odd
    assert event.metadata.ingest_mode == odd
    assert event.model_dump(mode="json", by_alias=True)["metadata"]["tenantId"] == odd


async def ids(run: Context) -> list[str]:
    """What one run of a handler publishes: two that are the same, and two that are not."""
    return [
        (await run.publish("custom.out", {"a": 1})).id,
        (await run.publish("custom.out", {"a": 1})).id,
        (await run.publish("custom.out", {"a": 2})).id,
        (await run.publish("custom.out", {"a": 1}, channel="x", instance="y")).id,
    ]


async def test_a_second_run_publishes_the_same_events_and_no_two_of_them_are_one(
    publisher: Publisher,
) -> None:
    first = await ids(context(publisher))

    assert first == await ids(context(publisher))
    assert len(set(first)) == 4
    assert {uuid.UUID(one).version for one in first} == {5}


@pytest.mark.parametrize("other", [{"handler": "r2"}, {"id": "in2"}])
async def test_another_handler_or_event_publishes_other_events(
    publisher: Publisher, other: dict[str, str]
) -> None:
    mine, theirs = await ids(context(publisher)), await ids(context(publisher, **other))

    assert set(mine).isdisjoint(theirs)


async def test_the_order_of_different_events_does_not_change_their_ids(
    publisher: Publisher,
) -> None:
    one, other = context(publisher), context(publisher)

    forth = [(await one.publish("custom.out", {"a": n})).id for n in (1, 2)]
    back = [(await other.publish("custom.out", {"a": n})).id for n in (2, 1)]

    assert forth == back[::-1]


async def test_a_given_id_wins_and_an_empty_one_is_refused(publisher: Publisher) -> None:
    assert (await context(publisher).publish("custom.out", {}, id="mine")).id == "mine"
    with pytest.raises(InvalidEvent, match="event id"):
        await context(publisher).publish("custom.out", {}, id="")


async def test_what_is_no_json_is_refused_properly_inside_a_handler_too(
    publisher: Publisher,
) -> None:
    class Odd(BaseModel):
        thing: Any

    for payload in (object(), {"x": float("nan")}, Odd(thing=object())):
        with pytest.raises(InvalidPayload):
            await context(publisher).publish("custom.out", payload)


async def test_waiting_is_for_threads(publisher: Publisher) -> None:
    run = context(publisher)

    with pytest.raises(ConfigError, match="use await here"):
        run.wait(run.publish("custom.out", {}))

    published = await asyncio.to_thread(lambda: run.wait(run.publish("custom.out", {})))
    assert published.stream == "STREAM"


def test_an_argument_publish_does_not_take_is_named_beside_those_it_takes() -> None:
    with pytest.raises(
        TypeError, match=r"publish\(\) takes no chanel=; it takes channel=, instance="
    ):
        draft_of("custom.x", None, {"chanel": "whatsapp"})  # type: ignore[typeddict-unknown-key]
