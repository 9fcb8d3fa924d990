"""Ledger: where a handler's account of settled events begins, and which processes write in it.

One record for each consumer. With it and the settled notes `omni-worker audit` can account for
every event. A process that ended without removing itself was killed: what it had settled since its
last note is not in the account. Each process renews its entry every minute, so the record also says
until when it may have been alive.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ..errors import OmniWorkerError
from ..transports.key_value import KeyValue

PATIENCE = 2.0  # seconds for one change
TRIES = 10  # other processes change the record too
RENEWED_EVERY = 60.0  # seconds
OUTLIVES = 2 * RENEWED_EVERY  # seconds; a process is alive no longer than that after its entry


@dataclass(frozen=True, slots=True)
class Account:
    """A record: the first sequence of the account, and the processes that write in it."""

    begin: int
    begun_at: float = 0.0  # seconds since 1970; 0 if it is not known
    writers: Mapping[str, float] = field(default_factory=dict)  # host and pid: time of its entry

    def may_explain(self, name: str, stored_at: float) -> bool:
        """Return True if a process may have been alive when an event was stored."""
        return name in self.writers and self.writers[name] + OUTLIVES >= stored_at


class Ledger:
    """Records of one handler, in the bucket of its notes. A failure leaves the record as it is."""

    def __init__(self, bucket: Callable[[], Awaitable[KeyValue]], handler: str) -> None:
        self._open_bucket = bucket
        self._handler = handler
        self._writer = writer(socket.gethostname(), os.getpid())

    async def begin(self, stream: str, origin: str, sequence: int) -> None:
        """Enter this process; a record that does not exist begins at ``sequence``."""

        def entered(account: Account | None) -> Account:
            now = time.time()
            found = account or Account(sequence, now)
            return replace(found, writers={**found.writers, self._writer: now})

        await self._change(stream, origin, entered)

    async def end(self, stream: str, origin: str) -> None:
        """Remove this process: everything that it settled is noted."""

        def left(account: Account | None) -> Account | None:
            if account is None:
                return None
            others = {one: at for one, at in account.writers.items() if one != self._writer}
            return replace(account, writers=others)

        await self._change(stream, origin, left)

    async def _change(
        self, stream: str, origin: str, change: Callable[[Account | None], Account | None]
    ) -> None:
        key = account_key(self._handler, stream, origin)
        with suppress(OmniWorkerError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                bucket = await self._open_bucket()
                for _ in range(TRIES):
                    entry = await bucket.get(key)
                    account = change(read_account(entry.value) if entry is not None else None)
                    if account is None:
                        return
                    value = write_account(account)
                    written = (
                        await bucket.create(key, value)
                        if entry is None
                        else await bucket.update(key, value, entry.revision)
                    )
                    if written is not None:
                        return


def writer(host: str, pid: int) -> str:
    """Return the name of a process in a record."""
    return f"{host} pid {pid}"


def account_key(handler: str, stream: str, origin: str) -> str:
    """Return the key of a record."""
    return hashlib.sha256(f"account\n{handler}\n{stream}\n{origin}".encode()).hexdigest()[:32]


def write_account(account: Account) -> bytes:
    """Return a record as bytes."""
    raw = {"begin": account.begin, "at": account.begun_at, "writers": dict(account.writers)}
    return json.dumps(raw).encode()


def read_account(value: bytes) -> Account | None:
    """Return None for what cannot be read."""
    try:
        raw = json.loads(value)
        writers = {str(name): float(at) for name, at in raw["writers"].items()}
        return Account(int(raw["begin"]), float(raw["at"]), writers)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
