"""Traces with what a server does by itself: schedules, pauses, groups, and atomic batches.

Virtual time knows a moment exactly; a real server has a schedule due up to a third of a second
after its time, and never before. So slots are long here, what is due is due in the middle of one,
where no step is taken, and one at a time. A trace in which it came after that slot is run again.
Leases do not end in these traces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from omni_worker.errors import ApiError
from omni_worker.transports.base import Message, Source
from omni_worker.transports.infos import ConsumerInfo
from omni_worker.transports.timestamps import timestamp

from .running import Recorder, Run
from .traces import SLOT, SUBJECTS, Shape, Step, Trace

LONG_SLOT = 3 * SLOT
RESUMED, DUE = 0.4, 0.5  # of a slot: pauses end, and one schedule is due, after all steps of a slot
NEVER = 600.0  # seconds: no lease ends, and a group's client that is gone keeps its turn
PLANS = ("p", "q")  # subjects of schedules
EXPECTED = "Nats-Expected-Last-Subject-Sequence"


@dataclass(frozen=True, slots=True)
class Grouped(Shape):
    """A consumer that may serve one client at a time."""

    is_pinned: bool = False

    def config(self, name: str, stream: str, slot: float) -> dict[str, Any]:
        config = {**Shape.config(self, name, stream, slot), "ack_wait": round(NEVER * 1e9)}
        pins = {
            "priority_groups": ["active"],
            "priority_policy": "pinned_client",
            "priority_timeout": round(NEVER * 1e9),
        }
        return {**config, **pins} if self.is_pinned else config


class FeatureRun(Run):
    """One trace on one world."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        # A schedule replaces all of its subject. A real server forgets then what waits to be
        # delivered again, until its lease ends.
        self._rolls_up = any(step[0] in ("schedule", "cancel") for step in self.trace.steps)
        self._due: dict[int, str] = {}  # by slot: the schedule that is due in it
        self._written: dict[str, int] = {}  # of each schedule's subject: the latest sequence
        self._slot_ends: dict[bytes, int] = {}  # by body: the end of the slot it is due in

    def _stream_config(self) -> dict[str, Any]:
        allowed = ("allow_msg_schedules", "allow_msg_ttl", "allow_atomic")
        return {**super()._stream_config(), **dict.fromkeys(allowed, True)}

    async def _source(self, client: int, number: int) -> Source:
        if not self._is_pinned(number):
            return await super()._source(client, number)
        return await self.clients[client].consume(
            self.world.stream, self._consumer(number), Recorder(self, number, client),
            served=lambda source, is_served: None,
        )  # fmt: skip

    def _is_pinned(self, number: int) -> bool:
        shape = self.trace.consumers[number]
        return isinstance(shape, Grouped) and shape.is_pinned

    # --- steps -----------------------------------------------------------------------------

    async def _take(self, step: Step) -> None:
        match step:
            case ("pull", consumer, client, _) if self._stands_by(consumer, client):
                return
            case ("answer", _, _, "nak") if self._rolls_up:
                return
            case ("schedule", plan, target, slots, expected):
                await self._schedule(plan, target, self.slot + slots, expected)
            case ("cancel", plan, expected):
                headers = {"Nats-Rollup": "sub", "Nats-TTL": "24h"}
                if await self._write(plan, headers, expected):
                    self._forget(plan)
            case ("commit", *messages):
                await self._commit(messages)
            case ("pause", consumer, slots):
                name = self._consumer(consumer % len(self.trace.consumers))
                until = timestamp(self.world.moment(slots + RESUMED))
                operators = self._judge.operators
                is_paused = await operators.pause_consumer(self.world.stream, name, until)
                self.report.results.append(is_paused)
            case ("leave", client):
                await self._leave(client)
            case _:
                await super()._take(step)

    def _stands_by(self, consumer: int, client: int) -> bool:
        """A client that stands by has one request at a time on a real server."""
        number = consumer % len(self.trace.consumers)
        return self._is_pinned(number) and self.sources[client][number].outstanding > 0

    async def _schedule(self, plan: str, target: str, slot: int, expected: str) -> None:
        if self._due.get(slot, plan) != plan:
            return  # another one is due in this slot: nobody can say which comes first
        from_now = slot - self.slot
        headers = {
            "Nats-Schedule": f"@at {timestamp(self.world.moment(from_now + DUE))}",
            "Nats-Schedule-Target": f"{self.world.stream}.{target}",
            "Nats-Schedule-TTL": "720h",
            "Nats-TTL": "never",
        }
        ends = self.world.moment(from_now + 1)
        if await self._write(plan, headers, expected):
            self._forget(plan)
            self._due[slot] = plan
            self._slot_ends[b"%d" % self._published] = ends

    async def _write(self, plan: str, headers: dict[str, str], expected: str) -> bool:
        """Write what replaces a schedule; ``expected``: only over the latest, or over nothing."""
        sequence = {"latest": self._written.get(plan, 0), "nothing": 0}.get(expected)
        if sequence is not None:
            headers = {**headers, EXPECTED: str(sequence)}
        self._published += 1
        subject, body = f"{self.world.stream}.{plan}", b"%d" % self._published
        try:
            stored = await self._judge.publish(Message(subject, body, "", headers), timeout=10)
        except ApiError as error:
            self.report.results.append(error.err_code)
            return False
        self._written[plan] = stored.sequence
        self.report.results.append(stored.sequence)
        return True

    def _forget(self, plan: str) -> None:
        self._due = {
            slot: one for slot, one in self._due.items() if one != plan or slot < self.slot
        }

    async def _commit(self, given: list[tuple[str, str, bool]]) -> None:
        messages = []
        for subject, id, is_first in given:
            self._published += 1
            headers = {EXPECTED: "0"} if is_first else {}
            subject, body = f"{self.world.stream}.{subject}", b"%d" % self._published
            messages.append(Message(subject, body, id, headers))
        try:
            stored = await self._judge.publish_atomic(messages, timeout=10)
        except ApiError:  # a real server may say only that one of them is missing
            self.report.results.append("refused")
        else:
            self.report.results.append(stored.sequence)

    async def _leave(self, client: int) -> None:
        """Close the sources of a client, and begin others in their place."""
        self.generations[client] += 1
        for source in self.sources[client]:
            await source.close()
        self.sources[client] = await self._sources(client)
        await self._flush(client)

    # --- what came of it -------------------------------------------------------------------

    def _requests(self, infos: list[ConsumerInfo]) -> list[int]:
        """A client that stands by may have several of them in memory."""
        waiting = super()._requests(infos)
        return [0 if self._is_pinned(number) else one for number, one in enumerate(waiting)]

    def _consumer_facts(self) -> list[dict[str, Any]]:
        """A schedule that was due is stored no longer: only what is counts towards a position.

        Where one that was delivered is, a real server's ack floor may be ahead of what is held.
        """
        self._subjects = {one[0]: one[1] for one in self.report.stored if one is not None}
        facts = super()._consumer_facts()
        waiting = self._requests(self._seen_last)
        unlike = {"ack_floor": None} if None in self.report.stored else {}
        return [
            {**fact, **unlike, "num_waiting": count, "paused": info.is_paused}
            for fact, count, info in zip(facts, waiting, self._seen_last, strict=True)
        ]

    async def _read_stored(self) -> None:
        await super()._read_stored()
        for sequence, found in enumerate(self.report.stored, 1):
            if found is not None and found[1] in SUBJECTS and found[2] in self._slot_ends:
                message = await self._judge.operators.message(self.world.stream, sequence)
                assert message is not None
                self.report.late |= message.stored_at > self._slot_ends[found[2]] - 5e7


