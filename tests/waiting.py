"""Waiting for a condition, never for a while; a wait in vain reports the last thing seen."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

PATIENCE = 15.0  # seconds; below the ack_wait of 30 that an event of a lost worker takes to return
_SHORTEST, _LONGEST = 0.002, 0.02  # seconds between two looks


class NotInTime(AssertionError):
    """A condition did not come true before its deadline."""


async def until(
    condition: Callable[[], object | Awaitable[object]],
    timeout: float = PATIENCE,
    *,
    what: str = "",
    seen: Callable[[], object] | None = None,
) -> None:
    """Wait until a condition holds; it may be a coroutine function. Raises NotInTime.

    The message says `what` was waited for (default: the condition's source) and what was `seen`
    last (default: the condition's last answer).
    """
    begun = time.monotonic()
    answer: object = "no answer"
    try:
        async with asyncio.timeout(timeout) as limit:
            while True:
                answer = condition()
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer:
                    return
                await asyncio.sleep(_pause(begun))
    except TimeoutError as error:
        if not limit.expired():  # the condition's own
            raise
        raise NotInTime(_message(condition, timeout, what, answer, seen)) from error


def wait_until(
    condition: Callable[[], object],
    timeout: float = PATIENCE,
    *,
    what: str = "",
    seen: Callable[[], object] | None = None,
) -> None:
    """Wait like `until` in a test without an event loop."""
    begun = time.monotonic()
    while not (answer := condition()):
        if time.monotonic() - begun > timeout:
            raise NotInTime(_message(condition, timeout, what, answer, seen))
        time.sleep(_pause(begun))


def _pause(begun: float) -> float:
    """Look often at first and less often later: a look costs a loaded machine."""
    return min(_LONGEST, max(_SHORTEST, (time.monotonic() - begun) / 20))


def _message(
    condition: Callable[[], object],
    timeout: float,
    what: str,
    answer: object,
    seen: Callable[[], object] | None,
) -> str:
    last = seen() if seen else repr(answer)
    return f"not within {timeout:g} s: {what or _source(condition)}\nlast seen: {last}"


def _source(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):  # a bound C function, or code without a file
        return repr(condition)
