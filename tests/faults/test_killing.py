"""Rates, limits and blocks of processes that are killed."""

from __future__ import annotations

from ..waiting import until
from .killing import (
    PLACES,
    blocks,
    has_no_places,
    killed_in_turn,
    limited,
    most_at_once,
    most_over,
    not_whole,
    with_places,
)
from .scene import Scene


async def test_a_rate_is_never_passed_by_workers_that_are_killed(scene: Scene) -> None:
    kills = 5

    ids = await killed_in_turn(scene, limited(), events=900, kills=kills, each=120)

    times = [one["at"] for one in scene.stage.effects("begun")]
    account = await scene.ends(
        "rate=100/s: two workers, 5 × kill -9", "never over rate × time + burst + chunks"
    )
    assert most_over(times, [0.0] * (kills + 2)) <= 0
    assert account.handled == set(ids)
    assert not account.lettered


async def test_what_killed_workers_publish_in_blocks_and_later_is_stored_once_and_whole(
    scene: Scene,
) -> None:
    found = await blocks(scene, kills=6)

    account = await scene.ends("atomic and after: two workers, 6 × kill -9", "blocks all or none")
    assert not_whole(found) == {}
    assert account.handled == set(found)
    assert not account.lettered


async def test_a_limit_is_never_passed_by_workers_that_are_killed_and_its_places_come_back(
    scene: Scene,
) -> None:
    kills, died = 5, dict[str, float]()

    ids = await killed_in_turn(scene, with_places(), events=600, kills=kills, each=80, died=died)

    effects = scene.stage.effects()
    account = await scene.ends(
        "limit=3, rate=100/s: two workers, 5 × kill -9", "never more at once"
    )
    assert most_at_once(effects, died) == PLACES
    begun = [one["at"] for one in effects if one["what"] == "begun"]
    assert most_over(begun, [0.0] * (kills + 2)) <= 0
    assert account.handled == set(ids)
    assert not account.lettered
    await until(lambda: has_no_places(scene.bus), what="no place is taken")
