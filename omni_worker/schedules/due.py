"""Due: when an event is to be published, from ``after=`` or ``at=``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ..errors import ConfigError
from ..topology import NANO


class When(NamedTuple):
    """When to publish: seconds from now or a time, and the key that a later one replaces."""

    after: float | timedelta | None
    at: datetime | None
    key: str | None


LONGEST = 100 * 366 * 86_400  # seconds


def due_at(after: float | timedelta | None, at: datetime | None, now: int) -> int:
    """Return the time in epoch nanoseconds; ``now`` is such a time. Raises ConfigError."""
    if at is not None:
        if after is not None:
            raise ConfigError("publish(after=…, at=…): give one of them")
        return _checked_at(at, now)
    assert after is not None
    seconds = after.total_seconds() if isinstance(after, timedelta) else after
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        kind = type(after).__name__
        raise ConfigError(f"publish(after=…): expected seconds or a timedelta, got {kind}")
    if not 0 <= seconds <= LONGEST:
        raise ConfigError(f"publish(after={seconds:g}): expected seconds, from 0 to 100 years")
    return now + round(seconds * NANO)


def _checked_at(at: datetime, now: int) -> int:
    if not isinstance(at, datetime):
        raise ConfigError(f"publish(at=…): expected a datetime, got {type(at).__name__}")
    if at.tzinfo is None:
        raise ConfigError(
            f"publish(at={at.isoformat()}): a time without its zone; write"
            " datetime.now(UTC) + …, or add tzinfo="
        )
    due = round((at - _EPOCH) / timedelta(microseconds=1)) * 1000
    if due - now > LONGEST * NANO:
        raise ConfigError(f"publish(at={at.isoformat()}): more than 100 years from now")
    return due


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
