"""What many events keep in memory: counted by the allocator, the same on every machine."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

from omni_worker import Draft, EventBus
from omni_worker.nats_server import NatsServer

EVENTS = 20_000


def drafts(count: int) -> Iterator[Draft]:
    """Make drafts when there is room for them."""
    for number in range(count):
        yield Draft(
            type="custom.message.received",
            payload={"chatId": f"chat-{number}"},
            channel="whatsapp",
            instance=f"wa-{number % 50}",
        )


async def test_a_confirmation_of_publish_many_takes_few_bytes(nats_server: NatsServer) -> None:
    async with EventBus(nats_server.url, name="costs") as bus:
        await bus.publish_many(drafts(4_000))  # a window of them has been on its way before
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            published = await bus.publish_many(drafts(EVENTS))
            gc.collect()
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    kept = (after - before) / EVENTS
    # A random id of 36 characters, its line end, 9 bytes of where it is stored. A list of objects
    # takes 200.
    assert kept <= 60, f"{kept:.0f} bytes of each event are kept"
    # In addition to what is kept: a window of 2 048 events on their way, some 2 KB each.
    assert peak - after <= 8 * 1024 * 1024, f"{(peak - after) / 1024:.0f} KB at once"
    assert len(published) == EVENTS
    assert len({one.id for one in published}) == EVENTS
