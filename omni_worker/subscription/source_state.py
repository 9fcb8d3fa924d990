"""SourceState: what a subscription knows of one of its sources.

Sources of one stream share what is settled and what is in trouble: an event may come by either.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..notes import Note, NoteState
from ..recently_settled import SettledMemory
from ..settle import Trouble
from ..transports.base import Delivery, Source
from .doubts import Doubts

TROUBLES_KEPT = 100_000  # events waiting for a retry that this process remembers
ANY = 1 << 62  # deliveries: more than a consumer makes

Key = tuple[int, int]  # sequence and stored timestamp


class SourceState:
    """State of one source: held deliveries, settled ones, and those that wait for a retry."""

    __slots__ = (
        "asked", "asked_at", "deliveries", "floor", "held", "highest", "is_asked", "look_up_until",
        "repeats", "settled", "source", "troubles", "turn", "window",
    )  # fmt: skip

    def __init__(self, source: Source) -> None:
        self.source = source
        self.held: dict[int, Delivery] = {}  # by sequence: buffered or running
        self.settled = SettledMemory()
        self.troubles: dict[Key, Trouble] = {}
        self.deliveries = 0  # of the consumer, to all processes, when it was read last
        self.floor = 0.0  # stream sequence up to which all is settled; inf: all there is
        self.highest = 0
        # Until this sequence a first delivery may be a repeat: a server killed with -9 forgets
        # its last acks and counts.
        self.look_up_until = 0
        self.repeats = 0  # of the source's, as reported last
        # Where there are several: how much to request at once, and when it was requested last.
        self.window = 0
        self.asked = 0  # open then
        self.asked_at = float("-inf")  # loop time
        self.turn = 0
        self.is_asked = True  # not while older events are under way elsewhere: see gaps

    def succeed(self, lost: SourceState) -> None:
        """Continue where a lost source of the same stream ended."""
        self.held = lost.held  # what still runs is recognised when it comes again
        self.settled = lost.settled
        self.troubles = lost.troubles
        self.highest = lost.highest
        # Another process may have told of events that never came here.
        self.look_up_until = max(lost.look_up_until, lost.highest, lost.settled.highest)

    def join(self, other: SourceState) -> None:
        """Share the knowledge of another source of the same stream: its events may come here."""
        self.settled = other.settled
        self.troubles = other.troubles
        self.look_up_until = max(self.look_up_until, other.highest, other.settled.highest)

    def forget_all(self) -> None:
        """Forget what is settled or in trouble: an operator wants it run again."""
        self.settled.clear()
        self.troubles.clear()
        self.look_up_until = 0

    def goes_back(self, doubts: Doubts) -> None:
        """Doubt first deliveries up to the highest seen: one of them came behind later ones.

        The consumer was recreated by another process and this one did not see it, for it had no
        request there; or an operator has reset it. The next look at it decides.
        """
        self.look_up_until = max(self.highest, self.settled.highest)
        self.deliveries = ANY
        doubts.went_back.add(self.source)

    def is_first(self, delivery: Delivery) -> bool:
        """Return True if this is surely the first delivery of an event."""
        return delivery.count == 1 and not self.may_be_repeat(delivery)

    def may_be_repeat(self, delivery: Delivery) -> bool:
        """Return True if a first delivery may be a repeat: a recreated consumer and a killed server
        forget counts.

        Other processes may have spent attempts on it and left a note; or its retry was kept here.
        """
        if delivery.sequence <= self.look_up_until:
            return True
        return bool(self.troubles) and self.trouble_of(delivery) is not None

    def trouble_of(self, delivery: Delivery) -> Trouble | None:
        """Return what this process knows of a repeated event."""
        return self.troubles.get((delivery.sequence, delivery.stored_at))

    def trouble_for(self, delivery: Delivery) -> Trouble:
        """Return what this process knows of an event, or an empty record."""
        return self.trouble_of(delivery) or Trouble(first_seen=time.time())

    def is_given_up(self, delivery: Delivery) -> bool:
        """Return True if only its dead letter is still to be stored: it does not run again."""
        trouble = self.trouble_of(delivery)
        return trouble is not None and trouble.letter is not None

    def note_of(self, delivery: Delivery, state: NoteState) -> Note:
        """Make the note that tells other processes about an event."""
        trouble = self.trouble_of(delivery)
        if trouble is None:
            return Note(state=state, failures=0, first_seen=time.time())
        return Note(
            state=state,
            failures=trouble.failures,
            first_seen=trouble.first_seen,
            deaths=trouble.deaths,
        )

    def note_settled(self, delivery: Delivery, trouble: Trouble, settled: bool) -> bool:
        """Forget a settled event's troubles, keep another's; says ``settled`` again."""
        if settled:
            self.troubles.pop((delivery.sequence, delivery.stored_at), None)
        else:
            self.remember(delivery, trouble)
        return settled

    def remember(self, delivery: Delivery, trouble: Trouble) -> None:
        """Keep what is known of an event that comes again; the oldest is forgotten first."""
        troubles = self.troubles
        key = (delivery.sequence, delivery.stored_at)
        if key not in troubles and len(troubles) >= TROUBLES_KEPT:
            troubles.pop(next(iter(troubles)))
        trouble.consumer = delivery.source.consumer
        troubles[key] = trouble

    def forget_settled(self, ack_floor: int) -> None:
        """Forget what the server counts as settled: no retry of it will come."""
        consumer = self.source.consumer
        settled = [
            key
            for key, trouble in self.troubles.items()
            if key[0] <= ack_floor and trouble.consumer in (consumer, "")
        ]
        for key in settled:
            del self.troubles[key]

    def lowest_unsettled(self) -> int | None:
        """Return the first sequence that this process still has to answer: held, or waiting."""
        waiting = [sequence for sequence, _ in self.troubles]
        return min([*waiting, *self.held], default=None)

    def first_unsettled(self, ack_floor: int) -> int:
        """Return the first sequence that may be unsettled: above the floor, held, or waiting."""
        # What waits below the floor was settled by another process: it must not run again.
        self.forget_settled(ack_floor)
        lowest = self.lowest_unsettled()
        return ack_floor + 1 if lowest is None else min(ack_floor + 1, lowest)


def is_held_elsewhere(states: Iterable[SourceState], delivery: Delivery) -> bool:
    """Return True if another source of the stream delivered the event, and it is held."""
    for state in states:
        held = None if state.source is delivery.source else state.held.get(delivery.sequence)
        if held is not None and held.stored_at == delivery.stored_at:
            return True
    return False
