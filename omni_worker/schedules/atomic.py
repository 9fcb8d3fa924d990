"""Atomic: the block within which events are collected, to be published all or none."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, Unpack

from ..errors import ConfigError, OmniWorkerError
from ..events import Published
from ..publisher import DEFAULT_TIMEOUT, Draft, EventFields, Publisher, check_timeout, draft_of
from ..topology import OWN_STREAM
from ..transports.atomic import MOST
from ..transports.base import Message, Stored
from .outbox import Outbox

# Makes a draft an event of the handler's run.
Cause = Callable[[Draft], object]


@dataclass(frozen=True, slots=True)
class Committed:
    """Ids of the events that a block committed, in order.

    ``applied`` is False if the same events were committed before, as by the handler's first run.
    """

    ids: tuple[str, ...]
    applied: bool = True


class Atomic:
    """Several events that are published all, or none.

    ``async with app.atomic() as tx: await tx.publish(…)``. Nothing is sent before the end of the
    block; an exception that leaves it discards all. ``committed`` is None until then.
    """

    def __init__(
        self, begin: Callable[[], tuple[Publisher, Outbox, Cause | None]], timeout: float
    ) -> None:
        if timeout is not DEFAULT_TIMEOUT:
            check_timeout(timeout)
        self._begin = begin
        self._timeout = timeout
        self._parts: tuple[Publisher, Outbox, Cause | None] | None = None
        self._events: list[tuple[Draft, Message]] = []
        self._calls = 0  # of publish; each adds an event, or raises
        self._ended_calls = 0
        self._is_over = False
        self.committed: Committed | None = None

    async def __aenter__(self) -> Self:
        """Prepare the server at the first use. Raises TransportError for a server that is older."""
        if self._parts is not None:
            raise ConfigError("atomic(): a block is entered once; call atomic() again")
        parts = self._begin()
        await parts[1].prepare()
        self._parts = parts
        return self

    def publish(
        self, type: str, payload: Any = None, **fields: Unpack[EventFields]
    ) -> Coroutine[Any, Any, str]:
        """Add an event, which is checked now and published after the block; returns its id.

        Takes what any ``publish`` takes, without ``after``, ``at``, ``key`` and ``timeout``. Raises
        InvalidEvent, or NoStream where no stream would store it.
        """
        self._calls += 1
        return self._publish(type, payload, fields)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit, unless the block failed. Raises PublishError if that may or may not be done."""
        self._is_over = True
        if kind is not None:
            return
        if self._calls > self._ended_calls:
            raise ConfigError(
                "tx.publish(…) was called and has not ended, so nothing is committed: write"
                " await tx.publish(…)"
            )
        if not self._events:
            return
        publisher, outbox, _ = self._opened()
        try:
            applied = await outbox.commit([event for _, event in self._events], self._timeout)
        except OmniWorkerError as problem:
            for draft, _ in self._events:
                publisher.note(draft, problem)
            raise
        self.committed = Committed(tuple(event.id for _, event in self._events), applied)
        for draft, event in self._events:
            publisher.note(draft, Published(event.id, OWN_STREAM.name, 0, not applied))

    # --- inside ----------------------------------------------------------------------------

    async def _publish(self, type: str, payload: Any, fields: EventFields) -> str:
        try:
            publisher, outbox, cause = self._opened()
            if self._is_over:
                raise ConfigError("tx.publish(…): its block is over; open another one")
            if later := [name for name in ("after", "at", "key", "timeout") if name in fields]:
                raise ConfigError(
                    f"tx.publish({later[0]}=…): the events of a block are published when it ends;"
                    " publish this one outside of it"
                )
            if len(self._events) == MOST:
                raise ConfigError(
                    f"tx.publish(…): the server takes {MOST} events in one block; use several"
                )
            draft = draft_of(type, payload, fields)
            if cause is not None:
                cause(draft)

            async def keep(message: Message, timeout: float) -> Stored:
                await outbox.check(message)
                self._events.append((draft, message))
                return Stored(OWN_STREAM.name, 0, False)

            return (await publisher.compose(draft, keep)).id
        finally:
            self._ended_calls += 1

    def _opened(self) -> tuple[Publisher, Outbox, Cause | None]:
        if self._parts is None:
            raise ConfigError("atomic(): write async with app.atomic() as tx")
        return self._parts
