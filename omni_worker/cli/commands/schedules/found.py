"""Found: what the commands about one scheduled event share: they find it, act, and say so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ....operations.schedules import ScheduledEvent, find_schedule
from ....settings import Settings
from ....transports.base import Transport
from ... import say
from ...session import run_operation
from ...tables import moment, wrapped
from ...values import app_name_option

Act = Callable[[Transport, ScheduledEvent], Awaitable[str]]

of_app = app_name_option("Its app, if several have scheduled this name.")


def on_schedule(name: str, app: str | None, act: Act) -> int:
    """Find the event of this key, id or durable, and do ``act``, which says what it did."""

    async def work(transport: Transport, settings: Settings) -> int:
        say(wrapped(await act(transport, await find_schedule(transport, name, app))))
        return 0

    return run_operation(work)


def shown(event: ScheduledEvent) -> tuple[str, str]:
    """Show the event's name with its app, and when it is due, for people."""
    return f"{event.name} of {event.app}", moment(event.due)
