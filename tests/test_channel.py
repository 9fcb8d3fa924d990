"""The channel between a parent and a worker: facts up, commands down, and nothing that hurts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from omni_worker.errors import ConfigError
from omni_worker.process import frame_socket
from omni_worker.process.channel import CommandError, NoAnswer, ParentChannel, WorkerChannel
from omni_worker.process.frame_socket import MAX_FRAME, Frame, FrameReader

from .waiting import until

Fact = tuple[str, Any]


class Pair:
    """Both ends in one process, and what came through."""

    def __init__(self) -> None:
        parents, workers = socket.socketpair()
        self.facts: list[Fact] = []
        self.gone: list[bool] = []
        self.parent = WorkerChannel(parents, "worker 1", lambda *fact: self.facts.append(fact))
        self.worker = ParentChannel(workers)
        self.parent.open()
        self.worker.open(lambda: self.gone.append(True))


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    both = Pair()
    try:
        yield both
    finally:
        both.worker.close()
        both.parent.close()


@asynccontextmanager
async def raw() -> AsyncIterator[tuple[socket.socket, WorkerChannel, list[Fact]]]:
    """A parent's end, and the bare socket of a worker that may send anything."""
    parents, workers = socket.socketpair()
    facts: list[Fact] = []
    parent = WorkerChannel(parents, "worker 1", lambda *fact: facts.append(fact))
    parent.open()
    workers.setblocking(False)
    with workers:
        yield workers, parent, facts
        parent.close()


async def send(worker: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(worker, data)


async def command_of(worker: socket.socket) -> dict[str, Any]:
    """The next command at the worker's bare end."""
    line = b""
    while not line.endswith(b"\n"):
        line += await asyncio.get_running_loop().sock_recv(worker, 65_536)
    command: dict[str, Any] = json.loads(line)
    return command


def line(**frame: Any) -> bytes:
    return json.dumps(frame).encode() + b"\n"


# --- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_frames_are_the_same_in_whatever_pieces_they_come(size: int) -> None:
    data = line(a="é" * 50) + line(b=[1, 2]) + b"\n" + line(c=None)
    reader = FrameReader()

    frames: list[Frame] = []
    for start in range(0, len(data), size):
        frames += reader.feed(data[start : start + size])

    assert frames == [{"a": "é" * 50}, {"b": [1, 2]}, {"c": None}]
    assert reader.dropped == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"what?", b"\xff\xfe\x00", b"7", b'"word"', b"[]", b"[" * 100_000, b'{"a":' * 50_000,
        b"1" * 10_000, b'{"cut": "', b"x" * (MAX_FRAME + 1),
    ],
    ids=lambda garbage: repr(garbage[:9]),
)  # fmt: skip
def test_garbage_is_dropped_and_the_next_frame_is_read(garbage: bytes) -> None:
    reader = FrameReader()

    frames = reader.feed(garbage + b"\n" + line(a=1))

    assert (frames, reader.dropped) == ([{"a": 1}], 1)


def test_a_line_that_never_ends_keeps_no_memory() -> None:
    reader = FrameReader()

    for _ in range(100):
        assert reader.feed(b"x" * 65_536) == []

    assert len(reader._line) <= MAX_FRAME
    assert reader.feed(b"\n" + line(a=1)) == [{"a": 1}]


# --- facts and commands ---------------------------------------------------------------------------


async def test_a_fact_reaches_the_parent() -> None:
    async with pair() as both:
        both.worker.fact("metrics", {"runs": 7, "name": "ü" * 10_000})

        await until(lambda: both.facts)

    assert both.facts == [("metrics", {"runs": 7, "name": "ü" * 10_000})]


async def test_a_fact_is_sent_from_a_thread_while_the_loop_is_blocked() -> None:
    parents, workers = socket.socketpair()
    with parents:
        worker = ParentChannel(workers)
        worker.open(lambda: None)

        thread = asyncio.get_running_loop().run_in_executor(None, worker.fact, "health", "blocked")
        said = parents.recv(100)  # blocks this loop until the thread has sent it

        assert json.loads(said) == {"fact": "health", "value": "blocked"}
        await thread
        worker.close()


async def test_a_command_is_answered() -> None:
    async def double(number: int) -> int:
        return number * 2

    async with pair() as both:
        both.worker.on("double", double)

        assert await both.parent.ask("double", number=21) == 42


