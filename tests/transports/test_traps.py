"""The traps of nats-py and of the wire, one test each: a new nats-py is judged in a minute."""

from __future__ import annotations

import asyncio
import re
import signal
import time

import pytest

from omni_worker.errors import EventTooLarge, InvalidSubject, PermissionDenied, TransportError
from omni_worker.nats_server import NatsServer
from omni_worker.transports.base import Message
from omni_worker.transports.jetstream import JetStreamTransport, client, connection, heartbeats
from omni_worker.transports.jetstream.heartbeats import Beat

from ..ports import free_port
from ..waiting import until
from .support import (
    CONSUMER,
    STREAM,
    FakeServer,
    Proxy,
    Reader,
    configured,
    connected,
    consumer_info,
    make_consumer,
    make_stream,
    message,
    parked,
    pause,
    permissions,
    raw,
    read,
    resume,
    settings,
    stored,
)

# --- bytes nobody expects ---------------------------------------------------------------------

HEADER_BLOCKS = [
    b"NATS/1.0",
    b"NATS/1.0\r\n",
    b"NAT",
    b"\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n: no name\r\n\r\n",
    b"NATS/1.0\r\nnot ended: x",
    b"NATS/1.0\r\nodd: \xff\xfe\r\n\r\n",
    b"NATS/1.0 \r\n\r\n",
    b"NATS/1.0 4xx what\r\n\r\n",
    b"NATS/9.9\r\n\r\n",
    b"\x00\x00\x00\x00",
]
SUBJECTS = [
    b"events.\xff\xfe", b"events.a\x0bb", b"events.a\x0cb", b"events.a\x00b", b"events.a\x1fb",
    b"events.a\x7fb", b"events.\xe2\x80\xa8", b"events." + b"x" * 3000,
]  # fmt: skip


@pytest.fixture
async def watched(nats_server: NatsServer):
    """A stream that is read: the transport, its reader, and its server."""
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        # What a broken connection took along is soon delivered again.
        await make_consumer(transport, ack_wait=10**9)
        reader = Reader()
        await read(transport, reader)
        yield transport, reader, nats_server


@pytest.mark.parametrize("block", HEADER_BLOCKS, ids=repr)
async def test_a_malformed_header_block_is_delivered_and_costs_no_connection(watched, block):
    _, reader, server = watched

    await raw(
        server.url,
        b"HPUB events.odd %d %d\r\n%b{}\r\n" % (len(block), len(block) + 2, block)
        + b"PUB events.next 1\r\n2\r\n",
        b'{"headers":true}',
    )
    await until(lambda: len(reader.deliveries) == 2)

    assert reader.bodies == [b"{}", b"2"]
    # The server takes a first line that looks like a status away before it stores the event.
    looks_like_status = block.startswith(b"NATS/1.0 ")
    assert reader.deliveries[0].raw_headers == (None if looks_like_status else block)
    assert reader.resumptions == 0


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: repr(subject[:20]))
async def test_odd_bytes_in_a_subject_are_delivered_and_cost_no_connection(watched, subject):
    _, reader, server = watched

    await raw(server.url, b"PUB %b 1\r\n1\r\nPUB events.next 1\r\n2\r\n" % subject)
    await until(lambda: len(reader.deliveries) == 2)

    assert reader.bodies == [b"1", b"2"]
    assert subject == reader.deliveries[0].subject.encode("utf-8", "surrogateescape")
    assert reader.resumptions == 0


@pytest.mark.parametrize("status", ["100", "404", "408", "409", "503", "200"])
async def test_a_status_header_on_an_event_is_an_event(watched, status):
    transport, reader, _ = watched

    await transport.publish(
        Message("events.one", b"{}", "1", {"Status": status, "Description": "Consumer Deleted"}),
        timeout=5,
    )
    await until(lambda: reader.deliveries)

    assert reader.bodies == [b"{}"]
    assert reader.cause is None


