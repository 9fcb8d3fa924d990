"""Atomic batches on the wire (ADR-50): headers, limits and versions, for every transport. Pure."""

from __future__ import annotations

from ..errors import TransportError
from .base import Message

BATCH_ID = "Nats-Batch-Id"
BATCH_SEQUENCE = "Nats-Batch-Sequence"
BATCH_COMMIT = "Nats-Batch-Commit"

MOST = 1000  # messages in one batch
OVERHEAD = 256  # bytes that these headers add to a message, at most
LEAST_VERSION = (2, 12, 1)


def in_batch(message: Message, id: str, number: int, *, is_last: bool) -> Message:
    """Return a message as number ``number``, from 1, of a batch."""
    headers = {**message.headers, BATCH_ID: id, BATCH_SEQUENCE: str(number)}
    if is_last:
        headers[BATCH_COMMIT] = "1"
    return message._replace(headers=headers)


def check_version(version: tuple[int, int, int]) -> None:
    """Refuse a server that would store the messages of a batch one by one."""
    if version < LEAST_VERSION:
        needed, found = (".".join(map(str, one)) for one in (LEAST_VERSION, version))
        raise TransportError(
            f"several events all or none need nats-server {needed} or newer; this one is {found}"
        )
