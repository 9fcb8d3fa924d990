"""Memory: what runs of events have sent by this process, so that a second run sends nothing twice.

Omni's API knows no idempotency key, and another process knows nothing of this memory: an event
whose process is killed after a message was sent is answered again by the next one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

from ..context import Context
from ..errors import InvalidPayload
from ..wire import encode_payload

KEPT = 10_000  # messages that are remembered
LAST_ANSWERS = 2.0  # seconds for what is still on its way at the end
_LOCAL = "omni_worker.omni"  # in ctx.local


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that Omni took; an id that its answer did not name is None.

    ``repeated`` is True if an earlier run of the event had sent it.
    """

    message_id: str | None = None
    external_message_id: str | None = None
    status: str | None = None
    repeated: bool = False


class Memory:
    """Remembers the last messages; what is on its way goes on though its run is cancelled."""

    def __init__(self) -> None:
        self._sent: OrderedDict[bytes, Sent] = OrderedDict()
        self._on_the_way: dict[bytes, asyncio.Task[Sent]] = {}

    async def once(self, key: bytes, send: Callable[[], Coroutine[Any, Any, Sent]]) -> Sent:
        """Send, unless that was done under this key. Two at once are one."""
        known = self._sent.get(key)
        if known is not None:
            self._sent.move_to_end(key)
            return replace(known, repeated=True)
        task = self._on_the_way.get(key)
        joined = task is not None
        if task is None:
            # A handler that runs into its timeout must not leave it unknown what became of it.
            task = asyncio.create_task(send(), name="a message for Omni")
            self._on_the_way[key] = task
            task.add_done_callback(partial(self._ended, key))
        sent = await asyncio.shield(task)
        return replace(sent, repeated=True) if joined else sent

    async def close(self) -> None:
        """Wait a moment for what is on its way, then cancel it."""
        if tasks := list(self._on_the_way.values()):
            _, late = await asyncio.wait(tasks, timeout=LAST_ANSWERS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _ended(self, key: bytes, task: asyncio.Task[Sent]) -> None:
        del self._on_the_way[key]
        if task.cancelled() or task.exception() is not None:
            return  # not sent as far as is known: the next run tries it again
        self._sent[key] = task.result()
        if len(self._sent) > KEPT:
            self._sent.popitem(last=False)


def key_of(context: Context[Any], content: str, once: str | None) -> bytes:
    """Return the key of a message: its event and handler, what is sent, the how-manieth of these.

    Messages of a run that differ are never taken for one another; ``once`` names a step of the
    handler, for texts that differ from run to run.
    """
    local = context.local.setdefault(_LOCAL, {})
    if (run := local.get("run")) is None:
        event = context.event
        with suppress(InvalidPayload):
            content_of_event = encode_payload(event.type, event.payload)
            run = sha256(content_of_event).hexdigest()
        # The payload as well: a foreign program may give one id to several events.
        run = local["run"] = f"{event.id}\n{event.type}\n{run}\n{context.handler}"
    if once is not None:
        name = f"step\n{once}"
    else:
        same = sha256(content.encode(errors="surrogatepass")).hexdigest()
        local[same] = nth = local.get(same, 0) + 1
        name = f"message\n{same}\n{nth}"
    return sha256(f"{run}\n{name}".encode(errors="surrogatepass")).digest()
