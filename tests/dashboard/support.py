"""Support for the dashboard's tests: handlers and dead letters on memory, a browser without one."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from omni_worker import App, Event, Reject
from omni_worker.dashboard import Access, dashboard
from omni_worker.transports.base import Transport
from omni_worker.transports.memory import MemoryServer, MemoryTransport
from tests.waiting import until

# What a hostile program may write wherever it may write anything.
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}\x1b[31m\u202e"


class Browser:
    """Sends requests as a browser does; keeps its cookie."""

    def __init__(
        self, app: Any, *, base: str = "", peer: str = "127.0.0.1", **headers: str
    ) -> None:
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=(peer, 1), raise_app_exceptions=False),
            base_url="http://localhost:8787", headers=headers,
        )  # fmt: skip
        self._base = base

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Open a page."""
        return await self.client.get(self._base + path, headers=headers)

    async def json(self, path: str) -> Any:
        """Read a page as a program does."""
        return (await self.get(f"{path}{'&' if '?' in path else '?'}format=json")).json()

    async def token(self) -> str:
        """Return the token of the forms."""
        text = (await self.get("/letters")).text
        found = re.search(r'name="token" value="(\w+)"', text)
        return found[1] if found else ""

    async def post(
        self, path: str, form: dict[str, Any], headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Send a form."""
        return await self.client.post(self._base + path, data=form, headers=headers)


@asynccontextmanager
async def failing(
    *,
    count: int = 1,
    error: str = "no such chat",
    durable: str = "r1",
    name: str = "shop",
    type: str = "custom.order.placed",
) -> AsyncIterator[MemoryTransport]:
    """Run a handler on memory that gave up so many events; yield another process's transport."""
    server = MemoryServer()
    app = App(name)

    @app.on(type, durable=durable)
    async def handle(event: Event[Any]) -> None:
        raise Reject(error)

    viewer = MemoryTransport(server)
    await viewer.open("dashboard")
    async with app.running(transport=MemoryTransport(server)) as bus:
        for number in range(count):
            await bus.publish(type, {"secret": f"pin {number}"}, id=f"order-{number}")
        await until(lambda: holds_letters(viewer, count))
        try:
            yield viewer
        finally:
            await viewer.close()


async def holds_letters(transport: MemoryTransport, count: int) -> bool:
    """Return True if so many dead letters are stored."""
    info = await transport.operators.stream_info("SYSTEM")
    return info is not None and info.state.messages >= count


@asynccontextmanager
async def opened(transport: Transport, access: Access | None = None) -> AsyncIterator[Browser]:
    """Open a browser on the dashboard of a server."""
    app = dashboard(transport, access)
    async with app.router.lifespan_context(app):
        browser = Browser(app)
        yield browser
        await browser.client.aclose()
