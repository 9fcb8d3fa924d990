"""Fixtures of the transport tests: one transport of the test's backend."""

from __future__ import annotations

import pytest

from omni_worker.transports.base import Transport

from .suite import Backend


@pytest.fixture
async def transport(backend: Backend) -> Transport:
    """An open transport; the backend closes it."""
    return await backend.connect()
