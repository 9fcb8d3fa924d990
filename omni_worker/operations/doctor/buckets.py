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
    operators: Operators, streams: Sequence[StreamInfo], written: Collection[str] | None = None, *,
    domain: str | None = None, provisions: bool = True,
) -> list[Finding]:  # fmt: skip
    """Return what keeps the buckets from working, as far as this login may see it.

    ``written`` are the buckets that it must be able to write, if that is known; ``provisions``:
    workers create what is missing.
    """
    account = permissions = None
    with suppress(PermissionDenied, ApiError):
        account = await operators.account()
    with suppress(PermissionDenied, ApiError):
        permissions = await operators.permissions()
    found = bucket_findings(streams, account, needed=written, provisions=provisions)
    for bucket in written or ():
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
    streams: Sequence[StreamInfo], account: AccountInfo | None = None, *,
    needed: Collection[str] | None = None, provisions: bool = True,
) -> list[Finding]:  # fmt: skip
    """Return a finding for each bucket of ours that does not work, with what stops without it.

    A missing one counts if it is ``needed``; where that is not known, it may be.
    """
    standing = {info.name: info for info in streams}
    found: list[Finding] = []
    for bucket, without in BUCKETS.items():
        info = standing.get(f"KV_{bucket}")
        if info is not None:
            found += _of_bucket(bucket, info, without)
        elif needed is None or bucket in needed:
            is_needed = needed is not None or bucket == attempts.BUCKET
            found += _of_missing(bucket, without, account, provisions, is_needed=is_needed)
    return found


def _of_missing(
    bucket: str, without: str, account: AccountInfo | None, provisions: bool, *, is_needed: bool
) -> Iterator[Finding]:
    level = Level.WARN if is_needed else Level.NOTE
    if not provisions:
        yield Finding(
            level, bucket, f"missing, and provisioning is off: {without}",
            "omni-worker plan MODULE:APP --apply creates it",
        )  # fmt: skip
    elif account is not None and account.requires_max_bytes:
        yield Finding(
            Level.WARN, bucket,
            f"missing, and this account creates no stream without max_bytes: {without}",
            "set OMNI_WORKER_MAX_BYTES for the workers, which create it then; or:"
            f" nats kv add {bucket} --max-bucket-size=…",
        )  # fmt: skip
    elif account is not None and 0 < account.max_streams <= account.streams:
        yield Finding(
            level, bucket,
            f"missing, and this account is limited to {account.max_streams} streams:"
            f" {without}",
            "raise the account's max_streams, or delete a stream that is not needed",
        )  # fmt: skip


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
