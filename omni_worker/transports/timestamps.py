"""Timestamps: the server's RFC 3339 with nine digits, and epoch nanoseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def nanoseconds(time: str) -> int:
    """Convert a server timestamp (RFC 3339, up to nine digits) to epoch nanoseconds."""
    head, _, rest = time.partition(".")
    if not rest:
        return int(datetime.fromisoformat(time).timestamp()) * 1_000_000_000
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :]
    whole = int(datetime.fromisoformat(head + (zone or "Z")).timestamp())
    return whole * 1_000_000_000 + int(digits.ljust(9, "0")[:9])


def timestamp(nanoseconds: int) -> str:
    """Convert epoch nanoseconds to a timestamp as a server writes it."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def iso(when: datetime | None) -> str | None:
    """Write a moment in ISO 8601, in UTC, for programs."""
    return None if when is None else when.astimezone(UTC).isoformat().replace("+00:00", "Z")