async def test_commands_are_answered_in_the_order_they_end_in() -> None:
    release = asyncio.Event()

    async def slow() -> str:
        await release.wait()
        return "slow"

    async def fast() -> str:
        return "fast"

    async with pair() as both:
        both.worker.on("slow", slow)
        both.worker.on("fast", fast)

        waiting = asyncio.create_task(both.parent.ask("slow"))
        assert await both.parent.ask("fast") == "fast"
        release.set()

        assert await waiting == "slow"


async def test_a_large_answer_arrives_whole() -> None:
    async def much() -> str:
        return "x" * (MAX_FRAME - 1_000)

    async with pair() as both:
        both.worker.on("much", much)

        assert len(await both.parent.ask("much")) == MAX_FRAME - 1_000


async def test_a_name_is_answered_by_one_function() -> None:
    async with pair() as both:
        both.worker.on("a", _nothing)

        with pytest.raises(ConfigError, match="two functions for command 'a'"):
            both.worker.on("a", _nothing)


async def _nothing(**_: Any) -> None: ...


async def _fails() -> None:
    raise LookupError("no such thing")


async def _refuses() -> None:
    raise ConfigError("not like this")


async def _too_much() -> str:
    return "x" * (MAX_FRAME + 1)


async def _no_json() -> dict[Any, Any]:
    return {(1, 2): 3}


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (None, {}, "worker 1: unknown command 'do'"),
        (_fails, {}, "worker 1: LookupError: no such thing"),
        (_refuses, {}, "worker 1: not like this"),
        (_refuses, {"a": 1}, "unexpected keyword argument 'a'"),
        (_too_much, {}, "worker 1: the answer to 'do' could not be sent: it is too long"),
        (_no_json, {}, "worker 1: TypeError: keys must be str"),
    ],
)
async def test_a_command_that_fails_says_why(
    function: Callable[..., Awaitable[Any]] | None, arguments: dict[str, Any], expected: str
) -> None:
    async with pair() as both:
        if function is not None:
            both.worker.on("do", function)

        with pytest.raises(CommandError) as raised:
            await both.parent.ask("do", **arguments)

    assert expected in str(raised.value)
    assert not isinstance(raised.value, NoAnswer)


# --- what goes wrong --------------------------------------------------------------------------


async def test_an_answer_that_does_not_come_in_time_is_none_and_a_late_one_hurts_nobody() -> None:
    async with raw() as (worker, parent, _):
        with pytest.raises(NoAnswer, match=r"worker 1 did not answer 'pause' within 0\.05 s"):
            await parent.ask("pause", timeout=0.05)
        late = await command_of(worker)

        await send(worker, line(answer=late["id"], value="late"))
        waiting = asyncio.create_task(parent.ask("pause"))
        command = await command_of(worker)
        await send(worker, line(answer=command["id"], value="in time"))

        assert await waiting == "in time"


async def test_a_worker_that_ends_in_the_middle_of_its_answer_has_not_answered() -> None:
    async with raw() as (worker, parent, facts):
        waiting = asyncio.create_task(parent.ask("pause"))
        command = await command_of(worker)

        await send(worker, line(fact="last", value=1) + line(answer=command["id"], value=1)[:-5])
        worker.close()

        with pytest.raises(NoAnswer, match="worker 1 has ended"):
            await waiting
        with pytest.raises(NoAnswer, match="does not take commands"):
            await parent.ask("pause")
        assert facts == [("last", 1)]


