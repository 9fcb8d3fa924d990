"""Handler status: all consumers of a handler as one line, the way people ask about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..steering.orders import PauseOrder, ScaleOrder, pause_json, scale_json
from ..topology import OWN_STREAM
from ..transports.timestamps import iso
from .status import ConsumerStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerStatus:
    """A handler with the sums over its consumers, on all streams."""

    app: str | None  # None if another program created its consumers
    name: str
    function: str = ""
    consumers: tuple[ConsumerStatus, ...] = ()
    waiting: int = 0
    unacked: int = 0  # delivered and not answered yet, waiting for a retry among them
    redelivered: int = 0  # of these, the ones delivered more than once
    pulls: int = 0
    oldest: datetime | None = None  # when the first unsettled event was stored
    is_paused: bool = False  # one of its consumers is
    pause: PauseOrder | None = None  # who paused it, if by a command of ours
    scale: ScaleOrder | None = None  # the concurrency ordered in place of the declared one
    is_unasked: bool = False  # events wait in a consumer, and no worker has an open pull there

    @property
    def streams(self) -> tuple[str, ...]:
        """Return the streams it reads."""
        return tuple(dict.fromkeys(one.stream for one in self.consumers))

    @property
    def is_way_back(self) -> bool:
        """True for what reads an app's retried dead letters; it is no handler of its own."""
        return self.streams == (OWN_STREAM.name,)


def by_handler(statuses: Iterable[ConsumerStatus]) -> list[HandlerStatus]:
    """Group consumers by app and handler, in the order of their names."""
    groups: dict[tuple[str | None, str], list[ConsumerStatus]] = {}
    for one in statuses:
        # A handler may have two consumers on a stream; both have its name.
        groups.setdefault((one.app, one.handler or one.name), []).append(one)
    found = [_handler(app, name, consumers) for (app, name), consumers in groups.items()]
    return sorted(found, key=lambda one: (one.name, one.app or ""))


def _handler(app: str | None, name: str, consumers: Sequence[ConsumerStatus]) -> HandlerStatus:
    return HandlerStatus(
        app=app,
        name=name,
        function=next((one.function for one in consumers if one.function), ""),
        consumers=tuple(consumers),
        waiting=sum(one.waiting for one in consumers),
        unacked=sum(one.unacked for one in consumers),
        redelivered=sum(one.redelivered for one in consumers),
        pulls=sum(one.pulls for one in consumers),
        oldest=min((one.oldest for one in consumers if one.oldest), default=None),
        is_paused=any(one.is_paused for one in consumers),
        pause=next((one.pause for one in consumers if one.pause), None),
        scale=next((one.scale for one in consumers if one.scale), None),
        is_unasked=any(one.is_unasked and not one.unacked for one in consumers),
    )


def as_json(one: HandlerStatus, now: datetime) -> dict[str, Any]:
    """Write a handler's status for programs, with its lag at ``now``."""
    return {
        "app": one.app,
        "handler": one.name,
        "streams": list(one.streams),
        "consumers": [{"stream": each.stream, "name": each.name} for each in one.consumers],
        "waiting": one.waiting,
        "unacked": one.unacked,
        "redelivered": one.redelivered,
        "oldest": iso(one.oldest),
        "lagSeconds": round((now - one.oldest).total_seconds(), 3) if one.oldest else 0,
        "pulls": one.pulls,
        "paused": one.is_paused,
        "pause": pause_json(one.pause),
        "scale": scale_json(one.scale),
        "unasked": one.is_unasked,
    }
