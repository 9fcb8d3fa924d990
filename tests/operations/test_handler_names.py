"""A handler has one name for people: commands show and take its function and its durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from omni_worker import App, Event, EventBus, Reject
from omni_worker.handlers import both_names
from omni_worker.nats_server import NatsServer
from omni_worker.operations.handler_names import HandlerNames, handler_names
from omni_worker.settings import Settings
from tests.operations.support import operate
from tests.waiting import until

Ask = Callable[..., str]


@pytest.fixture
def ask(nats_server: NatsServer) -> Ask:
    def ask(*arguments: str) -> str:
        said = operate(nats_server.url, *arguments)
        return " ".join((said.out + said.err).split())

    return ask


@pytest.fixture
async def router(nats_server: NatsServer) -> AsyncIterator[App]:
    """An app whose handler `greet` with the durable r1 has rejected the event e-1."""
    app = App("router", settings=Settings(urls=nats_server.url))

    @app.on("custom.thing", durable="r1")
    async def greet(event: Event[Any]) -> None:
        raise Reject("no such chat")

    async with app.running() as bus:
        await bus.publish("custom.thing", {}, id="e-1")

        async def is_given_up() -> bool:
            return [one async for one in bus.dead_letters.list()] != []

        await until(is_given_up)
        yield app


async def test_without_the_app_every_command_shows_and_takes_function_and_durable(
    router: App, ask: Ask
) -> None:
    commands = (
        ("status",),
        ("trace", "e-1"),
        ("dead-letters", "list", "--handler", "greet"),
        ("dead-letters", "list", "--handler", "r1"),
        ("dead-letters", "show", "1"),
        ("pause", "greet"),
        ("resume", "greet"),
        ("scale", "greet", "3"),
    )

    said = [await asyncio.to_thread(ask, *words) for words in commands]

    assert [
        words for words, text in zip(commands, said, strict=True) if "greet (r1)" not in text
    ] == []
    assert "s ago, open: Reject: no such chat" in said[1]
    assert "settled 1 time" in said[1]
    assert await asyncio.to_thread(ask, "dead-letters", "list", "--handler", "meet") != said[2]


async def start(url: str, function: str, **settings: Any) -> None:
    """Run a version of the app whose handler r1 has this function."""
    app = App("router", settings=Settings(urls=url, **settings))

    async def handle(event: Event[Any]) -> None: ...

    handle.__name__ = handle.__qualname__ = function
    app.on("custom.thing", durable="r1")(handle)
    async with app.running():
        pass


async def names_on(url: str) -> HandlerNames:
    async with EventBus(url, name="looking") as bus:
        return await handler_names(bus.transport.operators)


async def test_a_function_with_a_new_name_is_known_once_it_has_started(
    nats_server: NatsServer,
) -> None:
    await start(nats_server.url, "greet")
    before = await names_on(nats_server.url)
    await start(nats_server.url, "welcome")
    after = await names_on(nats_server.url)
    await start(nats_server.url, "hail", provision="off")
    checked = await names_on(nats_server.url)

    assert before.functions["router", "r1"] == "greet"
    assert after.functions["router", "r1"] == "welcome"
    assert checked.functions["router", "r1"] == "welcome"  # nothing is written, nothing fails


def test_a_durable_is_not_taken_for_the_function_of_another_handler() -> None:
    names = HandlerNames({("a", "greet"): "run", ("a", "r2"): "greet", ("b", "r3"): "meet"})

    assert names.meant("greet") == {"greet"}
    assert names.meant("meet") == names.meant("meet (r3)") == {"r3"}
    assert names.meant("gone") == {"gone"}
    assert names.shown("b", "r3") == "meet (r3)"
    assert names.shown("b", "gone") == "gone"
    assert both_names("r3", "r3") == "r3"


async def test_a_function_of_two_handlers_is_not_enough_to_pause_one(
    nats_server: NatsServer, ask: Ask
) -> None:
    async def handle(event: Event[Any]) -> None: ...

    async with EventBus(nats_server.url, name="router") as bus:
        await bus.subscribe("custom.a", handle, durable="r1")
        await bus.subscribe("custom.b", handle, durable="r2")
        said = await asyncio.to_thread(ask, "pause", "handle")

    assert "handle is the function of r1 and of r2: name one" in said
