"""Controls: pause, resume and scale a handler in all its processes."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from ..errors import ConfigError, TransportError
from ..topology import NANO
from ..transports.base import Transport
from .nudges import nudge
from .orders import (
    BUCKET,
    FOR_EVER,
    PAUSE,
    SCALE,
    TTL,
    PauseOrder,
    ScaleOrder,
    order_key,
    order_value,
)
from .pauses import Target, check_version, find_target, pause_all, resume_all

MOST = 100_000  # events at once in a process


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """Order that was carried out."""

    target: Target
    order: PauseOrder | ScaleOrder | None
    changed: int  # consumers; of a scale: 1 if there was an order to take back
    heard: int  # processes that know of it already; others do within ten seconds


class Controls:
    """Orders to the handlers of one app, or of any (``app`` None); no worker has to run."""

    def __init__(self, transport: Transport, app: str | None, by: Callable[[], str]) -> None:
        self._transport = transport
        self._operators = transport.operators
        self._app = app
        self._by = by

    async def pause(self, handler: str, duration: float | timedelta | None, reason: str) -> Carried:
        """Deliver nothing to a handler, on all streams, for some time or until ``resume``.

        Running handlers finish. Raises ConfigError for a time that cannot be, NoSuchHandler, or
        TransportError for a server before 2.11.
        """
        seconds = _seconds_of(duration)
        check_version(self._transport.server_version)
        target = await find_target(self._operators, handler, self._app)
        now = max(one.answered_at for one in target.consumers)
        until = now + (FOR_EVER if seconds is None else int(seconds * NANO))
        order = PauseOrder(at=now, until=until, by=self._by(), reason=reason)
        # The order first: a consumer that is made from now on is paused by its process.
        await self._keep(PAUSE, target, order)
        await pause_all(self._operators, target, order)
        heard = await nudge(self._transport, target.app)
        # One that was made while its process had not read the order yet.
        again = await find_target(self._operators, target.handler, target.app)
        late = tuple(one for one in again.consumers if not one.is_paused)
        await pause_all(self._operators, replace(again, consumers=late), order)
        return Carried(target=again, order=order, changed=len(again.consumers), heard=heard)

    async def resume(self, handler: str) -> Carried:
        """Deliver again, also if others paused the handler; its first event comes at once."""
        check_version(self._transport.server_version)
        target = await find_target(self._operators, handler, self._app, to_resume=True)
        await self._take_back(PAUSE, target)
        changed = await resume_all(self._operators, target)
        heard = await nudge(self._transport, target.app)
        return Carried(target=target, order=None, changed=changed, heard=heard)

    async def scale(self, handler: str, concurrency: int | None, reason: str) -> Carried:
        """Run so many events at once in each process, over any version's ``concurrency=``.

        None takes the order back. Nothing that runs is stopped. Raises ConfigError for a number
        that cannot be, NoSuchHandler.
        """
        if concurrency is not None and not 1 <= concurrency <= MOST:
            raise ConfigError(f"scale to {concurrency}: expected 1 to {MOST} events at once")
        target = await find_target(self._operators, handler, self._app)
        if not target.is_shared:
            raise TransportError(
                f"{handler} is the consumer of one process of {target.app}; a handler without"
                " durable= and queue= cannot be scaled"
            )
        if concurrency is None:
            changed = await self._take_back(SCALE, target)
            heard = await nudge(self._transport, target.app) if changed else 0
            return Carried(target=target, order=None, changed=changed, heard=heard)
        now = max(one.answered_at for one in target.consumers)
        order = ScaleOrder(at=now, concurrency=concurrency, by=self._by(), reason=reason)
        await self._keep(SCALE, target, order)
        heard = await nudge(self._transport, target.app)
        return Carried(target=target, order=order, changed=0, heard=heard)

    async def _keep(self, kind: str, target: Target, order: PauseOrder | ScaleOrder) -> None:
        bucket = await self._transport.bucket(BUCKET, ttl=TTL)
        await bucket.put(order_key(kind, target.app, target.handler), order_value(order))

    async def _take_back(self, kind: str, target: Target) -> bool:
        """Delete an order; return False if there was none."""
        if await self._operators.stream_info(f"KV_{BUCKET}") is None:
            return False
        bucket = await self._transport.bucket(BUCKET, ttl=TTL)
        if await bucket.get(key := order_key(kind, target.app, target.handler)) is None:
            return False
        await bucket.delete(key)
        return True


def this_person() -> str:
    """Return who gives an order at a terminal: user and machine."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container without such a user
        user = f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


def _seconds_of(duration: float | timedelta | None) -> float | None:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds is not None and not 0 < seconds < FOR_EVER / NANO:
        raise ConfigError(
            f"a pause of {seconds:g} s: expected more than 0 s and less than 100 years; without a"
            " time it lasts until `omni-worker resume`"
        )
    return seconds
