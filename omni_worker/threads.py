"""Threads: plain `def` handlers run in daemon threads, so a stuck one never holds the process.

The standard library's pool joins its threads at exit and would wait for ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

Job = tuple[contextvars.Context, Callable[[], Any], "asyncio.Future[Any]"]


class DaemonThreads:
    """At most ``size`` threads, started when needed."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0  # jobs not finished yet
        self._lock = threading.Lock()

    def grow(self, size: int) -> None:
        """Allow ``size`` threads; fewer than before changes nothing, for none can be ended."""
        self._size = max(self._size, size)

    async def run(self, call: Callable[[], Any]) -> Any:
        """Run ``call`` in a thread, with this task's context variables; returns its result.

        Cancelling the wait does not stop the thread; nothing can.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._lock:
            self._busy += 1
            start = self._busy > self._threads and self._threads < self._size
            self._threads += start
        if start:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._jobs.put((contextvars.copy_context(), call, future))
        return await future

    def close(self) -> None:
        """Idle threads end; a busy one ends after its job."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            context, call, future = job
            if future.cancelled():  # the waiter is gone: it must not begin now
                with self._lock:
                    self._busy -= 1
                continue
            try:
                result, error = context.run(call), None
            except BaseException as raised:  # SystemExit of a handler is its failure, not ours
                result, error = None, raised
            with self._lock:
                self._busy -= 1
            try:
                future.get_loop().call_soon_threadsafe(_finish, future, result, error)
            except RuntimeError:  # the loop is gone, and so is the waiter
                return


def _finish(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, (StopIteration, GeneratorExit)):
        # A future refuses the one, and the other, thrown into the coroutine that awaits it,
        # would close that instead of raising in it.
        future.set_exception(RuntimeError(f"the handler raised {type(error).__name__}"))
    else:
        future.set_exception(error)
