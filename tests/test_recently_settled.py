"""Settled memory: what was answered is recognised, however long ago, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omni_worker.recently_settled import BLOCK, GENERATION, MOST_BLOCKS, SettledMemory


def test_an_answered_delivery_is_recognised_by_sequence_and_stored_time() -> None:
    memory = SettledMemory()
    memory.add(7, 1000)

    assert memory.holds(7, 1000)
    assert not memory.holds(7, 1001)  # the stream was made anew
    assert not memory.holds(8, 1000)


def test_what_was_settled_above_a_waiting_event_is_remembered_and_the_gaps_are_too() -> None:
    memory = SettledMemory()
    total = 5 * GENERATION + 5
    gaps = {1, 20_000, 33_333, total - 1}

    for sequence in range(1, total):
        if sequence not in gaps:
            memory.add(sequence, sequence * 10)

    held = {sequence for sequence in range(total + 5) if memory.holds(sequence, sequence * 10)}
    assert held == set(range(1, total)) - gaps


def test_below_the_ack_floor_blocks_are_forgotten_and_there_are_never_too_many() -> None:
    memory = SettledMemory()
    for sequence in range(1, 3 * BLOCK):
        memory.add(sequence, sequence)

    memory.forget(2 * BLOCK)

    assert memory.holds(2 * BLOCK + 1, 2 * BLOCK + 1)
    assert not memory.holds(BLOCK, BLOCK)
    for sequence in range(1, (MOST_BLOCKS + GENERATION) * BLOCK, BLOCK):
        memory.add(sequence, sequence)
    assert len(memory.blocks) <= MOST_BLOCKS


def test_events_of_a_stream_that_was_recreated_are_not_taken_for_the_old_ones() -> None:
    memory = SettledMemory()
    for sequence in range(1, 2 * GENERATION):
        memory.add(sequence, sequence)

    before = memory.holds(100, 10_000_100)
    for sequence in range(1, 50):
        memory.add(sequence, 10_000_000 + sequence)
    list(memory.changed())

    assert not before
    assert memory.holds(49, 10_000_049)
    assert not memory.holds(100, 10_000_100)


def test_what_one_process_learns_of_another_it_recognises_and_closes_no_gap() -> None:
    ours, theirs = SettledMemory(), SettledMemory()
    for sequence in range(1, 1000):
        if sequence % 3:
            (ours if sequence % 3 == 1 else theirs).add(sequence, sequence * 10)
    list(ours.changed())

    for number, block in theirs.changed():
        assert ours.learn(number, block)

    held = [sequence for sequence in range(1000) if ours.holds(sequence, sequence * 10)]
    assert held == [sequence for sequence in range(1, 1000) if sequence % 3]


def test_only_blocks_that_grew_are_shared_again() -> None:
    memory = SettledMemory()
    memory.add(5, 50)
    memory.add(BLOCK + 5, 5000)

    first = [number for number, _ in memory.changed()]
    memory.add(BLOCK + 6, 5001)

    assert first == [0, 1]
    assert [number for number, _ in memory.changed()] == [1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=20), st.booleans())
def test_it_never_takes_one_delivery_for_another(
    answered: list[tuple[int, int]], folded: bool
) -> None:
    memory = SettledMemory()

    for sequence, stored_at in answered:
        memory.add(sequence, stored_at)
        if folded:
            list(memory.changed())

    recognised = {(s, t) for s in range(6) for t in range(4) if memory.holds(s, t)}
    assert recognised <= set(answered)
    assert not answered or answered[-1] in recognised
