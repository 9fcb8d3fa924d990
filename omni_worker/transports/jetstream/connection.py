"""The connection: one server link after another, and subscriptions that outlive them.

This room knows NATS, not JetStream. Every end of a link is handled alike: with a new client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any

import backoff
from nats import errors as nats_errors
from nats.nuid import NUID

from ...errors import (
    ConnectError,
    NotConnected,
    PermissionDenied,
    TransportError,
)
from ...settings import Settings, without_userinfo
from ...tasks import own
from ..base import LinkChange
from .client import Client
from .loggers import LINK, RIGHTS
from .login import (
    describe,
    discovered,
    explain,
    is_answered,
    login_options,
    what_is_denied,
    with_inbox_hint,
)
from .parser import Sink

log = logging.getLogger(LINK)
rights = logging.getLogger(RIGHTS)

SHORT_LIFE = 1.0  # seconds; a link that breaks sooner counts as trouble with the server
DENIALS_SAID = 1_000  # kinds of missing rights that are logged


class Connection:
    """Link to the server, renewed when it breaks, as often as the settings allow."""

    def __init__(self, settings: Settings, gives_up: Callable[[], bool] = lambda: True) -> None:
        self._settings = settings
        self._gives_up = gives_up
        self._name = ""
        self._client: Client | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.is_up = False  # whether there is a working link
        self.write: Callable[[bytes], None] | None = None  # into the link, while there is one
        self._came_up = asyncio.Event()
        self._lost: asyncio.Future[Exception] | None = None
        self._failed: asyncio.Future[Exception] | None = None
        self._closed = asyncio.Event()
        self._opening: asyncio.Lock | None = None  # of the loop that connects
        self._sid = 0
        self._listening: dict[int, tuple[bytes, Sink]] = {}
        # Seconds: processes of one machine share a clock, and must not all act at the same moment.
        self.phase = random.uniform(0.0, 60.0)
        self._denied: dict[bytes, PermissionDenied] = {}  # subscriptions this server refused
        self._denials_said: set[tuple[str, ...]] = set()
        self._discovered: list[str] = []
        self._url = settings.urls[0]  # of the server that is connected to, or tried
        self.max_payload = 1_048_576  # bytes of body and headers; INFO of the server replaces it
        self.on_up: list[Callable[[], None]] = []
        self.on_down: list[Callable[[], None]] = []
        self.on_change: list[Callable[[LinkChange], None]] = []
        self.on_fail: list[Callable[[Exception], None]] = []
        self.on_denied: list[Callable[[str, PermissionDenied], None]] = []
        # Asked with verb and subject: True if its owner does without this right, and reports it.
        self.is_optional: list[Callable[[str, str], bool]] = []

    # --- life ------------------------------------------------------------------------------

    @property
    def failure(self) -> Exception | None:
        """Cause for which the connection was given up, None while it was not."""
        return self._failed.result() if self._failed is not None and self._failed.done() else None

    @property
    def info(self) -> dict[str, Any]:
        """INFO of the last server."""
        return self._client.info() if self._client else {}

    async def open(self, name: str) -> bool:
        """Connect if not connected. Return True if subscriptions must be renewed.

        Raises TransportError with the last cause when every try failed. A concurrent call waits:
        there is one link.
        """
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            return await self._open(name)

    async def _open(self, name: str) -> bool:
        if self._keeper is not None and not self._keeper.done():
            return False
        loop = asyncio.get_running_loop()
        self._name = name
        self._closed.clear()
        self._failed = loop.create_future()
        self._listening.clear()
        try:
            await self._connect()
        except TransportError as error:
            self._failed.set_result(error)
            raise
        if self._closed.is_set():
            await self.close()
            raise NotConnected("the connection was closed while it was being made")
        self._keeper = loop.create_task(self._keep(), name=own("connection"))
        return True

    async def close(self, timeout: float = 2.0) -> None:
        """Send what is unsent and disconnect; ``open`` may be called again."""
        self._closed.set()
        self._set_up(False)
        self._opening = None
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self._client is not None:
            await self._client.finish(timeout)
            self._client = None
        self._listening.clear()

    async def failed(self) -> Exception:
        """Wait until the connection is given up for good; return the reason."""
        if self._failed is None:
            raise NotConnected("not connected yet")
        return await asyncio.shield(self._failed)

    def force_reconnect(self, why: str) -> None:
        """Drop a link that looks alive but is not."""
        if self._client is not None and self.is_up:
            self._client.lose(nats_errors.Error(why))

    async def wait_up(self, timeout: float) -> None:
        """Wait for a link. Raises TransportError when none comes in ``timeout`` seconds."""
        if self.is_up:
            return
        self.check_usable()
        try:
            async with asyncio.timeout(timeout):
                await self._up_or_over()
        except TimeoutError:
            raise TransportError(
                f"no connection to {self._settings.shown_urls} for {timeout:g} s"
            ) from None
        self.check_usable()

    def check_usable(self) -> None:
        """Raise TransportError if there is no link and none will come."""
        if self.failure is not None:
            raise self.failure
        if self._closed.is_set() or self._failed is None:
            raise NotConnected("not connected: call connect() first")

    def check_heard(self, subject: bytes) -> None:
        """Raise PermissionDenied if the server refused this subscription."""
        if subject in self._denied:
            raise self._denied[subject]

    def new_inbox(self) -> bytes:
        """Return a subject for answers that only this connection hears."""
        return b"%b.%b" % (self._settings.inbox_prefix.encode(), bytes(NUID().next()))

    # --- messages --------------------------------------------------------------------------

    def listen(self, subject: bytes, sink: Sink) -> int:
        """Subscribe now and after every reconnect; returns a handle."""
        self._sid += 1
        self._listening[self._sid] = (subject, sink)
        if self._client is not None and self.is_up:
            self._subscribe(self._client, self._sid, subject, sink)
        return self._sid

    def mute(self, sid: int) -> None:
        """Unsubscribe at the server; messages on their way still reach the sink."""
        self._listening.pop(sid, None)
        if self._client is not None and self.is_up:
            self._client.send(b"UNSUB %d\r\n" % sid)

    def forget(self, sid: int) -> None:
        """Unsubscribe, and drop messages on their way."""
        self.mute(sid)
        if self._client is not None:
            self._client.sinks.pop(b"%d" % sid, None)

    def send(self, data: bytes) -> bool:
        """Write if there is a link; return whether there was."""
        if self._client is None or not self.is_up:
            return False
        self._client.send(data)
        return True

    async def flush(self, timeout: float) -> bool:
        """Return whether the server read everything sent so far, within ``timeout`` seconds."""
        if self._client is None or not self.is_up:
            return False
        done, _ = await asyncio.wait([self._client.pong()], timeout=timeout)
        return any(not pong.cancelled() for pong in done)

    # --- connecting ------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Keep the link until closed; any other end is reported as a failure."""
        try:
            await self._make_again()
        except TransportError as error:
            self._give_up(error)
        except Exception as error:  # a bug of ours: if it were ignored, the worker would hang
            log.exception("the connection's keeper failed")
            self._give_up(TransportError(f"the connection's keeper failed: {error!r}"))

    async def _make_again(self) -> None:
        """Renew the link whenever it breaks. Raises TransportError when out of tries."""
        loop = asyncio.get_running_loop()
        short_lives = 0
        while True:
            assert self._lost is not None
            came_up = loop.time()
            cause = await self._lost
            self._set_up(False)
            for hook in self.on_down:
                hook()
            self._tell_change(cause)
            log.warning(
                "connection lost: %s", describe(cause), extra={"omni_server": self._shown()}
            )
            # A server that accepts and drops us must not be hammered.
            short_lives = short_lives + 1 if loop.time() - came_up < SHORT_LIFE else 0
            if short_lives > 1:
                await asyncio.sleep(self._settings.reconnect_delay * min(short_lives, 10))
            await self._connect(again=True)
            log.info("connected again", extra={"omni_server": self._shown()})

    async def _connect(self, *, again: bool = False) -> None:
        """Try every server, then wait with full jitter, as often as the settings say."""
        settings = self._settings
        waits = backoff.expo(
            base=2, factor=settings.reconnect_delay, max_value=settings.reconnect_max_delay
        )
        next(waits)  # the generator's first value is None
        tries = 0
        while True:
            tries += 1
            cause = await self._try_servers()
            if cause is None:
                self._use_link()
                return
            # A web process that only publishes is not started again, as a worker is: it tries on.
            limit = settings.reconnect_max_retries if not again or self._gives_up() else None
            if limit is not None and tries > limit:
                count = "1 try" if tries == 1 else f"{tries} tries"
                raise ConnectError(
                    f"cannot connect to {settings.shown_urls} after {count}: {describe(cause)}",
                    is_answered=is_answered(cause),
                ) from None
            wait = backoff.full_jitter(next(waits))
            log.warning(
                "cannot connect to %s: %s; try %d%s in %.1f s", settings.shown_urls,
                describe(cause), tries + 1, f" of {limit + 1}" if limit is not None else "", wait,
                extra={"omni_server": settings.shown_urls},
            )  # fmt: skip
            await asyncio.sleep(wait)

    async def _try_servers(self) -> Exception | None:
        """Connect to one of the known servers; return the last cause if none is available."""
        urls = [*self._settings.urls, *self._discovered]
        random.shuffle(urls)
        cause: Exception | None = None
        for url in urls:
            self._lost = asyncio.get_running_loop().create_future()
            self._url = url
            client = Client(
                require_tls=self._settings.wants_tls,
                on_lost=_setter(self._lost),
                on_denied=self._on_denied,
                on_info=self._read_info,
            )
            try:
                await client.start(
                    without_userinfo(url),
                    timeout=self._settings.connect_timeout,
                    options={"name": self._name, **login_options(self._settings, url)},
                )
            except Exception as error:
                cause = explain(error, client.info(), self._settings, url)
                continue
            self._client = client
            return None
        return cause

    def _use_link(self) -> None:
        assert self._client is not None
        self._denied.clear()
        self._read_info(self.info)
        for sid, (subject, sink) in self._listening.items():
            self._subscribe(self._client, sid, subject, sink)
        self._set_up(True)
        for hook in self.on_up:
            hook()
        self._tell_change()

    def _tell_change(self, cause: Exception | None = None) -> None:
        for hook in self.on_change:
            hook(LinkChange(self._shown(), self.is_up, cause))

    def _set_up(self, is_up: bool) -> None:
        self.is_up = is_up
        self.write = self._client.send if is_up and self._client is not None else None
        (self._came_up.set if is_up else self._came_up.clear)()

    @staticmethod
    def _subscribe(client: Client, sid: int, subject: bytes, sink: Sink) -> None:
        client.sinks[b"%d" % sid] = sink
        client.send(b"SUB %b %d\r\n" % (subject, sid))

    def _read_info(self, info: dict[str, Any]) -> None:
        self.max_payload = int(info.get("max_payload") or self.max_payload)
        others = info.get("connect_urls") or []
        self._discovered = discovered(others, self._settings.urls, self._url)

    def _on_denied(self, text: str) -> None:
        text = with_inbox_hint(text, self._settings.inbox_prefix)
        error = PermissionDenied(f"the server denies us a right: {text}")
        verb, subject = what_is_denied(text)
        # Once per kind: every answer has a subject of its own, and an event's ends in an instance.
        kind = (verb, *subject.split(".")[:4])
        is_optional = any(knows(verb, subject) for knows in self.is_optional)
        is_new = kind not in self._denials_said and len(self._denials_said) < DENIALS_SAID
        if is_new and not is_optional:
            self._denials_said.add(kind)
            rights.error("permission denied: %s", text)
        if verb == "subscription":
            self._denied[subject.encode()] = error
        for hook in self.on_denied:
            hook(subject, error)

    def _give_up(self, error: TransportError) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(error)
        self._client = None
        for hook in self.on_fail:
            hook(error)

    async def _up_or_over(self) -> None:
        assert self._failed is not None
        up = asyncio.create_task(self._came_up.wait())
        closed = asyncio.create_task(self._closed.wait())
        waits: set[asyncio.Future[Any]] = {up, closed, self._failed}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
            closed.cancel()

    def _shown(self) -> str:
        url = self._client.connected_url if self._client else None
        return without_userinfo(url.geturl()) if url else self._settings.shown_urls


def _setter(future: asyncio.Future[Exception]) -> Callable[[Exception], None]:
    def set_once(cause: Exception) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            future.set_result(cause)

    return set_once
