"""Causes: why an event came to its end twice, out of the faults that were done. Pure.

Only what docs/guarantees.md names counts, and only where it can have been: the process it was done
to, the consumer, the moment. A double without such a cause is a fault of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UNNAMED = "no cause that is promised"

# Seconds around a fault. What the server or a process knew shortly before may be lost with it.
BEFORE = 0.3
AFTER = 1.5  # links are renewed, and acks sent again
READ = 11.0  # since a consumer's ack floor was read, and what is settled shared


@dataclass(slots=True)
class Fault:
    """Fault, with its beginning, end and victim. ``until`` is set when it is over."""

    name: str
    since: float
    until: float = float("inf")
    worker: str = ""
    durable: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """End of an event's run, with worker, process, beginning and end."""

    worker: str
    pid: int
    at: float
    began: float = 0.0  # the same moment, if it is not known

    def overlaps(self, fault: Fault) -> bool:
        """Return True if its lease, or its ack, may not have come through because of a fault."""
        return fault.since - BEFORE <= self.at and (self.began or self.at) <= fault.until + AFTER


def cause(durable: str, ends: Sequence[End], faults: Iterable[Fault]) -> str:
    """The fault between the first two ends that explains the second, else UNNAMED."""
    first, second = sorted(ends, key=lambda end: end.at)[:2]
    done = list(faults)
    for fault in done:
        if fault.since - BEFORE <= second.at and _explains(fault, durable, first, second, done):
            return f"{fault.name} ({fault.detail})" if fault.detail else fault.name
    return UNNAMED


def _explains(fault: Fault, durable: str, first: End, second: End, faults: Sequence[Fault]) -> bool:
    if first.pid == second.pid:
        return False  # a process knows what it has settled
    match fault.name:
        case "kill a worker" | "kill the supervisor":
            # Its acks may have been on their way for as long as the link was not well.
            return fault.worker == first.worker and (
                _unwell_since(fault.since, faults) - BEFORE <= first.at <= fault.since + BEFORE
            )
        case "freeze a worker":
            # The other one has run what the frozen one holds, or the other way round.
            return fault.worker in (first.worker, second.worker) and (
                first.at <= fault.until + AFTER and second.at >= fault.since
                and first.at >= _unwell_since(fault.since, faults) - BEFORE
            )  # fmt: skip
    if durable == "once":
        return False  # what its guard is for
    match fault.name:
        case "kill the server" | "stop the server" | "hang the server":
            return first.overlaps(fault)
        case "break the link" | "swallow acks":
            return fault.worker == first.worker and first.overlaps(fault)
        case "delete a consumer":
            return fault.durable == durable and fault.since - READ <= first.at
        case "edit a consumer":  # it is made again, so that nothing is stranded
            return fault.durable == durable and fault.detail in ("max_deliver", "backoff") and (
                fault.since - READ <= first.at
            )  # fmt: skip
    return False


def _unwell_since(moment: float, faults: Iterable[Fault]) -> float:
    """Since when acks may not have come through, at a moment."""
    kinds = ("the server", "the link", "acks", "freeze")
    since = moment
    for fault in sorted(faults, key=lambda one: one.since, reverse=True):
        if any(kind in fault.name for kind in kinds) and fault.since < since <= fault.until + AFTER:
            since = fault.since
    return since
