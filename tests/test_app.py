"""App: declarations are refused on the user's own line, and run with what stood around them."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker.app import App
from omni_worker.context import Context
from omni_worker.errors import ConfigError, NotConnected, StreamMissing
from omni_worker.events import Event, Published
from omni_worker.parts import middlewares_of
from omni_worker.publisher import Draft
from omni_worker.retry import RetryPolicy
from omni_worker.schemas import SchemaRegistry
from omni_worker.testing import TestWorker
from omni_worker.transports.memory import MemoryTransport


class Model(BaseModel):
    a: int


async def handle(event: Event[Any]) -> None:
    """A handler."""


def takes_nothing() -> None:
    """No handler."""


async def takes_context_first(ctx: Any, event: Any) -> None:
    """As a middleware does."""


async def takes_payload(payload: Model) -> None:
    """As handlers of other frameworks do."""


async def takes_dict(payload: dict[str, int]) -> None:
    """The same without a model."""


async def takes_either(payload: Model | SchemaRegistry | None) -> None:
    """The same with several."""


class Shop:
    """A handler in other frameworks: a class with a method that handles."""

    def __init__(self, event: Event[Any]) -> None: ...

    async def __call__(self) -> None: ...


async def around(ctx: Any, event: Any, call_next: Any) -> None:
    await call_next(ctx, event)


async def around_publish(event: Any, call_next: Any) -> Published:
    published: Published = await call_next(event)
    return published


# --- misuse --------------------------------------------------------------------------------

MISUSE: list[tuple[str, dict[str, Any], Callable[..., Any], str]] = [
    ("unknown option", {"durabel": "r1"}, handle, "unknown option durabel=; did you mean durable="),
    ("empty token", {"types": ["message..received"]}, handle, "empty token in subject"),
    ("no type", {"types": []}, handle, "no event type"),
    ("bad channel", {"channel": "a b"}, handle, "channel 'a b': a token cannot hold"),
    ("bad instance", {"instance": "a..b"}, handle, "instance 'a..b': empty token"),
    ("bad raw subject", {"types": [], "subject": "$JS.>"}, handle, "the server's own prefix"),
    ("durable with a dot", {"durable": "a.b"}, handle, "durable='a.b': a name takes"),
    ("no model", {"schema": dict}, handle, "expected a pydantic model class"),
    ("wrong signature", {}, takes_nothing, "a handler takes (event) or (event, ctx)"),
    ("two policies", {"retry": RetryPolicy(), "max_retries": 1}, handle, "retry= together with"),
    ("no time zone", {"start_from": datetime(2026, 1, 1)}, handle, "a datetime with a time zone"),
    ("a number as text", {"concurrency": "10"}, handle, "concurrency='10': expected a whole"),
    ("nothing rejected", {"reject_on": ValueError()}, handle, "expected an exception class"),
    ("once by a word", {"exactly_once": "yes", "durable": "d"}, handle, "expected True or False"),
    ("context first", {}, takes_context_first, "or (event, ctx); the event comes first"),
    ("the payload", {}, takes_payload, "not Model; write Event[Model], and take event.payload"),
    ("a dict", {}, takes_dict, "not dict[str, int]; write Event[dict[str, int]]"),
    ("a class", {}, Shop, "Shop is a class, and an event would only make an object of it"),
    ("payloads", {}, takes_either, "is given the event, not "),
]


@pytest.mark.parametrize(
    ("given", "call", "hint"),
    [misuse[1:] for misuse in MISUSE],
    ids=[misuse[0] for misuse in MISUSE],
)
def test_misuse_is_refused_with_option_file_and_line(
    given: dict[str, Any], call: Callable[..., Any], hint: str
) -> None:
    app = App("router")
    types = given.get("types", ["message.received"])
    options = {name: value for name, value in given.items() if name != "types"}

    with pytest.raises(ConfigError) as refused:
        app.on(*types, **options)(call)

    assert str(refused.value).startswith("@app.on(")
    assert hint in str(refused.value)
    assert re.search(r"\(.*test_app\.py:\d+\)$", str(refused.value))
    assert app.handlers == []


def test_the_line_named_is_the_users_own_decorator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from omni_worker import App\n"
        "app = App('echo')\n"
        "@app.on('message.received')\n"
        "async def fine(event): ...\n"
        "\n"
        "@app.on(\n"
        "    'message..received',\n"
        "    durable='r1',\n"
        ")\n"
        "async def broken(event): ...\n"
    )
    file = tmp_path / "examples" / "echo.py"
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError) as refused:
        exec(compile(source, str(file), "exec"), {})

    assert str(refused.value) == (
        "@app.on('message..received'): event type 'message..received': empty token in subject"
        " (examples/echo.py:6)"
    )


def test_a_decorator_without_parentheses_is_said_to_be_one() -> None:
    app = App("router")

    with pytest.raises(ConfigError, match=r'write @app\.on\("message\.received"\) \(.*test_app'):
        app.on(handle)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"types": ["message.received"]}, {"types": ["message.sent"]}),
        ({"types": ["message.received"]}, {"types": ["message.received"], "channel": "x"}),
        ({"types": ["message.*"]}, {"types": ["message.sent"]}),
        ({"types": ["message.received", "custom.x"]}, {"types": ["custom.y"]}),
        ({"types": ["message.received", "reaction.x"]}, {"types": ["reaction.y"]}),
        ({"types": ["reaction.received"]}, {"types": ["reaction.removed"]}),
        ({"types": [], "subject": ">"}, {"types": ["media.received"]}),
    ],
)
def test_one_durable_feeds_one_handler_of_a_stream(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    app = App("router")
    app.on(*first.pop("types"), durable="r1", **first)(handle)

    with pytest.raises(ConfigError, match=r"durable='r1' is taken in stream \w+ by .*handle \(.*:"):
        app.on(*second.pop("types"), durable="r1", **second)(handle)


def test_one_durable_may_stand_on_two_streams() -> None:
    app = App("router")

    app.on("message.received", durable="r1")(handle)
    app.on("media.received", durable="r1")(handle)

    assert [handler.name for handler in app.handlers] == ["r1", "r1"]


def test_one_queue_and_pattern_feed_one_handler() -> None:
    app = App("router")
    app.on("message.received", queue="q")(handle)
    app.on("message.sent", queue="q")(handle)

    async def other(event: Event[Any]) -> None: ...

    with pytest.raises(ConfigError, match=r"queue='q' with this pattern is taken by .*handle"):
        app.on("message.received", queue="q")(other)


def test_one_function_takes_several_decorators() -> None:
    app = App("router")

    @app.on("message.received")
    @app.on("message.sent", durable="r1")
    async def both(event: Event[Any]) -> None: ...

    assert [handler.types for handler in app.handlers] == [("message.sent",), ("message.received",)]
    assert {handler.call for handler in app.handlers} == {both}


def test_the_same_function_and_pattern_twice_is_refused_for_their_ids_would_be_one() -> None:
    app = App("router")
    app.on("message.received")(handle)

    with pytest.raises(ConfigError, match=r"declared already .*durable= or queue="):
        app.on("message.received", concurrency=2)(handle)


def test_a_model_beside_the_handler_is_found() -> None:
    class Local(BaseModel):
        a: int

    app = App("router")

    @app.on("custom.x")
    async def local(event: Event[Local]) -> None: ...

    assert app.handlers[0].model is Event[Local]


@pytest.mark.parametrize(
    "name", ["", "a.b", "a b", "a*", ">", "$a", "a/b", "a\\b", "a\nb", "x" * 200, 5, None]
)
def test_an_app_name_that_cannot_stand_in_a_consumers_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="app name"):
        App(name)


@pytest.mark.parametrize("register", ["middleware", "publish_middleware"])
@pytest.mark.parametrize("call", [takes_nothing, lambda *_: None, 5])
def test_a_middleware_nobody_can_await_is_refused(register: str, call: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected async def \("):
        getattr(App("router"), register)(call)


def test_a_middleware_of_the_other_kind_is_refused() -> None:
    app = App("router")

    with pytest.raises(ConfigError, match=r"around_publish: .*\(ctx, event, call_next\)"):
        app.middleware(around_publish)
    with pytest.raises(ConfigError, match=r"around: .*expected async def \(event, call_next\)"):
        app.publish_middleware(around)  # type: ignore[arg-type]


def test_a_lifespan_that_was_not_decorated_is_refused() -> None:
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield

    with pytest.raises(ConfigError, match="@asynccontextmanager"):
        App("router", lifespan=lifespan)  # type: ignore[arg-type]


# --- include -------------------------------------------------------------------------------


def test_an_included_handler_runs_under_the_including_apps_name_with_both_middlewares() -> None:
    inner, middle, outer = App("inner"), App("middle"), App("outer")
    mine = [around_named(name) for name in ("outer", "middle", "inner")]
    for app, middleware in zip((outer, middle, inner), mine, strict=True):
        app.middleware(middleware)
    inner.on("message.received")(handle)

    middle.include(inner)
    outer.include(middle)

    assert outer.handlers[0].app == "outer"
    assert outer.handlers[0].name.startswith("outer.")
    assert mine == middlewares_of(outer.declarations[0])


def around_named(name: str) -> Callable[..., Any]:
    async def named(ctx: Any, event: Any, call_next: Any) -> None: ...

    named.__qualname__ = name
    return named


def test_include_takes_over_schemas() -> None:
    inner, outer = App("inner"), App("outer")
    inner.registry.register("custom.x", Model)

    outer.include(inner)

    assert outer.registry.get("custom.x") == inner.registry.get("custom.x")


def _with_taken_durable() -> App:
    inner = App("inner")
    inner.on("message.received", durable="r1")(handle)
    return inner


def _with_other_schema() -> App:
    inner = App("inner")
    inner.registry.register("custom.x", Model)
    return inner


@pytest.mark.parametrize(
    ("inner", "hint"),
    [
        (_with_taken_durable, "durable='r1' is taken in stream MESSAGE"),
        (_with_other_schema, r"register\('custom.x'\): already registered"),
    ],
)
def test_what_cannot_be_included_is_refused_with_the_line(
    inner: Callable[[], App], hint: str
) -> None:
    outer = App("outer")
    outer.on("message.sent", durable="r1")(handle)
    outer.registry.register("custom.x")

    with pytest.raises(
        ConfigError, match=rf"outer\.include\('inner'\): {hint}.*test_app\.py:\d+\)$"
    ):
        outer.include(inner())


def test_a_prefix_begins_the_names_of_durables_and_queues() -> None:
    inner, middle, outer = App("inner"), App("middle"), App("outer")
    inner.on("message.received", durable="r1", queue="q1")(handle)
    inner.on("message.sent", queue="q2")(handle)
    inner.on("message.read")(handle)
    outer.on("message.received", durable="r1")(handle)

    middle.include(inner, prefix="b-")
    outer.include(middle, prefix="a-")

    options = [(one.options.durable, one.options.queue) for one in outer.handlers[1:]]
    assert options == [("a-b-r1", "a-b-q1"), (None, "a-b-q2"), (None, None)]
    assert outer.handlers[1].name == "a-b-r1"


def test_one_app_is_included_twice_under_two_prefixes() -> None:
    inner, outer = App("inner"), App("outer")
    inner.on("message.received", durable="r1")(handle)

    outer.include(inner, prefix="ana-")
    outer.include(inner, prefix="bob-")

    assert [one.name for one in outer.handlers] == ["ana-r1", "bob-r1"]


@pytest.mark.parametrize("prefix", ["a.", "a b", "*"])
def test_a_prefix_that_makes_no_name_of_a_consumer_is_refused(prefix: str) -> None:
    inner = App("inner")
    inner.on("message.received", durable="r1")(handle)

    with pytest.raises(ConfigError, match=r"app\.include\('inner'\): prefix='.*' makes the name"):
        App("outer").include(inner, prefix=prefix)


def test_middlewares_of_an_include_surround_what_it_brings_and_nothing_else() -> None:
    inner, outer = App("inner"), App("outer")
    first, own, between, other = map(around_named, ("outer", "inner", "between", "other"))
    outer.middleware(first)
    inner.middleware(own)
    inner.on("message.received", durable="r1")(handle)
    outer.on("message.received", durable="mine")(handle)

    outer.include(inner, prefix="a-", middlewares=[between, other])
    outer.include(inner, prefix="b-")

    around = {one.handler.name: middlewares_of(one) for one in outer.declarations}
    assert around == {
        "mine": [first],
        "a-r1": [first, between, other, own],
        "b-r1": [first, own],
    }
    with pytest.raises(ConfigError, match=r"outer\.include.*call_next"):
        outer.include(inner, prefix="c-", middlewares=[handle])


def test_an_app_cannot_include_itself() -> None:
    app = App("router")

    with pytest.raises(ConfigError, match="cannot include itself"):
        app.include(app)


def test_apps_cannot_include_each_other() -> None:
    inner, middle, outer = App("inner"), App("middle"), App("outer")
    middle.include(inner)
    outer.include(middle)

    with pytest.raises(
        ConfigError, match=r"inner\.include\('outer'\): it includes this one already"
    ):
        inner.include(outer)


def test_a_handler_declared_after_its_app_was_included_is_refused_where_it_is_written() -> None:
    inner, outer = App("inner"), App("outer")
    outer.include(inner)

    with pytest.raises(
        ConfigError,
        match=r"^@inner\.on\('custom\.late'\): app 'outer' has included app 'inner' already"
        r" \(\S+test_app\.py:\d+\) and would not run it; .*\(\S+test_app\.py:\d+\)$",
    ):

        @inner.on("custom.late", durable="d")
        async def late(event: Event[Any]) -> None: ...

    assert inner.handlers == []


def test_an_app_is_not_included_by_one_that_was_included_itself() -> None:
    inner, middle, outer = App("inner"), App("middle"), App("outer")
    outer.include(middle)

    with pytest.raises(ConfigError, match="'outer' has included app 'middle' already"):
        middle.include(inner)


async def test_what_an_included_apps_handler_publishes_by_its_own_app_goes_out_by_the_outer() -> (
    None
):
    inner, middle, outer = App("inner"), App("middle"), App("outer")

    @inner.on("custom.ask", durable="answers")
    async def answer(event: Event[Any]) -> None:
        await inner.publish("custom.answer", event.payload)
        await inner.publish_many([Draft(type="custom.answer", payload="more")])

    middle.include(inner)
    outer.include(middle)

    async with TestWorker(outer) as t:
        asked = await t.publish("custom.ask", "one")
        await t.settle()
        from_outside = await inner.publish("custom.answer", "by nobody's handler")

    assert not t.dead_letters
    one, more, other = t.published("custom.answer")
    assert [one.payload, more.payload] == ["one", "more"]
    # Part of the run: what caused it is known, and a second run would publish the same.
    assert [one.metadata.correlation_id, more.metadata.correlation_id] == [asked.id, asked.id]
    assert (other.id, other.metadata.correlation_id) == (from_outside.id, from_outside.id)
    assert {event.metadata.source for event in (one, more, other)} == {"outer"}


# --- running -------------------------------------------------------------------------------


async def test_lifespan_surrounds_the_run_and_its_value_is_the_state() -> None:
    seen: list[Any] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[str]:
        seen.append("before")
        # A lifespan may publish: the connection stands.
        seen.append((await app.publish("custom.started")).stream)
        yield "the state"
        seen.append("after")

    app = App("router", lifespan=lifespan)

    async with app.running(transport=MemoryTransport()) as bus:
        seen.append(bus.state)

    assert seen == ["before", "CUSTOM", "the state", "after"]


def with_lifespan(name: str, seen: list[str], state: str | None) -> App:
    """An app that notes its lifespan, and each run of its handler with the state there."""

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[str | None]:
        seen.append(f"{app.name} opens")
        yield state
        seen.append(f"{app.name} closes")

    app = App(name, lifespan=lifespan)

    @app.on("custom.x", durable=name)
    async def note(event: Event[Any], ctx: Context[Any]) -> None:
        seen.append(f"{name} has {ctx.state}")

    return app


async def test_the_lifespan_of_an_included_app_surrounds_the_run_and_gives_its_handlers_state() -> (
    None
):
    seen: list[str] = []
    outer = with_lifespan("outer", seen, "o")
    middle, inner = with_lifespan("middle", seen, None), with_lifespan("inner", seen, "i")
    plain = App("plain")
    plain.on("custom.y", durable="plain")(handle)
    middle.include(inner)
    outer.include(middle)
    outer.include(plain)

    async with TestWorker(outer) as t:
        await t.publish("custom.x")
        await t.settle()

    assert seen[:3] == ["outer opens", "middle opens", "inner opens"]
    assert set(seen[3:6]) == {"outer has o", "middle has o", "inner has i"}
    assert seen[6:] == ["inner closes", "middle closes", "outer closes"]


async def test_an_included_app_that_cannot_open_ends_the_start_and_closes_the_others() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def broken(app: App) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    outer = with_lifespan("outer", seen, "o")
    outer.include(App("inner", lifespan=broken))
    seen_after: list[str] = []

    with pytest.raises(RuntimeError, match="no database"):
        async with outer.running(transport=MemoryTransport()):
            seen_after.append("ran")

    assert seen_after == []
    assert seen == ["outer opens"]  # what is raised inside passes through its generator


async def test_a_test_s_state_stands_in_for_every_lifespan() -> None:
    seen: list[str] = []
    outer, inner = with_lifespan("outer", seen, "o"), with_lifespan("inner", seen, "i")
    outer.include(inner)

    async with TestWorker(outer, state="fake") as t:
        await t.publish("custom.x")
        await t.settle()

    assert sorted(seen) == ["inner has fake", "outer has fake"]


async def test_handlers_are_chosen_by_name_and_the_others_do_not_run() -> None:
    app = App("router")
    for name in ("r1", "r2", "r3"):
        app.on("custom.x", durable=name)(handle)

    async with app.running(transport=MemoryTransport(), only=["r1", "r2"], without=["r2"]) as bus:
        running = [one.handler.name for one in bus.subscriptions]
        aside = [one.name for one in bus.set_aside]

    assert (running, aside) == (["r1"], ["r2", "r3"])


async def test_an_unknown_handler_or_none_left_is_refused_before_anything_is_opened() -> None:
    app, transport = App("router"), MemoryTransport()
    app.on("custom.x", durable="r1")(handle)

    for chosen, said in (
        ({"only": ["r2"]}, r"no handler is called r2; the handlers are handle \(r1\)"),
        ({"without": ["r2"]}, "no handler is called r2"),
        ({"only": ["r1"], "without": ["handle"]}, "no handler is left to run"),
    ):
        with pytest.raises(ConfigError, match=said):
            async with app.running(transport=transport, **chosen):  # type: ignore[arg-type]
                pass


async def test_a_lifespan_that_fails_leaves_nothing_open() -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    app, transport = App("router", lifespan=lifespan), MemoryTransport()

    with pytest.raises(RuntimeError, match="no database"):
        async with app.running(transport=transport):
            pass

    assert not transport.is_connected
    with pytest.raises(NotConnected, match=r"'router' is not running, .* publish in a handler"):
        await app.publish("custom.x")


async def test_an_app_runs_any_number_of_times_but_not_twice_at_once() -> None:
    app = App("router")

    for _ in range(2):
        async with app.running(transport=MemoryTransport()):
            with pytest.raises(ConfigError, match=r"is running already; leave that .* or make"):
                async with app.running(transport=MemoryTransport()):
                    pass


async def test_what_is_declared_while_the_app_runs_is_refused_for_it_would_not_start() -> None:
    app = App("router")

    async with app.running(transport=MemoryTransport()):
        with pytest.raises(ConfigError, match=r"what is declared now .*; declare it before app"):
            app.on("message.received")(handle)
        with pytest.raises(ConfigError, match="what is declared now is not started"):
            app.include(App("inner"))


async def test_publish_inside_a_handler_is_part_of_its_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    import asyncio

    app = App("router")
    answered: asyncio.Future[Event[Any]] = asyncio.get_running_loop().create_future()

    @app.on("custom.asked", durable="asked", start_from="first")
    async def asked(event: Event[Any]) -> None:
        await app.publish("custom.answered", {"n": 1})

    @app.on("custom.answered", durable="answered", start_from="first")
    async def take(event: Event[Any]) -> None:
        answered.set_result(event)

    with caplog.at_level(logging.ERROR):
        async with app.running(transport=MemoryTransport()) as bus:
            first = await bus.publish("custom.asked", {}, channel="x", instance="y")
            answer = await asyncio.wait_for(answered, 10)

    assert answer.metadata.correlation_id == first.id
    assert answer.metadata.trace_id == first.id
    assert answer.metadata.source == "router"
    assert (answer.channel, answer.instance) == (None, None)
    assert answer.id[14] == "5"  # UUIDv5: the same again by a second run


async def test_a_registry_of_ones_own_is_used() -> None:
    registry = SchemaRegistry()
    registry.register("custom.x", Model)
    app = App("router", registry=registry)

    async with app.running(transport=MemoryTransport()):
        with pytest.raises(Exception, match=r"custom\.x: the payload does not fit its schema: a:"):
            await app.publish("custom.x", {"a": "private"})


billing, held = App("shop"), SimpleNamespace(app=App("held"))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: billing.on("a..b")(handle), "@billing.on('a..b'): "),
        (lambda: billing.on(handle), '@billing.on: no event type; write @billing.on("'),
        (lambda: billing.on_batch("a..b")(handle), "@billing.on_batch('a..b'): "),
        (lambda: billing.on_batch(handle), "@billing.on_batch: no event type; write @billing.on_b"),
        (lambda: billing.cron("1 2")(handle), "@billing.cron('1 2'): "),
        (lambda: billing.cron(handle), "@billing.cron: no times; write @billing.cron("),
        (lambda: billing.include(billing), "billing.include('shop'): "),
        (lambda: billing.use(5), "billing.use: "),
        (lambda: billing.listen(5), "billing.listen: "),
        (lambda: billing.discover("nowhere"), "billing.discover('nowhere'): "),
        (lambda: held.app.on("a..b")(handle), "@app.on('a..b'): "),  # in no variable
    ],
)
def test_an_error_names_the_variable_that_holds_the_app(
    call: Callable[[], object], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        call()

    assert str(caught.value).startswith(expected)
    assert re.search(r"\(.*test_app\.py:\d+\)$", str(caught.value))


async def test_a_handler_for_a_type_that_looks_misspelt_is_told_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App("router")
    app.on("message.recieved", "message.sent", durable="d")(handle)

    async with app.running(transport=MemoryTransport()):
        pass

    [line] = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert line.startswith(
        "message.recieved is not a known event type; did you mean message.received?"
    )


class Other(BaseModel):
    b: int


async def test_a_handler_whose_model_the_registered_one_never_fits_is_told_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App("router")
    app.registry.register("custom.a1", Model)

    @app.on("custom.a1", durable="d")
    async def unfit(event: Event[Other]) -> None: ...

    @app.on("custom.a1", durable="d2")
    async def fit(event: Event[Model]) -> None: ...

    async with app.running(transport=MemoryTransport()):
        pass

    [line] = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert line.startswith(
        "custom.a1 is registered with Model, which has no b: without it, no event fits the"
        " handler's Other, and each becomes a dead letter ("
    )


@pytest.mark.parametrize(
    ("type", "meant"),
    [("mesage.received", "message.received"), ("order.placed", "custom.order.placed")],
)
async def test_a_missing_stream_of_a_misspelt_type_is_said_with_the_type_that_was_meant(
    type: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App("router")
    app.on(type, durable="d")(handle)

    with pytest.raises(StreamMissing) as caught:
        async with app.running(transport=MemoryTransport()):
            pass

    assert str(caught.value).count("is not a known event type") == 1
    assert f"did you mean {meant}?" in str(caught.value)
    assert "is not a known event type" not in caplog.text
