"""Rights of this login: reading is tried; the others are on the server's list of permissions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import PermissionDenied, TransportError
from ...events import DEAD_LETTER
from ...letters.marks import BUCKET as MARKS
from ...limits import BUCKET as LIMITS
from ...notes.attempts import BUCKET as NOTES
from ...notes.guards import BUCKET as GUARDS
from ...subjects import Unaddressed, covers, intersection, subject_on_the_wire
from ...topology import holds_events, route
from ...transports.base import Operators, Transport
from ...transports.infos import Permissions, StreamConfig
from ..scan import Scan
from .finding import Finding, Level, denied

ADVICE = "grant it where it is needed; docs/operations.md lists them all"


@dataclass(frozen=True, slots=True)
class Need:
    """Subjects that a command publishes on; a domain renames ``{api}`` and precedes ``{kv}``."""

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
RETRYING = Need("dead-letters retry and discard", ("omni-worker.retry.>", f"{{kv}}.{MARKS}.>"))
APPLYING = Need(
    "plan --apply", ("{api}.STREAM.CREATE.*", "{api}.STREAM.UPDATE.*", "{api}.CONSUMER.CREATE.>")
)
WORKING = Need("a worker", ("$JS.ACK.>", "{letter}", f"{{kv}}.{NOTES}.>"))
GUARDED = Need("a handler with exactly_once", (f"{{kv}}.{GUARDS}.>",))
LIMITED = Need("a handler with rate or limit", (f"{{kv}}.{LIMITS}.>",))
OPERATORS = READING, RETRYING, APPLYING
WORKERS = WORKING, GUARDED, LIMITED  # this login may be an operator's, which needs none of these


async def tried_rights(transport: Transport, configs: Sequence[StreamConfig]) -> list[Finding]:
    """Try the rights for reading on a stream of events; nothing is changed."""
    name = next(iter(route([DEAD_LETTER], configs)), None)
    name = name or next((one.name for one in configs if holds_events(one)), None)
    if name is None:
        return [Finding(Level.NOTE, "rights", "there is no stream yet to try them on")]
    operators = transport.operators
    stream: str = name

    async def read() -> None:
        # With follow: an empty stream would otherwise be read without any request.
        async with Scan(transport, stream, filters=["system.doctor.probe"], follow=True):
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


async def list_of_rights(
    operators: Operators, domain: str | None, unaddressed: Unaddressed = "bare"
) -> list[Finding]:
    """Check the other rights against the server's list of this login's permissions."""
    permissions = await operators.permissions()
    if permissions is None:
        return [
            Finding(
                Level.NOTE, "rights",
                "the server does not list the rights of this login; grant $SYS.REQ.USER.INFO, and"
                " all of them are checked",
            )
        ]  # fmt: skip
    found = []
    for need in (*OPERATORS, *WORKERS):
        missing = missing_rights(permissions, need, domain=domain, unaddressed=unaddressed)
        if missing:
            level = Level.NOTE if need in WORKERS else Level.WARN
            says = f"{need.who}: no right, or only a partial one, to publish {', '.join(missing)}"
            found.append(Finding(level, "rights", says, ADVICE))
    if found:
        return found
    return [Finding(Level.OK, "rights", "all that these commands and a worker need")]


def missing_rights(
    permissions: Permissions,
    need: Need,
    *,
    domain: str | None = None,
    unaddressed: Unaddressed = "bare",
) -> list[str]:
    """Return the subjects of a need that this login may not, or not fully, publish on."""
    allowed, denied = permissions.publish_allow, permissions.publish_deny
    api = f"$JS.{domain}.API" if domain else "$JS.API"
    names = {
        "{api}": api,
        "{kv}": f"{api}.$KV" if domain else "$KV",
        "{letter}": subject_on_the_wire(DEAD_LETTER, DEAD_LETTER, unaddressed),
    }
    wanted = list(need.subjects)
    for name, stands_for in names.items():
        wanted = [one.replace(name, stands_for) for one in wanted]
    return [one for one in wanted if not _is_granted(one, allowed, denied)]


def _is_granted(subject: str, allowed: Sequence[str], denied: Sequence[str]) -> bool:
    if any(intersection(one, subject) is not None for one in denied):
        return False
    return not allowed or any(covers(one, subject) for one in allowed)
