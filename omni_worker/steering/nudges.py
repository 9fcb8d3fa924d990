"""Nudges: the processes of an app look at once at what they else look at every ten seconds."""

from __future__ import annotations

from ..errors import TransportError
from ..transports.base import Transport

NUDGES = "omni-worker-steering"  # begins the subject on which processes hear of something new
HEARD_WITHIN = 0.3  # seconds


def nudge_subject(app: str) -> str:
    """Return the subject on which the processes of an app hear that there is something new."""
    return f"{NUDGES}.{app}"


async def nudge(transport: Transport, app: str) -> int:
    """Ask every process of an app to look now; return how many answered."""
    try:
        return len(await transport.ask_all(nudge_subject(app), within=HEARD_WITHIN))
    except TransportError:  # without the right they look within ten seconds
        return 0
