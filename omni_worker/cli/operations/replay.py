"""`omni-worker replay`: past events through one handler again."""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from ...app import App, Declaration
from ...bus import EventBus
from ...context import current_context
from ...errors import OmniWorkerError
from ...operations.dry import dry
from ...operations.replay import WHERE, Span, Stage, Summary, replay
from ...operations.wanted import wanted_consumers
from ...settings import Settings
from ...topology import DUPLICATE_WINDOW
from ...transports.base import Message, Transport
from .. import FAILED
from .running import CalledWrongly, confirmed, grouped, loaded, run_operation
from .tables import as_json, iso, moment, printable, wrapped

SHOW_EVERY = 0.2  # seconds


def replay_command(
    target: str, name: str, since: datetime, until: datetime | None, where: tuple[str, ...],
    rate: float | None, dry_run: bool, payloads: bool, yes: bool, json: bool,
) -> int:  # fmt: skip
    """Returns the exit code."""

    async def work(transport: Transport, settings: Settings) -> int:
        app = loaded(target)
        settings = app.settings or settings
        declaration = _find(app, name)
        span = Span(since=since, until=until, where=_where(where), rate=rate)
        if not dry_run:
            await _ask(declaration, since, yes=yes)
        else:
            settings = settings.model_copy(update={"provision": "off"})
        used = dry(transport, _shower(json, payloads)) if dry_run else transport
        async with app.run(transport=used, settings=settings, start=False) as bus:
            return await _replay(app, declaration, bus, span, dry_run=dry_run, json=json)

    return run_operation(work)


async def _replay(
    app: App, declaration: Declaration, bus: EventBus, span: Span, *, dry_run: bool, json: bool
) -> int:
    standing = [info["config"] for info in await bus.transport.operators.streams()]
    stage = Stage(
        wanted=wanted_consumers(declaration.handler, app.registry, bus.settings, standing),
        middlewares=app.middlewares_of(declaration),
        registry=app.registry,
        publisher=bus.publisher,
        state=bus.state,
    )
    run = {
        "replayId": str(uuid.uuid4()), "app": app.name, "handler": declaration.handler.name,
        "since": iso(span.since), "until": iso(span.until), "where": dict(span.where),
    }  # fmt: skip
    counter = _Counter()
    if not dry_run:
        await bus.publish("system.replay.started", run)
    summary, is_whole = Summary(), False
    try:
        summary = await replay(bus.transport, stage, span, told=counter)
        is_whole = True
    finally:
        counter.clear()
        seen = summary if is_whole else counter.last
        if not dry_run:
            await _say_completed(bus, run, seen, is_whole)
        _print(seen, declaration, dry_run=dry_run, json=json, is_whole=is_whole)
    return FAILED if summary.failed or summary.rejected else 0


async def _say_completed(
    bus: EventBus, run: dict[str, Any], summary: Summary, is_whole: bool
) -> None:
    counts = {key: value for key, value in asdict(summary).items() if key != "failures"}
    try:
        await bus.publish("system.replay.completed", {**run, **counts, "complete": is_whole})
    except OmniWorkerError as error:
        click.echo(f"system.replay.completed is not published: {error}", err=True)


def _find(app: App, name: str) -> Declaration:
    found = [
        one
        for one in app.declarations
        if name in (
            one.handler.name, one.handler.function, one.handler.function.rpartition(".")[2],
        )
    ]  # fmt: skip
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted({one.handler.name for one in found or app.declarations}))
    what = "several handlers are called so" if found else f"{app.name} has no such handler"
    raise CalledWrongly(f"--handler {name}: {what}; there are {names or 'none'}")


def _where(given: tuple[str, ...]) -> dict[str, str]:
    where = {}
    for one in given:
        key, mark, value = one.partition("=")
        if not mark or key not in WHERE or not value:
            raise CalledWrongly(f"--where {one}: expected KEY=VALUE with one of {', '.join(WHERE)}")
        where[key] = value
    return where


async def _ask(declaration: Declaration, since: datetime, *, yes: bool) -> None:
    if time.time() - since.timestamp() < DUPLICATE_WINDOW:
        return  # whatever it publishes again has the same id, and the server knows it still
    question = (
        f"{declaration.handler.name} runs again for what was stored since {moment(since)}. What"
        " it published more than two minutes ago is stored once more. Go on?"
    )
    if not await confirmed(question, yes=yes):
        raise CalledWrongly("nothing was replayed; --dry-run shows what would be published")


def _shower(json: bool, payloads: bool) -> Any:
    from pydantic_core import from_json

    def show(message: Message) -> None:
        context = current_context.get()
        cause = context.event.id if context is not None else None
        event = from_json(message.body)
        if json:
            payload = {"payload": event.get("payload")} if payloads else {}
            click.echo(as_json(
                {"wouldPublish": message.subject, "id": message.id, "from": cause} | payload
            ))  # fmt: skip
            return
        text = f"would publish {message.subject}  {message.id}"
        lines = wrapped(printable(f"{text}  for {cause}" if cause else text), rest="    ")
        if payloads:
            lines += wrapped(printable(as_json(event.get("payload"))), first="    ")
        click.echo("\n".join(lines))

    return show


class _Counter:
    """Progress, on a terminal only."""

    def __init__(self) -> None:
        self.last = Summary()
        self._shows = sys.stderr.isatty()
        self._shown_at = 0.0

    def __call__(self, summary: Summary) -> None:
        self.last = summary
        now = time.monotonic()
        if self._shows and now - self._shown_at > SHOW_EVERY:
            self._shown_at = now
            text = f"{grouped(summary.read)} read, {grouped(summary.ran)} run"
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)

    def clear(self) -> None:
        if self._shown_at:
            click.echo("\r\x1b[K", nl=False, err=True)


def _print(
    summary: Summary, declaration: Declaration, *, dry_run: bool, json: bool, is_whole: bool
) -> None:
    if json:
        click.echo(as_json(asdict(summary) | {"dryRun": dry_run, "complete": is_whole}))
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
    click.echo("\n".join(lines))
