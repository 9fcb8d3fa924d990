"""Handlers: the model everybody validates, and the functions everybody runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from omni_worker import Event

from ..jobs import Job
from .measure import Count


class Content(BaseModel):
    """Part of Received."""

    type: str
    text: str | None = None


class Received(BaseModel):
    """The payload everybody validates."""

    externalId: str
    chatId: str
    content: Content


# The same model for every system, envelope and payload.
MODEL = Event[Received]


def burn(seconds: float) -> None:
    """Use CPU: this thread's, so that a machine with other work on it burns no less."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def handler_for(job: Job, count: Count) -> Callable[..., Any]:
    """The handler a job asks for: every system runs the same one."""
    seconds = job.seconds

    async def counting(event: Event[Received]) -> None:
        count.up()

    async def waiting(event: Event[Received]) -> None:
        await asyncio.sleep(seconds)
        count.up()

    async def burning(event: Event[Received]) -> None:
        burn(seconds)
        count.up()

    def plain(event: Event[Received]) -> None:
        count.up_in_thread()

    return {"count": counting, "wait": waiting, "burn": burning, "plain": plain}[job.handler]
