"""Hearing: who learns what happens on a bus: the log, a tracer, and the listeners given."""

from __future__ import annotations

from collections.abc import Iterable

from ..listeners.logs import log_of
from ..listeners.opentelemetry import Tracing, find_tracing
from ..publisher import Publisher
from ..settings import Settings
from ..signals import Connected, Disconnected, Listener, Signals
from ..transports.base import LinkChange


class Hearing:
    """The listeners of one bus, and of each of its handlers."""

    def __init__(self, settings: Settings, listeners: Iterable[Listener]) -> None:
        self._log = log_of(settings)
        self.signals = Signals([self._log, *listeners])
        self._settings = settings
        self._tracing: Tracing | None = None

    def find_tracing(self, publisher: Publisher) -> None:
        """Make spans, once a tracer provider is registered: a lifespan may do that, too."""
        if self._tracing is None and (tracing := find_tracing(self._settings.traces)):
            self._tracing = tracing
            publisher.spans = tracing.publishes
            self.signals.spans = tracing.runs
            self.signals.batch_spans = tracing.batches
            for listener in tracing.listeners:
                self.signals.add(listener)

    def of_handler(self, listeners: Iterable[Listener]) -> Signals:
        """Return the signals of a handler with listeners of its own."""
        if self._tracing is None:
            return Signals([self._log, *listeners])
        signals = Signals([self._log, *self._tracing.listeners, *listeners])
        signals.spans = self._tracing.runs
        signals.batch_spans = self._tracing.batches
        return signals

    def link_changed(self, change: LinkChange) -> None:
        """Emit that the connection is up or lost."""
        if change.is_up:
            self.signals.emit(Connected(server=change.server))
        else:
            self.signals.emit(Disconnected(server=change.server, cause=change.cause))
