"""Sync: publishing from code without an event loop: Django, Flask, Celery, scripts.

A `SyncBus` has an `EventBus` on a loop of its own, in a thread of its own, from the first call on.
Any number of threads may use it. A forked child has a thread and a connection of its own, made at
its first call: gunicorn with `--preload`, uWSGI and Celery fork after the import.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from .bus import EventBus
from .bus.names import check_app_name
from .errors import ConfigError, NotConnected, TransportError
from .events import Published
from .publisher import DEFAULT_TIMEOUT, Draft, EventFields
from .schedules.messages import Scheduled
from .schemas import SchemaRegistry
from .settings import Settings
from .tasks import own

T = TypeVar("T")

CLOSE_WITHIN = 5.0  # seconds


class SyncBus:
    """Publishes from plain code: each call blocks until the server has confirmed.

    ``name`` is each event's ``metadata.source``. Nothing is connected before the first call. After
    a lost connection it reconnects for ever; a call waits for that no longer than its ``timeout``.
    Closed when the process ends, or by ``close``; a later call connects again.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        name: str = "omni-worker",
        registry: SchemaRegistry | None = None,
        settings: Settings | None = None,
    ) -> None:
        check_app_name(name)
        self.name = name
        self.registry = registry if registry is not None else SchemaRegistry()
        self._url = url
        self._settings = settings
        self._portal: _Portal | None = None
        self._lock = threading.Lock()
        _buses.add(self)

    @overload
    def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        timeout: float = ...,
        **fields: Unpack[EventFields],
    ) -> Published: ...

    @overload
    def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        after: float | timedelta,
        key: str | None = None,
        timeout: float = ...,
        **fields: Unpack[EventFields],
    ) -> Scheduled: ...

    @overload
    def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        at: datetime,
        key: str | None = None,
        timeout: float = ...,
        **fields: Unpack[EventFields],
    ) -> Scheduled: ...

    def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        **fields: Any,
    ) -> Published | Scheduled:
        """Publish one event and wait until it is stored, as ``EventBus.publish`` does.

        With ``after`` or ``at`` the server keeps it until then; with the same ``key`` it replaces
        another. Some process of the app ``name`` has to be connected when it is due.

        Raises what that raises, and NotConnected when there is no connection within ``timeout``
        seconds: then the event was not sent.
        """
        published: Published | Scheduled = self.run(
            lambda bus: bus.publish(type, payload, timeout=timeout, **fields), connect=timeout
        )
        return published

    def cancel(self, scheduled: Scheduled | str) -> bool:
        """Cancel an event that is not due yet, as ``EventBus.cancel``; True if it was in time."""
        return self.run(lambda bus: bus.cancel(scheduled))

    def publish_many(
        self, drafts: Iterable[Draft], *, timeout: float = DEFAULT_TIMEOUT
    ) -> Sequence[Published]:
        """Publish many, pipelined, and wait until all are stored, as ``EventBus.publish_many``.

        The drafts are taken as a list first: a generator runs in this thread, with its database.
        """
        listed = list(drafts)
        return self.run(lambda bus: bus.publish_many(listed, timeout=timeout), connect=timeout)

    def run(
        self, work: Callable[[EventBus], Awaitable[T]], *, connect: float = DEFAULT_TIMEOUT
    ) -> T:
        """Run ``await work(bus)`` on the bus's own loop and return its result.

        For whatever else an EventBus can do: ``bus.run(lambda bus: bus.pause("r1"))``. ``connect``
        is the time, in seconds, that a connection may take. Raises ConfigError on an event loop.
        """
        _refuse_on_a_loop()
        return self._open().call(lambda portal: portal.work(work, connect))

    def close(self) -> None:
        """Disconnect and end the thread. Calls of other threads that wait are cancelled."""
        with self._lock:
            portal, self._portal = self._portal, None
        if portal is not None:
            portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> _Portal:
        with self._lock:
            if self._portal is None:
                self._portal = _Portal(self._bus)
            return self._portal

    def _bus(self) -> EventBus:
        """Make the bus. A program that only publishes has nothing better to do than reconnect."""
        settings = self._settings or Settings()
        if "reconnect_max_retries" not in settings.model_fields_set:
            settings = settings.model_copy(update={"reconnect_max_retries": None})
        return EventBus(self._url, name=self.name, registry=self.registry, settings=settings)

    def _forget(self) -> None:
        """Begin again in a forked child: it has neither the thread nor the connection."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        if self._portal is not None:
            # Kept: what is collected here would end the parent's polling of its socket.
            _of_parents.append(self._portal)
            self._portal = None


class _Portal:
    """A loop in a thread, and the bus on it."""

    def __init__(self, make: Callable[[], EventBus]) -> None:
        self._make = make
        self._bus: EventBus | None = None
        self._connecting = asyncio.Lock()
        self._works: set[asyncio.Task[Any]] = set()
        self._loop = _new_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=own("sync"), daemon=True
        )
        self._thread.start()

    def call(self, make: Callable[[_Portal], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop, and wait; an interrupted wait cancels it."""
        try:
            waiting = asyncio.run_coroutine_threadsafe(make(self), self._loop)
        except RuntimeError:
            raise NotConnected("the bus was closed by another thread") from None
        try:
            return waiting.result()
        except concurrent.futures.CancelledError:
            raise NotConnected("the bus was closed by another thread") from None
        finally:
            waiting.cancel()

    async def work(self, work: Callable[[EventBus], Awaitable[T]], connect: float) -> T:
        """Run ``work`` with a connected bus."""
        task = asyncio.current_task()
        assert task is not None
        self._works.add(task)
        try:
            return await work(await self._connected(connect))
        finally:
            self._works.discard(task)

    async def _connected(self, within: float) -> EventBus:
        try:
            async with asyncio.timeout(within), self._connecting:
                if self._bus is not None and self._bus.transport.failure is None:
                    return self._bus
                await self._end()
                bus = self._make()
                try:
                    await bus.connect()
                except BaseException:
                    await bus.close()
                    raise
                self._bus = bus
                return bus
        except TimeoutError:
            raise NotConnected(
                f"no connection within {within:g} s; NATS_URL says where the server is"
            ) from None

    async def _end(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.close()

    def close(self) -> None:
        """Close the bus, then the loop."""
        ending = asyncio.run_coroutine_threadsafe(self._ended(), self._loop)
        try:
            ending.result(CLOSE_WITHIN)
        except (TransportError, TimeoutError, concurrent.futures.TimeoutError):
            ending.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_WITHIN)
        if not self._thread.is_alive():
            self._loop.close()

    async def _ended(self) -> None:
        works = list(self._works)
        for task in works:
            task.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await self._end()


def _new_loop() -> asyncio.AbstractEventLoop:
    make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if sys.platform != "win32":
        import uvloop

        make = uvloop.new_event_loop
    return make()


def _refuse_on_a_loop() -> None:
    """Raise ConfigError on an event loop: nothing else would run there until the answer comes."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigError(
        "a SyncBus blocks, and this is an event loop: await EventBus.publish there, app.publish in"
        " a handler"
    )


_buses: weakref.WeakSet[SyncBus] = weakref.WeakSet()
_of_parents: list[_Portal] = []


def _forget_in_child() -> None:
    for bus in list(_buses):
        bus._forget()


def _close_all() -> None:
    for bus in list(_buses):
        bus.close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_in_child)
