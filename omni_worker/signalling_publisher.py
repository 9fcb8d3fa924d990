"""Signalling publisher: emits what became of each published event, where something listens.

It is outside the publish middlewares: the type is the one the caller gave.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

from .errors import OmniWorkerError
from .events import DEAD_LETTER, Published
from .publisher import DEFAULT_TIMEOUT, Draft, Publisher, PublishManyError, Via
from .schemas import SchemaRegistry
from .signals import PublishConfirmed, PublishFailed, Signals
from .transports.base import Transport

_Address = tuple[str | None, str | None]  # channel and instance


def publisher_for(
    transport: Transport, registry: SchemaRegistry, name: str, signals: Signals
) -> Publisher:
    """The publisher of a bus: the plain one where nothing listens to publishes."""
    if any(signals.hears(kind) for kind in (PublishConfirmed, PublishFailed)):
        return SignallingPublisher(transport, registry, name, signals)
    return Publisher(transport, registry, name)


class SignallingPublisher(Publisher):
    """Publishes, and emits PublishConfirmed or PublishFailed for each event."""

    def __init__(
        self, transport: Transport, registry: SchemaRegistry, name: str, signals: Signals
    ) -> None:
        super().__init__(transport, registry, name)
        self._confirmed = signals.emitter(PublishConfirmed)
        self._refused = signals.emitter(PublishFailed)

    async def publish(
        self, draft: Draft, *, timeout: float = DEFAULT_TIMEOUT, via: Via | None = None
    ) -> Published:
        """Publish one event; see Publisher."""
        began = perf_counter()
        try:
            published = await super().publish(draft, timeout=timeout, via=via)
        except OmniWorkerError as error:
            self._emit(draft.type, draft.id, error, seconds=perf_counter() - began)
            raise
        seconds, to = perf_counter() - began, (draft.channel, draft.instance)
        due = draft.timestamp
        self._emit(draft.type, draft.id, published, to=to, seconds=seconds, due=due)
        return published

    def note(self, draft: Draft, result: Published | Exception) -> None:
        """Emit what became of an event that was composed."""
        self._emit(draft.type, draft.id, result, to=(draft.channel, draft.instance))

    async def publish_many(
        self, drafts: Iterable[Draft], *, timeout: float = DEFAULT_TIMEOUT
    ) -> Sequence[Published]:
        """Publish many; see Publisher. What was never sent is no failure of its own."""
        sent: list[tuple[str, str | None, _Address]] = []

        def noted() -> Iterator[Draft]:
            for draft in drafts:
                sent.append((draft.type, draft.id, (draft.channel, draft.instance)))
                yield draft

        if isinstance(drafts, Collection):
            sent.extend((one.type, one.id, (one.channel, one.instance)) for one in drafts)
        try:
            published = await super().publish_many(
                drafts if isinstance(drafts, Collection) else noted(), timeout=timeout
            )
        except PublishManyError as error:
            for index, ((type, id, to), one) in enumerate(zip(sent, error.published, strict=False)):
                self._emit(type, id, error.errors.get(index, error) if one is None else one, to=to)
            raise
        for (type, id, to), one in zip(sent, published, strict=True):
            self._emit(type, id, one, to=to)
        return published

    async def publish_letter(
        self,
        id: str,
        payload: Mapping[str, Any],
        metadata: Mapping[str, Any],
        trace_headers: Mapping[str, str] | None = None,
    ) -> Published:
        """Publish a dead letter; see Publisher."""
        try:
            published = await super().publish_letter(id, payload, metadata, trace_headers)
        except OmniWorkerError as error:
            self._emit(DEAD_LETTER, id, error, is_letter=True)
            raise
        self._emit(DEAD_LETTER, id, published, is_letter=True)
        return published

    def _emit(
        self,
        type: str,
        id: str | None,
        result: Published | Exception,
        *,
        is_letter: bool = False,
        to: _Address = (None, None),
        seconds: float | None = None,
        due: int | None = None,
    ) -> None:
        if isinstance(result, Exception):
            if self._refused is not None:
                self._refused(
                    PublishFailed(
                        type=type, id=id, error=result, is_letter=is_letter, seconds=seconds
                    )
                )
        elif self._confirmed is not None:
            self._confirmed(
                PublishConfirmed(
                    type=type,
                    id=result.id,
                    stream=result.stream,
                    sequence=result.sequence,
                    duplicate=result.duplicate,
                    is_letter=is_letter,
                    channel=to[0],
                    instance=to[1],
                    seconds=seconds,
                    due=due,
                )
            )
