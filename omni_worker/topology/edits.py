"""Edits: what others changed on a consumer of ours so that it loses or strands events. Pure.

Only fields that every version of an app sets alike: its own options may differ between versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..transports.infos import ConsumerConfig
from .consumers import ConsumerSpec
from .pins import is_pinned
from .streams import NANO
from .tags import ACK_WAIT

Changes = Mapping[str, tuple[Any, Any]]


def edits_of(config: ConsumerConfig, *, durable: bool = True) -> dict[str, tuple[Any, Any]]:
    """Return the fields that others changed for the worse: name → (there, wanted)."""
    raw = config.raw
    found: dict[str, tuple[Any, Any]] = {}
    if config.ack_policy != "explicit":  # what fails is never delivered again
        found["ack_policy"] = (config.ack_policy, "explicit")
    if raw.get("deliver_subject"):  # our requests are refused
        found["deliver_subject"] = (raw["deliver_subject"], "none")
    if config.max_deliver > 0:  # a retry, or what a dead worker held, is never delivered again
        found["max_deliver"] = (config.max_deliver, -1)
    if waits := raw.get("backoff"):  # replaces ack_wait
        found["backoff"] = (waits, "none")
    if raw.get("headers_only"):  # every event is unreadable
        found["headers_only"] = (True, False)
    if raw.get("priority_groups") and not is_pinned(config):  # our requests are refused
        found["priority_groups"] = (raw["priority_groups"], "none")
    if durable and raw.get("inactive_threshold"):  # removed while no worker runs
        found["inactive_threshold"] = (raw["inactive_threshold"], 0)
    ours = _written_ack_wait(config)
    if ours is not None and raw.get("ack_wait") != ours:
        found["ack_wait"] = (raw.get("ack_wait"), ours)
    return found


def without_edits(spec: ConsumerSpec, config: ConsumerConfig) -> dict[str, Any]:
    """Return the consumer's configuration without what others changed; all else is kept."""
    edits = edits_of(config, durable=spec.durable)
    dropped = {"backoff", "headers_only", "inactive_threshold"} & edits.keys()
    if "priority_groups" in edits:
        dropped |= {key for key in config.raw if key.startswith("priority_")}
    kept = {key: value for key, value in config.raw.items() if key not in dropped}
    ours = _written_ack_wait(config)
    if ours is None and "backoff" in edits:  # which has replaced it
        ours = int(spec.ack_wait * NANO)
    return {**kept, "max_deliver": -1, **({} if ours is None else {"ack_wait": ours})}


def is_beyond_repair(config: ConsumerConfig) -> bool:
    """Return True for what the server does not allow to change: it has to be recreated."""
    return config.ack_policy != "explicit" or bool(config.raw.get("deliver_subject"))


def _written_ack_wait(config: ConsumerConfig) -> int | None:
    """Return the nanoseconds that the version started last wrote; None if it was an older one."""
    written = config.metadata.get(ACK_WAIT, "")
    return int(written) if written.isdecimal() else None
