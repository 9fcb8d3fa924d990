"""The collector of a worker's process is calmed, unless the app has set it itself."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from omni_worker.process.collector import PASS_AFTER, calm_collector


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    gc.unfreeze()  # what was collected of the tests
    yield
    gc.freeze()
    gc.enable()
    gc.set_threshold(*before)


def test_it_passes_less_often_and_not_over_what_is_there() -> None:
    gc.set_threshold(700, 11, 12)

    calm_collector()

    assert gc.get_threshold() == (PASS_AFTER, 11, 12)
    assert gc.get_freeze_count() > 1_000


@pytest.mark.parametrize("threshold", [0, PASS_AFTER, 100_000])
def test_what_the_app_set_stays(threshold: int) -> None:
    gc.set_threshold(threshold, 5, 5)
    frozen = gc.get_freeze_count()  # Python 3.12 has some of its own

    calm_collector()

    assert gc.get_threshold() == (threshold, 5, 5)
    assert gc.get_freeze_count() == frozen


def test_one_that_is_off_stays_off() -> None:
    gc.disable()
    frozen = gc.get_freeze_count()

    calm_collector()

    assert not gc.isenabled()
    assert gc.get_freeze_count() == frozen
