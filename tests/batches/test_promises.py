"""The promises, kept for batches: on memory and on a real server."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from omni_worker import App, Batch, EventBus, Settings
from omni_worker.metrics.families import outcomes
from omni_worker.nats_server import NatsServer
from omni_worker.signals import HandedBack, Listener, Signal
from tests.operations.support import operate
from tests.promises.conftest import World, body
from tests.waiting import until

Handle = Callable[[Batch], Any]


class Play:
    """Apps with one batch handler, run on the world's server until they are stopped."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        self.world = world
        self.seen: Counter[Any] = Counter()  # how often each payload was handled
        self.sizes: list[int] = []
        self.signals: list[Signal] = []
        self._stack = stack

    async def run(self, handle: Handle | None = None, **options: Any) -> tuple[EventBus, Any]:
        """Run one more process; returns its bus, and what stops it."""
        app = App("rows")
        app.listeners.append(Listener(self.signals.append, (Signal,)))
        app.on_batch(
            "custom.thing", durable="d", start_from="first", **{"size": 20, "wait": 0.1, **options}
        )(handle or self.note)
        settings = Settings(urls="nats://memory:4222")
        if isinstance(self.world.server, NatsServer):
            settings = Settings(urls=self.world.server.url)
        running = app.running(transport=self.world.transport(settings), settings=settings)
        stack = AsyncExitStack()
        bus = await stack.enter_async_context(running)
        self._stack.push_async_exit(stack)
        return bus, stack.aclose

    async def note(self, batch: Batch) -> None:
        self.took(batch)

    def took(self, batch: Batch) -> None:
        self.sizes.append(len(batch))
        self.seen.update(batch.payloads)

    async def publish(self, count: int, first: int = 0) -> None:
        await asyncio.gather(
            *(
                self.world.store("custom.thing", body(f"e-{n}", payload=n))
                for n in range(first, first + count)
            )
        )

    async def settled(self, count: int) -> None:
        await until(lambda: len(self.seen) == count, seen=lambda: len(self.seen))
        await until(lambda: self.world.is_quiet("CUSTOM", "d"))


@pytest.fixture
async def play(world: World) -> AsyncIterator[Play]:
    await world.bus("publisher")
    async with AsyncExitStack() as stack:
        yield Play(world, stack)


async def test_every_event_is_handled_once_and_counted_by_itself(play: Play) -> None:
    bus, _ = await play.run(size=50)

    await play.publish(420)
    await play.settled(420)

    [subscription] = bus.subscriptions
    assert set(play.seen.values()) == {1}
    assert max(play.sizes) == 50
    assert outcomes(subscription.counts)["handled"] == 420
    assert (subscription.held, subscription.running) == (0, 0)


async def test_what_waits_and_what_runs_keeps_its_lease(play: Play) -> None:
    async def slowly(batch: Batch) -> None:
        await asyncio.sleep(1.5)
        play.took(batch)

    await play.run(slowly, size=20, wait=1.5, ack_wait=0.5)

    await play.publish(5)
    await play.settled(5)

    info = await play.world.info("CUSTOM", "d")
    assert set(play.seen.values()) == {1}
    assert info.deliveries == 5  # none came again


async def test_never_more_is_held_than_batches_and_prefetch(play: Play) -> None:
    most, bus = 0, None

    async def slowly(batch: Batch) -> None:
        nonlocal most
        await asyncio.sleep(0.01)
        assert bus is not None
        most = max(most, bus.subscriptions[0].held)
        play.took(batch)

    bus, _ = await play.run(slowly, size=20, concurrency=2, prefetch=30)
    await play.publish(600)
    await play.settled(600)

    # One more for the second consumer, that of the bare subjects.
    assert 40 <= most <= 20 * 2 + 30 + 1
    assert max(play.sizes) == 20


