"""Metrics: what a process counts of its handlers, for Prometheus (`omni-worker[metrics]`).

The engine counts in plain integers; a scrape reads them, in the thread that answers it, so that a
blocked event loop is seen, too. Only this folder imports prometheus_client, and only for a scrape.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .. import signals
from ..bus import EventBus
from ..errors import ConfigError
from ..extensions import Extension
from ..routes import Answer, Request, Routes
from ..signals import Signal
from ..subscription.run_times import Times
from .looks import Looks
from .published import PublishedTypes

if TYPE_CHECKING:
    from prometheus_client import Metric

PATH = "/metrics"
NEEDS = "metrics need prometheus-client: pip install 'omni-worker[metrics]'"
RECOVERIES: dict[type[Signal], str] = {
    signals.ConsumerRecreated: "consumer",
    signals.StreamReplaced: "stream",
    signals.ConsumerReset: "reset",
    signals.PullRepeated: "pull",
}


def is_installed() -> bool:
    """Return True if prometheus-client can be imported; it is not imported yet."""
    return find_spec("prometheus_client") is not None


def check_installed() -> None:
    """Raise ConfigError if it cannot."""
    if not is_installed():
        raise ConfigError(NEEDS)


class Metrics(Extension):
    """Extension that answers `/metrics`; `omni-worker run` and `app.run()` use it by themselves.

    A program with a Prometheus endpoint of its own registers it there instead:
    ``REGISTRY.register(app.use(Metrics(route=False)))``. Raises ConfigError without the extra.
    """

    kinds = (
        signals.PublishConfirmed, signals.PublishFailed, signals.Connected, *RECOVERIES,
    )  # fmt: skip

    def __init__(self, *, route: bool = True) -> None:
        check_installed()
        self.route = route
        self.published = PublishedTypes()
        self.publish_times = Times()
        self.app = ""  # the running one's
        self.connections = 0
        self.recoveries: Counter[tuple[str, str]] = Counter()  # app and kind
        self.buses: dict[EventBus, Looks] = {}
        self.started = time.time()

    def signal(self, fact: Signal) -> None:
        """Count what the engine has no counter for."""
        match fact:
            case signals.PublishConfirmed():
                self.published.count(fact.type, "duplicate" if fact.duplicate else "stored")
                self._note_publish(fact.seconds)
            case signals.PublishFailed():
                self.published.failed(fact.type, fact.error)
                self._note_publish(fact.seconds)
            case signals.Connected():
                self.connections += 1
            case signals.HandlerSignal(handler=handler):
                self.recoveries[handler.app, RECOVERIES[type(fact)]] += 1

    def _note_publish(self, seconds: float | None) -> None:
        if seconds is not None:  # it was timed
            self.publish_times.note(seconds)

    @asynccontextmanager
    async def running(self, bus: EventBus) -> AsyncIterator[None]:
        """Measure the runs of this bus from now on."""
        bus.measures_runs = True
        self.app = bus.name
        self.published.knows = lambda type: bus.registry.get(type) is not None
        self.buses[bus] = Looks(bus, asyncio.get_running_loop())
        try:
            yield
        finally:
            del self.buses[bus]

    def routes(self) -> Routes:
        """Answer `/metrics`, unless that is left to another."""
        return {PATH: self.answer} if self.route else {}

    def answer(self, request: Request) -> Answer:
        """Answer a scrape: our metrics, and those registered with prometheus_client itself."""
        from .exposition import exposed

        return exposed(self, request)

    def collect(self) -> Iterable[Metric]:
        """Yield our metrics; this is the protocol of a prometheus_client Collector."""
        from .families import families

        return families(self)
