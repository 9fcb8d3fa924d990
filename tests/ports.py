"""Ports for the servers and proxies of tests."""

from __future__ import annotations

import itertools
import os
import random
import socket
from contextlib import closing, suppress

from omni_worker.nats_server import LOOPBACK

# The system gives outgoing connections their ports from 32768 on, or above: one of those would
# now and then have the port of a server that is down for a moment.
FIRST, LAST = 20_000, 32_000
# Test processes that run side by side have a share each, so that none of them takes the port of
# a server that another one has just killed.
SHARES = 12
_share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % SHARES
_size = (LAST - FIRST) // SHARES
# In turn and not at random: a port is not given twice while the first to get it is still unbound.
_ports = itertools.cycle(range(FIRST + _share * _size, FIRST + (_share + 1) * _size))
for _ in range(random.randrange(_size)):  # another run of the tests may be under way
    next(_ports)


def free_port() -> int:
    """A loopback port that is free now, and that no outgoing connection will take."""
    for port in _ports:
        with suppress(OSError), closing(socket.socket()) as probe:
            probe.bind((LOOPBACK, port))
            return port
    raise AssertionError("the ports of a cycle never end")
