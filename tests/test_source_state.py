"""SourceState: sources of one stream share what is settled and what is in trouble."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from omni_worker.settle import Trouble
from omni_worker.subscription.source_state import SourceState
from omni_worker.transports.base import Delivery


def state_of(consumer: str) -> SourceState:
    source: Any = SimpleNamespace(stream="MESSAGE", consumer=consumer)
    return SourceState(source)


def delivery(state: SourceState, sequence: int) -> Delivery:
    return Delivery(state.source, "message.sent", b"", None, b"", sequence, sequence * 10, 1)


def test_what_one_consumer_delivered_and_settled_is_recognised_when_another_delivers_it() -> None:
    first, second = state_of("r1"), state_of("r1-bare")
    first.highest = 7
    first.settled.add(7, 70)

    second.join(first)

    assert second.settled.holds(7, 70)
    assert second.may_be_repeat(delivery(second, 7))
    assert not second.may_be_repeat(delivery(second, 8))


def test_the_ack_floor_of_one_consumer_does_not_forget_what_another_will_deliver_again() -> None:
    first, second = state_of("r1"), state_of("r1-bare")
    second.join(first)
    first.remember(delivery(first, 5), Trouble(failures=1))
    second.remember(delivery(second, 6), Trouble(failures=1))

    second.forget_settled(100)

    assert first.lowest_unsettled() == second.lowest_unsettled() == 5
    assert second.trouble_of(delivery(second, 6)) is None
