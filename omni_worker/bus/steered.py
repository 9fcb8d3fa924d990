"""Steered: this process hears of orders to its handlers, and obeys them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterable

from ..errors import PermissionDenied, TransportError
from ..steering.nudges import nudge_subject
from ..steering.orders import (
    STREAM,
    Key,
    PauseOrder,
    ScaleOrder,
    pause_in_words,
    read_pauses,
    read_scales,
    scale_in_words,
)
from ..subscription import Subscription
from ..tasks import own
from ..transports.base import Transport

ASK_AGAIN = 300.0  # seconds until a right that was denied is tried again

log = logging.getLogger("omni_worker.bus")


class Steered:
    """The orders of one app, as read last.

    ``refresh`` looks at all consumers of the bus, and for what is sent back: whatever another
    process did before it told this one is seen there.
    """

    def __init__(
        self,
        app: str,
        transport: Transport,
        subscriptions: Callable[[], Iterable[Subscription]],
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = app
        self._transport = transport
        self._subscriptions = subscriptions
        self._refresh = refresh
        self._pauses: dict[Key, PauseOrder] = {}
        self._scales: dict[Key, ScaleOrder] = {}
        self._seen: tuple[int, int] | None = None  # the bucket, and its last write
        self._denied_at: float | None = None  # loop time
        self._looking: asyncio.Task[None] | None = None
        self._again = False
        self._stop: Callable[[], None] | None = None

    def open(self) -> None:
        """Hear of new orders at once; without the right to, they are read every ten seconds."""
        if self._stop is None:
            self._stop = self._transport.serve(
                nudge_subject(self._app), self._answer, on_denied=_report_denied
            )

    async def close(self) -> None:
        """Hear of no further order."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
            self._looking = None
        self._seen = None

    async def look(self) -> None:
        """Read the orders if they have changed, and obey them; an outage changes nothing."""
        now = asyncio.get_running_loop().time()
        if self._denied_at is not None and now - self._denied_at < ASK_AGAIN:
            return
        try:
            info = await self._transport.operators.stream_info(STREAM)
            seen = None if info is None else (info.created, info.state.last_sequence)
            if seen != self._seen:
                pauses: dict[Key, PauseOrder] = {}
                scales: dict[Key, ScaleOrder] = {}
                if info is not None and info.state.messages:
                    operators = self._transport.operators
                    pauses = await read_pauses(operators, self._app)
                    scales = await read_scales(operators, self._app)
                self._pauses, self._scales, self._seen = pauses, scales, seen
            self._denied_at = None
        except PermissionDenied as error:
            if self._denied_at is None:
                log.info("orders to handlers are not read: %s", error)
            self._denied_at = now
            return
        except TransportError as error:
            log.debug("orders to handlers not read: %s", error)
        for subscription in self._subscriptions():
            key = self._app, subscription.handler.name
            pause = self._pauses.get(key)
            subscription.pauses.follow(None if pause is None else pause_in_words(pause, key[1]))
            scale = self._scales.get(key)
            subscription.scaling.follow(
                None if scale is None else scale.concurrency,
                None if scale is None else scale_in_words(scale, key[1]),
            )

    def _answer(self, subject: str) -> bytes:
        if self._looking is None or self._looking.done():
            loop = asyncio.get_running_loop()
            self._looking = loop.create_task(self._look_now(), name=own("orders"))
        else:
            self._again = True
        return json.dumps({"pid": os.getpid()}).encode()

    async def _look_now(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            if self._denied_at is not None:  # an order was given: the right may be there now
                self._denied_at = -ASK_AGAIN
            await self.look()
            await self._refresh()


def _report_denied(error: Exception) -> None:
    log.info("a pause from elsewhere is seen within ten seconds, not at once: %s", error)
