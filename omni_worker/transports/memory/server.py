"""The server in memory: streams, consumers and time, shared by the transports of one test."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ...errors import ConsumerGone, NoStream, TransportError
from ...subjects import matches
from ..atomic import MOST
from ..base import Serve, Stored
from ..headers import format_headers
from ..timestamps import nanoseconds
from .configs import (
    Config,
    check_consumer_update,
    check_overlap,
    check_stream_update,
    full_consumer_config,
    full_stream_config,
    no_stream,
    refusal,
)
from .consumer import MemoryConsumer
from .pulls import Puller
from .schedules import next_due, produced
from .stream import MemoryStream, Record

MAX_PAYLOAD = 1_048_576
VERSION = (2, 15, 1)  # the nats-server whose behaviour is followed

Service = tuple[str, Serve]  # a subject, perhaps with wildcards, and who answers there


class MemoryServer:
    """A JetStream of one event loop, with that loop's clock. It ends with its last reference.

    Every method acts at once; deliveries arrive in a later turn of the loop.
    """

    def __init__(
        self, *, max_payload: int = MAX_PAYLOAD, version: tuple[int, int, int] = VERSION
    ) -> None:
        self.max_payload = max_payload
        self.version = version  # an older one refuses what it could not do
        self.streams: dict[str, MemoryStream] = {}
        self._consumers: dict[tuple[str, str], MemoryConsumer] = {}
        self._owners: dict[str, MemoryStream | None] = {}
        self._copied: dict[tuple[str, str, str], int] = {}  # copy, origin, filter → next sequence
        self._epoch: int | None = None
        self._last_time = 0
        self.watchers: list[
            Callable[[str, Record], None]
        ] = []  # called for every published message
        self.services: list[Service] = []
        self._due: list[tuple[int, str, int]] = []  # a heap of schedules: time, stream, sequence
        self._alarm: asyncio.TimerHandle | None = None  # of the first of them

    def clock(self) -> int:
        """Return epoch nanoseconds by the loop's clock, never the same value twice."""
        now = int(asyncio.get_running_loop().time() * 1e9)
        if self._epoch is None:
            self._epoch = time.time_ns() - now
        # An identity is (stream, sequence, time), even while a virtual clock does not move.
        self._last_time = max(self._last_time + 1, self._epoch + now)
        return self._last_time

    def ask_services(self, subject: str) -> list[bytes]:
        """Return the answer of each service that hears a subject and has one."""
        answers = []
        for heard, answer in self.services:
            if matches(heard, subject):
                with suppress(Exception):  # one that fails does not answer
                    answers.append(answer(subject))
        return [one for one in answers if one is not None]

    # --- messages --------------------------------------------------------------------------

    def store(
        self, subject: str | bytes, body: bytes, headers: bytes | Mapping[str, str] | None = None
    ) -> Stored:
        """Store a message with any content. Raises NoStream, ApiError."""
        if isinstance(subject, bytes):
            subject = subject.decode("utf-8", "surrogateescape")
        if isinstance(headers, Mapping):
            headers = format_headers(headers)
        owner = self._owner(subject)
        if owner is None:
            raise NoStream(f"no stream on the server stores {subject!r}")
        stored = owner.store(subject, body, headers)
        if not stored.duplicate:
            if self.watchers and (record := owner.get(stored.sequence)) is not None:
                for watch in self.watchers:
                    watch(owner.name, record)
            if (due := owner.schedules.get(stored.sequence)) is not None:
                heapq.heappush(self._due, (due.at, owner.name, stored.sequence))
                self._set_alarm()
            self._after_store(owner, subject)
        return stored

    def store_atomic(self, messages: Sequence[tuple[str, bytes, bytes]]) -> Stored:
        """Store all of these, in this order, or none; the last. Raises NoStream, ApiError."""
        first = messages[0][0]
        owner = self._owner(first)
        if owner is None:
            raise NoStream(f"no stream on the server stores {first!r}")
        if not owner.config["allow_atomic"]:
            raise refusal(first, "atomic publish is disabled", 400, 10174)
        if len(messages) > MOST:
            raise refusal(first, f"atomic publish batch is too large: {MOST}", 400, 10199)
        if any(self._owner(subject) is not owner for subject, _, _ in messages):
            raise refusal(first, "atomic publish batch is incomplete", 400, 10176)
        owner.check_batch(messages)
        return [self.store(*message) for message in messages][-1]

    # --- schedules -------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        """Wake when the next schedule is due."""
        loop = asyncio.get_running_loop()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._due:
            # A loop fires a timer up to its resolution early; nothing is due then.
            wait = max(0, self._due[0][0] - self.clock()) / 1e9 + 2e-6
            self._alarm = loop.call_later(wait, self._fire)

    def _fire(self) -> None:
        """Store what every schedule that is due produces, and forget the schedule."""
        self._alarm = None
        while self._due and self._due[0][0] <= self.clock():
            _, name, sequence = heapq.heappop(self._due)
            stream = self.streams.get(name)
            due = None if stream is None else stream.schedules.get(sequence)
            if stream is None or due is None:  # replaced or cancelled
                continue
            record = stream.get(sequence)
            assert record is not None
            again = next_due(due, self.clock())
            if again is None:
                stream.purge(record.subject)
            else:
                stream.schedules[sequence] = again
                heapq.heappush(self._due, (again.at, name, sequence))
            self.store(due.target, record.body, produced(record.block, record.subject, again))
        self._set_alarm()

    # --- streams ---------------------------------------------------------------------------

    def stream(self, name: str, verb: str) -> MemoryStream:
        """Return an existing stream, after dropping expired messages. Raises ApiError 10059."""
        stream = self.streams.get(name)
        if stream is None:
            raise no_stream(verb)
        stream.expire(self.clock())
        return stream

    def create_stream(self, requested: Mapping[str, Any]) -> MemoryStream:
        """Create a stream; repeating it changes nothing. Raises ApiError 10058 or 10065."""
        config = full_stream_config(requested)
        standing = self.streams.get(config["name"])
        if standing is not None:
            if standing.config != config:
                text = "stream name already in use with a different configuration"
                raise refusal(f"STREAM.CREATE.{config['name']}", text, 400, 10058)
            return standing
        check_overlap(config, self._other_configs(config["name"]))
        stream = self.streams[config["name"]] = MemoryStream(config, self.clock)
        self._owners.clear()
        self._copy_into(stream)
        return stream

    def update_stream(self, requested: Mapping[str, Any]) -> MemoryStream:
        """Replace a stream's whole configuration. Raises ApiError."""
        stream = self.stream(requested["name"], f"STREAM.UPDATE.{requested['name']}")
        config = full_stream_config(requested)
        check_stream_update(stream.config, config)
        check_overlap(config, self._other_configs(config["name"]))
        stream.config = config
        self._owners.clear()
        self._copy_into(stream)
        return stream

    def delete_stream(self, name: str) -> None:
        """Remove a stream with its consumers; no error if it is gone already."""
        if self.streams.pop(name, None) is None:
            return
        self._owners.clear()
        for key in [key for key in self._copied if name in key[:2]]:
            del self._copied[key]
        for stream, consumer in [key for key in self._consumers if key[0] == name]:
            self.delete_consumer(stream, consumer)

    def stream_info(self, stream: MemoryStream) -> dict[str, Any]:
        """Return a stream's configuration and state, as the server's JSON."""
        return stream.info(len(self.consumers(stream.name)))

    # --- consumers -------------------------------------------------------------------------

    def consumers(self, stream: str) -> list[MemoryConsumer]:
        """Return the consumers of a stream, without those unused for too long."""
        names = [name for owner, name in list(self._consumers) if owner == stream]
        found = [self.consumer(stream, name) for name in names]
        return [one for one in found if one is not None]

    def consumer(self, stream: str, name: str) -> MemoryConsumer | None:
        """Return one consumer, None if there is none or it was unused for too long."""
        consumer = self._consumers.get((stream, name))
        if consumer is not None and consumer.is_unused():
            self.delete_consumer(stream, name)
            return None
        return consumer

    def create_consumer(self, stream: str, requested: Mapping[str, Any]) -> MemoryConsumer:
        """Create, never update. Raises ApiError 10148 if a different one exists."""
        verb = f"CONSUMER.CREATE.{stream}.{requested['name']}"
        origin = self.stream(stream, verb)
        config = full_consumer_config(requested)
        standing = self.consumer(stream, config["name"])
        if standing is not None:
            if standing.config != config:
                raise refusal(verb, "consumer already exists", 400, 10148)
            return standing
        consumer = MemoryConsumer(origin, config, self.clock)
        self._consumers[stream, config["name"]] = consumer
        return consumer

    def update_consumer(self, stream: str, requested: Mapping[str, Any]) -> MemoryConsumer:
        """Update, never create. Raises ApiError 10149 if there is none."""
        verb = f"CONSUMER.CREATE.{stream}.{requested['name']}"
        self.stream(stream, verb)
        consumer = self.consumer(stream, requested["name"])
        if consumer is None:
            raise refusal(verb, "consumer does not exist", 400, 10149)
        config: Config = full_consumer_config(requested)
        check_consumer_update(consumer.config, config)
        consumer.configure(config)
        return consumer

    def pause_consumer(self, stream: str, name: str, until: str) -> bool:
        """Pause a consumer; return True if the time is not over. Raises ApiError 10014."""
        consumer = self.consumer(stream, name)
        if consumer is None:
            raise refusal(f"CONSUMER.PAUSE.{stream}.{name}", "consumer not found", 404, 10014)
        return consumer.pause(until)

    def delete_consumer(self, stream: str, name: str) -> None:
        """Remove a consumer; no error if it is gone already."""
        consumer = self._consumers.pop((stream, name), None)
        if consumer is not None:
            consumer.end(TransportError(f"consumer {name} on {stream}: consumer deleted"))

    # --- what a client sends ---------------------------------------------------------------

    def pull(
        self, stream: str, name: str, puller: Puller, count: int, ends: float | None = None
    ) -> None:
        """Hand ``count`` messages to ``puller`` as they come, for at most ``ends`` seconds."""
        consumer = self.consumer(stream, name)
        if consumer is None:
            puller.gone(ConsumerGone(stream, name))
        else:
            consumer.pull(puller, count, ends)

    def withdraw(self, stream: str, name: str, puller: Puller) -> None:
        """Forget the requests of ``puller``."""
        consumer = self._consumers.get((stream, name))
        if consumer is not None:
            consumer.withdraw(puller)

    def cut_off(self, stream: str, name: str, puller: Puller) -> None:
        """Forget the requests of ``puller``, whose link is cut."""
        consumer = self._consumers.get((stream, name))
        if consumer is not None:
            consumer.cut_off(puller)

    def release(self, stream: str, name: str, puller: Puller) -> None:
        """Forget the requests of ``puller``, which is closed."""
        consumer = self._consumers.get((stream, name))
        if consumer is not None:
            consumer.release(puller)

    def answer(self, stream: str, name: str, sequence: int, answer: bytes) -> None:
        """Take the answer to a delivery; ignored if the consumer is gone."""
        consumer = self.consumer(stream, name)
        if consumer is not None:
            consumer.answer(sequence, answer)

    # --- inside ----------------------------------------------------------------------------

    def _owner(self, subject: str) -> MemoryStream | None:
        if subject not in self._owners:
            found = (stream for stream in self.streams.values() if stream.holds(subject))
            self._owners[subject] = next(found, None)
        return self._owners[subject]

    def _other_configs(self, name: str) -> list[Config]:
        return [stream.config for stream in self.streams.values() if stream.name != name]

    def _after_store(self, stream: MemoryStream, subject: str) -> None:
        for (owner, _), consumer in self._consumers.items():
            if owner == stream.name:
                consumer.on_stored(subject)
        for copy in list(self.streams.values()):
            if any(source["name"] == stream.name for source in copy.config.get("sources") or ()):
                self._copy_into(copy)

    def _copy_into(self, copy: MemoryStream) -> None:
        """Bring a stream's sources up to date, in the order of their origin."""
        sources = copy.config.get("sources") or ()
        for name in dict.fromkeys(source["name"] for source in sources):
            origin = self.streams.get(name)
            if origin is None:
                continue
            found: list[tuple[int, str, Record]] = []
            for source in sources:
                if source["name"] == name:
                    found += self._uncopied(copy, origin, source)
            for _, pattern, record in sorted(found, key=lambda one: one[0]):
                copy.store(record.subject, record.body, _sourced(record, name, pattern))
                self._after_store(copy, record.subject)

    def _uncopied(
        self, copy: MemoryStream, origin: MemoryStream, source: Mapping[str, Any]
    ) -> list[tuple[int, str, Record]]:
        pattern = source.get("filter_subject") or ">"
        key = (copy.name, origin.name, pattern)
        start = self._copied.get(key)
        if start is None:
            start = source.get("opt_start_seq") or 1
            if when := source.get("opt_start_time"):
                start = origin.sequence_at(nanoseconds(when))
        self._copied[key] = max(start, origin.last_sequence + 1)
        return [
            (record.sequence, pattern, record)
            for record in origin.since(start)
            if matches(pattern, record.subject)
        ]


def _sourced(record: Record, origin: str, pattern: str) -> bytes:
    """Return the header block of a copy, with its origin as the server writes it."""
    block = record.block or b"NATS/1.0\r\n\r\n"
    subject = record.subject.encode("utf-8", "surrogateescape")
    source = b"%b %d %b > %b" % (origin.encode(), record.sequence, pattern.encode(), subject)
    return block[:-2] + b"Nats-Stream-Source: " + source + b"\r\n\r\n"
