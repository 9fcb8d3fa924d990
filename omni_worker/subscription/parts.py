"""Parts: what a subscription is built from; assembly puts it together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..context import RunSetup
from ..dispatch import Dispatcher
from ..handlers import Handler
from ..notes import AttemptNotes
from ..settle import Counts, Settler
from ..signals import Signals
from ..threads import DaemonThreads
from ..transports.base import Source
from .gates import Gate
from .gates.breaker import Breaker
from .gates.order import Order
from .gates.recall import Recall
from .run_times import RunTimes

if TYPE_CHECKING:
    from . import Subscription


class Batches(Protocol):
    """Calls of a batch handler: how many events and seconds they take. Any thread may ask."""

    @property
    def running(self) -> int:
        """Events for which the function runs right now."""

    @property
    def busy_seconds(self) -> float:
        """Seconds that batches ran until now, all together."""


@dataclass(slots=True, kw_only=True)
class Parts:
    """The rooms around one handler's loop, and where it reports to."""

    handler: Handler
    dispatcher: Dispatcher
    settler: Settler
    attempts: AttemptNotes
    counts: Counts
    around: RunSetup
    gates: Sequence[Gate]  # the outermost first; two of them are named, the others only called
    order: Order | None
    breaker: Breaker
    recall: Recall  # outside of them: it is passed before the event is read
    times: RunTimes | None  # of calls of the function; None: nothing measures them
    signals: Signals
    is_connected: Callable[[], bool]
    on_lost: Callable[[Source, Exception], None]
    on_unsubscribe: Callable[[Subscription, float | None], Awaitable[None]]
    foreign_limit: float  # seconds
    streams: int = 1
    threads: DaemonThreads | None = None  # of a plain def handler
    hand_back: Callable[[Source, str], None] = lambda source, reason: None  # what waits in a run
    let_go: Callable[[], None] = lambda: None  # what has begun and waits, once nothing comes in
    batches: Batches | None = None  # None: each slot calls the function for itself
