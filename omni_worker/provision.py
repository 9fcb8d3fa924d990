"""Provision: create and update streams and consumers as topology plans; only our own ones.

The same code serves every transport, over its Operators port. ``PROVISION=off``: only checks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from .errors import ApiError, StreamMissing, TopologyError, TransportError
from .events import DEAD_LETTER
from .positions import read_position
from .subjects import is_wild
from .topology import (
    DUPLICATE_WINDOW,
    OWN_STREAM,
    STREAMS,
    Config,
    Conflict,
    ConsumerSpec,
    CreateConsumer,
    CreateStream,
    Lacking,
    Missing,
    Notice,
    RefuseConsumer,
    Standing,
    StreamSpec,
    UpdateConsumer,
    UpdateStream,
    app_of,
    copy_notice,
    is_beyond_repair,
    is_narrower,
    letter_risks,
    origin_of,
    plan_consumer,
    plan_stream,
    route,
    stream_config,
    unknown_copies,
    unserved,
    with_sources,
    without_edits,
    would_store,
)
from .transports.base import Operators
from .transports.infos import ConsumerInfo, StreamConfig
from .writes import write_consumer, write_stream

log = logging.getLogger("omni_worker.provision")

SOMEBODY_WAS_FASTER = (10148, 10149, 10013, 10058, 10065)
TRIES = 5
NOT_CREATED = 10012  # whatever the reason: its files may have been deleted at this moment
AGAIN = 0.2  # seconds
NARROWS_AFTER = 1.0  # seconds in which a process that has just started begins to pull


class NotProvisioned(TopologyError):
    """Something is missing, and with ``PROVISION=off`` we do not make it."""


class Provisioner:
    """Remembers the streams of one server, and creates missing streams and consumers."""

    def __init__(self, operators: Operators, *, create: bool, replicas: int) -> None:
        self._operators = operators
        self._create = create
        self._replicas = replicas
        self._standing: list[StreamConfig] = []
        self.created: dict[str, int] = {}  # of each stream: epoch nanoseconds
        self.last: dict[str, int] = {}  # of each stream: sequence, as last read
        self._said: set[str] = set()
        self._conflicts: list[Conflict] = []
        self._held: dict[str, StreamSpec] = {}  # created once a handler reads them
        # Awaited before a missing consumer is created: others may be about to recreate it. True:
        # they were.
        self.before_create: Callable[[ConsumerSpec], Awaitable[bool]] | None = None

    async def ensure_streams(self) -> None:
        """Create the missing ones of our seven streams; existing streams are used unchanged.

        A conflict is a warning here; it is an error for the handler or the publish that needs the
        stream. Where the account has no room for all of them, only those that a handler reads are
        created, and the one of dead letters.
        """
        await self._read()
        self._conflicts.clear()
        missing: list[StreamSpec] = []
        for spec in STREAMS:
            match plan_stream(spec, self._standing, replicas=self._replicas):
                case Missing():
                    missing.append(spec)
                case Standing(name=name, differences=differences) if differences:
                    self._say_once(logging.INFO, f"stream {name} exists: {'; '.join(differences)}")
                case Lacking(missing=subjects):
                    self._say_once(logging.WARNING, _lacking(spec.name, subjects))
                case Conflict() as conflict:
                    self._conflicts.append(conflict)
                    self._say_once(logging.WARNING, conflict.says)
        await self._make_missing(missing)
        for config in self.letter_streams():
            for risk in letter_risks(config):
                text = f"stream {config.name} may lose dead letters: {risk.says}; {risk.advice}"
                self._say_once(logging.WARNING, text)

    def letter_streams(self) -> list[StreamConfig]:
        """Return the streams that store dead letters, as last read: one, if any."""
        names = route([DEAD_LETTER], self._standing)
        return [config for config in self._standing if config.name in names]

    async def ensure_own_stream(self) -> None:
        """Ensure our stream for messages other than events; called when it is first needed."""
        if await self._operators.stream_info(OWN_STREAM.name) is None:
            await self._make_stream(OWN_STREAM)

    async def ensure_copy(self, spec: StreamSpec) -> None:
        """Ensure a stream that sources some subjects of another one; missing subjects are added."""
        info = await self._operators.stream_info(spec.name)
        if info is None:
            await self._make_stream(spec)
            return
        if not info.config.sources:
            raise TopologyError(
                f"stream {spec.name} exists and is not a copy of {spec.source}: handlers registered"
                f" with stream={spec.name!r} need one; choose another name"
            )
        if (notice := copy_notice(spec, info.config)) is not None:
            self._say_once(logging.WARNING, notice)
        updated = with_sources(info.config, spec)
        if updated is not None:
            self.require_create(f"stream {spec.name} with {', '.join(spec.source_filters)}")
            await write_stream(self._operators, UpdateStream(updated))

    async def routes(self, filters: Sequence[str], *, literal: bool) -> dict[str, tuple[str, ...]]:
        """Map streams to the filters they store. Raises TopologyError if none stores a filter.

        StreamMissing, if a stream that does may still be created. A type without wildcard must be
        stored completely; ``literal``: all filters are such types.
        """
        for spec in [one for one in self._held.values() if would_store(one, filters)]:
            await self._make_stream(spec)
            del self._held[spec.name]  # not before: the caller may try again after an outage
        for fresh in (False, True):
            if fresh or not self._standing:
                await self._read()
            routes = route(filters, self._standing)
            missing = tuple(
                one
                for one in unserved(filters, self._standing)
                if literal or not is_wild(".".join(one.split(".")[:2]))
            )
            if routes and not missing:
                for text in unknown_copies(filters, self._standing):
                    self._say_once(logging.WARNING, f"not read: {text}")
                return routes
        if not routes:
            causes = [one.says for one in self._conflicts if would_store(one.spec, filters)]
            causes += unknown_copies(filters, self._standing)
            says = f"no stream on the server stores {', '.join(filters)}: "
            # A stream that should hold them and does not is not changed by waiting.
            exists = any(would_store(one, filters) and self.stands(one.name) for one in STREAMS)
            kind = TopologyError if causes or exists else StreamMissing
            raise kind(says + ("; ".join(causes) or "create one, or check the event type"))
        raise TopologyError(_lacking(", ".join(routes), missing))

    async def ensure_consumer(self, spec: ConsumerSpec) -> ConsumerInfo:
        """Create, use or update one consumer; return the server's facts about it.

        Raises TopologyError, naming the consumer, if it is not ours or cannot be changed.
        """
        has_waited = False
        is_new = spec.durable and spec.start_sequence is None
        for tries in range(1, TRIES + 1):
            info = await self._operators.consumer_info(spec.stream, spec.name)
            if info is not None and await self._is_left(spec, info):
                await self.delete_consumer(spec, info)
                info = None
            step = plan_consumer(spec, info)
            narrows = info is not None and is_narrower(spec, info.config)
            if isinstance(step, CreateConsumer) and is_new and self.before_create is not None:
                is_new = False
                if await self.before_create(spec):
                    continue
            if isinstance(step, UpdateConsumer) and narrows and not has_waited:
                # A newer version that starts at this moment may not pull yet: look again.
                has_waited = True
                await asyncio.sleep(NARROWS_AFTER)
                continue
            try:
                match step:
                    case RefuseConsumer(reason=reason):
                        raise TopologyError(reason)
                    case CreateConsumer():
                        self.require_create(f"consumer {spec.name} on {spec.stream}")
                        info = await write_consumer(self._operators, step)
                        self._tell_start(spec, info)
                        return info
                    case UpdateConsumer(only_function=True) if info is not None:
                        info = await self._renamed(step, info)
                    case UpdateConsumer():
                        self.require_create(f"an update of consumer {spec.name} on {spec.stream}")
                        self._notice(spec, step.notices)
                        return await write_consumer(self._operators, step)
                self._notice(spec, step.notices)
                assert info is not None
                return info
            except ApiError as error:
                if error.err_code == NOT_CREATED and tries < TRIES:
                    await asyncio.sleep(AGAIN)
                elif error.err_code not in SOMEBODY_WAS_FASTER:
                    raise TopologyError(
                        f"consumer {spec.name!r} on stream {spec.stream}: {error}"
                    ) from error
        raise TransportError(
            f"consumer {spec.name!r} on stream {spec.stream} keeps changing under us;"
            " is another version of this app starting over and over?"
        )

    async def _is_left(self, spec: ConsumerSpec, info: ConsumerInfo) -> bool:
        """Return True if a process that was to recreate a consumer was killed before it did."""
        config, is_unusable = info.config, is_beyond_repair(info.config)
        if app_of(config) != spec.app or not (config.max_deliver > 0 or is_unusable):
            return False
        position = await read_position(self._operators, spec.stream, spec.name)
        return position is not None and (is_unusable or position.origin == origin_of(info))

    async def _renamed(self, step: UpdateConsumer, info: ConsumerInfo) -> ConsumerInfo:
        """Write the function's name into a consumer; not worth a failure, it is for people."""
        try:
            return await write_consumer(self._operators, step) if self._create else info
        except TransportError as error:
            log.debug("consumer %s keeps its function's old name: %s", info.name, error)
            return info

    async def restore_consumer(self, spec: ConsumerSpec, info: ConsumerInfo) -> ConsumerInfo:
        """Undo what others changed on a consumer; return the server's facts about it.

        Raises TransportError if it is not ours, or the right to do it is missing.
        """
        return await self.change_consumer(spec, info, without_edits(spec, info.config))

    async def change_consumer(
        self, spec: ConsumerSpec, info: ConsumerInfo, config: Config
    ) -> ConsumerInfo:
        """Write a configuration of a consumer of ours. Raises TransportError as above."""
        self._require_ours(spec, info, "an update")
        return await write_consumer(self._operators, UpdateConsumer(spec.stream, config))

    async def delete_consumer(self, spec: ConsumerSpec, info: ConsumerInfo) -> None:
        """Delete a consumer that is to be recreated. Raises TransportError as above."""
        self._require_ours(spec, info, "another one in its place")
        await self._operators.delete_consumer(spec.stream, spec.name)

    def _require_ours(self, spec: ConsumerSpec, info: ConsumerInfo, change: str) -> None:
        if app_of(info.config) != spec.app:
            raise TopologyError("its tag no longer names this app; omni-worker plan shows it")
        self.require_create(change)

    @property
    def standing(self) -> Sequence[StreamConfig]:
        """Return the existing streams, as last read."""
        return self._standing

    def stands(self, stream: str) -> bool:
        """Return True if there is a stream of that name, as last read."""
        return any(config.name == stream for config in self._standing)

    def short_windows(self) -> dict[str, float]:
        """Map subject patterns to the duplicate window of their stream if below our two minutes."""
        return {
            subject: config.duplicate_window
            for config in self._standing
            if config.duplicate_window < DUPLICATE_WINDOW
            for subject in config.subjects
        }

    def max_age(self, stream: str) -> float:
        """Return the seconds a stream keeps its events, as last read; 0: for ever."""
        for config in self._standing:
            if config.name == stream:
                return config.max_age
        return 0.0

    def retention(self, stream: str) -> str:
        """Return a stream's retention, as last read."""
        for config in self._standing:
            if config.name == stream:
                return config.retention
        return "limits"

    async def look(self) -> None:
        """Read the streams again."""
        await self._read()

    async def _read(self) -> None:
        found = await self._operators.streams()
        self._standing = [info.config for info in found]
        self.created = {info.name: info.created for info in found}
        self.last = {info.name: info.state.last_sequence for info in found}

    async def _make_missing(self, missing: Sequence[StreamSpec]) -> None:
        room = await self._room() if missing and self._create else None
        # One more is ours: for events on their way back to a handler.
        holds = room is not None and room <= len(missing)
        self._held = {
            spec.name: spec for spec in missing if holds and not would_store(spec, [DEAD_LETTER])
        }
        if self._held:
            self._say_once(
                logging.WARNING,
                f"the account has room for {room} more streams (its max_streams), and"
                f" {len(missing)} of ours are missing: {', '.join(self._held)} are created only"
                " when a handler reads them",
            )
        for spec in missing:
            if spec.name not in self._held:
                await self._make_stream(spec)

    async def _room(self) -> int | None:
        """Return how many more streams the account may have; None: no limit is known."""
        try:
            account = await self._operators.account()
        except TransportError:  # without the right to ask, the server refuses what is too much
            return None
        return account.max_streams - account.streams if account.max_streams > 0 else None

    async def _make_stream(self, spec: StreamSpec) -> None:
        if not self._create:
            self._say_once(
                logging.WARNING, f"stream {spec.name} is missing, and provisioning is off"
            )
            return
        try:
            config = stream_config(spec, replicas=self._replicas)
            info = await write_stream(self._operators, CreateStream(config))
        except ApiError as error:
            if error.err_code not in SOMEBODY_WAS_FASTER:
                raise TopologyError(f"stream {spec.name} cannot be created: {error}") from error
            await self._read()
            return
        self._standing.append(info.config)
        self.created[info.name] = info.created
        log.info("stream %s created", spec.name)

    def require_create(self, what: str) -> None:
        """Raise NotProvisioned if nothing is to be created."""
        if not self._create:
            raise NotProvisioned(
                f"{what} is needed, and provisioning is off (OMNI_WORKER_PROVISION)"
            )

    def _notice(self, spec: ConsumerSpec, notices: Iterable[Notice]) -> None:
        for notice in notices:
            text = f"consumer {spec.name!r} on {spec.stream} {notice.says}"
            self._say_once(logging.WARNING, text)

    def _tell_start(self, spec: ConsumerSpec, info: ConsumerInfo) -> None:
        """Say, where a handler begins with new events, that stored ones are left out."""
        is_first = spec.start_from == "new" and spec.start_sequence is None
        if spec.durable and is_first and info.delivered and spec.name == spec.handler:
            begins = f"begins behind {spec.stream} #{info.delivered}"
            older = 'start_from="first" reads what is stored before'
            self._say_once(logging.INFO, f"consumer {spec.name} is new and {begins}; {older}")

    def _say_once(self, level: int, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.log(level, text)


def _lacking(stream: str, missing: Sequence[str]) -> str:
    return (
        f"stream {stream} does not store {', '.join(missing)}, and is not changed unasked:"
        " omni-worker plan --apply adds the subject"
    )
