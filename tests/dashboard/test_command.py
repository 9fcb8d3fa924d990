"""`omni-worker dashboard`: what it refuses to serve, and how it begins and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from omni_worker.nats_server import NatsServer
from tests.operations.support import operate
from tests.processes.support import PROGRAM, clean_environment
from tests.waiting import wait_until


@contextmanager
def served(
    url: str, *arguments: str, folder: Path = Path(), **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command; yield its address and its process."""
    process = subprocess.Popen(
        [PROGRAM, "dashboard", "--port", "0", *arguments], cwd=folder,
        env=clean_environment() | {"NATS_URL": url} | environment,
        stdout=subprocess.PIPE, stderr=sys.stderr, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://[\w.:\[\]]+", line)
        assert found, line
        yield found[0], process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--user"),
        (["--host", "::"], "--user"),
        (["--host", "0.0.0.0", "--user", "me:short"], "password"),
        (["--user-header", "X-User"], "--proxy"),
        (["--user-header", "X-User", "--proxy", "home"], "10.0.0.5"),
    ],
)
def test_an_unsafe_address_is_refused(
    nats_server: NatsServer, arguments: list[str], said: str
) -> None:
    ended = operate(nats_server.url, "dashboard", *arguments)

    assert ended.code == 2
    assert said in ended.err
    assert "short" not in ended.err


def test_a_port_that_is_taken_is_named(nats_server: NatsServer) -> None:
    with served(nats_server.url) as (address, _):
        port = address.rpartition(":")[2]

        ended = operate(nats_server.url, "dashboard", "--port", port)

    assert ended.code == 2
    assert f"--port {port}" in ended.err


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_ends_at_a_signal_although_a_live_page_is_open(
    nats_server: NatsServer, sent: signal.Signals, code: int
) -> None:
    with served(nats_server.url) as (address, process), urlopen(f"{address}/?live=1") as live:
        assert live.readline().startswith(b"event: frame")

        os.kill(process.pid, sent)

        wait_until(lambda: process.poll() is not None)
        assert process.returncode == code


def test_with_a_login_from_the_environment_it_may_be_reached_from_elsewhere(
    nats_server: NatsServer,
) -> None:
    login = {"OMNI_WORKER_DASHBOARD_USER": "me:right-horse"}
    with served(nats_server.url, "--host", "0.0.0.0", **login) as (address, _):
        asked = Request(address, headers={"Authorization": "Basic bWU6cmlnaHQtaG9yc2U="})

        with urlopen(asked) as answer:
            assert answer.status == 200
