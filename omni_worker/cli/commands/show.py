"""`omni-worker show`: what an app declares, without a server."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ...app import App
from ...errors import ConfigError
from ...handler_consumers import PlannedConsumers, planned_consumers
from ...handlers import Handler
from ...operations.declared import as_json, model_name
from ...options import OPTIONS, Options, options_in_force
from ...schemas import SchemaRegistry
from ...topology import DAY, SEVEN, STREAMS
from .. import CALLED_WRONGLY, complain, say
from ..session import CalledWrongly, given_settings, loaded
from ..tables import json_text, table, wrapped
from ..values import json_option, verbose_option


@click.command("show")
@click.argument("target", metavar="MODULE[:APP]")
@verbose_option
@json_option
def command(target: str, verbose: bool, json: bool) -> int:
    """Show what an app declares: handlers, filters, consumers, options, schemas, streams.

    No server is needed: streams are shown as they are on a new one. `plan` compares with a real
    one. A type that looks misspelled is marked doubtful; so is a model that no payload of the
    registered one fits. A handler's second consumer, for its bare subjects, is shown with
    --verbose.

    \b
    omni-worker show myapp:app
    omni-worker show myapp:app --json | jq .handlers[].filters

    Exit codes: 0 shown, 2 called wrongly, or the module cannot be imported.
    """
    try:
        app = loaded(target)
        settings = given_settings(app)
    except (CalledWrongly, ConfigError) as error:
        complain(str(error))
        return CALLED_WRONGLY
    found = [planned_consumers(one, app.registry, settings, SEVEN) for one in app.handlers]
    if json:
        say(json_text(as_json(app.name, found, app.registry), indent=2))
        return 0
    lines = [f"{app.name} ({target})"]
    for wanted in found:
        lines += _handler_lines(wanted, verbose)
    if not found:
        lines.append("  no handlers: declare one with @app.on(...)")
    say([*lines, *_schema_lines(app), *_stream_lines(found)])
    return 0


def _schema_lines(app: App) -> Iterator[str]:
    """List the types this app registers itself."""
    core = SchemaRegistry()
    own = [one for one in app.registry.list() if core.get(one.type) != one]
    if own:
        yield from ("", "schemas")
    for schema in own:
        model = schema.model.__name__ if schema.model else "any payload"
        stream = f", copied to {schema.stream}" if schema.stream else ""
        about = f": {schema.description}" if schema.description else ""
        yield from wrapped(f"{schema.type}  {model}{stream}{about}", first="  ", rest="      ")


def _stream_lines(found: list[PlannedConsumers]) -> Iterator[str]:
    """List the streams that its handlers read."""
    read = {spec.stream for wanted in found for spec in wanted.specs}
    rows = [
        (spec.name, ", ".join(spec.subjects), f"{spec.max_age / DAY:g} d")
        for spec in STREAMS
        if spec.name in read
    ]
    copies = {
        stream: ", ".join(types) for wanted in found for stream, types in wanted.copies.items()
    }
    rows += [(stream, f"copies of {types}", "-") for stream, types in sorted(copies.items())]
    if rows:
        yield from ("", "streams")
        yield from (f"  {line}" for line in table(["STREAM", "SUBJECTS", "KEPT"], rows))


def _handler_lines(wanted: PlannedConsumers, verbose: bool) -> Iterator[str]:
    handler = wanted.handler
    yield ""
    yield from wrapped(f"{handler.shown}  {handler.where}", first="  ", rest="      ")
    for label, text in (
        ("function", handler.function),
        ("name", handler.name if handler.options.durable is None else ""),  # of ids and notes
        ("events", ", ".join(handler.types) or "any, by subject"),
        ("doubtful", "; ".join(wanted.doubts)),
        ("filters", ", ".join(handler.filters)),
        ("cron", f"{handler.cron.expression}, {handler.cron.tz}" if handler.cron else ""),
        ("batches", handler.batch.shown if handler.batch else ""),
        ("consumer", _consumers(wanted, verbose)),
        ("queue", _queue(handler.options)),
        ("missing", f"no stream stores {', '.join(wanted.unserved)}"
         if wanted.unserved else ""),
        ("payload", model_name(handler) or "any"),
        ("options", _options(handler)),
    ):  # fmt: skip
        if text:
            yield from wrapped(text, first=f"    {label:9} ")


def _consumers(wanted: PlannedConsumers, verbose: bool) -> str:
    if not wanted.consumers:
        return ""
    alone = "" if wanted.is_shared else " (one per process: each gets every event)"
    if verbose:
        each = [f"{spec.name} on {spec.stream}" for spec in wanted.specs]
        return f"{', '.join(each)}{alone}"
    return f"{wanted.name} on {', '.join(one.stream for one in wanted.consumers)}{alone}"


def _queue(options: Options) -> str:
    if options.queue is None or options.durable is None:
        return options.queue or ""
    return f"{options.queue} (no effect: processes share by the durable)"


def _options(handler: Handler) -> str:
    shown = []
    for name, value in options_in_force(handler.options).items():
        if value is None or value is False or value == []:  # not 0: a breaker of 0 is news
            continue
        unit = OPTIONS[name].unit
        text = ", ".join(value) if isinstance(value, list) else f"{value:g} s" if unit else value
        shown.append(name if value is True else f"{name} {text}")
    return ", ".join(shown)
