"""Lasting: the workers of one app and their server are hurt for minutes; what holds meanwhile.

    python -m tests.faults.lasting schedules --minutes 10

Likewise `rate`, `batches`, `order` and `blocks`. test_lasting plays some for seconds. Ends with 0
when every promise was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer
from omni_worker.settings import Settings

from ..ports import free_port
from ..processes.support import until_settled
from ..processes.test_turns import handled, publishing, violations
from ..waiting import until
from . import punctual
from .causes import UNNAMED, End, cause
from .harm import Harm
from .killing import (
    BLOCK,
    CHUNK,
    PLACES,
    PUBLISHING,
    are_stored,
    has_no_places,
    is_forwarded,
    most_at_once,
    most_over,
    not_whole,
    published_for,
    with_places,
)
from .scene import QUICK, Scene
from .test_batches import batches as app_of_batches

CALM = (1.0, 3.0)  # seconds between two faults
OFTEN = (0.2, 1.2)
A_MINUTE = 2_000  # events that are scheduled
ACK_WAIT = 3.0
IN_ORDER = """
app = App("shop")

@app.on("custom.a", durable="r1", order_by=lambda event: event.payload["key"], ack_wait=3,
        concurrency=4)
async def handle(event):
    effect("begun", key=event.payload["key"], n=event.payload["n"])
    await asyncio.sleep(0.02)
    effect("handled", key=event.payload["key"], n=event.payload["n"])
