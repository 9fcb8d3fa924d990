"""Process: the app as one process of its own on the server in memory; it can die and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..app import App, Lifespan
from ..bus import EventBus
from ..errors import TransportError
from ..handlers import Handler
from ..settings import Settings
from ..signals import Listener, RunFinished, RunStarted
from ..transports.base import Delivery
from ..transports.memory import MemoryServer, MemoryTransport
from .clock import VirtualTime
from .records import Records, Run, identity


@dataclass(slots=True)
class Crash:
    """A process is to die when this handler has done its work, before anything is answered."""

    handlers: list[Handler]
    on_attempt: int | None
    times: int


@dataclass(slots=True, kw_only=True)
class TestSetup:
    """State that survives a process of the test."""

    app: App
    server: MemoryServer
    settings: Settings | None
    lifespan: Lifespan | None
    overrides: Mapping[Callable[..., Any], Any] | None
    clock: VirtualTime
    records: Records
    crashes: list[Crash] = field(default_factory=list)


class Process:
    """Process of the app in a test: from ``begin`` to ``end`` or ``die``."""

    def __init__(self, around: TestSetup) -> None:
        self.is_ready = asyncio.Event()
        self.is_dead = False
        self.transport = MemoryTransport(around.server, around.settings or around.app.settings)
        self.bus: EventBus | None = None
        self._around = around
        self._running: dict[Delivery, Run] = {}
        self._stop = asyncio.Event()
        self.died = asyncio.Event()
        self.life: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start it; it runs once ``is_ready`` is set, or failed when ``life`` is done."""
        self.life = self._around.clock.start(self._live(), "app")

    def end(self) -> None:
        """Ask it to stop in good order; it has stopped when ``life`` is done."""
        self._stop.set()

    def die(self) -> None:
        """From here on nothing of it reaches the server."""
        self.is_dead = True
        self.transport.give_up(TransportError("the process died: a crash the test asked for"))
        self._stop.set()
        self.died.set()

    # --- the listener ----------------------------------------------------------------------

    def hear(self, signal: RunStarted | RunFinished) -> None:
        """Record a run; a process that is to die at its end dies before it can answer."""
        if isinstance(signal, RunStarted):
            self._begun(signal)
        else:
            self._ended(signal)

    def _begun(self, signal: RunStarted) -> None:
        self._around.clock.begin_run(signal.event)
        run = Run(handler=signal.handler, event=signal.event, attempt=signal.attempt)
        self._running[signal.delivery] = run
        self._around.records.begun(run)

    def _ended(self, signal: RunFinished) -> None:
        self._around.clock.end_run()
        run = self._running.pop(signal.delivery)
        if self.is_dead:
            return
        if self._is_to_die(signal.handler, signal.attempt):
            self.die()
            return
        self._around.records.ended(run, signal.outcome)

    # --- inside ----------------------------------------------------------------------------

    async def _live(self) -> None:
        app, around = self._around.app, self._around
        around.clock.begin_run(None)  # a lifespan may wait for the outside world
        listener = Listener(self.hear, (RunStarted, RunFinished))
        app.listeners.append(listener)
        try:
            async with app.running(
                transport=self.transport,
                settings=around.settings,
                lifespan=around.lifespan,
                overrides=around.overrides,
            ) as bus:
                self.bus = bus
                self.is_ready.set()
                await self._stop.wait()
        finally:
            app.listeners.remove(listener)
            around.clock.end_run()

    def _is_to_die(self, handler: Handler, attempt: int) -> bool:
        for crash in self._around.crashes:
            is_meant = identity(handler) in map(identity, crash.handlers)
            if is_meant and crash.times and crash.on_attempt in (None, attempt):
                crash.times -= 1
                return True
        return False
