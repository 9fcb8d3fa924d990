"""Pins: a consumer that serves one of the processes that read it at a time (ADR-42). Pure.

Where the order over several processes matters, the server pins one client, by a priority group of
the consumer; the others stand by. A process of an older version does not name the group in its
requests, and the server refuses them: so a consumer gets one, and loses it again, only while no
process reads it that wants it otherwise.
"""

from __future__ import annotations

from typing import Any

from ..transports.infos import ConsumerConfig
from .notices import Notice, NoticeKind
from .streams import NANO, TAG

GROUP = "active"
PINNED_FOR = 5.0  # seconds after the last sign of a process until the next one is served
SINCE = (2, 12, 0)  # nats-server
_POLICY = "pinned_client"


def can_pin(version: tuple[int, int, int]) -> bool:
    """Return True if a server can serve one process at a time."""
    return version >= SINCE


def pin_fields(*, pinned: bool) -> dict[str, Any]:
    """Return the fields of a configuration for the group, if it is to have one."""
    if not pinned:
        return {}
    timeout = int(PINNED_FOR * NANO)
    return {"priority_groups": [GROUP], "priority_policy": _POLICY, "priority_timeout": timeout}


def is_pinned(config: ConsumerConfig) -> bool:
    """Return True if a consumer has the group that we give one."""
    raw = config.raw
    return raw.get("priority_groups") == [GROUP] and raw.get("priority_policy") == _POLICY


def with_pin(config: ConsumerConfig, *, pinned: bool) -> dict[str, Any]:
    """Return a consumer's configuration with the group, or without any."""
    kept = {key: value for key, value in config.raw.items() if not key.startswith("priority_")}
    return {**kept, **pin_fields(pinned=pinned)}


def pin_changes(config: ConsumerConfig, *, one_active: bool) -> dict[str, tuple[Any, Any]]:
    """Return the group where it differs from what we need, as (there, wanted).

    A consumer that another program created is read as it is: all processes are served at once.
    """
    there = config.raw.get("priority_groups")
    wants = one_active and (there or TAG + "app" in config.metadata)
    if is_pinned(config) if wants else not there:
        return {}
    return {"priority_groups": (there or "none", [GROUP] if wants else "none")}


def next_pin(
    config: ConsumerConfig,
    changes: dict[str, tuple[Any, Any]],
    *,
    one_active: bool,
    is_read: bool,
    narrow: bool,
) -> tuple[bool, tuple[Notice, ...]]:
    """Return whether the consumer is to have the group, and what there is to say about it.

    It changes here only if an operator asks for it (``narrow``) and nothing reads it; else the
    workers change it. What stays is removed from ``changes``.
    """
    has = is_pinned(config)
    if has == one_active or (narrow and not is_read):
        return one_active, ()
    if is_pinned(config) or not config.raw.get("priority_groups"):
        changes.pop("priority_groups", None)
    if not narrow:
        return has, ()
    how = "one process at a time" if has else "all its processes at once"
    says = f"serves {how} while others read it; workers change that when no older version does"
    return has, (Notice(NoticeKind.GROUP_KEPT, says),)
