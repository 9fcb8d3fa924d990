"""Orders: what people ordered of a handler, with who and why. Kept in a bucket of ours.

A pause itself is the server's; its order says whose it is, and reaches consumers made later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..topology import NANO
from ..transports.base import Operators, StoredMessage
from ..transports.timestamps import nanoseconds, timestamp

BUCKET = "omni-worker-orders"
STREAM = f"KV_{BUCKET}"
TTL = 0.0  # an order stays until it is taken back
FOR_EVER = 36_500 * 86_400 * NANO  # the server pauses until a time: in a hundred years

PAUSE = "pause"
Key = tuple[str, str]  # app and handler


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseOrder:
    """An order to deliver nothing to a handler. Times are the server's, in epoch nanoseconds."""

    at: int
    until: int
    by: str
    reason: str = ""

    @property
    def is_endless(self) -> bool:
        """True if it holds until it is taken back."""
        return self.until - self.at >= FOR_EVER

    @property
    def until_text(self) -> str:
        """Time for the server: RFC 3339."""
        return timestamp(self.until)


def order_key(kind: str, app: str, handler: str) -> str:
    """Return the key of an order in the bucket."""
    return f"{kind}.{app}.{handler}"


def order_value(order: PauseOrder) -> bytes:
    """Write an order."""
    times = {"at": timestamp(order.at), "until": order.until_text}
    return json.dumps({**times, "by": order.by, "reason": order.reason}).encode()


async def read_pauses(operators: Operators, app: str = "*") -> dict[Key, PauseOrder]:
    """Read every pause, or those of one app; one request for each, and one more."""
    pauses: dict[Key, PauseOrder] = {}
    sequence = 1
    while True:
        found = await operators.next_message(STREAM, sequence, f"$KV.{BUCKET}.{PAUSE}.{app}.*")
        if found is None:
            return pauses
        sequence = found.sequence + 1
        owner, handler = found.subject.split(".")[-2:]
        if (order := _pause(found)) is not None:
            pauses[owner, handler] = order


async def read_pause(operators: Operators, app: str, handler: str) -> PauseOrder | None:
    """Read the pause of one handler; None if there is none."""
    subject = f"$KV.{BUCKET}.{order_key(PAUSE, app, handler)}"
    found = await operators.next_message(STREAM, 1, subject)
    return None if found is None else _pause(found)


def pause_in_words(order: PauseOrder, handler: str) -> str:
    """Say until when, by whom and why a handler is paused, and how it goes on."""
    end = "" if order.is_endless else f" until {order.until_text[:19].replace('T', ' ')} UTC"
    why = f" ({order.reason})" if order.reason else ""
    return f"paused{end} by {order.by}{why}: omni-worker resume {handler}"


def pause_json(order: PauseOrder | None) -> dict[str, Any] | None:
    """Write a pause for programs."""
    if order is None:
        return None
    return {
        "since": timestamp(order.at),
        "until": None if order.is_endless else order.until_text,
        "by": order.by,
        "reason": order.reason,
    }


def _pause(message: StoredMessage) -> PauseOrder | None:
    """Read one value; None if the order was taken back, or cannot be read."""
    try:
        raw = json.loads(message.body)
        return PauseOrder(
            at=nanoseconds(raw["at"]),
            until=nanoseconds(raw["until"]),
            by=str(raw["by"]),
            reason=str(raw["reason"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
