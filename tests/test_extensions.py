"""Extensions: one object that an app uses, an included app brings along, and nothing doubles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from omni_worker import (
    Answer,
    App,
    CallNext,
    ConfigError,
    Context,
    Draft,
    Event,
    EventBus,
    Extension,
    Gate,
    Go,
    Handler,
    InvalidEvent,
    Outcome,
    PublishManyError,
    Request,
    Routes,
    Run,
    Settings,
    Signal,
    signals,
)
from omni_worker.testing import TestWorker
from omni_worker.transports.memory import MemoryTransport


class Told(Extension):
    """Notes each call of every method."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self.calls = calls

    def signal(self, fact: Signal) -> None:
        if isinstance(fact, signals.RunFinished):
            self.calls.append(f"{self.name} heard {fact.handler.short}")

    def stamp(self, draft: Draft, headers: dict[str, str]) -> None:
        self.calls.append(f"{self.name} stamped {draft.type}")
        headers[f"x-{self.name}"] = str(draft.id)

    async def around(self, ctx: Context, event: Event[Any], call_next: CallNext) -> None:
        self.calls.append(f"{self.name} around {event.type}")
        await call_next(ctx, event)

    def routes(self) -> Routes:
        return {f"/{self.name}": answer}

    @asynccontextmanager
    async def running(self, bus: EventBus) -> AsyncIterator[None]:
        self.calls.append(f"{self.name} entered, {bus.is_connected}")
        try:
            yield
        finally:
            self.calls.append(f"{self.name} left, {bus.is_connected}")


def answer(request: Request) -> Answer:
    """A route."""
    return Answer()


@pytest.fixture
def calls() -> list[str]:
    return []


def declare(app: App, type: str) -> None:
    """Give an app a handler of its own."""

    @app.on(type, durable=type.replace(".", "-"), start_from="first")
    async def handle(event: Event[Any]) -> None:
        """A handler."""


# --- what each method does -----------------------------------------------------------------


async def test_around_and_signal_are_called_for_every_run(calls: list[str]) -> None:
    app = App("shop")
    declare(app, "custom.ordered")
    app.use(Told("a", calls))

    async with TestWorker(app) as worker:
        calls.clear()
        await worker.publish("custom.ordered", {})
        await worker.settle()

    assert calls[0] == "a around custom.ordered"
    assert calls[1].startswith("a heard ")


async def test_a_stamp_adds_headers_to_whatever_is_published(calls: list[str]) -> None:
    transport = MemoryTransport()
    app = App("shop")
    app.use(Told("a", calls))
    heard: asyncio.Queue[dict[str, list[str]]] = asyncio.Queue()

    @app.on("custom.>", durable="all", start_from="first")
    async def handle(event: Event[Any], ctx: Context) -> None:
        heard.put_nowait(ctx.headers | {"id": [event.id]})

    async with app.running(transport=transport):
        await app.publish("custom.one")
        await app.publish_many([Draft(type="custom.two"), Draft(type="custom.three")])
        found = [await asyncio.wait_for(heard.get(), 10) for _ in range(3)]

    assert all(headers["x-a"] == headers["id"] == headers["Nats-Msg-Id"] for headers in found)


async def test_a_stamp_sees_the_draft_as_it_is_sent_and_cannot_change_it() -> None:
    seen: list[Draft] = []

    class Curious(Extension):
        def stamp(self, draft: Draft, headers: dict[str, str]) -> None:
            seen.append(draft)
            draft.type = "custom.other"

    app = App("shop")
    app.use(Curious())
    given = Draft(type="custom.x", payload={"a": 1}, channel="c", instance="i")

    async with app.running(transport=MemoryTransport()):
        [published] = await app.publish_many([given])

    assert given == Draft(type="custom.x", payload={"a": 1}, channel="c", instance="i")
    assert (published.stream, seen[0].id) == ("CUSTOM", published.id)
    assert seen[0].metadata["source"] == "shop"
    assert seen[0].correlation_id == published.id


@pytest.mark.parametrize(
    ("headers", "hint"),
    [
        ({"Nats-Msg-Id": "1"}, "header Nats-Msg-Id: names with Nats- or Omni-Worker- are reserved"),
        ({"nats-rollup": "all"}, "reserved"),
        ({"OMNI-WORKER-Handler": "x"}, "reserved"),
        ({"x": "a\r\nNats-Msg-Id: 1"}, "header x: a value cannot hold line breaks"),
        ({"x": "a\0"}, "line breaks or NUL"),
        ({"x": b"a"}, "header x: expected a string, got bytes"),
        ({"x": None}, "header x: expected a string, got NoneType"),
        ({"x y": "a"}, "header name 'x y': expected ASCII"),
        ({"x:": "a"}, "header name"),
        ({"": "a"}, "header name ''"),
        ({"\x7f": "a"}, "header name"),
        ({b"x": "a"}, "header name"),
        ({"x-trace": "a", "X-Trace": "b"}, "headers x-trace, X-Trace: one name in .*; write it in"),
    ],
)
async def test_a_header_that_cannot_travel_is_refused_before_anything_is_sent(
    headers: dict[Any, Any], hint: str
) -> None:
    class Hostile(Extension):
        def stamp(self, draft: Draft, given: dict[str, str]) -> None:
            given.update(headers)

    app, transport = App("shop"), MemoryTransport()
    app.use(Hostile())

    async with app.running(transport=transport):
        with pytest.raises(InvalidEvent, match=hint):
            await app.publish("custom.x")
        with pytest.raises(InvalidEvent, match=hint):
            await app.publish_many([Draft(type="custom.x")])
        with pytest.raises(PublishManyError, match=hint):
            await app.publish_many(Draft(type="custom.x") for _ in range(3))
        stored = await transport.operators.stream_info("CUSTOM")

    assert stored is not None
    assert stored.state.last_sequence == 0


