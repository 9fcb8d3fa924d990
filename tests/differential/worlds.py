"""The two servers a trace is run on: one in memory and in virtual time, and a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations

from omni_worker.settings import Settings
from omni_worker.testing.clock import VirtualTime
from omni_worker.transports.base import Transport
from omni_worker.transports.jetstream import JetStreamTransport
from omni_worker.transports.memory import MemoryServer, MemoryTransport
from omni_worker.transports.memory.consumer import MemoryConsumer
from tests.transports.proxy import Proxy
from tests.waiting import NotInTime, until

from .running import ON_TIME, PATIENCE, Report, Run
from .traces import CLIENTS, SLOT, Trace

# Made once: reading the environment costs more than a whole trace in memory.
_SETTINGS = Settings(reconnect_delay=0.01, reconnect_max_delay=0.02, reconnect_max_retries=10_000)


# --- the memory server ----------------------------------------------------------------------


class MemoryWorld:
    """A server in memory, in virtual time."""

    def __init__(self, clock: VirtualTime) -> None:
        self.stream = "T"
        self.slot = SLOT
        self._clock = clock
        self._began = clock.now
        self._server = MemoryServer()
        self._is_tied = False
        self._transports: dict[int, MemoryTransport] = {}

    async def connect(self, client: int) -> Transport:
        transport = self._transports[client] = MemoryTransport(self._server, _SETTINGS)
        await transport.open("differential")
        return transport

    async def cut(self, client: int) -> None:
        self._transports[client].disconnect()

    async def mend(self, client: int) -> None:
        self._transports[client].reconnect()

    async def pass_slots(self, count: int) -> None:
        then = self._clock.now + count * self.slot
        consumers = self._server.consumers(self.stream)
        self._is_tied = any(_has_a_tie(one, then) for one in consumers)
        await self._move(lambda: False, then)

    async def rest(self, is_enough: Callable[[], bool]) -> None:
        await self._move(lambda: True)

    def moment(self, slots: float) -> int:
        return self._server.clock() + round(slots * self.slot * 1e9)

    def is_late(self) -> bool:
        return False

    def is_ambiguous(self) -> bool:
        if self._is_tied:
            return True
        part = (self._clock.now - self._began) / self.slot % 1.0
        return 0.001 < part < ON_TIME

    async def _move(self, done: Callable[[], bool], until: float | None = None) -> None:
        await self._clock.move(done, patience=PATIENCE, until=until)


def _has_a_tie(consumer: MemoryConsumer, then: float) -> bool:
    """Return True if leases end at one time until then that were not given in stream order.

    A real server looks every now and then which leases are over and sorts those: what ended within
    the same milliseconds comes by sequence, what did not in the order in which it ended.
    """
    held = consumer._pending.items()
    ends = [(one.due, sequence) for sequence, one in held if one.due[0] <= then]
    return any(
        one[0] == other[0] and (one[1] < other[1]) != (here < there)
        for (one, here), (other, there) in combinations(ends, 2)
    )


async def run_on_memory(traces: list[Trace], kind: type[Run] = Run) -> list[Report]:
    """Take one step after the other: no time passes."""
    clock = VirtualTime.take()
    try:
        return [await kind(MemoryWorld(clock), trace).run() for trace in traces]
    finally:
        clock.release()


# --- a real server --------------------------------------------------------------------------


class RealWorld:
    """A stream of its own on a real server, each client behind a proxy of its own."""

    def __init__(self, port: int, stream: str, slot: float) -> None:
        self.stream = stream
        self.slot = slot
        self._proxies = [Proxy(port) for _ in range(CLIENTS + 1)]
        self._transports: dict[int, JetStreamTransport] = {}
        self._slot_began = asyncio.get_running_loop().time()

    async def connect(self, client: int) -> Transport:
        await self._proxies[client].mend()
        settings = _SETTINGS.model_copy(update={"urls": (self._proxies[client].url,)})
        transport = self._transports[client] = JetStreamTransport(settings)
        await transport.open("differential")
        return transport

    async def cut(self, client: int) -> None:
        await self._proxies[client].cut()
        await _until(lambda: not self._transports[client].is_connected)

    async def mend(self, client: int) -> None:
        await self._proxies[client].mend()
        await _until(lambda: self._transports[client].is_connected)

    async def pass_slots(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        self._slot_began = max(self._slot_began + count * self.slot, loop.time())
        await asyncio.sleep(self._slot_began - loop.time())

    async def rest(self, is_enough: Callable[[], bool]) -> None:
        await _until(is_enough)

    def moment(self, slots: float) -> int:
        left = self._slot_began + slots * self.slot - asyncio.get_running_loop().time()
        return time.time_ns() + round(left * 1e9)

    def is_late(self) -> bool:
        return asyncio.get_running_loop().time() > self._slot_began + ON_TIME * self.slot

    def is_ambiguous(self) -> bool:
        return False

    async def close(self) -> None:
        """End the proxies."""
        for proxy in self._proxies:
            await proxy.cut()


async def run_for_real(
    trace: Trace, expected: Report, port: int, stream: str, turn: float, slot: float,
    kind: type[Run] = Run,
) -> Report:  # fmt: skip
    """Run the same trace on a real server; ``turn`` spreads those that run at once over a slot."""
    await asyncio.sleep(turn * slot)
    world = RealWorld(port, stream, slot)
    try:
        return await kind(world, trace, expected).run()
    finally:
        await world.close()


async def _until(condition: Callable[[], bool]) -> None:
    """Wait a while; what does not come is a difference, and shows in the report."""
    with suppress(NotInTime):
        await until(condition, PATIENCE)
