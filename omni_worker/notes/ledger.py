"""Ledger: where a handler's account of settled events begins, and which processes write in it.

One record for each consumer. With it and the settled notes `omni-worker audit` can account for
every event. A process that ended without removing itself was killed: what it had settled since its
last note is not in the account.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ..errors import OmniWorkerError
from ..transports.key_value import KeyValue

PATIENCE = 2.0  # seconds for one change
TRIES = 10  # other processes change the record too
RENEWED_EVERY = 3_600.0  # seconds; the bucket forgets what was not written for days


@dataclass(frozen=True, slots=True)
class Account:
    """A record: the first sequence of the account, and the processes that write in it."""

    begin: int
    writers: frozenset[str] = field(default_factory=frozenset)  # host and pid


class Ledger:
    """Records of one handler, in the bucket of its notes. A failure leaves the record as it is."""

    def __init__(self, bucket: Callable[[], Awaitable[KeyValue]], handler: str) -> None:
        self._open_bucket = bucket
        self._handler = handler
        self._writer = writer(socket.gethostname(), os.getpid())

    async def begin(self, stream: str, origin: str, sequence: int) -> None:
        """Enter this process; a record that does not exist begins at ``sequence``."""

        def entered(account: Account | None) -> Account:
            found = account or Account(sequence)
            return replace(found, writers=found.writers | {self._writer})

        await self._change(stream, origin, entered)

    async def end(self, stream: str, origin: str) -> None:
        """Remove this process: everything that it settled is noted."""

        def left(account: Account | None) -> Account | None:
            return account and replace(account, writers=account.writers - {self._writer})

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
    return json.dumps({"begin": account.begin, "writers": sorted(account.writers)}).encode()


def read_account(value: bytes) -> Account | None:
    """Return None for what cannot be read."""
    try:
        raw = json.loads(value)
        return Account(int(raw["begin"]), frozenset(map(str, raw["writers"])))
    except (ValueError, KeyError, TypeError):
        return None
