"""Hurting: the faults of the soak, each some seconds long, and what is known of each."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from omni_worker.nats_server import NatsServer

from ..processes.support import Worker, api
from ..waiting import NotInTime, until
from .causes import Fault
from .links import Link
from .scene import Scene
from .servers import pause, resume

# One app that several processes run, and one in order that a single process runs at a time.
SHARED = """
app = App("router")

async def work(event, ctx, durable):
    effect("begun", id=event.id, handler=durable, pid=os.getpid())
    await asyncio.sleep(3.0 if event.id.endswith("55") else 0.002)
    if event.id.endswith("13"):
        raise ValueError("never")
    if event.id.endswith("7") and ctx.attempt == 1:
        raise ValueError("not yet")

@app.on("message.received", durable="plain", start_from="first", {options})
async def plain(event, ctx):
    await work(event, ctx, "plain")
    effect("handled", id=event.id, handler="plain", pid=os.getpid())

@app.on("message.received", durable="once", start_from="first", exactly_once=True, {options})
async def once(event, ctx):
    await work(event, ctx, "once")
    await ctx.publish("custom.reply.queued", {{"to": event.id}})
    effect("handled", id=event.id, handler="once", pid=os.getpid())
"""
ORDERED = """
app = App("orders")

@app.on("message.received", durable="ordered", start_from="first", {options},
        order_by=lambda event: event.payload["chatId"])
async def ordered(event, ctx):
    effect("begun", id=event.id, handler="ordered", pid=os.getpid())
    await asyncio.sleep(0.002)
    if event.id.endswith("13"):
        raise ValueError("never")
    if event.id.endswith("7") and ctx.attempt == 1:
        raise ValueError("not yet")
    effect("handled", id=event.id, handler="ordered", key=event.payload["chatId"], pid=os.getpid())
