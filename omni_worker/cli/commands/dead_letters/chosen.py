"""Chosen: the dead letters that a command is about, by number or by filters."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ....handlers import Handler
from ....letters.read import DeadLetter
from ....operations.dead_letters import CannotRetry, DeadLetters
from ....operations.handler_names import HandlerNames
from ....operations.letter_json import as_json
from ... import FAILED, say
from ...session import CalledWrongly, Progress, confirmed
from ...tables import counted, json_text, printable, wrapped
from ...values import Moment

if TYPE_CHECKING:
    from ....app import App

Act = Callable[[DeadLetter], Awaitable[tuple[DeadLetter, str]]]

app_option = click.option(
    "--app", "target", metavar="MODULE[:APP]",
    help="The app of the handlers: its server, and the names of its functions.",
)  # fmt: skip

OPTIONS = (
    click.option("--type", metavar="TYPE", help="Only events of this type."),
    click.option("--handler", metavar="NAME", help="Only of this handler, as listed."),
    click.option("--error", metavar="TEXT", help="Only with this in the error or its class."),
    click.option("--since", type=Moment(), metavar="WHEN", help="Not older: 2h, 7d, a date."),
    click.option("--until", type=Moment(), metavar="WHEN", help="Not newer."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Options that choose dead letters; what is None does not matter."""

    type: str | None = None
    handler: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    all: bool = False
    target: str | None = field(default=None, compare=False)  # MODULE:APP, for the handler's name


@dataclass(frozen=True, slots=True)
class Chosen:
    """Dead letters a command is about: named ones, those that fit the filters, or every one."""

    names: tuple[str, ...]
    filters: Filters
    every: bool


def filter_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that choose dead letters; the command takes them as one ``filters``."""

    @functools.wraps(command)
    def with_filters(**given: Any) -> int:
        filters = {one.name: given.pop(one.name) for one in fields(Filters) if one.name in given}
        return command(filters=Filters(**filters), **given)

    for option in reversed((*OPTIONS, app_option)):
        with_filters = option(with_filters)
    return with_filters


def handlers_of(app: App | None) -> Sequence[Handler]:
    """Return the handlers whose functions are known."""
    return app.handlers if app is not None else ()


def shown_handler(letter: DeadLetter, names: HandlerNames) -> str | None:
    """Name the handler of a dead letter for people, with its function if that is known."""
    return names.shown(letter.app, letter.handler) if letter.handler else None


def letters_of(
    letters: DeadLetters, filters: Filters, progress: Progress | None = None
) -> AsyncIterator[DeadLetter]:
    """Read those that fit, the oldest first."""
    return letters.list(
        type=filters.type, handler=filters.handler, error=filters.error, since=filters.since,
        until=filters.until, all=filters.all, progress=progress,
    )  # fmt: skip


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
            done, said = letter, error.reason
        if json:
            say(json_text(as_json(done) | {"said": said}))
        else:
            say(wrapped(printable(said), first=f"#{letter.sequence}  "))
    return code


def _check(chosen: Chosen) -> None:
    is_filtered = chosen.filters != Filters()
    if sum((bool(chosen.names), is_filtered, chosen.every)) != 1:
        raise CalledWrongly(
            "which dead letters? Give numbers of omni-worker dead-letters list, or filters such as"
            " --handler, or --every; not several of these"
        )


async def _count(letters: DeadLetters, chosen: Chosen) -> int:
    progress = Progress("dead letters read:")
    count = 0
    async for _ in letters_of(letters, chosen.filters, progress):
        count += 1
    progress.clear()
    return count


async def _meant(letters: DeadLetters, chosen: Chosen) -> AsyncIterator[DeadLetter]:
    if chosen.names:
        # All of them first: a typing error in the last must not leave half of them done.
        for letter in [await get(letters, name) for name in chosen.names]:
            yield letter
        return
    async for letter in letters_of(letters, chosen.filters):
        yield letter
