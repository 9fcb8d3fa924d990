"""Reader pause: a consumer that an app reads for itself was paused by others; reported once."""

from __future__ import annotations

from ..signals import AppReaderPaused, Signals
from ..topology import pause_of_reader
from ..transports.infos import ConsumerInfo


class ReaderPause:
    """Pause of one consumer, as it was seen last; ``says`` is it in words, None without one."""

    def __init__(self, consumer: str, signals: Signals) -> None:
        self.says: str | None = None
        self._consumer = consumer
        self._signals = signals

    def saw(self, info: ConsumerInfo | None) -> None:
        """Judge the consumer; None: it does not exist."""
        before, self.says = self.says, None if info is None else pause_of_reader(info)
        if (self.says is None) != (before is None):
            reason, is_over = self.says or before or "", self.says is None
            self._signals.emit(
                AppReaderPaused(consumer=self._consumer, reason=reason, is_over=is_over)
            )
