"""Connecting: every way to log in, TLS, clusters, and what is said when it does not work."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import traceback
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nkeys
import pytest
from nats import errors as nats_errors

from omni_worker.errors import (
    ApiError,
    ConnectError,
    NotConnected,
    PermissionDenied,
    TransportError,
)
from omni_worker.nats_server import NatsServer
from omni_worker.transports.jetstream import JetStreamTransport, client
from omni_worker.transports.jetstream.login import describe, is_answered, tls_context

from ..ports import free_port
from ..waiting import until
from .certificates import Certificates, make_certificates, make_creds, make_key
from .support import (
    STREAM,
    FakeServer,
    Reader,
    configured,
    connected,
    consumer_info,
    make_consumer,
    make_stream,
    message,
    parked,
    pause,
    read,
    resume,
    settings,
)

SECRET = "s3cr3t/p%w:@d"
QUOTED = "s3cr3t%2Fp%25w%3A%40d"
# A server gives up waiting for a login after two seconds, and says something else: a busy machine.
USERS = f'authorization: {{ user: worker, password: "{SECRET}", timeout: 30 }}'
OWN_INBOX = """authorization: { users: [{
    user: w, password: w, permissions: { publish: ">", subscribe: "_INBOX_w.>" }
}] }"""
TOKEN = f'authorization: {{ token: "{SECRET}" }}'


async def works(url: str, **options: object) -> None:
    """Connect, store an event, disconnect."""
    async with connected(url, reconnect_max_retries=0, **options) as transport:
        await make_stream(transport)
        await transport.publish(message(), timeout=5)


async def refused(url: str, *, within: float = 2.0, **options: object) -> str:
    """Connect without success, quickly; returns everything the error can show."""
    transport = JetStreamTransport(settings(url, reconnect_max_retries=0, **options))
    async with asyncio.timeout(within):
        with pytest.raises(TransportError) as caught:
            await transport.open("tests")
    return "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(transport)


def with_login(url: str, login: str) -> str:
    return url.replace("nats://", f"nats://{login}@")


def links() -> int:
    """How many clients of nats-py live in this process: each has a task that pings."""
    return sum("Client._ping_interval" in repr(task) for task in asyncio.all_tasks())


async def test_opening_from_several_tasks_at_once_makes_one_link():
    with NatsServer() as server:
        transport = JetStreamTransport(settings(server.url))
        before = links()

        await asyncio.gather(*(transport.open("tests") for _ in range(5)))

        assert links() == before + 1
        await make_stream(transport)
        await transport.publish(message(), timeout=5)
        await transport.close()
        await until(lambda: links() == before)


async def test_closing_while_it_connects_leaves_no_link():
    with NatsServer() as server:
        transport = JetStreamTransport(settings(server.url))
        before = links()
        opening = asyncio.create_task(transport.open("tests"))
        await asyncio.sleep(0)

        await transport.close()

        with pytest.raises(NotConnected, match="closed while it was being made"):
            await opening
        assert not transport.is_connected
        await until(lambda: links() == before)


# --- logins -----------------------------------------------------------------------------------


async def test_user_and_password_log_in(tmp_path):
    with configured(tmp_path, USERS) as server:
        await works(server.url, user="worker", password=SECRET)


async def test_a_token_logs_in(tmp_path):
    with configured(tmp_path, TOKEN) as server:
        await works(server.url, token=SECRET)


async def test_user_and_password_in_the_url_log_in_percent_encoded(tmp_path):
    with configured(tmp_path, USERS) as server:
        await works(with_login(server.url, f"worker:{QUOTED}"))


async def test_a_token_in_the_url_logs_in(tmp_path):
    with configured(tmp_path, TOKEN) as server:
        await works(with_login(server.url, QUOTED))


async def test_a_url_without_a_scheme_works(tmp_path):
    with configured(tmp_path, USERS) as server:
        await works(f"worker:{QUOTED}@{server.url.removeprefix('nats://')}")


async def test_an_nkey_file_logs_in(tmp_path):
    key = make_key(nkeys.PREFIX_BYTE_USER)
    seed = tmp_path / "worker.nk"
    seed.write_bytes(key.seed + b"\n")
    with configured(tmp_path, f"authorization: {{ users: [ {{ nkey: {key.name} }} ] }}") as server:
        await works(server.url, nkey=seed)


async def test_a_creds_file_logs_in(tmp_path):
    creds, config = make_creds(tmp_path)
    with configured(tmp_path, config) as server:
        await works(server.url, creds=creds)


async def test_a_creds_file_is_read_again_for_every_connection(tmp_path):
    creds, config = make_creds(tmp_path)
    with configured(tmp_path, config) as server:
        async with connected(server.url, creds=creds) as transport:
            good = creds.read_text()
            creds.write_text("rotated away")
            transport._connection.force_reconnect("a test")
            await until(lambda: not transport.is_connected)
            creds.write_text(good)
            await until(lambda: transport.is_connected)


# --- refusals, and no secret in them ----------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "options", "login"),
    [
        (USERS, {"user": "worker", "password": "wrong-s3cr3t"}, ""),
        (TOKEN, {"token": "wrong-s3cr3t"}, ""),
        (USERS, {}, "worker:wrong-s3cr3t"),
        (TOKEN, {}, "wrong-s3cr3t"),
    ],
    ids=["password", "token", "password in the URL", "token in the URL"],
)
async def test_a_wrong_secret_is_the_cause_and_is_shown_nowhere(
    tmp_path, caplog, config, options, login
):
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    with configured(tmp_path, config) as server:
        url = with_login(server.url, login) if login else server.url
        shown = await refused(url, within=5, **options)
        transport = JetStreamTransport(settings(url, reconnect_max_retries=2, **options))
        with pytest.raises(TransportError):
            await transport.open("tests")

    assert "authorization violation: a wrong user, password or token; see the URL" in shown
    assert "wrong-s3cr3t" not in shown
    assert len([record for record in caplog.records if "cannot connect" in record.message]) == 2
    for record in caplog.records:
        assert "wrong-s3cr3t" not in record.getMessage() + repr(vars(record))


async def test_a_creds_file_that_holds_none_is_the_cause(tmp_path):
    creds, config = make_creds(tmp_path)
    creds.write_text("nothing to see")
    with configured(tmp_path, config) as server:
        shown = await refused(server.url, creds=creds)

    assert "cannot connect" in shown


async def test_a_refusal_with_the_greeting_is_the_cause():
    class Full(FakeServer):
        def greet(self, writer):
            super().greet(writer)
            writer.write(b"-ERR 'maximum connections exceeded'\r\n")

    async with Full() as server:
        assert "maximum connections exceeded" in await refused(server.url)


async def test_a_server_that_is_not_one_is_told():
    class Web(FakeServer):
        def greet(self, writer):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with Web() as server:
        assert "INFO" in await refused(server.url)


async def test_a_server_that_hangs_up_during_the_login_is_no_connection():
    class HangingUp(FakeServer):
        def answer(self, line, writer):
            if line.startswith(b"CONNECT"):
                writer.close()

    async with HangingUp() as server:
        assert "closed the connection while we logged in" in await refused(server.url)


async def test_a_server_that_says_nothing_is_given_up_in_time():
    class Mute(FakeServer):
        def greet(self, writer):
            pass

    async with Mute() as server:
        assert "no answer in time" in await refused(server.url, connect_timeout=0.1)


async def test_a_login_is_answered_through_pings_and_news_of_the_cluster(monkeypatch):
    monkeypatch.setattr(client, "PING_INTERVAL", 0.02)

    class Chatty(FakeServer):
        def answer(self, line, writer):
            if line == b"PING\r\n":
                writer.write(b'PING\r\nINFO {"server_id":"FAKE"}\r\nPONG\r\n')

    async with Chatty() as server, connected(server.url) as transport:
        assert transport.is_connected
        await until(lambda: server.received.count(b"PONG\r\n") >= 3)
        # nats-py believes it too: a server that hangs later is pinged.
        assert server.received.count(b"PING\r\n") >= 3


async def test_nobody_listening_is_told_as_that():
    assert "connection refused" in await refused(f"nats://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "x"), "connection refused: nothing listens there"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError("Multiple exceptions: [Errno 111] ::1, [Errno 111] 127.0.0.1"), "Multiple exce"),
        (TimeoutError(), "no answer in time"),
        (
            nats_errors.Error("nats: 'Authorization Violation'"),
            "authorization violation: a wrong user, password or token; see the URL",
        ),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_cause_is_told_in_words_a_person_can_act_on(error, words):
    assert describe(error).startswith(words)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "x"), False),
        (socket.gaierror(-2, "authentication"), False),
        (TimeoutError(), False),
        (RuntimeError(), False),
        (nats_errors.Error("nats: 'Authorization Violation'"), True),
        (ssl.SSLCertVerificationError("x"), True),
        (nats_errors.SecureConnWantedError(), True),
        (ConnectError("the server asks for a client certificate", is_answered=True), True),
    ],
)
def test_a_server_that_refuses_us_is_told_from_one_that_is_not_there(
    error: Exception, expected: bool
) -> None:
    assert is_answered(error) is expected


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def other_certificates(tmp_path_factory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("other"), "elsewhere.example.org")


def tls(made: Certificates, *, verify: bool = False) -> str:
    lines = [f'cert_file: "{made.cert}"', f'key_file: "{made.key}"']
    if verify:
        lines += [f'ca_file: "{made.ca}"', "verify: true"]
    return f"tls: {{ {', '.join(lines)} }}"


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_tls_with_a_ca_of_ones_own_connects(tmp_path, certificates, scheme):
    with configured(tmp_path, tls(certificates)) as server:
        await works(server.url.replace("nats:", f"{scheme}:"), ca=certificates.ca)


async def test_tls_before_the_servers_first_word_connects(tmp_path, certificates):
    config = tls(certificates).replace("}", ", handshake_first: true }")
    with configured(tmp_path, config) as server:
        await works(server.url, ca=certificates.ca, tls_first="on")


async def test_a_server_that_expects_tls_first_is_named_as_that(tmp_path, certificates):
    config = tls(certificates).replace("}", ", handshake_first: true, timeout: 0.3 }")
    with configured(tmp_path, config) as server:
        shown = await refused(server.url, ca=certificates.ca)

    assert "NATS_TLS_FIRST=on if it has handshake_first" in shown


async def test_tls_first_asked_of_another_server_is_named_as_that(tmp_path, certificates):
    with configured(tmp_path, tls(certificates)) as server:
        shown = await refused(
            server.url, within=10.0, ca=certificates.ca, tls_first="on", connect_timeout=0.5
        )

    assert "NATS_TLS_FIRST=on is only for servers with handshake_first" in shown


async def test_an_inbox_that_is_not_ours_names_the_setting(tmp_path):
    with configured(tmp_path, OWN_INBOX) as server:
        async with connected(with_login(server.url, "w:w")) as transport:
            with pytest.raises(PermissionDenied, match="NATS_INBOX_PREFIX"):
                await transport.operators.streams()


async def test_answers_come_to_an_inbox_of_ones_own(tmp_path):
    with configured(tmp_path, OWN_INBOX) as server:
        url = with_login(server.url, "w:w")
        await works(url, inbox_prefix="_INBOX_w")
        async with connected(url, inbox_prefix="_INBOX_w") as transport:
            await make_consumer(transport)
            reader = Reader()
            await read(transport, reader)
            await until(lambda: reader.deliveries)


async def test_mutual_tls_connects(tmp_path, certificates):
    with configured(tmp_path, tls(certificates, verify=True)) as server:
        await works(
            server.url,
            ca=certificates.ca, cert=certificates.client_cert, key=certificates.client_key,
        )  # fmt: skip


async def test_a_missing_client_certificate_is_refused_with_the_cause(tmp_path, certificates):
    with configured(tmp_path, tls(certificates, verify=True)) as server:
        shown = await refused(server.url, ca=certificates.ca)

    assert "the server asks for a client certificate; see NATS_CERT, NATS_KEY" in shown


async def test_an_unknown_authority_is_refused_quickly_with_the_cause(tmp_path, certificates):
    with configured(tmp_path, tls(certificates)) as server:
        shown = await refused(server.url.replace("nats:", "tls:"))

    assert "the server's certificate is not trusted" in shown
    assert "see NATS_CA" in shown


async def test_a_tls_server_is_checked_when_nobody_asked_for_tls_too(tmp_path, certificates):
    with configured(tmp_path, tls(certificates)) as server:
        assert "the server's certificate is not trusted" in await refused(server.url)


async def test_a_certificate_for_another_name_is_refused(tmp_path, other_certificates):
    with configured(tmp_path, tls(other_certificates)) as server:
        shown = await refused(server.url, ca=other_certificates.ca)

    assert "the server's certificate is not trusted (IP address mismatch" in shown


async def test_a_certificate_that_has_expired_is_refused(tmp_path):
    yesterday = datetime.now(UTC) - timedelta(days=1)
    made = make_certificates(tmp_path, "127.0.0.1", "localhost", not_after=yesterday)
    with configured(tmp_path, tls(made)) as server:
        shown = await refused(server.url, ca=made.ca)

    assert "the server's certificate is not trusted (certificate has expired" in shown


async def test_tls_asked_of_a_plaintext_server_is_refused_before_a_secret_is_sent(certificates):
    async with FakeServer(auth_required=True) as server:
        for url, options in (
            (server.url, {"ca": certificates.ca, "user": "worker", "password": SECRET}),
            (server.url.replace("nats:", "tls:"), {"token": SECRET}),
            (with_login(server.url, f"worker:{QUOTED}").replace("nats:", "tls:"), {}),
        ):
            shown = await refused(url, **options)
            assert "TLS is required and the server does not offer it; nothing was sent" in shown

        assert (server.connections, server.received) == (3, b"")


async def test_a_handshake_that_never_ends_is_given_up_in_time(certificates):
    async with FakeServer(tls_required=True) as server:
        shown = await refused(server.url, ca=certificates.ca, connect_timeout=0.2)

    assert "no answer in time" in shown


async def test_a_handshake_that_breaks_is_given_up_at_once(certificates):
    class Breaking(FakeServer):
        async def _serve(self, reader, writer):
            self.greet(writer)
            await reader.read(10)  # the client's hello
            writer.write(b"this is not TLS\r\n" * 20)
            await reader.read()
            writer.close()

    async with Breaking(tls_required=True) as server:
        shown = await refused(server.url, ca=certificates.ca)

    assert "TLS failed" in shown


async def test_a_ca_file_that_holds_none_is_the_cause(tmp_path, certificates):
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    with configured(tmp_path, tls(certificates)) as server:
        assert "see NATS_CA" in await refused(server.url, ca=empty)


async def test_a_hung_tls_server_does_not_hold_up_closing(tmp_path, certificates):
    with configured(tmp_path, tls(certificates)) as server:
        async with connected(server.url, ca=certificates.ca) as transport:
            pause(server)
            async with asyncio.timeout(10):
                await transport.close()
            resume(server)


# --- several servers --------------------------------------------------------------------------


async def test_any_of_several_urls_will_do(nats_server):
    dead = [f"nats://127.0.0.1:{free_port()}" for _ in range(3)]
    async with connected(*dead, nats_server.url, reconnect_max_retries=0) as transport:
        assert transport.is_connected


def node(folder: Path, name: str, port: int, others: list[int], config: str = "", *more: str):
    """One node of a cluster."""
    routes = ",".join(f"nats://127.0.0.1:{other}" for other in others)
    return configured(
        folder / name, config,
        "--server_name", name, "--cluster_name", "tests",
        "--cluster", f"nats://127.0.0.1:{port}", "--routes", routes, *more,
    )  # fmt: skip


async def test_a_discovered_server_takes_over_with_the_same_login_and_certificate_name(tmp_path):
    # Discovered servers come as addresses; this certificate knows the name alone.
    made = make_certificates(tmp_path, "localhost")
    one, two = free_port(), free_port()
    config = f"{USERS}\n{tls(made)}"
    with (
        node(tmp_path, "a", one, [two], config, "--jetstream=false") as first,
        node(tmp_path, "b", two, [one], config, "--jetstream=false"),
    ):
        url = f"tls://worker:{QUOTED}@localhost:{first.port}"
        async with connected(url, ca=made.ca) as transport:
            await until(lambda: len(transport._connection._discovered) >= 1)
            first.kill()
            await until(lambda: transport._connection.info.get("server_name") == "b")
            assert await transport.flush(5)


async def test_reading_goes_on_when_the_consumers_leader_leaves_and_our_link_stays(tmp_path):
    ports, names = [free_port() for _ in range(3)], ["a", "b", "c"]
    nodes = [
        node(tmp_path, name, port, [other for other in ports if other != port])
        for name, port in zip(names, ports, strict=True)
    ]
    for one in nodes:
        one.start()
    try:
        async with connected(nodes[0].url) as transport:
            await make_replicated_stream(transport)
            await make_consumer(transport, ack_wait=2 * 10**9)
            leader = names.index((await consumer_info(transport)).raw["cluster"]["leader"])

        async with connected(nodes[leader - 1].url) as transport:
            reader = Reader()
            await read(transport, reader)
            await parked(transport)
            nodes[leader].stop()
            await transport.publish(message(), timeout=30)
            await until(lambda: reader.deliveries, timeout=20)

            assert reader.cause is None  # asking again after a pause counts as a resumption
    finally:
        for one in nodes:
            one.kill()
            one.stop()


async def make_replicated_stream(transport: JetStreamTransport) -> None:
    """The stream on three servers, as soon as they have elected their leader."""
    config = {"name": STREAM, "subjects": ["events.>"], "num_replicas": 3}
    async with asyncio.timeout(30):
        while True:
            with suppress(TransportError):
                await transport._api.ask(f"STREAM.CREATE.{STREAM}", config, timeout=0.5)
                return


# --- what the server cannot do ----------------------------------------------------------------


async def test_a_server_without_jetstream_is_told_as_that(tmp_path):
    with configured(tmp_path, "", "--jetstream=false") as server:
        async with connected(server.url) as transport:
            async with asyncio.timeout(10):
                with pytest.raises(ApiError, match="no JetStream here: start it with --jetstream"):
                    await transport.operators.streams()
                with pytest.raises(TransportError, match="no JetStream here"):
                    await transport.publish(message(), timeout=0.5)


async def test_an_account_without_jetstream_is_told_as_that(tmp_path):
    config = 'accounts: { APP: { users: [ { user: worker, password: "pw" } ] } }'
    with configured(tmp_path, config) as server:
        async with connected(server.url, user="worker", password="pw") as transport:
            with pytest.raises(ApiError, match=r"(?i)jetstream"):
                await transport.operators.streams()


async def test_a_server_that_is_too_old_is_refused_and_let_go():
    async with FakeServer(version="2.9.25") as server:
        shown = await refused(server.url)

        assert "nats-server 2.9.25 is too old: 2.10.0 or newer is needed" in shown
        await until(lambda: not server._writers)


async def test_a_server_with_slow_filters_is_told_once(caplog):
    async with FakeServer(version="2.11.1-beta") as server, connected(server.url) as transport:
        assert transport.server_version == (2, 11, 1)

    assert caplog.text.count("2.11.3 or newer is recommended") == 1


async def test_the_tls_floor_is_the_systems(certificates):
    # No option of ours weakens what Python's default context demands.
    context = tls_context(settings("nats://localhost", ca=certificates.ca))

    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
