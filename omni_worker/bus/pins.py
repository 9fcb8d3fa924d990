"""Pins: consumers that serve one process at a time are made so, and no longer so, while they run.

A process of an older version does not ask as such a consumer wants it: the server would refuse all
its requests. So a consumer changes once no process reads it that wants it as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence

from ..binding import Binding, Bound
from ..errors import PermissionDenied, TransportError
from ..handler_consumers import is_shared
from ..operations.processes import WorkerProcess, processes
from ..provision import NotProvisioned, Provisioner
from ..tasks import own
from ..topology import app_of, can_pin, is_pinned, with_pin
from ..transports.base import Transport
from ..transports.infos import ConsumerInfo

log = logging.getLogger("omni_worker.bus")

ENOUGH = 3  # looks; a process that starts does not answer at once

Processes = Sequence[WorkerProcess]


class Pins:
    """Pins of the consumers of one bus; ``process`` is what it answers to as a service."""

    def __init__(
        self, app: str, process: str, provisioner: Provisioner, transport: Transport,
        changing: asyncio.Lock,
    ) -> None:  # fmt: skip
        self._app = app
        self._process = process
        self._provisioner = provisioner
        self._transport = transport
        self._changing = changing
        self._unknown = 0  # looks in turn that did not find who reads
        self._looking: asyncio.Task[None] | None = None

    def look(self, bindings: Sequence[Binding]) -> None:
        """Begin to change what may be changed; what fails is tried at the next look."""
        other = [(one, bound, info) for one in bindings for bound, info in self._other(one)]
        if other and (self._looking is None or self._looking.done()):
            work = self._change_all(other)
            self._looking = asyncio.get_running_loop().create_task(work, name=own("pins"))

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _other(self, binding: Binding) -> Iterator[tuple[Bound, ConsumerInfo]]:
        """Yield the consumers that serve processes otherwise than the handler needs."""
        handler = binding.subscription.handler
        for source, bound in list(binding.bound.items()):
            info = binding.subscription.unanswered.seen.get(source)
            if info is None or not is_shared(handler):
                continue
            if handler.one_active and not bound.spec.one_active:
                self._report(binding, info, self._why_not())
            elif is_pinned(info.config) != bound.spec.one_active:
                if app_of(info.config) == self._app:
                    yield bound, info
                else:
                    self._report(binding, info, "another program created it")
            else:
                self._report(binding, info, None)

    def _why_not(self) -> str | None:
        version = self._transport.server_version
        if can_pin(version):  # the server was updated: the next start knows
            return None
        shown = ".".join(map(str, version))
        return f"nats-server {shown} cannot serve one process at a time, 2.12 can"

    def _report(self, binding: Binding, info: ConsumerInfo, why: str | None) -> None:
        """Warn, once, that two processes would split what belongs together."""
        says = why and (
            f"consumer {info.name} on {info.stream} serves all processes at once, so order_by and"
            f" by hold with one process only ({why})"
        )
        if binding.subscription.standby.split(info.stream, info.name, says) and says:
            log.warning("%s", says)

    async def _change_all(self, other: Sequence[tuple[Binding, Bound, ConsumerInfo]]) -> None:
        others: Processes | None = None
        try:
            found = await processes(self._transport, app=self._app)
            # Where this process does not answer, others of its app may not either.
            if any(one.id == self._process for one in found):
                others = [one for one in found if one.id != self._process]
        except TransportError as error:
            log.debug("whether other versions run is not known: %s", error)
        self._unknown = self._unknown + 1 if others is None else 0
        for binding, bound, info in other:
            try:
                async with self._changing:
                    await self._change(binding, bound, info, others)
            except (PermissionDenied, NotProvisioned) as error:
                if bound.spec.one_active:
                    self._report(binding, info, str(error))
            except TransportError as error:
                log.debug("consumer %s on %s stays as it is: %s", info.name, info.stream, error)

    async def _change(
        self, binding: Binding, bound: Bound, info: ConsumerInfo, others: Processes | None
    ) -> None:
        now = await self._transport.operators.consumer_info(info.stream, info.name)
        if now is None or is_pinned(now.config) == bound.spec.one_active:
            return
        if not self._may_change(binding, bound, now, others):
            if self._unknown >= ENOUGH and bound.spec.one_active:
                self._report(binding, info, "who reads it is not known, see OMNI_WORKER_SERVICE")
            return
        config = with_pin(now.config, pinned=bound.spec.one_active)
        await self._provisioner.change_consumer(bound.spec, now, config)
        self._report(binding, info, None)
        how = "one process at a time" if bound.spec.one_active else "all its processes at once"
        log.info("consumer %s on %s serves %s from now on", info.name, info.stream, how)

    def _may_change(
        self, binding: Binding, bound: Bound, info: ConsumerInfo, others: Processes | None
    ) -> bool:
        """Return True if only processes read a consumer that need the same of it."""
        is_asked = bound.source.outstanding > 0  # by one of us
        for process in others or ():
            for one in process.handlers:
                if (info.stream, info.name) in one.consumers:
                    if one.one_active != binding.subscription.handler.one_active:
                        return False
                    is_asked |= (info.stream, info.name) in one.asking
        # Else a process that does not answer reads it, of whatever version.
        return others is not None and (is_asked or not info.num_waiting)
