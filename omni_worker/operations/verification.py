"""Verification: whether a dead letter says the truth, as far as the server confirms it.

Every worker may publish dead letters, and each is only what its writer says. Sent back with an
operator's rights, a forged one would give its writer's app events that it may not read, or run an
invented event in the handler of another app.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidEvent, PermissionDenied
from ..events import DEAD_LETTER
from ..letters.notes import is_ours
from ..letters.read import DeadLetter, Pointer, original_body
from ..letters.written import kept_headers, letter_digest
from ..notes.attempts import BUCKET, TTL
from ..topology import OWN_STREAM, app_of, raw_subject
from ..transports.base import StoredMessage, Transport
from ..transports.key_value import KeyValue
from ..wire import read_envelope


class Verification:
    """Verifies dead letters on one server. Nothing is created."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._operators = transport.operators
        self._bucket: KeyValue | None = None

    async def doubt(self, letter: DeadLetter) -> str:
        """Return why a dead letter is not to be believed; empty if the server confirms it."""
        message = await self._operators.message(letter.stream, letter.sequence)
        payload = _payload_of(message)
        if payload is None:
            return "it is no longer there, or cannot be read"
        try:
            if await self._is_noted(letter, payload):
                return ""
            denied = ""
        except PermissionDenied as error:
            denied = f" ({error})"
        try:
            why = await self._why_not_original(letter, payload)
        except PermissionDenied as error:
            why = str(error)
        return f"no worker of ours noted it{denied}, and {why}" if why else ""

    async def body(self, letter: DeadLetter, pointer: Pointer) -> StoredMessage | str | None:
        """Return the message with an event's bytes; as text, why they are not read there."""
        is_origin = pointer == letter.origin
        if not is_origin and pointer.stream != OWN_STREAM.name:
            return f"its bodyRef points to {pointer.stream}, where the event never was"
        message = await self._operators.message(pointer.stream, pointer.sequence)
        if message is None or is_origin:
            return message
        if message.subject != raw_subject(letter.app or ""):
            return "its bodyRef points to a message of another app"
        return message

    async def _is_noted(self, letter: DeadLetter, payload: Mapping[str, Any]) -> bool:
        if self._bucket is None:
            if await self._operators.stream_info(f"KV_{BUCKET}") is None:
                return False
            self._bucket = await self._transport.bucket(BUCKET, ttl=TTL)
        return await is_ours(self._bucket, letter.id, letter_digest(payload, letter.app))

    async def _why_not_original(self, letter: DeadLetter, payload: Mapping[str, Any]) -> str:
        """Return what the original does not confirm: that it failed in this app, with this body."""
        origin, consumer = letter.origin, payload.get("consumer")
        if origin is None or not isinstance(consumer, str):
            return "it does not say where the event was"
        message = await self._operators.message(origin.stream, origin.sequence)
        where = f"{origin.stream} #{origin.sequence}"
        if message is None:
            return f"{where} is no longer stored"
        info = await self._operators.consumer_info(origin.stream, consumer)
        if info is None or letter.app is None or app_of(info.config) != letter.app:
            return f"no consumer of the app {letter.app!r} reads {origin.stream} as {consumer!r}"
        found = original_body(payload)
        body = message.body if found == origin else found
        same = (
            body == message.body,
            payload.get("storedAt") == message.stored_at // 1_000_000,
            payload.get("subject") == message.subject,
            payload.get("headers") == kept_headers(message.headers),
        )
        return "" if all(same) else f"what {where} holds is not this event"


def _payload_of(message: StoredMessage | None) -> Mapping[str, Any] | None:
    try:
        envelope = read_envelope(message.body, stored_at=0) if message is not None else None
    except InvalidEvent:
        return None
    if envelope is None or envelope.type != DEAD_LETTER or not isinstance(envelope.payload, dict):
        return None
    return envelope.payload
