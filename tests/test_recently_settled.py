"""Settled memory: what was answered is recognised, and memory stays bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omni_worker.recently_settled import GENERATION, SettledMemory


def test_an_answered_delivery_is_recognised_by_sequence_and_stored_time() -> None:
    memory = SettledMemory()
    memory.add(7, 1000)

    assert memory.holds(7, 1000)
    assert not memory.holds(7, 1001)  # the stream was made anew
    assert not memory.holds(8, 1000)


def test_the_last_generation_is_always_remembered_and_never_more_than_two() -> None:
    memory = SettledMemory()
    total = 3 * GENERATION + 5

    for sequence in range(total):
        memory.add(sequence, 1)

    held = [sequence for sequence in range(total) if memory.holds(sequence, 1)]
    assert held[-1] == total - 1
    assert held == list(range(held[0], total))
    assert GENERATION <= len(held) <= 2 * GENERATION


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=20))
def test_it_never_takes_one_delivery_for_another(answered: list[tuple[int, int]]) -> None:
    memory = SettledMemory()

    for sequence, stored_at in answered:
        memory.add(sequence, stored_at)

    recognised = {(s, t) for s in range(6) for t in range(4) if memory.holds(s, t)}
    assert recognised <= set(answered)
    assert not answered or answered[-1] in recognised
