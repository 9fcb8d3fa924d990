"""Dead letters: list, show, send back to the handler they failed in, or discard."""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json

from ..errors import EventTooLarge, OmniWorkerError, TopologyError
from ..events import DEAD_LETTER
from ..handlers import Handler
from ..letters.marks import Mark, Marks
from ..letters.read import (
    DeadLetter,
    LetterFilter,
    LetterState,
    Pointer,
    first_stored_at,
    first_stream,
    matches_wanted,
    original_body,
    original_headers,
    read_letter,
)
from ..letters.written import (
    HANDLER_HEADER,
    RETRY_OF_HEADER,
    STORED_AT_HEADER,
    STREAM_HEADER,
    SUBJECT_HEADER,
)
from ..provision import Provisioner
from ..steering.nudges import nudge
from ..topology import OWN_STREAM, retry_consumer, retry_subject, route
from ..trace_context import trace_headers
from ..transports.base import Message, StoredMessage, Transport
from ..transports.headers import MESSAGE_ID
from .handler_names import handler_names
from .letter_lookup import FILTERS, NoSuchLetter, Progress, find_letter
from .scan import Scan
from .verification import Verification

PAGE = 128  # dead letters whose marks are read together
TIMEOUT = 30.0  # seconds


class CannotRetry(OmniWorkerError):
    """You must act: this dead letter cannot be sent back as it is; ``reason`` says why."""

    def __init__(self, letter: int, reason: str) -> None:
        super().__init__(f"dead letter #{letter}: {reason}")
        self.letter = letter  # its number
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """The event is on its way back; ``before``: it was sent earlier, and nothing is sent now."""

    letter: DeadLetter
    subject: str
    before: bool = False
    heard: int = 0  # processes that were told to look at once: their way back did not exist


