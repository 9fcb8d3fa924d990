"""Services: requests over core NATS, answered here, or asked of all who serve a subject."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ...errors import OmniWorkerError, PermissionDenied
from ..base import Serve
from ..headers import status_of
from .connection import Connection
from .frames import frame
from .loggers import LINK

log = logging.getLogger(LINK)

REPLIES_KEPT = 64  # subjects answered lately, to know a denied answer


@dataclass(eq=False, slots=True)
class _Served:
    subject: str
    answer: Serve
    on_denied: Callable[[Exception], None]
    sid: int | None = None
    is_denied: bool = False
    has_failed: bool = False
    replies: deque[str] = field(default_factory=lambda: deque(maxlen=REPLIES_KEPT))


class Services:
    """Subjects that this connection serves, and questions to those who serve others."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._served: list[_Served] = []
        self._asking: dict[str, asyncio.Future[None]] = {}  # by subject and by inbox
        connection.on_denied.append(self._on_denied)
        connection.is_optional.append(self._is_optional)

    def listen(self) -> None:
        """Subscribe to what is served; once per opened connection."""
        for served in self._served:
            served.sid = None
            self._listen(served)

    def serve(
        self, subject: str, answer: Serve, on_denied: Callable[[Exception], None]
    ) -> Callable[[], None]:
        """Answer requests on a subject; returns the way to stop."""
        served = _Served(subject, answer, on_denied)
        self._served.append(served)
        self._listen(served)

        def stop() -> None:
            if served in self._served:
                self._served.remove(served)
                self._mute(served)

        return stop

    async def ask_all(self, subject: str, within: float) -> list[bytes]:
        """Ask all who serve a subject; return the answers that came ``within`` seconds."""
        await self._connection.wait_up(within)
        inbox, largest = self._connection.new_inbox(), self._connection.max_payload
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answers: list[bytes] = []

        def take(_: bytes, __: bytes, headers: bytes | None, body: bytes) -> None:
            if status_of(headers):  # 503: there is no such service
                if not over.done():
                    over.set_result(None)
            else:
                answers.append(body)

        sid = self._connection.listen(inbox, take)
        names = (subject, inbox.decode())
        self._asking |= dict.fromkeys(names, over)
        self._connection.send(frame(subject, inbox, b"", b"", max_payload=largest))
        try:
            await asyncio.wait([over], timeout=within)
            if over.done():
                over.result()
            return answers
        finally:
            self._connection.forget(sid)
            for name in names:
                if self._asking.get(name) is over:
                    del self._asking[name]

    # --- inside ------------------------------------------------------------------------------

    def _listen(self, served: _Served) -> None:
        def take(subject: bytes, reply: bytes, _: bytes | None, __: bytes) -> None:
            if reply and not served.is_denied:
                self._answer(served, subject.decode("utf-8", "replace"), reply.decode())

        if not served.is_denied:
            served.sid = self._connection.listen(served.subject.encode(), take)

    def _answer(self, served: _Served, subject: str, reply: str) -> None:
        """Answer one request. The reader calls: what is raised here would end the connection."""
        try:
            body = served.answer(subject)
            if body is None:
                return
            largest = self._connection.max_payload
            data = frame(reply, b"", b"", body, max_payload=largest)
        except Exception as error:
            if not isinstance(error, OmniWorkerError) and not served.has_failed:
                served.has_failed = True
                log.exception("requests on %s are not answered", served.subject)
            return
        served.replies.append(reply)
        self._connection.send(data)

    def _mute(self, served: _Served) -> None:
        if served.sid is not None:
            self._connection.forget(served.sid)
            served.sid = None

    def _is_optional(self, verb: str, subject: str) -> bool:
        return subject in self._asking or self._denied(verb, subject) is not None

    def _denied(self, verb: str, subject: str) -> _Served | None:
        for one in self._served:
            if subject == one.subject if verb == "subscription" else subject in one.replies:
                return one
        return None

    def _on_denied(self, subject: str, error: PermissionDenied) -> None:
        # An answer first: a process that asks itself knows the inbox as well.
        served = self._denied("publish", subject) or self._denied("subscription", subject)
        if served is not None and not served.is_denied:
            served.is_denied = True
            self._mute(served)
            served.on_denied(error)
            return
        asking = self._asking.get(subject)
        if asking is not None and not asking.done():
            asking.set_exception(error)
