"""Traces that once came out differently on the two servers, and what it was."""

from __future__ import annotations

from .traces import Shape, Trace

ONCE_DIFFERENT: list[Trace] = [
    # A consumer owes no answer for what its stream has dropped: room for the next one.
    Trace(
        (Shape(policy="new", max_ack_pending=2),),
        (
            ("publish", "a", ""),
            ("pull", 0, 0, 3),
            ("publish", "a", ""),
            ("publish", "a", ""),
            ("wait", 1),
            ("pull", 0, 1, 4),
            ("publish", "a", ""),
        ),
        stored_before=2,
        per_subject=2,
    ),
    # Leases end in the order in which they began, not in stream order.
    Trace(
        (Shape(),),
        (
            ("publish", "a", ""),
            ("publish", "a", ""),
            ("pull", 0, 0, 2),
            ("wait", 1),
            ("answer", 0, 0, "progress"),
            ("wait", 2),
            ("pull", 0, 0, 1),
            ("wait", 1),
            ("pull", 0, 1, 1),
        ),
    ),
]
