"""Publishing: ``publish`` and ``cancel`` as apps, buses and handlers offer them."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, Unpack, overload

from ..errors import ConfigError
from ..events import Published
from ..publisher import DEFAULT_TIMEOUT, EventFields, Publisher
from .atomic import Atomic, Cause
from .due import When
from .messages import Scheduled
from .outbox import Outbox


class Publishing:
    """Publishes events, now or later."""

    __slots__ = ()

    @overload
    def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        timeout: float = ...,
        **fields: Unpack[EventFields],
    ) -> Coroutine[Any, Any, Published]: ...

    @overload
    def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        after: float | timedelta,
        key: str | None = None,
        timeout: float = ...,
        **fields: Unpack[EventFields],
    ) -> Coroutine[Any, Any, Scheduled]: ...

    @overload
    def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        at: datetime,
        key: str | None = None,
        timeout: float = ...,
        **fields: Unpack[EventFields],
    ) -> Coroutine[Any, Any, Scheduled]: ...

    def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        after: float | timedelta | None = None,
        at: datetime | None = None,
        key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **fields: Unpack[EventFields],
    ) -> Coroutine[Any, Any, Any]:
        """Publish one event and await the server's confirmation.

        Tried again with the same id within ``timeout`` seconds, so it is stored once. With
        ``after`` (seconds, a timedelta) or ``at`` (a datetime with its zone) the server keeps it
        until then (nats-server 2.12) and the result is ``Scheduled``; one with the same ``key``
        replaces it.

        In a handler the event is caused by the handler's: correlation, trace and tenant are
        inherited, channel and instance never are. Its id is derived, so that a second run of the
        handler publishes the same event; where another message has that id, the next one is taken.
        A given ``id`` wins.

        Raises InvalidEvent for what is refused before anything is sent, PublishError when it is
        unknown whether it is stored, another TransportError when it certainly is not.
        """
        if after is None and at is None:
            if key is not None:
                raise ConfigError("publish(key=…): give after= or at=, too")
            return self._publish(type, payload, timeout, fields)
        return self._schedule(type, payload, timeout, fields, When(after, at, key))

    def atomic(self, *, timeout: float = DEFAULT_TIMEOUT) -> Atomic:
        """Publish several events, of any streams, all or none: ``async with … as tx``.

        ``await tx.publish(…)`` adds one. Leaving the block commits them, an exception discards
        them. In a handler they are caused by its event, and a second run commits the same ones
        once. ``timeout``: seconds for the commit. Needs nats-server 2.12.1.
        """
        return Atomic(self._for_atomic, timeout)

    def cancel(self, scheduled: Scheduled | str) -> Coroutine[Any, Any, bool]:
        """Cancel an event that was published with ``after`` or ``at``; True if it was in time.

        By its ``Scheduled``, its key, or without a key its id. In a handler an event that is older
        than what it would cancel changes nothing, and cancelling beforehand counts: an older event
        cannot schedule the key afterwards.
        """
        raise NotImplementedError

    def _for_atomic(self) -> tuple[Publisher, Outbox, Cause | None]:
        raise NotImplementedError

    def _publish(
        self, type: str, payload: Any, timeout: float, fields: EventFields
    ) -> Coroutine[Any, Any, Published]:
        raise NotImplementedError

    def _schedule(
        self, type: str, payload: Any, timeout: float, fields: EventFields, when: When
    ) -> Coroutine[Any, Any, Scheduled]:
        raise NotImplementedError
