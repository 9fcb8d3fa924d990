"""Observer: who is told when a handler begins and ends. Without one, nothing is spent on it.

Metrics, `dev` and `run --log-level debug` are observers. What follows from an ending (a retry, a
dead letter) is decided later, and said by settle.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Protocol

from .context import Context
from .dispatch import Dispatcher
from .events import Event
from .handlers import Handler
from .outcomes import Outcome

log = logging.getLogger("omni_worker.dispatch")


class Observer(Protocol):
    """Told of every run, on the loop: be quick. What it raises is logged and changes nothing."""

    def begun(self, handler: Handler, context: Context) -> None:
        """The handler is about to run."""

    def ended(self, handler: Handler, context: Context, outcome: Outcome, seconds: float) -> None:
        """It ended so, after that long; a run that was cut off is Failed with CancelledError."""


class ObservedDispatcher(Dispatcher):
    """The dispatcher for those who watch; bus takes the plain one where nobody does."""

    def __init__(self, handler: Handler, observer: Observer, **parts: Any) -> None:
        super().__init__(handler, **parts)
        self._observer = observer

    async def run(self, event: Event[Any], context: Context) -> Outcome:
        """Run the handler and tell the observer."""
        self._tell("begun", context)
        started = time.perf_counter()
        outcome = await super().run(event, context)
        self._tell("ended", context, outcome, time.perf_counter() - started)
        return outcome

    def _tell(self, what: str, context: Context, *facts: Any) -> None:
        try:
            getattr(self._observer, what)(self._handler, context, *facts)
        except Exception:
            log.exception("the observer failed; the event does not suffer", extra={"at": what})
