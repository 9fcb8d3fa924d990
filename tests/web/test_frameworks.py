"""Frameworks: the code of docs/web.md in the real servers of FastAPI and Litestar."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from omni_worker.nats_server import NatsServer, die_with_parent

from ..docs.blocks import BLOCKS
from ..ports import free_port
from ..processes.support import clean_environment
from ..waiting import until

FASTAPI, LITESTAR, BUS, PROBE = [
    block.code
    for block in BLOCKS
    if (block.file, block.language) == ("docs/web.md", "python") and "def test_" not in block.code
]
HANDLED = "order {}: 30\n"


@pytest.mark.parametrize(
    ("code", "handles"),
    [pytest.param(FASTAPI, True, id="fastapi"), pytest.param(LITESTAR, False, id="litestar"),
     pytest.param(BUS, False, id="bus")],
)  # fmt: skip
async def test_a_request_publishes_and_the_process_stops_in_good_order(
    code: str, handles: bool, nats_server: NatsServer, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(code)

    with served(tmp_path, nats_server.url) as (web, port):
        started = "Uvicorn running"  # importing a framework takes long beside other tests
        await until(lambda: started in said(tmp_path), 60, seen=lambda: said(tmp_path))
        answer = post(f"http://127.0.0.1:{port}/orders?amount=30")
        if handles:
            handled = HANDLED.format(answer["event"])
            await until(lambda: handled in said(tmp_path), seen=lambda: said(tmp_path))
        web.send_signal(signal.SIGTERM)
        await until(lambda: web.poll() is not None)

    assert len(answer["event"]) == 36
    assert "Finished server process" in said(tmp_path)


async def test_the_readiness_probe_follows_the_connection(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(PROBE)

    with NatsServer() as server, served(tmp_path, server.url) as (_, port):
        address = f"http://127.0.0.1:{port}/readyz"
        await until(lambda: status(address) == 200, 60, seen=lambda: said(tmp_path))
        server.stop()
        await until(lambda: status(address) == 503)


def status(url: str) -> int | None:
    """The status of an answer; None without one."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            code: int = response.status
            return code
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@contextmanager
def served(folder: Path, url: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`uvicorn shop:web`, and its port."""
    port = free_port()
    with (folder / "said").open("wb") as out:
        web = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "shop:web", "--port", str(port)],
            cwd=folder, env=clean_environment() | {"NATS_URL": url}, preexec_fn=die_with_parent,
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield web, port
        finally:
            web.kill()
            web.wait()


def said(folder: Path) -> str:
    """What the server printed."""
    return (folder / "said").read_text()


def post(url: str) -> dict[str, str]:
    """The answer to a POST without a body."""
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as response:
        found: dict[str, str] = json.load(response)
    return found
