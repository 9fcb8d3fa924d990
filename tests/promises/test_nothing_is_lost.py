"""Promises 1, 5 and 7: nothing is lost, failure is retried, what cannot be read is not."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker import Context, Event, Reject, Retry, RetryPolicy
from omni_worker.errors import TransportError
from omni_worker.notes.attempts import BUCKET, TTL, note_key
from omni_worker.transports.key_value import KeyValue

from ..waiting import until
from .conftest import World, body


class Thing(BaseModel):
    x: int


async def test_an_event_is_handled_once_and_acknowledged(world: World) -> None:
    bus = await world.bus()
    seen: list[Event[Any]] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event)

    await bus.subscribe("custom.thing", handle, durable="d", start_from="first")
    await bus.publish("custom.thing", {"x": 1}, channel="whatsapp", instance="wa.eu.001")
    await bus.publish("custom.thing", {"x": 2})
    await until(lambda: len(seen) == 2)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert [(e.payload, e.channel, e.instance) for e in seen] == [
        ({"x": 1}, "whatsapp", "wa.eu.001"),
        ({"x": 2}, None, None),
    ]


async def test_a_failing_handler_runs_four_times_with_growing_gaps_then_one_letter(
    world: World,
) -> None:
    bus = await world.bus()
    runs: list[tuple[float, int]] = []

    async def fail(event: Event[Any], ctx: Context) -> None:
        runs.append((time.monotonic(), ctx.attempt))
        raise ValueError("boom")

    await bus.subscribe("custom.thing", fail, durable="d", retry_delay=0.1)
    published = await bus.publish("custom.thing", {"x": 1}, correlation_id="c-1")
    await until(lambda: bus.subscriptions[0].counts.dead_lettered == 1)
    await until(lambda: world.is_quiet("CUSTOM", "d"))
    letters = await world.letters()

    gaps = [b[0] - a[0] for a, b in itertools.pairwise(runs)]
    assert [attempt for _, attempt in runs] == [1, 2, 3, 4]
    assert gaps[0] >= 0.09
    assert gaps[1] >= 0.18
    assert gaps[2] >= 0.36
    assert len(letters) == 1
    assert letters[0]["payload"]["originalEventId"] == published.id
    assert letters[0]["payload"]["retryCount"] == 3
    assert letters[0]["metadata"]["correlationId"] == "c-1"


async def test_an_event_that_came_again_and_ended_well_leaves_no_note(world: World) -> None:
    bus = await world.bus()
    keys: list[str] = []
    ending = asyncio.Event()

    async def fail_once(event: Event[Any], ctx: Context) -> None:
        one = ctx._delivery
        keys.append(note_key("d", "CUSTOM", one.sequence, one.stored_at))
        if ctx.attempt == 1:
            raise ValueError("once")
        await ending.wait()

    await bus.subscribe("custom.thing", fail_once, durable="d", retry_delay=0.02)
    await bus.publish("custom.thing", {"x": 1})
    await until(lambda: len(keys) == 2)
    notes = await bus.transport.bucket(BUCKET, ttl=TTL)
    begun = await notes.get(keys[0])
    ending.set()

    assert begun is not None
    assert b'"started"' in begun.value
    # A server that is killed forgets the ack. Delivered again, it would be taken for a killer.
    await until(lambda: is_gone(notes, keys[0]))


async def is_gone(bucket: KeyValue, key: str) -> bool:
    return await bucket.get(key) is None


async def test_retry_after_replaces_the_delay_and_spends_an_attempt(world: World) -> None:
    bus = await world.bus()
    runs: list[float] = []

    async def handle(event: Event[Any]) -> None:
        runs.append(time.monotonic())
        if len(runs) == 1:
            raise Retry(after=0.3)

    await bus.subscribe("custom.thing", handle, durable="d", retry_delay=30)
    await bus.publish("custom.thing", {})
    await until(lambda: len(runs) == 2)

    assert 0.28 <= runs[1] - runs[0] < 5


@pytest.mark.parametrize("how", ["Reject", "reject_on", "no retries"])
async def test_what_is_rejected_becomes_a_letter_at_once(world: World, how: str) -> None:
    bus = await world.bus()
    runs = 0

    async def handle(event: Event[Any]) -> None:
        nonlocal runs
        runs += 1
        raise Reject("no such chat") if how == "Reject" else KeyError("no such chat")

    options: dict[str, Any] = {
        "Reject": {},
        "reject_on": {"reject_on": LookupError},
        "no retries": {"retry": RetryPolicy(retries=0)},
    }[how]
    subscription = await bus.subscribe("custom.thing", handle, durable="d", **options)
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.dead_lettered == 1)
    letters = await world.letters()

    assert runs == 1
    assert letters[0]["payload"]["retryCount"] == 0
    assert "no such chat" in letters[0]["payload"]["error"]


@pytest.mark.parametrize(
    "fault",
    [
        Exception("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        GeneratorExit(),
        RecursionError(),
        MemoryError(),
        StopAsyncIteration(),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_whatever_a_handler_raises_is_a_failure_like_any_other(
    world: World, fault: BaseException
) -> None:
    bus = await world.bus()
    seen: list[str] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.payload)
        if event.payload == "bad" and seen.count("bad") == 1:
            raise fault

    await bus.subscribe("custom.thing", handle, durable="d", concurrency=1, retry_delay=0.02)
    await bus.publish("custom.thing", "bad")
    await bus.publish("custom.thing", "good")
    await until(lambda: seen.count("bad") == 2 and "good" in seen)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert await world.letters() == []


@pytest.mark.parametrize(
    ("bytes_", "reason"),
    [
        (b"\xff\xfe{}", "not JSON"),
        (b"", "not JSON"),
        (b"[1, 2]", "object"),
        (b"null", "object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"type": "custom.thing", "payload": {"x": 1}}', "id"),
        (b'{"id": 5, "type": "custom.thing", "payload": {"x": 1}}', "id"),
        (b'{"id": "", "type": "custom.thing", "payload": {"x": 1}}', "id"),
        (b'{"id": "1", "type": "custom.thing"}', "payload"),
        (b'{"id": "1", "type": "custom.thing", "payload": {"x": NaN}}', "not JSON"),
        (b'{"id": "1", "type": "custom.thing", "payload": {"x": 1}, "metadata": []}', "metadata"),
        (
            b'{"id": "1", "type": "custom.thing", "payload": {"x": 1}, "metadata": {"traceId": 5}}',
            "metadata",
        ),
        (b'{"id": "1", "type": "custom.thing", "payload": {"x": "no number"}}', "payload.x"),
        (b'{"id": "1", "type": "other.thing", "payload": {"x": 1}}', "prefix"),
    ],
)
async def test_what_cannot_be_read_is_lettered_at_once_and_holds_nobody_up(
    world: World, bytes_: bytes, reason: str
) -> None:
    bus = await world.bus()
    seen: list[int] = []

    async def handle(event: Event[Thing]) -> None:
        seen.append(event.payload.x)

    subscription = await bus.subscribe("custom.thing", handle, durable="d", concurrency=1)
    await world.store("custom.thing", body("a", payload={"x": 1}))
    await world.store("custom.thing", bytes_)
    await world.store("custom.thing", body("b", payload={"x": 2}))
    await until(lambda: seen == [1, 2] and subscription.counts.dead_lettered == 1)
    await until(lambda: world.is_quiet("CUSTOM", "d"))
    payload = (await world.letters())[0]["payload"]

    assert reason in payload["error"]
    assert _original(payload) == bytes_
    assert payload["retryCount"] == 0
    assert subscription.counts.retried == 0


async def test_an_unreadable_body_as_large_as_a_message_is_found_by_reference(
    world: World,
) -> None:
    bus = await world.bus()
    large = b"\xff" * bus.transport.max_payload

    async def handle(event: Event[Any]) -> None: ...

    subscription = await bus.subscribe("custom.thing", handle, durable="d")
    await world.store("custom.thing", large)
    await until(lambda: subscription.counts.dead_lettered == 1)
    reference = (await world.letters())[0]["payload"]["bodyRef"]
    found = await bus.transport.operators.message(reference["stream"], reference["sequence"])

    assert found is not None
    assert found.body == large


async def test_a_letter_that_cannot_be_stored_leaves_the_event_waiting_and_unrun(
    world: World,
) -> None:
    bus = await world.bus()
    runs = 0

    async def fail(event: Event[Any]) -> None:
        nonlocal runs
        runs += 1
        raise Reject("never")

    subscription = await bus.subscribe("custom.thing", fail, durable="d")
    real, broken = bus.publisher.publish_letter, 2

    async def shaky(*arguments: Any) -> Any:
        nonlocal broken
        if broken:
            broken -= 1
            raise TransportError("the SYSTEM stream is full")
        return await real(*arguments)

    bus.publisher.publish_letter = shaky  # type: ignore[method-assign]
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.dead_lettered == 1, timeout=20)

    assert runs == 1
    assert len(await world.letters()) == 1


async def test_a_dead_letter_that_cannot_be_handled_makes_no_dead_letter(world: World) -> None:
    bus = await world.bus()
    runs = 0

    async def reject(event: Event[Any]) -> None:
        raise Reject("no")

    async def fail(event: Event[Any]) -> None:
        nonlocal runs
        runs += 1
        raise ValueError("the letter handler is broken")

    await bus.subscribe("custom.thing", reject, durable="d")
    await bus.subscribe("system.dead_letter", fail, durable="l", retry_delay=0.01)
    await bus.publish("custom.thing", {})
    await until(lambda: runs == 4)
    await until(lambda: world.is_quiet("SYSTEM", "l"))

    assert len(await world.letters()) == 1


async def test_another_type_on_a_matching_subject_is_skipped_and_counted(world: World) -> None:
    bus = await world.bus()
    seen: list[str] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.type)

    subscription = await bus.subscribe("custom.webhook.github", handle, durable="d")
    await bus.publish("custom.webhook.github.push", {"not": "ours"})
    await bus.publish("custom.webhook.github", {})
    await until(lambda: subscription.counts.skipped == 1 and len(seen) == 1)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert seen == ["custom.webhook.github"]
    assert await world.letters() == []


def _original(payload: dict[str, Any]) -> bytes:
    import base64

    if "body" in payload:
        return str(payload["body"]).encode()
    return base64.b64decode(payload["bodyBase64"])
