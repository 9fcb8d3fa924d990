"""The first hour of a Celery user: docs/from-celery.md typed in, on a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer

from ..processes.support import PROGRAM
from ..test_examples import environment, running
from ..waiting import until
from .blocks import BLOCKS


async def test_tasks_as_events_over_four_workers_a_stop_and_a_failure(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    shop, web = (
        one.code
        for one in BLOCKS
        if (one.file, one.title) == ("docs/from-celery.md", "omni-worker")
    )
    (tmp_path / "shop.py").write_text(shop)
    (tmp_path / "web.py").write_text(web)
    url = nats_server.url

    async with running("shop:app", tmp_path, url, tmp_path, "--workers", "4") as worker:
        call(tmp_path, url, sys.executable, "web.py")
        await worker.until("ana 1")

    call(tmp_path, url, sys.executable, "web.py")  # waits: nothing runs
    async with EventBus(url, name="web") as bus:
        await bus.publish("custom.order.placed", {"customer": "bob"})
    async with running("shop:app", tmp_path, url, tmp_path) as worker:
        await worker.until("ana 1")
        await until(
            lambda: "place (orders)" in call(tmp_path, url, PROGRAM, "dead-letters", "list")
        )
        [letter] = [
            json.loads(line)
            for line in call(
                tmp_path, url, PROGRAM, "dead-letters", "list", "--json", "--handler", "orders"
            ).splitlines()
        ]

    assert letter["error"].endswith("amount: Field required")


def call(folder: Path, url: str, *command: str) -> str:
    """Run a command to its end; returns what it printed."""
    done = subprocess.run(
        command, cwd=folder, env=environment(url), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
