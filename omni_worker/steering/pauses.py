"""Pauses: a handler's consumers, paused and resumed by the server's own means. Needs no app."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ApiError, TransportError
from ..handlers import both_names
from ..topology import NANO, TAG, app_of, app_reader, function_of, handler_of
from ..transports.base import Operators
from ..transports.infos import ConsumerInfo
from ..transports.timestamps import timestamp
from .orders import PauseOrder, read_pause

QUEUE = TAG + "queue"
LEAST_VERSION = (2, 11, 0)
# Seconds from now until a pause ends. A pause that ends by its time wakes the requests that wait;
# one that is lifted does not, and they would wait for seconds. Longer where the first was too late.
ENDS_AFTER = (0.05, 0.25, 1.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A handler and its consumers on all streams."""

    app: str
    handler: str  # its durable, or its consumer's name
    consumers: tuple[ConsumerInfo, ...]

    @property
    def shown(self) -> str:
        """Name of the handler for people."""
        return both_names(function_of(self.consumers[0].config), self.handler)

    @property
    def is_shared(self) -> bool:
        """False for a consumer that one process alone reads."""
        configs = [one.config for one in self.consumers]
        return any(not one.inactive_threshold or one.metadata.get(QUEUE) for one in configs)


class NoSuchHandler(TransportError):
    """Operations must act: no consumer on the server belongs to this handler."""


async def find_target(
    operators: Operators, handler: str, app: str | None, *, to_resume: bool = False
) -> Target:
    """Find a handler's consumers by its durable, its consumer's name or its function.

    What an app reads for itself is found ``to_resume`` only: it may have been paused by others.
    Raises NoSuchHandler, also if several handlers have the name; ``app`` may choose.
    """
    every = [one for one in await _every(operators) if app_of(one.config)]
    own = [reader for one in every if (reader := app_reader(one)) is not None]
    ours = every if to_resume else [one for one in every if app_reader(one) is None]
    whole = [one for one in ours if app in (None, app_of(one.config))]
    found = [one for one in whole if handler_of(one.config) == handler]
    found = found or [one for one in whole if function_of(one.config) == handler]
    names = sorted({handler_of(one.config) for one in found})
    apps = sorted({app_of(one.config) or "" for one in found})
    if len(apps) > 1:
        raise NoSuchHandler(
            f"{handler} is a handler of {' and of '.join(apps)}: choose by --app-name"
        )
    if len(names) > 1:
        raise NoSuchHandler(f"{handler} is the function of {' and of '.join(names)}: name one")
    if not found:
        for reader in own:
            if reader.name == handler and app in (None, reader.app):
                raise NoSuchHandler(f"{reader.sentence}; {reader.others}")
        names = sorted({handler_of(one.config) for one in ours})
        known = f"the server has {', '.join(names[:8])}" if names else "the server has none of ours"
        whose = f" of the app {app}" if app else ""
        raise NoSuchHandler(f"no consumer{whose} belongs to a handler {handler!r}; {known}")
    return Target(app=apps[0], handler=names[0], consumers=tuple(found))


async def known_pause(operators: Operators, consumer: ConsumerInfo) -> PauseOrder | None:
    """Return the order by which a consumer is paused; None if others did it."""
    app = app_of(consumer.config)
    try:
        return await read_pause(operators, app or "", handler_of(consumer.config))
    except TransportError:
        return None


def check_version(version: tuple[int, int, int]) -> None:
    """Refuse a server that cannot pause. Raises TransportError."""
    if version < LEAST_VERSION:
        has, needs = ".".join(map(str, version)), ".".join(map(str, LEAST_VERSION))
        raise TransportError(f"pausing needs nats-server {needs} or newer; this one is {has}")


async def pause_all(operators: Operators, target: Target, order: PauseOrder) -> None:
    """Pause every consumer of a handler; one that is gone by now is left out."""
    await asyncio.gather(*(_pause(operators, one, order) for one in target.consumers))


async def resume_all(operators: Operators, target: Target) -> int:
    """Resume every paused consumer of a handler at once; return how many there were."""
    paused = [one for one in target.consumers if one.is_paused]
    await asyncio.gather(*(_resume(operators, one) for one in paused))
    return len(paused)


async def _every(operators: Operators) -> list[ConsumerInfo]:
    streams = await operators.streams()
    found: list[Sequence[ConsumerInfo]] = await asyncio.gather(
        *(operators.consumers(one.name) for one in streams if not one.name.startswith("KV_"))
    )
    return [consumer for some in found for consumer in some]


async def _pause(operators: Operators, consumer: ConsumerInfo, order: PauseOrder) -> None:
    try:
        await operators.pause_consumer(consumer.stream, consumer.name, order.until_text)
    except ApiError as error:
        if error.code != 404:
            raise


async def _resume(operators: Operators, consumer: ConsumerInfo) -> None:
    for seconds in ENDS_AFTER:
        info = await operators.consumer_info(consumer.stream, consumer.name)
        if info is None:
            return
        ends = timestamp(info.answered_at + int(seconds * NANO))
        if await operators.pause_consumer(consumer.stream, consumer.name, ends):
            await asyncio.sleep(seconds)  # it is over before processes hear of it
            return
