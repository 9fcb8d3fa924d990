"""Publishing by a bus: now, many, or later; inside a handler as part of its run."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, NoReturn

from ..context import Context
from ..current import run_of
from ..errors import ConfigError
from ..events import Published
from ..publisher import DEFAULT_TIMEOUT, Draft, EventFields, Publisher, draft_of
from ..schedules.atomic import Cause
from ..schedules.due import When
from ..schedules.keeper import Schedules
from ..schedules.messages import Scheduled
from ..schedules.outbox import Outbox
from ..schedules.publishing import Publishing


class BusPublishing(Publishing):
    """Publishes while connected."""

    publisher: Publisher
    schedules: Schedules

    def publish_many(
        self, drafts: Iterable[Draft], *, timeout: float = DEFAULT_TIMEOUT
    ) -> Coroutine[Any, Any, Sequence[Published]]:
        """Publish many, pipelined, in this order, every confirmation awaited.

        A list is checked whole before the first is sent. A generator is read while there is room,
        so that a million take no memory; it is not read on after a draft that is refused, or one
        whose time ran out. ``timeout``: seconds for each, from when it is sent. Raises
        PublishManyError when some were not confirmed. In a handler ``ctx.publish_many``.
        """
        if (run := run_of(self.publisher)) is not None:
            return run.publish_many(drafts, timeout=timeout)
        return self._publish_many(drafts, timeout)

    def cancel(self, scheduled: Scheduled | str) -> Coroutine[Any, Any, bool]:
        """Cancel an event published with ``after`` or ``at``; True if it was in time."""
        if (run := run_of(self.publisher)) is not None:
            return run.cancel(scheduled)
        self._check_connected()
        return self.schedules.cancel(scheduled, cause=None)

    async def _publish_many(self, drafts: Iterable[Draft], timeout: float) -> Sequence[Published]:
        self._check_connected()
        return await self.publisher.publish_many(drafts, timeout=timeout)

    def _publish(
        self, type: str, payload: Any, timeout: float, fields: EventFields
    ) -> Coroutine[Any, Any, Published]:
        if (run := run_of(self.publisher)) is not None:
            return run._publish(type, payload, timeout, fields)
        return self._publish_one(type, payload, timeout, fields)

    async def _publish_one(
        self, type: str, payload: Any, timeout: float, fields: EventFields
    ) -> Published:
        self._check_connected()
        return await self.publisher.publish(draft_of(type, payload, fields), timeout=timeout)

    def _schedule(
        self, type: str, payload: Any, timeout: float, fields: EventFields, when: When
    ) -> Coroutine[Any, Any, Scheduled]:
        if (run := run_of(self.publisher)) is not None:
            return run._schedule(type, payload, timeout, fields, when)
        return self._schedule_one(type, payload, timeout, fields, when)

    async def _schedule_one(
        self, type: str, payload: Any, timeout: float, fields: EventFields, when: When
    ) -> Scheduled:
        self._check_connected()
        draft = draft_of(type, payload, fields)
        return await self.schedules.publish(draft, when, cause=None, timeout=timeout)

    def _for_atomic(self) -> tuple[Publisher, Outbox, Cause | None]:
        if (run := run_of(self.publisher)) is not None:
            return run._for_atomic()
        self._check_connected()
        return self.publisher, self.schedules.outbox, None

    def _check_connected(self) -> None:
        raise NotImplementedError


class PublishingElsewhere(Publishing):
    """Publishes by the run of a handler, or by a bus."""

    def cancel(self, scheduled: Scheduled | str) -> Coroutine[Any, Any, bool]:
        """Cancel an event published with ``after`` or ``at``; True if it was in time."""
        return self._by().cancel(scheduled)

    def _publish(
        self, type: str, payload: Any, timeout: float, fields: EventFields
    ) -> Coroutine[Any, Any, Published]:
        return self._by()._publish(type, payload, timeout, fields)

    def _schedule(
        self, type: str, payload: Any, timeout: float, fields: EventFields, when: When
    ) -> Coroutine[Any, Any, Scheduled]:
        return self._by()._schedule(type, payload, timeout, fields, when)

    def _for_atomic(self) -> tuple[Publisher, Outbox, Cause | None]:
        return self._by()._for_atomic()

    def publish_many(
        self, drafts: Iterable[Draft], *, timeout: float = DEFAULT_TIMEOUT
    ) -> Coroutine[Any, Any, Sequence[Published]]:
        """Publish many, pipelined; inside a handler this is ``ctx.publish_many``."""
        return self._by().publish_many(drafts, timeout=timeout)

    async def __aenter__(self) -> NoReturn:
        """Raise ConfigError: it is a habit from other frameworks, and has two meanings here."""
        raise ConfigError(
            "an App is no context manager: `async with app.running()` runs its handlers;"
            " to publish only, `async with app.running(start=False)`, or, in a script without"
            " an app, `async with EventBus() as bus`"
        )

    async def __aexit__(self, *raised: object) -> None:
        """Do nothing: `async with` asks for it before it calls ``__aenter__``."""

    def _by(self) -> Context | BusPublishing:
        raise NotImplementedError
