"""Fixtures of the deployment tests: those of the process tests, and the real PM2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omni_worker.nats_server import LOOPBACK

from .. import ports
from ..processes.conftest import jetstream, plain, stage
from ..processes.support import Stage
from .support import PM2_MISSING, Pm2, find_pm2

__all__ = ["jetstream", "plain", "stage"]


@pytest.fixture
def free_port() -> int:
    """A loopback port nobody listens on."""
    return ports.free_port()


@pytest.fixture
def pm2(tmp_path: Path, free_port: int) -> Iterator[Pm2]:
    """PM2 for the example's ecosystem file, with its nats-server on a free port."""
    program = find_pm2()
    if program is None:
        pytest.fail(PM2_MISSING)  # in CI; elsewhere these tests are left out
    settings = {
        "NATS_PORT": str(free_port),
        "NATS_STORE": str(tmp_path / "nats"),
        "APP_DIR": str(tmp_path),
        "APP": "play:app",
        "EFFECTS": str(tmp_path / "effects.jsonl"),
        "WORKER": "pm2",
    }
    with Pm2(program, **settings) as pm2:
        yield pm2


@pytest.fixture
def played(tmp_path: Path, free_port: int) -> Stage:
    """Where the app stands that PM2 runs; its server is PM2's, too."""
    return Stage(tmp_path, f"nats://{LOOPBACK}:{free_port}")
