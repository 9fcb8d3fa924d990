"""Crons that no handler of an app declares: found, and removed by `plan --apply`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import PermissionDenied
from ..handlers import Handler
from ..transports.base import Transport
from .schedules import NoSuchSchedule, ScheduledEvent, cancel_schedule, crons_of


@dataclass(frozen=True, slots=True)
class RemoveCron:
    """Remove what the server keeps of a cron."""

    event: ScheduledEvent

    @property
    def durable(self) -> str:
        """Durable of the handler that declared it."""
        return self.event.name

    @property
    def says(self) -> str:
        """Reason, for people."""
        shown = "" if self.event.cron is None else self.event.cron.shown
        return f"no handler of this version declares it ({shown}); --apply removes it"


async def unclaimed_crons(
    transport: Transport, app: str, handlers: Iterable[Handler]
) -> list[RemoveCron]:
    """Find the crons of this app that no handler declares."""
    declared = {one.name for one in handlers if one.cron is not None}
    try:
        kept = await crons_of(transport, app)
    except PermissionDenied:  # plan needed less before there were crons
        return []
    return [RemoveCron(one) for one in kept if one.name not in declared]


async def remove_cron(transport: Transport, change: RemoveCron) -> None:
    """Remove it; one that was removed or declared again at this moment is as it should be."""
    try:
        await cancel_schedule(transport, change.event)
    except NoSuchSchedule:
        return
