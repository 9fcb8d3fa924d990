"""WebSocket: the JetStream transport over ws:// and wss://, and what is said when it fails."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from omni_worker.errors import ConfigError
from omni_worker.nats_server import LOOPBACK, NatsServer
from omni_worker.settings import Settings
from omni_worker.transports.jetstream.web_socket import MAX_FRAME

from ..ports import free_port
from ..waiting import until
from .certificates import Certificates, make_certificates
from .servers import emptied
from .suite import TransportSuite
from .support import (
    Reader,
    connected,
    make_consumer,
    make_stream,
    message,
    read,
    stored,
)
from .test_connecting import QUOTED, USERS, refused, with_login, works
from .test_connecting import SECRET as PASSWORD
from .test_jetstream import JetStreamBackend

SECRET = "wrong-s3cr3t"


class WebServer(NatsServer):
    """A nats-server that listens for WebSockets as well, on ``web_port``."""

    web_port: int

    def web(self, scheme: str = "ws", host: str = LOOPBACK, path: str = "") -> str:
        return f"{scheme}://{host}:{self.web_port}{path}"


def web_server(folder: Path, options: str = "no_tls: true", config: str = "") -> WebServer:
    """A server that is not started yet."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    block = f'websocket: {{ host: "{LOOPBACK}", port: {port}, {options} }}'
    (folder / "server.conf").write_text(f"{config}\n{block}")
    server = WebServer(
        port=free_port(), store=folder / "store", arguments=["-c", str(folder / "server.conf")]
    )
    server.web_port = port
    return server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with web_server(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def tls_server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[WebServer]:
    with web_server(tmp_path_factory.mktemp("wss"), tls(certificates)) as server:
        yield server


def tls(made: Certificates, more: str = "") -> str:
    return f'tls: {{ cert_file: "{made.cert}", key_file: "{made.key}"{more} }}'


class WebBackend(JetStreamBackend):
    """The same server, behind a proxy to its port for WebSockets."""

    def __init__(self, server: WebServer) -> None:
        super().__init__(server)
        self.proxy._target = server.web_port

    def settings(self, **given: Any) -> Settings:
        return super().settings(**{"url": self.proxy.url.replace("nats:", "ws:"), **given})


class TestWebSocket(TransportSuite):
    """All of the suite."""

    @pytest.fixture
    async def backend(self, server: WebServer) -> AsyncIterator[WebBackend]:
        await emptied(server)
        async with WebBackend(server) as backend:
            yield backend

    async def test_it_speaks_by_web_socket(self, backend: WebBackend) -> None:
        transport = await backend.connect()

        assert transport._connection.info["client_ip"] == LOOPBACK
        assert transport._connection._shown().startswith("ws://")


# --- TLS --------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["off", "on"])
async def test_wss_with_a_ca_of_ones_own_connects(
    tls_server: WebServer, certificates: Certificates, first: str
) -> None:
    await emptied(tls_server)

    await works(tls_server.web("wss"), ca=certificates.ca, tls_first=first)


async def test_wss_checks_the_certificate(tls_server: WebServer) -> None:
    shown = await refused(tls_server.web("wss"))

    assert "the server's certificate is not trusted" in shown
    assert "see NATS_CA" in shown


async def test_wss_presents_a_certificate_of_ours(
    tmp_path: Path, certificates: Certificates
) -> None:
    asked = tls(certificates, f', ca_file: "{certificates.ca}", verify: true')
    with web_server(tmp_path, asked) as server:
        await works(
            server.web("wss"),
            ca=certificates.ca, cert=certificates.client_cert, key=certificates.client_key,
        )  # fmt: skip
        shown = await refused(server.web("wss"), ca=certificates.ca)

    assert "NATS_CERT" in shown


async def test_ws_and_tls_do_not_go_together(certificates: Certificates) -> None:
    for urls, options in (
        ("ws://a", {"ca": certificates.ca}),
        ("ws://a", {"tls_first": "on"}),
        ("ws://a,tls://b", {}),
        ("WS://a,WSS://b", {}),
    ):
        with pytest.raises(ConfigError, match=r"ws:// has no TLS.*use wss://"):
            Settings(urls=urls, **options)


# --- refusals ---------------------------------------------------------------------------------


async def test_the_port_for_clients_is_named_as_that(server: WebServer) -> None:
    shown = await refused(f"ws://{LOOPBACK}:{server.port}")

    assert "no WebSocket answers there; nats:// is for the server's port for clients" in shown


async def test_a_web_server_that_has_no_web_socket_is_named_by_its_answer(
    tls_server: WebServer,
) -> None:
    shown = await refused(tls_server.web("ws"))

    assert "the WebSocket handshake with 'HTTP/1.0 400 Bad Request'; wss:// if it" in shown


async def test_wss_where_there_is_no_tls_is_named_as_that(server: WebServer) -> None:
    assert "the server has no TLS there, and wss:// requires it" in await refused(server.web("wss"))


async def test_a_server_that_does_not_answer_the_handshake_is_given_up_in_time() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(mute, LOOPBACK, 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        shown = await refused(f"ws://{LOOPBACK}:{port}", connect_timeout=0.1)

    assert "no answer in time" in shown


async def test_a_wrong_password_is_the_cause_and_no_secret_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with web_server(tmp_path, config=USERS) as server:
        url = server.web().replace("ws://", f"ws://worker:{SECRET}@")
        shown = await refused(url)
        await works(server.web(), user="worker", password=PASSWORD)

    assert "authorization violation: a wrong user, password or token; see the URL" in shown
    assert SECRET not in shown
    assert SECRET not in caplog.text
    assert PASSWORD not in caplog.text
    assert "CONNECT" not in caplog.text  # no frame is logged


def test_without_the_extra_its_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "omni_worker.settings.find_spec",
        lambda name: None if name == "websockets" else find(name),
    )

    with pytest.raises(ConfigError, match=r"need websockets: pip install 'omni-worker\[ws\]'"):
        Settings(urls="wss://host")


# --- what goes over it ------------------------------------------------------------------------


async def test_a_url_may_have_a_path_and_stand_beside_others(server: WebServer) -> None:
    await emptied(server)
    dead = f"nats://{LOOPBACK}:{free_port()}"

    async with connected(dead, server.web(path="/events"), reconnect_max_retries=0) as transport:
        assert transport.is_connected


async def test_sizes_around_and_far_above_a_frame_s_go_both_ways(server: WebServer) -> None:
    await emptied(server)
    sizes = [0, 1, 125, 126, MAX_FRAME - 100, MAX_FRAME, 3 * MAX_FRAME + 1, 1_000_000]
    bodies = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    async with connected(server.web()) as transport:
        await make_stream(transport)
        await make_consumer(transport)
        reader = Reader()
        await read(transport, reader)

        messages = [message(body, id=str(number)) for number, body in enumerate(bodies)]
        await transport.publish_many(messages, timeout=10)
        await until(lambda: len(reader.deliveries) == len(sizes))

        assert reader.bodies == bodies
        assert all(type(one.body) is bytes for one in reader.deliveries)


async def test_what_is_sent_in_one_turn_may_be_larger_than_the_server_s_buffers(
    server: WebServer,
) -> None:
    await emptied(server)
    async with connected(server.web()) as transport:
        await make_stream(transport)

        await asyncio.gather(
            *(
                transport.publish(message(b"x" * 500_000, id=str(number)), timeout=20)
                for number in range(200)
            )
        )

        assert await stored(transport) == 200


async def test_a_server_that_ends_says_why_and_one_that_returns_is_used_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with web_server(tmp_path) as server:
        async with connected(server.web()) as transport:
            await make_stream(transport)
            await make_consumer(transport)
            reader = Reader()
            await read(transport, reader)
            for how in (server.stop, server.kill):
                how()
                await until(lambda: not transport.is_connected)
                server.start()
                await transport.publish(message(id=str(how)), timeout=20)
            await until(lambda: {1, 2} == set(reader.sequences))  # a kill may repeat one

            assert reader.cause is None
    lost = [one.getMessage() for one in caplog.records if "connection lost" in one.getMessage()]
    assert "connection lost: the server closed the WebSocket: 1001 (going away)" in lost[0]


async def test_a_discovered_server_takes_over_by_web_socket_with_the_same_login(
    tmp_path: Path,
) -> None:
    ports = free_port(), free_port()
    routes = ", ".join(f'"nats://{LOOPBACK}:{port}"' for port in ports)
    servers = [
        web_server(
            tmp_path / name,
            config=f"server_name: {name}\n{USERS}\ncluster: {{ name: tests, port: {port},"
            f' host: "{LOOPBACK}", routes: [{routes}] }}',
        )
        for name, port in zip("ab", ports, strict=True)
    ]
    with servers[0] as first, servers[1] as second:
        url = with_login(first.web().replace("ws:", "nats:"), f"worker:{QUOTED}")
        async with connected(url.replace("nats:", "ws:")) as transport:
            discovered = second.web().replace("ws://", f"ws://worker:{QUOTED}@")
            await until(lambda: transport._connection._discovered == [discovered])
            first.kill()
            await until(lambda: transport._connection.info.get("server_name") == "b")

            assert await transport.flush(5)
