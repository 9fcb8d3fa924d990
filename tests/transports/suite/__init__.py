"""The conformance suite of the port: every promise of `transports/base.py`, for every adapter.

A backend's test file inherits TransportSuite and gives it a `backend` fixture.
"""

from __future__ import annotations

from .answering import Answering
from .atomic import Atomic
from .backend import Backend
from .buckets import Buckets
from .consuming import Consuming
from .ending import Ending
from .operating import Operating
from .outages import Outages
from .pinning import Pinning
from .publishing import Publishing
from .scheduling import Scheduling
from .serving import Serving
from .starting import Starting

__all__ = ["Backend", "TransportSuite"]


class TransportSuite(
    Publishing,
    Consuming,
    Ending,
    Starting,
    Answering,
    Operating,
    Buckets,
    Outages,
    Serving,
    Scheduling,
    Atomic,
    Pinning,
):
    """All of it."""
