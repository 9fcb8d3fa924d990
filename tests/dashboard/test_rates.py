"""Rates, wording, charts and states: pure, tested with numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from omni_worker.dashboard.charts import nice_top, stacked
from omni_worker.dashboard.rates import KEPT, STEPS, Rates
from omni_worker.dashboard.states import Care, headline, in_order, line_of
from omni_worker.dashboard.watch import Activity
from omni_worker.dashboard.wording import (
    grouped,
    lasting,
    moment,
    precise,
    rate,
    short,
    shown,
    size,
)
from omni_worker.operations.failures import Failure
from omni_worker.operations.handler_status import HandlerStatus, by_handler
from omni_worker.operations.status import ConsumerStatus

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_what_happened_is_counted_by_span() -> None:
    rates = Rates()
    rates.add(1000.0)
    rates.add(1290.0, 4)

    assert rates.total(1300.0, 60) == 4
    assert rates.total(1300.0, 600) == 5


def test_a_count_between_two_looks_is_spread_over_the_time_between() -> None:
    rates = Rates()
    rates.spread(1000.0, 1020.0, 40)

    assert rates.series(1019.0, 20, 4) == [10, 10, 10, 10]
    assert rates.total(1020.0, 60) == pytest.approx(40)


@pytest.mark.parametrize(("begin", "end"), [(1000.0, 1000.0), (1000.0, 990.0), (0.0, 1e9)])
def test_odd_clocks_lose_nothing_and_cost_little(begin: float, end: float) -> None:
    rates = Rates()
    rates.spread(begin, end, 8)

    assert sum(rates.steps.values()) == pytest.approx(8, rel=0.01)
    assert len(rates.steps) <= STEPS + 1


def test_rates_never_grow() -> None:
    rates = Rates()
    for at in range(0, 100_000, 3):
        rates.add(float(at))

    assert len(rates.steps) == STEPS
    assert rates.total(99_999.0, KEPT) == pytest.approx(300, abs=3)


def test_one_failure_among_thousands_can_be_seen() -> None:
    chart = stacked((("fine", [10_000.0]), ("dead", [1.0])), width=10, height=20)

    assert [bar.kind for bar in chart.bars] == ["fine", "dead"]
    assert chart.bars[1].height >= 1
    assert all(bar.y >= 0 for bar in chart.bars)
    assert dict(chart.paths)["dead"].startswith("M0 ")


def test_a_chart_of_nothing_is_empty() -> None:
    assert stacked((("fine", [0.0, 0.0]),), width=10, height=20).is_empty
    assert nice_top(7) == 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("15 min", NOW - timedelta(minutes=15)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("999999w", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_moments_are_read_as_people_write_them(text: str, expected: datetime | None) -> None:
    assert moment(text, NOW) == expected


def test_numbers_and_times_are_written_short() -> None:
    assert [short(one) for one in (0, 999, 1_234, 45_678, 5_600_000)] == [
        "0", "999", "1.2k", "46k", "5.6M",
    ]  # fmt: skip
    assert [rate(one) for one in (0, 0.05, 1.24, 123, 12_345)] == [
        "0", "3.0/min", "1.2/s", "123/s", "12k/s",
    ]  # fmt: skip
    assert (grouped(1_234_567), lasting(7), lasting(240)) == ("1\u202f234\u202f567", "7 s", "4 min")
    assert (precise(0.0031), precise(1.25), size(2_048)) == ("3 ms", "1.25 s", "2.0 KiB")


def test_characters_that_move_or_turn_a_text_are_escaped() -> None:
    assert shown("a\x1b[31m\u202eb\nc") == "a\\x1b[31m\\u202eb\nc"


def consumer(name: str = "r1", stream: str = "MESSAGE", **facts: object) -> ConsumerStatus:
    return ConsumerStatus(stream=stream, name=name, app="shop", **facts)  # type: ignore[arg-type]


def failure(seconds: float) -> Failure:
    return Failure(
        time=NOW - timedelta(seconds=seconds), app="shop", handler="r1", stream="MESSAGE",
        sequence=1, subject="s", attempt=1, error="ConnectionError: gone",
    )  # fmt: skip


def test_the_consumers_of_one_handler_are_one_line() -> None:
    old, new = NOW - timedelta(hours=1), NOW - timedelta(seconds=1)
    [one] = by_handler([
        consumer(waiting=2, unacked=1, oldest=new, pulls=1),
        consumer(stream="CUSTOM", waiting=3, oldest=old),
    ])  # fmt: skip

    assert (one.waiting, one.unacked, one.pulls, one.oldest) == (5, 1, 1, old)
    assert one.streams == ("MESSAGE", "CUSTOM")
    assert one.is_unasked


@pytest.mark.parametrize(
    ("facts", "letters", "word"),
    [
        ({}, 0, "idle"),
        ({"waiting": 5}, 0, "no worker"),
        ({"waiting": 5, "pulls": 1, "is_paused": True}, 0, "paused"),
        ({"unacked": 5, "redelivered": 2}, 0, "retrying"),
        ({"waiting": 5, "pulls": 1, "oldest": NOW - timedelta(minutes=5)}, 0, "behind"),
        ({"unacked": 5, "pulls": 1}, 0, "working"),
        ({}, 3, "letters"),
    ],
)
def test_a_handler_s_state_is_one_word(facts: dict[str, object], letters: int, word: str) -> None:
    [status] = by_handler([consumer(**facts)])

    assert line_of(status, Activity(), letters, NOW).state.word == word


@pytest.mark.parametrize(("letters", "word"), [(1, "failing"), (None, "failing"), (0, "idle")])
def test_a_handler_fails_until_its_dead_letters_are_retried_or_discarded(
    letters: int | None, word: str
) -> None:
    activity = Activity()
    activity.dead.add(NOW.timestamp())

    line = line_of(HandlerStatus(app="shop", name="r1"), activity, letters, NOW)

    assert line.state.word == word


def test_another_program_s_consumer_that_nothing_reads_is_only_a_note() -> None:
    foreign = ConsumerStatus(stream="MESSAGE", name="other", waiting=5)
    [status] = by_handler([foreign])

    state = line_of(status, Activity(), 0, NOW).state

    assert (state.word, state.care) == ("not read", Care.NOTE)


def test_a_handler_that_loses_events_comes_first() -> None:
    dead, again = Activity(), Activity()
    dead.dead.add(NOW.timestamp())
    again.retried.add(NOW.timestamp())
    again.problems.append(failure(2))
    statuses = {name: HandlerStatus(app="shop", name=name) for name in ("a", "b", "c")}

    lines = in_order([
        line_of(statuses["a"], Activity(), 0, NOW),
        line_of(statuses["b"], again, 0, NOW),
        line_of(statuses["c"], dead, 1, NOW),
    ])  # fmt: skip

    assert [(one.status.name, one.state.word) for one in lines] == [
        ("c", "failing"), ("b", "retrying"), ("a", "idle"),
    ]  # fmt: skip
    assert lines[1].last == "ConnectionError: gone"
    assert headline(lines) == ("1 handler needs you", Care.FAIL)
