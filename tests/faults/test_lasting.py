"""Some seconds of what `python -m tests.faults.lasting` does for minutes, and its measures."""

from __future__ import annotations

import pytest

from omni_worker.nats_server import NatsServer

from . import lasting, punctual
from .causes import UNNAMED, Fault
from .killing import most_over
from .scene import Scene


async def test_schedules_whose_workers_and_server_are_hurt_lose_nothing_and_are_never_early(
    scene: Scene, nats_server: NatsServer
) -> None:
    result = await lasting.schedules(scene, nats_server, 10)

    assert result.broken == []
    assert result.figures["scheduled"] == 333


async def test_order_over_three_processes_that_are_hurt(
    scene: Scene, nats_server: NatsServer
) -> None:
    result = await lasting.order(scene, nats_server, 12)

    assert result.broken == []


def test_a_rate_is_over_by_what_the_worst_interval_has_beyond_it() -> None:
    burst = [0.0] * 100

    assert most_over(burst, [0.0]) == -2  # a chunk of the process may come, too
    assert most_over([*burst, 0.0, 0.0, 0.0], [0.0]) == 1
    assert most_over([*burst, 0.0, 0.0, 0.0], [0.0, 0.0]) == -1
    assert most_over([9.0] * 103, [0.0, 0.0], gone=[8.0]) == 1  # it had ended before
    assert most_over([*burst, *(number / 4 for number in range(300))], [0.0]) == -1


@pytest.mark.parametrize(
    ("due", "stored", "seconds"),
    [(1.0, 1.5, 0.5), (1.5, 4.25, 0.75), (2.5, 4.5, 0.5), (2.5, 3.0, 0.0), (0.0, 9.0, 4.0)],
)
def test_an_event_is_late_while_a_process_could_publish_it(
    due: float, stored: float, seconds: float
) -> None:
    spans = [(4.0, 5.0), (0.0, 1.0), (0.5, 2.0), (7.0, 8.0), (7.25, 7.5)]

    assert punctual.connected(due, stored, spans) == seconds


def test_a_late_event_is_explained_by_a_kill_shortly_before() -> None:
    waits = {
        1: punctual.Wait(0.9, due=50.0, stored=50.9),
        2: punctual.Wait(1.2, due=10.0, stored=11.2),
        3: punctual.Wait(1.2, due=30.0, stored=31.2),
    }
    kept = punctual.Punctuality(scheduled=3, lost=[], early=[], doubled=[], waits=waits)
    faults = [Fault("kill a worker", 10.1, 10.1), Fault("deploy", 30.1, 31.0)]

    assert kept.because_of(faults) == {"kill a worker": 1, UNNAMED: 1}
    assert kept.latest == 1.2


def test_what_a_process_has_not_noticed_yet_is_no_connection() -> None:
    effects = [
        {"what": "Connected", "worker": "w1", "at": 1.0},
        {"what": "Disconnected", "worker": "w1", "at": 3.0},
        {"what": "Connected", "worker": "w1", "at": 4.0},
        {"what": "Connected", "worker": "w2", "at": 2.0},
    ]
    fault = Fault("kill the server", 2.5, 3.5)

    found = punctual.spans_of(effects, {"w1": 9.0, "w2": 2.2}, [fault])

    assert found == [(1.0, 2.5), (4.0, 9.0), (2.0, 2.2)]


def test_an_event_that_began_before_an_older_one_of_its_key_had_ended_is_found() -> None:
    effects = [
        {"what": what, "key": "k", "n": n, "at": float(at)}
        for at, (what, n) in enumerate(
            [("begun", 1), ("begun", 2), ("handled", 1), ("handled", 2), ("begun", 2), ("begun", 3)]
        )
    ]

    assert lasting.overtaken(effects) == [2]  # 3 began after 2 had ended once
