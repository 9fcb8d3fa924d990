"""Fixtures every test may use: a real nats-server for the run, a clean one for a test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from omni_worker.nats_server import NatsServer

# Before anybody imports it: its assertions explain themselves like a test file's.
pytest.register_assert_rewrite("tests.transports.suite")

# The first draw on a fresh machine makes tables of all of Unicode, which takes seconds.
# What else holds here, or in CI, stays as hypothesis has it.
settings.register_profile("patient", settings.default, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Started in the background of a script, a process ignores SIGINT, and so do all it starts: the
# commands under test would not hear their Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A real nats-server of this test's own: nothing another test left behind is on it."""
    with NatsServer() as server:
        yield server