async def test_an_event_that_looks_like_a_status_is_an_event(watched):
    _, reader, server = watched
    block = b"NATS/1.0 409 Consumer Deleted\r\n\r\n"

    await raw(
        server.url,
        b"HPUB events.one %d %d\r\n%b{}\r\n" % (len(block), len(block) + 2, block),
        b'{"headers":true}',
    )
    await until(lambda: reader.deliveries)

    assert reader.bodies == [b"{}"]
    assert reader.cause is None


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_messages_are_read_however_the_wire_cuts_them(size):
    class Cutting(FakeServer):
        def answer(self, line, writer):
            super().answer(line, writer)
            if line.startswith(b"SUB events"):
                sid = int(line.split()[-1])
                data = b"".join(
                    b"MSG events.%d %d %d\r\n%b\r\n" % (n, sid, n, b"\n" * n) for n in range(40)
                )
                for start in range(0, len(data), size):
                    writer.transport.write(data[start : start + size])

    lengths: list[int] = []
    async with Cutting() as server:
        link = connection.Connection(settings(server.url))
        await link.open("tests")
        link.listen(b"events.*", lambda subject, reply, headers, body: lengths.append(len(body)))
        await until(lambda: len(lengths) == 40)
        await link.close()

    assert list(range(40)) == lengths


async def test_a_receiver_that_fails_costs_its_message_and_not_the_connection(watched, caplog):
    transport, reader, _ = watched
    receive = reader.receive
    reader.receive = lambda delivery: (delivery.sequence == 1 and 1 / 0) or receive(delivery)

    await transport.publish(message(b"1", id="1"), timeout=5)
    await transport.publish(message(b"2", id="2"), timeout=5)
    await until(lambda: reader.deliveries)

    assert reader.bodies == [b"2"]
    assert "a message could not be processed" in caplog.text


# --- what we must not send --------------------------------------------------------------------


async def test_body_and_headers_above_max_payload_are_refused_and_the_connection_lives(watched):
    transport, reader, _ = watched
    largest = b"x" * transport.max_payload

    with pytest.raises(EventTooLarge, match=r"events\.one: 10486\d\d bytes with headers"):
        await transport.publish(message(largest), timeout=5)

    await transport.publish(message(largest[:-500], id="2"), timeout=5)
    assert await stored(transport) == 1
    assert reader.resumptions == 0


async def test_a_request_above_max_payload_is_refused_and_the_connection_lives(watched):
    transport, reader, _ = watched

    with pytest.raises(EventTooLarge, match=r"STREAM\.UPDATE"):
        await transport.operators.update_stream(
            {"name": STREAM, "description": "x" * transport.max_payload}
        )

    assert await transport.operators.stream_info(STREAM) is not None
    assert reader.resumptions == 0


@pytest.mark.parametrize(
    "subject",
    ["", "events.a b", "events.a\r\nPUB events.b 0\r\n", "events.\x0b", "e." + "x" * 4096],
)
async def test_a_subject_that_would_break_the_protocol_is_refused_before_the_wire(watched, subject):
    transport, reader, _ = watched

    with pytest.raises(InvalidSubject):
        await transport.publish(message(subject=subject), timeout=5)

    assert await stored(transport) == 0
    assert reader.resumptions == 0


# --- pings and flushes ------------------------------------------------------------------------


async def test_a_flush_that_timed_out_leaves_no_zombie(watched):
    transport, reader, server = watched

    pause(server)
    flushed = await transport.flush(0.2)
    resume(server)

    assert not flushed
    assert await transport.flush(5)
    await transport.publish(message(), timeout=5)
    await until(lambda: reader.deliveries)
    assert reader.resumptions == 0


async def test_a_flush_stands_behind_what_was_published_before():
    async with FakeServer() as server, connected(server.url) as transport:
        publishing = [
            asyncio.create_task(transport.publish(message(id=str(n)), timeout=5)) for n in range(3)
        ]
        await asyncio.sleep(0)  # each has been written
        assert await transport.flush(5)
        for publish in publishing:
            publish.cancel()

    verbs = re.findall(rb"^(HPUB|PING)", server.received, re.MULTILINE)
    assert verbs == [b"PING", b"HPUB", b"HPUB", b"HPUB", b"PING"]


