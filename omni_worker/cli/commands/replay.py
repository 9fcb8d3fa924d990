"""`omni-worker replay`: past events through one handler again."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from datetime import datetime
from typing import Any, TextIO, cast

from pydantic_core import from_json

from ...app import App, Declaration
from ...bus import EventBus
from ...context import current_context
from ...errors import ConfigError, OmniWorkerError
from ...handler_consumers import planned_consumers
from ...handlers import find_handler
from ...operations.dry import dry
from ...operations.replay import WHERE, Span, Stage, Summary, replay
from ...settings import Settings
from ...topology import DUPLICATE_WINDOW, holds_events
from ...transports.base import Message, Transport
from ...transports.infos import StreamConfig
from .. import FAILED, complain, say
from ..session import Above, CalledWrongly, Progress, confirmed, run_for_app
from ..tables import as_json, grouped, iso, lasting, moment, printable, wrapped


def replay_command(
    target: str, name: str, since: datetime, until: datetime | None, where: tuple[str, ...],
    rate: float | None, dry_run: bool, payloads: bool, yes: bool, json: bool,
) -> int:  # fmt: skip
    """Returns the exit code."""

    async def work(transport: Transport, settings: Settings, app: App) -> int:
        declaration = _find(app, name)
        span = Span(since=since, until=until, where=_where(where), rate=rate)
        if dry_run:
            settings = settings.model_copy(update={"provision": "off"})
        elif not await _may(transport, declaration, since, yes=yes):
            say("Nothing was replayed; --dry-run shows what would be published.", err=True)
            return FAILED
        used = dry(transport, _shower(json, payloads)) if dry_run else transport
        async with app.running(transport=used, settings=settings, start=False) as bus:
            return await _replay(app, declaration, bus, span, dry_run=dry_run, json=json)

    return run_for_app(target, work, stays=True)


async def _replay(
    app: App, declaration: Declaration, bus: EventBus, span: Span, *, dry_run: bool, json: bool
) -> int:
    standing = [info.config for info in await bus.transport.operators.streams()]
    stage = Stage(
        wanted=planned_consumers(declaration.handler, app.registry, bus.settings, standing),
        middlewares=app.middlewares_of(declaration),
        registry=app.registry,
        publisher=bus.publisher,
        state=bus.state,
    )
    run = {
        "replayId": str(uuid.uuid4()), "app": app.name, "handler": declaration.handler.name,
        "since": iso(span.since), "until": iso(span.until), "where": dict(span.where),
    }  # fmt: skip
    if not dry_run:
        await bus.publish("system.replay.started", run)
    progress = Progress("events read:")
    last = Summary()

    def told(summary: Summary) -> None:
        nonlocal last
        last = summary
        progress(summary.read, summary.total)

    is_whole = False
    try:
        # What the handler prints does not end in the middle of the progress.
        with redirect_stdout(cast("TextIO", Above(sys.stdout, progress))):
            last = await replay(bus.transport, stage, span, told=told)
        is_whole = True
    finally:
        progress.clear()
        if not dry_run:
            await _say_completed(bus, run, last, is_whole)
        _print(last, declaration, dry_run=dry_run, json=json, is_whole=is_whole)
    return FAILED if last.failed or last.rejected else 0


async def _say_completed(
    bus: EventBus, run: dict[str, Any], summary: Summary, is_whole: bool
) -> None:
    counts = {key: value for key, value in asdict(summary).items() if key != "failures"}
    try:
        await bus.publish("system.replay.completed", {**run, **counts, "complete": is_whole})
    except OmniWorkerError as error:
        complain(f"system.replay.completed is not published: {error}")


def _find(app: App, name: str) -> Declaration:
    try:
        found = find_handler(app.handlers, name)
    except ConfigError as error:
        raise CalledWrongly(f"--handler {name}: {error}") from None
    return next(one for one in app.declarations if one.handler is found)


def _where(given: tuple[str, ...]) -> dict[str, str]:
    where = {}
    for one in given:
        key, mark, value = one.partition("=")
        if not mark or key not in WHERE or not value:
            raise CalledWrongly(f"--where {one}: expected KEY=VALUE with one of {', '.join(WHERE)}")
        where[key] = value
    return where


async def _may(
    transport: Transport, declaration: Declaration, since: datetime, *, yes: bool
) -> bool:
    """Whether it may publish what it published before: asked where the server kept no ids."""
    standing = [info.config for info in await transport.operators.streams()]
    window = _window(standing)
    if time.time() - since.timestamp() < window:
        return True
    return await confirmed(
        f"{declaration.handler.name} runs again for what was stored since {moment(since)}. What"
        f" it published more than {lasting(window)} ago is stored once more. Go on?",
        yes=yes,
    )


def _window(standing: Sequence[StreamConfig]) -> float:
    """Seconds for which every stream of events still knows an id."""
    windows: list[float] = [one.duplicate_window for one in standing if holds_events(one)]
    return min([DUPLICATE_WINDOW, *windows])


def _shower(json: bool, payloads: bool) -> Callable[[Message], None]:
    def show(message: Message) -> None:
        context = current_context.get()
        cause = context.event.id if context is not None else None
        event = from_json(message.body)
        if json:
            payload = {"payload": event.get("payload")} if payloads else {}
            say(as_json(
                {"wouldPublish": message.subject, "id": message.id, "from": cause} | payload
            ))  # fmt: skip
            return
        lines = wrapped(printable(f"would publish {message.subject}"), rest="    ")
        lines += wrapped(printable(message.id), first="    id   ")
        if cause is not None:
            lines += wrapped(printable(cause), first="    for  ")
        if payloads:
            lines += wrapped(as_json(event.get("payload")), first="    ")
        say(lines)

    return show


def _print(
    summary: Summary, declaration: Declaration, *, dry_run: bool, json: bool, is_whole: bool
) -> None:
    if json:
        say(as_json(asdict(summary) | {"dryRun": dry_run, "complete": is_whole}))
        return
    counts = [f"{grouped(summary.handled)} handled"]
    for count, word in (
        (summary.failed, "failed"), (summary.rejected, "rejected"), (summary.skipped, "skipped"),
    ):  # fmt: skip
        if count:
            counts.append(f"{grouped(count)} {word}")
    how = "Dry run" if dry_run else "Replay"
    end = "" if is_whole else " Interrupted: what came later did not run."
    lines = wrapped(f"{how} into {declaration.handler.name}: {', '.join(counts)}.{end}")
    for failure in summary.failures:
        lines += wrapped(printable(failure), first="  ", rest="    ")
    more = summary.failed + summary.rejected - len(summary.failures)
    if more > 0:
        lines.append(f"  and {grouped(more)} more")
    say(lines)
