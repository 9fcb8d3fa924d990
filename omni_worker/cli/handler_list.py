"""Handler list: a worker's handlers and consumers, in lines of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ..bus import EventBus
from ..handler_consumers import is_shared, shown_consumers
from ..handlers import Handler
from ..subscription import Subscription
from . import WIDTH


def handler_list(bus: EventBus) -> str:
    """List every handler with its subjects and consumers, and those that every process runs."""
    server = bus.settings.shown_urls
    lines = [f"{bus.name} on {server}"]
    for subscription in bus.subscriptions:
        lines += handler_lines(subscription)
        for reason in subscription.pauses.warnings:
            lines += _wrapped("paused", reason.removeprefix("paused "))
        if (order := subscription.scaling.order) is not None:
            lines += _wrapped("scaled", order.removeprefix("scaled "))
    lonely = [one.handler for one in bus.subscriptions if not is_shared(one.handler)]
    if lonely:
        names = ", ".join(handler.shown for handler in lonely)
        lines += textwrap.wrap(
            f"Every process runs {names}: without durable or queue each gets every event.",
            WIDTH, initial_indent="  ", subsequent_indent="  ",
        )  # fmt: skip
    return "\n".join(lines)


def handler_lines(subscription: Subscription) -> list[str]:
    """List one handler: its name, its subjects, its consumers."""
    handler = subscription.handler
    sources = [(one.stream, one.consumer) for one in subscription.sources]
    return [*_handler_lines(handler, shown_consumers(handler, sources))]


def _handler_lines(handler: Handler, consumers: list[tuple[str, str]]) -> Iterator[str]:
    yield f"  {handler.shown}"
    yield from _wrapped("subjects", ", ".join(handler.filters))
    if handler.cron is not None:
        yield from _wrapped("cron", f"{handler.cron.expression}, {handler.cron.tz}")
    if handler.batch is not None:
        yield from _wrapped("batches", handler.batch.shown)
    by_name: dict[str, list[str]] = {}
    for stream, consumer in consumers:
        by_name.setdefault(consumer, []).append(stream)
    for consumer, streams in by_name.items():
        yield from _wrapped("consumer", f"{consumer} on {', '.join(streams)}")


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"    {label:9} ",
        subsequent_indent=" " * 14,
        break_long_words=False,
        break_on_hyphens=False,
    )