async def test_closing_writes_out_what_was_sent():
    class Slow(FakeServer):
        def answer(self, line, writer):
            super().answer(line, writer)
            if line == b"PING\r\n":  # logged in; now read nothing
                writer.transport.pause_reading()
                self.resume = writer.transport.resume_reading

    frame = b"PUB a 8000\r\n%b\r\n" % (b"x" * 8000)
    async with Slow() as server:
        link = connection.Connection(settings(server.url))
        await link.open("tests")
        writer = link._client._wire._io_writer
        while not writer.transport.get_write_buffer_size():  # the system takes no more
            link.send(frame)
            await asyncio.sleep(0)
        link.send(b"PUB last 0\r\n\r\n")
        asyncio.get_running_loop().call_later(0.1, server.resume)
        await link.close(timeout=5)
        await until(lambda: b"PUB last 0\r\n" in server.received)


@pytest.fixture
def quick_pings(monkeypatch):
    monkeypatch.setattr(client, "PING_INTERVAL", 0.2)


async def test_a_hung_server_is_noticed_and_leaves_no_zombie(quick_pings, watched):
    transport, reader, server = watched

    pause(server)
    await until(lambda: not transport.is_connected, timeout=5)
    resume(server)

    await transport.publish(message(), timeout=5)
    await until(lambda: reader.deliveries)
    assert reader.resumptions >= 1


async def test_a_hung_server_is_noticed_with_a_full_socket_buffer_too(quick_pings, watched):
    transport, reader, server = watched

    pause(server)
    publishing = [
        asyncio.create_task(transport.publish(message(b"x" * 900_000, id=str(n)), timeout=20))
        for n in range(20)
    ]
    await until(lambda: not transport.is_connected, timeout=5)
    resume(server)
    await asyncio.gather(*publishing)

    assert await stored(transport) == 20
    await until(lambda: len(set(reader.sequences)) == 20)


async def test_a_server_that_hangs_is_noticed_within_fifteen_seconds():
    # nats-py gives up when the ping after the allowed ones is due.
    assert client.PING_INTERVAL * 3 <= 15


# --- connections that end ---------------------------------------------------------------------


async def test_an_unexpected_error_replaces_the_connection_and_reading_goes_on(watched):
    transport, reader, _ = watched

    transport._connection.send(b"NONSENSE\r\n")
    await until(lambda: reader.resumptions)
    await transport.publish(message(), timeout=5)
    await until(lambda: reader.deliveries)

    assert reader.bodies == [b"{}"]


async def test_the_servers_words_are_the_cause_of_a_lost_connection(watched, caplog):
    transport, reader, _ = watched

    transport._connection.send(b"PUB %b 0\r\n\r\n" % (b"x" * 5000))
    await until(lambda: reader.resumptions)

    assert "maximum control line exceeded" in caplog.text.lower()


async def test_reading_goes_on_within_a_second_of_a_killed_servers_return(watched):
    transport, reader, server = watched
    await transport.publish(message(b"1", id="1"), timeout=5)
    await until(lambda: len(reader.deliveries) == 1)

    server.kill()
    await until(lambda: not transport.is_connected)
    server.start()
    back_at = asyncio.get_running_loop().time()
    await raw(server.url, b"PUB events.two 1\r\n2\r\n")
    await until(lambda: b"2" in reader.bodies)

    assert asyncio.get_running_loop().time() - back_at < 5


async def test_answers_given_while_the_connection_is_down_are_sent_after_it(nats_server):
    async with Proxy(nats_server) as proxy, connected(proxy.url) as transport:
        await make_stream(transport)
        await make_consumer(transport)
        reader = Reader()
        reader.receive = reader.deliveries.append  # without an answer
        await read(transport, reader)
        await transport.publish(message(), timeout=5)
        await until(lambda: reader.deliveries)

        transport._connection.on_down.append(reader.deliveries[0].ack)
        proxy.cut()
        await until(lambda: reader.resumptions)

        async with asyncio.timeout(5):
            while (await consumer_info(transport)).num_ack_pending:
                pass
        assert len(reader.deliveries) == 1


