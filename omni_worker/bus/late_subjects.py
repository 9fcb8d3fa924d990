"""Late subjects: those that are added to a stream which a handler reads already.

The consumer is widened. Events it passed before that are read by a second consumer, see
topology/additions. Each step leaves on the server what the next one needs: any process continues.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex
from weakref import WeakSet

from ..binding import Binding, Bound
from ..errors import ApiError, PermissionDenied, TopologyError
from ..provision import SOMEBODY_WAS_FASTER, Provisioner
from ..signals import LateConsumerLost
from ..subjects import fold
from ..subscription import Subscription
from ..topology import (
    ConsumerSpec,
    StreamConsumers,
    app_of,
    belongs_to,
    claim,
    has_late,
    is_late,
    is_read_up,
    joined,
    late_consumer,
    late_name,
    loses_events,
    overlapping,
    passed,
    uncovered,
    widened,
    with_late,
    with_until,
    without_late,
)
from ..topology.additions import Passed, but_of
from ..transports.base import Delivery, Source, Transport
from ..transports.infos import ConsumerInfo
from ..writes import write_consumer

log = logging.getLogger("omni_worker.bus")

AT_ONCE = 64  # events that one process holds of a late consumer

Key = tuple[str, str]  # stream and name of a late consumer


class LateReader:
    """Feeds a subscription with what its consumer passed. Implements the port's Receiver."""

    def __init__(self, subscription: Subscription, what: Passed) -> None:
        self._subscription = subscription
        self._what = what
        self._source: Source | None = None
        self._taken: set[int] = set()
        self._is_told = False  # when the subscription lets an event go
        self._asking: asyncio.Handle | None = None
        self._is_stopped = False

    @property
    def is_over(self) -> bool:
        """True once the consumer is gone."""
        return self._source is None

    @property
    def held(self) -> int:
        """Number of its events that wait or run in this process."""
        if self._source is None:
            return 0
        self._taken &= self._subscription.holds(self._source.stream)
        return len(self._taken)

    async def begin(self, transport: Transport, stream: str, name: str) -> None:
        """Begin to read, unless it is stopped before that is possible."""
        source = await transport.consume(stream, name, self)
        if self._is_stopped:  # the subscription ends: what came would be held by nothing
            await source.close()
            return
        self._source = source
        self._subscription.attach(self._source, fed=True)
        self._ask()

    async def stop(self) -> None:
        """Ask for nothing more; what is held is the subscription's to finish or to hand back."""
        self._is_stopped = True
        if self._asking is not None:
            self._asking.cancel()
        if self._source is not None:
            await self._source.stop()

    async def close(self) -> None:
        """Forget the consumer."""
        source, self._source = self._source, None
        if source is not None:
            self._subscription.detach(source)
            await source.close()

    # --- the port's Receiver ---------------------------------------------------------------

    def receive(self, delivery: Delivery) -> None:
        """Hand it on, or acknowledge it unrun: the first consumer delivers it, or did."""
        if self._subscription.flow.stalls:
            source = delivery.source
            self._subscription.flow.stall_ended(_unread(source.stream, source.consumer))
        if not self._what.holds(delivery.sequence, delivery.subject):
            delivery.ack()
        elif self._subscription.pauses.is_paused:
            self._subscription.pauses.hand_back_returned(delivery)
        else:
            self._taken.add(delivery.sequence)
            self._subscription.receive(delivery)
            self._await_room()
        self._ask_soon()

    def replenish(self, source: Source) -> None:
        """Ask again after a pull ended."""
        self._ask()

    def resumed(self, source: Source) -> None:
        """Handle a renewed link."""
        self._subscription.resumed(source)
        self._ask()

    def lost(self, source: Source, cause: Exception) -> None:
        """Forget a consumer that is gone: most often because all is read; the next look knows.

        A right that is missing is reported: until it is given, events wait.
        """
        if isinstance(cause, PermissionDenied):
            name, stream = source.consumer, source.stream
            reason = f"consumer {name} on {stream}, of new subjects, cannot be read: {cause}"
            self._subscription.flow.stall(_unread(stream, name), reason)
        self._source = None
        self._subscription.detach(source)

    def _ask(self) -> None:
        self._asking = None
        if self._source is not None:
            self._source.request(AT_ONCE - self.held - self._source.outstanding)

    def _await_room(self) -> None:
        """Ask for more when the subscription lets an event go, if it holds any of ours."""
        if not self._is_told and self.held:
            self._is_told = True
            self._subscription.on_room(self._on_room)

    def _on_room(self) -> None:
        self._is_told = False
        self._await_room()
        self._ask_soon()

    def _ask_soon(self) -> None:
        """Once a turn of the loop, however many came or were let go in it."""
        if self._asking is None and self._source is not None:
            self._asking = asyncio.get_running_loop().call_soon(self._ask)


