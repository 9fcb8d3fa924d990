"""Traces: what two clients do to one stream with one or two consumers, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

# Seconds; waits are whole slots, and everything else happens at a slot's beginning. A machine that
# is too busy for that takes longer ones: the same happens in each.
SLOT = 0.3
ACK_WAIT = 2.45  # slots: leases and delays end later in a slot, where nobody acts
SOON, LATER = 0.6, 1.6  # slots of a nak's delay: never at the time a lease ends
CLIENTS = 2
SUBJECTS = ("a", "b")
LONGEST = 14  # steps

Step = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A consumer, before and after which ``before`` messages are stored."""

    filter: str = ""
    policy: str = "all"
    max_ack_pending: int = 1000

    def config(self, name: str, stream: str, slot: float) -> dict[str, Any]:
        """As the API takes it."""
        config: dict[str, Any] = {
            "name": name,
            "durable_name": name,
            "ack_policy": "explicit",
            "deliver_policy": self.policy,
            "ack_wait": round(ACK_WAIT * slot * 1e9),
            "max_ack_pending": self.max_ack_pending,
        }
        return {**config, "filter_subject": f"{stream}.{self.filter}"} if self.filter else config


@dataclass(frozen=True, slots=True)
class Trace:
    """The consumers, and the steps taken one after the other."""

    consumers: tuple[Shape, ...]
    steps: tuple[Step, ...]
    stored_before: int = 0
    per_subject: int = -1  # max_msgs_per_subject

    @property
    def slots(self) -> int:
        """How long it takes."""
        return sum(step[1] for step in self.steps if step[0] == "wait")


_consumers = st.integers(0, 1)
_clients = st.integers(0, CLIENTS - 1)
_deliveries = st.integers(0, 9)  # the how-manieth, counted round
_publish = st.tuples(
    st.just("publish"), st.sampled_from(SUBJECTS), st.sampled_from(["", "", "", "1", "2"])
)
_pull = st.tuples(st.just("pull"), _consumers, _clients, st.integers(1, 4))
_answer = st.tuples(
    st.just("answer"),
    _consumers,
    _deliveries,
    st.sampled_from(["ack", "ack", "nak", "soon", "later", "term", "progress", "confirm"]),
)
_wait = st.tuples(st.just("wait"), st.integers(1, 2))
_fault = st.tuples(st.sampled_from(["crash", "cut", "mend"]), _clients)
_step = st.one_of(_publish, _pull, _pull, _answer, _answer, _answer, _wait, _fault)

shapes = st.builds(
    Shape,
    filter=st.sampled_from(["", "", *SUBJECTS]),
    policy=st.sampled_from(["all", "all", "new", "last"]),
    max_ack_pending=st.sampled_from([1000, 1000, 2]),
)


def _begun(steps: list[Step]) -> tuple[Step, ...]:
    """With something to deliver, and somebody who asked for it."""
    return (("publish", "a", ""), ("pull", 0, 0, 3), *steps)


traces = st.builds(
    Trace,
    consumers=st.lists(shapes, min_size=1, max_size=2).map(tuple),
    steps=st.lists(_step, min_size=4, max_size=LONGEST).map(_begun),
    stored_before=st.integers(0, 3),
    per_subject=st.sampled_from([-1, -1, -1, 2]),
)
