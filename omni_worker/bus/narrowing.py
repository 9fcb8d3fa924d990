"""Narrowing: consumers that are wider than this version needs, until no other version reads them.

A worker that starts beside an older version keeps the filters that only the older one wants, and
reads one consumer where it would have two (topology/split). Both end here, without a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..binding import Binding, Bound
from ..errors import PermissionDenied, TransportError
from ..handler_consumers import bare_among, is_shared
from ..handlers import Handler
from ..operations.processes import WorkerProcess, processes
from ..provision import Provisioner
from ..tasks import own
from ..topology import (
    ConsumerSpec,
    StreamConsumers,
    has_late,
    holds_bare,
    is_narrower,
    narrowed,
)
from ..transports.base import Transport

log = logging.getLogger("omni_worker.bus")

ALONE_FOR = 25.0  # seconds; an older version that is being restarted is back by then

Key = tuple[str, str]  # stream and name of a consumer
Processes = Sequence[WorkerProcess]


@dataclass(frozen=True, slots=True)
class Wide:
    """A consumer that is to be narrowed to ``spec``; ``bare`` takes over some of its filters."""

    bound: Bound
    spec: ConsumerSpec
    bare: ConsumerSpec | None = None

    @property
    def key(self) -> Key:
        """Stream and name of the consumer."""
        return self.spec.stream, self.spec.name


class Narrowing:
    """Narrows the consumers of one bus; ``process`` is what it answers to as a service."""

    def __init__(
        self,
        app: str,
        process: str,
        provisioner: Provisioner,
        transport: Transport,
        planned: Callable[[Handler], Sequence[StreamConsumers]],
        changing: asyncio.Lock,
    ) -> None:
        self._app = app
        self._process = process
        self._provisioner = provisioner
        self._transport = transport
        self._planned = planned
        self._changing = changing  # one change of a configuration after the other
        self._alone_since: dict[Key, float] = {}  # loop time
        self._denied: set[Key] = set()  # until the next start
        self._looking: asyncio.Task[None] | None = None

    def look(self, bindings: Sequence[Binding]) -> None:
        """Begin to narrow what no other version reads; what fails is tried at the next look."""
        wide = [
            (binding, one)
            for binding in bindings
            for one in self._wide(binding)
            if one.key not in self._denied
        ]
        if wide and (self._looking is None or self._looking.done()):
            work = self._narrow_all(wide)
            self._looking = asyncio.get_running_loop().create_task(work, name=own("narrowing"))

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _narrow_all(self, wide: Sequence[tuple[Binding, Wide]]) -> None:
        others: Processes | None = None
        try:
            found = await processes(self._transport, app=self._app)
            # Where this process does not answer, others of its app may not either.
            if any(one.id == self._process for one in found):
                others = [one for one in found if one.id != self._process]
        except TransportError as error:  # then the next start narrows
            log.debug("whether other versions run is not known: %s", error)
        for binding, one in wide:
            try:
                async with self._changing:
                    await self._narrow(binding, one, others)
            except TransportError as error:
                if isinstance(error, PermissionDenied):
                    self._denied.add(one.key)
                log.debug("consumer %s on %s stays wide: %s", one.spec.name, one.spec.stream, error)

    def _wide(self, binding: Binding) -> Iterator[Wide]:
        """Yield the consumers of a handler that are wider than it needs."""
        handler, read = binding.subscription.handler, list(binding.bound.values())
        if not is_shared(handler) or not any(_may_be_wide(handler, bound) for bound in read):
            return
        for one in self._planned(handler):
            bounds = {bound.spec.name: bound for bound in read if bound.spec.stream == one.stream}
            main = bounds.get(one.name)
            if main is not None and one.bare is not None and not main.spec.split:
                yield Wide(main, one.main, one.bare)
                continue
            for spec in one.specs:
                if (bound := bounds.get(spec.name)) is not None and bound.is_wide:
                    yield Wide(bound, spec)

    async def _narrow(self, binding: Binding, wide: Wide, others: Processes | None) -> None:
        operators, (stream, name) = self._transport.operators, wide.key
        info = await operators.consumer_info(stream, name)
        if info is None:  # it is being recreated
            return
        if wide.bare is None and not is_narrower(wide.spec, info.config):
            wide.bound.is_wide = False
            return
        one = StreamConsumers(main=wide.spec, bare=wide.bare)
        bare = None
        if wide.bare is not None:
            bare = await operators.consumer_info(stream, wide.bare.name)
            if bare is not None and not holds_bare(one, info.config):  # another process did it
                await self._adopt(binding, wide)
                return
        is_begun = bare is not None  # by a process that was killed then
        if has_late(info.config):  # one change after the other
            return
        if not await self._is_free(binding, wide, others, at_once=is_begun):
            return
        info = await operators.consumer_info(stream, name) or info
        if wide.bare is not None and bare is None:
            # First the bare one: no event is in neither. Those that come by both until the update
            # below are recognised in this process.
            start = replace(wide.bare, start_sequence=info.delivered + 1)
            await self._provisioner.ensure_consumer(start)
        await self._provisioner.change_consumer(wide.spec, info, narrowed(wide.spec, info.config))
        left = ", ".join(one for one in info.config.filters if one not in wide.spec.filters)
        log.info(
            "consumer %s on %s no longer has %s: no other version reads it", name, stream, left
        )
        await self._adopt(binding, wide)

    async def _adopt(self, binding: Binding, wide: Wide) -> None:
        """Read what is narrowed as it is, and what has the rest of its filters."""
        if wide.bound.source in binding.bound:  # else it has ended, or is being recreated
            wide.bound.spec, wide.bound.is_wide = wide.spec, False
            await binding.bind([] if wide.bare is None else [wide.bare])

    async def _is_free(
        self, binding: Binding, wide: Wide, others: Processes | None, *, at_once: bool
    ) -> bool:
        """Return True if no other version has read a consumer for a while."""
        now = asyncio.get_running_loop().time()
        if others is None or not await self._is_alone(binding, wide, others):
            self._alone_since.pop(wide.key, None)
            return False
        since = self._alone_since.setdefault(wide.key, now)
        return at_once or now - since >= ALONE_FOR

    async def _is_alone(self, binding: Binding, wide: Wide, others: Processes) -> bool:
        """Return True if only processes that want the same read a consumer."""
        handler, (stream, name) = binding.subscription.handler, wide.key
        ours = (sorted(handler.filters), handler.options.order_by is not None)
        is_asked = wide.bound.source.outstanding > 0  # by one of us
        for process in others:
            for one in process.handlers:
                if wide.key in one.consumers:
                    if (sorted(one.subjects), one.ordered) != ours:
                        return False
                    is_asked |= wide.key in one.asking
        info = await self._transport.operators.consumer_info(stream, name)
        # Else a process that does not answer reads it, of whatever version.
        return info is not None and (is_asked or not info.num_waiting)


def _may_be_wide(handler: Handler, bound: Bound) -> bool:
    """Return True if the handler's consumers have to be planned again to know it."""
    spec = bound.spec
    is_joined = not spec.split and spec.name == spec.handler and handler.options.order_by is None
    return bound.is_wide or (is_joined and bool(bare_among(handler, spec.filters)))
