"""Limits over real processes: one is killed, and neither rate nor limit is passed."""

from __future__ import annotations

from nats.aio.client import Client

from ..waiting import until
from .support import Stage, publish_foreign, repeated, until_settled

APP = """
app = App("limited")

@app.on("message.received", durable="d", start_from="first", ack_wait=2.0, concurrency=20,
        rate="60/s")
async def rated(event):
    effect("rated", id=event.id)

@app.on("message.received", durable="e", start_from="first", ack_wait=2.0, limit=4)
async def limited(event):
    effect("begun", id=event.id)
    await asyncio.sleep(0.05)
    effect("ended", id=event.id)
"""
SLACK = 0.3  # seconds from a token to its line in the file, on a busy machine


async def test_three_processes_one_of_them_killed(stage: Stage, plain: Client) -> None:
    workers = [stage.spawn(stage.app(APP)) for _ in range(3)]
    for worker in workers:
        await worker.ready()
    ids = await publish_foreign(plain, 300)
    await stage.until_effects(100, "rated")
    begun = len(stage.effects("begun"))
    workers[0].kill()
    await stage.until_effects(begun + 40, "begun")  # the others go on
    await until(lambda: len({*stage.ids("rated")}) == 300, 60)
    await until(lambda: len({*stage.ids("ended")}) == 300, 60)
    for durable in ("d", "e"):
        await until_settled(plain, durable)

    assert {*stage.ids("rated")} == {*stage.ids("ended")} == {*ids}
    # Once more only what the killed one had begun.
    assert len(repeated(stage.ids("rated"))) <= 20
    assert len(repeated(stage.ids("begun"))) <= 4
    times = [one["at"] for one in stage.effects("rated")]
    times.sort()
    for at, begin in enumerate(times):
        for upto in range(at, len(times), 5):
            most = 60 * (times[upto] - begin + SLACK) + 60 + 3  # a chunk of each process
            assert upto - at + 1 <= most, (at, upto)
    assert most_at_once(stage, without="w1") <= 4
    assert all(one.lines("error") == [] for one in workers[1:])


def most_at_once(stage: Stage, without: str) -> int:
    """Count what ran at once in the processes that live."""
    lines = [
        (one["at"], 1 if one["what"] == "begun" else -1)
        for one in stage.effects()
        if one["what"] in ("begun", "ended") and one["worker"] != without
    ]
    now = most = 0
    for _, change in sorted(lines):
        now += change
        most = max(most, now)
    return most
