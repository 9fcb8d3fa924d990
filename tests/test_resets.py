"""An operator's reset is told from a server that forgot its last deliveries."""

from __future__ import annotations

from typing import Any

from omni_worker.resets import APART, Looks
from omni_worker.topology import TAG
from omni_worker.transports.infos import ConsumerInfo, read_consumer_info


def consumer(deliveries: int, *, created: str = "1", origin: str | None = None) -> ConsumerInfo:
    metadata = {} if origin is None else {TAG + "origin": origin}
    raw: dict[str, Any] = {
        "stream_name": "S", "name": "c", "created": f"2026-01-01T00:00:0{created}Z",
        "config": {"metadata": metadata}, "delivered": {"consumer_seq": deliveries},
    }  # fmt: skip
    return read_consumer_info(raw)


def looked_at(*deliveries: int) -> Looks:
    """Looks at one consumer, well apart, by the first link to a server."""
    looks = Looks("first")
    for number, count in enumerate(deliveries):
        looks.note(consumer(count), link=0, server="one", now=2 * APART * number)
    return looks


def is_reset(looks: Looks, info: ConsumerInfo, **given: Any) -> bool:
    return looks.is_reset(info, **{"link": 0, "server": "one", "doubtful": None, **given})


def test_more_deliveries_are_no_reset() -> None:
    assert not is_reset(looked_at(100, 200), consumer(250))


def test_fewer_deliveries_on_the_same_link_are_a_reset() -> None:
    assert is_reset(looked_at(100, 200), consumer(5))


def test_after_a_broken_link_only_what_was_seen_a_look_before_counts() -> None:
    looks = looked_at(100, 200)

    assert not is_reset(looks, consumer(150), link=1)
    assert is_reset(looks, consumer(50), link=1)


def test_two_looks_at_one_moment_are_one() -> None:
    looks = looked_at(100, 200)
    looks.note(consumer(300), link=0, server="one", now=2 * APART + APART / 10)

    assert not is_reset(looks, consumer(150), link=1)


def test_a_settled_event_with_a_number_that_was_seen_before_is_a_reset() -> None:
    assert is_reset(looked_at(100, 200), consumer(250), doubtful=7)
    assert not is_reset(looked_at(100, 200), consumer(250), doubtful=240)


def test_another_server_may_have_forgotten_everything() -> None:
    looks = looked_at(100, 200)

    assert not is_reset(looks, consumer(0), link=1, server="two", doubtful=1)


def test_what_a_killed_server_delivers_again_is_no_reset_at_the_next_look_either() -> None:
    looks = looked_at(100, 200)
    looks.note(consumer(50), link=1, server="two", now=10.0)

    assert not is_reset(looks, consumer(120), link=1, server="two", doubtful=1)
    assert is_reset(looks, consumer(3), link=1, server="two")


def test_a_new_consumer_is_a_reset_unless_we_made_it_in_place_of_the_first() -> None:
    looks = looked_at(100)

    assert is_reset(looks, consumer(0, created="2"))
    assert not is_reset(looks, consumer(0, created="2", origin="first"))
