"""Shortening: a shorter ack_wait comes in two steps, so that no held event is given away. Pure.

A process extends its leases by the ack_wait it read last, up to ten seconds ago. The server applies
a shorter one at once to all that is held: what an older version still runs would go to another
process. So first the tag announces it, and all processes extend by it; then the consumer changes.
"""

from __future__ import annotations

from typing import Any

from ..transports.infos import ConsumerConfig
from .streams import NANO
from .tags import ACK_WAIT, NEXT_ACK_WAIT


def announced_lease(config: ConsumerConfig) -> float:
    """Return the seconds in which leases are to be extended: those of now, or announced ones.

    What an operator made longer is set right at some moment: our own counts as well.
    """
    return min(config.ack_wait, wanted_ack_wait(config))


def wanted_ack_wait(config: ConsumerConfig) -> float:
    """Return the seconds that the version started last wants, whatever others changed since."""
    for name in (NEXT_ACK_WAIT, ACK_WAIT):
        if (written := config.metadata.get(name, "")).isdecimal():
            return int(written) / NANO
    return config.ack_wait


def shortened(config: ConsumerConfig) -> dict[str, Any] | None:
    """Return the configuration with the announced ack_wait in force; None if there is none."""
    nanoseconds = _announced(config)
    if nanoseconds is None:
        return None
    tag = {key: value for key, value in config.metadata.items() if key != NEXT_ACK_WAIT}
    metadata = {**tag, ACK_WAIT: str(nanoseconds)}
    return {**config.raw, "ack_wait": nanoseconds, "metadata": metadata}


def _announced(config: ConsumerConfig) -> int | None:
    announced = config.metadata.get(NEXT_ACK_WAIT, "")
    return int(announced) if announced.isdecimal() else None
