"""Pictures: `make pictures` takes those of docs/dashboard.md, light, dark and on a phone.

A server with workers that really run; only the fifteen minutes before are made up, so that nobody
waits for them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import shutil
import socket
import sys
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from playwright.async_api import Browser, async_playwright

from omni_worker import App, Event, EventBus
from omni_worker.cron import Cron
from omni_worker.dashboard import Access, dashboard
from omni_worker.dashboard.watch import Activity, Watch
from omni_worker.nats_server import NatsServer
from omni_worker.operations.schedules import crons_of, pause_schedule
from omni_worker.settings import Settings
from omni_worker.transports.jetstream import JetStreamTransport
from tests.dashboard.browsing import ARGUMENTS, NAMES

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
SHAPES: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 800}, "color_scheme": "light"},
}
# picture: page, and the shapes it is taken in
PICTURES = {
    "overview": ("/", ("light", "dark", "phone")),
    "handler": ("/handler?app=shop&name=thumbnails", ("light", "dark")),
    "letters": ("/letters", ("light", "dark", "phone")),
    "events": ("/events", ("light",)),
    "event": ("/event?id={reply}", ("light",)),
    "failed": ("/event?id={failed}", ("light", "phone")),
    "pause": (
        "/handler/steer?verb=pause&app=shop&name=greeter&for=10m&reason=a+deploy",
        ("light",),
    ),
    "streams": ("/streams", ("light",)),
    "schedules": ("/schedules", ("light", "dark", "phone")),
    "workers": ("/workers", ("light", "dark")),
}
# of each handler: events a second, share that is repeated, share that is given up
RATES = {
    "greeter": (14.0, 0.0, 0.0),
    "router": (14.0, 0.0, 0.0),
    "replies": (4.0, 0.06, 0.0),
    "thumbnails": (0.6, 0.02, 0.12),
    "billing": (0.2, 0.0, 0.0),
}

# Imported under the name that the pictures show.
source = importlib.util.spec_from_file_location("shop", Path(__file__).parent / "busy_app.py")
assert source is not None
assert source.loader is not None
shop = importlib.util.module_from_spec(source)
sys.modules["shop"] = shop
source.loader.exec_module(shop)

stopped = App("reports")


@stopped.on("message.received", durable="nightly-report")
async def report(event: Event[Any]) -> None:
    """Never run: its worker is gone."""


async def main() -> None:
    """Fill a server, serve its dashboard, and take the pictures."""
    socket.gethostname = lambda: "worker-1"
    random.seed(7)
    with NatsServer() as server:
        settings = Settings(urls=(server.url,))
        async with AsyncExitStack() as stack:
            async with stopped.running(settings=settings):
                pass
            await stack.enter_async_context(shop.app.running(settings=settings))
            bus = await stack.enter_async_context(EventBus(server.url, name="gateway"))
            traffic = asyncio.create_task(publish(bus))
            await schedule(stack, settings)
            transport = JetStreamTransport(settings)
            await transport.open("pictures")
            stack.push_async_callback(transport.close)
            site = dashboard(transport, Access(allow_actions=True), server="nats://localhost:4222")
            make_up_the_past(site.state.watch)
            config = uvicorn.Config(site, port=0, log_level="error", timeout_graceful_shutdown=1)
            serving = uvicorn.Server(config)
            task = asyncio.create_task(serving.serve())
            while not serving.started:
                await asyncio.sleep(0.05)
            port = serving.servers[0].sockets[0].getsockname()[1]
            await asyncio.sleep(6)
            await take(f"http://localhost:{port}", transport)
            traffic.cancel()
            serving.should_exit = True
            await asyncio.gather(traffic, task, return_exceptions=True)


async def publish(bus: EventBus) -> None:
    """Publish as the gateway of a shop does."""
    for number in range(100_000):
        where = {"channel": "whatsapp", "instance": f"wa-{random.randint(1, 9):03}"}
        payload = {"externalId": f"m{number}", "chatId": "c1", "from": "someone",
                   "content": {"type": "text", "text": "hello"}}  # fmt: skip
        await bus.publish("message.received", payload, **where)
        if number % 9 == 0:
            image = {"name": f"IMG_{4000 + number}.jpg", "broken": number % 45 == 0}
            await bus.publish("custom.image.uploaded", image, **where)
        if number % 30 == 0:
            plan = None if number == 60 else "team"
            await bus.publish("custom.invoice.due", {"plan": plan}, **where)
        await asyncio.sleep(random.uniform(0.03, 0.1))


async def schedule(stack: AsyncExitStack, settings: Settings) -> None:
    """Schedule what a shop does later."""
    bot = await stack.enter_async_context(EventBus(settings=settings, name="shop"))
    for chat in range(1, 40):
        after = 86_400 - 1_900 * chat
        await bot.publish("custom.chat.followed-up", {}, after=after, key=f"follow-up:chat-{chat}")
    await bot.schedules.crons.declare("report", Cron("0 8 * * mon-fri", "America/Sao_Paulo"))
    await bot.schedules.crons.declare("clean-up", Cron("*/15 * * * *", "UTC"))
    [night] = [one for one in await crons_of(bot.transport, "shop") if one.name == "clean-up"]
    await pause_schedule(bot.transport, night, by="ana", reason="the disk is being moved")


def make_up_the_past(watch: Watch) -> None:
    """Fill fifteen minutes of rates."""
    now = time.time()
    for name, (rate, again, dead) in RATES.items():
        activity = watch.activity["shop", name] = Activity()
        for step in range(180):
            at = now - step * 5
            amount = rate * 5 * random.uniform(0.75, 1.25) * (1 + 0.4 * (step % 60 < 20))
            bad = 1.0 if 20 < step < 70 or step < 12 else 0.1
            activity.delivered.add(at, amount)
            activity.handled.add(at, amount * (1 - (again + dead) * bad))
            activity.retried.add(at, amount * again * bad)
            activity.dead.add(at, amount * dead * bad)
    watch.began_at = now - 900


async def take(address: str, transport: JetStreamTransport) -> None:
    """Take every picture."""
    path = next(filter(None, map(shutil.which, NAMES)))
    ids = {
        "reply": await newest(transport, "custom.reply.queued.>"),
        "failed": await newest(transport, "custom.image.uploaded.>", broken=True),
    }
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        for name, (page, shapes) in PICTURES.items():
            for shape in shapes:
                file = FOLDER / f"dashboard-{name}-{shape}.png"
                await picture(browser, address + page.format(**ids), shape, file)
                sys.stdout.write(f"{file.relative_to(FOLDER.parents[1])}\n")
        await browser.close()


async def picture(browser: Browser, url: str, shape: str, file: Path) -> None:
    """Take one picture."""
    context = await browser.new_context(**SHAPES[shape])
    page = await context.new_page()
    await page.goto(url)
    await page.wait_for_function(
        "() => ['live', 'complete'].includes(document.querySelector('#live-state').innerText)"
    )
    await asyncio.sleep(1)
    await page.screenshot(path=file)
    await context.close()


async def newest(transport: JetStreamTransport, subjects: str, **payload: object) -> str:
    """Return the id of the newest event with this in its payload, once it is some seconds old."""
    from omni_worker.letters.read import stored_time
    from omni_worker.operations.newest import windows
    from omni_worker.operations.tail import read

    settled = datetime.now(UTC) - timedelta(seconds=2)
    async for window in windows(transport, "CUSTOM", filters=(subjects,)):
        for message in window.messages:
            event = read(message)
            is_meant = payload.items() <= event["payload"].items()
            if is_meant and stored_time(message) < settled:
                return str(event["id"])
    return ""


if __name__ == "__main__":
    os.environ.pop("NATS_URL", None)
    asyncio.run(main())
