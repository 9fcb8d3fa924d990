"""Decisions: what a schedule or a cancellation may do, given what is kept under its name. Pure.

A change carries the stored time of the event that causes it, so that events handled out of order,
or a second time, end as if they had been handled once and in order. Without a cause, as outside of
a handler, it is always the newest.
"""

from __future__ import annotations

from dataclasses import dataclass

from .messages import Kept


@dataclass(frozen=True, slots=True)
class Write:
    """Write it over this sequence of the subject; 0: there must be none."""

    expected: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Change nothing; the event of this name is due, or was, at this time (None: its own)."""

    due: int | None


def decide_schedule(
    kept: Kept | None, fired: Kept | None, *, id: str, is_key: bool, cause: int | None
) -> Write | Leave:
    """Decide about a schedule: ``kept`` is on its subject, ``fired`` was due before."""
    expected = 0 if kept is None else kept.sequence
    for one in (kept, fired):
        if one is None:
            continue
        if one.id == id and (not is_key or one.cause == cause):
            return Leave(one.due)  # a second run, or a second call with one id
        if cause is not None and one.cause > cause:
            return Leave(None)
    return Write(expected)


def decide_cancel(kept: Kept | None, *, cause: int | None) -> Write | None:
    """Decide about a cancellation; None: there is nothing that it could or should change."""
    if kept is None:
        # The mark keeps an older event from scheduling it later.
        return None if cause is None else Write(0)
    if cause is not None and kept.cause > cause:
        return None
    if kept.is_cancelled and cause is None:
        return None
    return Write(kept.sequence)
