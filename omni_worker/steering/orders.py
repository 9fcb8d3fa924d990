"""Orders: what people ordered of a handler, with who and why. Kept in a bucket of ours.

A pause itself is the server's; its order says whose it is, and reaches consumers made later.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..topology import NANO
from ..transports.base import Operators, StoredMessage
from ..transports.timestamps import nanoseconds, timestamp

BUCKET = "omni-worker-orders"
STREAM = f"KV_{BUCKET}"
TTL = 0.0  # an order stays until it is taken back
FOR_EVER = 36_500 * 86_400 * NANO  # the server pauses until a time: in a hundred years

PAUSE, SCALE = "pause", "scale"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOrder:
    """An order to run so many events at once in each process. ``at``: epoch nanoseconds."""

    at: int
    concurrency: int
    by: str
    reason: str = ""


Order = TypeVar("Order", PauseOrder, ScaleOrder)


def order_key(kind: str, app: str, handler: str) -> str:
    """Return the key of an order in the bucket."""
    return f"{kind}.{app}.{handler}"


def order_value(order: PauseOrder | ScaleOrder) -> bytes:
    """Write an order."""
    what: dict[str, Any] = (
        {"until": order.until_text}
        if isinstance(order, PauseOrder)
        else {"concurrency": order.concurrency}
    )
    by = {"by": order.by, "reason": order.reason}
    return json.dumps({"at": timestamp(order.at), **what, **by}).encode()


async def read_pauses(operators: Operators, app: str = "*") -> dict[Key, PauseOrder]:
    """Read every pause, or those of one app; one request for each, and one more."""
    return await _read(operators, PAUSE, app, _pause)


async def read_pause(operators: Operators, app: str, handler: str) -> PauseOrder | None:
    """Read the pause of one handler; None if there is none."""
    subject = f"$KV.{BUCKET}.{order_key(PAUSE, app, handler)}"
    found = await operators.next_message(STREAM, 1, subject)
    return None if found is None else _pause(found)


async def read_scales(operators: Operators, app: str = "*") -> dict[Key, ScaleOrder]:
    """Read every ordered concurrency, or those of one app, as ``read_pauses`` does."""
    return await _read(operators, SCALE, app, _scale)


def pause_in_words(order: PauseOrder, handler: str) -> str:
    """Say until when, by whom and why a handler is paused, and how it goes on."""
    end = "" if order.is_endless else f" until {order.until_text[:19].replace('T', ' ')} UTC"
    why = f" ({order.reason})" if order.reason else ""
    return f"paused{end} by {order.by}{why}; to resume: omni-worker resume {handler}"


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


def scale_in_words(order: ScaleOrder, handler: str) -> str:
    """Say how many events run at once, by whose order and why, and how it ends."""
    why = f" ({order.reason})" if order.reason else ""
    at_once = f"{order.concurrency} event{'' if order.concurrency == 1 else 's'} at once"
    return f"scaled to {at_once} by {order.by}{why}; to end it: omni-worker scale {handler} --reset"


def scale_json(order: ScaleOrder | None) -> dict[str, Any] | None:
    """Write an ordered concurrency for programs."""
    if order is None:
        return None
    return {
        "since": timestamp(order.at),
        "concurrency": order.concurrency,
        "by": order.by,
        "reason": order.reason,
    }


async def _read(
    operators: Operators, kind: str, app: str, parse: Callable[[StoredMessage], Order | None]
) -> dict[Key, Order]:
    orders: dict[Key, Order] = {}
    sequence = 1
    while True:
        found = await operators.next_message(STREAM, sequence, f"$KV.{BUCKET}.{kind}.{app}.*")
        if found is None:
            return orders
        sequence = found.sequence + 1
        owner, handler = found.subject.split(".")[-2:]
        if (order := parse(found)) is not None:
            orders[owner, handler] = order


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


def _scale(message: StoredMessage) -> ScaleOrder | None:
    """Read one value; None if the order was taken back, or cannot be read."""
    try:
        raw = json.loads(message.body)
        concurrency = int(raw["concurrency"])
        if concurrency < 1:
            return None
        return ScaleOrder(
            at=nanoseconds(raw["at"]),
            concurrency=concurrency,
            by=str(raw["by"]),
            reason=str(raw["reason"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
