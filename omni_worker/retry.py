"""Retry: how often and after which delay a failed event is tried again. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigError

DAY = 86_400  # seconds; no delay is longer


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The delay before retry ``n`` is ``delay * factor**(n-1)``, at most ``cap``, ± ``jitter``.

    All delays are seconds. The defaults give three retries after about 1, 2 and 4 seconds.
    """

    retries: int = 3
    delay: float = 1.0
    factor: float = 2.0
    cap: float = 30.0
    jitter: float = 0.1  # share of the delay, both ways

    def __post_init__(self) -> None:
        whole = isinstance(self.retries, int) and not isinstance(self.retries, bool)
        _require(whole and self.retries >= 0, "retries", self.retries, "a whole number, 0 or more")
        _check("delay", self.delay, 0, DAY, "seconds, 0 to 86400")
        _check("factor", self.factor, 1, 1_000, "1 to 1000")
        _check("cap", self.cap, 0, DAY, "seconds, 0 to 86400")
        _check("jitter", self.jitter, 0, 1, "a share between 0 and 1")
        _require(self.delay <= self.cap, "cap", self.cap, f"at least delay={self.delay!r}")

    @property
    def attempts(self) -> int:
        """Maximum number of runs: the first one and every retry."""
        return self.retries + 1


def retry_delay(policy: RetryPolicy, attempt: int, randomness: float) -> float:
    """Seconds to wait after failed attempt ``attempt`` (1 is the first).

    ``randomness`` in [0, 1) is given from outside, so that a test can name the result.
    """
    # The exponent is bounded: 2.0 ** 1024 is an OverflowError, and cap decides long before.
    grown = policy.delay * policy.factor ** min(attempt - 1, 64)
    return min(grown, policy.cap) * (1 + policy.jitter * (2 * randomness - 1))


def _check(option: str, value: object, low: float, high: float, expected: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    _require(number and low <= value <= high, option, value, expected)  # type: ignore[operator]


def _require(holds: bool, option: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"RetryPolicy({option}={value!r}): expected {expected}")
