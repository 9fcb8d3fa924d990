"""Families: the numbers of a process as metrics of Prometheus, with a bounded number of series.

A label is an app, a handler, a stream, an outcome, or the name of a type that is declared: never an
instance, a subject, an id or the text of an error.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from ..bus import EventBus
from ..settle import Counts
from ..subscription import Subscription
from ..subscription.run_times import LIMITS, Histogram
from .looks import Looks
from .published import OTHER

if TYPE_CHECKING:
    from . import Metrics

PREFIX = "omni_worker_"
OUTCOMES = (
    "handled", "retried", "rejected", "dead", "skipped", "handed_back", "unreadable", "lapsed",
    "recognised",
)  # fmt: skip
_VERSION = version("omni-worker")  # read once: it is in a file
_BOUNDS = (*(f"{limit:g}" for limit in LIMITS), "+Inf")


def outcomes(counts: Counts) -> dict[str, int]:
    """Sort a handler's deliveries by outcome; each is counted under one of them."""
    return {
        "handled": counts.handled,
        "retried": counts.retried,
        "rejected": counts.rejected,
        "dead": counts.dead_lettered - counts.rejected - counts.unreadable,
        "skipped": counts.skipped,
        "handed_back": counts.handed_back,
        "unreadable": counts.unreadable,
        "lapsed": counts.lapsed,
        "recognised": counts.recognised,
    }


def families(metrics: Metrics) -> Iterator[Metric]:
    """Yield every family of a process."""
    buses = dict(metrics.buses)
    handlers = _by_handler(buses)
    if not metrics.app:
        return  # it has not started yet
    yield from _of_events(handlers)
    yield from _of_slots(handlers)
    yield from _of_limits(handlers)
    yield from _of_consumers(buses)
    yield from _of_stored(buses)
    yield from _of_publishing(metrics)
    yield from _of_process(metrics, buses)


_Buses = Mapping[EventBus, Looks]
_Handlers = dict[tuple[str, str], list[Subscription]]


def _by_handler(buses: _Buses) -> _Handlers:
    """Group by app and name: a function that is subscribed twice is one series."""
    found: _Handlers = {}
    for bus in buses:
        for one in bus.subscriptions:
            found.setdefault((one.handler.app, one.handler.name), []).append(one)
    return found


def _of_events(handlers: _Handlers) -> Iterator[Metric]:
    labels = ("app", "handler")
    events = _counter("events", "Deliveries by what became of them.", (*labels, "outcome"))
    ran = _histogram(
        "handler_duration_seconds", "Time in the handler, of each call.", (*labels, "outcome")
    )
    waited = _histogram(
        "event_wait_seconds", "From stored to begun, of the first run of each event.", labels
    )
    for names, subscriptions in handlers.items():
        total = dict.fromkeys(OUTCOMES, 0)
        for one in subscriptions:
            for outcome, count in outcomes(one.counts).items():
                total[outcome] += count
        for outcome, count in total.items():
            events.add_metric((*names, outcome), count)
        times = [one.times for one in subscriptions if one.times is not None]
        _add(ran, (*names, "ok"), [one.succeeded.read() for one in times])
        _add(ran, (*names, "failed"), [one.failed.read() for one in times])
        _add(waited, names, [one.waits.read() for one in times])
    yield from (events, ran, waited)


def _of_slots(handlers: _Handlers) -> Iterator[Metric]:
    labels = ("app", "handler")
    running = _gauge("running", "Events in the handler right now.", labels)
    held = _gauge("held", "Events that run or wait in the process.", labels)
    concurrency = _gauge("concurrency", "Events that may run at once.", labels)
    prefetch = _gauge("prefetch", "Events that may be held in addition to those that run.", labels)
    busy = _counter("slot_busy_seconds", "Time of all slots with an event, or a batch.", labels)
    breaker = _gauge("breaker_open", "1 while the breaker lets only trials run.", labels)
    stalled = _gauge("stalled", "1 while something keeps the handler from its events.", labels)
    for names, subscriptions in handlers.items():
        running.add_metric(names, sum(one.running for one in subscriptions))
        held.add_metric(names, sum(one.held for one in subscriptions))
        concurrency.add_metric(names, sum(one.scaling.concurrency for one in subscriptions))
        prefetch.add_metric(names, sum(one.flow.credit.ahead for one in subscriptions))
        busy.add_metric(names, sum(one.busy_seconds for one in subscriptions))
        breaker.add_metric(names, any(one.is_on_trial for one in subscriptions))
        stalled.add_metric(names, any(one.stalls for one in subscriptions))
    yield from (running, held, concurrency, prefetch, busy, breaker, stalled)


def _of_limits(handlers: _Handlers) -> Iterator[Metric]:
    limited = _gauge(
        "limited_events", "Held events that wait for their rate or limit.", ("app", "handler", "by")
    )
    for names, subscriptions in handlers.items():
        waiting: Counter[str] = Counter()
        for one in subscriptions:
            for by, count in one.flow.limited.items():
                waiting[by] += count()
        for by, events in waiting.items():
            limited.add_metric((*names, by), events)
    yield limited


