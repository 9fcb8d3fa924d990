"""Dev handlers: what a reload changed about the handlers, and consumers that it left behind."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from ..bus import EventBus
from ..operations.orphans import lasting_consumers
from ..subscription import Subscription
from ..topology import app_of, app_reader, handler_of
from ..transports.infos import ConsumerInfo
from .handler_list import handler_lines

log = logging.getLogger("omni_worker.dev")


@dataclass(slots=True, kw_only=True)
class Memory:
    """Handlers and consumers of the process before; the parent keeps them, as JSON."""

    handlers: dict[str, str] = field(default_factory=dict)  # shown name → what it is, in short
    names: dict[str, str] = field(default_factory=dict)  # function → durable or other name
    left: list[str] = field(default_factory=list)  # consumers that were reported

    @classmethod
    def of(cls, value: Any) -> Memory:
        """Read what the parent kept."""
        return cls(**value) if isinstance(value, dict) else cls()

    def as_json(self) -> dict[str, Any]:
        """Write it for the parent."""
        return {"handlers": self.handlers, "names": self.names, "left": self.left}


def say_changes(bus: EventBus, before: Memory) -> Memory:
    """Print handlers that are new, changed or gone since a reload; return what is now."""
    now = Memory(left=before.left)
    for one in bus.subscriptions:
        handler, lines = one.handler, handler_lines(one)
        now.handlers[handler.shown] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
        now.names[handler.function] = handler.name
        known = before.handlers.get(handler.shown)
        if before.handlers and known != now.handlers[handler.shown]:
            log.info("%s handler: %s", "new" if known is None else "changed", handler.shown)
            click.echo("\n".join(lines[1:]), err=True)
    for shown in before.handlers:
        if shown not in now.handlers:
            log.info("handler gone: %s", shown)
    return now


async def say_left(bus: EventBus, before: Memory, now: Memory) -> None:
    """Print consumers of the app that stay without a handler, each once."""
    operators = bus.transport.operators
    standing = [info.config for info in await operators.streams()]
    known = {(one.stream, one.consumer) for some in bus.subscriptions for one in some.sources}
    aside = {one.name for one in bus.set_aside}
    left: dict[str, list[ConsumerInfo]] = {}
    for info in await lasting_consumers(operators, standing):
        name = handler_of(info.config)
        is_read = (info.stream, info.name) in known or name in aside
        is_read = is_read or app_reader(info) is not None
        if app_of(info.config) == bus.name and not is_read:
            left.setdefault(name, []).append(info)
    for name, infos in left.items():
        if name not in before.left:
            log.warning("%s", left_behind(name, infos, before, now, bus.subscriptions))
    now.left = list(left)


def left_behind(
    name: str,
    infos: Sequence[ConsumerInfo],
    before: Memory,
    now: Memory,
    subscriptions: Sequence[Subscription],
) -> str:
    """Say what becomes of a consumer without a handler, and of the one that follows it."""
    streams = ", ".join(sorted({one.stream for one in infos}))
    waiting = sum(one.num_pending + one.num_ack_pending for one in infos)
    wait = {0: "no event waits", 1: "1 event waits"}.get(waiting, f"{waiting} events wait")
    renamed = next(
        (
            one.handler
            for one in subscriptions
            if before.names.get(one.handler.function) == name != now.names[one.handler.function]
        ),
        None,
    )
    if renamed is None:
        says = f"no handler here reads the consumer {name} on {streams} any longer"
    else:
        start = renamed.options.start_from
        begins = "with the first event stored" if start == "first" else "with new events"
        says = (
            f"{renamed.short} reads the new consumer {renamed.name}, which began {begins}"
            f"; the old one, {name}, stays on {streams}"
        )
    return (
        f"{says}: {wait} there, and it collects more. durable={name!r} reads them; to drop it:"
        f" omni-worker consumers rm {name}"
    )
