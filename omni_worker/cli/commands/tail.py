"""`omni-worker tail`: events as they are stored, and past ones."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from ...errors import InvalidEvent, InvalidSubject
from ...letters.read import stored_time
from ...listeners.pretty import address
from ...operations.tail import past_and_live
from ...schemas import SchemaRegistry
from ...settings import Settings
from ...subjects import check_subject_pattern, filters_for, is_wild
from ...transports.base import StoredMessage, Transport
from ...wire import read_envelope
from .. import say
from ..session import CalledWrongly, run_operation
from ..tables import as_json, iso, moment, printable, wrapped

INDENT = 10  # of what stands under the first line, below its text
PLACE = 12  # columns of stream and sequence; a longer one takes more


def tail_command(
    pattern: str, since: datetime | None, follow: bool, payloads: bool, json: bool
) -> int:
    """Returns the exit code."""
    live = follow or since is None

    async def work(transport: Transport, settings: Settings) -> int:
        filters = _filters(pattern)
        if live and not json:
            what = "every event" if filters == (">",) else ", ".join(filters)
            say(wrapped(f"{what} on {settings.shown_urls}; Ctrl-C ends"), err=True)
        page = Page(payloads)
        async with aclosing(
            past_and_live(transport, filters, since=since, follow=live)
        ) as messages:
            async for message in messages:
                say(as_json(_json(message, payloads)) if json else page.lines(message))
        if page.is_empty and not json and since is not None:
            say(_nothing(pattern, since), err=True)
        return 0

    return run_operation(work, stays=live)


class Page:
    """Two lines an event, the second its id; a new day has a line of its own."""

    def __init__(self, payloads: bool) -> None:
        self.is_empty = True
        self._payloads = payloads
        self._day = datetime.now().date()

    def lines(self, message: StoredMessage) -> list[str]:
        """What to print for one event."""
        read = _read(message)
        when = stored_time(message).astimezone()
        lines = [] if when.date() == self._day else [f"{when:%Y-%m-%d}"]
        self.is_empty, self._day = False, when.date()
        where = printable(address(read.get("type", ""), message.subject))
        first = f"{when:%H:%M:%S}  {f'{message.stream} #{message.sequence}':{PLACE}}  "
        lines += wrapped(where, first=first, rest=" " * INDENT)
        text = read.get("id") or f"unreadable: {read.get('unreadable')}"
        lines += wrapped(printable(text), first=" " * INDENT)
        if self._payloads:
            known = "payload" in read
            content = as_json(_plain(read["payload"])) if known else repr(message.body)
            lines += wrapped(content, first=" " * INDENT)
        return lines


def _nothing(pattern: str, since: datetime) -> list[str]:
    near = None if is_wild(pattern) else SchemaRegistry().nearest(pattern)
    meant = f" Did you mean {near}?" if near else ""
    return wrapped(f"Nothing since {moment(since)}.{meant}")


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


def _read(message: StoredMessage) -> dict[str, Any]:
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


def _json(message: StoredMessage, payloads: bool) -> dict[str, Any]:
    read = _read(message)
    payload = read.pop("payload", None)
    return {
        "time": iso(stored_time(message)),
        "stream": message.stream,
        "sequence": message.sequence,
        "subject": message.subject,
        **read,
    } | ({"payload": _plain(payload)} if payloads else {})


def _plain(payload: Any) -> Any:
    return from_json(to_json(payload))