def _of_consumers(buses: _Buses) -> Iterator[Metric]:
    labels = ("app", "handler", "stream")
    lag = _gauge("lag_events", "Events stored and not delivered yet, at the server.", labels)
    unacked = _gauge("unacked_events", "Events delivered and not settled yet.", labels)
    again = _gauge("redelivered_events", "Of these, events delivered more than once.", labels)
    pulls = _gauge("pulls_waiting", "Requests for events, of every process.", labels)
    oldest = _gauge("oldest_waiting_seconds", "Age of the oldest unsettled event.", labels)
    paused = _gauge("paused", "1 while an operator has paused the consumer.", labels)
    seen: dict[tuple[str, str, str], list[float]] = {}
    for bus, looks in buses.items():
        looks.look_if_due()
        for one in bus.subscriptions:
            for info in list(one.unanswered.seen.values()):
                row = seen.setdefault((one.handler.app, one.handler.name, info.stream), [0.0] * 6)
                row[0] += info.num_pending
                row[1] += info.num_ack_pending
                row[2] += info.num_redelivered
                row[3] += info.num_waiting
                row[4] = max(row[4], looks.oldest.seconds(info))
                row[5] = max(row[5], float(info.is_paused))
    gauges = (lag, unacked, again, pulls, oldest, paused)
    for names, row in seen.items():
        for gauge, value in zip(gauges, row, strict=True):
            gauge.add_metric(names, value)
    yield from gauges


def _of_stored(buses: _Buses) -> Iterator[Metric]:
    letters = _gauge("dead_letters", "Open dead letters, at the server.", ("app", "handler"))
    scheduled = _gauge("scheduled_events", "Events and crons that are not due yet.", ("app",))
    outbox = _gauge("outbox_events", "Events due or committed, and not published yet.", ("app",))
    for bus, looks in buses.items():
        counts = looks.letters.counts
        if counts is not None and not looks.letters.is_denied:
            open_by_name = dict.fromkeys((one.handler.name for one in bus.subscriptions), 0)
            for handler, count in counts.items():
                name = handler if handler in open_by_name else OTHER
                open_by_name[name] = open_by_name.get(name, 0) + count
            for name, count in open_by_name.items():
                letters.add_metric((bus.name, name), count)
        if looks.kept.is_denied:
            continue
        for gauge, number in ((scheduled, looks.kept.scheduled), (outbox, looks.kept.outbox)):
            if number is not None:
                gauge.add_metric((bus.name,), number)
    yield from (letters, scheduled, outbox)


def _of_publishing(metrics: Metrics) -> Iterator[Metric]:
    app = metrics.app
    published = _counter("published", "Published events.", ("app", "type", "result"))
    for (type, result), count in list(metrics.published.counts.items()):
        published.add_metric((app, type, result), count)
    took = _histogram("publish_duration_seconds", "Time until a publish is confirmed.", ("app",))
    _add(took, (app,), [metrics.publish_times.read()])
    yield from (published, took)


def _of_process(metrics: Metrics, buses: _Buses) -> Iterator[Metric]:
    app = metrics.app
    connected = _gauge("connected", "1 while the server can be reached.", ("app",))
    lag = _gauge("loop_lag_seconds", "How late the event loop was, at worst, in 15 s.", ("app",))
    build = _gauge("build_info", "Always 1.", ("version", "python", "nats_server"))
    for bus in buses:
        connected.add_metric((bus.name,), bus.is_connected)
        lag.add_metric((bus.name,), bus.loop_lag.worst)
        server = ".".join(map(str, bus.transport.server_version))
        build.add_metric((_VERSION, platform.python_version(), server), 1)
        break  # an app runs once in a process
    reconnects = _counter("reconnects", "Connections after the first.", ("app",))
    reconnects.add_metric((app,), max(0, metrics.connections - 1))
    recoveries = _counter(
        "recoveries", "Consumers created again, streams replaced, resets, pulls repeated.",
        ("app", "kind"),
    )  # fmt: skip
    for (owner, kind), count in list(metrics.recoveries.items()):
        recoveries.add_metric((owner, kind), count)
    started = _gauge("start_time_seconds", "When the process started.", ("app",))
    started.add_metric((app,), metrics.started)
    yield from (connected, lag, build, reconnects, recoveries, started)


def _add(family: HistogramMetricFamily, labels: Sequence[str], read: Sequence[Histogram]) -> None:
    if not read:
        return
    counted, buckets = 0, []
    columns = zip(*(one.buckets for one in read), strict=True)
    for bound, counts in zip(_BOUNDS, columns, strict=True):
        counted += sum(counts)
        buckets.append((bound, float(counted)))
    family.add_metric(labels, buckets, sum(one.total for one in read))


def _counter(name: str, says: str, labels: Sequence[str]) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, says, labels=labels)


def _gauge(name: str, says: str, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, says, labels=labels)


def _histogram(name: str, says: str, labels: Sequence[str]) -> HistogramMetricFamily:
    return HistogramMetricFamily(PREFIX + name, says, labels=labels)
