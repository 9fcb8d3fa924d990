"""Dev events: a line for what is published, and for events that no handler reads.

`dev` hears the subjects of a server on this machine by core NATS: no consumer is made for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from difflib import get_close_matches
from urllib.parse import urlsplit

from .. import signals
from ..bus import EventBus
from ..errors import OmniWorkerError
from ..extensions import Extension
from ..handlers import Handler
from ..listeners.logs import write
from ..settings import Settings
from ..signals import Signal
from ..subjects import matches
from ..tasks import own
from ..topology import OWN_STREAM, app_of, holds_events

log = logging.getLogger("omni_worker.dev")

LOOK_AFTER = 0.1  # seconds; a consumer may be made for an event that is there already
LOOK_EVERY = 1.0
SUBJECTS = 5  # subjects in the lines of one look
KEPT = 10_000  # subjects that are known to be read
INTERNAL = "system."  # dead letters, and the platform's own events
LOCAL = ("localhost", "127.0.0.1", "::1")


class DevEvents(Extension):
    """Prints each event that this app publishes, and events that no consumer is to read."""

    kinds = (signals.PublishConfirmed,)

    def __init__(self, settings: Settings) -> None:
        self._is_local = all(urlsplit(url).hostname in LOCAL for url in settings.urls)
        self._is_ready = asyncio.Event()
        self._heard: Counter[str] = Counter()  # subjects to look at, with their events
        self._news = asyncio.Event()
        self._read: dict[str, None] = {}  # subjects that a consumer reads

    def begin(self) -> None:
        """Look from now on: every consumer of the app exists."""
        self._is_ready.set()

    def signal(self, fact: Signal) -> None:
        """Print what was published."""
        if isinstance(fact, signals.PublishConfirmed) and not fact.is_letter:
            write(fact)

    @asynccontextmanager
    async def running(self, bus: EventBus) -> AsyncIterator[None]:
        """Hear what is published, until the app ends."""
        stops = []
        if self._is_local:
            for subject in await _subjects(bus):
                stops.append(bus.transport.serve(subject, self._hear, on_denied=lambda _: None))
        task = asyncio.create_task(self._look_again_and_again(bus), name=own("dev events"))
        try:
            yield
        finally:
            task.cancel()
            for stop in stops:
                stop()

    def _hear(self, subject: str) -> None:
        """Note a subject; nothing is answered."""
        if subject not in self._read and not subject.startswith(INTERNAL):
            self._heard[subject] += 1
            self._news.set()

    async def _look_again_and_again(self, bus: EventBus) -> None:
        await self._is_ready.wait()
        while True:
            await self._news.wait()
            await asyncio.sleep(LOOK_AFTER)
            self._news.clear()
            heard, self._heard = self._heard, Counter()
            with suppress(OmniWorkerError):  # an outage, or a right that is missing
                self._say(await self._unread(bus, heard), bus)
            await asyncio.sleep(LOOK_EVERY - LOOK_AFTER)

    async def _unread(self, bus: EventBus, heard: Counter[str]) -> Counter[str]:
        """Return the subjects that no consumer is to read."""
        filters = await _filters(bus)
        unread: Counter[str] = Counter()
        for subject, count in heard.items():
            if not any(matches(one, subject) for one in filters):
                unread[subject] = count
            elif len(self._read) < KEPT:
                self._read[subject] = None
        return unread

    def _say(self, unread: Counter[str], bus: EventBus) -> None:
        handlers = [one.handler for one in bus.subscriptions]
        for subject, count in list(unread.items())[:SUBJECTS]:
            events = "no handler reads it" if count == 1 else f"no handler reads these {count}"
            log.info("%s: %s%s", subject, events, near(subject, handlers))
        if len(unread) > SUBJECTS:
            rest = sum(unread.values()) - sum(list(unread.values())[:SUBJECTS])
            log.info("and %d more on %d other subjects", rest, len(unread) - SUBJECTS)


def near(subject: str, handlers: Sequence[Handler]) -> str:
    """Name the handler that was perhaps meant: of this type at another place, or of a like type."""
    types = {type: one for one in handlers for type in one.literal_types}
    for type, one in types.items():
        if subject == type or subject.startswith(f"{type}."):
            return f"; {one.shown} reads {', '.join(one.filters)}"
    tokens = subject.split(".")
    starts = [".".join(tokens[:count]) for count in range(2, len(tokens) + 1)]
    for start in starts:
        if found := get_close_matches(start, types, n=1, cutoff=0.8):
            return f"; did you mean {found[0]}, which {types[found[0]].shown} reads?"
    return ""


async def _subjects(bus: EventBus) -> list[str]:
    """Return what the streams of events store."""
    with suppress(OmniWorkerError):
        return sorted(
            {
                subject
                for info in await bus.transport.operators.streams()
                if holds_events(info.config) and info.config.name != OWN_STREAM.name
                for subject in info.config.subjects
            }
        )
    return []


async def _filters(bus: EventBus) -> set[str]:
    """Return what consumers read: without those that settle nothing, or lost their handler.

    Handlers that are set aside read as well, in another process.
    """
    operators = bus.transport.operators
    ours = {(one.stream, one.consumer) for some in bus.subscriptions for one in some.sources}
    names = [one.name for one in await operators.streams() if holds_events(one.config)]
    found = await asyncio.gather(*map(operators.consumers, names))
    return {subject for one in bus.set_aside for subject in one.filters} | {
        subject
        for some in found
        for info in some
        if info.config.ack_policy != "none"
        and (app_of(info.config) != bus.name or (info.stream, info.name) in ours)
        for subject in info.config.filters or (">",)
    }
