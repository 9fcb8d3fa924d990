"""`omni-worker tail`: events as they are stored, and past ones."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime

import click

from ...errors import InvalidSubject
from ...letters.read import stored_time
from ...listeners.text import address
from ...operations.tail import as_json, past_and_live, plain, read
from ...schemas import SchemaRegistry, core_type_of
from ...settings import Settings
from ...subjects import check_subject_pattern, filters_for, is_wild
from ...transports.base import StoredMessage, Transport
from .. import say
from ..session import CalledWrongly, run_operation
from ..tables import json_text, moment, printable, wrapped
from ..values import Moment, json_lines_option

INDENT = 10  # of the lines under the first
PLACE = 12  # columns of stream and sequence; a longer one takes more


@click.command("tail")
@click.argument("pattern", default=">", metavar="[PATTERN]")
@click.option("--since", type=Moment(), metavar="WHEN", help="Events stored since: 1h, a date.")
@click.option(
    "-n", "--last", type=click.IntRange(1), metavar="N", help="Only the last N events of the past."
)
@click.option("-f", "--follow", is_flag=True, help="After past events, continue with new ones.")
@click.option("--payloads", is_flag=True, help="Show the events' payloads, too.")
@json_lines_option
def command(
    pattern: str, since: datetime | None, last: int | None, follow: bool, payloads: bool, json: bool
) -> int:  # fmt: skip
    """Show events as they are stored, until Ctrl-C; with --since or -n, past ones.

    PATTERN is an event type or a subject: `message.received`, `message.*.whatsapp.>`.
    Payloads are shown with --payloads only: chats are private.

    It continues when the server restarts.

    \b
    omni-worker tail message.received
    omni-worker tail -n 20
    omni-worker tail 'custom.>' --since 1h --json --payloads | jq .payload

    Exit codes: 0 shown, also when there was nothing; 1 failed, 2 called wrongly, 130 Ctrl-C.
    """
    live = follow or (since is None and last is None)

    async def work(transport: Transport, settings: Settings) -> int:
        filters = _filters(pattern)
        if live and not json:
            what = "every event" if filters == (">",) else ", ".join(filters)
            say(wrapped(f"{what} on {settings.shown_urls}; Ctrl-C ends"), err=True)
        page = Page(payloads)
        async with aclosing(
            past_and_live(transport, filters, since=since, last=last, follow=live)
        ) as messages:
            async for message in messages:
                say(json_text(as_json(message, payloads=payloads)) if json else page.lines(message))
        if page.is_empty and not json and not live:
            say(_nothing(pattern, since), err=True)
        return 0

    return run_operation(work, stays=live)


class Page:
    """Page of events: two lines each, the second its id; a new day has its own line."""

    def __init__(self, payloads: bool) -> None:
        self.is_empty = True
        self._payloads = payloads
        self._day = datetime.now().date()

    def lines(self, message: StoredMessage) -> list[str]:
        """Format one event."""
        event = read(message)
        when = stored_time(message).astimezone()
        lines = [] if when.date() == self._day else [f"{when:%Y-%m-%d}"]
        self.is_empty, self._day = False, when.date()
        where = printable(address(event.get("type", ""), message.subject))
        first = f"{when:%H:%M:%S}  {f'{message.stream} #{message.sequence}':{PLACE}}  "
        lines += wrapped(where, first=first, rest=" " * INDENT)
        text = event.get("id") or f"unreadable: {event.get('unreadable')}"
        lines += wrapped(printable(text), first=" " * INDENT)
        if self._payloads:
            known = "payload" in event
            content = json_text(plain(event["payload"])) if known else repr(message.body)
            lines += wrapped(content, first=" " * INDENT)
        return lines


def _nothing(pattern: str, since: datetime | None) -> list[str]:
    near = None if is_wild(pattern) else SchemaRegistry().nearest(pattern)
    meant = f" Did you mean {near}?" if near else ""
    begin = "Nothing is stored" if since is None else f"Nothing since {moment(since)}"
    return wrapped(f"{begin}.{meant}")


def _filters(pattern: str) -> tuple[str, ...]:
    """Read the pattern: a type matches its events with and without channel and instance."""
    try:
        if pattern.endswith(">") or (pattern.count(".") > 1 and is_wild(pattern)):
            return (check_subject_pattern(pattern),)
        if core_type_of(pattern) not in (None, pattern):  # a channel follows the type
            return (check_subject_pattern(pattern),)
        return filters_for([pattern])
    except InvalidSubject as error:
        raise CalledWrongly(
            f"{error}; for example message.received or 'message.>'; '*' stands for one whole word"
        ) from None