class Dropping(FakeServer):
    """Takes a login and ends the connection."""

    def answer(self, line, writer):
        super().answer(line, writer)
        if line == b"PING\r\n":
            writer.close()


async def test_a_server_that_accepts_and_drops_us_is_not_hammered():
    async with Dropping() as server, connected(server.url, reconnect_delay=0.2):
        await until(lambda: server.connections >= 3)
        started, before = asyncio.get_running_loop().time(), server.connections
        await until(lambda: server.connections > before)

        assert asyncio.get_running_loop().time() - started > 0.1


async def test_closing_ends_at_every_moment_of_a_reconnect():
    async with Dropping() as server:
        for turns in range(100):
            transport = JetStreamTransport(settings(server.url, reconnect_delay=0.0001))
            await transport.open("tests")
            for _ in range(turns):
                await asyncio.sleep(0)
            async with asyncio.timeout(10):
                await transport.close()


async def test_a_server_in_lame_duck_mode_hands_us_to_another(tmp_path):
    routes, other_routes = free_port(), free_port()
    with (
        configured(tmp_path / "a", 'lame_duck_duration: "30s"\nlame_duck_grace_period: "0.1s"',
                   *cluster("a", routes, other_routes)) as first,
        configured(tmp_path / "b", "", *cluster("b", other_routes, routes)) as second,
    ):  # fmt: skip
        async with connected(first.url) as transport:
            await until(lambda: len(transport._connection._discovered) >= 1)
            first.process.send_signal(signal.SIGUSR2)
            await until(lambda: transport._connection.info.get("server_name") == "b")

            assert transport.is_connected
            assert second.process is not None


def cluster(name: str, own: int, other: int) -> list[str]:
    """The arguments of one of two nodes without JetStream."""
    return [
        "--jetstream=false", "--server_name", name, "--cluster_name", "tests",
        "--cluster", f"nats://127.0.0.1:{own}", "--routes", f"nats://127.0.0.1:{other}",
    ]  # fmt: skip


# --- tries ------------------------------------------------------------------------------------


class Refusing(FakeServer):
    """Refuses every login."""

    def answer(self, line, writer):
        if line == b"PING\r\n":
            writer.write(b"-ERR 'Authorization Violation'\r\n")
            writer.close()


async def test_the_first_connect_tries_once_and_then_as_often_as_the_retries_say(caplog):
    async with Refusing() as server:
        transport = JetStreamTransport(settings(server.url, reconnect_max_retries=3))
        with pytest.raises(TransportError, match=r"after 4 tries: authorization violation"):
            await transport.open("tests")

    assert server.connections == 4
    lines = [record.getMessage() for record in caplog.records if "cannot connect" in record.message]
    assert [f"try {n} of 4" in line for n, line in enumerate(lines, start=2)] == [True] * 3
    assert all("authorization violation" in line for line in lines)


async def test_a_lost_connection_is_tried_again_once_and_as_often_as_the_retries_say():
    async with Refusing() as refusing:
        async with FakeServer() as server:
            server.port, refusing.port = refusing.port, server.port
        port = refusing.port
    async with FakeServer() as server:
        transport = JetStreamTransport(settings(server.url, reconnect_max_retries=2))
        await transport.open("tests")
        port = server.port
    refusing = Refusing()
    refusing.port = port
    async with refusing:
        cause = await asyncio.wait_for(transport.failed(), 5)

    assert transport.failure is cause
    assert "after 3 tries: " in str(cause)
    with pytest.raises(TransportError, match="after 3 tries"):
        await transport.publish(message(), timeout=5)
    await transport.close()


async def test_a_transport_that_gave_up_can_be_opened_again(nats_server):
    nats_server.kill()
    transport = JetStreamTransport(settings(nats_server.url, reconnect_max_retries=0))
    with pytest.raises(TransportError, match="nothing listens there"):
        await transport.open("tests")

    nats_server.start()
    await transport.open("tests")

    assert transport.failure is None
    await make_stream(transport)
    await transport.publish(message(), timeout=5)
    subjects = [subject for subject, _ in transport._connection._listening.values()]
    assert len(subjects) == len(set(subjects))  # nothing is heard twice
    await transport.close()


