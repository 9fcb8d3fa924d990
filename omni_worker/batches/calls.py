"""Calls: a batch handler's function is called, within its time, on the loop or in a thread.

They are what a batch counts as run: its events while the call runs, and the time of the call.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from time import time
from typing import Any

from ..dispatch import TimedOut
from ..handlers import Handler
from ..signals import Signals, ThreadStuck
from ..subscription.run_times import RunTimes
from ..threads import DaemonThreads
from .batch import Batch, runs_of


class Calls:
    """Calls of one handler's function. ``running`` is the number of events they run for."""

    def __init__(
        self,
        handler: Handler,
        threads: DaemonThreads | None,
        signals: Signals,
        times: RunTimes | None,
    ) -> None:
        self._handler = handler
        self._threads = threads
        self._signals = signals
        self._times = times
        self.running = 0

    async def call(self, batch: Batch[Any], stored_at: Sequence[int]) -> BaseException | None:
        """Call the handler, in a span where a tracer is registered; return what it raised.

        ``stored_at`` is when those events were stored that it is the first run of.
        """
        began, is_done = time(), False
        self.running += len(batch)
        try:
            error = await self._call_in_span(batch)
            is_done = error is None
            return error
        finally:
            self.running -= len(batch)
            if self._times is not None:
                self._times.note_call(began, stored_at, is_done)

    async def _call_in_span(self, batch: Batch[Any]) -> BaseException | None:
        spans = self._signals.batch_spans
        span = None if spans is None else spans.begin(self._handler, runs_of(batch))
        if span is None:
            return await self._call(batch)
        try:
            error = await self._call(batch)
        except BaseException as cancelled:
            span.ended(cancelled)
            raise
        span.ended(error)
        return error

    async def _call(self, batch: Batch[Any]) -> BaseException | None:
        timeout, task = self._handler.options.timeout, asyncio.current_task()
        try:
            if self._threads is not None:
                await self._in_thread(self._threads, batch, timeout)
                return None
            async with asyncio.timeout(timeout) as limit:
                await self._handler.call(batch)
        except BaseException as error:
            # Of its own accord a handler may raise a cancellation, which is a failure.
            if task is None or task.cancelling():
                raise
            if isinstance(error, TimeoutError) and self._threads is None and limit.expired():
                text = f"the handler ran longer than timeout={timeout:g} s"
                return TimedOut(text).with_traceback(error.__traceback__)
            return error
        return None

    async def _in_thread(
        self, threads: DaemonThreads, batch: Batch[Any], timeout: float | None
    ) -> None:
        """Call a plain def handler. A thread cannot be stopped: that it takes long is reported."""
        call, timer = self._handler.call, None
        if timeout is not None:
            delivery = batch.context(batch.events[0])._delivery
            stuck = ThreadStuck(handler=self._handler, delivery=delivery, timeout=timeout)
            timer = asyncio.get_running_loop().call_later(timeout, self._signals.emit, stuck)
        try:
            result = await threads.run(lambda: call(batch))
            if inspect.isawaitable(result):  # a callable that only hands out coroutines
                await result
        finally:
            if timer is not None:
                timer.cancel()
