"""A start waits for a server that does not answer, as often as the settings say."""

from __future__ import annotations

import pytest

from omni_worker.bus.patience import patiently
from omni_worker.errors import TopologyError, Unanswered
from omni_worker.settings import Settings


def settings(retries: int | None) -> Settings:
    return Settings(reconnect_max_retries=retries, reconnect_delay=0.001)


class Step:
    """A step of the start that fails so many times."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return "done"


async def test_an_unanswered_step_is_repeated_with_a_line_for_each_try(
    caplog: pytest.LogCaptureFixture,
) -> None:
    step = Step(2, Unanswered("STREAM.LIST: no answer in 10.0 s"))

    result = await patiently(step, settings(None))

    assert result == "done"
    assert [record.getMessage().partition("; ")[2][:5] for record in caplog.records] == [
        "try 2",
        "try 3",
    ]


async def test_after_the_last_try_the_cause_is_raised() -> None:
    step = Step(9, Unanswered("STREAM.LIST: no answer in 10.0 s"))

    with pytest.raises(Unanswered):
        await patiently(step, settings(2))

    assert step.calls == 3


async def test_a_step_that_is_refused_is_not_repeated() -> None:
    step = Step(9, TopologyError("no stream stores it"))

    with pytest.raises(TopologyError):
        await patiently(step, settings(None))

    assert step.calls == 1
