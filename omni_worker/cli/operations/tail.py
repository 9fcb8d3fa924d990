"""`omni-worker tail`: events as they are stored, one line each."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import Any

import click
from pydantic_core import from_json, to_json

from ...errors import InvalidEvent, InvalidSubject
from ...operations.letters import stored_time
from ...operations.tail import Seen, past_and_live
from ...pretty import address
from ...settings import Settings
from ...subjects import check_subject_pattern, filters_for, is_wild
from ...transports.base import Transport
from ...wire import read_envelope
from .running import CalledWrongly, run_operation
from .tables import as_json, iso, moment, printable, wrapped


def tail_command(
    pattern: str, since: datetime | None, follow: bool, payloads: bool, json: bool
) -> int:
    """Returns the exit code."""

    async def work(transport: Transport, settings: Settings) -> int:
        filters = _filters(pattern)
        live = follow or since is None
        if live and not json:
            click.echo(f"{settings.shown_urls}: {', '.join(filters)}; Ctrl-C ends", err=True)
        seen_any = False
        async with aclosing(
            past_and_live(transport, filters, since=since, follow=live)
        ) as messages:
            async for seen in messages:
                seen_any = True
                if json:
                    click.echo(as_json(_json(seen, payloads)))
                else:
                    click.echo("\n".join(_lines(seen, payloads)))
        if not seen_any and not json:
            click.echo(f"Nothing since {moment(since)}." if since else "")
        return 0

    return run_operation(work)


def _filters(pattern: str) -> tuple[str, ...]:
    """A type means its events of every channel and instance, and the bare ones."""
    try:
        if pattern.endswith(">") or (pattern.count(".") > 1 and is_wild(pattern)):
            return (check_subject_pattern(pattern),)
        if pattern.count(".") > 1 and not pattern.startswith(("custom.", "system.")):
            return (check_subject_pattern(pattern),)
        return filters_for([pattern])
    except InvalidSubject as error:
        raise CalledWrongly(f"{error}; for example message.received or 'message.>'") from None


def _read(seen: Seen) -> dict[str, Any]:
    message = seen.message
    try:
        envelope = read_envelope(message.body, stored_at=message.stored_at // 1_000_000)
    except InvalidEvent as error:
        return {"unreadable": str(error)}
    return {
        "type": envelope.type,
        "id": envelope.id,
        "source": envelope.metadata.get("source"),
        "correlationId": envelope.metadata.get("correlationId"),
        "payload": envelope.payload,
    }


def _lines(seen: Seen, payloads: bool) -> list[str]:
    message = seen.message
    read = _read(seen)
    at = stored_time(message).astimezone().strftime("%H:%M:%S")
    where = address(read.get("type", ""), message.subject)
    name = read.get("id") or f"(unreadable: {read.get('unreadable')})"
    text = printable(f"{where}  {name}")
    lines = wrapped(text, first=f"{at}  {seen.stream} #{message.sequence}  ", rest=" " * 10)
    if payloads:
        content = to_json(read["payload"]).decode() if "payload" in read else repr(message.body)
        lines += wrapped(printable(content), first=" " * 10)
    return lines


def _json(seen: Seen, payloads: bool) -> dict[str, Any]:
    message = seen.message
    read = _read(seen)
    payload = read.pop("payload", None)
    return {
        "time": iso(stored_time(message)),
        "stream": seen.stream,
        "sequence": message.sequence,
        "subject": message.subject,
        **read,
    } | ({"payload": from_json(to_json(payload))} if payloads else {})
