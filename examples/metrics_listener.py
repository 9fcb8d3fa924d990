"""Metrics: one listener counts how every event ended, in every handler, included apps as well.

Run it with `python -m examples.metrics_listener`; it needs no server.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

from omni_worker import App, Event, Reject, signals
from omni_worker.outcomes import Done
from omni_worker.testing import TestWorker

ENDINGS: dict[type[signals.Signal], str] = {
    signals.RunFinished: "handled",
    signals.Retried: "retried",
    signals.DeadLettered: "dead-lettered",
    signals.Skipped: "skipped",
    signals.HandedBack: "handed back",
    signals.Recognised: "recognised",
    signals.PublishConfirmed: "published",
}


class Metrics:
    """Counts events by their ending and their handler; published ones by their type."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def __call__(self, signal: signals.Signal) -> None:
        match signal:  # on the event loop: count, and leave
            case signals.RunFinished(handler=handler):
                self.seconds[handler.short] += signal.seconds
                if isinstance(signal.outcome, Done):
                    self.counts["handled", handler.short] += 1
            case signals.HandlerSignal(handler=handler):
                self.counts[ENDINGS[type(signal)], handler.short] += 1
            case signals.PublishConfirmed(type=event_type):
                self.counts["published", event_type] += 1


# --- an app to count --------------------------------------------------------------------------

metrics = Metrics()
mail = App("mail")
app = App("shop")
app.listen(metrics, *ENDINGS)


@mail.on("custom.mail.queued", durable="mailer")
async def send(event: Event[dict[str, str]]) -> None:
    if "@" not in event.payload["to"]:
        raise Reject("no address")


@app.on("custom.order.placed", durable="orders")
async def place(event: Event[dict[str, str]]) -> None:
    await app.publish("custom.mail.queued", {"to": event.payload["customer"]})


app.include(mail)


async def main() -> None:
    orders: list[dict[str, Any]] = [{"customer": "ana@example.org"}, {"customer": "bo"}, {}]
    async with TestWorker(app) as t:
        for order in orders:
            await t.publish("custom.order.placed", order)
        await t.settle()
    for (ending, name), count in sorted(metrics.counts.items()):
        print(f"{count} {ending}: {name}")


if __name__ == "__main__":
    asyncio.run(main())

# Output for three orders, of which one has no address and one no customer:
#
# 1 dead-lettered: place
# 1 dead-lettered: send
# 2 handled: place
# 1 handled: send
# 2 published: custom.mail.queued
# 2 published: system.dead_letter
# 3 retried: place
