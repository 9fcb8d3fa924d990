"""Sentry, structlog and Logfire: the code of their page, run with the real packages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..processes.support import clean_environment
from .blocks import BLOCKS

APP = """
import asyncio
from omni_worker import App
from omni_worker.testing import TestWorker

app = globals().get("app") or App("shop")


@app.on("custom.order", durable="orders", max_retries=1, retry_delay=0)
async def charge(event):
    note()
    raise KeyError("code")


async def main():
    async with TestWorker(app) as worker:
        await worker.publish("custom.order", {}, id="order-1")
        await worker.settle()


asyncio.run(main())
"""


def beside(package: str) -> Path:
    """The folder of a package that is not installed beside the rest; see the Makefile."""
    folder = Path(sys.prefix) / package
    if package == "logfire" and not folder.is_dir():
        pytest.fail("logfire is not installed: make install")
    return folder


def run(package: str, before: str, after: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the page's block that imports a package, an app that fails, and a look at the result."""
    [block] = [
        one for one in BLOCKS
        if one.file == "docs/reporting.md" and f"import {package}\n" in one.code
    ]  # fmt: skip
    program = folder / "program.py"
    program.write_text("\n".join((block.code, before, APP, after)))
    environment = clean_environment() | {
        "SENTRY_DSN": "", "LOGFIRE_CONSOLE": "false", "PYTHONPATH": str(beside(package)),
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(program)], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended


def test_structlog_shows_our_lines_and_names_the_event_in_those_of_a_handler(
    tmp_path: Path,
) -> None:
    note = """
def note():
    structlog.contextvars.bind_contextvars(customer="ana")
    structlog.get_logger().info("charging")
    logging.getLogger("bank").warning("slow")
"""

    ended = run("structlog", note, "", tmp_path)

    lines: list[dict[str, Any]] = [json.loads(line) for line in ended.stderr.splitlines()]
    [letter] = [one for one in lines if one.get("omni_signal") == "DeadLettered"]
    assert letter["event"].startswith(
        "[charge order-1] dead letter #1 after attempt 2 of 2: KeyError"
    )
    assert (letter["level"], letter["omni_event"]) == ("error", "order-1")
    charging = [one for one in lines if one["event"] == "charging"]
    assert [(one["customer"], one["level"]) for one in charging] == [("ana", "info")] * 2
    slow = [one for one in lines if one["event"] == "slow"]
    for written in (charging, slow):
        assert [(one["omni_event"], one["omni_attempt"]) for one in written] == [
            ("order-1", 1), ("order-1", 2),
        ]  # fmt: skip


def test_logfire_has_a_span_for_each_run_and_what_was_logged_below_it(tmp_path: Path) -> None:
    exporter = """
from logfire.testing import TestExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

exporter = TestExporter()
logfire.configure(
    service_name="shop", send_to_logfire=False,
    additional_span_processors=[SimpleSpanProcessor(exporter)],
)


def note():
    logfire.info("charging {order}", order=1)
"""
    look = """
import json
print(json.dumps(exporter.exported_spans_as_dict()))
"""

    ended = run("logfire", exporter, look, tmp_path)

    spans = json.loads(ended.stdout.splitlines()[-1])
    runs = [one for one in spans if one["name"] == "process custom.order"]
    assert [one["attributes"]["omni_worker.outcome"] for one in runs] == ["retried", "dead"]
    ids = [one["context"]["span_id"] for one in runs]
    notes = [one for one in spans if one["name"] == "charging {order}"]
    assert [one["parent"]["span_id"] for one in notes] == ids
    [letter] = [one for one in spans if one["attributes"].get("omni_signal") == "DeadLettered"]
    assert letter["parent"]["span_id"] == ids[1]
    assert [one["name"] for one in runs[1]["events"]] == ["exception", "dead_letter"]


def test_the_app_with_sentry_runs_without_a_dsn(tmp_path: Path) -> None:
    ended = run("sentry_sdk", "def note(): sentry_sdk.set_tag('a', 'b')", "", tmp_path)

    assert "[charge order-1] dead letter #1 after attempt 2 of 2" in ended.stderr
