"""Clocks that are wrong by an hour, of a worker and of an operator: a retry stays one retry."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from omni_worker import Event, Reject, sent_back
from omni_worker.letters.read import LetterState
from omni_worker.operations import dead_letters
from omni_worker.transports.base import Message
from tests.promises.conftest import World, body, kind, real_server, world
from tests.waiting import until

__all__ = ["kind", "real_server", "world"]

HOUR = 3_600_000  # milliseconds


def fast(real: Any) -> SimpleNamespace:
    """The module ``time`` of a machine that is an hour fast."""
    return SimpleNamespace(
        time=lambda: real.time() + HOUR / 1000, time_ns=lambda: real.time_ns() + HOUR * 1_000_000
    )


async def reject(event: Event[Any]) -> None:
    raise Reject("no")


async def test_a_worker_with_a_fast_clock_waits_for_a_process_that_knows_the_handler(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await world.bus("a1")
    subscription = await bus.subscribe("custom.thing", reject, durable="d", start_from="first")
    await world.store("custom.thing", body("e-1"))
    await until(lambda: subscription.counts.dead_lettered == 1)
    await subscription.unsubscribe()
    await bus.subscribe("custom.else", reject, durable="other")
    monkeypatch.setattr(sent_back, "UNKNOWN_FOR", 5.0)
    monkeypatch.setattr(sent_back, "time", fast(time))
    handled: list[str] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.id)

    [letter] = [one async for one in bus.dead_letters.list()]
    await bus.dead_letters.retry(letter)
    await bus._returns.look()
    await until(lambda: bool(bus._returns._unknown))
    await bus.subscribe("custom.thing", handle, durable="d")
    await until(lambda: handled == ["e-1"])

    assert len(await world.letters()) == 1


@pytest.mark.parametrize("was_sent", [True, False])
async def test_an_interrupted_retry_is_found_whatever_the_operators_clock_says(
    world: World, monkeypatch: pytest.MonkeyPatch, was_sent: bool
) -> None:
    bus = await world.bus("a1")
    subscription = await bus.subscribe("custom.thing", reject, durable="d", start_from="first")
    await world.store("custom.thing", body("e-1"))
    await until(lambda: subscription.counts.dead_lettered == 1)
    [letter] = [one async for one in bus.dead_letters.list()]
    monkeypatch.setattr(dead_letters, "time", fast(time))
    real = bus.transport.publish

    async def interrupted(message: Message, *, timeout: float) -> Any:
        if message.subject.startswith("omni-worker.retry"):
            if was_sent:  # without its id: the duplicate window is over
                await real(message._replace(id="", headers={"Nats-Msg-Id": message.id}), timeout=5)
            raise ConnectionError("the operator is gone")
        return await real(message, timeout=timeout)

    monkeypatch.setattr(bus.transport, "publish", interrupted)
    with pytest.raises(ConnectionError):
        await bus.dead_letters.retry(letter)
    sent: list[str] = []

    async def noted(message: Message, *, timeout: float) -> Any:
        sent.append(message.subject)
        return await real(message, timeout=timeout)

    monkeypatch.setattr(bus.transport, "publish", noted)
    retried = await bus.dead_letters.retry(letter)

    assert retried.letter.state is LetterState.RETRIED
    assert ("omni-worker.retry.a1" in sent) is not was_sent


async def test_a_retry_whose_id_another_message_has_is_not_called_sent(world: World) -> None:
    bus = await world.bus("a1")
    subscription = await bus.subscribe("custom.thing", reject, durable="d", start_from="first")
    await world.store("custom.thing", body("e-1"))
    await until(lambda: subscription.counts.dead_lettered == 1)
    [letter] = [one async for one in bus.dead_letters.list()]
    await bus._provisioner.ensure_own_stream()
    await world.store("omni-worker.raw.evil", b"{}", f"{letter.id}:1")

    with pytest.raises(dead_letters.CannotRetry, match="is another message"):
        await bus.dead_letters.retry(letter)
    [kept] = [one async for one in bus.dead_letters.list()]

    assert kept.state is LetterState.RETRYING
