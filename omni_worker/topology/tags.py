"""Tags: what the metadata of a consumer says about it. Pure."""

from __future__ import annotations

from ..transports.infos import ConsumerConfig, ConsumerInfo
from .streams import TAG

ACK_WAIT = TAG + "ack_wait"  # in a consumer's tag: nanoseconds, to tell an operator's edit
NEXT_ACK_WAIT = TAG + "ack_wait_next"  # announced, see shortening
FUNCTION = TAG + "function"  # in a consumer's tag: who reads it, for people
SPLIT = TAG + "split"  # in a main consumer's tag: the name of its bare one
BUT = TAG + "but"  # in a late consumer\'s tag, see additions


def app_of(config: ConsumerConfig) -> str | None:
    """Return the app a consumer belongs to; None if another program created it."""
    return config.metadata.get(TAG + "app")


def handler_of(config: ConsumerConfig) -> str:
    """Return the name that people know a consumer by: for a bare one, the main consumer's."""
    return config.metadata.get(TAG + "handler") or config.name


def pattern_of(config: ConsumerConfig) -> tuple[str, ...]:
    """Return all filters of the handler that a consumer was first made for; empty if unknown."""
    return tuple(config.metadata.get(TAG + "pattern", "").split())


def function_of(config: ConsumerConfig) -> str:
    """Return the function that reads a consumer, in the version started last; empty if unknown."""
    return config.metadata.get(FUNCTION, "")


def origin_of(info: ConsumerInfo) -> str:
    """Return the consumer in whose place this one was created by us, else the consumer itself.

    It differs where an operator recreated the consumer: he wants its events to run again.
    """
    return info.config.metadata.get(TAG + "origin") or str(info.created)
