"""Retry: the delays, as numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_worker.errors import ConfigError
from omni_worker.outcomes import Retry
from omni_worker.retry import RetryPolicy, retry_delay

MIDDLE = 0.5  # of the randomness: no jitter


def test_by_default_three_retries_follow_after_1_2_and_4_seconds() -> None:
    policy = RetryPolicy()

    assert policy.attempts == 4
    assert [retry_delay(policy, attempt, MIDDLE) for attempt in (1, 2, 3)] == [1.0, 2.0, 4.0]


def test_a_delay_stops_growing_at_the_cap() -> None:
    assert retry_delay(RetryPolicy(), 6, MIDDLE) == 30.0
    assert retry_delay(RetryPolicy(), 1_000_000, MIDDLE) == 30.0


@pytest.mark.parametrize(("randomness", "expected"), [(0.0, 0.9), (0.5, 1.0), (1.0, 1.1)])
def test_jitter_is_a_tenth_both_ways(randomness: float, expected: float) -> None:
    assert retry_delay(RetryPolicy(), 1, randomness) == pytest.approx(expected)


@given(
    delay=st.floats(0, 86_400),
    factor=st.floats(1, 1_000),
    jitter=st.floats(0, 1),
    attempt=st.integers(1, 10_000),
    randomness=st.floats(0, 1, exclude_max=True),
)
def test_every_policy_gives_a_delay_the_server_can_take(
    delay: float, factor: float, jitter: float, attempt: int, randomness: float
) -> None:
    policy = RetryPolicy(delay=delay, factor=factor, cap=86_400, jitter=jitter)

    assert 0 <= retry_delay(policy, attempt, randomness) <= 2 * 86_400


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("retries", -1), ("retries", 1.5), ("retries", "3"), ("retries", True), ("retries", None),
        ("delay", -1), ("delay", float("nan")), ("delay", float("inf")), ("delay", "1"),
        ("delay", True), ("factor", 0.5), ("factor", float("inf")), ("factor", float("nan")),
        ("cap", -1), ("cap", float("inf")), ("cap", None), ("jitter", -0.1), ("jitter", 1.1),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_work_names_the_option(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"RetryPolicy\({option}=.*\): expected"):
        RetryPolicy(**{option: value})


def test_a_cap_below_the_first_delay_is_refused_for_it_would_shorten_it_in_silence() -> None:
    with pytest.raises(ConfigError, match=r"RetryPolicy\(cap=30.0\): expected at least delay=60"):
        RetryPolicy(delay=60)


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf")])
def test_a_retry_takes_seconds_from_zero_up(after: float) -> None:
    with pytest.raises(ValueError, match=r"Retry\(after="):
        Retry(after=after)
