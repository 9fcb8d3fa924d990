"""Links that misbehave: a proxy before a server that delays, cuts, swallows and goes deaf."""

from __future__ import annotations

import asyncio
import contextlib
import re
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
_ACK = re.compile(rb"PUB \$JS\.ACK\S*(?: _INBOX\S+)? 4\r\n\+ACK\r\n")
_ACK_BEGINS = b"PUB $JS.ACK"
_LONGEST_ACK = 300  # bytes


class Link:
    """Passes bytes both ways, as its switches say; each may be thrown while bytes flow."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay = 0.0  # seconds, each way
        self.is_deaf = False  # takes everything, passes nothing on, closes nothing
        self.swallows_acks = False
        self.swallowed = 0
        self.cuts = 0
        self._cut_in: int | None = None  # bytes towards the client
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{LOOPBACK}:{self.port}"

    def cut_after(self, size: int) -> None:
        """Reset every connection when so many bytes have gone to clients: mid-message."""
        self._cut_in = size

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._abort()  # whose tasks end by it
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ours = {writer}
        try:
            there = await asyncio.open_connection(LOOPBACK, self._target)
            ours.add(there[1])
            self._writers |= ours
            await asyncio.gather(
                self._pass_on(reader, there[1], to_client=False),
                self._pass_on(there[0], writer, to_client=True),
            )
        except OSError:
            pass  # the server is away at the moment
        finally:
            self._tasks.discard(task)
            self._writers -= ours
            for one in ours:
                one.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_client: bool
    ) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._send(on_the_way, writer))
        now = asyncio.get_running_loop().time
        held = b""
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65_536):
                    if self.is_deaf:
                        continue
                    if to_client:
                        data, is_cut = self._maybe_cut(data)
                        on_the_way.put_nowait((now() + self.delay, data))
                        if is_cut:
                            await self._end(on_the_way, writer)
                            return
                    else:
                        data, held = self._without_acks(held + data)
                        on_the_way.put_nowait((now() + self.delay, data))
        finally:
            sender.cancel()
            writer.transport.abort()

    async def _send(
        self, on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while True:
                due, data = await on_the_way.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                writer.write(data)
                await writer.drain()
                on_the_way.task_done()

    async def _end(
        self, on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        """Let the half of a message out, then reset everybody."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(on_the_way.join(), 1.0)
        self.cuts += 1
        self._abort()

    def _maybe_cut(self, data: bytes) -> tuple[bytes, bool]:
        if self._cut_in is None:
            return data, False
        if len(data) < self._cut_in:
            self._cut_in -= len(data)
            return data, False
        data, self._cut_in = data[: self._cut_in], None
        return data, True

    def _without_acks(self, data: bytes) -> tuple[bytes, bytes]:
        """What goes on, and the beginning of an ack that is kept until its end is here."""
        if not self.swallows_acks:
            return data, b""
        data, count = _ACK.subn(b"", data)
        self.swallowed += count
        begins = data.rfind(_ACK_BEGINS)
        if begins >= 0 and len(data) - begins < _LONGEST_ACK and not data.endswith(b"\r\n"):
            return data[:begins], data[begins:]
        return data, b""
