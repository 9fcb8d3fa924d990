"""Letter search: the newest dead letters first, in steps; how many are open for each handler."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from ..events import DEAD_LETTER
from ..letters.marks import BUCKET, STREAM, mark_key, read_mark
from ..letters.read import DeadLetter, LetterFilter, LetterState, matches_wanted, read_letter
from ..topology import route
from ..transports.base import Transport
from ..transports.infos import StreamConfig
from .dead_letters import DeadLetters
from .letter_lookup import FILTERS
from .newest import Window, windows
from .scan import Scan

_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
OPEN = (LetterState.OPEN, LetterState.RETRYING)

NAMES = 2_000  # handlers and errors that are counted one by one: any program may invent some
LONGEST = 80  # characters of the name of an error's class

Whose = tuple[str | None, str | None]  # app and handler, as the dead letters name them
REST: Whose = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchStep:
    """Dead letters that a search found so far, the newest first.

    ``before`` continues it further back. ``share`` is how much of the stream was looked at.
    """

    letters: tuple[DeadLetter, ...]
    before: int
    share: float
    is_complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLetters:
    """Counts of open dead letters; of very many names the rest is counted as one."""

    by_handler: Mapping[Whose, int]
    by_error: Mapping[tuple[str | None, str], int]  # handler and class of the error


async def letter_stream(transport: Transport) -> str | None:
    """Return the stream that stores dead letters."""
    return letter_stream_of([info.config for info in await transport.operators.streams()])


def letter_stream_of(standing: Sequence[StreamConfig]) -> str | None:
    """Return the one of these streams that stores dead letters."""
    return next(iter(route([DEAD_LETTER], standing)), None)


async def search_letters(
    transport: Transport, wanted: LetterFilter, *, limit: int, before: int | None = None
) -> AsyncGenerator[SearchStep, None]:
    """Yield what was found after each step, until ``limit`` were found or nothing is left."""
    stream = await letter_stream(transport)
    if stream is None:
        yield SearchStep(letters=(), before=0, share=1.0, is_complete=True)
        return
    states = DeadLetters(transport)
    found: list[DeadLetter] = []
    async for window in windows(
        transport, stream, filters=FILTERS, before=before, since=wanted.since
    ):
        page = _matching(window, wanted)
        marked = await states.with_states(page)
        found += [one for one in marked if wanted.all or one.state in OPEN]
        is_complete = window.is_end and len(found) <= limit
        low = found[limit - 1].sequence if len(found) > limit else window.low
        span = max(1, window.last - window.first + 1)
        share = 1.0 if is_complete else min(1.0, (window.last - window.low + 1) / span)
        yield SearchStep(
            letters=tuple(found[:limit]), before=low, share=share, is_complete=is_complete
        )
        if len(found) >= limit:
            return


async def count_matching(
    transport: Transport, wanted: LetterFilter
) -> AsyncGenerator[tuple[int, float], None]:
    """Yield how many open dead letters match so far, and how much of the stream was looked at."""
    count = 0
    stream = await letter_stream(transport)
    if stream is not None:
        closed = await _closed(transport)
        async for window in windows(transport, stream, filters=FILTERS, since=wanted.since):
            found = _matching(window, wanted)
            count += sum(mark_key(one.id) not in closed for one in found)
            span = max(1, window.last - window.first + 1)
            yield count, 1.0 if window.is_end else (window.last - window.low + 1) / span
    yield count, 1.0


def _matching(window: Window, wanted: LetterFilter) -> list[DeadLetter]:
    letters = (read_letter(one) for one in window.messages if _may_match(one.body, wanted))
    return [one for one in letters if matches_wanted(one, wanted)]


def _may_match(body: bytes, wanted: LetterFilter) -> bool:
    """Tell by a cheap look if a letter is worth reading: of many, few are of one handler.

    Only for names that no writer of JSON escapes.
    """
    types = () if wanted.type is None else (wanted.type,)
    return all(
        any(name.encode() in body for name in names)
        for names in (types, wanted.handlers or ())
        if names and all(map(_PLAIN.fullmatch, names))
    )


async def count_open(transport: Transport) -> OpenLetters:
    """Count the open dead letters of each handler, and by error. Reads all of them."""
    handlers: Counter[Whose] = Counter()
    errors: Counter[tuple[str | None, str]] = Counter()
    stream = await letter_stream(transport)
    if stream is None:
        return OpenLetters(by_handler=handlers, by_error=errors)
    closed = await _closed(transport)
    async with Scan(transport, stream, filters=FILTERS) as messages:
        async for message in messages:
            letter = read_letter(message)
            if closed and mark_key(letter.id) in closed:
                continue
            whose = (letter.app, letter.handler)
            handlers[whose if whose in handlers or len(handlers) < NAMES else REST] += 1
            error = (letter.handler, error_class(letter))
            if error in errors or len(errors) < NAMES:
                errors[error] += 1
    return OpenLetters(by_handler=handlers, by_error=errors)


def error_class(letter: DeadLetter) -> str:
    """Name the class of a dead letter's error, without its module; empty if it is not known."""
    kind = letter.error_type or letter.error.partition(":")[0]
    name = kind.rpartition(".")[2]
    return name if name.isidentifier() and len(name) <= LONGEST else ""


async def _closed(transport: Transport) -> set[str]:
    """Return the keys of the dead letters that were retried or discarded, in one reading."""
    closed: set[str] = set()
    if await transport.operators.stream_info(STREAM) is None:
        return closed
    prefix = f"$KV.{BUCKET}."
    async with Scan(transport, STREAM, filters=(f"{prefix}>",)) as messages:
        async for message in messages:
            key = message.subject.removeprefix(prefix)
            if read_mark(message.body, 1).state in OPEN:
                closed.discard(key)
            else:
                closed.add(key)
    return closed
