"""`plan --recreate`: one consumer takes over from the two that an earlier declaration needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni_worker import Event, EventBus, Settings
from omni_worker.errors import TopologyError
from omni_worker.handler_consumers import planned_consumers
from omni_worker.handlers import declare
from omni_worker.nats_server import NatsServer
from omni_worker.operations import recreate
from omni_worker.schemas import SchemaRegistry
from omni_worker.topology import SEVEN
from tests.waiting import until

from .support import Said, operate

COUNT, FAILING = 20, (7, 8)  # events of the version before; one without a channel, one with


def by_key(event: Event[Any]) -> str:
    return "k"


# The declaration that follows `custom.*`, as a file and as a subscription.
AFTER: list[tuple[str, str, dict[str, Any]]] = [
    ('"custom.>"', "custom.>", {}),
    ('"custom.*", order_by=lambda event: "k"', "custom.*", {"order_by": by_key}),
]
edits = pytest.mark.parametrize(("declared", "types", "options"), AFTER, ids=["wider", "in order"])


@pytest.fixture
def plan(nats_server: NatsServer, tmp_path: Path, declared: str) -> Callable[..., Said]:
    """Run `plan` for the declaration that follows."""
    (tmp_path / "shop.py").write_text(
        "from omni_worker import App\n\napp = App('router')\n\n\n"
        f"@app.on({declared}, durable='r1')\nasync def route(event): ...\n"
    )
    url = nats_server.url
    return lambda *arguments: operate(url, "plan", "shop:app", *arguments, folder=tmp_path)


async def publish(bus: EventBus, first: int, last: int) -> None:
    """Publish events, every second one without a channel: their numbers are their sequences."""
    for number in range(first, last + 1):
        there = {} if number % 2 else {"channel": "c", "instance": "i"}
        await bus.publish("custom.a", number, **there)


async def handled_before(bus: EventBus, failing: tuple[int, ...] = FAILING) -> None:
    """Handle events as the version before, with two consumers; some wait for a retry at its end."""

    async def handle(event: Event[int]) -> None:
        if event.payload in failing:
            raise ValueError("not yet")

    before = await bus.subscribe("custom.*", handle, durable="r1", retry_delay=50.0)
    await publish(bus, 1, COUNT)
    await until(lambda: before.counts.handled == COUNT - len(failing))
    await before.unsubscribe()


async def consumers(bus: EventBus) -> dict[str, tuple[str, ...]]:
    """Filters of every consumer of CUSTOM, by name."""
    found = await bus.transport.operators.consumers("CUSTOM")
    return {one.name: one.config.filters for one in found}


@edits
async def test_the_two_are_left_alone_until_they_are_recreated(
    nats_server: NatsServer, plan: Callable[..., Said], types: str, options: dict[str, Any]
) -> None:
    async with EventBus(nats_server.url, name="router") as bus:
        await handled_before(bus)
        there = await consumers(bus)

        with pytest.raises(TopologyError, match="plan MODULE:APP --recreate r1") as refused:
            await bus.subscribe(types, lambda event: None, durable="r1", **options)
        shown, applied = plan("--json"), plan("--apply")

        assert await consumers(bus) == there == {
            "r1": ("custom.*.>",), "r1-bare": ("custom.*",),
        }  # fmt: skip
    cause = "order_by=" if options else "'custom.>'"
    assert f"{cause} needs one consumer, but " in str(refused.value)
    assert "two on CUSTOM: r1, and r1-bare for events without a channel" in str(refused.value)
    found = {one["name"]: one for one in json.loads(shown.out) if one["kind"] == "consumer"}
    assert "r1-bare" not in found  # part of it, and not orphaned
    assert (found["r1"]["action"], found["r1"]["drift"]) == ("conflict", True)
    assert f"{cause} needs one consumer" in found["r1"]["says"]
    assert "omni-worker plan shop:app --recreate r1" in found["r1"]["says"]
    assert applied.code == 1
    assert "omni-worker plan shop:app --recreate r1" in " ".join(applied.out.split())


@edits
async def test_one_takes_over_where_the_first_unsettled_event_of_the_two_is(
    nats_server: NatsServer, plan: Callable[..., Said], types: str, options: dict[str, Any]
) -> None:
    seen: list[int] = []
    async with EventBus(nats_server.url, name="router") as bus:
        await handled_before(bus)
        await publish(bus, COUNT + 1, COUNT + 10)

        done = plan("--recreate", "r1", "--yes", "--json")
        left = await consumers(bus)
        await bus.subscribe(
            types, lambda event: seen.append(event.payload), durable="r1", **options
        )
        await until(lambda: len(seen) >= COUNT + 10 - 6)

    assert json.loads(done.out) == {
        "stream": "CUSTOM", "consumer": "r1", "start": 7, "waiting": 10, "unacked": 2,
        "repeated": COUNT - 6 - 2, "takesOver": "r1-bare",
    }  # fmt: skip
    assert list(left) == ["r1"]
    assert seen == list(range(7, COUNT + 11))


@edits
async def test_where_all_is_settled_nothing_comes_again(
    nats_server: NatsServer, plan: Callable[..., Said], types: str, options: dict[str, Any]
) -> None:
    seen: list[int] = []
    async with EventBus(nats_server.url, name="router") as bus:
        await handled_before(bus, failing=())
        # The one consumer has been silent while the other went on.
        await bus.publish("custom.a", 0)
        once = await bus.subscribe("custom.*", lambda event: None, durable="r1")
        await until(lambda: once.counts.handled == 1)
        await once.unsubscribe()

        shown = plan("--recreate", "r1", "--yes")
        await publish(bus, 100, 105)
        await bus.subscribe(
            types, lambda event: seen.append(event.payload), durable="r1", **options
        )
        await until(lambda: len(seen) >= 6)

    assert "start at #22, and take over from r1-bare, which is deleted" in " ".join(
        shown.out.split()
    )
    assert "0 events acknowledged above that place" in shown.out
    assert seen == list(range(100, 106))


@edits
async def test_while_a_worker_reads_one_of_the_two_none_is_deleted(
    nats_server: NatsServer, plan: Callable[..., Said], types: str, options: dict[str, Any]
) -> None:
    async with EventBus(nats_server.url, name="router") as bus:
        await bus.subscribe("custom.*", lambda event: None, durable="r1")
        await until(lambda: all(one.outstanding for one in bus.subscriptions[0].sources))

        done = plan("--recreate", "r1", "--yes")

        assert set(await consumers(bus)) == {"r1", "r1-bare"}
    assert done.code == 1
    assert "is read right now" in done.line


@pytest.mark.parametrize("declared", ['"custom.a", channel="c"'])
async def test_a_bare_consumer_that_none_takes_over_is_orphaned(
    nats_server: NatsServer, plan: Callable[..., Said]
) -> None:
    async with EventBus(nats_server.url, name="router") as bus:
        await handled_before(bus, failing=())

        shown = plan("--json")

    found = {one["name"]: one["action"] for one in json.loads(shown.out)}
    assert found["r1-bare"] == "left"


@pytest.mark.parametrize("declared", [AFTER[1][0]])
async def test_run_advises_the_command_with_its_own_target(
    nats_server: NatsServer, plan: Callable[..., Said], tmp_path: Path
) -> None:
    async with EventBus(nats_server.url, name="router") as bus:
        await handled_before(bus, failing=())

    refused = operate(nats_server.url, "run", "shop:app", "--log-format", "pretty", folder=tmp_path)

    assert refused.code == 1
    assert "omni-worker plan shop:app --recreate r1 (it loses nothing" in refused.line


@edits
async def test_the_owner_of_a_durable_is_checked_before_the_shape_of_its_consumers(
    nats_server: NatsServer, plan: Callable[..., Said], types: str, options: dict[str, Any]
) -> None:
    url = nats_server.url
    async with EventBus(url, name="sender") as other, EventBus(url, name="router") as bus:
        await other.subscribe("custom.*", lambda event: None, durable="r1")

        with pytest.raises(TopologyError, match="belongs to the app 'sender'") as refused:
            await bus.subscribe(types, lambda event: None, durable="r1", **options)
        shown = plan("--json")

    [step] = [one for one in json.loads(shown.out) if one["name"] == "r1"]
    assert "choose another durable name" in str(refused.value)
    assert (step["action"], step["says"]) == ("conflict", str(refused.value))


@pytest.mark.parametrize("declared", [AFTER[1][0]])
async def test_a_bare_consumer_of_another_app_is_not_deleted(
    nats_server: NatsServer, plan: Callable[..., Said]
) -> None:
    url = nats_server.url
    async with EventBus(url, name="sender") as other, EventBus(url, name="router") as bus:
        once = await bus.subscribe("custom.*", lambda event: None, durable="r1")
        await once.unsubscribe()
        await bus.transport.operators.delete_consumer("CUSTOM", "r1-bare")
        theirs = await other.subscribe("custom.*", lambda event: None, durable="r1-bare")
        await theirs.unsubscribe()
        there = await consumers(bus)

        done = plan("--recreate", "r1", "--yes")

        assert await consumers(bus) == there
    assert done.code == 1
    assert "'r1-bare' on stream CUSTOM belongs to the app 'sender'" in done.line


class Interrupted(BaseException):
    """A process that is killed: nothing of ours goes on after it."""


@edits
async def test_killed_in_between_the_next_worker_begins_at_that_place(
    nats_server: NatsServer, declared: str, types: str, options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[int] = []

    async def handle(event: Event[int]) -> None:
        seen.append(event.payload)

    async def killed(*arguments: Any) -> None:
        raise Interrupted

    options = {**options, "durable": "r1"}
    handler = declare(handle, app="router", types=[types], options=options)
    [spec] = planned_consumers(handler, SchemaRegistry(), Settings(), SEVEN).specs
    async with EventBus(nats_server.url, name="router") as bus:
        await handled_before(bus)
        remaking = await recreate.look_at_remaking(bus.transport, spec)
        monkeypatch.setattr(recreate, "write_consumer", killed)

        with pytest.raises(Interrupted):
            await recreate.remake(bus.transport, remaking)
        await bus.subscribe(types, handle, **options)
        await until(lambda: len(seen) >= COUNT - 6)

    assert seen == list(range(7, COUNT + 1))