async def test_waits_grow_to_the_limit_and_have_full_jitter(monkeypatch):
    bounds: list[float] = []
    monkeypatch.setattr(connection.backoff, "full_jitter", lambda wait: bounds.append(wait) or 0)
    transport = JetStreamTransport(
        settings(
            f"nats://127.0.0.1:{free_port()}",
            reconnect_delay=1.0, reconnect_max_delay=30.0, reconnect_max_retries=7,
        )
    )  # fmt: skip

    with pytest.raises(TransportError):
        await transport.open("tests")

    assert bounds == [1, 2, 4, 8, 16, 30, 30]


async def test_endless_retries_never_end(monkeypatch):
    tries = 0

    def count(wait: float) -> float:
        nonlocal tries
        tries += 1
        return 0.0

    monkeypatch.setattr(connection.backoff, "full_jitter", count)
    transport = JetStreamTransport(
        settings(f"nats://127.0.0.1:{free_port()}", reconnect_max_retries=None)
    )

    opening = asyncio.create_task(transport.open("tests"))
    await until(lambda: tries > 1_100)  # beyond what two to the power of it can be a float

    assert not opening.done()
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)


async def test_closing_ends_what_waits_for_a_connection(nats_server):
    transport = JetStreamTransport(settings(nats_server.url, reconnect_max_retries=None))
    await transport.open("tests")
    nats_server.kill()
    await until(lambda: not transport.is_connected)

    asking = asyncio.create_task(transport.operators.streams())
    publishing = asyncio.create_task(transport.publish(message(), timeout=30))
    await asyncio.sleep(0)
    await transport.close()

    async with asyncio.timeout(10):
        for task in (asking, publishing):
            with pytest.raises(TransportError, match=r"not connected|was closed"):
                await task


# --- rights -----------------------------------------------------------------------------------


async def test_a_denied_request_names_the_subject_at_once(tmp_path):
    with configured(tmp_path, permissions(publish=["$JS.API.STREAM.NAMES"])) as server:
        async with connected(server.url, user="worker", password="secret") as transport:
            async with asyncio.timeout(10):
                with pytest.raises(PermissionDenied, match=r'"\$JS\.API\.STREAM\.NAMES"'):
                    await transport._api.owner("events.one")

            await make_stream(transport)  # the connection lives


async def test_a_denied_publish_names_the_subject_at_once(tmp_path):
    with configured(tmp_path, permissions(publish=["events.subscription.>"])) as server:
        async with connected(server.url, user="worker", password="secret") as transport:
            await make_stream(transport)

            async with asyncio.timeout(10):
                with pytest.raises(PermissionDenied, match=r'"events\.subscription\.\\"a\\""'):
                    await transport.publish(message(subject='events.subscription."a"'), timeout=30)

            await transport.publish(message(), timeout=5)


async def test_a_denied_inbox_fails_requests_and_publishes_at_once(tmp_path):
    with configured(tmp_path, permissions(subscribe=["_INBOX.>"])) as server:
        async with connected(server.url, user="worker", password="secret") as transport:
            async with asyncio.timeout(10):
                for _ in range(2):  # the first learns it, the second knows it
                    results = await asyncio.gather(
                        transport.operators.streams(),
                        transport.publish(message(), timeout=30),
                        return_exceptions=True,
                    )
                    assert [type(result) for result in results] == [PermissionDenied] * 2
                    assert all("_INBOX" in str(result) for result in results)


async def test_a_consumer_we_may_not_pull_from_is_lost_at_once(tmp_path):
    denied = permissions(publish=["$JS.API.CONSUMER.MSG.NEXT.>"])
    with configured(tmp_path, denied) as server:
        async with connected(server.url, user="worker", password="secret") as transport:
            await make_stream(transport)
            await make_consumer(transport)
            reader = Reader()
            await read(transport, reader)
            await until(lambda: reader.cause, timeout=5)

    assert isinstance(reader.cause, PermissionDenied)
    assert f"CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}" in str(reader.cause)


