"""A scene: one server, workers that run one app, a publisher that does not give up, an account."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from nats.aio.client import Client
from nats.errors import TimeoutError as NobodyAnswers
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import ServiceUnavailableError

from omni_worker import Draft, EventBus
from omni_worker.publisher import PublishManyError
from omni_worker.settings import Settings

from ..processes.support import Stage, Worker, api, both, consumer, plain_client
from ..waiting import until
from .accounts import Account, Row

# Reconnects of tests: often, and for as long as a test may take.
QUICK = {"reconnect_delay": 0.05, "reconnect_max_delay": 0.2, "reconnect_max_retries": 1_000}
SLICE = 100  # events published together
READ = 1_000  # messages that are read together
SLOWEST = 300  # messages a second that a busy machine reads at least
STREAM_NOT_FOUND = 10059

# What most scenarios run: two effects around a little work.
LOAD = """
app = App("router")

@app.on("message.received", durable="r1", start_from="first", {options})
async def route(event, ctx):
    effect("begun", id=event.id, attempt=ctx.attempt)
    await asyncio.sleep({work})
    effect("handled", id=event.id)
"""


def load(work: float = 0.002, **options: object) -> str:
    """The usual app; ``options`` are those of its handler."""
    given = {"concurrency": 8, "ack_wait": 1, **options}
    return LOAD.format(work=work, options=", ".join(f"{k}={v!r}" for k, v in given.items()))


class HasUrl(Protocol):
    """What a scene asks of its server, or cluster: where it is."""

    @property
    def url(self) -> str:
        """Comma-separated, where there are several."""


class Scene:
    """What a scenario is played on. ``rows`` takes the account it ends with."""

    def __init__(self, folder: Path, server: HasUrl, rows: list[Row], **settings: Any) -> None:
        self.server = server
        folder.mkdir(exist_ok=True)
        self.stage = Stage(folder, server.url)
        self._rows = rows
        urls = tuple(server.url.split(","))
        self.bus = EventBus(
            name="publisher", settings=Settings(**{"urls": urls, **QUICK, **settings})
        )
        self.plain: Client
        self.confirmed: set[str] = set()  # stored, by the server's own word
        self.confirmed_at: dict[str, float] = {}  # when that was, by the monotonic clock
        self.expected_skips: set[str] = set()
        self.destroyed: set[str] = set()
        self.duplicates = 0  # publishes the server had stored already
        self._numbers = 0

    async def __aenter__(self) -> Self:
        await self.bus.connect()
        self.plain = await plain_client(self.server.url)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stage.__exit__(kind, error, trace)
        await self.plain.close()
        await self.bus.close(grace=0)

    # --- workers ---------------------------------------------------------------------------

    async def run(self, source: str | None = None, module: str = "play", **settings: Any) -> Worker:
        """Start one worker and wait until it runs."""
        target = self.stage.app(source, module) if source is not None else f"{module}:app"
        return await self.stage.run(target, **{**QUICK, **settings})

    def spawn(self, source: str | None = None, module: str = "play", **settings: Any) -> Worker:
        """Start one worker and go on at once."""
        target = self.stage.app(source, module) if source is not None else f"{module}:app"
        return self.stage.spawn(target, **{**QUICK, **settings})

    def spawn_with(self, *arguments: str, module: str, **settings: Any) -> Worker:
        """Start one worker of an app that is written already, with more arguments of `run`."""
        return self.stage.spawn(f"{module}:app", *arguments, **{**QUICK, **settings})

    # --- publishing ------------------------------------------------------------------------

    async def publish(
        self,
        count: int,
        *,
        type: str = "message.received",
        payload: Callable[[int], dict[str, Any]] | None = None,
        every: float = 0.0,
        skipped: bool = False,
        types_as: str | None = None,
    ) -> list[str]:
        """Publish numbered events, each until it is confirmed; ``every`` so many seconds a slice.

        A publish that fails is made again with the same id, as PublishError asks for.
        """
        first = self._numbers
        self._numbers += count
        drafts = [
            Draft(
                type=type,
                payload=payload(number) if payload else _message(number),
                channel="whatsapp",
                instance=f"wa-{number % 50}",
                id=f"event-{number:06}",
            )
            for number in range(first, first + count)
        ]
        for start in range(0, count, SLICE):
            await self._store(drafts[start : start + SLICE])
            if every:
                await asyncio.sleep(every)
        ids = [draft.id for draft in drafts if draft.id is not None]
        if skipped:
            self.expected_skips |= set(ids)
        return ids

    @asynccontextmanager
    async def publishing(self, every: float, count: int = SLICE) -> AsyncIterator[None]:
        """Publish so many every so many seconds, until the block ends and its last is stored."""
        over = asyncio.Event()

        async def go_on() -> None:
            while not over.is_set():
                await self.publish(count)
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), every)

        feed = asyncio.create_task(go_on())
        try:
            yield
        finally:
            over.set()
            await feed

    async def _store(self, drafts: list[Draft]) -> None:
        while drafts:
            try:
                published = await self.bus.publish_many(drafts, timeout=20)
            except PublishManyError as error:
                self._note(one for one in error.published if one is not None)
                drafts = [drafts[index] for index in error.errors]
            else:
                self._note(published)
                return

    def _note(self, published: Iterable[Any]) -> None:
        for one in published:
            self.confirmed.add(one.id)
            self.confirmed_at.setdefault(one.id, time.monotonic())
            self.duplicates += one.duplicate

    # --- how it ends -----------------------------------------------------------------------

    async def settled(self, durable: str = "r1", timeout: float = 60.0) -> None:
        """Wait until nothing is waiting at the server, neither to deliver nor to be answered.

        What it gave up delivering would be counted as redelivered for ever, below its floor.
        """
        left: dict[str, Any] = {}

        async def at_rest() -> bool:
            nonlocal left
            found = [await consumer(self.plain, one) for one in await both(self.plain, durable)]
            refused = [one["error"] for one in found if "error" in one]
            if refused:  # in a cluster, until it has a leader again
                left = {"refused": refused}
                return False
            last = (await api(self.plain, "STREAM.INFO.MESSAGE"))["state"]["last_seq"]
            counts = {
                key: sum(one[key] for one in found)
                for key in ("num_pending", "num_ack_pending", "num_redelivered")
            }
            floor = max((one["ack_floor"]["stream_seq"] for one in found), default=0)
            left = {**counts, "beyond_floor": last - floor}
            return not any(left.values())

        await until(at_rest, timeout, what=f"{durable} at rest", seen=lambda: left)

    async def acked_again(self, durable: str = "r1") -> None:
        """Wait until a server that was started again knows the end of all it had stored by then."""
        last = (await api(self.plain, "STREAM.INFO.MESSAGE"))["state"]["last_seq"]
        floor = 0

        async def is_known() -> bool:
            nonlocal floor
            floor = (await consumer(self.plain, durable))["ack_floor"]["stream_seq"]
            return floor >= last

        await until(is_known, 30.0, what=f"an ack floor of {last}", seen=lambda: floor)

    async def handled(self, count: int, timeout: float = 30.0) -> None:
        """Wait until so many different events came to their end."""

        def seen() -> int:
            return len(set(self.stage.ids("handled")))

        await until(lambda: seen() >= count, timeout, what=f"{count} events handled", seen=seen)

    async def more_handled(self, count: int, timeout: float = 60.0) -> None:
        """Wait until so many events more came to their end."""
        await self.handled(len(set(self.stage.ids("handled"))) + count, timeout)

    def run_again_in_one_process(self) -> set[str]:
        """Events that came to their end more than once in one and the same process."""
        ends = Counter((one["worker"], one["id"]) for one in self.stage.effects("handled"))
        return {id for (_, id), count in ends.items() if count > 1}

    async def account(
        self, durable: str = "r1", stream: str = "MESSAGE", handler: str | None = None
    ) -> Account:
        """Return where every event is now; of several handlers, for the one named."""
        stored = await stored_ids(self.plain, stream)
        assert len(stored) == len(set(stored.values())), "an id is stored twice"
        info = await consumer(self.plain, durable, stream)
        floor = info["ack_floor"]["stream_seq"]
        ended, begun = (
            Counter(one["id"] for one in self.stage.effects(what) if one.get("handler") == handler)
            for what in ("handled", "begun")
        )
        letters = await letters_of(self.plain)
        lettered = {id for of, id in letters if handler is None or of == handler}
        open_now = {id for sequence, id in stored.items() if sequence > floor}
        return Account(
            published=frozenset(self.confirmed),
            handled=frozenset(ended),
            skipped=frozenset(self.expected_skips - begun.keys() - open_now),
            lettered=frozenset(lettered),
            waiting=frozenset(open_now - ended.keys() - lettered),
            destroyed=frozenset(self.destroyed),
            begun=begun,
            ended=ended,
        )

    async def ends(
        self, scenario: str, note: str = "", durable: str = "r1", stream: str = "MESSAGE"
    ) -> Account:
        """The account of a scenario: checked, and a row of the table."""
        account = await self.account(durable, stream)
        self._rows.append(Row(scenario, account, note))
        account.check()
        for worker in self.stage.workers:
            check_said(worker)
        return account


def _message(number: int) -> dict[str, Any]:
    return {
        "externalId": f"ext-{number}",
        "chatId": f"chat-{number % 20}",
        "from": "user-1",
        "content": {"type": "text", "text": f"number {number}"},
    }


def check_said(worker: Worker) -> None:
    """Whatever happened was expected: whole JSON lines, tracebacks only of failed handlers."""
    said = worker.said()
    ours = [line for line in said.splitlines() if '"signal": "' not in line]
    assert not [line for line in ours if "Traceback" in line], said[-4_000:]
    assert "fault of the framework" not in said
    assert "number 1" not in re.sub(r'"function":.*', "", said), "a payload in the log"


async def stored_ids(client: Client, stream: str) -> dict[int, str]:
    """The id of every event in a stream, by sequence."""
    count = await _count(client, stream)
    assert count is not None, f"there is no stream {stream}"
    found = await _read(client, stream, ">", count)
    return {sequence: _id_of(body) for sequence, body in found.items()}


async def letters_of(client: Client) -> Counter[tuple[str, str]]:
    """The handlers and events that the dead letters are about, and how many letters each has."""
    count = await _count(client, "SYSTEM", "system.dead_letter") or 0  # none was ever sent
    letters = await _read(client, "SYSTEM", "system.dead_letter", count)
    payloads = [json.loads(letter)["payload"] for letter in letters.values()]
    return Counter((one["handler"], one["originalEventId"]) for one in payloads)


async def _count(client: Client, stream: str, subject: str = ">") -> int | None:
    """How many there are, None without the stream. Its leader counts: others may lag behind."""
    async with asyncio.timeout(60):
        while True:
            info = await api(client, f"STREAM.INFO.{stream}", {"subjects_filter": subject})
            if "state" in info:
                return sum(info["state"].get("subjects", {}).values())
            if info["error"]["err_code"] == STREAM_NOT_FOUND:
                return None
            await asyncio.sleep(0.1)  # it elects a leader


async def _read(client: Client, stream: str, subject: str, count: int) -> dict[int, bytes]:
    """Return all events of a subject, by sequence; goes on while a cluster elects."""
    found: dict[int, bytes] = {}
    async with asyncio.timeout(60 + count / SLOWEST):
        while len(found) < count:
            before = len(found)
            with suppress(NobodyAnswers, ServiceUnavailableError):
                await _read_on(client, stream, subject, count, found)
            if len(found) == before:
                found.clear()  # an earlier one may have been lost on its way
    return found


async def _read_on(
    client: Client, stream: str, subject: str, count: int, found: dict[int, bytes]
) -> None:
    """Add what follows the last one that was found."""
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=max(found, default=0) + 1,
    )
    reader = await client.jetstream().pull_subscribe(subject, stream=stream, config=config)
    try:
        while len(found) < count:
            for message in await reader.fetch(READ, timeout=5):
                found[message.metadata.sequence.stream] = message.data
    finally:
        await reader.unsubscribe()


def _id_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
