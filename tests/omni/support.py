"""A server over HTTP, on the loopback, that says what a test wants; and an app that answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from omni_worker import App
from omni_worker.omni import Omni
from omni_worker.retry import RetryPolicy

KEY = "key-of-the-test"
AT_ONCE = RetryPolicy(retries=2, delay=0, cap=5.0)
MESSAGE = {
    "externalId": "x-1", "chatId": "chat-1", "from": "ana",
    "content": {"type": "text", "text": "hello"},
}  # fmt: skip
SENT = {
    "data": {
        "messageId": "m-1", "externalMessageId": "ext-1", "status": "sent",
        "instanceId": "wa-001", "to": "chat-1", "timestamp": "2026-01-01T00:00:00.000Z",
    }
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


def answer(status: int, body: Any = None, **headers: str) -> bytes:
    """A whole answer; a body that is no bytes is written as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = {"content-type": "application/json", "content-length": str(len(content))}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items() if value)
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + content


OK = answer(201, SENT)
CUT = b""  # the connection ends without an answer


class Server:
    """Answers from a list, then always with success."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: list[bytes | Callable[[asyncio.StreamWriter], Any]] = []
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._answered(reader, writer):
                pass
        self._writers.discard(writer)
        writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        self.asked.append(Asked(method, path, headers, json.loads(content or b"null")))
        said = self.answers.pop(0) if self.answers else OK
        if callable(said):
            await said(writer)
            return False
        writer.write(said)
        await writer.drain()
        return bool(said)

    def break_off(self) -> None:
        """End every connection."""
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """Such a server, listening."""
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listener.close()
        server.break_off()
        await listener.wait_closed()


def client(server: Server, **options: Any) -> Omni:
    """A client of it; failures are tried again at once."""
    return Omni(server.url, api_key=KEY, **{"retry": AT_ONCE, **options})


def app_with(omni: Omni, handle: Any, **options: Any) -> App:
    """An app whose only handler reads received messages."""
    app = App("echo")
    app.use(omni)
    app.on("message.received", durable="echo", **options)(handle)
    return app
