"""`omni-worker server` and `version`: a server of one's own, and what runs here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from omni_worker.errors import TransportError
from omni_worker.nats_server import LOOPBACK, NatsServer
from tests.processes.support import PROGRAM, api, clean_environment, make_stream, plain_client

from .support import call, too_wide


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The server command with a free port, and its four lines."""
    process = subprocess.Popen(
        [PROGRAM, "server", "--port", "0", *arguments],
        cwd=folder,
        env=clean_environment() | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, [process.stdout.readline().rstrip("\n") for _ in range(4)]
        process.stdout.close()
    finally:
        process.kill()
        process.wait()


def address(line: str) -> str:
    return next(word for word in line.split() if word.startswith("nats://"))


@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_jetstream_on_loopback_until_it_is_told_to_stop(
    tmp_path: Path, one: signal.Signals
) -> None:
    with running(tmp_path) as (process, lines):
        url = address(lines[0])
        assert lines[0] == f"nats-server with JetStream on {url} (loopback only)"
        assert url.startswith(f"nats://{LOOPBACK}:")
        assert lines[2:] == [f"In other terminals: export NATS_URL={url}", "Ctrl-C stops it."]
        client = await plain_client(url)
        await make_stream(client, "ORDERS", "orders.>")
        await client.close()

        process.send_signal(one)

        assert process.wait(10) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, int(url.rpartition(":")[2])))


async def test_its_data_is_temporary_unless_a_store_is_given(tmp_path: Path) -> None:
    with running(tmp_path) as (process, lines):
        store = Path(lines[1].removeprefix("data in ").partition(" (")[0])
        assert lines[1].endswith(" (temporary, removed at the end)")
        assert store.is_dir()
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert not store.exists()

    kept = tmp_path / "kept"
    for number in range(2):
        with running(tmp_path, "--store", str(kept)) as (process, lines):
            assert lines[1] == f"data in {kept} (kept)"
            client = await plain_client(address(lines[0]))
            if number == 0:
                await make_stream(client, "ORDERS", "orders.>")
            assert (await api(client, "STREAM.NAMES"))["streams"] == ["ORDERS"]
            await client.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]

        ended = call("server", "--port", str(port), folder=tmp_path, TMPDIR=str(tmp_path))

    assert ended.code == 1
    assert ended.err == f"omni-worker: port {port} is taken; --port 0 takes a free one\n"
    assert list(tmp_path.glob("omni-worker-*")) == []


def test_a_server_that_ends_by_itself_ends_the_command(tmp_path: Path) -> None:
    with running(tmp_path) as (process, _):
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)

        assert process.wait(10) == 1
        assert process.stdout is not None
        assert "nats-server ended by itself" in process.stdout.read()


def test_version_names_what_runs_here(tmp_path: Path) -> None:
    ended = call("version", folder=tmp_path)

    rows = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert ended.code == 0
    assert list(rows) == ["omni-worker", "Python", "nats-py", "pydantic", "nats-server"]
    for name in ("omni-worker", "nats-py", "pydantic"):
        assert rows[name] == version(name)
    assert rows["nats-server"][0].isdigit()
    assert too_wide(ended.out) == []


def test_a_server_that_ends_before_it_said_anything_is_an_error_that_says_so(
    tmp_path: Path,
) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexit 1\n")
    mute.chmod(0o755)

    with pytest.raises(TransportError, match="nats-server ended at once: it said nothing"):
        NatsServer(binary=str(mute)).start()
