"""Results: in few bytes, and yet what was put in."""

from __future__ import annotations

import pytest

from omni_worker.errors import TransportError
from omni_worker.transports.base import Stored
from omni_worker.transports.results import Results


def results_of(*given: Stored | Exception) -> Results:
    results = Results()
    for one in given:
        results.put(results.add(), one)
    return results


@pytest.mark.parametrize(
    "odd",
    [
        Stored("B", 7, True),
        Stored("A", 2**64, False),
        Stored("A", -1, False),
        Stored("A", "x", False),  # type: ignore[arg-type]
        Stored(["A"], 1, False),  # type: ignore[arg-type]
        TransportError("no"),
    ],
    ids=repr,
)
def test_what_is_put_in_comes_out_in_its_place(odd: Stored | Exception) -> None:
    given = [Stored("A", 1, False), odd, Stored("A", 2, True), Stored("B", 0, False)]

    results = results_of(*given)

    assert list(results) == given
    assert results == given
    assert results[1] == results[-3] == odd
    assert results[-2:] == given[-2:]
    assert (results == given[:3], results == [*given[:3], odd]) == (False, False)


def test_more_streams_than_a_byte_can_name_are_kept_all_the_same() -> None:
    given = [Stored(f"S{n}", n, n % 2 == 0) for n in range(400)]

    assert list(results_of(*given)) == given


def test_the_usual_result_needs_no_object() -> None:
    results = Results()

    for sequence in (1, 2, 2**64 - 1, 2**64):
        results.put_stored(results.add(), "S", sequence)

    assert results == [Stored("S", n, False) for n in (1, 2, 2**64 - 1, 2**64)]


def test_errors_are_found_in_their_order() -> None:
    first, second = TransportError("1"), TransportError("3")
    results = results_of(*[Stored("S", 1, False)] * 4)

    results.put(3, second)
    results.put(1, first)

    assert list(results.errors().items()) == [(1, first), (3, second)]


def test_an_index_beyond_the_end_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        results_of()[0]