async def test_a_pull_we_may_not_listen_to_is_lost_at_once(tmp_path, monkeypatch):
    # Inboxes of one token are the pulls' own; requests and publishes listen to one more.
    with configured(tmp_path, permissions(subscribe=["_INBOX.*"])) as server:
        async with connected(server.url, user="worker", password="secret") as transport:
            await make_stream(transport)
            await make_consumer(transport)
            reader = Reader()
            await read(transport, reader)
            await until(lambda: reader.cause, timeout=5)

    assert isinstance(reader.cause, PermissionDenied)


# --- pulls ------------------------------------------------------------------------------------


@pytest.fixture
def quick_heartbeats(monkeypatch):
    beat(monkeypatch, Beat(every=0.2, silence=0.5, expires=2.0))


def beat(monkeypatch, one):
    for name in ("BUSY", "QUIET"):
        monkeypatch.setattr(heartbeats, name, one)


async def test_a_request_that_vanishes_is_made_again_after_missed_heartbeats(
    quick_heartbeats, nats_server
):
    async with Proxy(nats_server) as proxy, connected(proxy.url) as transport:
        await make_stream(transport)
        await make_consumer(transport)
        vanished: list[bytes] = []
        proxy.drop = lambda line: b"MSG.NEXT" in line and not vanished and not vanished.append(line)
        reader = Reader()
        await read(transport, reader)
        await transport.publish(message(), timeout=5)
        await until(lambda: reader.deliveries)

        assert len(vanished) == 1
        assert proxy.connections == 1


async def test_silence_after_asking_again_replaces_the_connection(quick_heartbeats, nats_server):
    async with Proxy(nats_server) as proxy, connected(proxy.url) as transport:
        await make_stream(transport)
        await make_consumer(transport)
        vanished: list[bytes] = []
        proxy.drop = lambda line: (
            b"MSG.NEXT" in line and len(vanished) < 2 and not vanished.append(line)
        )
        reader = Reader()
        await read(transport, reader)
        await transport.publish(message(), timeout=5)
        await until(lambda: reader.deliveries)

        assert proxy.connections == 2


async def test_the_silence_of_a_lost_link_does_not_cost_the_next_one(
    quick_heartbeats, nats_server, monkeypatch
):
    async with Proxy(nats_server) as proxy, connected(proxy.url) as transport:
        await make_stream(transport)
        await make_consumer(transport)
        reader = Reader()
        source = await read(transport, reader)
        ask = source._consumer_info

        async def asked_over_two_links(*what):
            proxy.cut()  # the old link is given up while the question is under way
            await until(lambda: reader.resumptions)
            return await ask(*what)

        monkeypatch.setattr(source, "_consumer_info", asked_over_two_links)
        await source._after_silence()
        await transport.publish(message(), timeout=5)
        await until(lambda: reader.deliveries)

        assert proxy.connections == 2


async def test_a_blocked_loop_is_not_taken_for_a_silent_server(
    quick_heartbeats, nats_server, caplog
):
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        await make_consumer(transport)
        await read(transport, Reader())
        await parked(transport)
        for _ in range(2):
            time.sleep(2.2)  # not await: nobody reads the heartbeats, and the watch is late
            await asyncio.sleep(0.02)

    assert "no heartbeat" not in caplog.text


async def test_deliveries_are_as_good_as_heartbeats(monkeypatch, watched, caplog):
    # A busy consumer's server sends no heartbeats; silence is the absence of both.
    transport, reader, _ = watched
    source = next(iter(transport._pulls))
    source.watch(now := asyncio.get_running_loop().time())

    await transport.publish(message(), timeout=5)
    await until(lambda: reader.deliveries)
    source.watch(now + heartbeats.QUIET.silence + 1)

    assert "no heartbeat" not in caplog.text


async def test_an_expired_request_is_replenished(quick_heartbeats, watched, caplog):
    transport, reader, _ = watched
    source = next(iter(transport._pulls))
    await until(lambda: reader.replenishments >= 1, timeout=5)

    assert source.outstanding == reader.credit
    assert "no heartbeat" not in caplog.text


