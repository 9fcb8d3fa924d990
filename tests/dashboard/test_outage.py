"""Outages: a NATS server that is gone is shown, and waited for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from omni_worker.nats_server import NatsServer
from tests.waiting import until

from .browsing import fill
from .test_command import served


async def test_an_outage_is_shown_and_what_came_since_is_seen_afterwards(tmp_path: Path) -> None:
    server = NatsServer(store=tmp_path)
    server.start()
    try:
        await fill(server.url, events=5, letters=2)
        with served(server.url) as (url, _):
            await until(lambda: read(url)["openDeadLetters"] == 2)
            server.stop()
            await until(lambda: read(url)["trouble"], 30)
            status = status_of(f"{url}/letters")
            server.start()
            await until(lambda: not read(url)["trouble"], 30)
            await fill(server.url, events=0, letters=5)
            await until(lambda: read(url)["openDeadLetters"] == 5, 30)
    finally:
        server.stop()

    assert status == 503


def read(url: str) -> Any:
    with urlopen(f"{url}/?format=json", timeout=20) as answer:
        return json.load(answer)


def status_of(url: str) -> int:
    try:
        with urlopen(url, timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code
