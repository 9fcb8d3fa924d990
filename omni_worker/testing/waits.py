"""Waits: find out what a task waits for. A socket or a thread needs real time, a sleep or a lock
of this loop does not.
"""

from __future__ import annotations

import asyncio
import os
import threading
from types import CodeType, FrameType
from typing import Any

from ..tasks import is_own

# A task that waits in here is woken by this loop: by a timer, or by another task of it.
_OF_THE_LOOP = ("asyncio.locks", "asyncio.queues", "asyncio.tasks", "asyncio.taskgroups")
_OF_A_THREAD = ("asyncio.threads", "omni_worker.threads")
_OURS = "omni_worker"


def outside_is_possible(loop: Any) -> bool:
    """Tell whether another thread or a socket could wake the loop, not only its own timers."""
    return threading.active_count() > 1 or _sockets(loop)


def waits_outside(task: asyncio.Task[Any], loop: Any) -> bool:
    """Tell whether a task waits for a thread or a socket. In doubt: yes, if there is any."""
    future = waited_for(task)
    if future is None or isinstance(future, asyncio.Task) or hasattr(future, "_children"):
        return False  # it is about to run, or waits for tasks, which are looked at themselves
    module = _module(_innermost(task))
    if module in _OF_A_THREAD:
        return True
    if module in _OF_THE_LOOP or is_timed(future, loop) or module.partition(".")[0] == _OURS:
        return False
    return _sockets(loop) or any(_may_wake_us(one) for one in threading.enumerate())


def waited_for(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """The future a task is suspended on."""
    future: asyncio.Future[Any] | None = getattr(task, "_fut_waiter", None)
    return future


def is_timed(future: asyncio.Future[Any], loop: Any) -> bool:
    """Tell whether a timer ends this wait: a sleep, or a wait with a timeout."""
    return any(
        any(one is future for one in (*handle._args, getattr(handle._callback, "__self__", None)))
        for handle in loop._scheduled
        if not handle.cancelled()
    )


def place(task: asyncio.Task[Any]) -> str:
    """Place of a task in the user's own code: `myapp.py:12 in route`."""
    frames = [frame for frame in _frames(task) if _is_users(frame.f_code)]
    if not frames:
        return ""
    code = frames[-1].f_code
    return f"{_short(code.co_filename)}:{frames[-1].f_lineno} in {code.co_name}"


def _sockets(loop: Any) -> bool:
    """Tell whether the loop waits on sockets other than its own."""
    try:
        watched = loop._selector.get_map()
    except AttributeError:  # Windows: it cannot be seen
        return False
    return watched is not None and len(watched) > 1  # the one is the loop's own wake-up


def _may_wake_us(thread: threading.Thread) -> bool:
    # Ours are looked at by the tasks that wait for them.
    return thread is not threading.current_thread() and not is_own(thread.name)


def _frames(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames of a suspended task, the outermost first."""
    frames = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        for frame, awaited in (
            ("cr_frame", "cr_await"),
            ("gi_frame", "gi_yieldfrom"),
            ("ag_frame", "ag_await"),
        ):
            if hasattr(waiting, frame):
                if getattr(waiting, frame) is not None:
                    frames.append(getattr(waiting, frame))
                waiting = getattr(waiting, awaited)
                break
        else:
            break
    return frames


def _innermost(task: asyncio.Task[Any]) -> FrameType | None:
    frames = _frames(task)
    return frames[-1] if frames else None


def _module(frame: FrameType | None) -> str:
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _is_users(code: CodeType) -> bool:
    folder = os.path.dirname(code.co_filename)
    return folder != os.path.dirname(asyncio.__file__) and not folder.startswith(_PACKAGE)


def _short(path: str) -> str:
    relative = os.path.relpath(path) if os.path.isabs(path) else path
    return path if relative.startswith("..") else relative


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
