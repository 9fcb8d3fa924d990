"""Forks: a child that outlives its process keeps nothing of that process open."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from omni_worker.nats_server import LOOPBACK
from omni_worker.process.channel import PARENT_FD

from .waiting import until

FORKS = """
    import multiprocessing, socket, time
    from omni_worker.process.http import HttpServer
    from omni_worker.process.notify import Notify
    from omni_worker.process.router import Router

    notify = Notify()
    server = HttpServer("127.0.0.1", 0, Router())
    client = socket.create_connection(server._server.server_address[:2])
    while not server._server._begun:  # until the connection is accepted
        time.sleep(0.01)
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    print(child.pid, server._server.server_address[1], flush=True)
    time.sleep(600)
"""


@dataclass
class Left:
    """Remains of a killed process: a child, and the port and the channels that it had."""

    child: int
    port: int
    channel: socket.socket
    pm2: socket.socket


@pytest.fixture
def left() -> Iterator[Left]:
    (channel, theirs), (pm2, pm2s) = socket.socketpair(), socket.socketpair()
    numbers = theirs.fileno(), pm2s.fileno()
    with channel, pm2:
        with theirs, pm2s:
            process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(FORKS)],
                env={**os.environ, PARENT_FD: str(numbers[0]), "NODE_CHANNEL_FD": str(numbers[1])},
                pass_fds=numbers,
                stdout=subprocess.PIPE,
            )
        assert process.stdout is not None
        child, port = map(int, process.stdout.readline().split())
        process.kill()
        process.wait()
        process.stdout.close()
        try:
            yield Left(child, port, channel, pm2)
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def is_free(port: int) -> bool:
    """Return True if the port can be taken again, as a restarted worker does."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def is_ended(channel: socket.socket) -> bool:
    """Return True if no process has the other end of a channel."""
    channel.setblocking(False)
    try:
        return channel.recv(1) == b""
    except BlockingIOError:
        return False


async def test_a_forked_child_keeps_no_port_of_a_killed_process(left: Left) -> None:
    await until(lambda: is_free(left.port), 5.0, what="a free port")

    os.kill(left.child, 0)  # it lives


async def test_a_forked_child_keeps_no_channel_of_a_killed_process(left: Left) -> None:
    await until(lambda: is_ended(left.channel), 5.0, what="the end of our parent's channel")
    await until(lambda: is_ended(left.pm2), 5.0, what="the end of PM2's channel")

    os.kill(left.child, 0)  # it lives
