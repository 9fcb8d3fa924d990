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

import click
from pydantic_core import from_json

from ...app import App
from ...bus import EventBus
from ...current import current_run
from ...errors import ConfigError, OmniWorkerError
from ...handler_consumers import planned_consumers
from ...handlers import find_handler
from ...operations.dry import WouldCancel, WouldPublish, dry, meaning_of
from ...operations.replay import WHERE, Span, Stage, Summary, replay
from ...parts import Declaration, middlewares_of, state_of
from ...settings import Settings
from ...topology import DUPLICATE_WINDOW, holds_events
from ...transports.base import Message, Transport
from ...transports.infos import StreamConfig
from ...transports.timestamps import iso
from .. import FAILED, complain, say
from ..session import Above, CalledWrongly, Progress, confirmed, run_for_app
from ..tables import grouped, json_text, lasting, moment, printable, wrapped
from ..values import Moment, Rate, json_lines_option, yes_option


@click.command("replay")
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--handler", required=True, metavar="NAME", help="Its function or its durable.")
@click.option("--since", type=Moment(), required=True, metavar="WHEN", help="2h, 7d, a date.")
@click.option("--until", type=Moment(), metavar="WHEN", help="No newer ones.")
@click.option(
    "--where", multiple=True, metavar="KEY=VALUE",
    help="Only these; channel, instance, type, id, source or correlationId; may be repeated.",
)  # fmt: skip
@click.option("--rate", type=Rate(), metavar="N/s", help="At most this many: 100/s, 30/m.")
@click.option("--dry-run", is_flag=True, help="Show what it would publish, and publish nothing.")
@click.option("--payloads", is_flag=True, help="With --dry-run: the payloads of these events, too.")
@yes_option
@json_lines_option
def command(
    target: str, handler: str, since: datetime, until: datetime | None, where: tuple[str, ...],
    rate: float | None, dry_run: bool, payloads: bool, yes: bool, json: bool,
) -> int:  # fmt: skip
    """Run past events through one handler again.

    The handler runs here, in this process, with the app's lifespan and middlewares. Its consumer
    is not touched. ctx.replay is true. Each event runs once: a failure is reported, not retried,
    and leaves no dead letter. --dry-run holds back what is published through the framework; other
    effects of the handler, on a database or a service, still happen.

    What it publishes has the ids of the first time: within two minutes the server keeps one
    copy, later it stores another. The command asks before that.

    \b
    omni-worker replay myapp:app --handler r1 --since 2h --dry-run
    omni-worker replay myapp:app --handler r1 --since 2h \\
        --where channel=whatsapp --rate 100/s

    Exit codes: 0 all were handled, 1 some failed, or could not; 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings, app: App) -> int:
        declaration = _find(app, handler)
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
        middlewares=middlewares_of(declaration),
        registry=app.registry,
        publisher=bus.publisher,
        state=state_of(declaration, bus.states),
        takes_tokens=not dry_run,  # which is a write
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
    """Ask, if the server no longer knows the ids, whether the handler may publish again."""
    standing = [info.config for info in await transport.operators.streams()]
    window = _window(standing)
    if time.time() - since.timestamp() < window:
        return True
    return await confirmed(
        f"{declaration.handler.shown} runs again for events stored since {moment(since)}. Events"
        f" that it published more than {lasting(window)} ago will be stored twice. Continue?",
        yes=yes,
    )


def _window(standing: Sequence[StreamConfig]) -> float:
    """Return the seconds for which every stream of events still knows an id."""
    windows: list[float] = [one.duplicate_window for one in standing if holds_events(one)]
    return min([DUPLICATE_WINDOW, *windows])


def _shower(json: bool, payloads: bool) -> Callable[[Message], None]:
    def show(message: Message) -> None:
        context = current_run()
        cause = context.event.id if context is not None else None
        meant = meaning_of(message)
        say(json_text(_meant_json(meant, cause, payloads)) if json
            else _meant_lines(meant, cause, payloads))  # fmt: skip

    return show


def _meant_json(
    meant: WouldPublish | WouldCancel, cause: str | None, payloads: bool
) -> dict[str, Any]:
    if isinstance(meant, WouldCancel):
        return {"wouldCancel": meant.name, "from": cause}
    found: dict[str, Any] = {"wouldPublish": meant.subject, "id": meant.id, "from": cause}
    if meant.due is not None:
        found |= {"at": iso(meant.due), "key": meant.key}
    return found | ({"payload": from_json(meant.body).get("payload")} if payloads else {})


def _meant_lines(meant: WouldPublish | WouldCancel, cause: str | None, payloads: bool) -> list[str]:
    end = [] if cause is None else wrapped(printable(cause), first="    for  ")
    if isinstance(meant, WouldCancel):
        what = f"would cancel what is scheduled as {meant.name}"
        return wrapped(printable(what), rest="    ") + end
    when = "" if meant.due is None else f" at {moment(meant.due)}"
    lines = wrapped(printable(f"would publish {meant.subject}{when}"), rest="    ")
    lines += wrapped(printable(meant.id), first="    id   ")
    if meant.key is not None:
        lines += wrapped(printable(meant.key), first="    key  ")
    if payloads:
        end += wrapped(json_text(from_json(meant.body).get("payload")), first="    ")
    return lines + end


def _print(
    summary: Summary, declaration: Declaration, *, dry_run: bool, json: bool, is_whole: bool
) -> None:
    if json:
        say(json_text(asdict(summary) | {"dryRun": dry_run, "complete": is_whole}))
        return
    counts = [f"{grouped(summary.handled)} handled"]
    for count, word in (
        (summary.failed, "failed"), (summary.rejected, "rejected"), (summary.skipped, "skipped"),
    ):  # fmt: skip
        if count:
            counts.append(f"{grouped(count)} {word}")
    how = "Dry run" if dry_run else "Replay"
    end = "" if is_whole else " Interrupted: later events did not run."
    lines = wrapped(f"{how} into {declaration.handler.shown}: {', '.join(counts)}.{end}")
    for failure in summary.failures:
        lines += wrapped(printable(failure), first="  ", rest="    ")
    more = summary.failed + summary.rejected - len(summary.failures)
    if more > 0:
        lines.append(f"  and {grouped(more)} more")
    say(lines)
