"""Latecomers: a process that starts while others are about to recreate a consumer of theirs."""

from __future__ import annotations

import asyncio
import logging

from ..errors import TransportError
from ..operations.processes import processes
from ..topology import ConsumerSpec
from ..transports.base import Transport

log = logging.getLogger("omni_worker.bus")

ASKED_AGAIN = 5.0  # seconds; the consumers of one start are created within it
LOOK, LOOKS = 0.1, 150  # seconds between two; each process looks at its consumers every ten


class Latecomers:
    """Leaves a deleted consumer to the processes that read it; ``process`` is this one.

    They know where it was. Created by this process it would begin where ``start_from`` says, and
    the others would take that for an operator's wish to run everything again.
    """

    def __init__(self, app: str, process: str, transport: Transport) -> None:
        self._app = app
        self._process = process
        self._transport = transport
        self._asking: asyncio.Task[frozenset[tuple[str, str]]] | None = None
        self._asked_at = float("-inf")  # loop time

    def ask(self) -> None:
        """Ask the others what they read, of any handler.

        Where there are none, the server says so at once, but only while this process does not
        answer such questions itself; after that half a second has to pass.
        """
        loop = asyncio.get_running_loop()
        self._asking = loop.create_task(self._read_by_others(), name="ask-latecomers")
        self._asked_at = loop.time()

    async def close(self) -> None:
        """Ask no longer."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def wait(self, spec: ConsumerSpec) -> bool:
        """Wait until others have recreated a missing consumer; False if none of them reads it."""
        if asyncio.get_running_loop().time() - self._asked_at > ASKED_AGAIN:
            self._asking = None
        if self._asking is None:
            self.ask()
        assert self._asking is not None
        if (spec.stream, spec.name) not in await asyncio.shield(self._asking):
            return False
        for _ in range(LOOKS):
            if await self._transport.operators.consumer_info(spec.stream, spec.name) is not None:
                break
            await asyncio.sleep(LOOK)
        return True

    async def _read_by_others(self) -> frozenset[tuple[str, str]]:
        try:
            found = await processes(self._transport, app=self._app)
        except TransportError as error:
            log.debug("whether others read a missing consumer is not known: %s", error)
            return frozenset()
        return frozenset(
            key
            for one in found
            if one.id != self._process
            for handler in one.handlers
            for key in handler.consumers
        )
