"""Running a trace on a server, the memory one or a real one, and writing down what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from omni_worker.transports.base import Delivery, Message, Source, Transport
from omni_worker.transports.infos import ConsumerInfo

from .traces import CLIENTS, LATER, SOON, SUBJECTS, Shape, Step, Trace

PATIENCE = 3.0  # seconds to wait for what the other server delivered
ON_TIME = 0.3  # of a slot: steps must be over by then


@dataclass(frozen=True, slots=True)
class Seen:
    """One delivery: to whom, of what, the how-manieth time, in which slot."""

    client: int
    sequence: int
    count: int
    slot: int
    body: bytes


@dataclass(slots=True)
class Report:
    """What a trace led to. ``marks`` say after each step how much had happened by then."""

    deliveries: list[dict[int, Seen]] = field(default_factory=list)  # by consumer sequence
    consumers: list[dict[str, Any]] = field(default_factory=list)
    stored: list[tuple[int, str, bytes] | None] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)  # of publishes and confirmed acks
    marks: list[tuple[list[int], list[int]]] = field(default_factory=list)
    late: bool = False  # too much at once: nobody can say what must have come first

    def facts(self) -> dict[str, Any]:
        """What must be the same on both servers."""
        return {
            "deliveries": self.deliveries,
            "consumers": self.consumers,
            "stored": self.stored,
            "results": self.results,
        }


class World(Protocol):
    """A server as the runner needs it."""

    stream: str
    slot: float  # seconds

    async def connect(self, client: int) -> Transport:
        """Open a client of the server."""

    async def cut(self, client: int) -> None:
        """Break its link."""

    async def mend(self, client: int) -> None:
        """Let it connect again, and wait until it has."""

    async def pass_slots(self, count: int) -> None:
        """Let so much time pass."""

    async def rest(self, is_enough: Callable[[], bool]) -> None:
        """Wait until a step's consequences are there."""

    def moment(self, slots: float) -> int:
        """Return the time so many slots after the beginning of this one, in epoch nanoseconds."""

    def is_late(self) -> bool:
        """Return True if a step was not over early in its slot."""

    def is_ambiguous(self) -> bool:
        """Return True if right now steps may be taken on a slower server."""


class Recorder:
    """One client's receiver for one consumer: writes everything down."""

    def __init__(self, run: Run, consumer: int, client: int) -> None:
        self._run, self._consumer, self._client = run, consumer, client

    def receive(self, delivery: Delivery) -> None:
        consumer_sequence = int(delivery.reply.split(b".")[-3])
        run = self._run
        if run.is_over:
            return
        run.report.late |= self._run.world.is_ambiguous()
        run.held[self._consumer][consumer_sequence] = (delivery, run.generations[self._client])
        run.report.deliveries[self._consumer][consumer_sequence] = Seen(
            self._client, delivery.sequence, delivery.count, run.slot, delivery.body
        )

    def replenish(self, source: Source) -> None: ...

    def resumed(self, source: Source) -> None:
        self._run.resumed[self._client] += 1

    def lost(self, source: Source, cause: Exception) -> None:
        self._run.report.results.append("lost")


