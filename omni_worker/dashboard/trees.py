"""Trees: an event with what caused it and what it caused, in order of time. Pure.

Ids come from anybody: they may repeat, name nothing, or lead in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..events import DEAD_LETTER
from ..letters.read import DeadLetter
from ..operations.trace import ConsumerWord, EventPlace, Trace

Key = tuple[str, int]  # stream and sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An event in the tree; ``share`` is where its time lies between the first and the last."""

    place: EventPlace
    depth: int
    after: float  # seconds after the first event
    share: float
    is_self: bool  # the event that was asked for
    words: tuple[ConsumerWord, ...]
    letters: tuple[DeadLetter, ...]
    ends: tuple[float, ...]  # where the times of its letters lie


def tree_of(
    trace: Trace, words: Mapping[Key, Sequence[ConsumerWord]], *, most: int = 200
) -> list[Node]:
    """Return the events from the first cause on, each followed by what it caused."""
    own = {(one.stream, one.sequence) for one in trace.places}
    places = {
        (one.stream, one.sequence): one
        for one in [*trace.places, *trace.related]
        if one.type != DEAD_LETTER or (one.stream, one.sequence) in own
    }
    letters: dict[str, list[DeadLetter]] = {}
    for letter in [*trace.letters, *trace.related_letters]:
        letters.setdefault(letter.event_id, []).append(letter)
    first = {one.id: key for key, one in sorted(places.items(), key=_by_time, reverse=True)}
    children: dict[Key, list[Key]] = {}
    roots: list[Key] = []
    for key, one in sorted(places.items(), key=_by_time):
        parent = first.get(one.causation_id)
        if parent is None or parent == key:
            roots.append(key)
        else:
            children.setdefault(parent, []).append(key)
    ordered = _walk(roots, children, list(places))
    times = [one.stored_at for one in places.values()]
    times += [_nano(one) for found in letters.values() for one in found]
    begin, end = min(times, default=0), max(times, default=0)
    return [
        Node(
            place=places[key],
            depth=min(depth, 8),
            after=(places[key].stored_at - begin) / 1e9,
            share=(places[key].stored_at - begin) / max(1, end - begin),
            is_self=key in own,
            words=tuple(words.get(key, ())),
            letters=tuple(letters.get(places[key].id, ())),
            ends=tuple(
                (_nano(one) - begin) / max(1, end - begin)
                for one in letters.get(places[key].id, ())
            ),
        )
        for key, depth in ordered[:most]
    ]


def _walk(
    roots: Sequence[Key], children: Mapping[Key, Sequence[Key]], every: Sequence[Key]
) -> list[tuple[Key, int]]:
    """Order depth first; what only a circle of causes leads to begins a tree of its own."""
    ordered: list[tuple[Key, int]] = []
    seen: set[Key] = set()
    for root in [*roots, *every]:
        stack = [(root, 0)]
        while stack:
            key, depth = stack.pop()
            if key in seen:
                continue
            seen.add(key)
            ordered.append((key, depth))
            stack += [(one, depth + 1) for one in reversed(children.get(key, ()))]
    return ordered


def _by_time(item: tuple[Key, EventPlace]) -> tuple[int, Key]:
    return item[1].stored_at, item[0]


def _nano(letter: DeadLetter) -> int:
    return round(letter.time.timestamp() * 1e9)
