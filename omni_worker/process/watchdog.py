"""Watchdog: a thread that sees whether the event loop turns, and says who blocks it."""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from ..tasks import own, shown

log = logging.getLogger("omni_worker.worker")

BEAT = 0.25  # seconds between two signs of life of the loop
LOOK = 0.25  # seconds between two looks of the thread
BLOCKED = 1.0  # seconds without a turn that are worth a line

_LIBRARIES = tuple(
    str(Path(sysconfig.get_path(name))) for name in ("stdlib", "purelib", "platlib")
)  # fmt: skip
_OURS = str(Path(__file__).parents[1])


class Watchdog:
    """Started and stopped on the loop it watches; ``blocked`` may be asked from any thread.

    ``on_beat`` runs on the loop at every beat, ``on_look`` in the thread at every look, whether
    the loop turns or not.
    """

    def __init__(
        self, on_beat: Callable[[], None] | None = None, on_look: Callable[[], None] | None = None
    ) -> None:
        self._on_beat = on_beat
        self._on_look = on_look
        self._due = float("inf")  # when the loop is late
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._looped_in = 0  # the thread the loop runs in
        self._over = threading.Event()
        self._said: tuple[float, str] | None = None  # since when, and by whom

    def start(self) -> None:
        """Watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._looped_in = threading.get_ident()
        self._beat()
        self._thread = threading.Thread(target=self._watch, name=own("watchdog"), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()
        self._due = float("inf")
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join(LOOK * 5)

    @property
    def blocked(self) -> str | None:
        """Since when and by whom the loop is blocked, None while it turns."""
        late = time.monotonic() - self._due
        if late < BLOCKED:
            return None
        culprit = self._said[1] if self._said is not None else self._culprit()
        return f"the event loop is blocked for {late:.1f} s by {culprit}"

    def _beat(self) -> None:
        assert self._loop is not None
        if self._on_beat is not None:
            self._on_beat()
        self._due = time.monotonic() + BEAT
        self._timer = self._loop.call_later(BEAT, self._beat)

    def _watch(self) -> None:
        looked, busy = time.monotonic(), time.process_time()
        while not self._over.wait(LOOK):
            now, used = time.monotonic(), time.process_time()
            stopped = was_stopped(now - looked, used - busy)
            looked, busy = now, used
            if not stopped:
                self._look(now)
            if self._on_look is not None:
                self._on_look()

    def _look(self, now: float) -> None:
        late = now - self._due
        if self._said is None and late >= BLOCKED:
            self._said = (self._due, self._culprit())
            log.warning("the event loop is blocked by %s; nothing else can run", self._said[1])
        elif self._said is not None and late < 0:
            log.warning("the event loop turns again after %.1f s", now - self._said[0])
            self._said = None

    def _culprit(self) -> str:
        """Name the blocking task, as `handler r1 (play.py:12 in route)`, as far as visible."""
        task = asyncio.current_task(self._loop) if self._loop is not None else None
        name = "a callback" if task is None else shown(task.get_name())
        frame = _user_frame(sys._current_frames().get(self._looped_in))
        if frame is None:
            return name
        file = Path(frame.f_code.co_filename).name
        return f"{name} ({file}:{frame.f_lineno} in {frame.f_code.co_name})"


def was_stopped(gap: float, worked: float) -> bool:
    """Tell whether the whole process was stopped in a ``gap`` between two looks: no fault of ours.

    Code that never lets go of the interpreter holds the watchdog up as well, but it works.
    """
    return gap > BLOCKED and worked < gap / 2


def _user_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the user's own code, else of any."""
    innermost = frame
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((*_LIBRARIES, _OURS, "<frozen")):
            return frame
        frame = frame.f_back
    return innermost
