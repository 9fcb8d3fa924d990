"""Trees: what caused what, also where ids repeat, name nothing or lead in a circle."""

from __future__ import annotations

from datetime import UTC, datetime

from omni_worker.dashboard.trees import tree_of
from omni_worker.letters.read import DeadLetter
from omni_worker.operations.trace import EventPlace, Trace

BEGIN = 1_700_000_000 * 10**9


def place(sequence: int, id: str, cause: str = "", type: str = "custom.a.b") -> EventPlace:
    at = BEGIN + sequence * 10**9
    return EventPlace(
        stream="CUSTOM", sequence=sequence, stored_at=at,
        time=datetime.fromtimestamp(at / 1e9, UTC), subject=type, id=id, type=type,
        causation_id=cause,
    )  # fmt: skip


def shape(trace: Trace) -> list[tuple[str, int]]:
    return [(one.place.id, one.depth) for one in tree_of(trace, {})]


def test_what_an_event_caused_follows_it_in_order_of_time() -> None:
    trace = Trace(
        id="b",
        places=[place(2, "b", "a")],
        related=[place(1, "a"), place(4, "d", "b"), place(3, "c", "a"), place(5, "e", "d")],
    )

    assert shape(trace) == [("a", 0), ("b", 1), ("d", 2), ("e", 3), ("c", 1)]


def test_times_are_shares_of_the_whole_and_letters_lie_at_their_own() -> None:
    letter = DeadLetter(
        id="l", stream="SYSTEM", sequence=1, time=datetime.fromtimestamp((BEGIN + 11e9) / 1e9, UTC),
        event_id="b", event_type="custom.a.b", error="no",
    )  # fmt: skip
    trace = Trace(id="b", places=[place(6, "b", "a")], related=[place(1, "a")], letters=[letter])

    first, second = tree_of(trace, {})

    assert (first.share, first.after, first.is_self) == (0.0, 0.0, False)
    assert (round(second.share, 2), second.after, second.is_self) == (0.5, 5.0, True)
    assert [round(one, 2) for one in second.ends] == [1.0]


def test_circles_repeated_ids_and_missing_causes_end() -> None:
    trace = Trace(
        id="a",
        places=[place(1, "a", "b"), place(2, "a", "b")],
        related=[place(3, "b", "a"), place(4, "c", "c"), place(5, "d", "gone"), place(6, "", "")],
    )

    found = shape(trace)

    assert sorted(one for one, _ in found) == ["", "a", "a", "b", "c", "d"]


def test_dead_letters_are_shown_at_their_event_and_not_as_events() -> None:
    trace = Trace(
        id="a", places=[place(1, "a")], related=[place(2, "l", type="system.dead_letter")]
    )

    assert shape(trace) == [("a", 0)]


def test_many_events_are_cut_off() -> None:
    trace = Trace(id="0", places=[place(1, "0")])
    trace.related = [place(number, str(number), str(number - 1)) for number in range(2, 400)]

    found = tree_of(trace, {}, most=100)

    assert len(found) == 100
    assert max(one.depth for one in found) <= 8
