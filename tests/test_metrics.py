"""Metrics: each event under one outcome, a bounded number of series, and sums that never fall."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from omni_worker import App, Event, Reject, Request
from omni_worker.errors import ConfigError, InvalidEvent, PublishError
from omni_worker.metrics import Metrics, published
from omni_worker.metrics import __name__ as METRICS
from omni_worker.metrics.summed import Summed
from omni_worker.nats_server import NatsServer
from omni_worker.process.ports import Ports, Wanted, serving, use_metrics, wants_metrics
from omni_worker.process.router import Router
from omni_worker.settings import Settings
from omni_worker.subscription.run_times import FULL, Histogram, RunTimes
from omni_worker.testing import TestWorker
from omni_worker.transports.base import Message
from omni_worker.transports.jetstream import heartbeats
from omni_worker.transports.jetstream.heartbeats import Beat

from .transports.support import Proxy
from .waiting import until

DOCS = Path(__file__).parent.parent / "docs"
SCRAPE = Request(method="GET", path="/metrics")

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Order(BaseModel):
    number: int


def make_app() -> tuple[App, Metrics]:
    app = App("shop")
    metrics = app.use(Metrics())

    @app.on("custom.order.placed", durable="orders", max_retries=1)
    async def place(event: Event[Order]) -> None:
        if event.payload.number < 0:
            raise Reject("negative")
        if event.payload.number == 0:
            raise ValueError("zero")
        await app.publish("custom.mail.queued", {})

    return app, metrics


def scrape(metrics: Metrics) -> Series:
    """Scrape as Prometheus does, and read the answer with the official parser."""
    return series(metrics.answer(SCRAPE).body.decode())


def series(text: str) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def outcomes(found: Series) -> dict[str, float]:
    return {
        dict(labels)["outcome"]: value
        for (name, labels), value in found.items()
        if name == "omni_worker_events_total" and value
    }


def value(found: Series, name: str, **labels: str) -> float:
    [one] = [
        value
        for (named, has), value in found.items()
        if named == f"omni_worker_{name}" and labels.items() <= dict(has).items()
    ]
    return one


# --- one process ----------------------------------------------------------------------------------


async def test_each_delivery_is_counted_under_its_outcome() -> None:
    app, metrics = make_app()

    async with TestWorker(app) as t:
        for number in (1, 2, 0, -1):
            await t.publish("custom.order.placed", {"number": number})
        for body in (b"{", json.dumps({"id": "a", "type": "custom.order", "payload": 1}).encode()):
            await t._outside.publish(Message("custom.order.placed", body, ""), timeout=1)
        await t.settle()
        found = scrape(metrics)

    assert outcomes(found) == {
        "handled": 2, "retried": 1, "dead": 1, "rejected": 1, "unreadable": 1, "skipped": 1,
    }  # fmt: skip
    assert value(found, "handler_duration_seconds_count", outcome="ok") == 2
    assert value(found, "handler_duration_seconds_count", outcome="failed") == 3
    assert value(found, "event_wait_seconds_count") == 4
    assert value(found, "published_total", type="custom.*", result="stored") == 2
    assert value(found, "published_total", type="system.dead_letter", result="stored") == 3
    assert value(found, "publish_duration_seconds_count") == 2
    assert value(found, "concurrency") == value(found, "prefetch") == 10
    assert value(found, "connected") == 1


async def test_ten_thousand_instances_add_no_series() -> None:
    app, metrics = App("shop"), Metrics()
    app.use(metrics)

    @app.on("custom.order.>", durable="orders")
    async def place(event: Event[Any]) -> None:
        await app.publish(f"custom.reply.{event.payload}", {})

    async with TestWorker(app, patience=60) as t:
        await t.publish("custom.order.placed", 0, channel="whatsapp", instance="wa-0")
        scrape(metrics)  # it asks the server, and the next one has the answer
        await t.settle()
        few = set(scrape(metrics))
        for number in range(10_000):
            instance = f"wa-{number}"
            await t.publish("custom.order.placed", number, channel="whatsapp", instance=instance)
        await t.settle()
        many = scrape(metrics)

    assert set(many) == few
    assert value(many, "events_total", outcome="handled") == 10_001


async def test_lag_is_that_of_the_server() -> None:
    app, metrics = make_app()

    async with TestWorker(app) as t:
        found = scrape(metrics)
        await t.settle()

    assert value(found, "lag_events", stream="CUSTOM") == 0
    assert value(found, "oldest_waiting_seconds", stream="CUSTOM") == 0


async def test_a_handler_subscribed_twice_is_one_series() -> None:
    app, metrics = App("shop"), Metrics()
    app.use(metrics)

    async def hear(event: Event[Any]) -> None:
        pass

    async with TestWorker(app) as t:
        bus = t._process.bus
        for _ in range(2):
            await bus.subscribe("custom.order.placed", hear)
        await t.publish("custom.order.placed", {})
        await t.settle()
        found = scrape(metrics)

    assert outcomes(found) == {"handled": 2}


async def test_before_the_app_runs_there_is_nothing_to_count() -> None:
    _, metrics = make_app()

    assert not [name for name, _ in scrape(metrics) if name.startswith("omni_worker_")]


async def test_the_scraper_chooses_the_format() -> None:
    app, metrics = make_app()
    asked = {"accept": "application/openmetrics-text;version=1.0.0", "accept-encoding": "gzip"}

    async with TestWorker(app):
        answer = metrics.answer(Request(method="GET", path="/metrics", headers=asked))

    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.body).endswith(b"# EOF\n")


async def test_a_program_registers_them_with_its_own() -> None:
    app, registry = App("shop"), CollectorRegistry()

    @app.on("custom.order.placed", durable="orders")
    async def place(event: Event[Any]) -> None:
        pass

    registry.register(app.use(Metrics(route=False)))
    async with TestWorker(app) as t:
        await t.publish("custom.order.placed", {})
        await t.settle()
        labels = {"app": "shop", "handler": "orders", "outcome": "handled"}
        handled = registry.get_sample_value("omni_worker_events_total", labels)

    assert handled == 1
    assert app.routes() == {}


def test_prometheus_is_not_imported_until_it_is_asked() -> None:
    code = (
        "import sys, omni_worker, omni_worker.cli.commands.run, omni_worker.metrics;"
        "omni_worker.metrics.Metrics();"
        "sys.exit('prometheus_client' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (InvalidEvent("no"), "refused"), (ConfigError("no"), "refused"),
        (PublishError("?", event_id="a"), "failed"), (ValueError("?"), "failed"),
    ],
)  # fmt: skip
def test_a_publish_that_may_be_stored_is_told_from_a_refused_one(
    error: Exception, result: str
) -> None:
    counted = published.PublishedTypes()

    counted.failed("custom.a.b", error)

    assert counted.counts == {("custom.*", result): 1}


def test_types_that_no_one_declared_share_a_label() -> None:
    counted = published.PublishedTypes()
    counted.knows = {"message.received", "custom.known"}.__contains__

    for number in range(2 * published.LABELS_KEPT):
        counted.count(f"custom.made.{number}", "stored")
    for type in ("message.received", "custom.known", "other.thing"):
        counted.count(type, "stored")

    assert {label for label, _ in counted.counts} == {
        "custom.*", "message.received", "custom.known", "other",
    }  # fmt: skip


# --- times ----------------------------------------------------------------------------------------


def test_times_are_counted_up_to_their_limits() -> None:
    times, now = RunTimes(), time.time()

    times.note(now - 0.02, int((now - 0.5) * 1e9), True)
    times.note(now - 100.0, None, False)
    times.note(now + 10.0, int((now + 70.0) * 1e9), True)
    succeeded, failed, waits = times.succeeded.read(), times.failed.read(), times.waits.read()

    assert succeeded.buckets[:5] == [1, 0, 0, 1, 0]  # one clock goes back: no time at all
    assert failed.buckets[-1] == 1
    assert sum(waits.buckets) == 2
    assert waits.total == pytest.approx(0.48, abs=0.01)


@pytest.mark.parametrize(
    ("seconds", "buckets"),
    [
        ([0.001, 0.0, 0.0002], {0: 3}), ([0.0011, 0.005], {1: 2}), ([60.0, 30.1], {13: 2}),
        ([61.0, 600.0], {14: 2}), ([0.001, 61.0, 0.3, 0.25], {0: 1, 6: 1, 7: 1, 14: 1}),
        ([-1.0, -2.0], {0: 2}), ([-1.0, 0.02], {0: 1, 3: 1}), ([], {}),
    ],
)  # fmt: skip
def test_many_times_are_counted_at_once(seconds: list[float], buckets: dict[int, int]) -> None:
    counted = Histogram()

    counted.add(seconds)

    assert {index: count for index, count in enumerate(counted.buckets) if count} == buckets
    assert counted.total == pytest.approx(sum(one for one in seconds if one > 0))


def test_what_is_read_while_runs_are_noted_never_falls() -> None:
    times, reads, is_over = RunTimes(), [], threading.Event()

    def read() -> None:
        while not is_over.is_set():
            reads.append(sum(times.succeeded.read().buckets))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20 * FULL):
        times.note(0.0, 0, True)
    is_over.set()
    reader.join()

    assert reads == sorted(reads)
    assert sum(times.succeeded.read().buckets) == 20 * FULL


# --- several workers ------------------------------------------------------------------------------


def said(started: float, handled: int, *, lag: int = 0, connected: int = 1, memory: int = 5) -> str:
    return f"""