async def test_a_dead_letter_is_not_stamped(calls: list[str]) -> None:
    app = App("shop")
    app.use(Told("a", calls))

    @app.on("custom.ordered", durable="orders", max_retries=0)
    async def fail(event: Event[Any]) -> None:
        raise ValueError("no")

    async with TestWorker(app) as worker:
        await worker.publish("custom.ordered", {})
        await worker.settle()

    assert len(worker.dead_letters) == 1
    assert [one for one in calls if "stamped" in one] == []


async def test_gates_stand_before_each_run_of_the_extension_s_own_app(calls: list[str]) -> None:
    class Counting(Gate):
        async def through(self, run: Run, go: Go) -> Outcome:
            calls.append(run.event.type)
            return await go(run)

    class Counted(Extension):
        def gates(self, handler: Handler) -> list[Gate]:
            return [Counting()]

    inner, outer = App("inner"), App("outer")
    declare(inner, "custom.inner")
    declare(outer, "custom.outer")
    inner.use(Counted())
    outer.include(inner)

    async with TestWorker(outer) as worker:
        await worker.publish("custom.outer", {})
        await worker.publish("custom.inner", {})
        await worker.settle()

    assert calls == ["custom.inner"]


# --- as long as the app runs ---------------------------------------------------------------


async def test_running_stands_around_the_lifespan_while_the_bus_is_connected(
    calls: list[str],
) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        calls.append("lifespan entered")
        yield
        calls.append("lifespan left")

    app = App("shop", lifespan=lifespan)
    app.use(Told("a", calls))
    app.use(Told("b", calls))

    async with app.running(transport=MemoryTransport()):
        calls.append("runs")

    assert calls == [
        "a entered, True", "b entered, True", "lifespan entered", "runs",
        "lifespan left", "b left, True", "a left, True",
    ]  # fmt: skip


async def test_an_extension_that_cannot_start_ends_the_start_and_is_named(
    calls: list[str],
) -> None:
    class Broken(Extension):
        @asynccontextmanager
        async def running(self, bus: EventBus) -> AsyncIterator[None]:
            raise OSError("address in use")
            yield

    app, transport = App("shop"), MemoryTransport()
    app.use(Told("a", calls))
    app.use(Broken())

    with pytest.raises(OSError, match="address in use") as failed:
        async with app.running(transport=transport):
            calls.append("never")

    assert failed.value.__notes__ == ["extension Broken could not start"]
    assert calls == ["a entered, True", "a left, True"]
    assert not transport.is_connected


