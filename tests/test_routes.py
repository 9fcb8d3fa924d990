"""Routes over HTTP: what an app adds to its process's port, and clients that mean no good."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from omni_worker.errors import ConfigError
from omni_worker.process.health import Report, health_routes
from omni_worker.process.http import CONNECTIONS, MAX_BODY, MAX_HEAD, HttpServer
from omni_worker.process.router import (
    AT_ONCE,
    BadRoute,
    Router,
    answer_as_json,
    answer_of,
    request_as_json,
    request_of,
)
from omni_worker.routes import Answer, Request, Routes, RouteTable

from .ports import free_port
from .waiting import until, wait_until


@contextmanager
def served(routes: Routes, **options: Any) -> Iterator[int]:
    """A port on which these routes answer."""
    router = Router(routes)
    server = HttpServer("127.0.0.1", 0, router, **options)
    try:
        yield int(server.url.rpartition(":")[2])
    finally:
        server.close()


def ask(
    port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers)


def reasons(body: bytes) -> list[str]:
    found: list[str] = json.loads(body)["reasons"]
    return found


def send(port: int, data: bytes, timeout: float = 10.0) -> bytes:
    """Everything that is answered to these bytes."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=timeout)) as client:
        client.sendall(data)
        said = b""
        while more := client.recv(65_536):
            said += more
        return said


def serving() -> list[threading.Thread]:
    """Threads that serve a connection right now."""
    return [one for one in threading.enumerate() if "process_request" in one.name]


def hello(request: Request) -> Answer:
    return Answer(body=b"hello")


def echo(request: Request) -> Answer:
    said = [request.method, request.path, request.query, request.headers.get("x-a", ""),
            request.body.decode()]  # fmt: skip
    return Answer(content_type="application/json", body=json.dumps(said).encode())


# --- what a route is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["metrics", "", "/a?b", "/a*", "/*/a", "EAT /a", "get /a", "GET  /a", "GET"]
)
def test_a_route_that_cannot_be_asked_for_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="route '"):
        RouteTable({key: hello})


def test_two_routes_for_one_path_are_refused() -> None:
    table = RouteTable({"/a": hello, "POST /a": echo})

    with pytest.raises(ConfigError, match="two routes answer GET /a"):
        table.add({"GET /a": echo})


def test_health_keeps_its_paths() -> None:
    with pytest.raises(ConfigError, match="two routes answer GET /healthz"):
        Router(health_routes(Report), {"/healthz": hello})


def test_the_longest_path_wins() -> None:
    table = RouteTable({"/*": hello, "/a/*": echo, "/a/b": hello})

    found = {path: table.methods(path).get("GET") for path in ("/", "/x/y", "/a/c/d", "/a/b", "/a")}

    assert found == {"/": hello, "/x/y": hello, "/a/c/d": echo, "/a/b": hello, "/a": hello}


