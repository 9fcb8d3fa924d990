"""Order: handlers that run one event at a time, and still not in the order of their stream."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import TransportError
from ...handlers import both_names
from ...topology import bare_name
from ...transports.base import Transport
from ..processes import HandlerActivity, WorkerProcess, processes
from .finding import Finding, Level


async def order_findings(transport: Transport) -> list[Finding]:
    """Ask the workers that run; without the right to ask nothing is found."""
    try:
        return out_of_order(await processes(transport))
    except TransportError:
        return []


def out_of_order(found: Sequence[WorkerProcess]) -> list[Finding]:
    """Return a finding for each handler with concurrency=1 and two consumers on one stream."""
    lines = {
        f"{both_names(handler.function.rpartition('.')[2], handler.name)} has concurrency=1 and two"
        f" consumers on {stream}, with and without channel: its order is not the stream's"
        for process in found
        for handler in process.handlers
        if handler.concurrency == 1 and not handler.adapts and handler.ordered is False
        for stream in _read_twice(handler)
    }
    advice = "if its order counts: order_by, or a channel (docs/guarantees.md)"
    return [Finding(Level.NOTE, "order", line, advice) for line in sorted(lines)]


def _read_twice(handler: HandlerActivity) -> list[str]:
    """Return the streams on which a handler has a consumer and a bare one."""
    return [
        stream
        for stream, name in handler.consumers
        if (stream, bare_name(name)) in handler.consumers
    ]
