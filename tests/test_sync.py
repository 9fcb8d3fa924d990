"""SyncBus: publishing without an event loop, from threads, forked children and scripts."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from omni_worker import ConfigError, Draft, InvalidEvent, NotConnected, Settings, TransportError
from omni_worker.nats_server import NatsServer
from omni_worker.sync import SyncBus
from omni_worker.tasks import own
from omni_worker.transports.base import Transport

from .ports import free_port
from .processes.support import clean_environment
from .waiting import wait_until

NOWHERE = "nats://127.0.0.1:1"


@pytest.fixture
def bus(nats_server: NatsServer) -> Iterator[SyncBus]:
    with SyncBus(nats_server.url, name="shop") as bus:
        yield bus


def stored(bus: SyncBus) -> int:
    """How many events the stream of custom events has."""

    async def ask(transport: Transport) -> int:
        info = await transport.operators.stream_info("CUSTOM")
        return info.state.messages if info is not None else 0

    return bus.run(lambda inner: ask(inner.transport))


def script(nats_server: NatsServer, source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        env=clean_environment() | {"NATS_URL": nats_server.url},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == own("sync")]


def test_nothing_is_opened_before_the_first_call_and_nothing_is_left_after_close(
    nats_server: NatsServer,
) -> None:
    bus = SyncBus(nats_server.url, name="shop")
    before = threads()

    published = bus.publish("custom.order", {"x": 1}, id="o-1")
    during = threads()
    bus.close()

    assert (before, len(during), threads()) == ([], 1, [])
    assert (published.id, published.stream, published.sequence) == ("o-1", "CUSTOM", 1)


def test_an_event_is_published_later_replaced_and_cancelled(bus: SyncBus) -> None:
    kept = bus.publish("custom.order", {"n": 1}, after=3_600, key="order:7")
    replaced = bus.publish("custom.order", {"n": 2}, after=timedelta(hours=1), key="order:7")
    in_time = bus.cancel("order:7")
    again = bus.cancel(replaced)
    due = bus.publish("custom.order", {"n": 3}, at=datetime.now(UTC))

    wait_until(lambda: stored(bus) == 1)
    assert (kept.applied, replaced.applied, in_time, again, due.applied) == (
        True, True, True, False, True,
    )  # fmt: skip


def test_threads_share_one_connection_and_every_event_is_stored(bus: SyncBus) -> None:
    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(lambda n: bus.publish("custom.order", {"n": n}), range(200)))

    assert sorted(one.sequence for one in published) == list(range(1, 201))
    assert len(threads()) == 1


def test_a_generator_of_many_runs_in_the_thread_that_calls(bus: SyncBus) -> None:
    seen = set()

    def drafts() -> Iterator[Draft]:
        for n in range(5):
            seen.add(threading.current_thread())
            yield Draft(type="custom.order", payload={"n": n})

    published = bus.publish_many(drafts())

    assert [one.sequence for one in published] == [1, 2, 3, 4, 5]
    assert seen == {threading.current_thread()}


def test_what_is_refused_raises_as_on_a_loop(bus: SyncBus) -> None:
    with pytest.raises(InvalidEvent):
        bus.publish("no type")

    assert stored(bus) == 0


async def test_on_an_event_loop_it_refuses_to_block(bus: SyncBus) -> None:
    with pytest.raises(ConfigError, match="a SyncBus blocks, and this is an event loop"):
        bus.publish("custom.order")

    assert threads() == []


def test_a_closed_bus_connects_again_at_the_next_call(bus: SyncBus) -> None:
    first = bus.publish("custom.order")
    bus.close()

    second = bus.publish("custom.order")

    assert (first.sequence, second.sequence) == (1, 2)


def test_without_a_server_a_call_ends_after_its_timeout() -> None:
    with SyncBus(NOWHERE) as bus:
        began = time.monotonic()

        with pytest.raises(NotConnected, match=r"no connection within 0\.3 s"):
            bus.publish("custom.order", timeout=0.3)

        assert time.monotonic() - began < 5


def test_close_ends_a_call_that_still_waits_for_a_connection() -> None:
    bus = SyncBus(NOWHERE)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            bus.publish("custom.order")
        except NotConnected as error:
            raised.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    wait_until(lambda: bool(threads()), what="the thread")

    bus.close()
    caller.join(5)

    assert [str(one) for one in raised] == ["the bus was closed by another thread"]
    assert threads() == []


@pytest.mark.parametrize("tries", [None, 0])
def test_after_an_outage_it_publishes_again(tries: int | None) -> None:
    more = {} if tries is None else {"reconnect_max_retries": tries}
    with NatsServer(port=free_port()) as server:
        settings = Settings(urls=server.url, reconnect_delay=0.1, **more)  # type: ignore[arg-type]
        with SyncBus(settings=settings) as bus:
            bus.publish("custom.order")
            server.kill()
            with pytest.raises(TransportError):
                bus.publish("custom.order", timeout=0.3)
            server.start()

            wait_until(lambda: _is_stored(bus), what="an event")


def _is_stored(bus: SyncBus) -> bool:
    try:
        return bool(bus.publish("custom.order", timeout=2).sequence)
    except TransportError:
        return False


FORKS = """
    import os, sys, threading, time
    from omni_worker.sync import SyncBus

    bus = SyncBus(name="shop")
    bus.publish("custom.order", id="parent-1")
    stop = threading.Event()

    def publish_on():
        while not stop.is_set():
            bus.publish("custom.order", timeout=10)

    busy = [threading.Thread(target=publish_on) for _ in range(4)]
    for one in busy:
        one.start()
    children = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            for again in (1, 2):
                bus.publish("custom.child", id=f"child-{number}-{again}", timeout=10)
            bus.close()
            os._exit(0)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    stop.set()
    for one in busy:
        one.join()
    print(codes, bus.publish("custom.order", id="parent-2").duplicate)
"""


def test_forked_children_publish_by_connections_of_their_own_and_the_parent_goes_on(
    nats_server: NatsServer, bus: SyncBus, tmp_path: Path
) -> None:
    ended = script(nats_server, FORKS, tmp_path)

    assert ended.stdout == "[0, 0, 0, 0, 0, 0] False\n", ended.stderr
    for id in [f"child-{number}-{again}" for number in range(6) for again in (1, 2)]:
        assert bus.publish("custom.child", id=id).duplicate


def test_a_program_that_never_closes_ends_at_once(
    nats_server: NatsServer, bus: SyncBus, tmp_path: Path
) -> None:
    began = time.monotonic()

    ended = script(
        nats_server,
        "from omni_worker.sync import SyncBus\n"
        "print(SyncBus().publish('custom.order', id='o-1').sequence)\n",
        tmp_path,
    )

    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - began < 15
    assert bus.publish("custom.order", id="o-1").duplicate
