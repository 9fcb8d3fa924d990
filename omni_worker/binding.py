"""Binding: a handler and its consumers. Finds the streams, makes the consumers, keeps them alive.

A deleted consumer is recreated at a position where nothing is lost; a new stream starts over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .errors import ApiError, ConsumerGone, PermissionDenied, TopologyError, TransportError
from .notes import SettledNotes
from .notes.ledger import RENEWED_EVERY
from .positions import Position, read_position
from .provision import Provisioner
from .resets import Looks
from .signals import (
    ConsumerLost,
    ConsumerRecreated,
    ConsumerReset,
    HandlerSignal,
    RecreationFailed,
    Signals,
    StreamReplaced,
)
from .subscription import SourceState, Subscription
from .tasks import own
from .threads import DaemonThreads
from .topology import (
    ConsumerSpec,
    announced_lease,
    has_late,
    is_beyond_repair,
    is_narrower,
    origin_of,
    wanted_ack_wait,
)
from .transports.base import Operators, Source, Transport
from .transports.infos import ConsumerInfo
from .upkeep import Contest, Upkeep

log = logging.getLogger("omni_worker.worker")

REFRESH = 10.0  # seconds between looks at the server's consumer
BUSY_REFRESH = 1.0  # where much is handled: what others settled since would run again here
BUSY = 100  # events handled since the last look
RECREATE_PAUSE = 1.0  # seconds after the first try to make a consumer again; twice as long each
LONGEST_PAUSE = 5.0  # seconds; while the server refuses, twice as long


@dataclass(slots=True)
class Bound:
    """Consumer of one stream, as last read from the server."""

    spec: ConsumerSpec
    source: Source
    looks: Looks
    ack_floor: int  # stream sequence
    stream_created: int  # epoch nanoseconds; 0: not known
    highest: int = 0  # settled at the last look
    ack_wait: float = 0.0  # seconds, that of the version started last
    begin: int = 0  # of the account, if there is no older one
    entered_at: float = 0.0  # monotonic; in the account
    has_late: bool = True  # another consumer reads what this one passed; until a look finds none
    is_wide: bool = False  # it kept filters that are not needed: another version reads it too
    left: Position | None = None  # of the consumer before, until this one is past it


class Binding:
    """Keeps one subscription supplied from its consumers."""

    def __init__(
        self, subscription: Subscription, transport: Transport, provisioner: Provisioner, *,
        threads: DaemonThreads | None, recreate: bool, keep: bool,
        signals: Signals, settled: SettledNotes,
    ) -> None:  # fmt: skip
        self.subscription = subscription
        self.bound: dict[Source, Bound] = {}
        self.failure: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._transport = transport
        self._operators: Operators = transport.operators
        self._provisioner = provisioner
        self._threads = threads
        self._recreate = recreate
        self.signals = signals
        self._keep = keep  # the consumers stay when this process closes
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = settled
        self._positions = settled.positions
        self._ledger = settled.ledger
        self._doubted: set[Source] = set()
        self._upkeep = Upkeep(subscription.flow, provisioner, transport.operators)
        subscription.doubts.ask = self.on_doubt
        self._handled = 0  # at the last look

    @property
    def is_busy(self) -> bool:
        """Return True if enough was handled since the last refresh that the next one is due."""
        return self.subscription.counts.handled - self._handled >= BUSY

    async def bind(self, specs: Iterable[ConsumerSpec]) -> None:
        """Make or check every consumer and begin to read it; after a failure call it again."""
        for spec in specs:
            if all(bound.spec != spec for bound in self.bound.values()):
                await self._bind_one(spec)

    async def refresh(self) -> None:
        """Read the consumers again: the server's ack_wait rules, the ack floor is a way back."""
        self._handled = self.subscription.counts.handled
        for bound in list(self.bound.values()):
            info = await self._operators.consumer_info(bound.spec.stream, bound.spec.name)
            if info is not None and bound.source in self.bound:
                info = await self._upkeep.look(
                    bound.spec, info, ack_floor=bound.ack_floor, leave=partial(self._leave, bound)
                )
            if bound.source not in self.bound:
                continue
            if info is None:  # the server says so to open requests, and there may be none
                bound.source.lose(ConsumerGone(bound.spec.stream, bound.spec.name))
                continue
            info = await self._upkeep.shorten(bound.spec, info)
            if info.created != bound.looks.created:  # another process made it again
                bound.stream_created = await self._stream_created(bound.spec.stream)
            await self._note_account(bound)
            self._take_in(bound, info)
            await self._share_settled(bound)
            if bound.left is not None and (info.is_idle or info.ack_floor >= bound.left.end):
                bound.left = None
                await self._positions.drop(bound.spec.stream, bound.spec.name)

    async def refresh_leases(self) -> None:
        """Read only the ack_wait, for the last runs of a subscription that ends."""
        for bound in list(self.bound.values()):
            info = await self._operators.consumer_info(bound.spec.stream, bound.spec.name)
            if info is not None:
                self._lease(info)

    def _lease(self, info: ConsumerInfo) -> None:
        self.subscription.lease(info.config.ack_wait, announced_lease(info.config))

    def on_lost(self, source: Source, cause: Exception) -> None:
        """The port's word that a consumer is gone."""
        bound = self.bound.pop(source, None)
        state = self.subscription.detach(source)
        if bound is None or state is None:
            return
        # A right that is missing does not come with another consumer.
        recreate = self._recreate and not isinstance(cause, PermissionDenied)
        contest = self._upkeep.deleted(bound.spec)
        if not (recreate and (contest.is_long or contest.is_ours)):  # those are reported there
            self._emit(ConsumerLost, bound, cause=cause, recreate=recreate)
        if not recreate:
            self.fail(cause)
            return
        self._start(self._make_again(bound, state, contest))

    def on_doubt(self, source: Source) -> None:
        """Read a consumer whose deliveries are doubtful, or may be: its link was renewed."""
        bound = self.bound.get(source)
        if bound is None or source in self._doubted:
            return
        self._doubted.add(source)
        self._start(self._judge(bound))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=own("upkeep"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _judge(self, bound: Bound) -> None:
        source = bound.source
        try:
            while source in self.bound:
                with suppress(TransportError):
                    info = await self._operators.consumer_info(bound.spec.stream, bound.spec.name)
                    await self._note_account(bound)
                    if info is not None and source in self.bound:
                        self._take_in(bound, info)
                    break
                if self.subscription.doubts.lowest(source) is None:
                    break
                await asyncio.sleep(RECREATE_PAUSE)
        finally:
            self._doubted.discard(source)
        self.subscription.judge(source)

    def fail(self, cause: Exception) -> None:
        """Nothing more will come; ``failure`` says why."""
        if not self.failure.done():
            self.failure.set_result(cause)

    async def close(self) -> None:
        """Stop making consumers again, and remove those that only this process read."""
        if self._threads is not None:
            self._threads.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for bound in self.bound.values():
            if self._ledger is not None and self._keep:
                await self._note_account(bound)
                await self._ledger.end(bound.spec.stream, self._origin(bound))
            await bound.source.close()
            if not self._keep and self._transport.is_connected:
                try:
                    await self._operators.delete_consumer(bound.spec.stream, bound.spec.name)
                except TransportError as error:
                    log.info("consumer %s stays until it is unused: %s", bound.spec.name, error)

    async def _bind_one(
        self, spec: ConsumerSpec, after: SourceState | None = None, left: Position | None = None
    ) -> None:
        info = await self._provisioner.ensure_consumer(spec)
        self._upkeep.began(info)
        created = await self._stream_created(spec.stream)
        ours, turns = self.subscription, self.subscription.standby.turns(spec)
        source = await self._transport.consume(spec.stream, spec.name, ours, served=turns)
        looks, is_wide = Looks(origin_of(info)), is_narrower(spec, info.config)
        bound = Bound(spec, source, looks, info.ack_floor, created, left=left, is_wide=is_wide)
        if after is not None and spec.start_sequence is not None:
            if spec.origin == bound.looks.origin:
                await self._learn_settled(bound, after)
            else:
                after.forget_all()
                self._emit(ConsumerReset, bound)
        elif after is None and spec.durable and bound.looks.origin != str(info.created):
            after = await self._state_left(bound)
        self.bound[source] = bound
        self.subscription.attach(source, after)
        await self._note_account(bound, info)
        self._take_in(bound, info)

    async def _stream_created(self, stream: str) -> int:
        info = await self._operators.stream_info(stream)
        return 0 if info is None else info.created

    def _take_in(self, bound: Bound, info: ConsumerInfo) -> None:
        if is_beyond_repair(info.config):  # its floor does not mean settled; it is recreated
            return
        link, server = self.subscription.resumptions, self._transport.server_id
        doubtful = self.subscription.doubts.lowest(bound.source)
        if bound.looks.is_reset(info, link=link, server=server, doubtful=doubtful):
            bound.looks = Looks(origin_of(info))
            self.subscription.forget_settled(bound.source)
            if bound.left is not None:  # else the next process would know them as settled
                bound.left = None
                self._start(self._positions.drop(bound.spec.stream, bound.spec.name))
            self._emit(ConsumerReset, bound)
        now = asyncio.get_running_loop().time()
        bound.looks.note(info, link=link, server=server, now=now)
        # What a max_deliver of others gave up lies below the server's floor, unsettled.
        gives_up = info.config.max_deliver > 0
        floor = bound.ack_floor = bound.ack_floor if gives_up else info.ack_floor
        bound.ack_wait = wanted_ack_wait(info.config)
        bound.has_late |= has_late(info.config)
        ours, is_idle = self.subscription, info.is_idle and not gives_up
        ours.settled_up_to(bound.source, floor, is_idle=is_idle, deliveries=info.deliveries)
        self.subscription.unanswered.saw(bound.source, info)
        self._lease(info)

    async def _share_settled(self, bound: Bound) -> None:
        """Note what is settled, for other processes, if something keeps the ack floor down."""
        if (state := self.subscription.state_of(bound.source)) is None:
            return
        if bound.ack_floor < bound.highest:
            await self._settled.share(state.settled, bound.spec.stream, *self._origins(bound))
        bound.highest = state.settled.highest

    async def _note_account(self, bound: Bound, bound_now: ConsumerInfo | None = None) -> None:
        """Note all that is settled, for the audit, before what lies below the floor is forgotten.

        The account begins behind what was delivered before, or where the last process began it.
        """
        state = self.subscription.state_of(bound.source)
        if self._ledger is None or not self._keep or state is None:
            return
        stream, origin, now = bound.spec.stream, self._origin(bound), time.monotonic()
        if bound_now is not None:
            bound.begin = bound_now.delivered + 1
        if bound_now is not None or now - bound.entered_at > RENEWED_EVERY:
            bound.entered_at = now
            await self._ledger.begin(stream, origin, bound.begin)
        await self._settled.share(state.settled, stream, *self._origins(bound))

    async def _leave(self, bound: Bound, state: SourceState | None = None) -> None:
        """Note where a consumer is to be recreated, and what is settled beyond that."""
        state = state or self.subscription.state_of(bound.source)
        if state is None or not bound.spec.durable:
            return
        stream, looks = bound.spec.stream, bound.looks
        await self._settled.share(state.settled, stream, *self._origins(bound))
        start, end = state.first_unsettled(bound.ack_floor), state.settled.highest
        created = bound.stream_created
        bound.left = Position(start=start, end=end, origin=looks.origin, stream_created=created)
        await self._positions.keep(stream, bound.spec.name, bound.left)

    async def _state_left(self, bound: Bound) -> SourceState | None:
        """Return what is known of a consumer that was recreated, while settled events come again.

        The process that settled them, or was to recreate the consumer, may have been killed.
        """
        name, stream = bound.spec.name, bound.spec.stream
        with suppress(TransportError):
            bound.left = await read_position(self._operators, stream, name)
        if bound.left is None or bound.left.origin != bound.looks.origin:
            bound.left = None
            return None
        state = SourceState(bound.source)
        for other in self.bound.values():
            sibling = self.subscription.state_of(other.source)
            if other.spec.stream == stream and sibling is not None:
                state.join(sibling)
        left, origin = bound.left, self._origin(bound)
        await self._settled.learn(state.settled, stream, origin, left.start, left.end)
        return state

    async def _learn_settled(self, bound: Bound, state: SourceState) -> None:
        stream = await self._operators.stream_info(bound.spec.stream)
        if stream is not None and bound.spec.start_sequence is not None:
            start, end = bound.spec.start_sequence, stream.state.last_sequence
            name, origin = bound.spec.stream, self._origin(bound)
            await self._settled.learn(state.settled, name, origin, start, end)

    def _origins(self, bound: Bound) -> set[str]:
        """Return a consumer and its sibling on the stream."""
        siblings = (one for one in self.bound.values() if one.spec.stream == bound.spec.stream)
        return {self._origin(one) for one in (bound, *siblings)}

    def _origin(self, bound: Bound) -> str:
        return f"{bound.stream_created}.{bound.spec.name}.{bound.looks.origin}"

    async def _make_again(self, bound: Bound, state: SourceState, contest: Contest) -> None:
        """Recreate the consumer, retrying until it works, from the first event maybe unsettled."""
        await self._leave(bound, state)  # before any other process reads it
        await self._upkeep.until_removed(contest)
        pause, said = RECREATE_PAUSE / 2, ""
        while True:
            try:
                await self._upkeep.make_way(bound.spec)
                spec, kept = await self._where_to_start(bound, state)
                await self._bind_one(spec, kept, bound.left)
                contest.ended_at, contest.is_ours = asyncio.get_running_loop().time(), False
                if not contest.is_long:
                    self._emit(ConsumerRecreated, bound, sequence=spec.start_sequence)
                return
            except TransportError as error:
                if self._transport.failure is not None and not isinstance(error, ApiError):
                    self.fail(error)
                    return
                if str(error) != said:
                    self._emit(RecreationFailed, bound, cause=error)
                said = str(error)
                is_refused = isinstance(error, ApiError | TopologyError)
                pause = min(2 * pause, LONGEST_PAUSE * (2 if is_refused else 1))
            await asyncio.sleep(pause)

    async def _where_to_start(
        self, bound: Bound, state: SourceState
    ) -> tuple[ConsumerSpec, SourceState | None]:
        # Not by our own options: a newer version may have read it.
        spec = replace(bound.spec, ack_wait=bound.ack_wait)
        stream = await self._operators.stream_info(bound.spec.stream)
        if stream is None or stream.created != bound.stream_created:
            await self._provisioner.ensure_streams()
            # The server makes a consumer of subjects its stream does not store: it reads nothing.
            await self._provisioner.routes(bound.spec.filters, literal=False)
            self._emit(StreamReplaced, bound)
            return replace(spec, start_sequence=1, origin=""), None
        start = state.first_unsettled(bound.ack_floor)
        return replace(spec, start_sequence=start, origin=bound.looks.origin), state

    def _emit(self, kind: Callable[..., HandlerSignal], bound: Bound, **facts: Any) -> None:
        names = {"stream": bound.spec.stream, "consumer": bound.spec.name}
        self.signals.emit(kind(handler=self.subscription.handler, **names, **facts))
