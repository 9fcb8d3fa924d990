"""Health: what a worker can honestly say of itself: that it is alive, that it is ready, or why not.

`/healthz` and `/readyz`, systemd's watchdog and the parent of several workers all ask here.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..bus import EventBus
from ..handler_consumers import shown_consumers
from ..routes import JSON, Answer, Request, Routes
from ..subscription import Subscription
from .watchdog import Watchdog

DISCONNECTED = 5.0  # seconds without a link; a blip is no reason to be restarted
EXAMINE_EVERY = 8  # beats of the watchdog: two seconds
OK = 200
FAILING = 503
STALE = 8.0  # seconds without a word; the server speaks every 5 while a pull waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Reasons why a worker is not alive, or not ready; without any, all is well."""

    not_alive: tuple[str, ...] = ()
    not_ready: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # ready all the same
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def why_not_ready(self) -> tuple[str, ...]:
        """Everything that speaks against sending it work."""
        return (*self.not_alive, *self.not_ready)


STARTING = Report(not_ready=("starting",))
STOPPING = Report(not_ready=("stopping",))


def examine(bus: EventBus, disconnected_for: float) -> Report:
    """Look at a running bus; called on its loop."""
    not_alive: list[str] = []
    not_ready: list[str] = []
    warnings = bus.warnings
    if not bus.is_connected:
        lost = f"not connected to {bus.settings.shown_urls} for {disconnected_for:.0f} s"
        (not_alive if disconnected_for >= DISCONNECTED else not_ready).append(lost)
    for subscription in bus.subscriptions:
        name = f"handler {subscription.handler.name}"
        if subscription.missing:
            consumers = "consumer is" if subscription.missing == 1 else "consumers are"
            not_ready.append(f"{name}: {subscription.missing} {consumers} not bound")
        if subscription.lapsed:
            leases = "lease" if subscription.lapsed == 1 else "leases"
            not_alive.append(f"{name}: {subscription.lapsed} {leases} lapsed")
        not_ready += [f"{name} takes no events: {reason}" for reason in subscription.stalls]
        warnings += [f"{name}: {warning}" for warning in subscription.warnings]
        if bus.is_connected:
            not_alive += [f"{name}: {silence}" for silence in _silences(subscription)]
    return Report(
        not_alive=tuple(not_alive),
        not_ready=tuple(not_ready),
        warnings=tuple(warnings),
        facts={"handlers": [_facts(subscription) for subscription in bus.subscriptions]},
    )


def health_routes(report: Callable[[], Report]) -> Routes:
    """Routes `/healthz` and `/readyz`: 200, perhaps with warnings, or 503 with the reasons."""

    def healthz(_: Request) -> Answer:
        latest = report()
        return _answer(latest.not_alive, latest)

    def readyz(_: Request) -> Answer:
        latest = report()
        return _answer(latest.why_not_ready, latest)

    return {"/healthz": healthz, "/readyz": readyz}


def report_fact(report: Report) -> dict[str, Any]:
    """Make a report a fact for the parent, which asks for the rest by the command `facts`."""
    return {
        "notAlive": report.not_alive,
        "notReady": report.not_ready,
        "warnings": report.warnings,
    }


def report_of_fact(value: object) -> Report | None:
    """Read a worker's report; None when it is none."""
    match value:
        case {"notAlive": list(not_alive), "notReady": list(not_ready), "warnings": list(warnings)}:
            if all(isinstance(reason, str) for reason in (*not_alive, *not_ready, *warnings)):
                return Report(
                    not_alive=tuple(not_alive),
                    not_ready=tuple(not_ready),
                    warnings=tuple(warnings),
                )
    return None


class Health:
    """State of one process over its life; ``report`` may be called from any thread."""

    def __init__(self, on_look: Callable[[Report], None] | None = None) -> None:
        self._on_look = on_look
        self._watchdog = Watchdog(self._beat, self._look)
        self._bus: EventBus | None = None
        self._connected_at = 0.0
        self._seen = STARTING
        self._beats = 0
        self._born = time.monotonic()

    @property
    def blocked(self) -> str | None:
        """Since when and by whom the loop is blocked, None while it turns."""
        return self._watchdog.blocked

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._watchdog.start()

    def running(self, bus: EventBus) -> None:
        """Every handler runs: from now on the bus is looked at."""
        self._bus = bus
        self._connected_at = time.monotonic()
        self._examine()

    def stopping(self) -> None:
        """Report from now on that this process is stopping."""
        self._bus = None
        self._seen = STOPPING

    def stop(self) -> None:
        """Stop watching."""
        self._watchdog.stop()

    async def facts(self) -> dict[str, Any]:
        """Command `facts`: this worker as it is now, with what became of its deliveries."""
        self._examine()
        return dict(self.report().facts)

    def report(self) -> Report:
        """The latest look at the bus, and whether the loop turns right now."""
        seen, blocked = self._seen, self._watchdog.blocked
        return Report(
            not_alive=(*((blocked,) if blocked is not None else ()), *seen.not_alive),
            not_ready=seen.not_ready,
            warnings=seen.warnings,
            facts={
                "pid": os.getpid(),
                "uptime": round(time.monotonic() - self._born, 1),
                **seen.facts,
            },
        )

    def _beat(self) -> None:
        self._beats += 1
        if self._beats % EXAMINE_EVERY == 0:
            self._examine()

    def _examine(self) -> None:
        if self._bus is None:
            return
        now = time.monotonic()
        if self._bus.is_connected:
            self._connected_at = now
        self._seen = examine(self._bus, now - self._connected_at)

    def _look(self) -> None:
        if self._on_look is not None:
            self._on_look(self.report())


def _silences(subscription: Subscription) -> Iterator[str]:
    silent = [one for one in subscription.sources if one.silent_for >= STALE]
    longest = max((one.silent_for for one in silent), default=0.0)
    sources = [(one.stream, one.consumer) for one in silent]
    for stream, consumer in shown_consumers(subscription.handler, sources):
        yield f"nothing heard of consumer {consumer} on {stream} for {longest:.0f} s"


def _facts(subscription: Subscription) -> dict[str, Any]:
    return {
        "handler": subscription.handler.name,
        "held": subscription.held,
        "running": subscription.running,
        "counts": asdict(subscription.counts),
        "consumers": [
            {"stream": stream, "consumer": consumer}
            for stream, consumer in shown_consumers(
                subscription.handler, [(one.stream, one.consumer) for one in subscription.sources]
            )
        ],
    }


def _answer(reasons: tuple[str, ...], report: Report) -> Answer:
    body = {
        "status": "failing" if reasons else "ok",
        "reasons": list(reasons),
        "warnings": list(report.warnings),
        **report.facts,
    }
    return Answer(
        status=FAILING if reasons else OK,
        content_type=JSON,
        body=json.dumps(body).encode() + b"\n",
    )
