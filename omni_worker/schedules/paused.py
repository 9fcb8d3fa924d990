"""Paused: a schedule as our own stream keeps it while it must not be due. Pure.

What the server would act on stands under names of ours until the schedule is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ..errors import ConfigError
from ..transports.base import Headers, Message, StoredMessage
from ..transports.timestamps import nanoseconds, timestamp
from .messages import PAUSED_HEADER, as_datetime, written_headers

BY_HEADER = "Omni-Worker-Paused-By"
REASON_HEADER = "Omni-Worker-Paused-Reason"
LONGEST = 256  # characters of a reason; it travels in a header

_SERVERS = "Nats-Schedule"  # the beginning of all header names that make a schedule
_OURS = "Omni-Worker-Paused-Schedule"
_PAUSE = (PAUSED_HEADER, BY_HEADER, REASON_HEADER)
_WRITTEN_OVER = {"Nats-Rollup": "sub", "Nats-TTL": "never"}


@dataclass(frozen=True, slots=True)
class SchedulePause:
    """Pause of one schedule: since when, by whom, and why."""

    since: datetime
    by: str
    reason: str

    @property
    def shown(self) -> str:
        """By whom, and why."""
        return f"paused by {self.by}" + (f" ({self.reason})" if self.reason else "")


def pause_of(headers: Headers) -> SchedulePause | None:
    """Return the pause of a schedule; None if it is not paused."""
    since = _first(headers, PAUSED_HEADER)
    if not since:
        return None
    by, reason = _first(headers, BY_HEADER), _first(headers, REASON_HEADER)
    try:
        return SchedulePause(as_datetime(nanoseconds(since)), by, reason)
    except ValueError:
        return None


def paused(schedule: StoredMessage, now: int, *, by: str, reason: str) -> Message:
    """Return a stored schedule as one that is never due. Raises ConfigError for the reason."""
    if len(reason) > LONGEST or not reason.isprintable() or reason != reason.strip():
        raise ConfigError(
            f"reason {reason[:40]!r}: expected up to {LONGEST} printable characters, no space at"
            " the ends"
        )
    pause = {PAUSED_HEADER: timestamp(now), BY_HEADER: by, REASON_HEADER: reason}
    return Message(
        schedule.subject, schedule.body, "", _set_aside(written_headers(schedule.headers), pause)
    )


def paused_like(message: Message, kept: StoredMessage | None) -> Message:
    """Return a schedule as it is to be kept where ``kept`` is: paused if that one is."""
    if kept is None or pause_of(kept.headers) is None:
        return message
    pause = {name: _first(kept.headers, name) for name in _PAUSE}
    return message._replace(headers=_set_aside(message.headers, pause))


def resumed(schedule: StoredMessage) -> Message:
    """Return a stored schedule without its pause, if it has one."""
    headers = _renamed(written_headers(schedule.headers), _OURS, _SERVERS)
    if pause_of(schedule.headers) is not None:
        for name in ("Nats-Rollup", *_PAUSE):
            headers.pop(name, None)
    return Message(schedule.subject, schedule.body, "", headers)


def _set_aside(headers: Mapping[str, str], pause: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a paused schedule."""
    kept = _renamed(headers, _SERVERS, _OURS) | _WRITTEN_OVER
    return kept | {name: text for name, text in pause.items() if text}


def _renamed(headers: Mapping[str, str], before: str, after: str) -> dict[str, str]:
    """Return the headers, those whose names begin with ``before`` under other names."""
    return {
        after + name.removeprefix(before) if name.startswith(before) else name: text
        for name, text in headers.items()
    }


def _first(headers: Headers, name: str) -> str:
    return next(iter(headers.get(name, ())), "")
