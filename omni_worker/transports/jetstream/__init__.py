"""The JetStream transport: the port over a real server. Only this folder imports nats."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from ...errors import NotConnected, PermissionDenied, TransportError
from ...settings import Settings
from ..atomic import check_version
from ..base import LinkChange, Message, Operators, Receiver, Serve, Served, Source, Stored
from ..bucket import Bucket
from .api import Api
from .atomic import AtomicBatches
from .connection import Connection
from .loggers import SERVER
from .outbox import Outbox
from .pinned_pull import PinnedPull
from .pull import Pull
from .request_limits import Budget, RequestLimits
from .requests import Requests
from .services import Services

log = logging.getLogger(SERVER)

OLDEST = (2, 10, 0)
RECOMMENDED = (2, 11, 3)
CONFIRM_TIME = 1.0  # seconds that closing waits for unconfirmed publishes
LATE = 0.5  # seconds


class JetStreamTransport:
    """Implements the Transport port over nats-server 2.10 or newer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.gives_up: Callable[[], bool] = lambda: True
        self._connection = Connection(settings, gives_up=lambda: self.gives_up())
        self._requests = Requests(self._connection)
        self._api = Api(self._requests, settings.js_domain, settings.max_bytes)
        self.operators: Operators = self._api
        self._outbox = Outbox(self._connection, self._api.owner, settings.js_domain)
        self._batches = AtomicBatches(
            self._connection, self._requests, self._api.owner, settings.js_domain
        )
        self._services = Services(self._connection)
        self._pulls: set[Pull] = set()
        self._budget = Budget()
        self._up_since = 0.0
        self._watcher: asyncio.TimerHandle | None = None
        self._connection.on_up.append(self._on_up)
        self._connection.on_down.append(self._on_down)
        self._connection.on_denied.append(self._on_denied)

    @property
    def is_connected(self) -> bool:
        """True while a link is up."""
        return self._connection.is_up

    @property
    def failure(self) -> Exception | None:
        """Reason why it gave up for good, None while it has not."""
        return self._connection.failure

    @property
    def server_id(self) -> str:
        """The server's own; empty before the first connection."""
        return str(self._connection.info.get("server_id", ""))

    @property
    def max_payload(self) -> int:
        """Limit that the server reported; 1 MiB before the first connection."""
        return self._connection.max_payload

    @property
    def server_version(self) -> tuple[int, int, int]:
        """Version of the server: (2, 11, 2) for `2.11.2-beta`."""
        words = str(self._connection.info.get("version") or "0.0.0").split("-")[0].split(".")
        numbers = [int(word) if word.isdigit() else 0 for word in (*words, "0", "0")]
        return numbers[0], numbers[1], numbers[2]

    def clock(self) -> int:
        """Return the time of this machine."""
        return time.time_ns()

    def watch(self, watcher: Callable[[LinkChange], None]) -> None:
        """Watch the link. A server that is reached and then refused counts as a change too."""
        self._connection.on_change.append(watcher)

    async def open(self, name: str) -> None:
        """Connect and check the server. Raises TransportError."""
        if await self._connection.open(name):
            self._requests.listen()
            self._pulls.clear()  # those of a connection that was given up read nothing
            self._outbox.listen()
            self._services.listen()
        try:
            self._check_server()
        except TransportError:
            await self.close()
            raise
        if self._watcher is None:
            self._watch()

    async def close(self) -> None:
        """Wait shortly for confirmations, write out the answers, disconnect."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        for pull in list(self._pulls):
            await pull.close()
        self._pulls.clear()
        if self._connection.is_up:
            await self._outbox.confirmed(CONFIRM_TIME)
        self._outbox.close(NotConnected("the connection was closed"))
        await self._connection.close()
        self._requests.close()

    async def flush(self, timeout: float) -> bool:
        """Send a PING after everything written so far, and wait for its PONG."""
        return await self._connection.flush(timeout)

    async def failed(self) -> Exception:
        """Wait until the connection is given up; return the reason."""
        return await self._connection.failed()

    def publish(self, message: Message, *, timeout: float) -> Coroutine[Any, Any, Stored]:
        """Store one message."""
        return self._outbox.publish(message, timeout=timeout)

    def publish_many(
        self, messages: Iterable[Message], *, timeout: float
    ) -> Coroutine[Any, Any, Sequence[Stored | Exception]]:
        """Store many, pipelined."""
        return self._outbox.publish_many(messages, timeout=timeout)

    async def publish_atomic(self, messages: Sequence[Message], *, timeout: float) -> Stored:
        """Store all or none."""
        check_version(self.server_version)
        return await self._batches.publish(messages, timeout=timeout)

    async def consume(
        self, stream: str, consumer: str, receiver: Receiver, *, served: Served | None = None
    ) -> Source:
        """Read a consumer that exists."""
        self._pulls = {pull for pull in self._pulls if not pull.is_over}
        info = await self._api.consumer_info(stream, consumer)
        config = None if info is None else info.config
        has_group = config is not None and config.raw.get("priority_groups")
        kind: Callable[..., Pull] = Pull
        if served is not None or has_group:
            kind = partial(PinnedPull, config=config, served=served)
        pull = kind(
            self._connection,
            self._requests,
            self._api.prefix,
            stream,
            consumer,
            receiver,
            self._api.consumer_info,
            RequestLimits(self._budget, config),
            created=0 if info is None else info.created,
            on_deleted=self._on_deleted,
        )
        self._pulls.add(pull)
        return pull

    async def bucket(self, name: str, *, ttl: float) -> Bucket:
        """Return a bucket, created if it is missing and provisioning is on."""
        bucket = Bucket(
            self._api, name, ttl=ttl,
            replicas=self._settings.replicas, create=self._settings.provision == "on",
        )  # fmt: skip
        await bucket.ensure()
        return bucket

    def serve(
        self, subject: str, answer: Serve, *, on_denied: Callable[[Exception], None]
    ) -> Callable[[], None]:
        """Answer requests on a core subject, after each reconnect as well."""
        return self._services.serve(subject, answer, on_denied)

    def ask_all(self, subject: str, *, within: float) -> Coroutine[Any, Any, list[bytes]]:
        """Ask all who serve a core subject."""
        return self._services.ask_all(subject, within)

    def _check_server(self) -> None:
        version = self.server_version
        if version < OLDEST:
            raise TransportError(
                f"nats-server {_dotted(version)} is too old: {_dotted(OLDEST)} or newer is needed"
            )
        if version < RECOMMENDED:
            log.warning(
                "nats-server %s delivers slowly to consumers with several filters;"
                " %s or newer is recommended", _dotted(version), _dotted(RECOMMENDED),
            )  # fmt: skip

    def _on_down(self) -> None:
        lived = asyncio.get_running_loop().time() - self._up_since
        if any(one.outstanding for one in self._pulls) and self._budget.link_broke(lived):
            log.info("pulls ask for at most %d bytes at a time from now on", self._budget.bytes)
        for pull in list(self._pulls):
            pull.on_down()

    def _on_up(self) -> None:
        self._up_since = asyncio.get_running_loop().time()
        for pull in list(self._pulls):
            pull.on_up()

    def _on_denied(self, subject: str, error: PermissionDenied) -> None:
        for pull in list(self._pulls):
            pull.on_denied(subject, error)

    def _on_deleted(self, deleted: Pull) -> None:
        """Check the other consumers of its stream.

        A server that deletes a stream loses some of the notices to its consumers' requests (seen
        for one of thirty), and then only silence would tell, after eleven seconds.
        """
        for pull in list(self._pulls):
            if pull.stream == deleted.stream:
                pull.check()

    def _watch(self) -> None:
        """Check the heartbeats of all pulls, with one timer."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        # After a blocked loop, the data that arrived is read first: only we were silent.
        if self._watcher is None or now - self._watcher.when() < LATE:
            for pull in list(self._pulls):
                pull.watch(now)
        self._watcher = loop.call_later(1.0, self._watch)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)
