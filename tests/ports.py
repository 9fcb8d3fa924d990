"""Ports for the servers and proxies of tests."""

from __future__ import annotations

import random
import socket
from contextlib import closing, suppress

from omni_worker.nats_server import LOOPBACK

# The system gives outgoing connections their ports from 32768 on, or above: one of those would
# now and then have the port of a server that is down for a moment.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A loopback port that is free now, and that no outgoing connection will take."""
    while True:
        port = random.choice(PORTS)
        with suppress(OSError), closing(socket.socket()) as probe:
            probe.bind((LOOPBACK, port))
            return port