"""
DURABLES = ("plain", "once", "ordered")
LONGEST_ACK_WAIT = 5
OPTIONS = [
    {"ack_wait": ack_wait, "concurrency": concurrency, "retry_delay": 0.05, "prefetch": prefetch}
    for ack_wait in (2, 3, LONGEST_ACK_WAIT)
    for concurrency in (8, 32)
    for prefetch in (None, 20)
]
SECOND = 1_000_000_000
EDITS: list[dict[str, Any]] = [
    {"max_deliver": 1},
    {"headers_only": True},
    {"backoff": [600 * SECOND], "max_deliver": 5},
    {"ack_wait": 600 * SECOND},
    {"inactive_threshold": 600 * SECOND},
]
STOPPED = 40.0  # seconds a worker may take to its end: its grace, and what is beside it


@dataclass(slots=True)
class Place:
    """Place of a worker, over all its lives: how it is started, and which one runs there now."""

    module: str
    arguments: tuple[str, ...] = ()
    through_link: bool = False
    worker: Worker = field(init=False)
    is_hurt: bool = False  # one fault has it

    def is_ready(self) -> bool:
        """Return True if its handlers run."""
        return '"signal": "Ready"' in self.worker.said()


class Hurting:
    """Hurt one server and the workers of the two apps."""

    def __init__(self, scene: Scene, server: NatsServer, link: Link) -> None:
        self.scene = scene
        self.server = server
        self.link = link
        self.done: list[Fault] = []
        self.places = [
            Place("shared"),
            Place("shared"),
            Place("shared", ("--workers", "2")),
            Place("shared", through_link=True),
            Place("ordered"),
            Place("ordered"),
        ]
        self.in_order = [one for one in self.places if one.module == "ordered"]
        self._deck: list[Callable[[Fault], Awaitable[None]]] = []
        self._busy: set[str] = set()  # what only one fault may have at a time

    async def start(self) -> None:
        """Start all workers; all run when this returns."""
        self.write(SHARED, "shared", OPTIONS[-1])
        self.write(ORDERED, "ordered", OPTIONS[-1])
        for place in self.places:
            self.begin(place)
        await asyncio.gather(*(place.worker.ready(30) for place in self.places))

    def write(self, source: str, module: str, options: dict[str, Any]) -> None:
        """Write a version of an app: who starts next runs it."""
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        self.scene.stage.app(source.format(options=given), module)

    def begin(self, place: Place) -> None:
        """Start a worker in a place."""
        url = self.link.url if place.through_link else None
        place.worker = self.scene.spawn_with(*place.arguments, module=place.module, url=url)

    async def hurt(self, at_once: int) -> None:
        """Do several faults at the same time; each kind has its turn before one comes again."""
        if len(self._deck) < at_once:
            self._deck = random.sample(self.kinds, len(self.kinds))
        kinds, self._deck = self._deck[:at_once], self._deck[at_once:]
        await asyncio.gather(*(self._one(kind) for kind in kinds))

    @property
    def kinds(self) -> list[Callable[[Fault], Awaitable[None]]]:
        """Every fault."""
        return [
            self.kill_a_worker, self.kill_the_supervisor, self.stop_a_worker,
            self.freeze_a_worker, self.kill_the_server, self.stop_the_server,
            self.hang_the_server, self.deploy, self.deploy_in_order, self.edit_a_consumer,
            self.delete_a_consumer, self.pause_a_consumer, self.break_the_link,
            self.slow_the_link, self.swallow_acks,
        ]  # fmt: skip

    async def _one(self, kind: Callable[[Fault], Awaitable[None]]) -> None:
        fault = Fault(kind.__name__.replace("_", " "), time.monotonic())
        self.done.append(fault)
        await kind(fault)
        fault.until = time.monotonic()

    @contextmanager
    def _a_place(self, fault: Fault, *kinds: Place) -> Iterator[Place | None]:
        """Choose a place to which nothing else is done now, and that takes signals; else None."""
        free = [
            place for place in kinds or self.places
            if not place.is_hurt and place.worker.is_running and place.worker.takes_signals()
        ]  # fmt: skip
        if not free:
            yield None
            return
        place = random.choice(free)
        place.is_hurt = True
        fault.worker = place.worker.name
        try:
            yield place
        finally:
            place.is_hurt = False

    @contextmanager
    def _alone(self, what: str) -> Iterator[bool]:
        if what in self._busy:
            yield False
            return
        self._busy.add(what)
        try:
            yield True
        finally:
            self._busy.discard(what)

    # --- workers ---------------------------------------------------------------------------

    async def kill_a_worker(self, fault: Fault) -> None:
        with self._a_place(fault, *(one for one in self.places if not one.arguments)) as place:
            if place is not None:
                place.worker.kill()
                self.begin(place)

    async def kill_the_supervisor(self, fault: Fault) -> None:
        """Kill a parent. Its workers get no signal of ours: they notice that it is gone."""
        with self._a_place(fault, *(one for one in self.places if one.arguments)) as place:
            if place is not None:
                place.worker.kill()
                self.begin(place)

    async def stop_a_worker(self, fault: Fault) -> None:
        with self._a_place(fault) as place:
            if place is not None:
                await self._stop(place)
                self.begin(place)

    async def freeze_a_worker(self, fault: Fault) -> None:
        with self._a_place(fault, *(one for one in self.places if not one.arguments)) as place:
            if place is not None:
                place.worker.signal(signal.SIGSTOP)
                await asyncio.sleep(random.choice((0.5, LONGEST_ACK_WAIT + 2.0)))  # the fault
                place.worker.signal(signal.SIGCONT)

    async def _stop(self, place: Place) -> None:
        code = await place.worker.stop(STOPPED)
        fine = (0,) if place.is_ready() else (0, 143, -signal.SIGTERM)  # while it starts
        assert code in fine, f"{place.worker.name}: {code}\n{place.worker.said()[-4_000:]}"

    async def deploy(self, fault: Fault) -> None:
        """Start another version, with other options, beside the old one, then stop that."""
        self.write(SHARED, "shared", random.choice(OPTIONS))
        for _ in range(2):
            with self._a_place(fault, *(one for one in self.places[:2])) as place:
                if place is None:
                    return
                old = place.worker
                self.begin(place)
                new, place.worker = place.worker, old
                with suppress(NotInTime):  # the other fault may be a server that is away
                    await new.ready(10.0)
                await self._stop(place)
                place.worker = new

    async def deploy_in_order(self, fault: Fault) -> None:
        """Deploy another version of the ordered app: one process after the other."""
        self.write(ORDERED, "ordered", random.choice(OPTIONS))
        for one in self.in_order:
            with self._a_place(fault, one) as place:
                if place is not None:
                    await self._stop(place)
                    self.begin(place)

    # --- server ----------------------------------------------------------------------------

    async def kill_the_server(self, fault: Fault) -> None:
        with self._alone("server") as mine:
            if mine:
                self.server.kill()
                await asyncio.sleep(random.choice((0.0, 1.0)))  # the fault
                self.server.start()

    async def stop_the_server(self, fault: Fault) -> None:
        with self._alone("server") as mine:
            if mine:
                await asyncio.to_thread(self.server.stop)
                await asyncio.sleep(random.choice((0.0, 1.0)))  # the fault
                self.server.start()

    async def hang_the_server(self, fault: Fault) -> None:
        with self._alone("server") as mine:
            if mine:
                pause(self.server)
                await asyncio.sleep(random.choice((0.5, 2.0)))  # the fault
                resume(self.server)

    # --- operators -------------------------------------------------------------------------

    @contextmanager
    def _a_durable(self, fault: Fault) -> Iterator[str | None]:
        """Choose one that somebody reads. Deleted while nobody does, it starts over, as asked."""
        durable = random.choice(DURABLES)
        if durable != "ordered":
            yield durable
            return
        with self._a_place(fault, *self.in_order) as place:
            yield durable if place is not None and place.is_ready() else None

    async def edit_a_consumer(self, fault: Fault) -> None:
        with suppress(TimeoutError), self._a_durable(fault) as durable:
            if durable is not None:
                await self._edit(fault, durable, random.choice(EDITS))

    async def _edit(self, fault: Fault, durable: str, change: dict[str, Any]) -> None:
        info = await api(self.scene.plain, f"CONSUMER.INFO.MESSAGE.{durable}")
        if "config" not in info:
            return  # another fault has it
        fault.durable, fault.detail = durable, next(iter(change))
        config = {"stream_name": "MESSAGE", "config": {**info["config"], **change}}
        config["action"] = "update"
        await api(self.scene.plain, f"CONSUMER.CREATE.MESSAGE.{durable}", config)

        async def is_right() -> bool:
            info = await api(self.scene.plain, f"CONSUMER.INFO.MESSAGE.{durable}")
            has = info.get("config", {})
            return bool(has) and not any(has.get(key) == value for key, value in change.items())

        await until(is_right, 30.0, what=f"{durable} as it was, after {change}")

    async def delete_a_consumer(self, fault: Fault) -> None:
        with suppress(TimeoutError), self._a_durable(fault) as durable:
            if durable is None:
                return
            fault.durable = durable
            await api(self.scene.plain, f"CONSUMER.DELETE.MESSAGE.{durable}")

            async def is_back() -> bool:
                return "error" not in await api(
                    self.scene.plain, f"CONSUMER.INFO.MESSAGE.{durable}"
                )

            await until(is_back, 30.0, what=f"{durable} made again")

    async def pause_a_consumer(self, fault: Fault) -> None:
        fault.durable = random.choice(DURABLES)
        with suppress(TimeoutError):
            where = f"CONSUMER.PAUSE.MESSAGE.{fault.durable}"
            then = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
            await api(self.scene.plain, where, {"pause_until": then})

    # --- the link of one worker ------------------------------------------------------------

    async def break_the_link(self, fault: Fault) -> None:
        fault.worker = self.places[3].worker.name
        cuts = self.link.cuts
        self.link.cut_after(random.randrange(100, 50_000))
        with suppress(NotInTime):  # nothing flows: the other fault
            await until(lambda: self.link.cuts > cuts, 5.0)

    async def slow_the_link(self, fault: Fault) -> None:
        fault.worker = self.places[3].worker.name
        self.link.delay = 0.3
        await asyncio.sleep(2.0)  # the fault
        self.link.delay = 0.0

    async def swallow_acks(self, fault: Fault) -> None:
        fault.worker = self.places[3].worker.name
        self.link.swallows_acks = True
        await asyncio.sleep(1.0)  # the fault
        self.link.swallows_acks = False
