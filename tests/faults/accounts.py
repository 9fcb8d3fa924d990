"""Accounts: where every published event ended, by id, and how often each ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HEAD = (
    "scenario", "published", "handled", "skipped", "letters", "waiting", "destroyed", "lost",
    "run twice", "ended twice", "note",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """published = handled + skipped + lettered + waiting (+ what operations destroyed)."""

    published: frozenset[str]
    handled: frozenset[str]
    skipped: frozenset[str]
    lettered: frozenset[str]
    waiting: frozenset[str]
    destroyed: frozenset[str]
    begun: Counter[str] = field(default_factory=Counter)  # runs; retries are runs too
    ended: Counter[str] = field(default_factory=Counter)  # runs that came to their end

    @property
    def lost(self) -> set[str]:
        """Published, and in none of the places an event may be."""
        known = self.handled | self.skipped | self.lettered | self.waiting | self.destroyed
        return set(self.published - known)

    @property
    def run_twice(self) -> int:
        """Events whose handler began more than once."""
        return sum(count > 1 for count in self.begun.values())

    @property
    def ended_twice(self) -> int:
        """Events whose handler came to its end more than once: what an effect sees as a double."""
        return sum(count > 1 for count in self.ended.values())

    def check(self) -> None:
        """Nothing lost, nothing invented, every event in one place."""
        assert not self.lost, f"lost {len(self.lost)}: {sorted(self.lost)[:5]}"
        assert self.handled <= self.published, "handled what nobody published"
        assert not self.handled & self.skipped, "handled and skipped"
        assert not self.handled & self.lettered, "handled and dead-lettered"
        assert not self.handled & self.waiting, "handled and waiting"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was done, and what came of it."""

    scenario: str
    account: Account
    note: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of HEAD. What is handled and was destroyed afterwards counts as handled."""
        one = self.account
        gone = one.destroyed - one.handled - one.lettered
        numbers = (
            len(one.published), len(one.handled), len(one.skipped), len(one.lettered),
            len(one.waiting), len(gone), len(one.lost), one.run_twice, one.ended_twice,
        )  # fmt: skip
        return (self.scenario, *map(str, numbers), self.note)


def table(rows: Iterable[Sequence[str]]) -> str:
    """The cells of rows as Markdown, as wide as they are."""
    cells = [HEAD, *rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]

    def line(texts: Sequence[str]) -> str:
        padded = (
            text.ljust(width) if column in (0, len(HEAD) - 1) else text.rjust(width)
            for column, (text, width) in enumerate(zip(texts, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        "-" * (width + 2) if column in (0, len(HEAD) - 1) else "-" * (width + 1) + ":"
        for column, width in enumerate(widths)
    )
    return "\n".join([line(HEAD), f"|{rule}|", *map(line, rows)])


def by_key(effects: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The events of each key as they first came to their end: what is handled may end again."""
    seen: dict[str, dict[str, None]] = {}
    for one in effects:
        seen.setdefault(one["key"], {}).setdefault(one["id"])
    return {key: list(ended) for key, ended in seen.items()}


def out_of_order(effects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Events that ended after a later one of their key."""
    found = []
    for ended in by_key(effects).values():
        latest = ""
        for one in ended:
            found += [one] if one < latest else []
            latest = max(latest, one)
    return found
