"""Rights: what this login may do: what only reads is tried, of the rest the server has a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import PermissionDenied, TransportError
from ...events import DEAD_LETTER
from ...letters.marks import BUCKET as MARKS
from ...notes.attempts import BUCKET as NOTES
from ...subjects import covers, intersection
from ...topology import holds_events, route
from ...transports.base import Operators, Transport
from ...transports.infos import Permissions, StreamConfig
from ..scan import Scan
from .finding import Finding, Level, denied

ADVICE = "grant it where it is needed; docs/operations.md lists them all"


@dataclass(frozen=True, slots=True)
class Need:
    """Who has to publish on what; ``{api}`` is the JetStream API, which a domain renames."""

    who: str
    subjects: tuple[str, ...]


READING = Need(
    "reading streams, consumers and events",
    (
        "{api}.INFO", "{api}.STREAM.LIST", "{api}.STREAM.INFO.*", "{api}.STREAM.MSG.GET.*",
        "{api}.CONSUMER.LIST.*", "{api}.CONSUMER.INFO.>", "{api}.CONSUMER.CREATE.>",
        "{api}.CONSUMER.MSG.NEXT.>", "{api}.CONSUMER.DELETE.>",
    ),
)  # fmt: skip
RETRYING = Need("dead-letters retry and discard", ("omni-worker.retry.>", f"$KV.{MARKS}.>"))
APPLYING = Need(
    "plan --apply", ("{api}.STREAM.CREATE.*", "{api}.STREAM.UPDATE.*", "{api}.CONSUMER.CREATE.>")
)
WORKING = Need("a worker", ("$JS.ACK.>", DEAD_LETTER, f"$KV.{NOTES}.>"))


async def tried_rights(transport: Transport, configs: Sequence[StreamConfig]) -> list[Finding]:
    """What reading asks of JetStream, tried on a stream of events where it changes nothing."""
    name = next(iter(route([DEAD_LETTER], configs)), None)
    name = name or next((one.name for one in configs if holds_events(one)), None)
    if name is None:
        return [Finding(Level.NOTE, "rights", "nothing to try them on yet")]
    operators = transport.operators
    stream: str = name

    async def read() -> None:
        # Following, since an empty stream would be read without asking for anything.
        async with Scan(transport, stream, filters=["system.nobody.publishes.this"], follow=True):
            pass

    found: list[Finding] = []
    for attempt in (
        lambda: operators.stream_info(stream),
        lambda: operators.consumers(stream),
        lambda: operators.consumer_info(stream, "omni-worker-none"),
        lambda: operators.message(stream, 1),
        read,
    ):
        try:
            await attempt()
        except PermissionDenied as error:
            found.append(denied("rights", error))
        except TransportError as error:
            found.append(Finding(Level.WARN, "rights", str(error)))
    return found or [Finding(Level.OK, "rights", f"streams and consumers can be read ({stream})")]


async def list_of_rights(operators: Operators, domain: str | None) -> list[Finding]:
    """What else is needed and not granted, by the server's list of this login's permissions."""
    permissions = await operators.permissions()
    if permissions is None:
        return [
            Finding(
                Level.NOTE, "rights",
                "the server does not list this login's; with $SYS.REQ.USER.INFO granted all are"
                " looked at",
            )
        ]  # fmt: skip
    found = []
    for need in (READING, RETRYING, APPLYING, WORKING):
        missing = missing_rights(permissions, need, domain=domain)
        if missing:
            level = Level.NOTE if need is WORKING else Level.WARN
            says = f"{need.who}: no right to publish {', '.join(missing)}, or not all of it"
            found.append(Finding(level, "rights", says, ADVICE))
    if found:
        return found
    return [Finding(Level.OK, "rights", "all that these commands and a worker need")]


def missing_rights(permissions: Permissions, need: Need, *, domain: str | None = None) -> list[str]:
    """The subjects of a need that this login may not publish on, or not on all of them."""
    allowed, denied = permissions.publish_allow, permissions.publish_deny
    api = f"$JS.{domain}.API" if domain else "$JS.API"
    wanted = [one.replace("{api}", api) for one in need.subjects]
    return [one for one in wanted if not _is_granted(one, allowed, denied)]


def _is_granted(subject: str, allowed: Sequence[str], denied: Sequence[str]) -> bool:
    if any(intersection(one, subject) is not None for one in denied):
        return False
    return not allowed or any(covers(one, subject) for one in allowed)
