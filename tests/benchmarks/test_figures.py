"""Medians, ratios and goals: the arithmetic between what is measured and what is shown."""

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks.goals import GOALS, table_of_goals
from benchmarks.results import (
    Row,
    cores,
    cpu,
    from_plain,
    memory_per_handler,
    others,
    rate,
    server_cpu,
    spread,
    times,
)

from .support import measurement, results, row


def test_a_rate_is_that_of_the_median_round() -> None:
    assert rate(row(1.0, 2.0, 100.0)) == 500


def test_cpu_is_per_event_and_in_microseconds() -> None:
    one = row(1.0)

    assert cpu(one) == pytest.approx(10)
    assert server_cpu(one) == pytest.approx(5)
    assert cores(row(0.01, cpu=0.01, server_cpu=0.005)) == pytest.approx(1.5)


def test_rounds_are_compared_one_by_one() -> None:
    """The machine was ten times slower in the second round, for both."""
    fast, slow = row(1.0, 10.0, 1.0), row(2.0, 20.0, 2.0)

    assert times(fast, slow) == 2.0


def test_systems_that_handled_fewer_events_are_compared_by_rate() -> None:
    assert times(row(1.0, events=10_000), row(1.0, events=1_000)) == 10.0


def test_rows_with_other_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        times(row(1.0, 1.0), row(1.0))


def test_the_spread_is_a_part_of_the_median() -> None:
    assert spread(row(1.0, 2.0, 4.0)) == pytest.approx((1000 - 250) / 500)


def test_the_noisiest_round_tells_how_noisy_a_case_was() -> None:
    case = measurement(omni_worker=row(1.0, others=0.1), loop=row(1.0, others=1.5))

    assert others(case) == 1.5
    assert others(measurement()) == 0.0


def test_memory_per_handler_is_what_the_further_ones_take() -> None:
    case = measurement()
    case.rows["X, 1 handler"] = row(1.0, memory=50.0)
    case.rows["X, 101 handlers"] = row(1.0, memory=60.0)

    assert memory_per_handler(case, "X, 101 handlers") == pytest.approx(10 / 100 * 1024)
    assert memory_per_handler(case, "X, 1 handler") is None


def test_results_are_the_same_after_their_file() -> None:
    whole = results(drain=measurement(omni_worker=row(1.0, 2.0)))

    assert from_plain(json.loads(json.dumps(dataclasses.asdict(whole)))) == whole


def test_a_goal_is_reached_missed_or_not_measured() -> None:
    ours, theirs = row(1.0), row(9.0)
    case = measurement(omni_worker=ours)
    case.rows["FastStream"] = theirs

    rows = {cells[0]: cells[1:] for cells in table_of_goals(results(drain=case)).rows}

    assert rows["drain, beside FastStream"] == ("≥ 10 ×", "9 ×", "no")
    assert rows["CPU per event drained"] == ("≤ 10 µs", "10 µs", "yes")
    assert rows["drain, beside the bare continuous pull"] == ("≥ 1.2 ×", "–", "not measured")
    assert len(rows) == len(GOALS)


def test_a_bound_itself_is_reached() -> None:
    goal = next(each for each in GOALS if each.least == 10)

    assert goal.reached(10.0)
    assert not goal.reached(9.99)


def test_no_rounds_is_an_error_rather_than_a_figure() -> None:
    with pytest.raises(ValueError, match="no median"):
        rate(Row(1000))
