"""Rate: what is one, and how times are taken; numbers only."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_worker import App, Batch
from omni_worker.errors import ConfigError
from omni_worker.limits.places import Member, share
from omni_worker.limits.tokens import plain_key, read_state, token_name
from omni_worker.options import check_options
from omni_worker.rate import NANO, Rate, Taken, parse_rate, take

START = 1_769_700_000 * NANO  # a time of the server


@pytest.mark.parametrize(
    ("text", "rate", "burst", "chunk"),
    [
        ("100/s", Rate(100, 1), 100, 2),
        ("1000/s", Rate(1_000, 1), 1_000, 20),
        ("30/m", Rate(30, 60), 1, 1),
        ("6000/m", Rate(6_000, 60), 100, 2),
        ("1000/h", Rate(1_000, 3_600), 1, 1),
        ("1/h", Rate(1, 3_600), 1, 1),
        ("1000000/s", Rate(1_000_000, 1), 1_000_000, 20_000),
    ],
)
def test_a_rate_is_read(text: str, rate: Rate, burst: int, chunk: int) -> None:
    assert parse_rate(text) == rate
    assert (rate.burst, rate.chunk) == (burst, chunk)


@pytest.mark.parametrize(
    "value",
    [
        "", "100", "/s", "100/", "0/s", "-1/s", "+1/s", "1.5/s", "1e3/s", "100/d", "100/S",
        " 100/s", "100/s ", "100/s\n", "100 / s", "١٠٠/s", "1000001/s", "9" * 400 + "/s",
        "100/ms", "100/s/s", "010/s", "1_000/s", b"1/s", 100, 1.5, True, ("1", "s"), float("nan"),
    ],
)  # fmt: skip
def test_a_hostile_rate_is_refused_with_what_is_expected(value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        check_options({"rate": value, "durable": "d"})

    said = str(refused.value)
    assert said.startswith(f"rate={value!r}: expected a whole number of runs per second")
    assert "'100/s', '30/m' or '1000/h'" in said


@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, 100_001])
def test_a_hostile_limit_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"limit=.*: expected a whole number, 1 to 100000"):
        check_options({"limit": value, "durable": "d"})


def test_what_processes_cannot_agree_on_is_refused() -> None:
    for options in ({"rate": "1/s"}, {"limit": 1}):
        with pytest.raises(ConfigError, match="needs durable= or queue="):
            check_options(options)
        assert check_options({**options, "queue": "q"}).is_limited
    with pytest.raises(ConfigError, match="rate_by= needs rate="):
        check_options({"rate_by": id, "durable": "d"})
    with pytest.raises(ConfigError, match="rate_by='x': expected a function of the event"):
        check_options({"rate_by": "x", "rate": "1/s", "durable": "d"})


@pytest.mark.parametrize("options", [{"rate": "1/s"}, {"limit": 1}])
def test_a_batch_handler_refuses_them(options: Any) -> None:
    app = App("tests")

    with pytest.raises(ConfigError, match="rate= and limit= count events, not batches"):

        @app.on_batch("custom.row", durable="rows", **options)
        async def insert(batch: Batch[Any]) -> None: ...


# --- times ---------------------------------------------------------------------------------


def test_a_burst_is_that_of_one_second_and_then_chunks_come_in_time() -> None:
    rate = Rate(100, 1)
    taken: Taken | None = None

    grant, taken = got(take(rate, taken, START, wanted=500))
    assert grant.count == 100  # all that may begin now
    assert grant.first + rate.span(99) == START

    grant, taken = got(take(rate, taken, START, wanted=400))
    assert (grant.first, grant.count) == (START + rate.span(1), 2)


def test_times_far_ahead_are_not_taken_yet() -> None:
    rate = Rate(1, 3_600)
    _, taken = got(take(rate, None, START, wanted=1))

    wait = take(rate, taken, START, wanted=1)
    assert wait == 3_599 * NANO
    grant, _ = got(take(rate, taken, START + wait, wanted=1))
    assert grant.first == START + 3_600 * NANO


def test_a_clock_that_was_set_back_stops_nothing() -> None:
    rate = Rate(10, 1)
    _, taken = got(take(rate, None, START, wanted=10))

    grant, _ = got(take(rate, taken, START - 86_400 * NANO, wanted=1))

    assert grant.first - (START - 86_400 * NANO) == taken.free - taken.at  # as far away as before


@given(
    st.sampled_from([Rate(1, 1), Rate(7, 1), Rate(100, 1), Rate(5_000, 1), Rate(30, 60)]),
    st.lists(st.tuples(st.integers(0, 3 * NANO), st.integers(1, 300)), max_size=60),
)
def test_never_more_than_the_rate_and_a_burst(rate: Rate, asks: list[tuple[int, int]]) -> None:
    """Whatever is asked when: in no window do more times begin than the rate and one burst."""
    now, taken, times = START, None, list[int]()
    for later, wanted in asks:
        now += later
        answer = take(rate, taken, now, wanted)
        if isinstance(answer, int):
            assert answer > 0
            continue
        grant, taken = answer
        times += [max(now, grant.first + rate.span(n)) for n in range(grant.count)]
    times.sort()
    for at, begin in enumerate(times):
        in_a_second = bisect_left(times, begin + NANO) - at
        assert in_a_second <= rate.count / rate.per + rate.burst + 1


def test_a_state_that_no_worker_wrote_is_none() -> None:
    for value in (b"", b"[]", b"{}", b'{"at": 1e999, "free": 0}', b'{"at": null, "free": 1}'):
        assert read_state(value) == Taken(0, 0)
    hostile = Taken(START, START + 10**30)
    assert got(take(Rate(1, 1), hostile, START, 1))[0].first == START


def got(answer: Any) -> Any:
    assert not isinstance(answer, int)
    return answer


# --- keys ----------------------------------------------------------------------------------


def test_keys_are_the_same_in_every_process_and_do_not_collide() -> None:
    keys: list[Any] = ["a", "a.b", "", None, 1, "1", 1.5, True, ("a", 1), ("a", "1"), ("a.1",)]

    names = {token_name("app", "d", key) for key in keys}

    assert len(names) == len(keys)
    assert token_name("app", "d", "ação\ud800 *>") not in names
    assert token_name("app", "d", "a") != token_name("app.d", "", "a")


@pytest.mark.parametrize("key", [object(), frozenset([1]), b"a", ("a", object())])
def test_a_key_that_reads_otherwise_elsewhere_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match=r"rate_by= returned .*: expected a string, a number"):
        plain_key(key)


# --- places --------------------------------------------------------------------------------


def test_one_alone_gets_all_places() -> None:
    assert share(5, [], Member("a", 0, 9)) == ([Member("a", 5, 4)], 5)


def test_who_gives_up_a_place_is_served_after_those_who_wait() -> None:
    waiting = [Member("a", 1, 2), Member("b", 0, 1)]

    after, mine = share(1, waiting, Member("a", 0, 3))
    assert mine == 0
    assert [one.id for one in after] == ["b", "a"]

    after, mine = share(1, after, Member("b", 0, 1))
    assert mine == 1


def test_who_wants_more_gets_a_fair_part_while_others_want_some() -> None:
    others = [Member("a", 0, 5), Member("b", 0, 5)]

    _, mine = share(5, others, Member("c", 0, 5))
    assert mine == 1  # a and b were here before: two each
    _, mine = share(5, [Member("a", 2, 0), Member("b", 1, 0)], Member("c", 0, 5))
    assert mine == 2


def test_who_has_and_wants_nothing_leaves_the_list() -> None:
    assert share(5, [Member("a", 2, 0)], Member("a", 0, 0)) == ([], 0)


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)), max_size=40),
)
def test_never_more_places_than_the_limit(limit: int, steps: list[tuple[int, int, int]]) -> None:
    members: list[Member] = []
    for who, keeps, wants in steps:
        have = next((one.places for one in members if one.id == str(who)), 0)
        members, _ = share(limit, members, Member(str(who), min(keeps, have), wants))
        assert sum(one.places for one in members) <= limit
