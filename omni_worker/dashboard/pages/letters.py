"""Dead letters: the newest first, by filters that are in the URL."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ...letters.read import DeadLetter, LetterFilter
from ...operations.letter_json import as_json
from ...operations.letter_search import OPEN, search_letters
from ..page import Ask, Facts, Page, of_letters
from ..states import error_of
from ..watch import total_open

LIMIT = 50
LONGEST = 500  # characters of an error in a list
NAMES = ("handler", "type", "error", "since", "until", "all")
SPANS = (("", "any time"), ("1h", "last hour"), ("24h", "last day"), ("7d", "last week"))


@dataclass(frozen=True, slots=True)
class Row:
    """A dead letter in the list."""

    letter: DeadLetter
    error: str
    is_open: bool


def row_of(letter: DeadLetter) -> Row:
    """Make the row of a dead letter."""
    error = error_of(letter)
    cut = f"{error[:LONGEST]}…" if len(error) > LONGEST else error
    return Row(letter, cut, letter.state in OPEN)


def filter_of(ask: Ask) -> tuple[LetterFilter, list[str]]:
    """Read the filters of the URL, and which of them cannot be read."""
    wrong = [name for name in ("since", "until") if ask.text(name) and ask.moment(name) is None]
    handler = ask.text("handler")
    return LetterFilter(
        type=ask.text("type") or None,
        handlers={handler} if handler else None,
        error=ask.text("error") or None,
        since=ask.moment("since"),
        until=ask.moment("until"),
        all=bool(ask.text("all")),
    ), wrong


def given(ask: Ask) -> dict[str, str]:
    """Return the filters as the URL has them, empty ones too."""
    return {name: ask.text(name) for name in NAMES}


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Search from the newest back, and show what is found on the way."""
    wanted, wrong = filter_of(ask)
    services = ask.services
    steps = search_letters(services.transport, wanted, limit=LIMIT, before=ask.number("before"))
    async with aclosing(steps):
        async for step in steps:
            is_over = step.is_complete or len(step.letters) >= LIMIT
            yield {
                "rows": [row_of(one) for one in step.letters],
                "step": step,
                "is_over": is_over,
                "given": given(ask),
                "wrong": wrong,
                "open": total_open(services.watch.snapshot.letters),
                "by_handler": _by_handler(ask),
                "by_error": _by_error(ask, given(ask)["handler"]),
                "is_filtered": any(text for name, text in given(ask).items() if name != "all"),
                "spans": SPANS,
                "notice": notice(ask),
                "json": _json(step.letters, step.before, is_complete=step.is_complete),
            }


def _by_handler(ask: Ask) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for (_, handler), count in (ask.services.watch.snapshot.letters or {}).items():
        if handler:
            counts[handler] = counts.get(handler, 0) + count
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:12]


def _by_error(ask: Ask, handler: str) -> list[tuple[str, int]]:
    """Return the most frequent classes of errors, of one handler if it is given."""
    counts: dict[str, int] = {}
    for (whose, kind), count in ask.services.watch.snapshot.errors.items():
        if kind and handler in ("", whose):
            counts[kind] = counts.get(kind, 0) + count
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:8]


def notice(ask: Ask) -> str:
    """Say what was done a moment ago; only words of ours, whatever the URL says."""
    number = ask.number("number")
    words = {
        "retry": "is on its way back to its handler.",
        "before": "was sent back earlier; nothing was sent now.",
        "discard": "is discarded. It stays stored, and can still be retried.",
    }
    said = words.get(ask.text("done"))
    return f"Dead letter #{number} {said}" if said and number is not None else ""


def _json(letters: tuple[DeadLetter, ...], before: int, *, is_complete: bool) -> dict[str, Any]:
    return {
        "letters": [as_json(one) for one in letters],
        "before": None if is_complete else before,
    }


PAGE = Page(path="/letters", name="letters", title="Dead letters", facts=facts, version=of_letters)