@pytest.mark.parametrize(
    "answer",
    [{"status": 99}, {"status": 600}, {"content_type": "a\r\nb: c"}, {"headers": {"a": "b\nc: d"}},
     {"headers": {"é": "b"}}],
)  # fmt: skip
def test_an_answer_that_would_break_the_protocol_cannot_be_made(answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Answer(**answer)


def test_a_request_and_an_answer_are_the_same_behind_the_channel() -> None:
    request = Request(method="POST", path="/a", query={"b": "c"}, headers={"d": "e"}, body=b"\xff")
    answer = Answer(status=201, content_type="a/b", body=b"\xff\x00", headers={"A": "b"})

    assert request_of(json.loads(json.dumps(request_as_json(request)))) == request
    assert answer_of(json.loads(json.dumps(answer_as_json(answer)))) == answer


@pytest.mark.parametrize(
    "said", [None, [], {}, {"body": 7}, {"body": "", "status": "x"}, {"body": "", "headers": []},
             {"body": "", "headers": {"a": "b\r\n"}}, {"body": "", "more": 1}],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_is_said_to_be(said: object) -> None:
    with pytest.raises(BadRoute):
        answer_of(said)


# --- over HTTP ------------------------------------------------------------------------------------


def test_a_route_sees_its_request_and_its_answer_is_sent_whole() -> None:
    with served({"/a/*": echo, "POST /a": echo}) as port:
        got = ask(port, "/a/%C3%A9%20b?c=d&e=&f=%26", **{"X-A": "x"})
        posted = ask(port, "/a", "POST", b"body")

    assert got[0] == 200
    assert json.loads(got[1]) == ["GET", "/a/é b", {"c": "d", "e": "", "f": "&"}, "x", ""]
    assert got[2]["Content-Type"] == "application/json"
    assert "Python" not in got[2]["Server"]
    assert json.loads(posted[1]) == ["POST", "/a", {}, "", "body"]


def test_head_is_answered_without_a_body() -> None:
    with served({"/a": hello}) as port:
        status, body, headers = ask(port, "/a", "HEAD")

    assert (status, body, headers["Content-Length"]) == (200, b"", "5")


def test_a_path_without_a_route_is_answered_with_those_there_are() -> None:
    with served({"/a": hello, "/b/*": hello}) as port:
        status, body, _ = ask(port, "/c")

    assert (status, json.loads(body)["paths"]) == (404, ["/a", "/b/*"])


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_a_route_is_read_only_unless_it_says_otherwise(method: str) -> None:
    with served({"/a": hello}) as port:
        status, body, headers = ask(port, "/a", method)

    assert (status, reasons(body)) == (405, ["this path answers GET, HEAD"])
    assert headers["Allow"] == "GET, HEAD"


def test_a_route_that_raises_is_a_500_that_tells_nothing_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(request: Request) -> Answer:
        raise LookupError("secret")

    def answers_nothing(request: Request) -> Answer:
        return "hello"  # type: ignore[return-value]

    with served({"/a": fails, "/b": answers_nothing}) as port:
        answers = [ask(port, path) for path in ("/a", "/a", "/b", "/b")]

    assert {answer[0] for answer in answers} == {500}
    assert not any(b"secret" in answer[1] or b"File" in answer[1] for answer in answers)
    assert [one.getMessage().split(";")[0] for one in caplog.records] == [
        "route /a failed: LookupError: secret",
        "route /b failed: TypeError: expected an Answer, got str",
    ]


async def test_an_async_route_runs_on_the_loop() -> None:
    ran_in: list[int] = []

    async def on_loop(request: Request) -> Answer:
        ran_in.append(threading.get_ident())
        return Answer(body=b"loop")

    router = Router({"/a": on_loop})
    router.open()
    server = HttpServer("127.0.0.1", 0, router)
    port = int(server.url.rpartition(":")[2])

    answer = await asyncio.to_thread(ask, port, "/a")
    router.close()
    closed = await asyncio.to_thread(ask, port, "/a")

    server.close()
    assert (answer[:2], ran_in) == ((200, b"loop"), [threading.get_ident()])
    assert (closed[0], reasons(closed[1])) == (503, ["the app is not running"])


async def test_a_blocked_loop_turns_an_async_route_red_and_leaves_the_others() -> None:
    async def on_loop(request: Request) -> Answer:
        return Answer(body=b"loop")

    router = Router({"/a": on_loop, "/b": hello}, on_loop_within=0.2)
    router.open()
    server = HttpServer("127.0.0.1", 0, router)
    port = int(server.url.rpartition(":")[2])
    answers: list[tuple[int, bytes]] = []

    def both() -> None:
        answers.extend(ask(port, path)[:2] for path in ("/a", "/b"))

    thread = threading.Thread(target=both)
    thread.start()
    thread.join()  # this loop is blocked until both are answered

    server.close()
    router.close()
    assert [status for status, _ in answers] == [503, 200]
    assert reasons(answers[0][1]) == ["the event loop did not answer in 0.2 s"]


def test_a_route_that_hangs_costs_its_own_path_only() -> None:
    release = threading.Event()
    hanging = threading.Semaphore(0)

    def hangs(request: Request) -> Answer:
        hanging.release()
        release.wait()
        return Answer()

    with served({"/a": hangs, "/b": hello}) as port:
        clients = [threading.Thread(target=ask, args=(port, "/a")) for _ in range(AT_ONCE)]
        for client in clients:
            client.start()
        for _ in clients:
            hanging.acquire()

        refused, other = ask(port, "/a"), ask(port, "/b")

        release.set()
        for client in clients:
            client.join()
    assert (refused[0], reasons(refused[1])) == (503, ["16 requests of this path run already"])
    assert other[0] == 200


def test_a_port_that_is_taken_is_said() -> None:
    port = free_port()
    first = HttpServer("127.0.0.1", port, Router())

    with pytest.raises(ConfigError, match=f"--health-port {port} on 127.0.0.1"):
        HttpServer("127.0.0.1", port, Router())

    first.close()


# --- clients that mean no good --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /a HTTP/1.1\r\n" + b"X-A: " + b"x" * (MAX_HEAD * 4) + b"\r\n\r\n", 431),
        (b"GET /a HTTP/1.1\r\n" + b"X-A: x\r\n" * 101 + b"\r\n", 431),
        (b"GET /a HTTP/1.1\r\n" + (b"X-A: " + b"x" * 9_000 + b"\r\n") * 12 + b"\r\n", 431),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /\xff\x00\x01 HTTP/1.1\r\n\r\n", 404),
        (b"GET /%ff%00../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /a?" + b"&".join([b"a=b"] * 101) + b" HTTP/1.1\r\n\r\n", 400),
        (b"EAT /a HTTP/1.1\r\n\r\n", 501),
        (b"GET /a HTTP/9.9\r\n\r\n", 505),
        (b"GET /a ? ? HTTP/1.1\r\n\r\n", 400),
        (b"POST /p HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
        (b"POST /p HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
        (b"POST /p HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 411),
        (b"POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /p HTTP/1.1\r\nHost: a\r\nOrigin: http://evil\r\n\r\n", 403),
        (b"POST /p HTTP/1.1\r\nHost: a\r\nOrigin: null\r\n\r\n", 403),
        (b"POST /p HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\n\r\n", 200),
    ],
    ids=range(17),
)  # fmt: skip
def test_a_hostile_request_is_refused_and_the_next_is_answered(
    data: bytes, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with served({"/a": hello, "POST /p": echo}) as port:
        said = send(port, data)

        assert said.split(b" ", 2)[1] == str(status).encode()
        assert ask(port, "/a")[0] == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET /a HT", b"\r\n" * 10])
def test_a_client_that_never_finishes_is_cut_off(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with served({"/a": hello}, overdue=0.3) as port:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client:
            client.sendall(data)

            while client.recv(1_000):  # until it is cut off
                pass

        assert ask(port, "/a")[0] == 200
    assert [one for one in caplog.records if one.levelno > logging.DEBUG] == []


def test_a_client_that_trickles_is_cut_off_as_well() -> None:
    with served({"/a": hello}, overdue=0.5) as port:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client:
            client.sendall(b"GET /a HTTP/1.1\r\n")

            def is_cut_off() -> bool:
                try:
                    client.sendall(b"X")
                except OSError:
                    return True
                return False

            wait_until(is_cut_off)

        assert ask(port, "/a")[0] == 200


def test_many_idle_clients_do_not_keep_out_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omni_worker.process.http._Handler.timeout", 60.0)
    with served({"/a": hello}, overdue=60.0) as port, ExitStack() as idle:
        for _ in range(100):
            idle.enter_context(closing(socket.create_connection(("127.0.0.1", port))))

        assert ask(port, "/a")[0] == 200

        wait_until(lambda: len(serving()) <= CONNECTIONS)


async def test_a_client_that_goes_away_is_no_news(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def much(request: Request) -> Answer:
        return Answer(body=b"x" * 10_000_000)

    with served({"/a": much, "/b": hello}) as port:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        client.recv(1)
        client.close()

        await until(lambda: not serving())
        assert (await asyncio.to_thread(ask, port, "/b"))[0] == 200
    assert [one for one in caplog.records if one.levelno > logging.DEBUG] == []
    assert capfd.readouterr().err == ""
