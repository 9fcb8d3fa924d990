"""Steps: what an app needs and the server lacks, or has otherwise, for people and programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from ..topology import CreateBucket, CreateConsumer, CreateStream, UpdateConsumer, UpdateStream
from .crons import RemoveCron

Change = CreateStream | UpdateStream | CreateConsumer | UpdateConsumer | CreateBucket | RemoveCron


class Action(StrEnum):
    """Action on a stream, consumer or bucket. Only the first three are drift."""

    CREATE = "create"
    UPDATE = "update"
    CONFLICT = "conflict"  # we may not change it: a person has to decide
    LATER = "later"  # done by a worker when it is first needed
    FOREIGN = "foreign"  # another program's; it covers our needs
    ORPHANED = "orphaned"  # ours, and no handler of this version reads it
    NOTE = "note"
    FINE = "fine"


class Kind(StrEnum):
    """Kind of object that an action is about."""

    STREAM = "stream"
    CONSUMER = "consumer"
    CRON = "cron"
    BUCKET = "bucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Need of the app, compared with the server; ``change`` is the request to send."""

    action: Action
    kind: Kind
    name: str
    says: str
    stream: str = ""  # the stream of a consumer
    handler: str = ""  # the name people know a consumer by
    function: str = ""  # of the handler that reads this consumer
    waiting: int = 0  # events of an orphaned consumer that are not delivered
    change: Change | None = None

    @property
    def is_drift(self) -> bool:
        """True if the server differs from the app's needs."""
        return self.action in (Action.CREATE, Action.UPDATE, Action.CONFLICT)


def by_handler(steps: Sequence[Step]) -> list[Step]:
    """Make the same step for both consumers of a handler one, under the name people know."""
    found: dict[tuple[str, ...], Step] = {}
    for one in steps:
        is_orphaned = one.action is Action.ORPHANED and one.kind is Kind.CONSUMER
        name, says = one.handler or one.name, "" if is_orphaned else one.says
        key = (one.action, one.kind, one.stream, name, says)
        if key in found and is_orphaned:
            waiting = found[key].waiting + one.waiting
            says = orphaned_words(name, waiting)
            found[key] = replace(one, name=name, says=says, waiting=waiting)
        else:
            found[key] = replace(one, name=name) if key in found else one
    return list(found.values())


def orphaned_words(name: str, waiting: int) -> str:
    """Say what is known of an orphaned consumer, or of all that a handler had on a stream."""
    wait = "1 event is waiting" if waiting == 1 else f"{waiting} events are waiting"
    return (
        f"no handler of this version reads it, {wait}; when no other version does:"
        f" omni-worker consumers rm {name}"
    )


def as_json(step: Step) -> dict[str, Any]:
    """Write a step for programs."""
    return {
        # Programs know an orphaned consumer as "left".
        "action": "left" if step.action is Action.ORPHANED else step.action,
        "drift": step.is_drift,
        "kind": step.kind,
        "name": step.name,
        "stream": step.stream or (step.name if step.kind is Kind.STREAM else None),
        "says": step.says,
    }
