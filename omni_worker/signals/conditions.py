"""Signals of conditions: consumers, connection, gates, and the process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..transports.base import Delivery
from .base import HandlerSignal, Signal

# --- consumers, connection, gates -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerLost(HandlerSignal):
    """A consumer was deleted or can no longer be read; ``recreate``: it is created again."""

    stream: str
    consumer: str
    cause: Exception
    recreate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerRecreated(HandlerSignal):
    """A lost consumer is created again and reads from ``sequence``."""

    stream: str
    consumer: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LateConsumerLost(HandlerSignal):
    """The consumer of what another one passed was deleted by others before all was handled."""

    stream: str
    consumer: str

    @property
    def consequence(self) -> str:
        """Return what happened, and what becomes of the events."""
        lost = f"events of subjects that were added to {self.stream} may never be handled"
        return f"consumer {self.consumer} was deleted before it was read to its end: {lost}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumersJoined(HandlerSignal):
    """The consumer of the bare subjects cannot be had: one consumer reads all filters."""

    stream: str
    consumer: str
    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class RecreationFailed(HandlerSignal):
    """A lost consumer cannot be created yet; it is tried again."""

    stream: str
    consumer: str
    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReplaced(HandlerSignal):
    """A stream was deleted and created again: its consumer starts at the first event."""

    stream: str
    consumer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerReset(HandlerSignal):
    """An operator reset or recreated a consumer: what it delivers runs again."""

    stream: str
    consumer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRepeated(HandlerSignal):
    """A request for events was lost or refused while the link was up, and is made again."""

    stream: str
    consumer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerEdited(HandlerSignal):
    """Others changed a consumer of ours so that events are lost; it is set right, or recreated."""

    stream: str
    consumer: str
    changes: str  # fields, with the values there and those wanted
    recreated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPaused(HandlerSignal):
    """An operator paused a consumer on the server: nothing is delivered until that is over."""

    stream: str
    consumer: str
    reason: str
    is_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnsLost(Signal):
    """The consumer of events sent back from dead letters was deleted or cannot be read."""

    stream: str
    consumer: str
    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnDelayed(Signal):
    """An event sent back to an unknown handler waits: its dead letter could not be stored."""

    name: str
    delivery: Delivery
    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class NotForwarded(Signal):
    """A scheduled event is due and was not published; it is tried again after some seconds.

    ``again`` is None for a message that is no event of ours: it is dropped.
    """

    subject: str
    cause: Exception
    again: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppReaderPaused(Signal):
    """A consumer that the app reads for itself was paused by others, or no longer is."""

    consumer: str
    reason: str
    is_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CronRestored(Signal):
    """A cron that the server lost with the stream that keeps it is registered again."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Signal):
    """The connection is established, for the first time or again."""

    server: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(Signal):
    """The connection was lost; the transport reconnects."""

    server: str
    cause: Exception | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpened(HandlerSignal):
    """Every event failed lately; trials run until one succeeds."""

    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerClosed(HandlerSignal):
    """A trial succeeded: the handler runs at full speed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(HandlerSignal):
    """A handler takes no new events until it is resumed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(HandlerSignal):
    """A paused handler takes events again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled(HandlerSignal):
    """A handler's concurrency was changed while it runs, or is what it was declared again."""

    concurrency: int
    declared: int
    reason: str  # empty: the order was taken back
    adapts: bool = False  # without an order: declared is what was found until now


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned(HandlerSignal):
    """A handler with an adaptive concurrency tries another number, or goes back to the last."""

    concurrency: int
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited(HandlerSignal):
    """Events have waited for their rate or for a place of their limit for some time: as ordered."""

    option: str  # as declared: rate='100/s', limit=5


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitEnded(HandlerSignal):
    """None has waited for it for some time."""

    option: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NearlyFull(HandlerSignal):
    """A consumer is near its limit of unanswered events; at the limit it delivers nothing new."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(HandlerSignal):
    """Something has kept a handler from taking events for a while."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StallEnded(HandlerSignal):
    """Nothing keeps a stalled handler from its events any longer."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForOlder(HandlerSignal):
    """Older events are held by other processes; with ``order_by`` they come first."""

    events: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignDelivery(HandlerSignal):
    """A delivery for another version of this consumer came, for the first time; see HandedBack."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesFailed(HandlerSignal):
    """Attempts cannot be noted across processes; deliveries are counted instead."""

    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFault(HandlerSignal):
    """A fault of this framework; ``consequence`` says what becomes of the event."""

    error: Exception
    consequence: str
    delivery: Delivery | None = None


# --- the process ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Signal):
    """Every handler of the app reads its events."""

    handlers: int
    pid: int
    consumers: tuple[dict[str, Any], ...] = ()
    app: str = ""
    server: str = ""  # its URLs, without a login
