"""Client: what handlers send by Omni, and the extension that opens and closes it."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import SecretStr

from ..bus import EventBus
from ..context import Context
from ..current import current_run
from ..errors import ConfigError, NotConnected
from ..extensions import Extension
from ..retry import RetryPolicy
from .bodies import (
    MOST_READ,
    MediaKind,
    Mention,
    Presence,
    media_body,
    presence_body,
    text_body,
)
from .memory import Memory, Sent, key_of
from .sender import Sender
from .target import Target, target_of

RETRY = RetryPolicy(retries=2, delay=0.5, cap=5.0)
CONNECTIONS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0)
INTERNAL = "internal"  # "channel" of an event that no channel sent
_PATH = re.compile(r"(/[A-Za-z0-9_-]+)+")


class Omni(Extension):
    """Sends messages by Omni's HTTP API: ``omni = app.use(Omni())``, or ``async with Omni()``.

    ``url`` and ``api_key`` are read from ``OMNI_URL`` and ``OMNI_API_KEY`` when it opens, if they
    are not given. ``timeout`` bounds one try, in seconds; ``retry`` says how often and how fast a
    failure is tried again within the run, and its ``cap`` is the longest wait for a `Retry-After`.
    ``transport`` replaces httpx's own, for a proxy or a certificate.

    In a handler, ``instance`` is the event's own where it is not given, the event's correlation id
    goes along, and a message that an earlier run of the event sent from this process is not sent
    again. Raises OmniError; uncaught, its class decides how the run ends.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | SecretStr | None = None,
        timeout: float = 30.0,
        retry: RetryPolicy = RETRY,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if not 0 < timeout < float("inf"):
            raise ConfigError(f"Omni(timeout={timeout!r}): expected seconds, more than zero")
        self._url = url
        self._key = SecretStr(api_key) if isinstance(api_key, str) else api_key
        self._timeout = timeout
        self._retry = retry
        self._transport = transport
        self._sender: Sender | None = None
        self._memory = Memory()
        self._openings = 0
        self.stand_in: tuple[Target, httpx.AsyncBaseTransport] | None = None  # FakeOmni's

    # --- what is sent ----------------------------------------------------------------------

    async def send_text(
        self,
        to: str,
        text: str,
        *,
        instance: str | None = None,
        reply_to: str | None = None,
        mentions: Iterable[Mention] = (),
        once: str | None = None,
    ) -> Sent:
        """Send a text to a chat or a person.

        ``reply_to`` is the id of a message that it quotes. ``once`` names this step of the
        handler: whatever the text is, a second run of the event sends nothing more.
        """
        body = text_body(to, text, reply_to, mentions)
        return await self._send("/messages/send", body, instance, once)

    async def send_media(
        self,
        to: str,
        kind: MediaKind,
        *,
        url: str | None = None,
        data: bytes | None = None,
        filename: str | None = None,
        caption: str | None = None,
        voice_note: bool = False,
        instance: str | None = None,
        once: str | None = None,
    ) -> Sent:
        """Send a file, by the URL it has (``url``) or as bytes (``data``)."""
        body = media_body(
            to, kind, url=url, data=data, filename=filename, caption=caption, voice_note=voice_note
        )
        return await self._send("/messages/send/media", body, instance, once)

    async def send_reaction(
        self,
        to: str,
        message_id: str,
        emoji: str,
        *,
        instance: str | None = None,
        once: str | None = None,
    ) -> Sent:
        """React to a message of a chat."""
        body = {"to": to, "messageId": message_id, "emoji": emoji}
        return await self._send("/messages/send/reaction", body, instance, once)

    async def send_presence(
        self,
        to: str,
        presence: Presence = "typing",
        *,
        seconds: float = 5.0,
        instance: str | None = None,
    ) -> None:
        """Show a chat that an answer is being typed or recorded; 0 seconds: until ``paused``."""
        body = presence_body(to, presence, seconds)
        await self._post("/messages/send/presence", body, instance)

    async def mark_read(
        self, chat: str, message_ids: Sequence[str], *, instance: str | None = None
    ) -> None:
        """Mark messages of a chat as read, a hundred in each request."""
        if isinstance(message_ids, str):
            raise ConfigError("mark_read: expected a list of message ids, got one text")
        for first in range(0, len(message_ids), MOST_READ):
            some = list(message_ids[first : first + MOST_READ])
            await self._post("/messages/read", {"chatId": chat, "messageIds": some}, instance)

    async def send(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        instance: str | None = None,
        once: str | None = None,
    ) -> Sent:
        """Post to another path of the API, as ``/messages/send/location``.

        ``body`` is as Omni's API takes it; ``instanceId`` is added.
        """
        if not _PATH.fullmatch(path):
            raise ConfigError(f"send({path!r}, …): expected a path, as /messages/send/location")
        return await self._send(path, body, instance, once)

    # --- life ------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self, bus: EventBus) -> AsyncIterator[Self]:
        """Stay open as long as the app runs."""
        async with self:
            yield self

    async def __aenter__(self) -> Self:
        if not self._openings:
            if self.stand_in is not None:
                target, transport = self.stand_in
            else:
                target = target_of(self._url, self._key, os.environ)
                transport = self._transport or httpx.AsyncHTTPTransport(limits=CONNECTIONS)
            self._sender = Sender(target, transport, timeout=self._timeout, retry=self._retry)
            self._memory = Memory()  # of this process: a test's new process begins without
        self._openings += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._openings -= 1
        if self._openings or self._sender is None:
            return
        sender, self._sender = self._sender, None
        try:
            await self._memory.close()
        finally:
            await sender.close()

    @property
    def is_open(self) -> bool:
        """True while messages can be sent."""
        return self._sender is not None

    def __repr__(self) -> str:
        where = self._sender.target.url if self._sender is not None else "not open"
        return f"<{type(self).__name__} {where}>"

    # --- inside ----------------------------------------------------------------------------

    async def _send(
        self, path: str, body: Mapping[str, Any], instance: str | None, once: str | None
    ) -> Sent:
        context = current_run()

        async def send() -> Sent:
            data = await self._post(path, body, instance)
            return Sent(
                _text(data, "messageId"), _text(data, "externalMessageId"), _text(data, "status")
            )

        if context is None:
            return await send()
        content = f"{path}\n{_instance(path, context, instance)}\n{sorted(body.items())!r}"
        return await self._memory.once(key_of(context, content, once), send)

    async def _post(
        self, path: str, body: Mapping[str, Any], instance: str | None
    ) -> dict[str, Any]:
        if self._sender is None:
            raise NotConnected(
                "Omni is not open: write omni = app.use(Omni()) where the app is declared, or"
                " async with Omni() as omni in a program without an app"
            )
        context = current_run()
        correlation = None if context is None else context.correlation_id
        whole = {"instanceId": _instance(path, context, instance), **body}
        return await self._sender.post(path, whole, correlation)


def _instance(path: str, context: Context[Any] | None, given: str | None) -> str:
    """Return the instance that sends: the one given, else that of the event."""
    if given:
        return given
    if context is None:
        raise ConfigError(
            f"POST {path}: outside of a handler of one event name the instance: instance=…"
        )
    event = context.event
    found = event.metadata.instance_id
    if not found and event.channel != INTERNAL:
        found = event.instance
    if not found:
        raise ConfigError(
            f"POST {path}: the event {event.type} came from no instance: name one, instance=…"
        )
    return found


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) else None
