"""Main loop: run a worker's coroutine to its end, and let nothing keep the process after it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

LAST_WAIT = 1.0  # seconds for cancelled tasks to end


def run_loop(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run ``main`` on an event loop, uvloop where it exists. Return its exit code."""
    # Before the loop runs: on a slow machine this import would block it until the watchdog warns.
    from ..transports import jetstream  # noqa: F401

    factory = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_to_its_end(main))


async def _to_its_end(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run ``main``; then exit even if a handler swallows its cancellation: a loop waits for it."""
    code = await main()
    if hasattr(signal, "pthread_sigmask"):
        # The signal handlers go with the loop: a late second signal would end us with its own code.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left and (await asyncio.wait(left, timeout=LAST_WAIT))[1]:
        _exit_now(code)
    return code


def leave(code: int) -> None:
    """Exit now if a handler's thread is stuck: it must not keep the process after its grace."""
    others = [one for one in threading.enumerate() if one is not threading.main_thread()]
    if any(not one.daemon for one in others):
        _exit_now(code)


def _exit_now(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
