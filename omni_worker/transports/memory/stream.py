"""A stream in memory: messages in sequence, their ids, and the limits that remove both.

Age is checked at each access, not by a timer: an idle stream leaves the loop idle. The limits
max_age, max_msgs_per_subject, max_msg_size and the duplicate window apply; others do not.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...subjects import matches
from ..base import Stored, StoredMessage
from ..headers import parse_headers
from ..timestamps import timestamp
from .configs import Config, as_shown, refusal
from .schedules import Due, rolls_up, schedule_of, ttl_of

Clock = Callable[[], int]  # epoch nanoseconds, never the same twice

NEVER = "0001-01-01T00:00:00Z"
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"


@dataclass(frozen=True, slots=True)
class Record:
    """A stored message; ``block`` is its header block as on the wire."""

    subject: str
    sequence: int
    body: bytes
    block: bytes | None
    stored_at: int  # epoch nanoseconds


class MemoryStream:
    """Messages of one stream. Sequences start at 1 and are never used twice."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self.config = config
        self.last_sequence = 0
        self.on_removed: list[Callable[[int], None]] = []  # called with each removed sequence
        self._clock = clock
        self.created = clock()
        self._records: dict[int, Record] = {}
        self._order: deque[int] = deque()  # sequences, oldest first; some are removed already
        self._aging: deque[int] = deque()  # those that max_age removes, likewise
        self._ttls: list[tuple[int, int]] = []  # a heap: end of its own time, sequence
        self.schedules: dict[int, Due] = {}  # by sequence
        self._by_subject: dict[str, deque[int]] = {}
        self._ids: dict[str, int] = {}
        self._id_times: deque[tuple[int, str]] = deque()

    @property
    def name(self) -> str:
        """Name of the stream."""
        return str(self.config["name"])

    @property
    def first_sequence(self) -> int:
        """Sequence of the oldest message; one past the last if the stream is empty."""
        while self._order and self._order[0] not in self._records:
            self._order.popleft()
        return self._order[0] if self._order else self.last_sequence + 1

    def holds(self, subject: str) -> bool:
        """Return True if the stream stores messages published to ``subject``."""
        return any(matches(pattern, subject) for pattern in self.config.get("subjects") or ())

    def store(self, subject: str, body: bytes, block: bytes | None) -> Stored:
        """Append a message if its id was not stored within the duplicate window.

        Raises ApiError 10071 if a header expects another last sequence of the subject.
        """
        now = self._clock()
        self.expire(now)
        headers = parse_headers(block)
        [message_id, *_] = headers.get("Nats-Msg-Id") or [""]
        if message_id in self._ids:
            return Stored(self.name, self._ids[message_id], duplicate=True)
        self._check_size(subject, body, block)
        self._check_expected(subject, headers)
        due = schedule_of(self.config, subject, headers, now)
        ttl = ttl_of(self.config, subject, headers)
        if rolls_up(self.config, headers):
            self.purge(subject)
        self.last_sequence += 1
        if due is not None:
            self.schedules[self.last_sequence] = due
        self._keep(Record(subject, self.last_sequence, body, block, now), ttl)
        if message_id and self.config.get("duplicate_window"):
            self._ids[message_id] = self.last_sequence
            self._id_times.append((now, message_id))
        return Stored(self.name, self.last_sequence, duplicate=False)

    def check_batch(self, messages: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Refuse a batch with any message that ``store`` would refuse, or not store again."""
        now = self._clock()
        self.expire(now)
        ids, subjects = set(self._ids), set[str]()
        for subject, body, block in messages:
            headers = parse_headers(block)
            for id in headers.get("Nats-Msg-Id", ()):
                if id in ids:
                    text = "atomic publish batch contains duplicate message id"
                    raise refusal(subject, text, 400, 10201)
                ids.add(id)
            self._check_size(subject, body, block)
            if subject in subjects and headers.get(_EXPECTED):
                raise refusal(subject, "wrong last sequence", 400, 10164)
            subjects.add(subject)
            self._check_expected(subject, headers)
            schedule_of(self.config, subject, headers, now)
            ttl_of(self.config, subject, headers)

    def get(self, sequence: int) -> Record | None:
        """Return one message, None if the stream does not hold it."""
        return self._records.get(sequence)

    def last(self, subject: str) -> Record | None:
        """Return the last message of one subject."""
        sequences = self._by_subject.get(subject)
        return self._records[sequences[-1]] if sequences else None

    def since(self, sequence: int) -> Iterator[Record]:
        """Yield every message from ``sequence`` on."""
        for one in range(max(sequence, self.first_sequence), self.last_sequence + 1):
            if (record := self._records.get(one)) is not None:
                yield record

    def sequence_at(self, when: int) -> int:
        """Return the first sequence stored at ``when`` or later; one past the last if none is."""
        found = (record.sequence for record in self.since(0) if record.stored_at >= when)
        return next(found, self.last_sequence + 1)

    def expire(self, now: int) -> None:
        """Remove expired messages and ids."""
        max_age = self.config["max_age"]
        while max_age and self._aging:
            oldest = self._records.get(self._aging[0])
            if oldest is not None and oldest.stored_at + max_age > now:
                break
            self._aging.popleft()
            if oldest is not None:
                self._forget(oldest)
        while self._ttls and self._ttls[0][0] <= now:
            _, sequence = heapq.heappop(self._ttls)
            if (ended := self._records.get(sequence)) is not None:
                self._forget(ended)
        window = self.config.get("duplicate_window") or 0
        while self._id_times and self._id_times[0][0] + window <= now:
            _, message_id = self._id_times.popleft()
            del self._ids[message_id]

    def purge(self, subject: str) -> None:
        """Remove every message of one subject."""
        for sequence in list(self._by_subject.get(subject, ())):
            self._forget(self._records[sequence])

    def info(self, consumers: int) -> dict[str, Any]:
        """Return configuration and state, as the server's JSON."""
        first, last = self.get(self.first_sequence), self.get(self.last_sequence)
        size = sum(
            len(one.subject) + len(one.body) + len(one.block or b"")
            for one in self._records.values()
        )
        state = {
            "messages": len(self._records),
            "bytes": size,
            "first_seq": self.first_sequence if self.last_sequence else 0,
            "first_ts": timestamp(first.stored_at) if first else NEVER,
            "last_seq": self.last_sequence,
            "last_ts": timestamp(last.stored_at) if last else NEVER,
            "num_subjects": len(self._by_subject),
            "consumer_count": consumers,
        }
        return {
            "config": as_shown(self.config),
            "created": timestamp(self.created),
            "state": state,
            "ts": timestamp(self._clock()),
        }

    def _check_size(self, subject: str, body: bytes, block: bytes | None) -> None:
        limit = self.config["max_msg_size"]
        if 0 <= limit < len(body) + len(block or b""):
            raise refusal(subject, "message size exceeds maximum allowed", 400, 10054)

    def _check_expected(self, subject: str, headers: dict[str, list[str]]) -> None:
        expected = headers.get(_EXPECTED)
        if not expected:
            return
        last = self.last(subject)
        sequence = last.sequence if last else 0
        if str(sequence) != expected[0]:
            raise refusal(subject, f"wrong last sequence: {sequence}", 400, 10071)

    def _keep(self, record: Record, ttl: int | None) -> None:
        self._records[record.sequence] = record
        self._order.append(record.sequence)
        if ttl is None:
            self._aging.append(record.sequence)
        elif ttl:
            heapq.heappush(self._ttls, (record.stored_at + ttl, record.sequence))
        sequences = self._by_subject.setdefault(record.subject, deque())
        sequences.append(record.sequence)
        limit = self.config["max_msgs_per_subject"]
        while 0 < limit < len(sequences):
            self._drop(sequences.popleft())

    def _forget(self, record: Record) -> None:
        sequences = self._by_subject[record.subject]
        sequences.remove(record.sequence)  # usually the first
        if not sequences:
            del self._by_subject[record.subject]
        self._drop(record.sequence)

    def _drop(self, sequence: int) -> None:
        del self._records[sequence]
        self.schedules.pop(sequence, None)
        for tell in self.on_removed:
            tell(sequence)


def stored_message(stream: str, record: Record) -> StoredMessage:
    """Convert a record to the port's StoredMessage."""
    return StoredMessage(
        stream=stream,
        subject=record.subject,
        sequence=record.sequence,
        body=record.body,
        headers=parse_headers(record.block),
        stored_at=record.stored_at,
    )
