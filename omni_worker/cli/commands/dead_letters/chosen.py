"""Chosen: the dead letters that a command is about, by number or by filters."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import click

from ....letters.read import DeadLetter, LetterFilter
from ....operations.dead_letters import CannotRetry, DeadLetters, as_json
from ... import FAILED, say
from ...session import CalledWrongly, Progress, confirmed
from ...tables import counted, json_text, printable, wrapped
from ...values import Moment

Act = Callable[[DeadLetter], Awaitable[tuple[DeadLetter, str]]]

OPTIONS = (
    click.option("--type", metavar="TYPE", help="Only events of this type."),
    click.option("--handler", metavar="NAME", help="Only of this handler: its durable, as listed."),
    click.option("--error", metavar="TEXT", help="Only with this in the error or its class."),
    click.option("--since", type=Moment(), metavar="WHEN", help="Not older: 2h, 7d, a date."),
    click.option("--until", type=Moment(), metavar="WHEN", help="Not younger."),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The dead letters a command is about: named ones, those that fit the filters, or every one."""

    names: tuple[str, ...]
    wanted: LetterFilter
    every: bool


def filter_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that choose dead letters; the command takes them as one ``wanted``."""

    @functools.wraps(command)
    def with_filter(
        *, type: str | None, handler: str | None, error: str | None, since: datetime | None,
        until: datetime | None, **others: Any,
    ) -> int:  # fmt: skip
        wanted = LetterFilter(type=type, handler=handler, error=error, since=since, until=until)
        return command(wanted=wanted, **others)

    for option in reversed(OPTIONS):
        with_filter = option(with_filter)
    return with_filter


def letters_of(
    letters: DeadLetters, wanted: LetterFilter, progress: Progress | None = None
) -> AsyncIterator[DeadLetter]:
    """Read those that fit, the oldest first."""
    return letters.list(**asdict(wanted), progress=progress)


async def get(letters: DeadLetters, name: str) -> DeadLetter:
    """Find one by its number or id. Raises NoSuchLetter."""
    progress = Progress("dead letters read:")
    try:
        return await letters.get(name, progress=progress)
    finally:
        progress.clear()


async def for_each(
    letters: DeadLetters, chosen: Chosen, act: Act, verb: str, *, yes: bool, json: bool
) -> int:
    """Act on every chosen dead letter, one line each. Return the exit code."""
    _check(chosen)
    if not chosen.names:
        count = await _count(letters, chosen)
        if not count:
            say("There is no such open dead letter.", err=json)
            return 0
        if not await confirmed(f"{verb} {counted(count, 'dead letter')}?", yes=yes):
            say("Nothing was done.", err=True)
            return FAILED
    code = 0
    async for letter in _meant(letters, chosen):
        try:
            done, said = await act(letter)
        except CannotRetry as error:
            code = FAILED
            done, said = letter, str(error).partition(": ")[2]
        if json:
            say(json_text(as_json(done) | {"said": said}))
        else:
            say(wrapped(printable(said), first=f"#{letter.sequence}  "))
    return code


def _check(chosen: Chosen) -> None:
    filters = chosen.wanted != LetterFilter()
    if sum((bool(chosen.names), filters, chosen.every)) != 1:
        raise CalledWrongly(
            "which dead letters? Give numbers of omni-worker dead-letters list, or filters such as"
            " --handler, or --every; not several of these"
        )


async def _count(letters: DeadLetters, chosen: Chosen) -> int:
    progress = Progress("dead letters read:")
    count = 0
    async for _ in letters_of(letters, chosen.wanted, progress):
        count += 1
    progress.clear()
    return count


async def _meant(letters: DeadLetters, chosen: Chosen) -> AsyncIterator[DeadLetter]:
    if chosen.names:
        # All of them first: a typing error in the last must not leave half of them done.
        for letter in [await get(letters, name) for name in chosen.names]:
            yield letter
        return
    async for letter in letters_of(letters, chosen.wanted):
        yield letter
