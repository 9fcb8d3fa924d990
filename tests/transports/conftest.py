"""Fixtures of the transport tests: one transport of the test's backend."""

from __future__ import annotations

import pytest

from omni_worker.transports.base import Transport

# Before it is imported: its assertions explain themselves like a test file's.
pytest.register_assert_rewrite("tests.transports.suite")

from .suite import Backend  # noqa: E402


@pytest.fixture
async def transport(backend: Backend) -> Transport:
    """An open transport; the backend closes it."""
    return await backend.connect()
