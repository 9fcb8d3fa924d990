"""A short soak: `make soak` is the long one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from .accounts import Row
from .causes import UNNAMED, End, Fault, cause
from .soak import soak


async def test_two_faults_at_a_time_lose_nothing_and_double_only_what_is_promised(
    tmp_path: Path, rows: list[Row], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "omni_worker")  # the publisher's own troubles

    await soak(10.0, tmp_path, rows, calm=(0.2, 0.5), afterwards=2.0)

    assert {len(row.account.lost) for row in rows} == {0}


KILL = Fault("kill a worker", 10.0, 10.1, worker="w1")
SERVER = Fault("hang the server", 8.0, 9.5)


@pytest.mark.parametrize(
    ("durable", "first", "second", "faults", "why"),
    [
        ("plain", End("w1", 1, 9.9), End("w2", 2, 12.0), [KILL], "kill a worker"),
        ("once", End("w1", 1, 9.9), End("w2", 2, 12.0), [KILL], "kill a worker"),
        ("plain", End("w1", 1, 9.0), End("w2", 2, 12.0), [KILL], UNNAMED),  # was acknowledged
        ("once", End("w1", 1, 8.5), End("w2", 2, 12.0), [KILL, SERVER], "kill a worker"),
        ("plain", End("w3", 3, 9.9), End("w2", 2, 12.0), [KILL], UNNAMED),  # another one
        ("plain", End("w3", 3, 9.9), End("w3", 3, 12.0), [KILL, SERVER], UNNAMED),  # it knew
        ("plain", End("w3", 3, 8.5), End("w2", 2, 12.0), [SERVER], "hang the server"),
        ("once", End("w3", 3, 8.5), End("w2", 2, 12.0), [SERVER], UNNAMED),  # the guard's case
    ],
)
def test_a_double_is_explained_only_by_what_can_have_caused_it(
    durable: str, first: End, second: End, faults: list[Fault], why: str
) -> None:
    found = cause(durable, [second, first], faults)

    assert found == why