async def test_a_deleted_consumer_is_lost_at_once(watched):
    transport, reader, _ = watched

    await parked(transport)
    await transport.operators.delete_consumer(STREAM, CONSUMER)
    await until(lambda: reader.cause, timeout=5)

    assert f"consumer {CONSUMER} on {STREAM}: consumer deleted" == str(reader.cause)


async def test_a_deleted_stream_loses_its_consumers(quick_heartbeats, watched):
    # The server does not always say so; then the heartbeats end.
    transport, reader, _ = watched

    await transport._api.ask(f"STREAM.DELETE.{STREAM}")
    await until(lambda: reader.cause, timeout=5)

    assert isinstance(reader.cause, TransportError)


async def test_a_consumer_whose_notice_is_lost_is_missed_by_that_of_another(watched, monkeypatch):
    # Of a stream that is deleted the server loses some; heartbeats would tell after eleven seconds.
    transport, reader, _ = watched
    config = {"name": "other", "durable_name": "other", "ack_policy": "explicit"}
    await transport.operators.create_consumer(STREAM, config)
    unnoticed = Reader()
    source = await transport.consume(STREAM, "other", unnoticed)
    monkeypatch.setattr(source, "_on_conflict", lambda line, headers: None)
    source.request(1)
    await parked(transport)

    await transport.operators.delete_consumer(STREAM, "other")
    await transport.operators.delete_consumer(STREAM, CONSUMER)
    await until(lambda: reader.cause and unnoticed.cause, timeout=5)

    assert str(unnoticed.cause) == f"consumer other on {STREAM} does not exist any more"


async def test_a_consumer_of_the_same_stream_that_still_exists_is_read_on(watched):
    transport, reader, _ = watched
    config = {"name": "other", "durable_name": "other", "ack_policy": "explicit"}
    await transport.operators.create_consumer(STREAM, config)
    beside = Reader()
    source = await transport.consume(STREAM, "other", beside)
    source.request(beside.credit)
    await parked(transport)

    await transport.operators.delete_consumer(STREAM, CONSUMER)
    await until(lambda: reader.cause)
    await until(lambda: source._check is not None and source._check.done())
    await transport.publish(message(), timeout=5)
    await until(lambda: beside.deliveries)

    assert beside.cause is None
    assert len(beside.deliveries) == 1


async def test_a_consumer_that_never_was_is_lost_after_a_look(nats_server):
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        reader = Reader()
        await read(transport, reader)
        await until(lambda: reader.cause, timeout=5)

    assert "does not exist any more" in str(reader.cause)


@pytest.mark.parametrize("is_told_of", [True, False])
async def test_a_consumer_nobody_answers_for_at_the_moment_is_asked_again(
    watched, monkeypatch, is_told_of
):
    transport, reader, _ = watched
    source = next(iter(transport._pulls))

    async def nobody(*_):
        raise TransportError("no answer in time")

    if not is_told_of:  # JetStream itself is away, as while a cluster elects
        monkeypatch.setattr(source, "_consumer_info", nobody)
    source._on_message(b"", b"", b"NATS/1.0 503\r\n\r\n", b"")
    await until(lambda: reader.replenishments, timeout=5)
    await transport.publish(message(), timeout=5)
    await until(lambda: reader.deliveries)

    assert reader.cause is None


@pytest.mark.parametrize("line", [b"409 Server Shutdown", b"409 Leadership Change"])
async def test_a_server_that_goes_without_taking_our_link_is_asked_again(watched, line):
    # In a cluster the consumer's leader may be another server than the one we talk to.
    _, reader, _ = watched
    source = next(iter(watched[0]._pulls))

    source._on_message(b"", b"", b"NATS/1.0 %b\r\n\r\n" % line, b"")
    assert source.outstanding == 0
    await until(lambda: reader.replenishments, timeout=5)

    assert source.outstanding == reader.credit