KILLED = """
import asyncio, os, signal, socket, sys
from omni_worker.process.channel import ParentChannel

async def main():
    channel = ParentChannel.found(os.environ)
    async def long():
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0)
        return "x" * 900_000  # more than a socket takes at once
    channel.on("long", long)
    channel.open(lambda: None)
    channel.fact("begun", os.getpid())
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_worker_killed_in_the_middle_of_its_answer_has_not_answered() -> None:
    parents, workers = socket.socketpair()
    facts: list[Fact] = []
    parent = WorkerChannel(parents, "worker 1", lambda *fact: facts.append(fact))
    parent.open()
    with workers:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED],
            env={**os.environ, "OMNI_WORKER_PARENT_FD": str(workers.fileno())},
            pass_fds=[workers.fileno()],
        )
    await until(lambda: facts == [("begun", process.pid)])

    with pytest.raises(NoAnswer, match="worker 1 has ended"):
        await parent.ask("long")

    assert process.wait() == -signal.SIGKILL
    parent.drain()


@pytest.mark.parametrize(
    "frame",
    [
        {}, {"fact": 1, "value": 1}, {"fact": "a"}, {"answer": "7", "value": 1},
        {"answer": [], "value": 1}, {"answer": 99, "value": 1}, {"command": "pause", "id": 1},
    ],
)  # fmt: skip
async def test_a_frame_that_nobody_expects_changes_nothing(frame: Frame) -> None:
    async with raw() as (worker, _, facts):
        await send(worker, line(**frame) + line(fact="b", value=2))

        await until(lambda: facts)

        assert facts == [("b", 2)]


async def test_garbage_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with raw() as (worker, _, facts):
        for number in range(3):
            await send(worker, b"what?\n" + line(fact="a", value=number))
            await until(lambda: len(facts) == number + 1)  # noqa: B023

    assert [one.getMessage() for one in caplog.records] == [
        "worker 1 sent what is no frame; dropped, and not logged again"
    ]


async def test_a_flood_is_read_slowly_and_holds_up_neither_loop_nor_memory(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 200_000
    monkeypatch.setattr(frame_socket, "MAX_PER_SECOND", limit)
    clock = asyncio.get_running_loop().time
    async with raw() as (worker, _, facts), pair() as other:
        other.worker.on("turn", _nothing)
        begun = clock()
        flood = asyncio.create_task(send(worker, line(fact="flood", value="x" * 1_000) * 20_000))
        await until(lambda: "sends more than" in caplog.text)

        assert await other.parent.ask("turn") is None
        seconds, read = int(clock() - begun) + 2, len(facts)

        assert read * 1_000 <= seconds * (limit + frame_socket.CHUNK)
        assert not flood.done()  # the rest is still the worker's
        await until(lambda: len(facts) > read)  # in the next second
        flood.cancel()


async def test_a_parent_that_does_not_read_costs_a_worker_neither_time_nor_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    parents, workers = socket.socketpair()
    with parents:
        worker = ParentChannel(workers)
        worker.open(lambda: None)

        for _ in range(10_000):
            worker.fact("metrics", "x" * 1_000)

        assert worker._frames._unsent_size < 2_000
        assert caplog.records == []  # dropped facts are no news: the next one will do
        worker.close()


async def test_a_worker_that_does_not_read_is_not_asked_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_socket, "MAX_UNSENT", 100_000)
    async with raw() as (_, parent, _):
        asked = [
            asyncio.create_task(parent.ask("pause", text="x" * 50_000, timeout=0.2))
            for _ in range(20)
        ]

        answers = await asyncio.gather(*asked, return_exceptions=True)

        assert {type(answer) for answer in answers} == {NoAnswer}
        assert any("does not take commands now" in str(answer) for answer in answers)
        assert parent._frames._unsent_size <= 100_000


async def test_a_worker_runs_no_more_than_so_many_commands_at_once() -> None:
    release = asyncio.Event()

    async def slow() -> None:
        await release.wait()

    async with pair() as both:
        both.worker.on("slow", slow)
        running = [asyncio.create_task(both.parent.ask("slow")) for _ in range(64)]
        await asyncio.sleep(0)

        with pytest.raises(CommandError, match="64 commands run already"):
            await both.parent.ask("slow")

        release.set()
        assert await asyncio.gather(*running) == [None] * 64


async def test_the_end_of_the_parent_is_noticed_once() -> None:
    async with pair() as both:
        both.parent.close()

        await until(lambda: both.gone)
        both.worker.fact("a", 1)

        assert both.gone == [True]


def test_on_uvloop_where_workers_run_it_is_the_same() -> None:
    async def much() -> str:
        return "x" * (MAX_FRAME - 1_000)

    async def story() -> tuple[int, list[Fact], list[bool]]:
        async with pair() as both:
            both.worker.on("much", much)
            both.worker.fact("a", 1)
            size = len(await both.parent.ask("much"))
            both.parent.close()
            await until(lambda: both.gone)
            return size, both.facts, both.gone

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(story())

    assert told == (MAX_FRAME - 1_000, [("a", 1)], [True])
