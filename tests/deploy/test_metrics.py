"""Metrics over HTTP: a worker's, those of several workers as one, and those of a program."""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.error
import urllib.request

import pytest
from nats.aio.client import Client
from prometheus_client.parser import text_string_to_metric_families

from omni_worker.nats_server import NatsServer

from ..ports import free_port as another_port
from ..processes.support import Stage, publish_foreign
from ..waiting import until
from .support import Running

APP = """
from omni_worker import Answer, Extension


class Hello(Extension):
    def routes(self):
        return {"/hello": lambda request: Answer(body=b"hello")}


app = App("play")
app.use(Hello())


@app.on("message.received", durable="r1", start_from="first")
async def route(event):
    effect("handled", id=event.id, pid=os.getpid())
"""


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def counters(port: int) -> dict[str, float]:
    """Counted events by outcome."""
    _, text = await asyncio.to_thread(get, port, "/metrics")
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "omni_worker_events_total"
    }


async def handled(port: int) -> float:
    return (await counters(port)).get("handled", 0.0)


@pytest.fixture
def metrics_port() -> int:
    return another_port()


async def test_metrics_have_a_port_of_their_own_where_one_is_named(
    stage: Stage, plain: Client, free_port: int, metrics_port: int
) -> None:
    ports = ("--health-port", str(free_port), "--metrics-port", str(metrics_port))
    worker = Running(stage, stage.app(APP), *ports)
    await worker.ready()

    await publish_foreign(plain, 5)
    await stage.until_effects(5, "handled")

    await until(lambda: is_handled(metrics_port, 5))
    assert get(free_port, "/metrics")[0] == 404
    assert get(metrics_port, "/healthz")[0] == 404
    assert get(free_port, "/hello") == (200, "hello")


async def is_handled(port: int, count: int) -> bool:
    return await handled(port) == count


async def test_a_parent_sums_its_workers_and_the_sum_outlives_one_of_them(
    stage: Stage, plain: Client, free_port: int
) -> None:
    ports = ("--workers", "2", "--health-port", str(free_port))
    parent = Running(stage, stage.app(APP), *ports)
    await parent.until_said("all 2 workers are ready")

    await publish_foreign(plain, 60)
    await stage.until_effects(60, "handled")
    await until(lambda: is_handled(free_port, 60), seen=lambda: get(free_port, "/metrics")[1])
    first = next(one["pid"] for one in stage.effects("handled"))
    os.kill(first, signal.SIGKILL)
    await parent.until_said("died (killed by SIGKILL)")
    sums = [await handled(free_port) for _ in range(5)]
    await publish_foreign(plain, 10)
    await stage.until_effects(70, "handled")

    assert sums == sorted(sums)
    assert sums[0] >= 60
    await until(lambda: is_at_least(free_port, 70), seen=lambda: get(free_port, "/metrics")[1])


async def is_at_least(port: int, count: int) -> bool:
    return await handled(port) >= count


async def test_a_worker_without_a_port_counts_nothing(stage: Stage, plain: Client) -> None:
    app = APP + "\n    effect('measured', times=bool(app._bus.subscriptions[0].times))\n"
    worker = Running(stage, stage.app(app))
    await worker.ready()

    await publish_foreign(plain, 1)
    await stage.until_effects(1, "measured")

    assert stage.effects("measured")[0]["times"] is False


async def test_without_the_extra_a_port_for_metrics_is_refused_with_what_to_install(
    stage: Stage, nats_server: NatsServer
) -> None:
    (stage.folder / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'prometheus_client'"
        " else find(name, *rest)\n"
    )
    worker = Running(stage, stage.app(APP), "--metrics-port", "0", PYTHONPATH=str(stage.folder))

    assert await worker.exit() == 1
    assert "pip install 'omni-worker[metrics]'" in worker.said().replace("\n  ", " ")
