"""What a request says of its time, and that the requests of quiet consumers end together."""

from __future__ import annotations

import json

import pytest

from omni_worker.transports.jetstream.heartbeats import (
    BUSY,
    EARLY,
    EXPIRES,
    QUIET,
    Beat,
    next_beat,
)

SECOND = 1_000_000_000


def options(beat: Beat, now: float) -> dict[str, int]:
    said: dict[str, int] = json.loads(b"{" + beat.options(now))
    return said


def test_a_busy_request_waits_as_long_as_any() -> None:
    assert options(BUSY, 1234.5) == {"expires": 30 * SECOND, "idle_heartbeat": 2 * SECOND}


@pytest.mark.parametrize("begun", [-0.04, 0.0, 0.3, 7.0, 14.9])
def test_requests_of_quiet_consumers_end_at_one_moment(begun: float) -> None:
    now = 1_000 * EXPIRES + begun
    waits = options(QUIET, now)["expires"] / SECOND

    assert now + waits == pytest.approx(1_001 * EXPIRES)


@pytest.mark.parametrize("now", [0.0, 3.3, 14.999_999, 15.0, 29.9, 123_456.789])
def test_the_server_takes_the_heartbeat_of_every_request(now: float) -> None:
    said = options(QUIET, now)

    assert 2 * said["idle_heartbeat"] <= said["expires"] <= (EXPIRES + EARLY) * SECOND


@pytest.mark.parametrize("beat", [BUSY, QUIET])
def test_a_consumers_longest_time_is_kept_with_heartbeats_in_it(beat: Beat) -> None:
    said = json.loads(b"{" + beat.options(1234.5, longest=1.0))

    assert said == {"expires": SECOND, "idle_heartbeat": SECOND // 2}


@pytest.mark.parametrize("brief", [True, False])
def test_while_a_leader_is_elected_a_lost_request_is_missed_sooner(brief: bool) -> None:
    usual = next_beat(brief=brief, quiet=False, electing=False)
    electing = next_beat(brief=brief, quiet=False, electing=True)

    assert electing.silence < usual.silence / 2
    assert electing.silence >= 4 * (electing.every or electing.expires)
    assert bool(electing.every) is not brief