# TYPE omni_worker_events_total counter
omni_worker_events_total{{handler="orders"}} {handled}
# TYPE omni_worker_event_wait_seconds histogram
omni_worker_event_wait_seconds_bucket{{le="1"}} {handled}
omni_worker_event_wait_seconds_bucket{{le="+Inf"}} {handled}
omni_worker_event_wait_seconds_sum {handled / 2}
omni_worker_event_wait_seconds_count {handled}
# TYPE omni_worker_running gauge
omni_worker_running{{handler="orders"}} 2
# TYPE omni_worker_lag_events gauge
omni_worker_lag_events{{handler="orders"}} {lag}
# TYPE omni_worker_connected gauge
omni_worker_connected {connected}
# TYPE process_memory gauge
process_memory {memory}
# TYPE omni_worker_start_time_seconds gauge
omni_worker_start_time_seconds {started}
"""


def summed(total: Summed, **workers: str) -> Series:
    families = total.add({int(number[1:]): text for number, text in workers.items()})
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_workers_are_summed_each_number_by_its_meaning() -> None:
    found = summed(Summed(), w1=said(100, 3, lag=7), w2=said(101, 4, lag=9, connected=0, memory=6))

    assert value(found, "events_total") == 7
    assert value(found, "event_wait_seconds_bucket", le="1") == 7
    assert value(found, "event_wait_seconds_sum") == 3.5
    assert value(found, "running") == 4
    assert value(found, "lag_events") == 9
    assert value(found, "connected") == 0
    assert found["process_memory", (("worker", "1"),)] == 5
    assert found["process_memory", (("worker", "2"),)] == 6


def test_a_sum_does_not_fall_when_a_worker_begins_again_or_does_not_answer() -> None:
    total = Summed()

    before = summed(total, w1=said(100, 30), w2=said(101, 40))
    silent = summed(total, w2=said(101, 41))
    again = summed(total, w1=said(200, 2), w2=said(101, 42))
    third = summed(total, w1=said(300, 50), w2=said(101, 42))

    sums = [value(one, "events_total") for one in (before, silent, again, third)]
    assert sums == [70, 71, 74, 124]


# --- whether there are any ------------------------------------------------------------------------

NOWHERE = Ports(host="h", health=None, metrics=None)
HEALTH = Ports(host="h", health=1, metrics=None)
CHILD = Ports(host="h", health=None, metrics=None, at_parent=True)
ALONE = Ports(host="h", health=None, metrics=1)


@pytest.mark.parametrize(
    ("wanted", "ports", "routes", "is_installed", "has"),
    [
        ("auto", NOWHERE, {}, True, False), ("auto", HEALTH, {}, True, True),
        ("auto", HEALTH, {}, False, False), ("auto", CHILD, {}, True, True),
        ("auto", HEALTH, {"/metrics": None}, True, False), ("auto", ALONE, {}, True, True),
        ("on", NOWHERE, {}, True, True), ("off", HEALTH, {}, True, False),
        ("on", NOWHERE, {}, False, "pip install 'omni-worker\\[metrics\\]'"),
        ("auto", ALONE, {}, False, "pip install 'omni-worker\\[metrics\\]'"),
        ("off", ALONE, {}, True, "leave out --metrics-port"),
    ],
)  # fmt: skip
def test_metrics_are_there_where_they_can_be_asked_for(
    wanted: Wanted,
    ports: Ports,
    routes: Any,
    is_installed: bool,
    has: bool | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("omni_worker.process.ports.is_installed", lambda: is_installed)
    monkeypatch.setattr(f"{METRICS}.is_installed", lambda: is_installed)

    if isinstance(has, str):
        with pytest.raises(ConfigError, match=has):
            wants_metrics(wanted, ports, routes)
    else:
        assert wants_metrics(wanted, ports, routes) == has


@pytest.mark.parametrize(
    ("is_installed", "own_port", "said"),
    [
        (False, None, "metrics need prometheus-client: pip install 'omni-worker[metrics]'"),
        (True, None, "metrics are off: OMNI_WORKER_METRICS=on"),
        (True, 0, "metrics are answered at --metrics-port"),
    ],
)
def test_a_scrape_without_metrics_is_answered_with_the_reason(
    is_installed: bool, own_port: int | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.process.ports.is_installed", lambda: is_installed)
    router = Router()

    with serving(Ports(host="127.0.0.1", health=0, metrics=own_port), router, Router()):
        answer = router.answer(SCRAPE)

    assert (answer.status, json.loads(answer.body)["reasons"]) == (404, [said])


def test_an_app_that_uses_metrics_gets_no_second_ones() -> None:
    app, metrics = make_app()

    assert use_metrics(app, Settings(), HEALTH) is metrics
    assert app.extensions == [metrics]


# --- what is shipped ------------------------------------------------------------------------------


def expressions() -> Iterator[str]:
    dashboard = json.loads((DOCS / "grafana" / "omni-worker.json").read_text())
    yield from (one["expr"] for panel in dashboard["panels"] for one in panel["targets"])
    rules = yaml.safe_load((DOCS / "grafana" / "alerts.yml").read_text())
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])


async def test_dashboard_alerts_and_page_name_only_metrics_that_exist() -> None:
    app, metrics = make_app()
    async with TestWorker(app):
        families = [one for one in metrics.collect() if one.name.startswith("omni_worker_")]
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("", "_bucket")}
    known = {one.name + ending for one in families for ending in endings[one.type]}

    asked = set(re.findall(r"omni_worker_\w+", " ".join(expressions())))
    page = (DOCS / "metrics.md").read_text()
    on_page = set(re.findall(r"omni_worker_\w+", page))
    short = {f"omni_worker{one}" for one in re.findall(r"(?<=`)_[a-z_]+(?=`)", page)}

    assert asked <= known, asked - known
    assert on_page | short >= {one for one in known if not one.endswith("_bucket")}
    assert on_page | short <= known, (on_page | short) - known


def test_there_are_five_alert_rules_each_with_a_word_on_what_to_do() -> None:
    rules = yaml.safe_load((DOCS / "grafana" / "alerts.yml").read_text())["groups"][0]["rules"]

    assert len(rules) == 5
    assert all(rule["annotations"]["description"] for rule in rules)


async def test_a_request_that_vanished_counts_once_it_is_made_again(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BUSY", "QUIET"):
        monkeypatch.setattr(heartbeats, name, Beat(every=0.2, silence=0.5, expires=2.0))
    app, metrics = make_app()
    vanished: list[bytes] = []
    async with Proxy(nats_server) as proxy:
        proxy.drop = lambda line: (
            b"MSG.NEXT.CUSTOM.orders " in line and not vanished and not vanished.append(line)
        )
        async with app.running(settings=Settings(urls=(proxy.url,))):

            def repeated() -> float:
                pulls = ("omni_worker_recoveries_total", (("app", "shop"), ("kind", "pull")))
                return scrape(metrics).get(pulls, 0)

            await until(lambda: repeated() == 1)
            reconnects = value(scrape(metrics), "reconnects_total", app="shop")

    assert (len(vanished), reconnects, proxy.connections) == (1, 0, 1)
