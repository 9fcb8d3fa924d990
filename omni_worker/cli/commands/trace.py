"""`omni-worker trace`: where one event is, in a few lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from ...handlers import both_names
from ...listeners.text import address
from ...operations.schedules import ScheduledEvent
from ...operations.trace import (
    CANDIDATES,
    SHORTEST,
    EventPlace,
    Trace,
    trace_event,
)
from ...operations.trace_failures import failed_times
from ...operations.trace_json import as_json
from ...operations.trace_waiting import Forwarding, LongRetry, Word
from ...schedules.messages import as_datetime
from ...settings import Settings
from ...topology import OWN_STREAM
from ...transports.base import Transport
from .. import CALLED_WRONGLY, FAILED, say
from ..session import CalledWrongly, Progress, run_operation
from ..tables import ago, facts, grouped, json_text, lasting, moment, printable, table, wrapped
from ..values import Moment, json_option

A_DAY = timedelta(hours=24)
SHOWN = 20  # events of the same correlation


@click.command("trace")
@click.argument("event", metavar="EVENT_ID")
@click.option(
    "--since", type=Moment(), metavar="WHEN", default=lambda: datetime.now(UTC) - A_DAY,
    help="How far back to look: 7d, a date. Default: 24h.",
)  # fmt: skip
@json_option
def command(event: str, since: datetime, json: bool) -> int:
    """Show where an event is, which consumers had it, how it failed, and what it caused.

    Every stream is searched from --since on. For each consumer: settled; in flight or settled (it
    was delivered, and an older event is still open); or not yet delivered. What it caused is found
    by the correlation id. The first eight characters of an id are enough, as logs show them; if
    several ids begin with them, these are listed. In place of an id, give STREAM #SEQUENCE for an
    event that has no id or cannot be read. One that is to be published later is found, too, with
    where it waits and until when; so are those of the same correlation.

    \b
    omni-worker trace 0f7e2c1a
    omni-worker trace 0f7e2c1a-9d0b-4a52-8d8e-6d0f6a1c2b3d
    omni-worker trace 'MESSAGE #8' --since 7d

    Exit codes: 0 found, 1 no such event, or failed; 2 called wrongly, or several events.
    """

    async def work(transport: Transport, settings: Settings) -> int:
        if not event.strip():
            raise CalledWrongly("EVENT_ID is empty: give an event's id, or its place (MESSAGE #8)")
        progress = Progress("messages read:")
        trace = await trace_event(transport, event, since=since, progress=progress)
        progress.clear()
        say(json_text(as_json(trace), indent=2) if json else _lines(trace, since))
        if trace.candidates:
            return CALLED_WRONGLY
        return 0 if trace.is_found else FAILED

    return run_operation(work)


def _lines(trace: Trace, since: datetime) -> str:
    if trace.candidates:
        return "\n".join(_several(trace))
    parts = [_place_lines(place) for place in trace.places]
    parts += [_scheduled_lines(one) for one in trace.scheduled]
    if not parts and not trace.is_found:
        parts = [_not_found(trace, since)]
    parts.append([line for one in trace.forwardings for line in _forwarding_lines(one, trace)])
    if trace.consumers:
        rows = [
            [both_names(one.function, one.handler), one.stream, one.app or "-", one.word,
             failed_times(one, trace.letters) or "-"]
            for one in trace.consumers
        ]  # fmt: skip
        parts.append(table(["CONSUMER", "STREAM", "APP", "THIS EVENT", "FAILED"], rows))
    elif trace.places:
        parts.append(["No consumer reads it."])
    parts.append([line for one in trace.retries for line in _retry_lines(one)])
    parts.append(_letter_lines(trace))
    parts += [_related_lines(trace), _later_lines(trace)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _several(trace: Trace) -> list[str]:
    rows = [
        [ago(one.time), f"{one.stream} #{one.sequence}", f"{one.type or '-'}  {one.id}"]
        for one in trace.candidates
    ]
    count = f"At least {CANDIDATES}" if len(rows) == CANDIDATES else str(len(rows))
    said = f"{count} ids begin with {printable(trace.id)}: give more characters, or the place."
    return [*wrapped(said), "", *table(["AGE", "STORED AS", "EVENT"], rows)]


def _not_found(trace: Trace, since: datetime) -> list[str]:
    short = f"; an id needs its first {SHORTEST} characters" if len(trace.id) < SHORTEST else ""
    return wrapped(
        f"No event {printable(trace.id)} among {grouped(trace.scanned)} messages since"
        f" {moment(since)}{short}. Look further back with --since 7d; older events may have"
        " expired."
    )


def _place_lines(place: EventPlace) -> list[str]:
    return facts((
        ("event", place.id),
        ("type", place.type or "cannot be read"),
        ("stored as", f"{place.stream} #{place.sequence}"),
        ("at", f"{moment(place.time)} ({ago(place.time)} ago)"),
        ("subject", place.subject),
        ("from", place.source),
        ("correlation", place.correlation_id),
    ))  # fmt: skip


def _scheduled_lines(event: ScheduledEvent) -> list[str]:
    left = lasting(max(0.0, (event.due - datetime.now(UTC)).total_seconds()))
    when = f"paused by {event.pause.by}" if event.pause else f"{moment(event.due)} (in {left})"
    return facts((
        ("event", event.id),
        ("published", f"not yet: {when}"),
        ("waits as", f"{OWN_STREAM.name} #{event.message.sequence}"),
        ("subject", event.subject),
        ("key", event.key),
        ("from", event.app),
    ))  # fmt: skip


def _forwarding_lines(one: Forwarding, trace: Trace) -> list[str]:
    """Say since when the event is due, or committed, and if it was forwarded to its subject."""
    said = (
        f"committed by atomic() at {moment(one.since)}"
        if one.due is None
        else f"published later, due at {moment(one.due)}"
    )
    where = f"{OWN_STREAM.name} #{one.sequence}"
    if one.word is Word.SETTLED:
        return wrapped(printable(f"{said}: forwarded from {where} by {one.consumer}"))
    said += f": waits as {where} for {one.consumer} of {one.app} ({one.word})"
    if one.is_paused:
        said += f", which is paused; to resume: omni-worker resume {one.consumer}"
    return wrapped(printable(said if trace.places else f"{trace.id} was {said}"))


def _letter_lines(trace: Trace) -> list[str]:
    lines = []
    functions = {(one.app, one.handler): one.function for one in trace.consumers}
    for letter in trace.letters:
        name = letter.handler or "unknown"
        shown = both_names(functions.get((letter.app, name), ""), name)
        said = f"{shown}, {ago(letter.time)} ago, {letter.state}:"
        first = f"dead letter #{letter.sequence}  "
        lines += wrapped(printable(f"{said} {letter.line}"), first=first, rest="    ")
    for place in trace.returns:
        said = f"sent back  {ago(place.time)} ago, as {place.stream} #{place.sequence}"
        lines += wrapped(said)
    return lines


def _retry_lines(one: LongRetry) -> list[str]:
    retry, due = one.retry, as_datetime(one.retry.due)
    times = "once" if retry.failures == 1 else f"{retry.failures} times"
    said = f"{retry.handler} failed {times}, the retry is due at {moment(due)}"
    if one.word is not None:
        said = f"{retry.handler} failed {times}, the retry was due {ago(due)} ago: {one.word}"
    return wrapped(printable(said), first="long retry  ", rest="    ")


def _related_lines(trace: Trace) -> list[str]:
    if not trace.related:
        has_one = any(place.correlation_id for place in trace.places) and not trace.later
        return ["No other event has its correlation."] if has_one else []
    began = (trace.places or trace.related)[0].stored_at
    rows = [
        [_offset(one.stored_at - began), f"{one.stream} #{one.sequence}", one.source or "-",
         f"{address(one.type, one.subject)}  {one.id}"]
        for one in trace.related[:SHOWN]
    ]  # fmt: skip
    more = len(trace.related) - len(rows) + trace.more_related
    lines = table(["AFTER", "STORED AS", "FROM", "SAME CORRELATION"], rows, right=(0,))
    return lines + ([f"and {grouped(more)} more; --json has up to 200"] if more > 0 else [])


def _later_lines(trace: Trace) -> list[str]:
    """List events of the same correlation that are not published yet."""
    events = sorted(trace.later, key=lambda one: one.due)
    rows = [
        ["paused" if one.pause else moment(one.due), one.app, f"{one.subject}  {one.id}"]
        for one in events[:SHOWN]
    ]
    more = len(events) - len(rows)
    lines = table(["DUE", "FROM", "SAME CORRELATION, PUBLISHED LATER"], rows) if rows else []
    return lines + ([f"and {grouped(more)} more; --json has up to 200"] if more > 0 else [])


def _offset(nanoseconds: int) -> str:
    seconds = nanoseconds / 1e9
    sign = "-" if seconds < 0 else "+"
    return f"{sign}{abs(seconds):.3f} s" if abs(seconds) < 100 else f"{sign}{abs(seconds):.0f} s"
