"""Prometheus, the real one, with what docs/grafana ships: its rules fire, its panels are drawn."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from nats.aio.client import Client

from omni_worker import EventBus

from ..ports import free_port as another_port
from ..processes.support import Stage
from ..waiting import until
from .support import ROOT, Running
from .test_metrics import get

GRAFANA = ROOT / "docs" / "grafana"
UNPACKED = ROOT / ".venv" / "prometheus" / "usr" / "bin"
MISSING = "the tests of metrics need Prometheus: make prometheus"
# Panels of what does not happen to a healthy worker: it has no such series.
NEVER = ("omni_worker_recoveries_total",)
APP = """
app = App("play")


@app.on("custom.order.placed", durable="orders", rate="50/s")
async def place(event):
    if event.payload["number"] == 0:
        raise Reject("zero")
    await app.publish("custom.mail.queued", {}, after=3600)
    effect("handled", id=event.id)
"""


def program(name: str) -> str:
    """The one that `make prometheus` unpacks, else that on the PATH; without it: skipped."""
    found = shutil.which(name, path=str(UNPACKED)) or shutil.which(name)
    if found is None:
        pytest.fail(MISSING) if os.environ.get("CI") else pytest.skip(MISSING)
    return found


def promtool(*arguments: str, given: str | None = None) -> str:
    """Return the answer of Prometheus; an error fails the test."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False, input=given
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[int]:
    """A Prometheus that scrapes one port often; the port where it is asked."""
    (folder / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: worker\n  scrape_interval: 250ms\n  scrape_timeout: 250ms\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
    )
    port = another_port()
    started = subprocess.Popen(
        [
            program("prometheus"), f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/series", f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        cwd=folder,
    )  # fmt: skip
    try:
        yield port
    finally:
        started.terminate()
        started.wait(20)


def asked(port: int, expression: str) -> list[Any]:
    """The series of an expression, as Grafana asks for them."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}") as answer:
        said = json.load(answer)
    assert said["status"] == "success", said
    result: list[Any] = said["data"]["result"]
    return result


def panels() -> dict[str, str]:
    """Every expression of the dashboard with its variables filled in, by panel and reference."""
    board = json.loads((GRAFANA / "omni-worker.json").read_text())
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$app", "play").replace("$handler", ".*").replace("$__rate_interval", "10s")
        for panel in board["panels"]
        for target in panel["targets"]
    }  # fmt: skip


def test_the_rules_are_valid() -> None:
    assert "5 rules found" in promtool("check", "rules", str(GRAFANA / "alerts.yml"))


FIRES = {
    "OmniWorkerDeadLetters": (
        'omni_worker_events_total{app="shop",handler="orders",outcome="dead"}', "0 0 1x20", "5m",
        {"app": "shop", "handler": "orders"},
    ),
    "OmniWorkerEventsWait": (
        'omni_worker_oldest_waiting_seconds{app="shop",handler="orders",stream="CUSTOM"}',
        "600x20", "6m", {"app": "shop", "handler": "orders", "stream": "CUSTOM"},
    ),
    "OmniWorkerBreakerOpen": (
        'omni_worker_breaker_open{app="shop",handler="orders"}', "1x20", "3m",
        {"app": "shop", "handler": "orders"},
    ),
    "OmniWorkerLoopBlocked": (
        'omni_worker_loop_lag_seconds{app="shop",instance="one"}', "2x20", "2m",
        {"app": "shop", "instance": "one"},
    ),
    "OmniWorkerDisconnected": (
        'omni_worker_connected{app="shop",instance="one"}', "0x20", "2m",
        {"app": "shop", "instance": "one"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", FIRES)
def test_a_rule_fires_when_it_should_and_not_before(rule: str, tmp_path: Path) -> None:
    rules = {
        one["alert"]: one
        for one in yaml.safe_load((GRAFANA / "alerts.yml").read_text())["groups"][0]["rules"]
    }
    assert set(FIRES) == set(rules)
    series, values, at, labels = FIRES[rule]
    expected = {"exp_labels": {"severity": rules[rule]["labels"]["severity"], **labels}}
    texts = tmp_path / "rules.yml"
    texts.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": [_bare(rules[rule])]}]}))
    trial = {
        "rule_files": [str(texts)],
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "1m",
            "input_series": [{"series": series, "values": values}],
            "alert_rule_test": [
                {"alertname": rule, "eval_time": "0m", "exp_alerts": []},
                {"alertname": rule, "eval_time": at, "exp_alerts": [expected]},
            ],
        }],
    }  # fmt: skip
    (tmp_path / "trial.yml").write_text(yaml.safe_dump(trial))

    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "trial.yml"))


def _bare(rule: dict[str, Any]) -> dict[str, Any]:
    """Leave out the texts: what fires is tried here, and with which labels."""
    return {key: value for key, value in rule.items() if key != "annotations"}


async def test_every_panel_is_drawn_from_a_worker_that_runs(
    stage: Stage, plain: Client, free_port: int
) -> None:
    worker = Running(stage, stage.app(APP), "--health-port", str(free_port))
    await worker.ready()
    is_over = asyncio.Event()

    async def publish() -> None:
        async with EventBus(stage.url, name="gateway") as bus:
            while not is_over.is_set():
                for number in range(5):
                    await bus.publish("custom.order.placed", {"number": number})
                await asyncio.sleep(0.1)

    publishing = asyncio.create_task(publish())
    empty = {}
    with prometheus(stage.folder, free_port) as port:

        async def are_drawn() -> bool:
            nonlocal empty
            for name, expression in panels().items():
                if not any(one in expression for one in NEVER):
                    empty[name] = not await asyncio.to_thread(asked, port, expression)
            return not any(empty.values())

        await until(lambda: is_up(port), 30.0, what="a Prometheus that answers")
        await until(are_drawn, 60.0, seen=lambda: [name for name in empty if empty[name]])
        for name in NEVER:  # they can be asked for all the same
            [await asyncio.to_thread(asked, port, one) for one in panels().values() if name in one]
    is_over.set()
    await publishing

    promtool("check", "metrics", given=get(free_port, "/metrics")[1])


async def is_up(port: int) -> bool:
    try:
        return (await asyncio.to_thread(get, port, "/-/ready"))[0] == 200
    except OSError:
        return False
