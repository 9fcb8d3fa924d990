"""Schedules in memory: messages that a stream keeps and stores again on another subject when due.

Follows nats-server 2.14: ``@at`` times, and crons of six fields with their zone. A time of another
kind is refused as not built here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...cron import time_after
from ...subjects import matches
from ..headers import format_headers, parse_headers
from ..timestamps import nanoseconds, timestamp
from .configs import Config, refusal

SCHEDULE = "Nats-Schedule"
ZONE = "Nats-Schedule-Time-Zone"
TARGET = "Nats-Schedule-Target"
PRODUCED_TTL = "Nats-Schedule-TTL"
TTL = "Nats-TTL"
ROLLUP = "Nats-Rollup"
NEVER_EXPIRES = 0

_NOT_PASSED_ON = ("nats-schedule", "nats-msg-id", "nats-rollup", "nats-ttl", "nats-expected-")
_UNITS = {"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000}
_DURATION = re.compile(r"(?:\d+[hms])+")

Headers = Mapping[str, Sequence[str]]


class Due(NamedTuple):
    """Time of a schedule, in epoch nanoseconds, and the subject it is for."""

    at: int
    target: str
    cron: tuple[str, str] | None = None  # of one that repeats: its expression and zone


def schedule_of(config: Config, subject: str, headers: Headers, now: int) -> Due | None:
    """Return when a message is due, None for an ordinary one. Raises ApiError as the server."""
    pattern = _first(headers, SCHEDULE)
    if pattern is None:
        return None
    if not config.get("allow_msg_schedules"):
        raise refusal(subject, "message schedules is disabled", 400, 10188)
    cron = None
    try:
        if pattern.startswith("@at "):
            at = nanoseconds(pattern[4:].strip())
        elif pattern.startswith("@"):
            raise NotImplementedError(
                f"the memory transport has no schedule {pattern!r}; use a real server"
            )
        elif pattern.count(" ") == 5:
            cron = (pattern, _first(headers, ZONE) or "UTC")
            at = time_after(*cron, now)
        else:
            raise ValueError(pattern)
    except ValueError:
        raise refusal(subject, "message schedules pattern is invalid", 400, 10189) from None
    target = _first(headers, TARGET) or ""
    held = any(matches(one, target) for one in config.get("subjects") or ()) if target else False
    if not held or target == subject or any(token in ("*", ">") for token in target.split(".")):
        raise refusal(subject, "message schedules target is invalid", 400, 10190)
    return Due(at, target, cron)


def next_due(due: Due, now: int) -> Due | None:
    """Return when one that was due is due again; None if it is over."""
    return None if due.cron is None else due._replace(at=time_after(*due.cron, now))


def produced(block: bytes | None, subject: str, again: Due | None) -> bytes:
    """Return the headers of the message that a schedule produces."""
    headers = parse_headers(block)
    kept = {
        name: values[0]
        for name, values in headers.items()
        if not name.lower().startswith(_NOT_PASSED_ON)
    }
    kept |= {
        "Nats-Scheduler": subject,
        "Nats-Schedule-Next": "purge" if again is None else timestamp(again.at),
    }
    if (rollup := _first(headers, "Nats-Schedule-Rollup")) is not None:
        kept[ROLLUP] = rollup
    if (ttl := _first(headers, PRODUCED_TTL)) is not None:
        kept[TTL] = ttl
    return format_headers(kept)


def ttl_of(config: Config, subject: str, headers: Headers) -> int | None:
    """Return a message's own time to live in nanoseconds; None: as long as the stream's others."""
    text = _first(headers, TTL)
    if text is None:
        return None
    if not config.get("allow_msg_ttl"):
        raise refusal(subject, "per-message TTL is disabled", 400, 10166)
    if text == "never":
        return NEVER_EXPIRES
    if text.isdigit() and int(text):
        return int(text) * _UNITS["s"]
    if not _DURATION.fullmatch(text):
        raise refusal(subject, "invalid per-message TTL", 400, 10165)
    return sum(int(part[:-1]) * _UNITS[part[-1]] for part in re.findall(r"\d+[hms]", text))


def rolls_up(config: Config, headers: Headers) -> bool:
    """Return True if a message replaces all earlier ones of its subject."""
    if _first(headers, SCHEDULE) is not None:
        return True
    return bool(config.get("allow_rollup_hdrs")) and _first(headers, ROLLUP) == "sub"


def _first(headers: Headers, name: str) -> str | None:
    return next(iter(headers.get(name, ())), None)
