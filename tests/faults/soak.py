"""Soak: at least two random faults at a time, for as long as asked, and the account of every event.

    python -m tests.faults.soak --minutes 10

Plain and exactly_once handlers in five processes of one app, an ordered one in two of another.
Ends with 0 when nothing was lost, when every double has a cause that docs/guarantees.md names, and
no event waited too long once the last fault was over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from omni_worker.nats_server import NatsServer

from ..ports import free_port
from ..processes.support import stored
from .accounts import Account, Row, out_of_order, table
from .causes import UNNAMED, End, cause
from .hurting import DURABLES, LONGEST_ACK_WAIT, Hurting
from .links import Link
from .scene import Scene, check_said, letters_of

CALM = (1.0, 4.0)  # seconds between two rounds of faults
AT_ONCE = 75  # events, published every half second
AFTERWARDS = 20.0  # seconds beyond ack_wait that an event may wait once all is well
LONGEST_WAIT = LONGEST_ACK_WAIT + AFTERWARDS
NOTES = {
    "plain": "doubles: see the faults below",
    "once": "its events are stored once, whatever ended twice",
    "ordered": "each key in its order",
}


class Soak:
    """Events published through random faults, and what came of each."""

    def __init__(self, scene: Scene, hurting: Hurting) -> None:
        self.scene = scene
        self.hurting = hurting
        self.over = float("inf")  # when the last fault was
        self.accounts: dict[str, Account] = {}

    async def run(self, seconds: float, calm: tuple[float, float], afterwards: float) -> None:
        """Hurt for so long, go on publishing a while, and wait until all has settled."""
        await self.hurting.start()
        until_then = time.monotonic() + seconds
        feed = asyncio.create_task(self._feed(afterwards))
        while time.monotonic() < until_then:
            await self.hurting.hurt(2 if random.random() < 0.7 else 3)
            await asyncio.sleep(random.uniform(*calm))
        self.over = time.monotonic()
        await feed
        for durable in DURABLES:
            await self.scene.settled(durable, timeout=120)
            self.accounts[durable] = await self.scene.account(durable, handler=durable)

    async def _feed(self, afterwards: float) -> None:
        while time.monotonic() < self.over + afterwards:
            await self.scene.publish(AT_ONCE)
            await asyncio.sleep(0.5)

    def doubles(self) -> dict[str, Counter[str]]:
        """Events that ended twice in each handler, by the fault that did it."""
        ends: dict[tuple[str, str], list[End]] = {}
        began: dict[tuple[str, str, int], float] = {}
        for one in self.scene.stage.effects():
            key = one["handler"], one["id"]
            if one["what"] == "begun":
                began[*key, one["pid"]] = one["at"]
            else:
                end = End(one["worker"], one["pid"], one["at"], began[*key, one["pid"]])
                ends.setdefault(key, []).append(end)
        found = {durable: Counter[str]() for durable in DURABLES}
        for (durable, id), times in ends.items():
            if len(times) > 1:
                found[durable][why := cause(durable, times, self.hurting.done)] += 1
                if why == UNNAMED and found[durable][why] < 10:
                    sys.stdout.write(f"{durable} {id}: {times}\n{self._around(times)}\n")
        return found

    def _around(self, ends: list[End]) -> str:
        first, last = min(end.at for end in ends), max(end.at for end in ends)
        near = [one for one in self.hurting.done if one.since < last and one.until > first - 15]
        return "".join(f"    {one}\n" for one in near)

    def longest_wait(self) -> tuple[float, str, str]:
        """Longest time an event waited for its end since it was stored and all was well."""
        ends: dict[tuple[str, str], float] = {}
        for one in self.scene.stage.effects("begun"):  # a dead letter's last run is its end
            ends[one["handler"], one["id"]] = one["at"]
        handled: dict[tuple[str, str], float] = {}
        for one in self.scene.stage.effects("handled"):
            handled.setdefault((one["handler"], one["id"]), one["at"])
        return max(
            (at - max(self.over, self.scene.confirmed_at[id]), durable, id)
            for (durable, id), at in {**ends, **handled}.items()
        )

    async def outputs(self) -> Counter[str]:
        """Count the events that each event of `once` led to."""
        found = await stored(self.scene.plain, "CUSTOM")
        return Counter(json.loads(one.data)["payload"]["to"] for one in found)

    def summary(self) -> str:
        """How often each fault was done, and what ended twice because of it."""
        doubles = self.doubles()
        names = Counter(
            f"{one.name} ({one.detail})" if one.detail else one.name for one in self.hurting.done
        )
        lines = [f"{'fault':38}{'times':>7}" + "".join(f"{one:>9}" for one in DURABLES)]
        for name in sorted({*names, *(why for one in doubles.values() for why in one)}):
            counts = "".join(f"{doubles[one][name]:9}" for one in DURABLES)
            lines.append(f"{name:38}{names[name]:7}{counts}")
        wait, durable, id = self.longest_wait()
        lines.append(f"longest wait after the last fault: {wait:.1f} s ({durable}, {id})")
        return "\n".join(lines)

    async def check(self) -> None:
        """Everything that is promised. Raises AssertionError."""
        for durable, account in self.accounts.items():
            account.check()
            assert account.published == account.handled | account.lettered, durable
            poison = {id for id in account.published if id.endswith("13")}
            assert account.lettered == poison, f"{durable}: {account.lettered ^ poison}"
        letters = await letters_of(self.scene.plain)
        assert max(letters.values()) == 1, "one event has two dead letters of one handler"
        for durable, causes in self.doubles().items():
            assert not causes[UNNAMED], f"{durable}: {causes[UNNAMED]} ended twice for no reason"
        assert await self.outputs() == {id: 1 for id in self.accounts["once"].handled}
        ordered = (one for one in self.scene.stage.effects("handled") if "key" in one)
        early = out_of_order(ordered)
        assert not early, f"ended after a later one of their key: {early[:10]} of {len(early)}"
        wait, durable, id = self.longest_wait()
        assert wait <= LONGEST_WAIT, f"{id} waited {wait:.1f} s in {durable}"
        for worker in self.scene.stage.workers:
            check_said(worker)


async def soak(
    seconds: float,
    folder: Path,
    rows: list[Row],
    *,
    calm: tuple[float, float] = CALM,
    afterwards: float = 30.0,
) -> None:
    """Run it, print the account, and check it."""
    with NatsServer(port=free_port(), store=folder / "store") as server:
        async with Scene(folder, server, rows) as scene, Link(server.port) as link:
            one = Soak(scene, Hurting(scene, server, link))
            try:
                await one.run(seconds, calm, afterwards)
                count = len(one.hurting.done)
                rows += [
                    Row(f"soak: {count} faults, two or three at a time: {name}",
                        account, NOTES[name])
                    for name, account in one.accounts.items()
                ]  # fmt: skip
                sys.stdout.write(f"{table([row.cells for row in rows])}\n\n{one.summary()}\n")
                await one.check()
            finally:
                sys.stdout.flush()
                for worker in scene.stage.workers:
                    worker.kill()
            scene.stage.workers.clear()  # whose logs would be printed otherwise


def main() -> None:
    parser = argparse.ArgumentParser(description="Random faults, and an account at the end.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="the same faults again")
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which stays")
    given = parser.parse_args()
    random.seed(given.seed)
    logging.getLogger("omni_worker").setLevel(logging.ERROR)  # the publisher's own troubles
    with tempfile.TemporaryDirectory(prefix="omni-worker-soak-") as folder:
        asyncio.run(soak(given.minutes * 60, given.keep or Path(folder), []))


if __name__ == "__main__":
    main()
