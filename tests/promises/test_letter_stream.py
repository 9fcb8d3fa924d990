"""Streams of operations that may lose dead letters: said at the start, and no letter is lost."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from omni_worker import Event, EventBus, Reject
from omni_worker.signals import DeadLetterDelayed, Listener
from omni_worker.topology import STREAMS, letter_risks, stream_config
from omni_worker.transports.infos import read_stream_config
from tests.waiting import until

from .conftest import World, body, kind, real_server, world

__all__ = ["kind", "real_server", "world"]


def system(**changes: Any) -> dict[str, Any]:
    """The configuration of a SYSTEM made by operations."""
    [spec] = [one for one in STREAMS if one.name == "SYSTEM"]
    return stream_config(spec, replicas=1) | changes


async def bus_over(world: World, **changes: Any) -> EventBus:
    transport = world.transport()
    await transport.open("operations")
    await transport.operators.create_stream(system(**changes))
    await transport.close()
    return await world.bus()


async def reject(event: Event[Any]) -> None:
    raise Reject("no")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"retention": "interest"}, "keeps no letter without a consumer"),
        ({"retention": "workqueue"}, "retention workqueue drops a letter"),
        ({"max_msgs_per_subject": 1}, "max_msgs_per_subject 1 keeps only the last letters"),
        (
            {"max_msgs_per_subject": 1, "discard": "new", "discard_new_per_subject": True},
            "max_msgs_per_subject 1 refuses more letters",
        ),
        ({"max_bytes": 50_000}, "max_bytes 50000: when full, it drops the oldest letters"),
        ({"max_msgs": 9, "discard": "new"}, "max_msgs 9: when full, it refuses letters"),
        ({"max_msg_size": 1_000}, "max_msg_size 1000: larger letters are kept without"),
        ({"max_age": 60 * 10**9}, "max_age 60 s drops a letter"),
        ({"no_ack": True}, "never confirmed"),
    ],
)
def test_what_a_stream_may_lose_of_dead_letters(changes: dict[str, Any], said: str) -> None:
    risks = letter_risks(read_stream_config(system(**changes)))

    assert [said in risk.says for risk in risks] == [True]


def test_a_stream_made_by_us_loses_none() -> None:
    assert letter_risks(read_stream_config(system())) == []


@pytest.mark.parametrize(
    ("changes", "said", "advice"),
    [
        ({"retention": "interest"}, "retention interest keeps no letter", "limits"),
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject 5 keeps", "raise max_msgs_per_subject"),
        ({"max_bytes": 50_000}, "max_bytes 50000: when full", "raise max_bytes"),
        ({"max_msg_size": 2_000}, "max_msg_size 2000: larger", "raise max_msg_size"),
    ],
    ids=["retention", "max_msgs_per_subject", "max_bytes", "max_msg_size"],
)
@pytest.mark.parametrize("kind", ["jetstream"])
async def test_it_is_said_at_the_start(
    world: World, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], said: str, advice: str
) -> None:
    with caplog.at_level(logging.WARNING):
        await bus_over(world, **changes)

    [line] = [one for one in caplog.messages if "SYSTEM" in one]
    assert line.startswith(f"stream SYSTEM may lose dead letters: {said}")
    assert advice in line


@pytest.mark.parametrize("most", [3_000, 1_400])
async def test_a_letter_too_large_for_its_stream_goes_by_reference(world: World, most: int) -> None:
    bus = await bus_over(world, max_msg_size=most)
    subscription = await bus.subscribe("custom.thing", reject, durable="d", start_from="first")
    large = body("e-1", payload="x" * 5_000)

    await world.store("custom.thing", large)
    await until(lambda: subscription.counts.dead_lettered == 1)
    [letter] = [one async for one in bus.dead_letters.list()]

    assert await bus.dead_letters.body(letter) == large
    assert (await bus.dead_letters.retry(letter)).subject == "omni-worker.retry.tests"


@pytest.mark.parametrize("kind", ["jetstream"])
async def test_no_letter_is_stored_where_it_would_not_be_kept(world: World) -> None:
    bus = await bus_over(world, retention="interest")
    delayed: list[DeadLetterDelayed] = []
    bus.signals = type(bus.signals)([Listener(delayed.append, (DeadLetterDelayed,))])
    subscription = await bus.subscribe("custom.thing", reject, durable="d", start_from="first")

    await world.store("custom.thing", body("e-1"))
    await until(lambda: len(delayed) == 1)
    waiting = subscription.counts.dead_lettered
    consumer = {"durable_name": "omni", "ack_policy": "explicit"}
    await bus.transport.operators.create_consumer("SYSTEM", {"name": "omni", **consumer})
    await until(lambda: subscription.counts.dead_lettered == 1)

    assert waiting == 0
    assert "has retention interest and no consumer" in str(delayed[0].cause)
    assert len(await world.letters()) == 1
