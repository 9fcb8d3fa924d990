"""Late streams: those that are created, or get subjects, while a handler waits for them or runs.

A stream that is younger than the handler's oldest consumer of the same pattern is read from its
first event: no other place to begin was ever meant. Any other stream is read by `start_from`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol
from weakref import WeakKeyDictionary

from ..binding import Binding
from ..errors import TransportError
from ..handler_consumers import planned_consumers
from ..handlers import Handler
from ..provision import Provisioner
from ..schemas import SchemaRegistry
from ..settings import Settings
from ..stream_consumers import specs_to_read
from ..subjects import is_wild
from ..topology import ConsumerSpec, StreamConsumers, bare_name, pattern_of
from ..transports.base import Operators, Transport
from .late_subjects import LateSubjects

log = logging.getLogger("omni_worker.bus")


def from_their_first(
    wanted: Iterable[StreamConsumers], late: Collection[str]
) -> list[StreamConsumers]:
    """Return the consumers, those of late streams with the first event as their start."""
    return [_from_first(one) if one.stream in late else one for one in wanted]


async def late_streams(
    wanted: Sequence[StreamConsumers], operators: Operators, created: Mapping[str, int]
) -> set[str]:
    """Return the streams that were created after the handler's oldest consumer of its pattern.

    Asks the server only where there are several streams: with one there is nothing to compare.
    """
    if len(wanted) < 2:
        return set()
    infos = [await operators.consumer_info(one.stream, one.main.name) for one in wanted]
    oldest = [
        info.created
        for one, info in zip(wanted, infos, strict=True)
        if info is not None and pattern_of(info.config) == one.main.pattern
    ]
    if not oldest:
        return set()
    return {one.stream for one in wanted if created.get(one.stream, 0) > min(oldest)}


class Running(Protocol):
    """Subscriptions that run, each with its consumers."""

    @property
    def bindings(self) -> list[Binding]:
        """The consumers of each."""


class LateStreams:
    """Finds new streams for the handlers of one bus that have a pattern."""

    def __init__(
        self,
        running: Running,
        provisioner: Provisioner,
        registry: SchemaRegistry,
        settings: Settings,
        transport: Transport,
    ) -> None:
        self._running = running
        self._provisioner = provisioner
        self._registry = registry
        self._settings = settings
        self._transport = transport
        self._said: set[str] = set()
        self._known: WeakKeyDictionary[Binding, set[str]] = WeakKeyDictionary()  # streams
        self._seen: dict[str, int] = {}  # of each stream, at the look before: its last sequence
        self.subjects = LateSubjects(provisioner, transport)

    def planned(self) -> None:
        """Note how far the streams are when a handler's consumers are planned."""
        self._seen = {**self._provisioner.last, **self._seen}

    async def look(self) -> None:
        """Read the streams, and bind the new ones; what fails is tried again at the next look."""
        bindings = [one for one in self._running.bindings if _has_pattern(one)]
        if not bindings:
            return
        try:
            await self._provisioner.look()
        except TransportError as error:
            self._say_once("new streams cannot be read", error)
            return
        last, waiting = dict(self._provisioner.last), set[str]()
        for binding in bindings:
            if binding not in self._running.bindings:  # it has ended while others were looked at
                continue
            try:
                waiting |= await self._bind_new(binding)
            except TransportError as error:
                waiting |= set(last)
                function = binding.subscription.handler.function
                self._say_once(f"{function}: new streams cannot be read", error)
        # A stream that has to wait is looked at from the same sequence again.
        kept = {one: seen for one, seen in self._seen.items() if one in waiting}
        self._seen = {one: seen for one, seen in last.items() if one not in waiting} | kept

    def _say_once(self, what: str, error: TransportError) -> None:
        if (text := f"{what}: {error}") not in self._said:
            self._said.add(text)
            log.warning("%s", text)

    async def _bind_new(self, binding: Binding) -> set[str]:
        """Bind new streams, widen for new subjects; return the streams that have to wait."""
        if not binding.bound:  # its consumers are being recreated
            return set(self._provisioner.last)
        handler = binding.subscription.handler
        known = self._known.setdefault(binding, set())
        known |= {bound.spec.stream for bound in binding.bound.values()}
        name = next(bound.spec.handler for bound in binding.bound.values())
        planned = [_named(one, name) for one in self.planned_for(handler)]
        waiting: set[str] = set()
        for one in planned:
            if one.stream in known:
                last = self._provisioner.last.get(one.stream, 0)
                seen = self._seen.get(one.stream, 0)
                seen = seen if seen <= last else 0  # it was deleted and created again
                if not await self._widen_for_new(binding, one, seen):
                    waiting.add(one.stream)
        new = [one for one in planned if one.stream not in known]
        if not new:
            return waiting
        late = await late_streams(planned, self._transport.operators, self._provisioner.created)
        for one in from_their_first(new, late):
            try:
                specs = await specs_to_read(
                    handler, [one], self._transport, self._provisioner, binding.signals
                )
                await binding.bind(specs)
            except TransportError as error:  # the others can be read all the same
                what = f"{handler.function}: the new stream {one.stream} cannot be read"
                self._say_once(what, error)
                continue
            start = "from its first event" if one.stream in late else "by start_from"
            log.info("%s reads the new stream %s, %s", handler.function, one.stream, start)
        return waiting

    async def _widen_for_new(self, binding: Binding, one: StreamConsumers, seen: int) -> bool:
        """Widen for new subjects; False, with a warning, if they have to wait: only they do."""
        try:
            return await self.subjects.look(binding, one, seen=seen)
        except TransportError as error:
            function = binding.subscription.handler.function
            self._say_once(f"{function}: new subjects of {one.stream} cannot be read", error)
            return False

    def planned_for(self, handler: Handler) -> tuple[StreamConsumers, ...]:
        """Plan a handler's consumers on the streams as last read."""
        version = self._transport.server_version
        return planned_consumers(
            handler, self._registry, self._settings, self._provisioner.standing, version=version
        ).consumers


def _has_pattern(binding: Binding) -> bool:
    """Return True unless all types are literal: their streams were found at the start."""
    types = binding.subscription.handler.types
    return not types or any(is_wild(type) for type in types)


def _from_first(one: StreamConsumers) -> StreamConsumers:
    bare = None if one.bare is None else replace(one.bare, start_sequence=1)
    return replace(one, main=replace(one.main, start_sequence=1), bare=bare)


def _named(one: StreamConsumers, name: str) -> StreamConsumers:
    """Give the consumers the name that this process's others have."""

    def named(spec: ConsumerSpec, own: str) -> ConsumerSpec:
        return replace(spec, name=own, handler=name, split=bare_name(name) if spec.split else "")

    bare = None if one.bare is None else named(one.bare, bare_name(name))
    return replace(one, main=named(one.main, name), bare=bare)
