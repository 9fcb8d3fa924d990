"""Steerable: pause, resume and scale a handler from Python, in all processes, by app or bus."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from ..errors import ConfigError
from ..handler_consumers import is_shared
from ..handlers import Handler
from ..signatures import named
from ..steering.controls import Controls
from ..transports.base import Transport


class Steerable:
    """Orders to a handler of this app, wherever it runs.

    A handler is named by its durable, its function's name, or the function itself.
    """

    def steering(self) -> tuple[Transport, str, Sequence[Handler]]:
        """Return what an order needs: the transport, the app, the handlers known here."""
        raise NotImplementedError

    async def pause(
        self,
        handler: str | Callable[..., Any],
        *,
        for_: float | timedelta | None = None,
        reason: str = "",
    ) -> None:
        """Deliver nothing to a handler in any process, for ``for_`` seconds or until ``resume``.

        What runs goes on to its end; what has not begun is handed back. It stays so over restarts
        and deploys, and ``omni-worker status`` shows the reason. Raises TransportError for a
        server before 2.11, ConfigError for a handler without durable or queue, and for a time that
        is not between 0 and 100 years.
        """
        controls, name = self._controls(handler)
        await controls.pause(name, for_, reason)

    async def resume(self, handler: str | Callable[..., Any]) -> None:
        """Deliver again to a handler in all processes, also if others paused it."""
        controls, name = self._controls(handler)
        await controls.resume(name)

    async def scale(
        self, handler: str | Callable[..., Any], concurrency: int | None, *, reason: str = ""
    ) -> None:
        """Run ``concurrency`` events at once in each process; None: as declared again.

        It holds over restarts and deploys, whatever ``concurrency=`` a version declares, and
        ``omni-worker status`` shows the reason. What runs goes on to its end. Raises ConfigError
        for a handler without durable or queue, and for a number below 1.
        """
        controls, name = self._controls(handler)
        await controls.scale(name, concurrency, reason)

    def _controls(self, handler: str | Callable[..., Any]) -> tuple[Controls, str]:
        transport, app, handlers = self.steering()
        by = f"{app} ({socket.gethostname()}, pid {os.getpid()})"
        return Controls(transport, app, lambda: by), _name(handler, handlers)


def _name(wanted: str | Callable[..., Any], handlers: Sequence[Handler]) -> str:
    found = [one for one in handlers if one.call == wanted or wanted in one.names]
    if len({one.name for one in found}) > 1:
        names = ", ".join(sorted(one.name for one in found))
        raise ConfigError(f"{wanted!r} is the function of several handlers: name one of {names}")
    if found:
        if not is_shared(found[0]):
            raise ConfigError(
                f"{found[0].function} has no durable= and no queue=: each process has a consumer of"
                " its own, and they cannot be steered together"
            )
        return found[0].name
    if not isinstance(wanted, str):
        names = ", ".join(sorted({one.shown for one in handlers}))
        there = f"name one of these: {names}" if names else "it has none"
        raise ConfigError(f"{named(wanted)} is no handler of this app; {there}")
    return wanted  # perhaps of another version, or process, of the app