"""


@dataclass(slots=True)
class Result:
    """Figures of a run, and the promises that were broken in it."""

    figures: dict[str, object]
    broken: list[str] = field(default_factory=list)

    def expect(self, is_kept: object, promise: str) -> None:
        """Note a promise that was not kept."""
        if not is_kept:
            self.broken.append(promise)

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.figures.items()]
        return "\n".join([*lines, *(f"BROKEN: {one}" for one in self.broken)])


async def schedules(scene: Scene, server: NatsServer, seconds: float) -> Result:
    """Events become due all the time, half of them many at the same moment."""
    harm = Harm(scene, server, punctual.APP)
    settings = Settings(**{"urls": (server.url,), **QUICK})
    async with EventBus(name="shop", settings=settings) as bus:
        await bus.publish("custom.late", -1, after=0)  # the consumer is made
        await bus.schedules.forwarder.stop()  # the workers forward
        await harm.start()
        events = round(A_MINUTE * seconds / 60)
        scheduling = punctual.Scheduling(bus, events, seconds)
        writing = asyncio.create_task(scheduling.run())
        await harm.last(seconds, CALM)
        await writing
        await until(lambda: are_stored(bus, events + 1), 60)
        await until(lambda: is_forwarded(bus), 60)
        spans = punctual.spans_of(scene.stage.effects(), harm.gone, harm.done)
        kept = await punctual.Punctuality.of(bus, scheduling.due, spans)
    causes = kept.because_of(harm.done)
    result = Result({
        "scheduled": kept.scheduled, "lost": len(kept.lost), "early": len(kept.early),
        "doubled": len(kept.doubled), "more than 1 s late": len(kept.behind),
        "because of": dict(causes),
        "latest, s": kept.latest,
        "faults": harm.counted(),
    })  # fmt: skip
    result.expect(not kept.lost, "an event is lost")
    result.expect(not kept.early, "an event is early")
    result.expect(not kept.doubled, "an event is stored twice")
    result.expect(not causes[UNNAMED], "late, and held by nothing that was killed")
    return result


async def rate(scene: Scene, server: NatsServer, seconds: float) -> Result:
    """A rate and a limit that all processes share, with always more events than may run."""
    harm = Harm(scene, server, with_places())
    await harm.start()
    ids = await scene.publish(round(80 * seconds))
    await harm.last(seconds, CALM)
    await scene.handled(len(ids), timeout=120)
    await scene.settled()
    await until(lambda: has_no_places(scene.bus), 30)

    effects = scene.stage.effects()
    begun = [one["at"] for one in effects if one["what"] == "begun"]
    over = most_over(begun, harm.born.values(), harm.gone.values())
    at_once = most_at_once(effects, harm.gone)
    account = await scene.ends("a rate and a limit, hurt", harm.counted())
    result = Result({
        "handled": len(account.handled), "runs": len(begun), "at once at most": at_once,
        f"over rate × time + burst + {CHUNK} a process, at worst": over, "faults": harm.counted(),
    })  # fmt: skip
    result.expect(over <= 0, "the rate was passed")
    result.expect(at_once <= PLACES, "the limit was passed")
    result.expect(account.handled == set(ids), "an event was not handled")
    result.expect(not account.lettered, "an event is a dead letter")
    return result


async def batches(scene: Scene, server: NatsServer, seconds: float) -> Result:
    """Batches of fifty."""
    harm = Harm(scene, server, app_of_batches())
    await harm.start()
    async with scene.publishing(0.5):
        await harm.last(seconds, CALM)
    await scene.handled(len(scene.confirmed), timeout=120)
    await scene.settled()

    causes = doubles_of(scene.stage.effects(), harm)
    account = await scene.ends("batches, hurt", harm.counted())
    result = Result({
        "published": len(account.published), "handled": len(account.handled),
        "lost": len(account.lost), "ended twice": account.ended_twice,
        "because of": dict(causes), "faults": harm.counted(),
    })  # fmt: skip
    result.expect(not account.lost, "an event is lost")
    result.expect(not causes[UNNAMED], "an event ended twice for no reason that is named")
    result.expect(not account.lettered, "an event is a dead letter")
    return result


def doubles_of(effects: list[dict[str, Any]], harm: Harm) -> Counter[str]:
    """Count the events that ended twice by the fault that did it."""
    ends: dict[str, list[End]] = defaultdict(list)
    began: dict[tuple[str, str], float] = {}
    for one in effects:
        run = one["id"], one["worker"]
        if one["what"] == "begun":
            began[run] = one["at"]
        elif one["what"] == "handled":
            pid = int(one["worker"][1:])  # each worker is one process
            ends[one["id"]].append(End(one["worker"], pid, one["at"], began[run]))
    return Counter(cause("plain", each, harm.done) for each in ends.values() if len(each) > 1)


async def order(scene: Scene, server: NatsServer, seconds: float) -> Result:
    """Seven keys in their order over three processes, the active one hurt more often."""
    harm = Harm(scene, server, IN_ORDER)
    harm.prefers = lambda: active_of(scene.stage.effects("handled"))
    await harm.start()
    async with publishing(scene.plain) as sent:
        await until(lambda: scene.stage.effects("handled"))
        await harm.last(seconds, (4.0, 8.0))  # longer than a turn needs to pass on
        count = len(sent)
    await until(lambda: sum(map(len, handled(scene.stage).values())) >= count, 60)
    await until_settled(scene.plain, "r1", "CUSTOM")

    effects = scene.stage.effects()
    out_of_order, early = violations(scene.stage), overtaken(effects)
    waits = next_after(effects, harm)
    result = Result({
        "handled": sum(map(len, handled(scene.stage).values())), "published": len(sent),
        "out of order": len(out_of_order), "begun before an older one had ended": len(early),
        "next event, s, at worst": {how: max(each) for how, each in waits.items() if each},
        "looked at": {how: len(each) for how, each in waits.items()},
        "faults": harm.counted(),
    })  # fmt: skip
    result.expect(not out_of_order and not early, f"order: {out_of_order[:3]} {early[:5]}")
    result.expect(max(waits["kill"], default=0) <= ACK_WAIT + 5, "the next event after a kill")
    result.expect(max(waits["stop"], default=0) <= 5, "the next event after a stop")
    return result


def active_of(effects: list[dict[str, Any]]) -> str:
    """Return the worker that handled the newest event."""
    return str(effects[-1]["worker"]) if effects else ""


def overtaken(effects: list[dict[str, Any]]) -> list[int]:
    """Return the events that began before every older one of their key had ended once."""
    ended: dict[str, set[int]] = defaultdict(set)
    begun: dict[str, set[int]] = defaultdict(set)
    found = []
    for one in sorted(effects, key=lambda effect: float(effect["at"])):
        key, n = one["key"], one["n"]
        if one["what"] == "begun":
            found += [n] if any(older < n for older in begun[key] - ended[key]) else []
            begun[key].add(n)
        else:
            ended[key].add(n)
            begun[key].discard(n)
    return found


def next_after(effects: list[dict[str, Any]], harm: Harm) -> dict[str, list[float]]:
    """Return the seconds until another process began an event, where the active one was ended.

    Those during which the server was killed, too, are left out.
    """
    begun = sorted((one["at"], one["worker"]) for one in effects if one["what"] == "begun")
    away = [one for one in harm.done if one.name == "kill the server"]
    found: dict[str, list[float]] = {"kill": [], "stop": []}
    for how, ends in (("kill", harm.killed), ("stop", harm.stopped)):
        for worker, at in ends.items():
            before = [name for moment, name in begun if moment <= at]
            if not before or before[-1] != worker:
                continue  # it stood by
            following = next((m for m, name in begun if m > at and name != worker), at)
            if not any(one.since < following and one.until > at - 5 for one in away):
                found[how].append(following - at)
    return found


async def blocks(scene: Scene, server: NatsServer, seconds: float) -> Result:
    """Each event is answered by a block of four, and by an event a moment later."""
    harm = Harm(scene, server, PUBLISHING.format(events=BLOCK), deploys=False)
    settings = Settings(**{"urls": (server.url,), **QUICK})
    async with EventBus(name="router", settings=settings) as bus:
        await bus.schedules.outbox.prepare()
        await bus.schedules.forwarder.stop()  # the workers forward
        await harm.start()
        async with scene.publishing(4.0):
            await harm.last(seconds, OFTEN)
        await scene.handled(len(scene.confirmed), timeout=120)
        await scene.settled()
        await until(lambda: are_stored(bus, len(scene.confirmed) * (BLOCK + 1)), 60)
        await until(lambda: is_forwarded(bus), 60)
        found = await published_for(bus, scene.confirmed)
    broken = not_whole(found)
    account = await scene.ends("blocks and events published later, hurt", harm.counted())
    result = Result({
        "blocks": len(found), "not whole": len(broken), "kills": len(harm.done),
        "run twice": account.run_twice, "faults": harm.counted(),
    })  # fmt: skip
    result.expect(not broken, f"not whole, or stored twice: {dict(list(broken.items())[:5])}")
    result.expect(account.handled == scene.confirmed, "an event was not handled")
    return result


RUNS: dict[str, Callable[[Scene, NatsServer, float], Awaitable[Result]]] = {
    "schedules": schedules, "rate": rate, "batches": batches, "order": order, "blocks": blocks,
}  # fmt: skip


async def play(what: str, seconds: float, folder: Path) -> Result:
    """Play one of them on a server of its own."""
    with NatsServer(port=free_port(), store=folder / "store") as server:
        async with Scene(folder / "scene", server, []) as scene:
            try:
                return await RUNS[what](scene, server, seconds)
            finally:
                for worker in scene.stage.workers:
                    worker.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description="Hurt one feature for minutes.")
    parser.add_argument("what", choices=sorted(RUNS))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="the same faults again")
    given = parser.parse_args()
    random.seed(given.seed)
    logging.basicConfig(level=logging.CRITICAL)  # the publisher's own troubles
    with tempfile.TemporaryDirectory(prefix="omni-worker-lasting-") as folder:
        result = asyncio.run(play(given.what, given.minutes * 60, Path(folder)))
    sys.stdout.write(f"{result}\n")
    return int(bool(result.broken))


if __name__ == "__main__":
    sys.exit(main())