class DeadLetters:
    """Dead letters on one server. Nothing is created before the first retry or discard.

    ``handlers`` are the known ones: a dead letter holds the durable, people may use the function's
    name as well.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        create: bool = True,
        replicas: int = 1,
        handlers: Iterable[Handler] = (),
    ) -> None:
        self._transport = transport
        self._operators = transport.operators
        self._handlers = tuple(handlers)
        self._create = create
        self._provisioner = Provisioner(transport.operators, create=create, replicas=replicas)
        self._marks = Marks(transport, create=create)
        self._verification = Verification(transport)

    async def list(
        self,
        *,
        type: str | None = None,
        handler: str | None = None,
        error: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        all: bool = False,
        progress: Progress | None = None,
    ) -> AsyncIterator[DeadLetter]:
        """Yield open dead letters, the oldest first; with ``all`` also retried and discarded ones.

        ``handler`` is any name of a known handler, or the name in the dead letter; ``error`` is a
        part of the error or of its type; ``since`` and ``until`` limit when it was written.
        """
        wanted = LetterFilter(
            type=type,
            handlers=None if handler is None else await self._names_in_letters(handler),
            error=error,
            since=since,
            until=until,
            all=all,
        )
        async for page in self._pages(wanted, progress):
            for letter in await self._marked(page):
                if all or letter.state in (LetterState.OPEN, LetterState.RETRYING):
                    yield letter

    async def get(self, which: str | int, *, progress: Progress | None = None) -> DeadLetter:
        """Return a dead letter by its number in its stream, its id, or the id of its event.

        The first characters of an id are enough (8+). Raises NoSuchLetter, also if several dead
        letters fit.
        """
        letter = await find_letter(self._transport, str(which).strip(), progress)
        return (await self._marked([letter]))[0]

    async def with_states(self, letters: Sequence[DeadLetter]) -> builtins.list[DeadLetter]:
        """Return these dead letters with their states."""
        return [*await self._marked(letters)]

    async def with_doubts(self, letters: Sequence[DeadLetter]) -> builtins.list[DeadLetter]:
        """Return these dead letters with why each is unverified, if it is."""
        doubts = await asyncio.gather(*(self._verification.doubt(one) for one in letters))
        return [replace(one, doubt=doubt) for one, doubt in zip(letters, doubts, strict=True)]

    async def body(self, letter: DeadLetter) -> bytes | None:
        """Return the bytes of the failed event, None if they were not kept.

        Raises CannotRetry if they were kept in a stream and are gone.
        """
        _, payload = await self._read(letter)
        return await self._original(letter, payload)

    async def retry(
        self, letter: DeadLetter, *, again: bool = False, unverified: bool = False
    ) -> Retried:
        """Send the event back to the handler it failed in, and to no other.

        A second retry sends nothing unless ``again``: the dead letter is marked. One that the
        server does not confirm is sent only if ``unverified``. Raises CannotRetry.
        """
        if letter.why_not:
            raise CannotRetry(letter.sequence, letter.why_not)
        assert letter.app is not None
        mark = (await self._marks.of([letter]))[0]
        subject = retry_subject(letter.app)
        if mark.state is LetterState.RETRIED and not again:
            return Retried(letter=_with_mark(letter, mark), subject=subject, before=True)
        if not unverified and (doubt := await self._verification.doubt(letter)):
            raise CannotRetry(
                letter.sequence,
                f"unverified: {doubt}; look into it with dead-letters show, and give --unverified"
                " if you believe what it says",
            )
        body, headers = await self._composed(letter)
        is_new = await self._ensure_way_back(letter.app)
        is_resumed = mark.state is LetterState.RETRYING
        if not is_resumed:
            after = await self._last_sequence()
            mark = await self._write(letter, mark, LetterState.RETRYING, at=_now(), after=after)
        id = f"{letter.id}:{mark.times}"
        if not (is_resumed and await self._was_sent(letter.app, id, after=mark.after)):
            await self._send(Message(subject, body, id, headers), letter)
        mark = await self._write(letter, mark, LetterState.RETRIED, at=_now())
        heard = await nudge(self._transport, letter.app) if is_new else 0
        return Retried(letter=_with_mark(letter, mark), subject=subject, heard=heard)

    async def discard(self, letter: DeadLetter) -> DeadLetter:
        """Discard a dead letter: it is no longer listed, and stays in its stream."""
        mark = (await self._marks.of([letter]))[0]
        if mark.state is not LetterState.DISCARDED:
            mark = await self._write(letter, mark, LetterState.DISCARDED, at=_now())
        return _with_mark(letter, mark)

    async def _names_in_letters(self, handler: str) -> set[str]:
        """Return a handler's names in dead letters; for an unknown handler, the given name."""
        if known := {one.name for one in self._handlers if handler in one.names}:
            return {handler, *known}
        return (await handler_names(self._operators)).meant(handler)

    # --- reading ---------------------------------------------------------------------------

    async def _pages(
        self, wanted: LetterFilter, progress: Progress | None
    ) -> AsyncIterator[Sequence[DeadLetter]]:
        stream = await self._stream()
        if stream is None:
            return
        page: list[DeadLetter] = []
        async with Scan(self._transport, stream, filters=FILTERS, since=wanted.since) as messages:
            done = 0
            async for message in messages:
                done += 1
                if progress is not None and done % PAGE == 0:
                    progress(done, messages.total)
                letter = read_letter(message)
                if matches_wanted(letter, wanted):
                    page.append(letter)
                if len(page) >= PAGE:
                    yield page
                    page = []
        yield page

    async def _marked(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        marks = await self._marks.of(letters)
        return [_with_mark(letter, mark) for letter, mark in zip(letters, marks, strict=True)]

    async def _stream(self) -> str | None:
        standing = [info.config for info in await self._operators.streams()]
        return next(iter(route([DEAD_LETTER], standing)), None)

    async def _read(self, letter: DeadLetter) -> tuple[StoredMessage, dict[str, Any]]:
        message = await self._operators.message(letter.stream, letter.sequence)
        if message is None or read_letter(message).id != letter.id:
            raise NoSuchLetter(f"dead letter #{letter.sequence} is no longer in {letter.stream}")
        return message, from_json(message.body)["payload"]

    async def _original(self, letter: DeadLetter, payload: dict[str, Any]) -> bytes | None:
        found = original_body(payload)
        if not isinstance(found, Pointer):
            return found
        message = await self._verification.body(letter, found)
        if isinstance(message, str):
            raise CannotRetry(letter.sequence, message)
        stored_at = payload.get("storedAt")
        if message is not None and (
            found != letter.origin or stored_at == message.stored_at // 1_000_000
        ):
            return message.body
        raise CannotRetry(
            letter.sequence,
            f"the event was too large for its dead letter, and {found.stream} no longer holds it",
        )

    # --- the way back ----------------------------------------------------------------------

    async def _composed(self, letter: DeadLetter) -> tuple[bytes, dict[str, str]]:
        message, payload = await self._read(letter)
        body = await self._original(letter, payload)
        assert body is not None
        assert letter.handler is not None
        assert letter.subject is not None
        own = {
            HANDLER_HEADER: letter.handler,
            SUBJECT_HEADER: letter.subject,
            RETRY_OF_HEADER: letter.id,
        }
        if stream := first_stream(payload):
            own[STREAM_HEADER] = stream
        if (stored_at := first_stored_at(payload)) is not None:
            own[STORED_AT_HEADER] = str(stored_at)
        given = original_headers(payload)
        if not trace_headers({name: [value] for name, value in given.items()}):
            given |= trace_headers(message.headers)  # the retry is in the trace of the failure
        return body, {**given, **own}

    async def _ensure_way_back(self, app: str) -> bool:
        """Create our stream and the app's consumer, before the event, or no worker would get it.

        Return True for a consumer that was created now: no process reads it yet.
        """
        spec = retry_consumer(app)
        if await self._operators.stream_info(OWN_STREAM.name) is None:
            if not self._create:
                raise TopologyError(
                    f"stream {OWN_STREAM.name} is missing, and provisioning is off:"
                    " omni-worker plan MODULE:APP --apply creates it"
                )
            await self._provisioner.ensure_own_stream()
        if await self._operators.consumer_info(spec.stream, spec.name) is not None:
            return False
        await self._provisioner.ensure_consumer(spec)
        return True

    async def _send(self, message: Message, letter: DeadLetter) -> None:
        try:
            stored = await self._transport.publish(message, timeout=TIMEOUT)
        except EventTooLarge as error:
            raise CannotRetry(
                letter.sequence,
                f"with the headers for a retry the event is too large for the server ({error})",
            ) from None
        if stored.duplicate:
            there = await self._operators.message(stored.stream, stored.sequence)
            if there is None or (there.subject, there.body) != (message.subject, message.body):
                raise CannotRetry(
                    letter.sequence,
                    f"{stored.stream} #{stored.sequence} has the id that its retry would have, and"
                    " is another message; try it again in two minutes",
                )

    async def _last_sequence(self) -> int:
        info = await self._operators.stream_info(OWN_STREAM.name)
        return 0 if info is None else info.state.last_sequence

    async def _was_sent(self, app: str, id: str, *, after: int) -> bool:
        """Search for the event of an interrupted retry: the duplicate window may be over.

        By sequence: the clocks of two operators and of the server may differ by hours.
        """
        first = after + 1
        while True:
            message = await self._operators.next_message(OWN_STREAM.name, first, retry_subject(app))
            if message is None:
                return False
            if id in message.headers.get(MESSAGE_ID, ()):
                return True
            first = message.sequence + 1

    async def _write(
        self,
        letter: DeadLetter,
        mark: Mark,
        state: LetterState,
        *,
        at: int,
        after: int | None = None,
    ) -> Mark:
        written = await self._marks.write(letter, mark, state, at=at, after=after)
        if written is None:
            raise CannotRetry(
                letter.sequence, "another retry or discard is in progress; look again"
            )
        return written


def _with_mark(letter: DeadLetter, mark: Mark) -> DeadLetter:
    when = datetime.fromtimestamp(mark.at / 1000, UTC) if mark.at else None
    return replace(letter, state=mark.state, state_time=when)


def _now() -> int:
    return time.time_ns() // 1_000_000
