"""Letter lookup: one dead letter by its number, by its id, or by the id of its event."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import OmniWorkerError
from ..events import DEAD_LETTER
from ..letters.read import DeadLetter, read_letter
from ..topology import route
from ..transports.base import Transport
from .scan import Scan

FILTERS = (DEAD_LETTER, f"{DEAD_LETTER}.>")  # other programs may add channel and instance
SHORTEST = 8  # minimum characters of an id that may be given for the whole id
LONGEST = 20  # maximum digits of a sequence
PAGE = 128  # dead letters between two reports of progress
NAMED = 5  # candidates in an error

Progress = Callable[[int, int], None]  # done, total


class NoSuchLetter(OmniWorkerError):
    """You must act: no dead letter, or more than one, has this number or id."""


async def find_letter(transport: Transport, which: str, progress: Progress | None) -> DeadLetter:
    """Return the dead letter with this number, this id, or of the event with this id.

    The first characters of an id are enough (8+). Raises NoSuchLetter.
    """
    stream = next(
        iter(route([DEAD_LETTER], [info.config for info in await transport.operators.streams()])),
        None,
    )
    if stream is None:
        raise NoSuchLetter("no stream on this server stores dead letters")
    number = which.removeprefix("#")
    if number.isascii() and number.isdigit() and len(number) < LONGEST:
        message = await transport.operators.message(stream, int(number))
        if message is not None and message.subject.startswith(DEAD_LETTER):
            return read_letter(message)
    found = await _look_for(transport, which, stream, progress) if which else None
    if found is None:
        raise NoSuchLetter(
            f"no dead letter {which} in {stream}: omni-worker dead-letters list --all shows"
            f" their numbers, show prints an id; its first {SHORTEST} characters are enough,"
            " and so are those of the event's id"
        )
    return found


async def _look_for(
    transport: Transport, id: str, stream: str, progress: Progress | None
) -> DeadLetter | None:
    begun: list[DeadLetter] = []  # their ids begin so
    about: list[DeadLetter] = []  # dead letters of this event
    about_begun: list[DeadLetter] = []  # of events whose ids begin so
    # Only for 8+ characters: 3 must never mean the dead letter 3f21….
    is_long = len(id) >= SHORTEST
    async with Scan(transport, stream, filters=FILTERS) as messages:
        done = 0
        async for message in messages:
            done += 1
            if progress is not None and done % PAGE == 0:
                progress(done, messages.total)
            letter = read_letter(message)
            if letter.id == id:
                return letter
            for found, is_meant in (
                (begun, is_long and letter.id.startswith(id)),
                (about, letter.event_id == id),
                (about_begun, is_long and letter.event_id.startswith(id)),
            ):
                if is_meant and len(found) <= NAMED:
                    found.append(letter)
    if len(begun) > 1:
        raise _several(f"the ids of several dead letters begin with {id}", begun)
    if not begun and len(about or about_begun) > 1:
        said = f"event {id} has" if about else f"events whose ids begin with {id} have"
        raise _several(f"{said} several dead letters", about or about_begun)
    return next(iter(begun or about or about_begun), None)


def _several(said: str, letters: Sequence[DeadLetter]) -> NoSuchLetter:
    numbers = ", ".join(
        f"#{one.sequence} (of {one.handler or 'an unknown handler'})" for one in letters[:NAMED]
    )
    more = " and more" if len(letters) > NAMED else ""
    return NoSuchLetter(f"{said}, {numbers}{more}: give the number")