class LateSubjects:
    """Widens the consumers of one bus, and reads what they passed."""

    def __init__(self, provisioner: Provisioner, transport: Transport) -> None:
        self._provisioner = provisioner
        self._transport = transport
        self._readers: dict[Subscription, dict[Key, LateReader]] = {}
        self._endless: set[int] = set()  # late consumers without an end, by creation
        self._without: set[int] = set()  # consumers whose late one others deleted, by creation
        self._ended: WeakSet[Subscription] = WeakSet()

    async def look(self, binding: Binding, one: StreamConsumers, *, seen: int) -> bool:
        """Compare the consumers of one stream with those planned; ``seen`` is its last sequence
        at the look before. Return False if something is left to do at the next look.
        """
        is_done = True
        for bound, spec in _pairs(binding, one):
            is_done &= spec is not None and await self._look_at(binding, bound, spec, seen)
        return is_done

    async def stop(self, subscription: Subscription) -> None:
        """Stop reading for a subscription, before it hands back what it holds."""
        self._ended.add(subscription)
        await asyncio.gather(*(one.stop() for one in self._of(subscription).values()))

    async def close(self, subscription: Subscription) -> None:
        """Forget a subscription that has ended."""
        for reader in self._readers.pop(subscription, {}).values():
            await reader.close()

    def _of(self, subscription: Subscription) -> dict[Key, LateReader]:
        return self._readers.get(subscription, {})

    async def _look_at(self, binding: Binding, bound: Bound, spec: ConsumerSpec, seen: int) -> bool:
        new = uncovered(bound.spec.filters, spec.filters)
        is_read = (spec.stream, late_name(spec.name)) in self._of(binding.subscription)
        if not (new or bound.has_late or is_read):
            return True
        info = await self._transport.operators.consumer_info(spec.stream, spec.name)
        if info is None:  # it is being recreated
            return False
        if not (is_read or has_late(info.config)):
            info = await self._found_late(bound, info)
        if is_read or has_late(info.config) or bound.has_late:  # one after the other
            await self._read_passed(binding, bound, info)
            return not new
        wider = replace(bound.spec, filters=fold([*bound.spec.filters, *new]))
        if uncovered(info.config.filters, new):
            widened_one = await self._widen(wider, info, seen + 1)
            if widened_one is None:
                bound.has_late = True  # another process reads it, or it was left behind
                return False
            function = binding.subscription.handler.function
            log.info("%s reads %s of %s as well", function, ", ".join(new), spec.stream)
            await self._read_passed(binding, bound, widened_one)
        bound.spec = wider
        return True

    async def _found_late(self, bound: Bound, info: ConsumerInfo) -> ConsumerInfo:
        """Look, once, for a late consumer of one without the tag, and write that.

        A consumer that was recreated does not have the tag; ``bound.has_late`` is the answer.
        """
        if not bound.has_late:
            return info
        stream, name = bound.spec.stream, late_name(bound.spec.name)
        try:
            late = await self._transport.operators.consumer_info(stream, name)
        except PermissionDenied:
            bound.has_late = False  # a right that is missing is reported once
            raise
        bound.has_late = late is not None and belongs_to(late.config, info.config)
        if late is None or not bound.has_late:
            return info
        what = passed(late.config)
        if what is None or not is_read_up(late, what):
            with suppress(PermissionDenied, TopologyError):  # each process looks for it once
                config = with_late(info.config.raw)
                return await self._provisioner.change_consumer(bound.spec, info, config)
        return info

    async def _widen(
        self, spec: ConsumerSpec, info: ConsumerInfo, start: int
    ) -> ConsumerInfo | None:
        """Widen a consumer; return None if another process does it at this moment.

        A late consumer is created before: no death in between loses an event. Only the process that
        created it goes on, or after that one's death another.
        """
        filters = fold([*info.config.filters, *spec.filters])
        if overlapping(filters) and loses_events(self._transport.server_version):
            raise TopologyError(
                f"{', '.join(filters)} of {spec.stream} would lose events in one consumer,"
                f" {spec.name!r}, on this nats-server: use 2.11.3 or newer"
            )
        late = await self._claim(late_consumer(spec, info.config, start), info)
        if late is None:
            return None
        config = widened(info.config, late.config.filters)
        info = await self._provisioner.change_consumer(spec, info, config)
        await self._bound_by(spec, late, info)
        return info

    async def _claim(self, late: ConsumerSpec, info: ConsumerInfo) -> ConsumerInfo | None:
        """Create a late consumer, or take over one whose process died; None: another has it."""
        operators = self._transport.operators
        old = await operators.consumer_info(late.stream, late.name)
        if old is None:
            try:
                self._provisioner.require_create(f"consumer {late.name} on {late.stream}")
                return await write_consumer(operators, claim(late, token_hex(4)))
            except ApiError as error:
                if error.err_code not in SOMEBODY_WAS_FASTER:
                    raise
                return None
        if not is_late(old.config) or app_of(old.config) != late.app:
            raise TopologyError(
                f"consumer {old.name!r} was created by another program, and {info.name!r} needs one"
                " of that name for events of new subjects: delete that one"
            )
        is_claimed = passed(old.config) is None and self._is_orphaned(old)
        return old if is_claimed else None  # one that has an end is read up first

    async def _bound_by(
        self, spec: ConsumerSpec, late: ConsumerInfo, info: ConsumerInfo
    ) -> ConsumerInfo:
        """End a late consumer where the stream is: what comes later the widened one delivers.

        That one may have looked further than it has delivered, and where it is it does not say; but
        not past an event of its own that it has yet to deliver. Without any, events stored since
        its last delivery may come by both.
        """
        operators = self._transport.operators
        stream = await operators.stream_info(spec.stream)
        end = max(info.delivered, 0 if stream is None else stream.state.last_sequence)
        # A replicated consumer says later than it delivers where it is.
        is_alone = stream is not None and stream.config.raw.get("num_replicas", 1) == 1
        with suppress(PermissionDenied):
            for filter in but_of(late.config) if is_alone else ():
                found = await operators.next_message(spec.stream, info.delivered + 1, filter)
                end = end if found is None else min(end, found.sequence - 1)
        return await self._provisioner.change_consumer(spec, late, with_until(late.config, end))

    def _is_orphaned(self, late: ConsumerInfo) -> bool:
        """Return True if a late consumer had no end at the look before either."""
        is_known = late.created in self._endless
        self._endless.add(late.created)
        return is_known

    async def _read_passed(self, binding: Binding, bound: Bound, info: ConsumerInfo) -> None:
        """Read what a widened consumer passed, or end that; ``info`` is of the widened one."""
        operators = self._transport.operators
        stream, name = bound.spec.stream, late_name(bound.spec.name)
        late = await operators.consumer_info(stream, name)
        if late is not None and passed(late.config) is None:
            if not self._is_orphaned(late):
                return
            late = await self._bound_by(bound.spec, late, info)
        if late is not None and late.config.ack_wait != info.config.ack_wait:
            config = {**late.config.raw, "ack_wait": info.config.raw["ack_wait"]}
            with suppress(PermissionDenied, TopologyError):  # a process that has the right will
                late = await self._provisioner.change_consumer(bound.spec, late, config)
        what = None if late is None else passed(late.config)
        if binding.subscription in self._ended:
            return
        readers = self._readers.setdefault(binding.subscription, {})
        reader = readers.get((stream, name))
        if late is None or what is None or is_read_up(late, what):
            if reader is not None:
                if reader.held:
                    return
                del readers[stream, name]
                await reader.stop()
                await reader.close()
            await self._end(binding, bound, is_gone=late is None)
        elif reader is None or reader.is_over:
            readers[stream, name] = reader = LateReader(binding.subscription, what)
            await reader.begin(self._transport, stream, name)

    async def _end(self, binding: Binding, bound: Bound, *, is_gone: bool) -> None:
        """Remove a late consumer that is read up, and before it the tag of the first one.

        Where that one has the tag and there is no late consumer, others deleted it.
        """
        operators, spec, flow = self._transport.operators, bound.spec, binding.subscription.flow
        name = late_name(spec.name)
        info = await operators.consumer_info(spec.stream, spec.name)
        if info is not None and has_late(info.config):
            if is_gone and info.created not in self._without:
                self._without.add(info.created)
                flow.emit(LateConsumerLost(handler=flow.handler, stream=spec.stream, consumer=name))
            await self._provisioner.change_consumer(spec, info, without_late(info.config))
            self._without.discard(info.created)
        await operators.delete_consumer(spec.stream, name)
        bound.has_late = False
        flow.stall_ended(_unread(spec.stream, name))


def _unread(stream: str, name: str) -> str:
    return f"late {name} on {stream}"


def _pairs(binding: Binding, one: StreamConsumers) -> Iterator[tuple[Bound, ConsumerSpec | None]]:
    """Yield each consumer that is read with the one planned; None: not to be compared now."""
    read = {bound.spec.name: bound for bound in binding.bound.values()
            if bound.spec.stream == one.stream}  # fmt: skip
    is_apart = all(spec.name in read for spec in one.specs)
    for spec in one.specs if is_apart else (joined(one),):
        if (bound := read.get(spec.name)) is not None:
            is_alone = not is_apart and bool(bound.spec.split)  # its bare one is being recreated
            yield bound, None if is_alone else spec
