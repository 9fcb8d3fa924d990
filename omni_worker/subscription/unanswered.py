"""Unanswered: events that were delivered and wait for an answer, or for their retry.

The server delivers nothing new while there are as many of them as ``max_ack_pending`` allows, and
says nothing about it.
"""

from __future__ import annotations

from ..signals import NearlyFull
from ..transports.base import Source
from ..transports.infos import ConsumerInfo
from .gates import Flow
from .pauses import Pauses

NEARLY = 0.8
LEAST = 1_000  # a smaller limit was chosen by a person, to hold few


class Unanswered:
    """Reports of one handler's consumers, as they were seen last."""

    def __init__(self, flow: Flow, pauses: Pauses) -> None:
        self._flow = flow
        self._pauses = pauses
        self._nearly: dict[Source, str] = {}
        self._crowded: set[Source] = set()
        self.seen: dict[Source, ConsumerInfo] = {}  # each consumer, when it was read last

    @property
    def warnings(self) -> list[str]:
        """Consumers that are nearly full, and what is paused."""
        return [*self._nearly.values(), *self._pauses.warnings]

    def saw(self, source: Source, info: ConsumerInfo) -> None:
        """Judge a consumer; called whenever the server was asked about it."""
        self.seen[source] = info
        self._pauses.saw(source, info)
        count, most = info.num_ack_pending, info.config.max_ack_pending
        is_small = not most >= LEAST
        elsewhere = count - self._flow.credit.held  # what we hold is being worked at
        if 0 < most < 2 * elsewhere:
            self._crowded.add(source)
        else:
            self._crowded.discard(source)
        says = (
            f"{count} of at most {most} events of consumer {info.name} on {info.stream} wait for"
            " an answer or a retry (max_ack_pending)"
        )
        what = f"unanswered {info.name} on {info.stream}"
        if not is_small and count >= most and 2 * elsewhere >= most:
            self._flow.stall(what, f"{says}: nothing new is delivered until some are settled")
        else:
            self._flow.stall_ended(what)
        if is_small or elsewhere < NEARLY * most:
            self._nearly.pop(source, None)
            return
        if source not in self._nearly:
            self._flow.emit(NearlyFull(handler=self._flow.handler, reason=says))
        self._nearly[source] = says

    def is_crowded(self, source: Source) -> bool:
        """Tell whether more than half of what a consumer allows waits for answers or retries."""
        return source in self._crowded

    def forget(self, source: Source) -> None:
        """Forget a lost source."""
        self.seen.pop(source, None)
        self._crowded.discard(source)
        self._nearly.pop(source, None)
        self._pauses.forget(source)
        self._flow.stall_ended(f"unanswered {source.consumer} on {source.stream}")