async def test_a_stop_hands_back_what_has_not_begun_and_lets_a_running_batch_end(
    play: Play,
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait(batch: Batch) -> None:
        begun.set()
        await go.wait()
        play.took(batch)

    bus, stop = await play.run(wait, size=10, wait=30.0, concurrency=2)
    await play.publish(14)
    await begun.wait()
    await until(lambda: bus.subscriptions[0].held == 14)  # four of them gather
    stopping = asyncio.ensure_future(stop())
    await until(lambda: any(isinstance(one, HandedBack) for one in play.signals))
    go.set()
    await stopping
    ended = len(play.seen)
    back = [one for one in play.signals if isinstance(one, HandedBack)]
    attempts: list[int] = []

    async def note(batch: Batch) -> None:
        attempts.extend(batch.context(event).attempt for event in batch)
        play.took(batch)

    await play.run(note)
    await play.settled(14)

    assert ended == 10
    assert len(back) == 4  # each once: they came to nobody while this one stopped
    assert attempts == [1] * 4
    assert set(play.seen.values()) == {1}


async def test_several_processes_share_and_a_deploy_in_the_middle_doubles_nothing(
    play: Play,
) -> None:
    async def a_while(batch: Batch) -> None:
        await asyncio.sleep(0.02)
        play.took(batch)

    _, stop = await play.run(a_while)
    await play.run(a_while)
    await play.publish(400)
    await until(lambda: len(play.seen) >= 60)
    await stop()
    await play.run(a_while)
    await play.settled(400)

    assert set(play.seen.values()) == {1}


async def test_exactly_once_holds_for_each_event_of_a_batch(play: Play) -> None:
    failed = False

    async def fail_once(batch: Batch) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise ValueError("the guards are cleared")
        play.took(batch)

    await play.run(fail_once, exactly_once=True, retry_delay=0.1)
    await play.run(play.note, exactly_once=True)
    await play.publish(60)
    await play.settled(60)
    # The same events again, as a publisher does that gave up waiting two minutes ago.
    for _ in range(2):
        await play.world.store("custom.thing", body("e-1", payload=1))
    await until(lambda: play.world.is_quiet("CUSTOM", "d"))

    assert failed
    assert set(play.seen.values()) == {1}


async def test_a_poison_event_is_a_dead_letter_and_its_neighbours_are_handled(play: Play) -> None:
    async def store(batch: Batch) -> None:
        if 7 in batch.payloads:
            raise ValueError("seven")
        play.took(batch)

    bus, _ = await play.run(store, size=30, retry_delay=0.05)
    await play.publish(30)
    await play.world.store("custom.thing", b"{not json")
    await play.settled(29)

    letters = {one["payload"]["originalEventId"]: one for one in await play.world.letters()}
    [subscription] = bus.subscriptions
    assert set(play.seen.values()) == {1}
    assert letters["e-7"]["payload"]["retryCount"] == 3
    assert len(letters) == 2
    assert subscription.counts.unreadable == 1


async def test_a_paused_handler_begins_no_batch_until_it_is_resumed(play: Play) -> None:
    bus, _ = await play.run()
    await play.publish(10)
    await play.settled(10)

    await bus.pause("d", reason="night")
    await until(lambda: bus.subscriptions[0].pauses.is_paused)
    await play.publish(10, first=10)
    info = await play.world.info("CUSTOM", "d")
    while_paused = len(play.seen)
    await bus.resume("d")
    await play.settled(20)

    assert (while_paused, info.num_pending) == (10, 10)


async def test_a_scaled_handler_runs_so_many_batches(play: Play) -> None:
    most = now = 0
    go = asyncio.Event()

    async def wait(batch: Batch) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await go.wait()
        now -= 1
        play.took(batch)

    bus, _ = await play.run(wait, size=5)
    [subscription] = bus.subscriptions
    await play.publish(60)
    await until(lambda: now == 1)
    before = subscription.scaling.concurrency
    await bus.scale("d", 3)
    await until(lambda: now == 3)
    go.set()
    await play.settled(60)

    assert (before, most, subscription.scaling.concurrency) == (1, 3, 3)


APP = """
import json, os
from omni_worker import App, Batch

app = App("shop")
file = os.open("runs.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.on_batch("custom.order", durable="orders", start_from="first", size=10, wait=0.2)
async def orders(batch: Batch) -> None:
    os.write(file, json.dumps([event.payload["n"] for event in batch]).encode() + b"\\n")
    if any(event.payload.get("bad") for event in batch) and not os.path.exists("mended"):
        raise ValueError("bad")
"""


async def test_past_events_are_replayed_in_batches_and_each_failure_is_found(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(APP)
    async with EventBus(nats_server.url, name="tests") as bus:
        for number in range(25):
            await bus.publish("custom.order", {"n": number, "bad": number == 3})

    said = operate(
        nats_server.url, "replay", "shop:app", "--handler", "orders", "--since", "1h", "--yes",
        folder=tmp_path,
    )  # fmt: skip

    batches = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert "24 handled" in said.out, said
    assert "1 failed" in said.out, said
    assert max(map(len, batches)) == 10
    assert {number for one in batches for number in one} == {*range(25)}
