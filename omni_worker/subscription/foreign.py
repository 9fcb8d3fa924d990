"""Foreign: deliveries for another version of the handler, handed back until a limit."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import TransportError
from ..handlers import Handler
from ..outcomes import HandBack, Outcome, Rejected
from ..settle import Trouble
from ..signals import ForeignDelivery, Signals


class Foreign:
    """Decides what becomes of the deliveries that no filter of this version matches."""

    def __init__(
        self, handler: Handler, signals: Signals, limit: float, now: Callable[[], float]
    ) -> None:
        self._handler = handler
        self._signals = signals
        self._limit = limit  # seconds
        self._now = now
        self._is_reported = False

    def judge(self, outcome: Outcome, trouble: Trouble) -> Outcome:
        """Hand back a delivery for another version; dead-letter it after the limit."""
        if not isinstance(outcome, HandBack) or not outcome.foreign:
            return outcome
        now = self._now()
        if trouble.handed_back_since is None:
            trouble.handed_back_since = now
        if now - trouble.handed_back_since >= self._limit:
            return Rejected(TransportError(f"no worker took it: {outcome.reason}"), unreadable=True)
        if not self._is_reported:
            self._is_reported = True
            self._signals.emit(ForeignDelivery(handler=self._handler, reason=outcome.reason))
        return outcome