async def test_a_request_that_vanishes_while_the_leader_changes_is_made_again_soon(
    monkeypatch, nats_server
):
    beat(monkeypatch, Beat(every=15.0, silence=60.0))
    monkeypatch.setattr(heartbeats, "ELECTING", Beat(every=0.2, silence=0.5, expires=2.0))
    async with Proxy(nats_server) as proxy, connected(proxy.url) as transport:
        await make_stream(transport)
        await make_consumer(transport)
        vanished: list[bytes] = []  # one as its server goes, and the next one
        proxy.drop = lambda line: (
            b"MSG.NEXT" in line and len(vanished) < 2 and not vanished.append(line)
        )
        reader = Reader()
        source = await read(transport, reader)

        source._on_message(b"", b"", b"NATS/1.0 409 Server Shutdown\r\n\r\n", b"")
        await transport.publish(message(), timeout=5)
        await until(lambda: reader.deliveries)

        assert proxy.connections == 1


async def test_a_request_that_vanishes_after_a_reconnect_is_made_again_soon(
    monkeypatch, nats_server
):
    beat(monkeypatch, Beat(every=15.0, silence=60.0))
    monkeypatch.setattr(heartbeats, "ELECTING", Beat(every=0.2, silence=0.5, expires=2.0))
    async with Proxy(nats_server) as proxy, connected(proxy.url) as transport:
        await make_stream(transport)
        await make_consumer(transport)
        reader = Reader()
        await read(transport, reader)
        vanished: list[bytes] = []
        proxy.drop = lambda line: b"MSG.NEXT" in line and not vanished and not vanished.append(line)

        proxy.cut()
        await until(lambda: vanished)
        await transport.publish(message(), timeout=5)
        await until(lambda: reader.deliveries)

        assert proxy.connections == 2


async def test_a_full_waiting_line_is_told_and_asked_again_without_a_reconnect(
    quick_heartbeats, monkeypatch, nats_server, caplog
):
    beat(monkeypatch, Beat(every=0.2, silence=0.5))
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        await make_consumer(transport, max_waiting=1)
        first, second = Reader(credit=1), Reader(credit=1)
        source = await read(transport, first)
        await read(transport, second)
        await until(lambda: "its max_waiting" in caplog.text)
        assert "connection lost" not in caplog.text
        assert second.cause is None

        await source.close()
        await transport.publish(message(), timeout=5)
        await until(lambda: second.deliveries)


async def test_a_refused_request_does_not_take_earlier_ones_away(watched):
    # With heartbeats this server says nothing; others do.
    transport, reader, _ = watched
    source = next(iter(transport._pulls))
    source.request(2)

    source._on_message(b"", b"", b"NATS/1.0 409 Exceeded MaxWaiting\r\n\r\n", b"")

    assert source.outstanding == reader.credit


async def test_a_request_larger_than_the_consumer_allows_is_made_in_its_size(nats_server):
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        await make_consumer(transport, max_batch=7)
        reader = Reader(credit=50)
        source = await read(transport, reader)
        for n in range(20):
            await transport.publish(message(id=str(n)), timeout=5)
        await until(lambda: len(reader.deliveries) == 20)

    assert source.outstanding <= 50
    assert reader.cause is None


async def test_trouble_without_end_keeps_asking_without_end(watched):
    source = next(iter(watched[0]._pulls))

    for _ in range(2_000):  # a JetStream that is away for an hour
        source._cancel_timers()
        source._ended_later(0)

    assert 0 < source._timer.when() - asyncio.get_running_loop().time() <= 2.1


async def test_a_link_that_breaks_between_login_and_the_first_read_is_noticed(monkeypatch):
    class Hasty(FakeServer):
        def answer(self, line, writer):
            super().answer(line, writer)
            if line == b"PING\r\n":  # logged in
                writer.transport.abort()

    read_loop = client.Client._read_loop

    async def late(self):
        reader = self._wire._io_reader
        await until(lambda: reader.at_eof() or reader.exception())
        await read_loop(self)

    monkeypatch.setattr(client.Client, "_read_loop", late)
    lost = []
    async with Hasty() as server:
        link = client.Client(
            require_tls=False, on_lost=lost.append, on_denied=lost.append, on_info=lambda info: None
        )
        await link.start(server.url, timeout=2, options={})

        await until(lambda: lost)
