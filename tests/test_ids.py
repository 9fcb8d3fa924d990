"""Ids are the UUIDs the standard library makes."""

from __future__ import annotations

import os
import uuid

import pytest

from omni_worker import ids
from omni_worker.ids import derived_id, random_id


def test_a_random_id_is_a_uuid_of_version_4(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (bytes(16), b"\xff" * 16, *(os.urandom(16) for _ in range(500))):
        monkeypatch.setattr(os, "urandom", lambda size, value=value: value * (size // 16))
        monkeypatch.setattr(ids, "_drawn", [])

        assert random_id() == str(uuid.UUID(bytes=value, version=4))


def test_random_ids_differ() -> None:
    assert len({random_id() for _ in range(10_000)}) == 10_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
def test_a_forked_process_has_ids_of_its_own() -> None:
    random_id()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, random_id().encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(read, 36).decode() != random_id()


@pytest.mark.parametrize("name", ["", "a", "e-1\nr1\nçã", "x" * 10_000])
def test_a_derived_id_is_the_uuid_of_version_5(name: str) -> None:
    namespace = uuid.uuid4()

    assert derived_id(namespace.bytes, name) == str(uuid.uuid5(namespace, name))
