"""An app in a process: what its lifespan does decides as well how that process ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from omni_worker import App, Event, Settings
from omni_worker.errors import TransportError
from omni_worker.listeners.logs import PrettyFormatter
from omni_worker.process.worker import Stop, run_worker
from omni_worker.transports.memory import MemoryTransport

Lifespan = Callable[[App], AsyncIterator[None]]


def app_with(lifespan: Lifespan) -> App:
    """One handler, and this around it."""
    app = App("router", lifespan=contextlib.asynccontextmanager(lifespan))

    @app.on("custom.thing", durable="d")
    async def handle(event: Event[Any]) -> None: ...

    return app


async def fails_at_first(app: App) -> AsyncIterator[None]:
    raise LookupError("no database")
    yield


async def fails_at_last(app: App) -> AsyncIterator[None]:
    yield
    raise LookupError("no database")


@pytest.mark.parametrize("lifespan", [fails_at_first, fails_at_last])
async def test_a_lifespan_that_fails_is_told_with_its_own_lines_only(
    lifespan: Lifespan, caplog: pytest.LogCaptureFixture
) -> None:
    stop = Stop()

    code = await run_worker(
        app_with(lifespan), transport=MemoryTransport(), stop=stop, on_ready=lambda _: stop.ask("-")
    )

    assert code == 1
    [line] = [one for one in caplog.records if one.levelname == "ERROR"]
    text = PrettyFormatter().format(line)
    assert "the app failed: LookupError: no database" in text
    assert f"in {lifespan.__name__}" in text
    assert text.count("File ") == 1


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [(3, 3, []), (None, 0, []), ("no configuration", 1, ["no configuration"])],
)
async def test_a_lifespan_may_leave_as_any_program_does(
    given: Any, code: int, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def leaves(app: App) -> AsyncIterator[None]:
        raise SystemExit(given)
        yield

    assert code == await run_worker(app_with(leaves), transport=MemoryTransport(), stop=Stop())
    assert said == [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]


async def test_a_lost_server_is_a_failure_though_the_lifespan_swallows_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def swallows(app: App) -> AsyncIterator[None]:
        with contextlib.suppress(Exception):
            yield

    transport, ready = MemoryTransport(), asyncio.Event()
    running = asyncio.create_task(
        run_worker(
            app_with(swallows), transport=transport, stop=Stop(), on_ready=lambda _: ready.set()
        )
    )
    await ready.wait()
    transport.give_up(TransportError("the server is gone"))

    assert await running == 1
    assert "the server is gone" in caplog.text


async def never_ends(app: App) -> AsyncIterator[None]:
    yield
    await asyncio.Event().wait()


async def swallows_and_never_ends(app: App) -> AsyncIterator[None]:
    with contextlib.suppress(Exception):
        yield
    await asyncio.Event().wait()


@pytest.fixture
def no_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test need not wait for the seconds a lifespan has in any case."""
    monkeypatch.setattr("omni_worker.lifespan.LAST_STEPS", 0.0)


async def test_a_lifespan_that_never_ends_is_left_at_the_end_of_grace(
    no_last_steps: None, caplog: pytest.LogCaptureFixture
) -> None:
    stop, transport = Stop(), MemoryTransport()

    async with asyncio.timeout(10):
        code = await run_worker(
            app_with(never_ends),
            settings=Settings(grace=0.05),
            transport=transport,
            stop=stop,
            on_ready=lambda _: stop.ask("-"),
        )

    assert code == 0
    said = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert said == ["the lifespan did not end within the grace of 0.05 s; stopped without it"]
    assert not transport.is_connected


async def test_what_failed_is_not_forgotten_over_a_lifespan_that_never_ends(
    no_last_steps: None,
) -> None:
    app = app_with(swallows_and_never_ends)

    with pytest.raises(LookupError, match="no chat"):
        async with (
            asyncio.timeout(10),
            app.running(transport=MemoryTransport(), settings=Settings(grace=0.05)),
        ):
            raise LookupError("no chat")


@pytest.mark.parametrize("grace", [30.0, 0.0])
async def test_a_lifespan_may_take_what_is_left_of_the_grace_or_some_seconds(
    grace: float, caplog: pytest.LogCaptureFixture
) -> None:
    ended = []

    async def takes_its_time(app: App) -> AsyncIterator[None]:
        yield
        await asyncio.sleep(0.1)
        ended.append(app.name)

    settings = Settings(grace=grace)
    async with app_with(takes_its_time).running(transport=MemoryTransport(), settings=settings):
        pass

    assert ended == ["router"]
    assert "grace" not in caplog.text


async def test_a_timeout_of_the_lifespan_s_own_is_no_end_of_grace(no_last_steps: None) -> None:
    async def times_out(app: App) -> AsyncIterator[None]:
        yield
        raise TimeoutError("the database")

    with pytest.raises(TimeoutError, match="the database"):
        async with app_with(times_out).running(transport=MemoryTransport()):
            pass
