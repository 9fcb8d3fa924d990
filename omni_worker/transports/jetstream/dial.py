"""Dial: a TCP connection to one of the addresses that a host name has, the first that answers."""

from __future__ import annotations

import asyncio
import socket

NEXT_AFTER = 0.25  # seconds an address has to answer before the next one is tried beside it

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dial(host: str, port: int, *, limit: int, timeout: float) -> Streams:
    """Connect, trying the addresses of a name beside each other, each a little after the last.

    An address that drops packets holds up nothing. Raises OSError of the last one that refused, or
    TimeoutError.
    """
    async with asyncio.timeout(timeout):
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(address[0] for *_, address in found))
        if len(addresses) == 1:
            return await asyncio.open_connection(str(addresses[0]), port, limit=limit)
        return await _race([str(one) for one in addresses], port, limit)


async def _race(addresses: list[str], port: int, limit: int) -> Streams:
    left = iter(addresses)
    tries: set[asyncio.Task[Streams]] = set()
    running: set[asyncio.Task[Streams]] = set()
    error: Exception = OSError("no address")
    try:
        while True:
            address = next(left, None)
            if address is not None:
                one = asyncio.create_task(asyncio.open_connection(address, port, limit=limit))
                tries.add(one)
                running.add(one)
            elif not running:
                raise error
            wait = NEXT_AFTER if address is not None else None
            done, running = await asyncio.wait(
                running, timeout=wait, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if (failure := task.exception()) is None:
                    tries.discard(task)
                    return task.result()
                error = failure if isinstance(failure, Exception) else error
    finally:
        for task in tries:
            task.cancel()
            task.add_done_callback(_close_late)


def _close_late(task: asyncio.Task[Streams]) -> None:
    """Close a connection that came after another one had won."""
    if not task.cancelled() and task.exception() is None:
        task.result()[1].close()
