"""A server restarts under an operator's command: who watches goes on, who reads misses none."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer
from omni_worker.operations.scan import SCAN
from tests.processes.support import PROGRAM, api, clean_environment, plain_client
from tests.waiting import until, wait_until

APP = """
import json, os

from omni_worker import App, Event

app = App("shop")
file = os.open("runs.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.on("custom.order", durable="orders", start_from="first")
async def order(event: Event) -> None:
    os.write(file, json.dumps(event.id).encode() + b"\\n")
"""


@contextmanager
def running(url: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that is going on, its lines in a pipe."""
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=said, text=True, cwd=folder,
            env=clean_environment() | {"NATS_URL": url},
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def a_line(process: subprocess.Popen[str]) -> Any:
    """The next one, as JSON."""
    assert process.stdout is not None
    return json.loads(await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 60))


async def publish(url: str, *ids: str) -> None:
    async with EventBus(url, name="t") as bus:
        for id in ids:
            await bus.publish("custom.order", {}, id=id)


async def test_watching_goes_on_after_a_restart(tmp_path: Path) -> None:
    with NatsServer() as server:
        (tmp_path / "shop.py").write_text(APP)
        await publish(server.url, "o-1")
        with running(server.url, tmp_path, "status", "shop:app", "--watch", "--json") as watching:
            before = await a_line(watching)
            server.kill()
            # Longer than the tries of who only asks once: they take three seconds at most.
            await asyncio.to_thread(_until_said, tmp_path, "try 5")
            server.start()
            after = await a_line(watching)
            watching.send_signal(signal.SIGINT)

            assert await asyncio.to_thread(watching.wait, 20) == 130
        assert [one["consumers"][0]["consumer"] for one in (before, after)] == ["orders", "orders"]
        assert "connected again" in (tmp_path / "said").read_text()


async def test_tail_shows_each_event_once_over_a_restart(tmp_path: Path) -> None:
    with NatsServer() as server:
        await publish(server.url, "o-0")
        tailing = running(server.url, tmp_path, "tail", "custom.order", "--json", "--since", "1h",
                          "--follow")  # fmt: skip
        with tailing as process:
            seen = [(await a_line(process))["id"]]
            client = await plain_client(server.url)
            await until(lambda: _is_followed(client))
            await publish(server.url, "o-1", "o-2")
            seen += [(await a_line(process))["id"] for _ in range(2)]
            await client.close()
            server.kill()
            await asyncio.to_thread(_until_said, tmp_path, "try 5")
            server.start()
            await publish(server.url, "o-3", "o-4")
            seen += [(await a_line(process))["id"] for _ in range(2)]
            process.send_signal(signal.SIGINT)

            assert await asyncio.to_thread(process.wait, 20) == 130

    assert seen == ["o-0", "o-1", "o-2", "o-3", "o-4"]
    assert SCAN not in (tmp_path / "said").read_text()  # whom of ours it met is no news


async def _is_followed(client: Any) -> bool:
    """Whether tail waits for what comes."""
    listed = await api(client, "CONSUMER.LIST.CUSTOM")
    return any(one["num_waiting"] for one in listed["consumers"] or ())


async def test_replay_waits_for_the_server_and_runs_each_event_once(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    ids = [f"o-{number}" for number in range(60)]
    with NatsServer() as server:
        await publish(server.url, *ids)
        replaying = running(
            server.url, tmp_path, "replay", "shop:app", "--handler", "orders", "--since", "1h",
            "--rate", "30/s", "--dry-run", "--json",
        )  # fmt: skip
        with replaying as process:
            await until(lambda: _has_run(tmp_path, 10))
            server.kill()
            await asyncio.to_thread(_until_said, tmp_path, "try 5")
            server.start()
            summary = await a_line(process)

            assert await asyncio.to_thread(process.wait, 30) == 0

    assert (summary["handled"], summary["complete"]) == (60, True)
    assert runs(tmp_path) == ids


def runs(folder: Path) -> list[str]:
    file = folder / "runs.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def _has_run(folder: Path, count: int) -> bool:
    return len(runs(folder)) >= count


def _until_said(folder: Path, text: str) -> None:
    """Wait until the command has told this on standard error."""
    said = (folder / "said").read_text
    wait_until(lambda: text in said(), 60, what=text, seen=said)
