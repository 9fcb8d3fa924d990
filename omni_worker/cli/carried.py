"""Carried: what `pause`, `resume` and `scale` share: they give an order and say what it did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..settings import Settings
from ..steering.controls import Carried, Controls, this_person
from ..transports.base import Transport
from . import say
from .session import run_operation
from .tables import wrapped


def carry_out(
    app: str | None,
    order: Callable[[Controls], Awaitable[Carried]],
    did: Callable[[Carried], str],
    *,
    is_heard: Callable[[Carried], object],
) -> int:
    """Give an order; say what it ``did`` to the handler and, where that matters, who heard it."""

    async def work(transport: Transport, settings: Settings) -> int:
        done = await order(Controls(transport, app, this_person))
        say(wrapped(f"{done.target.shown} of {done.target.app} {did(done)}."))
        if is_heard(done):
            say(wrapped(_heard(done.heard)))
        return 0

    return run_operation(work)


def _heard(count: int) -> str:
    if not count:
        return "No process answered: one that runs notices within ten seconds."
    return f"Noticed by {count} process{'es' if count > 1 else ''}."
