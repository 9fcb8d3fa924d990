"""Removal: what is lost with a consumer of ours, who reads it, and its deletion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import PermissionDenied, TopologyError
from ..topology import AppReader, app_of, app_reader, handler_of
from ..transports.base import Operators, Transport
from ..transports.infos import ConsumerInfo
from . import orphans
from .processes import WorkerProcess, processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Deletion of a consumer, and what it means."""

    info: ConsumerInfo
    is_deleting_events: bool  # the stream keeps them only as long as a consumer wants them
    readers: tuple[str, ...] = ()  # in words
    is_asked: bool = True  # False: processes could not be asked, and only pulls are known

    @property
    def where(self) -> str:
        """Name the consumer for people."""
        return f"consumer {self.info.name} on {self.info.stream}"

    @property
    def app_reader(self) -> AppReader | None:
        """Return what the app reads with it for itself; None for a handler's consumer."""
        return app_reader(self.info)

    @property
    def refusal(self) -> str | None:
        """Say why it is removed only by force; None if it may be."""
        if (own := self.app_reader) is not None:
            return (
                f"{own.sentence}; it stays as long as the app is used. If nothing uses {own.app}"
                " any longer, --force removes it"
            )
        return _is_read(self.where, self.readers) if self.readers else None


def choose(
    every: Sequence[ConsumerInfo], names: Sequence[str], stream: str | None
) -> list[ConsumerInfo]:
    """Choose consumers by name, or all; `r1` chooses `r1-bare`, too. Raises TopologyError.

    A handler's consumers on several streams have one name: ``stream`` chooses one of them. A name
    that consumers of several apps have is refused without it.
    """
    found: dict[tuple[str, str], ConsumerInfo] = {}
    here = [one for one in every if stream in (None, one.stream)]
    if not names:
        return here
    for name in names:
        some = [one for one in here if name in (one.name, handler_of(one.config))]
        apps = sorted({app_of(one.config) or "" for one in some})
        if len(apps) > 1:
            raise TopologyError(f"{name} is a consumer of {' and of '.join(apps)}: add --stream")
        if not some:
            known = ", ".join(sorted({one.name for one in here})[:8]) or "none"
            at = f" on {stream}" if stream else ""
            raise TopologyError(f"no consumer of ours{at} is named {name}; there is {known}")
        found |= {(one.stream, one.name): one for one in some}
    return list(found.values())


async def look_at_removals(transport: Transport, infos: Sequence[ConsumerInfo]) -> list[Removal]:
    """Find out what removing consumers means, and who reads them right now."""
    running: list[WorkerProcess] = []
    is_asked = True
    try:
        running = await processes(transport)
    except PermissionDenied:
        is_asked = False
    removals = []
    for info in infos:
        stream = await transport.operators.stream_info(info.stream)
        removals.append(
            Removal(
                info=info,
                is_deleting_events=stream is not None and stream.config.retention == "interest",
                readers=_readers(info, running),
                is_asked=is_asked,
            )
        )
    return removals


async def remove(operators: Operators, removal: Removal, *, is_forced: bool = False) -> bool:
    """Delete a consumer; return False if it was gone. Raises TopologyError.

    It is looked at again: one that a process began to read, or that was recreated, stays. So does
    one that an app reads for itself, unless it is forced.
    """
    info = await operators.consumer_info(removal.info.stream, removal.info.name)
    if info is None:
        return False
    if info.created != removal.info.created:
        raise TopologyError(f"{removal.where} was recreated just now: nothing was removed")
    again = replace(removal, readers=removal.readers or _readers(info, ()))
    if not is_forced and again.refusal is not None:
        raise TopologyError(again.refusal)
    await operators.delete_consumer(info.stream, info.name)
    return True


def as_json(removal: Removal) -> dict[str, Any]:
    """Write a removal for programs."""
    return {
        **orphans.as_json(removal.info),
        "readers": list(removal.readers),
        "deletesEvents": removal.is_deleting_events,
    }


def _is_read(where: str, readers: Sequence[str]) -> str:
    return (
        f"{where} is read right now ({', '.join(readers)}): stop its worker first; --force removes"
        " it all the same, and the worker would recreate it"
    )


def _readers(info: ConsumerInfo, running: Sequence[WorkerProcess]) -> tuple[str, ...]:
    found = [
        f"pid {one.pid} on {one.host}"
        for one in running
        if any((info.stream, info.name) in handler.consumers for handler in one.handlers)
    ]
    if not found and info.num_waiting:
        pulls = "1 pull waits" if info.num_waiting == 1 else f"{info.num_waiting} pulls wait"
        found.append(pulls)
    return tuple(found)