class Run:
    """One trace on one world. ``expected`` are the marks of the other one, to wait for."""

    def __init__(self, world: World, trace: Trace, expected: Report | None = None) -> None:
        self.world, self.trace, self.expected = world, trace, expected
        count = len(trace.consumers)
        self.report = Report(deliveries=[{} for _ in range(count)])
        self.held: list[dict[int, tuple[Delivery, int]]] = [{} for _ in range(count)]
        self.generations, self.resumed = [0] * CLIENTS, [0] * CLIENTS
        self.is_up = [True] * CLIENTS
        self.slot = 0
        self.is_over = False
        self._seen_last: list[ConsumerInfo] = []
        self.clients: list[Transport] = []
        self.sources: list[list[Source]] = []
        self._published = 0
        self._subjects: dict[int, str] = {}  # by stream sequence

    async def run(self) -> Report:
        """Run the whole trace."""
        try:
            await self._prepare()
            for number, step in enumerate(self.trace.steps):
                await self._take(step)
                await self._rest(number)
                self.slot += step[1] if step[0] == "wait" else 0
            self.is_over = True  # what comes while we look belongs to no step
            await self._look()
        finally:
            for client in self.clients:
                await client.close()
        return self.report

    async def _prepare(self) -> None:
        self.clients = [await self.world.connect(client) for client in range(CLIENTS)]
        self._judge = await self.world.connect(CLIENTS)
        self.clients.append(self._judge)
        stream = self.world.stream
        await self._judge.operators.create_stream(self._stream_config())
        for number in range(self.trace.stored_before):
            await self._publish(SUBJECTS[number % 2], "")
        for number, shape in enumerate(self.trace.consumers):
            await self._judge.operators.create_consumer(
                stream, shape.config(self._consumer(number), stream, self.world.slot)
            )
        self.sources = [await self._sources(client) for client in range(CLIENTS)]
        await self.world.pass_slots(1)
        self.slot = 1

    def _stream_config(self) -> dict[str, Any]:
        stream = self.world.stream
        return {
            "name": stream,
            "subjects": [f"{stream}.*"],
            "storage": "memory",
            "max_msgs_per_subject": self.trace.per_subject,
        }

    async def _sources(self, client: int) -> list[Source]:
        return [await self._source(client, number) for number in range(len(self.trace.consumers))]

    async def _source(self, client: int, number: int) -> Source:
        return await self.clients[client].consume(
            self.world.stream, self._consumer(number), Recorder(self, number, client)
        )

    def _consumer(self, number: int) -> str:
        return f"c{number}"

    # --- steps -----------------------------------------------------------------------------

    async def _take(self, step: Step) -> None:
        match step:
            case ("publish", subject, id):
                await self._publish(subject, id)
            case ("pull", consumer, client, count):
                number = consumer % len(self.trace.consumers)
                self.sources[client][number].request(count)
                await self._flush(client)
            case ("answer", consumer, which, answer):
                await self._answer(consumer % len(self.trace.consumers), which, answer)
            case ("wait", slots):
                await self.world.pass_slots(slots)
            case ("crash", client):
                await self._crash(client)
            case ("cut", client) if self.is_up[client]:
                self.is_up[client] = False
                await self.world.cut(client)
            case ("mend", client) if not self.is_up[client]:
                self.is_up[client] = True
                await self.world.mend(client)
                await self._flush(client)

    async def _publish(self, subject: str, id: str) -> None:
        self._published += 1
        message = Message(f"{self.world.stream}.{subject}", str(self._published).encode(), id)
        stored = await self._judge.publish(message, timeout=10)
        self._subjects.setdefault(stored.sequence, subject)
        self.report.results.append((stored.sequence, stored.duplicate))

    async def _answer(self, number: int, which: int, answer: str) -> None:
        held = self.held[number]
        if not held:
            return
        consumer_sequence = sorted(held)[which % len(held)]
        delivery, generation = held[consumer_sequence]
        client = self.report.deliveries[number][consumer_sequence].client
        if generation != self.generations[client]:
            return  # who got it is dead
        match answer:
            case "confirm":
                if self.is_up[client]:
                    self.report.results.append(await delivery.confirm())
            case "soon" | "later":
                delivery.nak((SOON if answer == "soon" else LATER) * self.world.slot)
            case "term":
                delivery.term("enough")
            case "progress":
                delivery.in_progress()
            case _:
                getattr(delivery, answer)()
        await self._flush(client)

    async def _crash(self, client: int) -> None:
        self.generations[client] += 1
        await self.world.cut(client)
        await self.clients[client].close()
        self.clients[client] = await self.world.connect(client)
        self.is_up[client] = True
        self.sources[client] = await self._sources(client)

    async def _flush(self, client: int) -> None:
        if self.is_up[client]:
            assert await self.clients[client].flush(5.0)

    # --- what came of it -------------------------------------------------------------------

    async def _rest(self, number: int) -> None:
        expected = None if self.expected is None else self.expected.marks[number]

        def is_enough() -> bool:
            if expected is None:
                return True
            return all(
                len(seen) >= count
                for seen, count in zip(self.report.deliveries, expected[0], strict=True)
            )

        await self.world.rest(is_enough)
        waiting = await self._waiting(expected)
        self.report.marks.append(([len(seen) for seen in self.report.deliveries], waiting))
        self.report.late |= self.world.is_late()

    async def _waiting(self, expected: tuple[list[int], list[int]] | None) -> list[int]:
        """How many requests wait at each consumer; a real server notices a dead client late."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            self._seen_last = await self._infos()
            waiting = self._requests(self._seen_last)
            over = asyncio.get_running_loop().time() > deadline
            if expected is None or waiting == expected[1] or over:
                return waiting

    def _requests(self, infos: list[ConsumerInfo]) -> list[int]:
        return [one.num_waiting for one in infos]

    async def _infos(self) -> list[ConsumerInfo]:
        found = [
            await self._judge.operators.consumer_info(self.world.stream, self._consumer(number))
            for number in range(len(self.trace.consumers))
        ]
        return [one for one in found if one is not None]

    async def _look(self) -> None:
        """A real server counts a message for a consumer a little after it has confirmed it."""
        await self._read_stored()
        deadline = asyncio.get_running_loop().time() + PATIENCE
        self.report.consumers = self._consumer_facts()
        while self.expected is not None and self.report.consumers != self.expected.consumers:
            if asyncio.get_running_loop().time() > deadline:
                break
            self._seen_last = await self._infos()
            self.report.consumers = self._consumer_facts()

    async def _read_stored(self) -> None:
        info = await self._judge.operators.stream_info(self.world.stream)
        assert info is not None
        for sequence in range(1, info.state.last_sequence + 1):
            found = await self._judge.operators.message(self.world.stream, sequence)
            subject = "" if found is None else found.subject.rpartition(".")[2]
            self.report.stored.append(found and (sequence, subject, found.body))

    def _consumer_facts(self) -> list[dict[str, Any]]:
        words = ("delivered", "ack_floor", "num_ack_pending", "num_pending", "num_waiting")
        every = []
        for info, shape in zip(self._seen_last, self.trace.consumers, strict=True):
            facts = {word: info.raw[word] for word in words}
            for word in ("delivered", "ack_floor"):
                position = facts[word]
                facts[word] = (position["consumer_seq"], self._passed(shape, position))
            every.append(facts)
        return every

    def _passed(self, shape: Shape, position: dict[str, Any]) -> int:
        """How many messages of its concern lie behind a consumer's position.

        Whether it stands before or behind those that are of none is the server's own business.
        """
        behind = [
            subject for one, subject in self._subjects.items() if one <= position["stream_seq"]
        ]
        return len([subject for subject in behind if shape.filter in ("", subject)])
