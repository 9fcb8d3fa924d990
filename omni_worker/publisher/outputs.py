"""Outputs: whether an event with a derived id is stored where the server calls it a duplicate."""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import TYPE_CHECKING

from pydantic_core import to_json

from ..errors import InvalidEvent, PermissionDenied
from ..events import Published
from ..subjects import ways_to_write
from ..wire import read_envelope

if TYPE_CHECKING:
    from . import Publisher

log = logging.getLogger("omni_worker.publish")

_said: set[str] = set()  # streams we may not look into


async def is_stored(publisher: Publisher, published: Published, same: str) -> bool:
    """Tell if the message that has this id is the event: ``same`` has its subject and digest.

    Publish middlewares may write another payload each time: behind them only the id counts. Where
    we may not look, and for a message that is no longer kept, the server is believed.
    """
    try:
        message = await publisher.operators.message(published.stream, published.sequence)
    except PermissionDenied as error:
        if published.stream not in _said:
            _said.add(published.stream)
            log.warning("a duplicate in %s is not looked at: %s", published.stream, error)
        return True
    if message is None:
        return True
    try:
        envelope = read_envelope(message.body, stored_at=message.stored_at // 1_000_000)
    except InvalidEvent:
        return False
    if envelope.id != published.id:
        return False
    if publisher.middlewares:
        return True
    subject, _, digest = same.partition("\n")
    content = to_json(envelope.payload, inf_nan_mode="constants")
    # A run before may have published it with the other setting for events without an address.
    is_there = message.subject in ways_to_write(envelope.type, subject)
    return is_there and sha256(content).hexdigest() == digest
