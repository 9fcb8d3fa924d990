"""Pull: read one consumer continuously, by requests of our own instead of `fetch` (ADR-37).

A pull counts its requested deliveries, understands the server's status messages, and requests
again when a request was lost for any reason. The receiver decides how many deliveries to request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from ...errors import ConsumerGone, PermissionDenied, TransportError
from ..base import ACK, Delivery, Receiver
from ..headers import status_of
from ..infos import ConsumerInfo
from .acks import Answers
from .connection import Connection
from .heartbeats import ELECTED_AFTER, QUIET, next_beat, still_pending
from .last_deliveries import AskConsumerInfo, LastDeliveries
from .loggers import PULLS
from .request_limits import RequestLimits
from .requests import Requests

log = logging.getLogger(PULLS)

_ACKED = b" %d\r\n%b\r\n" % (len(ACK), ACK)


class Pull:
    """Source of the port: reads an existing consumer."""

    def __init__(
        self, connection: Connection, requests: Requests, prefix: str, stream: str, consumer: str,
        receiver: Receiver, consumer_info: AskConsumerInfo, limits: RequestLimits,
        created: int, on_deleted: Callable[[Pull], None],
    ) -> None:  # fmt: skip
        self.stream, self.consumer = stream, consumer
        self._connection, self._requests, self._receiver = connection, requests, receiver
        self._consumer_info, self._on_deleted = consumer_info, on_deleted
        self._created = created  # creation time: a recreated consumer of the same name has another
        self._answers = Answers(connection, requests, self._is_the_same)
        self._acks = self._answers.acks
        self._usual = f"$JS.ACK.{stream}.{consumer}.".encode()  # begins the reply of a delivery
        self._subject = f"{prefix}CONSUMER.MSG.NEXT.{stream}.{consumer}".encode()
        self._limits, self._group = limits, b""  # options of each request
        self._is_more_wanted = False  # than the open request may bring
        self._heard = False  # since the last check of the watch
        self._heard_at = self._well_at = 0.0  # when it was last heard; without trouble
        self._beat = QUIET  # of the latest request
        self._was_quiet = True  # the previous request expired; no request yet counts as quiet
        self._last_count = self._trouble = self.repeats = 0  # the first of the latest request
        self._elected_at = 0.0  # loop time
        self._stopped = self._withdrawing = False
        self._timer: asyncio.TimerHandle | None = None
        self._check: asyncio.Task[object] | None = None
        self._open_inbox()

    # --- the port --------------------------------------------------------------------------

    is_served = True  # each request, beside those of others

    @property
    def silent_for(self) -> float:
        """Return whole seconds without a delivery or heartbeat; error statuses do not count."""
        if not (self.outstanding or self._trouble) or (self._heard and not self._trouble):
            return 0.0
        return asyncio.get_running_loop().time() - self._well_at

    def request(self, count: int, *, brief: bool = False) -> None:
        """Request ``count`` more; a request that cannot be sent is repeated after a reconnect."""
        if self._stopped or self._withdrawing or count <= 0 or not self._connection.is_up:
            return
        wanted, count = count, self._limits.allowed(count, self.outstanding)
        self._is_more_wanted |= count < wanted
        if not count:
            return
        now = asyncio.get_running_loop().time()
        # By time: the old leader's last deliveries may come after its notice. Once: after a silence
        # there is time for an election.
        electing = now < self._elected_at and not self._silences
        beat = next_beat(brief=brief, quiet=self._was_quiet, electing=electing)
        limit = self._limits.option(count, self.outstanding, self._connection.max_payload)
        body = b'{"batch":%d,%b%b' % (count, self._group, limit)
        body += beat.options(now + self._connection.phase, self._limits.expires)
        if self._connection.send(
            b"PUB %b %b %d\r\n%b\r\n" % (self._subject, self._inbox, len(body), body)
        ):
            if not self.outstanding:
                self._heard_at = now
                if not (self._silences or self._trouble):
                    self._well_at = self._heard_at
            if not (brief and self.outstanding):  # the earlier one's heartbeats go on
                self._beat = beat
            self.outstanding += count
            self._last_count = count
            self._was_quiet = False

    def ack(self, delivery: Delivery) -> None:
        """Send an ack without formatting, joined with others of this turn of the loop."""
        frame = b"PUB " + delivery.reply + _ACKED
        if (write := self._connection.write) is not None:
            write(frame)
        self._acks.append(frame)

    def answer(self, delivery: Delivery, answer: bytes, *, settles: bool = False) -> None:
        """Send any other answer, joined as well."""
        self._answers.send(delivery.reply, answer, settles=settles)

    async def confirm(self, delivery: Delivery) -> bool:
        """Acknowledge, and wait for the server's confirmation."""
        return await self._answers.confirm(delivery.reply)

    async def withdraw(self) -> None:
        """Take back the open request: its inbox is replaced once nothing is on its way there."""
        if self._stopped or self._withdrawing or not self.outstanding:
            return
        inbox, sid = self._inbox, self._sid
        self._withdrawing = True
        try:
            await self._last_deliveries()
            if self._stopped or self._inbox != inbox:  # a new link has a new inbox already
                return
            self._connection.mute(sid)
            self._open_inbox()
            with suppress(TransportError):  # a barrier: what came to the old inbox has arrived
                await self._consumer_info(self.stream, self.consumer)
            self._connection.forget(sid)
        finally:
            self._withdrawing = False

    async def stop(self) -> None:
        """Stop pulling, and wait for the deliveries on their way.

        UNSUB removes the interest, our own sink stays; the answer to the request sent after it
        comes after all that the server had sent.
        """
        if self._stopped:
            return
        self._stopped = True
        self._cancel_timers()
        await self._last_deliveries()
        self.outstanding = 0
        self._connection.mute(self._sid)
        if self._connection.is_up:
            try:
                await self._consumer_info(self.stream, self.consumer)
            except TransportError as error:
                log.warning("could not confirm the stop of %s: %s", self.consumer, error)

    async def _last_deliveries(self) -> None:
        await LastDeliveries(
            self, self._connection, self._consumer_info,
            self._subject, self._inbox, self._on_message,
        ).arrive()  # fmt: skip

    def _open_inbox(self) -> None:
        self._inbox = self._connection.new_inbox()
        self._sid = self._connection.listen(self._inbox, self._on_message)
        self.outstanding = self._silences = 0

    async def close(self) -> None:
        """Close the source."""
        self._stopped = True
        self._cancel_timers()
        self._answers.close()
        self._connection.forget(self._sid)

    # --- what the transport calls ----------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """True if the source is stopped, closed or lost: it never requests again."""
        return self._stopped

    def on_down(self) -> None:
        """Handle a broken link: a request may still wait at the server, for the old inbox."""
        if not self._stopped:
            self._connection.forget(self._sid)

    def on_up(self) -> None:
        """Use a new link and a new inbox: the old request must not deliver in addition."""
        if not self._stopped:
            self._open_inbox()
            self._expect_election()  # the server that broke the link may have led the consumer
            self._receiver.resumed(self)
        self._answers.again()  # also the naks of events handed back while we stopped

    def watch(self, now: float) -> None:
        """Watch, every second, for a request that vanished silently (ClickHouse#115343)."""
        if self._heard:
            self._heard, self._heard_at, self._silences = False, now, 0
            if not self._trouble:
                self._well_at = now
                self._answers.all_is_well(now)
        if self._stopped or not self.outstanding or not self._connection.is_up:
            return
        silence = now - self._heard_at
        if silence < self._beat.silence:
            return
        self._silences, self._heard_at = self._silences + 1, now
        log.warning("no heartbeat from consumer %s in %.0f s; asking again", self.consumer, silence)
        if self._silences >= 2:
            self._silences = 0
            self._look_into(self._after_silence)
        else:
            self.outstanding = 0
            self._again()

    def check(self) -> None:
        """Ask for the consumer, if a request is open: another one of its stream was deleted."""
        if self.outstanding and not self._stopped:
            self._look_into(self._ask)

    def on_denied(self, subject: str, error: PermissionDenied) -> None:
        """Handle a missing right; without this one there is nothing to read."""
        answers = subject.startswith("$JS.ACK.") and f".{self.stream}.{self.consumer}." in subject
        # Without answers everything would come again for ever.
        if answers or subject.encode() in (self._subject, self._inbox):
            self.lose(error)

    # --- messages --------------------------------------------------------------------------

    def _on_message(self, subject: bytes, reply: bytes, headers: bytes | None, body: bytes) -> None:
        # $JS.ACK.<stream>.<consumer>.<count>.<sequence>.<consumer sequence>.<time>.<pending>
        if reply.startswith(self._usual):
            count, sequence, _, stored_at, _ = reply[len(self._usual) :].split(b".")
        # By the reply, not by a Status header: an event may carry one of its own.
        elif not reply.startswith(b"$JS.ACK."):
            self._on_status(status_of(headers), headers or b"")
            return
        else:  # with domain and account hash before the stream and a token at the end
            count, sequence, _, stored_at = reply.split(b".")[6:10]
        self._heard = True  # while messages come there are no heartbeats
        self._trouble = 0
        if self.outstanding:
            self.outstanding -= 1
        nth = 1 if count == b"1" else int(count)
        where = subject.decode("utf-8", "surrogateescape")
        self._receiver.receive(
            Delivery(self, where, body, headers, reply, int(sequence), int(stored_at), nth)
        )
        if self._is_more_wanted and not self.outstanding:
            self._ended(0)

    def _on_status(self, status: int, headers: bytes) -> None:
        if not status:
            return  # another program replied to the request: that is no sign of the server
        self._heard = True
        line = headers[13 : headers.find(b"\r\n")].decode("utf-8", "replace")
        match status:
            case 100:
                self._trouble = 0
            case 404 | 408:
                self._was_quiet = bool(self._beat.every)  # a brief one says nothing of it
                self._ended(still_pending(headers, self.outstanding))
            case 409:
                self._on_conflict(line.lower(), headers)
            case 503:
                self._look_into(self._after_nobody)
            case 400 | 423:
                self.lose(TransportError(f"consumer {self.consumer}: {status} {line}"))
            case _:
                log.warning("consumer %s: unknown status %d %s", self.consumer, status, line)

    def _on_conflict(self, line: str, headers: bytes) -> None:
        if "consumer deleted" in line or "push based" in line:
            self.lose(TransportError(f"consumer {self.consumer} on {self.stream}: {line}"))
            self._on_deleted(self)
        elif "exceeded maxrequest" in line:
            self._look_into(self._after_limit)
        elif "batch completed" in line and not still_pending(headers, 0):
            pass  # all of it has come
        elif "batch completed" in line or "maxbytes" in line or "interest expired" in line:
            self._limits.request_ended(line, headers)
            self._ended(still_pending(headers, self.outstanding))
        elif "maxwaiting" in line:  # this request was refused; earlier ones wait on
            log.warning("consumer %s: %s; asking again", self.consumer, line)
            self._ended_later(self._last_count)
        else:
            # Leadership change, server shutdown, and statuses of later versions. The server that
            # goes away may be another one than ours: no reconnect would repeat the request.
            log.warning("consumer %s: %s; asking again", self.consumer, line)
            self._expect_election()
            self._ended_later(self.outstanding)

    def _expect_election(self) -> None:
        self._elected_at = asyncio.get_running_loop().time() + ELECTED_AFTER

    # --- questions to the API -------------------------------------------------------------

    def _look_into(self, ask: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Ask one question at a time; the next sign of trouble asks again."""
        if self._check is None or self._check.done():
            self._check = asyncio.get_running_loop().create_task(ask())

    async def _after_limit(self) -> None:
        """Handle a refused request: the consumer's limits were set after we began to read."""
        info = await self._ask()
        is_changed = info is not None and self._limits.read(info.config)
        (self._ended if is_changed else self._ended_later)(self.outstanding)

    async def _after_nobody(self) -> None:
        """Handle status 503: the consumer is missing, or JetStream is not back yet."""
        await self._ask()
        self._ended_later(self.outstanding)

    async def _after_silence(self) -> None:
        """Handle silence after a second request: a deaf link, or too many waiting requests."""
        silent = self._inbox
        info = await self._ask()
        if self._stopped:
            return
        if info is not None and info.num_waiting >= info.config.max_waiting > 0:
            # The server refuses a request with heartbeats silently, again and again.
            log.warning(
                "consumer %s: %d requests of others wait there, its max_waiting; asking again",
                self.consumer, info.num_waiting,
            )  # fmt: skip
            self._ended_later(self.outstanding)
        elif silent == self._inbox:  # else a new link has answered: the silence was the old one's
            self._connection.force_reconnect("no heartbeats")

    async def _ask(self) -> ConsumerInfo | None:
        """Read the consumer; None without an answer. If it is missing, the source is lost."""
        with suppress(TransportError):
            if (info := await self._consumer_info(self.stream, self.consumer)) is None:
                self.lose(ConsumerGone(self.stream, self.consumer))
            return info
        return None

    # --- endings ---------------------------------------------------------------------------

    def _ended(self, count: int) -> None:
        self.outstanding = max(0, self.outstanding - count)
        self._is_more_wanted = False
        if not self._stopped:
            self._receiver.replenish(self)

    def _ended_later(self, count: int) -> None:
        """Ask again after a growing pause, so that a troubled server is not hammered."""
        self.outstanding = max(0, self.outstanding - count)
        self._trouble = min(self._trouble + 1, 5)
        if self._timer is None and not self._stopped:
            pause = min(2.0, 0.1 * 2**self._trouble)
            self._timer = asyncio.get_running_loop().call_later(pause, self._after_pause)

    def _after_pause(self) -> None:
        """Request again as after a reconnect: the consumer may have been recreated."""
        self._timer = None
        self._again()

    def _again(self) -> None:
        if not self._stopped:
            self.repeats += 1
            self._receiver.resumed(self)  # deliveries and requests may be lost, and answers
            self._answers.again()
        self._ended(0)

    async def _is_the_same(self) -> bool:
        info = await self._consumer_info(self.stream, self.consumer)
        return info is not None and info.created == self._created

    def lose(self, cause: Exception) -> None:
        """Stop reading: the consumer is gone."""
        if not self._stopped:
            self._stopped = True
            self.outstanding = 0
            self._cancel_timers()
            self._connection.forget(self._sid)
            self._receiver.lost(self, cause)

    def _cancel_timers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._check is not None and self._check is not asyncio.current_task():
            self._check.cancel()
