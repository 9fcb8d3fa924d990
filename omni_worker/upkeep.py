"""Upkeep: a handler's consumers stay as we need them, whatever others do to them.

A change that loses or strands events is undone. A program that does it again and again is given way
to, for ever longer, and reported once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from dataclasses import dataclass

from .errors import TransportError
from .provision import Provisioner
from .signals import ConsumerEdited
from .subscription.gates import Flow
from .topology import (
    ConsumerSpec,
    app_of,
    changes_in_words,
    consumer_changes,
    edits_of,
    is_beyond_repair,
    shortened,
)
from .transports.base import Operators
from .transports.infos import ConsumerInfo

CALM = 60.0  # seconds without trouble, until earlier trouble is forgotten
LONGEST = 30.0  # seconds of a pause
READ_BY_ALL = 25.0  # seconds; each process reads its consumers every ten
LEFT_TO_OTHERS = 12.0  # seconds; each process looks at its consumers every ten
REMOVED = 0.25  # seconds after the notice of a deletion; the server takes milliseconds
REPORTED = 2  # how often trouble is reported each time it comes


@dataclass(slots=True)
class Contest:
    """Trouble with others over one consumer; loop time. Pure."""

    count: int = 0
    ended_at: float = float("-inf")  # when the consumer was as it should be again
    is_ours: bool = False  # the deletion that comes next

    def begin(self, now: float) -> None:
        """Note that others deleted or changed the consumer."""
        self.count = 1 if self.is_over(now) else self.count + 1

    def is_over(self, now: float) -> bool:
        """Return True if there was no trouble for a while."""
        return now - self.ended_at >= CALM

    @property
    def is_long(self) -> bool:
        """True if the trouble came more often than by chance."""
        return self.count > REPORTED

    @property
    def pause(self) -> float:
        """Seconds to wait before the consumer is set right: none at first, then ever more."""
        return 0.0 if self.count <= 1 else min(LONGEST, 2.0 ** (self.count - 2))


class Upkeep:
    """Care for the consumers of one handler."""

    def __init__(self, flow: Flow, provisioner: Provisioner, operators: Operators) -> None:
        self._flow = flow
        self._provisioner = provisioner
        self._operators = operators
        self._contests: dict[tuple[str, str], Contest] = {}
        self._found_limited: dict[tuple[str, str], float] = {}  # loop time
        self._announced: dict[tuple[str, str], tuple[str, float]] = {}  # since when, loop time
        self._deleting = asyncio.Lock()

    def began(self, info: ConsumerInfo) -> None:
        """Note how a consumer is when it is first read.

        What a max_deliver stranded before is known to processes that read it before. If there is
        none, it lies above the ack floor, unless all that came after it was answered.
        """
        self._found_limited.pop((info.stream, info.name), None)
        if info.config.max_deliver > 0 and (info.num_waiting or info.num_ack_pending):
            self._found_limited[info.stream, info.name] = self._flow.now()

    def deleted(self, spec: ConsumerSpec) -> Contest:
        """Note that others deleted a consumer; the contest says how long to wait."""
        contest = self._contests.setdefault((spec.stream, spec.name), Contest())
        if not contest.is_ours:
            contest.begin(self._flow.now())
        if contest.is_long:
            self._flow.stall(
                _contested(spec),
                f"consumer {spec.name} on {spec.stream} is deleted again and again by another"
                f" program: find it; the consumer is recreated every {LONGEST:g} s at most",
            )
        return contest

    async def until_removed(self, contest: Contest) -> None:
        """Wait until the server has removed a deleted consumer, and for the contest's pause.

        It tells the readers first (measured on 2.15.1): one that is created before the end takes
        over the state of the old one, so what was stranded stays so, or cannot be stored.
        """
        await asyncio.sleep(max(REMOVED, contest.pause))
        async with self._deleting:
            pass

    async def make_way(self, spec: ConsumerSpec) -> None:
        """Delete a consumer of ours that others made in a way that cannot be read or repaired."""
        info = await self._operators.consumer_info(spec.stream, spec.name)
        if info is None or app_of(info.config) != spec.app or not is_beyond_repair(info.config):
            return
        changes = consumer_changes(spec, info.config)
        self._report(spec, changes_in_words(changes), recreated=True)
        await self._operators.delete_consumer(spec.stream, spec.name)

    async def look(
        self,
        spec: ConsumerSpec,
        info: ConsumerInfo,
        *,
        ack_floor: int,
        leave: Callable[[], Awaitable[None]],
    ) -> ConsumerInfo | None:
        """Undo what others changed; return the consumer as it is now, None if it was deleted.

        ``ack_floor`` is the one of the look before; ``leave`` notes where another one is to begin.
        """
        now = self._flow.now()
        contest = self._contests.setdefault((spec.stream, spec.name), Contest())
        edits = edits_of(info.config, durable=spec.durable)
        if not edits:
            self._flow.stall_ended(_changed(spec))
            if contest.is_over(now):
                self._flow.stall_ended(_contested(spec))
            return info
        if self._is_left(info, now) or now - contest.ended_at < contest.pause:
            return info
        says = changes_in_words(edits)
        try:
            # In a new consumer all comes again, and what is settled is recognised.
            strands = self._strands(edits, ack_floor, info)
            # Not read back: it may be recreated before the deletion is answered.
            contest.is_ours = recreates = strands or is_beyond_repair(info.config)
            if recreates:
                # It stays as others made it until then: if this process is killed, the next one
                # sees both that and the note.
                async with self._deleting:
                    await leave()
                    await self._provisioner.delete_consumer(spec, info)
            restored = None
            if not recreates:
                restored = await self._provisioner.restore_consumer(spec, info)
        except TransportError as error:
            if contest.is_ours and not is_beyond_repair(info.config):  # at least nothing more
                with suppress(TransportError):
                    await self._provisioner.restore_consumer(spec, info)
            contest.is_ours = False
            self._flow.stall(
                _changed(spec),
                f"consumer {spec.name} on {spec.stream} was changed by others so that events are"
                f" lost ({says}), and cannot be set right: {error}",
            )
            return info
        contest.begin(now)
        contest.ended_at = now
        self._flow.stall_ended(_changed(spec))
        if contest.is_long:
            self._flow.stall(
                _contested(spec),
                f"consumer {spec.name} on {spec.stream} is changed again and again by another"
                f" program ({says}): find it; it is set right every {LONGEST:g} s at most",
            )
        else:
            self._report(spec, says, recreated=restored is None)
        return restored

    def _is_left(self, info: ConsumerInfo, now: float) -> bool:
        """Return True while processes that knew the consumer before may set it right."""
        found = self._found_limited.get((info.stream, info.name), float("-inf"))
        return info.config.max_deliver > 0 and now - found < LEFT_TO_OTHERS

    def _strands(self, edits: Container[str], ack_floor: int, info: ConsumerInfo) -> bool:
        """Return True if what was to be delivered again since the look before never is."""
        if "max_deliver" in edits and ack_floor < info.delivered:
            return True
        # In order all that came without its body has to come again before anything newer.
        return "headers_only" in edits and self._flow.handler.options.order_by is not None

    async def shorten(self, spec: ConsumerSpec, info: ConsumerInfo) -> ConsumerInfo:
        """Put an announced ack_wait in force, once every process has read it."""
        key, config = (spec.stream, spec.name), shortened(info.config)
        if config is None:
            self._announced.pop(key, None)
            return info
        now, ack_wait = self._flow.now(), str(config["ack_wait"])
        announced, since = self._announced.setdefault(key, (ack_wait, now))
        if announced != ack_wait:
            self._announced[key] = ack_wait, now
        elif now - since >= READ_BY_ALL:
            with suppress(TransportError):  # a process that has the right will do it
                return await self._provisioner.change_consumer(spec, info, config)
        return info

    def _report(self, spec: ConsumerSpec, changes: str, *, recreated: bool) -> None:
        self._flow.emit(
            ConsumerEdited(
                handler=self._flow.handler,
                stream=spec.stream,
                consumer=spec.name,
                changes=changes,
                recreated=recreated,
            )
        )


def _contested(spec: ConsumerSpec) -> str:
    return f"contested {spec.name} on {spec.stream}"


def _changed(spec: ConsumerSpec) -> str:
    return f"changed {spec.name} on {spec.stream}"
