"""Limits of a server and of an account: what is created stays within them, or they are named."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from omni_worker import ApiError, Event, EventBus, Settings
from omni_worker.errors import TopologyError
from omni_worker.nats_server import NatsServer
from omni_worker.transports.base import Message
from omni_worker.transports.jetstream.limits import within_limits

from ..waiting import until

ACCOUNT = """
accounts {{ A {{
    users: [{{user: a, password: a}}], jetstream {{ max_file: 100MB, max_mem: 1MB, {} }}
}} }}
no_auth_user: a
"""


@contextmanager
def limited(tmp_path: Path, account: str = "", server: str = "") -> Iterator[str]:
    """A server with these limits; its URL."""
    config = tmp_path / "limited.conf"
    limits = f"limits {{ {server} }}" if server else ""
    config.write_text(
        f"jetstream {{\n{limits}\n}}\n" + (ACCOUNT.format(account) if account else "")
    )
    with NatsServer(arguments=["-c", str(config)]) as running:
        yield running.url


async def one_event(url: str, type: str = "custom.x", **settings: Any) -> list[str]:
    """Publish an event and have it handled; returns the names of all streams then."""
    seen: list[str] = []
    async with EventBus(url, settings=Settings(**settings)) as bus:

        async def handle(event: Any) -> None:
            seen.append(event.id)

        await bus.subscribe(type, handle, durable="x", exactly_once=True)
        published = await bus.publish(type, {})
        await until(lambda: seen == [published.id], timeout=10)
        return [info.name for info in await bus.transport.operators.streams()]


@pytest.mark.parametrize(
    "server",
    ["max_ack_pending: 1000", 'duplicate_window: "1m"', 'duplicate_window: "1m30s"'],
)
async def test_what_a_server_allows_less_of_is_taken_as_it_allows(
    tmp_path: Path, server: str
) -> None:
    with limited(tmp_path, server=server) as url:
        assert "SYSTEM" in await one_event(url)


async def test_a_size_is_given_where_the_account_requires_one(tmp_path: Path) -> None:
    with limited(tmp_path, account="max_bytes_required: true") as url:
        names = await one_event(url, max_bytes=1_000_000)

        assert {"MESSAGE", "SYSTEM", "CUSTOM"} <= set(names)


async def test_a_size_that_is_missing_names_the_setting(tmp_path: Path) -> None:
    with (
        limited(tmp_path, account="max_bytes_required: true") as url,
        pytest.raises(TopologyError, match=r"MESSAGE.*OMNI_WORKER_MAX_BYTES"),
    ):
        await one_event(url)


async def test_a_size_for_which_there_is_no_room_names_the_setting(tmp_path: Path) -> None:
    with (
        limited(tmp_path, account="max_bytes_required: true") as url,
        pytest.raises(TopologyError, match=r"no room for it: .*OMNI_WORKER_MAX_BYTES"),
    ):
        await one_event(url, max_bytes=60_000_000)


async def test_with_room_for_few_streams_only_those_that_are_read_are_created(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with limited(tmp_path, account="max_streams: 4") as url, caplog.at_level(logging.WARNING):
        names = await one_event(url)

    assert {"CUSTOM", "SYSTEM"} <= set(names)
    assert "MESSAGE" not in names
    [said] = [one.getMessage() for one in caplog.records if "max_streams" in one.getMessage()]
    assert said == (
        "the account has room for 4 more streams (its max_streams), and 7 of ours are missing:"
        " MESSAGE, INSTANCE, IDENTITY, MEDIA, ACCESS, CUSTOM are created only when a handler"
        " reads them"
    )


async def test_with_room_for_none_the_limit_is_named(tmp_path: Path) -> None:
    with (
        limited(tmp_path, account="max_streams: 1") as url,
        pytest.raises(TopologyError, match=r"CUSTOM cannot be created: .*max_streams"),
    ):
        await one_event(url)


def test_another_refusal_changes_nothing() -> None:
    full = ApiError("insufficient storage resources available", code=500, err_code=10047)

    assert within_limits({"name": "S"}, full, 1_000) is None


async def test_what_a_stream_allows_its_consumers_is_taken_as_it_allows(
    nats_server: NatsServer,
) -> None:
    seen: list[str] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.id)

    async with EventBus(nats_server.url) as bus:
        operators = bus.transport.operators
        limits = {"consumer_limits": {"max_ack_pending": 500}}
        await operators.create_stream({"name": "REACTION", "subjects": ["reaction.>"], **limits})

        for _ in range(2):  # made, and found by the next start
            read = await bus.subscribe("reaction.received", handle, durable="x")
            await read.unsubscribe()
        await bus.subscribe("reaction.received", handle, durable="x")
        await bus.transport.publish(
            Message("reaction.received", b'{"id":"e","type":"reaction.received","payload":{}}', ""),
            timeout=5,
        )
        await until(lambda: seen == ["e"])

        info = await operators.consumer_info("REACTION", "x-bare")
        assert info is not None
        assert info.config.max_ack_pending == 500


async def test_a_stream_with_room_for_fewer_consumers_is_named_with_a_way_out(
    nats_server: NatsServer,
) -> None:
    async def handle(event: Any) -> None: ...

    async with EventBus(nats_server.url) as bus:
        few = {"name": "REACTION", "subjects": ["reaction.>"], "max_consumers": 1}
        await bus.transport.operators.create_stream(few)

        with pytest.raises(TopologyError, match=r"'x' on stream REACTION.*max_consumers.*channel="):
            await bus.subscribe("reaction.received", handle, durable="x")