async def test_an_extension_that_never_ends_is_left_at_the_end_of_grace(
    calls: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.lifespan.LAST_STEPS", 0.0)

    class Endless(Extension):
        @asynccontextmanager
        async def running(self, bus: EventBus) -> AsyncIterator[None]:
            yield
            await asyncio.Event().wait()

    app = App("shop")
    app.use(Told("a", calls))
    app.use(Endless())

    async with asyncio.timeout(10):
        async with app.running(transport=MemoryTransport(), settings=Settings(grace=0.05)):
            pass

    assert "extension Endless did not end within the grace of 0.05 s" in caplog.text
    assert calls[-1] == "a left, True"


# --- included apps -------------------------------------------------------------------------


async def test_an_included_app_s_extension_acts_on_its_own_handlers_and_on_all_publishing(
    calls: list[str],
) -> None:
    inner, outer = App("inner"), App("outer")
    declare(inner, "custom.inner")
    declare(outer, "custom.outer")
    inner.use(Told("i", calls))
    outer.use(Told("o", calls))
    outer.include(inner)

    async with TestWorker(outer) as worker:
        calls.clear()
        await worker.publish("custom.outer", {})
        await worker.settle()
        around_outer, calls[:] = [one for one in calls if "around" in one], []
        await worker.publish("custom.inner", {})
        await worker.settle()
        around_inner, calls[:] = [one for one in calls if "around" in one], []
        heard = [one for one in calls if "heard" in one]
        await outer.publish("custom.y")

    assert around_outer == ["o around custom.outer"]
    assert around_inner == ["o around custom.inner", "i around custom.inner"]
    assert heard == []
    assert [one for one in calls if "stamped" in one] == [
        "o stamped custom.y", "i stamped custom.y",
    ]  # fmt: skip


async def test_an_extension_two_apps_use_acts_once_on_a_handler(calls: list[str]) -> None:
    inner, outer, shared = App("inner"), App("outer"), Told("s", calls)
    declare(inner, "custom.inner")
    inner.use(shared)
    outer.use(shared)
    outer.include(inner)

    async with TestWorker(outer) as worker:
        await worker.publish("custom.inner", {})
        await worker.settle()

    assert [one for one in calls if "around" in one] == ["s around custom.inner"]
    assert len([one for one in calls if "heard" in one]) == 1
    assert calls.count("s entered, True") == 1


async def test_an_app_that_two_ways_lead_to_counts_once(calls: list[str]) -> None:
    base, left, right, app = App("base"), App("left"), App("right"), App("app")
    base.use(Told("b", calls))
    for one in (left, right):
        one.include(base)  # it has no handlers: there is nothing to be taken twice
        app.include(one)

    async with app.running(transport=MemoryTransport()):
        await app.publish("custom.x")

    assert calls == ["b entered, True", "b stamped custom.x", "b left, True"]
    assert list(app.routes()) == ["/b"]


async def test_extensions_middlewares_and_listeners_act_in_the_order_they_were_added(
    calls: list[str],
) -> None:
    app = App("shop")
    declare(app, "custom.x")
    app.use(Told("first", calls))

    @app.middleware
    async def second(ctx: Context, event: Event[Any], call_next: CallNext) -> None:
        calls.append("second around custom.x")
        await call_next(ctx, event)

    app.use(Told("third", calls))

    async with TestWorker(app) as worker:
        await worker.publish("custom.x", {})
        await worker.settle()

    assert [one for one in calls if "around" in one] == [
        "first around custom.x", "second around custom.x", "third around custom.x",
    ]  # fmt: skip


# --- nothing spent, and what is refused ----------------------------------------------------


async def test_what_is_not_overridden_is_never_called() -> None:
    app = App("shop")
    declare(app, "custom.x")

    app.use(Extension())

    assert (app.middlewares, app.listeners, dict(app.routes())) == ([], [], {})
    async with app.running(transport=MemoryTransport()) as bus:
        assert bus.publisher.stamps == []
        assert type(bus.publisher).__name__ == "Publisher"


def test_use_returns_the_extension() -> None:
    extension = Extension()

    assert App("shop").use(extension) is extension


class AsyncSignal(Extension):
    async def signal(self, fact: Signal) -> None:  # type: ignore[override]
        """Never awaited."""


class BareGenerator(Extension):
    async def running(self, bus: EventBus) -> AsyncIterator[None]:  # type: ignore[override]
        yield


class PlainAround(Extension):
    def around(self, ctx: Context, event: Event[Any]) -> None:  # type: ignore[override]
        """No middleware."""


class OneKind(Extension):
    kinds = signals.RunFinished  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("extension", "hint"),
    [
        (Told, r"got the class Told: write app.use\(Told\(\)\)"),
        (answer, "expected an Extension, got function"),
        (AsyncSignal(), "AsyncSignal.signal: write def, not async def"),
        (BareGenerator(), "BareGenerator.running: decorate it @asynccontextmanager"),
        (PlainAround(), "PlainAround.around: expected async def"),
        (OneKind(), "OneKind.kinds: expected a tuple of signal classes"),
    ],
)
def test_what_is_no_extension_is_refused_with_the_line(extension: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=rf"app\.use: .*{hint}.*\(.*test_extensions\.py:\d+\)"):
        App("shop").use(extension)


async def test_an_extension_is_refused_while_the_app_or_one_that_includes_it_runs() -> None:
    inner, outer = App("inner"), App("outer")
    outer.include(inner)

    async with outer.running(transport=MemoryTransport()):
        for app in (inner, outer):
            with pytest.raises(ConfigError, match=r"\w+\.use: app '\w+' is running .*; call use"):
                app.use(Extension())


def test_two_extensions_cannot_answer_one_path(calls: list[str]) -> None:
    app = App("shop")
    app.use(Told("a", calls))
    app.use(Told("a", calls))

    with pytest.raises(ConfigError, match="two routes answer GET /a; give one of them another"):
        app.routes()


async def test_a_signal_method_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Extension):
        kinds = (signals.RunFinished,)

        def signal(self, fact: Signal) -> None:
            raise LookupError("no such counter")

    app = App("shop")
    declare(app, "custom.x")
    app.use(Broken())

    with caplog.at_level(logging.ERROR):
        async with TestWorker(app) as worker:
            await worker.publish("custom.x", {})
            await worker.settle()

    assert worker.dead_letters == []
    assert "a listener failed on RunFinished" in caplog.text
