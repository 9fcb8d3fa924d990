"""The buckets: find those that take no writes, and those that the account refuses to create."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

from ... import limits
from ...errors import ApiError, PermissionDenied
from ...letters import marks
from ...notes import attempts, guards
from ...transports.base import Operators
from ...transports.infos import AccountInfo, StreamInfo
from .finding import Finding, Level, size
from .rights import Need, missing_rights
from .server import FULL

BUCKETS = {
    attempts.BUCKET: "attempts are not counted across processes",
    guards.BUCKET: "handlers with exactly_once take no events",
    limits.BUCKET: "handlers with rate or limit take no events",
    marks.BUCKET: "dead letters cannot be retried",
}


async def bucket_troubles(
    operators: Operators, streams: Sequence[StreamInfo], written: Collection[str] = (), *,
    domain: str | None = None,
) -> list[Finding]:  # fmt: skip
    """Return what keeps the buckets from working, as far as this login may see it.

    ``written`` are the buckets that it must be able to write.
    """
    account = permissions = None
    with suppress(PermissionDenied, ApiError):
        account = await operators.account()
    with suppress(PermissionDenied, ApiError):
        permissions = await operators.permissions()
    found = bucket_findings(streams, account)
    for bucket in written:
        need = Need("a worker", (f"{{kv}}.{bucket}.>",))
        missing = permissions and missing_rights(permissions, need, domain=domain)
        if missing:
            found.append(
                Finding(
                    Level.WARN, bucket,
                    f"this login may not write it; of a worker with that login: {BUCKETS[bucket]}",
                    f"grant it {missing[0]}",
                )
            )  # fmt: skip
    return found


def bucket_findings(
    streams: Sequence[StreamInfo], account: AccountInfo | None = None
) -> list[Finding]:
    """Return a finding for each bucket of ours that does not work, with what stops without it."""
    standing = {info.name: info for info in streams}
    found: list[Finding] = []
    for bucket, without in BUCKETS.items():
        info = standing.get(f"KV_{bucket}")
        if info is not None:
            found += _of_bucket(bucket, info, without)
        elif account is not None and account.requires_max_bytes:
            found.append(
                Finding(
                    Level.WARN, bucket,
                    f"missing, and this account creates no stream without max_bytes: {without}",
                    f"create its stream by hand: nats kv add {bucket} --max-bucket-size=…",
                )
            )  # fmt: skip
    return found


def _of_bucket(bucket: str, info: StreamInfo, without: str) -> Iterator[Finding]:
    config, state = info.config, info.state
    if config.raw.get("sealed"):
        yield Finding(
            Level.FAIL, bucket, f"sealed: {without}",
            f"delete its stream {info.name}; it is created again",
        )  # fmt: skip
    elif 0 < config.max_bytes * FULL <= state.bytes:
        yield Finding(
            Level.FAIL, bucket,
            f"{size(state.bytes)} of {size(config.max_bytes)} used; when full, {without}",
            f"raise max_bytes of its stream {info.name}",
        )  # fmt: skip
