"""Schedules and rates of processes and servers that are killed: the longer form is in `killing`."""

from __future__ import annotations

from omni_worker.nats_server import NatsServer

from .killing import killed_in_turn, limited, most_over, schedules
from .scene import Scene


async def test_schedules_whose_forwarders_and_server_are_killed_lose_nothing_and_are_never_early(
    nats_server: NatsServer,
) -> None:
    kept = await schedules(nats_server, kills=9)

    assert kept.scheduled > 200
    assert (kept.lost, kept.early, kept.doubled) == ([], [], [])


async def test_a_rate_is_never_passed_by_workers_that_are_killed(scene: Scene) -> None:
    kills = 5

    ids = await killed_in_turn(scene, limited(), events=900, kills=kills, each=120)

    times = [one["at"] for one in scene.stage.effects("begun")]
    account = await scene.ends(
        "rate=100/s: two workers, 5 × kill -9", "never over rate × time + burst + chunks"
    )
    assert most_over(times, kills + 2) == 0
    assert account.handled == set(ids)
    assert not account.lettered
