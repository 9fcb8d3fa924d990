"""Parts: what a subscription works with; bus puts it together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..context import RunSetup
from ..dispatch import Dispatcher
from ..handlers import Handler
from ..notes import AttemptNotes, Guards
from ..settle import Counts, Settler
from ..signals import Signals
from ..transports.base import Source
from .gates.catch_up import AskConsumerInfo

if TYPE_CHECKING:
    from . import Subscription


@dataclass(slots=True, kw_only=True)
class Parts:
    """The rooms around one handler's loop, and what it tells the bus."""

    handler: Handler
    dispatcher: Dispatcher
    settler: Settler
    attempts: AttemptNotes
    guards: Guards | None  # for exactly_once
    counts: Counts
    around: RunSetup
    signals: Signals
    is_connected: Callable[[], bool]
    consumer_info: AskConsumerInfo
    on_lost: Callable[[Source, Exception], None]
    on_unsubscribe: Callable[[Subscription, float | None], Awaitable[None]]
    foreign_limit: float  # seconds
    streams: int = 1
