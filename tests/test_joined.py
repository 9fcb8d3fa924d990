"""One consumer in place of `r1` and `r1-bare`: why it is read, said once; refused if it loses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from omni_worker import Event, EventBus, Settings, bus
from omni_worker.errors import PermissionDenied, TopologyError, Unanswered
from omni_worker.nats_server import NatsServer
from omni_worker.topology.split import LOSING
from omni_worker.transports.infos import ConsumerInfo
from omni_worker.transports.memory import MemoryServer, MemoryTransport
from omni_worker.transports.memory.operators import MemoryOperators

from .faults.servers import configured
from .transports.servers import OLDEST, oldest
from .waiting import until

BARE = "CUSTOM.d-bare"
RIGHTS = {  # to the second consumer, one of them taken away
    "read": [f"$JS.API.CONSUMER.INFO.{BARE}"],
    "create": [f"$JS.API.CONSUMER.CREATE.{BARE}", f"$JS.API.CONSUMER.CREATE.{BARE}.>"],
}


async def handle(event: Event[Any]) -> None: ...


def without(right: str, folder: Path, binary: str | None = None) -> NatsServer:
    """A server where `worker` lacks one right to `d-bare`, and `operations` has all."""
    worker = {"user": "worker", "password": "w"}
    users = [
        {"user": "operations", "password": "o"},
        {**worker, "permissions": {"publish": {"deny": RIGHTS[right]}}},
    ]
    return configured(folder, json.dumps({"authorization": {"users": users}}), binary=binary)


def url_of(server: NatsServer, login: str) -> str:
    return server.url.replace("nats://", f"nats://{login}@")


@pytest.mark.parametrize("right", RIGHTS)
async def test_without_a_right_to_the_bare_consumer_one_reads_all_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, right: str
) -> None:
    seen: Counter[int] = Counter()

    async def count(event: Event[int]) -> None:
        seen[event.payload] += 1

    with without(right, tmp_path) as server:
        async with EventBus(url_of(server, "worker:w"), name="shop") as worker:
            reads = await worker.subscribe("custom.a", count, durable="d")
            for number in range(100):
                there = {"channel": "c", "instance": "i"} if number % 2 else {}
                await worker.publish("custom.a", number, **there)
            await until(lambda: len(seen) == 100)
            await worker._subscriptions.refresh(busy_only=False)

    assert set(seen.values()) == {1}
    assert [source.consumer for source in reads.sources] == ["d"]
    [said] = [one.message for one in caplog.records if "bare subjects" in one.message]
    assert said.startswith("consumer d reads the bare subjects as well, which is slow")
    assert RIGHTS[right][0] in said


async def test_without_a_right_what_was_left_to_the_bare_consumer_is_not_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with without("read", tmp_path) as server:
        async with EventBus(url_of(server, "operations:o"), name="shop") as operations:
            await operations.subscribe("custom.a", handle, durable="d")
        async with EventBus(url_of(server, "worker:w"), name="shop") as worker:
            with pytest.raises(TopologyError, match=r"'d' leaves custom\.a to it"):
                await worker.subscribe("custom.a", handle, durable="d")

    assert not [one for one in caplog.records if "bare subjects" in one.message]


async def test_that_they_are_joined_is_said_once_although_the_server_did_not_answer_at_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    look, unanswered = MemoryOperators.consumer_info, ["d-bare"]

    async def denied(self: MemoryOperators, stream: str, name: str) -> ConsumerInfo | None:
        if stream == "MESSAGE" and name == "d-bare":
            raise PermissionDenied("no right")
        if stream == "CUSTOM" and name in unanswered:
            unanswered.remove(name)
            raise Unanswered("no answer")
        return await look(self, stream, name)

    monkeypatch.setattr(MemoryOperators, "consumer_info", denied)
    transport, settings = MemoryTransport(MemoryServer()), Settings(reconnect_delay=0.01)
    async with EventBus(transport=transport, name="shop", settings=settings) as one:
        await one.subscribe(["custom.a", "message.sent"], handle, durable="d")

    assert unanswered == []
    [said] = [one.message for one in caplog.records if "bare subjects" in one.message]
    assert said.endswith("no right")


# --- servers that lose events of one consumer with `t` and `t.>` --------------------------------


@pytest.mark.parametrize("version", LOSING, ids=str)
async def test_the_two_are_not_joined_where_that_loses_events(
    version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = MemoryOperators.consumer_info

    async def denied(self: MemoryOperators, stream: str, name: str) -> ConsumerInfo | None:
        if name == "d-bare":
            raise PermissionDenied("no right")
        return await look(self, stream, name)

    monkeypatch.setattr(MemoryOperators, "consumer_info", denied)
    server = MemoryServer(version=version)
    async with EventBus(transport=MemoryTransport(server), name="shop") as one:
        with pytest.raises(TopologyError, match=_loses(version)) as refused:
            await one.subscribe("custom.a", handle, durable="d")

        assert await one.transport.operators.consumers("CUSTOM") == []
    assert "'d-bare' cannot be read: no right" in str(refused.value)
    assert "use nats-server 2.11.3 or newer" in str(refused.value)


async def test_the_oldest_server_without_the_right_to_the_bare_consumer(tmp_path: Path) -> None:
    with without("create", tmp_path, binary=str(OLDEST)) as server:
        async with EventBus(url_of(server, "worker:w"), name="shop") as worker:
            with pytest.raises(TopologyError, match=_loses((2, 10, 26))):
                await worker.subscribe("custom.a", handle, durable="d")


def _loses(version: tuple[int, int, int]) -> str:
    shown = r"\.".join(map(str, version))
    return rf"custom\.a and custom\.a\.>, and nats-server {shown} loses events then"


@pytest.fixture(params=[*LOSING, "oldest", "newest"], ids=str)
async def late(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EventBus]:
    """A bus that looks for new subjects only when asked; a stream of bare events exists."""
    monkeypatch.setattr(bus, "REFRESH", 3600.0)
    with ExitStack() as stack:
        if request.param in LOSING:
            memory = MemoryServer(version=request.param)
            first, one = (EventBus(transport=MemoryTransport(memory), name="shop") for _ in "ab")
        else:
            server = oldest() if request.param == "oldest" else NatsServer()
            url = stack.enter_context(server).url
            first, one = (EventBus(url, name="shop") for _ in "ab")
        async with first:
            config = {"name": "FIRST", "subjects": ["first.synced"]}
            await first.transport.operators.create_stream(config)
        async with one:
            yield one


async def test_subjects_that_come_late_join_no_consumer_that_loses_events_then(
    late: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    operators = late.transport.operators
    late.registry.extend("first.synced")
    await late.subscribe("*.synced", lambda event: seen.append(event.id), durable="w")
    wider = {"name": "FIRST", "subjects": ["first.synced", "first.synced.>"]}
    await operators.update_stream(wider)
    await late.publish("first.synced", 1, id="bare")
    await late.publish("first.synced", 2, id="addressed", channel="c", instance="i")

    for _ in range(2):
        await late._subscriptions.refresh(busy_only=False)

    loses = late.transport.server_version in LOSING
    await until(lambda: set(seen) >= ({"bare"} if loses else {"bare", "addressed"}))
    await late.publish("first.synced", 3, id="later")
    await until(lambda: "later" in seen)
    info = await operators.consumer_info("FIRST", "w")
    assert info is not None
    said = [one.message for one in caplog.records if "cannot be read" in one.message]
    if loses:
        assert seen == ["bare", "later"]
        assert info.config.filters == ("first.synced",)
        assert [one.name for one in await operators.consumers("FIRST")] == ["w"]
        [line] = said
        assert "new subjects of FIRST" in line
        assert "use 2.11.3 or newer" in line
    else:
        assert set(info.config.filters) == {"first.synced", "first.synced.>"}
        assert said == []