# --- traces ---------------------------------------------------------------------------------

_consumers, _clients, _deliveries = st.integers(0, 1), st.integers(0, 1), st.integers(0, 9)
_subjects, _plans = st.sampled_from(SUBJECTS), st.sampled_from(PLANS)
_ids = st.sampled_from(["", "", "", "1", "2"])
_expected = st.sampled_from(["", "", "latest", "nothing"])
_publish = st.tuples(st.just("publish"), _subjects, _ids)
_pull = st.tuples(st.just("pull"), _consumers, _clients, st.integers(1, 4))
_answers = st.sampled_from(["ack", "ack", "nak", "term", "progress", "confirm"])
_answer = st.tuples(st.just("answer"), _consumers, _deliveries, _answers)
_wait = st.tuples(st.just("wait"), st.integers(1, 2))
_schedule = st.tuples(st.just("schedule"), _plans, _subjects, st.integers(0, 2), _expected)
_cancel = st.tuples(st.just("cancel"), _plans, _expected)
_one = st.tuples(_subjects, _ids, st.sampled_from([False, False, False, True]))
_commit = st.lists(_one, min_size=1, max_size=3).map(lambda messages: ("commit", *messages))
_pause = st.tuples(st.just("pause"), _consumers, st.integers(0, 2))
_ended = st.tuples(st.sampled_from(["crash", "leave", "leave"]), _clients)
_step = st.one_of(
    _publish, _pull, _pull, _answer, _answer, _wait, _wait, _schedule, _schedule, _cancel,
    _commit, _pause, _pause, _ended,
)  # fmt: skip

_shapes = st.builds(
    Grouped,
    filter=st.sampled_from(["", "", *SUBJECTS]),
    policy=st.sampled_from(["all", "all", "new"]),
    max_ack_pending=st.sampled_from([1000, 1000, 2]),
    is_pinned=st.sampled_from([False, False, True]),
)


def _ending(steps: list[Step]) -> tuple[Step, ...]:
    """With a request at the beginning, and time for what is still due at the end."""
    return (("pull", 0, 0, 4), ("pull", 1, 1, 4), *steps, ("wait", 3), ("pull", 0, 1, 4))


feature_traces = st.builds(
    Trace,
    consumers=st.lists(_shapes, min_size=1, max_size=2).map(tuple),
    steps=st.lists(_step, min_size=6, max_size=16).map(_ending),
    stored_before=st.integers(0, 2),
)
