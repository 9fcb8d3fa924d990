"""Last resort: ends a process that was asked to stop while something blocks its event loop.

A blocked loop hears no signal. So the bytes which the interpreter writes for each signal come here
first, to a thread that passes them on to the loop and counts them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress

from ..tasks import own
from .exit_codes import INTERRUPTED

log = logging.getLogger("omni_worker.worker")

LATE = 5.0  # seconds after the grace in which a loop that turns has ended
PROBE = 1.0  # seconds a loop gets to show that it turns


class LastResort:
    """Thread that ends the process at ``grace`` + 5 s, or at a second signal, if the loop cannot.

    While the loop turns it only passes signals on: stopping in good order is the loop's business.
    """

    def __init__(
        self,
        signals: Collection[signal.Signals],
        *,
        grace: float,
        same_signal: float,
        blocked: Callable[[], str | None],
    ) -> None:
        self._signals = frozenset(int(one) for one in signals)
        self._grace = grace
        self._same_signal = same_signal  # seconds in which signals are one request
        self._blocked = blocked
        self._first_at: float | None = None
        self._due: float | None = None
        self._loops_own = -1  # the descriptor that the loop reads signals from

    def open(self) -> None:
        """Begin to hear signals; in the main thread, on the loop, once it hears them itself."""
        self._loop = asyncio.get_running_loop()
        self._ours, self._written = socket.socketpair()
        self._written.setblocking(False)
        self._loops_own = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._hear, name=own("last resort"), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the loop hear signals by itself again."""
        signal.set_wakeup_fd(self._loops_own)
        self._written.close()  # the thread reads the end
        self._thread.join(PROBE * 2)
        self._ours.close()

    def _hear(self) -> None:
        while True:
            try:
                numbers = self._ours.recv(4_096)
            except TimeoutError:
                self._end_if_blocked()
            else:
                if not numbers:
                    return
                self._pass_on(numbers)
                self._count(numbers)
            left = None if self._due is None else max(0.001, self._due - time.monotonic())
            self._ours.settimeout(left)

    def _pass_on(self, numbers: bytes) -> None:
        if self._loops_own != -1:
            with suppress(OSError):  # full: as many signals are on their way already
                os.write(self._loops_own, numbers)

    def _count(self, numbers: bytes) -> None:
        if self._signals.isdisjoint(numbers):
            return
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
            self._due = now + self._grace + LATE
        elif now - self._first_at > self._same_signal:
            self._due = now

    def _end_if_blocked(self) -> None:
        turned = threading.Event()
        try:
            self._loop.call_soon_threadsafe(turned.set)
        except RuntimeError:  # it is closed: the process ends by itself
            self._due = None
            return
        if turned.wait(PROBE):
            self._due = time.monotonic() + LATE
            return
        why = self._blocked() or "the event loop is blocked"
        log.error("ended at once, what it held runs again elsewhere: %s", why)
        logging.shutdown()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(INTERRUPTED)
