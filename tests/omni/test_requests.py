"""Requests, over a real connection: what goes out, what comes back, and what never may."""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from omni_worker import ConfigError, NotConnected, OmniWorkerError, Reject
from omni_worker.omni import (
    Mention,
    NotOmni,
    Omni,
    OmniBusy,
    OmniError,
    OmniKeyRefused,
    OmniRefused,
    OmniUnavailable,
    Sent,
)

from .support import CUT, KEY, OK, Server, answer, client, serving

WA = "6e1bd0f6-0f35-4f3e-9d7e-000000000001"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server over HTTP."""
    async with serving() as listening:
        yield listening


async def test_a_text_is_posted_with_the_key_and_its_ids_come_back(server: Server) -> None:
    async with client(server) as omni:
        sent = await omni.send_text(
            "chat-1", "olá \ud83d ✅", instance=WA, reply_to="x-1",
            mentions=[Mention("u-1"), Mention("all", "everyone")],
        )  # fmt: skip

    assert sent == Sent("m-1", "ext-1", "sent")
    [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", "/api/v2/messages/send")
    assert asked.headers["x-api-key"] == KEY
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["accept-encoding"] == "identity"
    assert "x-correlation-id" not in asked.headers
    assert asked.body == {
        "instanceId": WA, "to": "chat-1", "text": "olá \ud83d ✅", "replyTo": "x-1",
        "mentions": [{"id": "u-1", "type": "user"}, {"id": "all", "type": "everyone"}],
    }  # fmt: skip


async def test_each_call_posts_what_the_api_takes(server: Server) -> None:
    async with client(server) as omni:
        await omni.send_media("c", "image", url="https://x/y.jpg", caption="a cat", instance=WA)
        await omni.send_media(
            "c", "audio", data=b"\x00\xff", filename="a.ogg", voice_note=True, instance=WA
        )
        await omni.send_reaction("c", "m-9", "👍", instance=WA)
        await omni.send_presence("c", "recording", seconds=2.5, instance=WA)
        await omni.mark_read("c", [f"m-{n}" for n in range(150)], instance=WA)
        await omni.mark_read("c", [], instance=WA)
        await omni.send(
            "/messages/send/location", {"to": "c", "latitude": 1.5, "longitude": 2}, instance=WA
        )

    said = [(one.path.removeprefix("/api/v2"), one.body) for one in server.asked]
    assert {body.pop("instanceId") for _, body in said} == {WA}
    counts = [len(body.pop("messageIds")) for path, body in said if path == "/messages/read"]
    assert counts == [100, 50]
    assert said == [
        ("/messages/send/media",
         {"to": "c", "type": "image", "url": "https://x/y.jpg", "caption": "a cat"}),
        ("/messages/send/media",
         {"to": "c", "type": "audio", "base64": base64.b64encode(b"\x00\xff").decode(),
          "filename": "a.ogg", "voiceNote": True}),
        ("/messages/send/reaction", {"to": "c", "messageId": "m-9", "emoji": "👍"}),
        ("/messages/send/presence", {"to": "c", "type": "recording", "duration": 2500}),
        ("/messages/read", {"chatId": "c"}),
        ("/messages/read", {"chatId": "c"}),
        ("/messages/send/location", {"to": "c", "latitude": 1.5, "longitude": 2}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "failure",
    [answer(500, {"error": {"code": "X", "message": "y"}}), answer(502, b"<html>bad gateway"),
     answer(429, None, retry_after="0"), answer(503, None, retry_after="0"), answer(408, {}), CUT],
    ids=["500", "502", "429", "503", "408", "cut"],
)  # fmt: skip
async def test_a_failure_that_may_pass_is_tried_again(server: Server, failure: bytes) -> None:
    server.answers = [failure, failure]

    async with client(server) as omni:
        sent = await omni.send_text("c", "hi", instance=WA)

    assert sent.message_id == "m-1"
    assert len(server.asked) == 3
    assert server.asked[0].body == server.asked[2].body


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_what_omni_refuses_is_asked_once_and_rejects_the_event(
    server: Server, status: int
) -> None:
    server.answers = [answer(status, {"error": {"code": "NO_CHAT", "message": f"no {KEY}\x1b[2J"}})]

    async with client(server) as omni:
        with pytest.raises(OmniRefused) as caught:
            await omni.send_text("c", "hi", instance=WA)

    assert len(server.asked) == 1
    assert isinstance(caught.value, Reject)
    assert isinstance(caught.value, OmniWorkerError)
    assert (caught.value.status, caught.value.code) == (status, "NO_CHAT")
    assert str(caught.value) == (
        f"POST /messages/send: {status} NO_CHAT: no *** [2J; the same request would be refused"
        " again: correct what the handler sends"
    )


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_names_the_setting_and_rejects_no_event(
    server: Server, status: int
) -> None:
    server.answers = [answer(status, {"error": {"code": "KEY", "message": f"bad key {KEY}"}})]

    async with client(server) as omni:
        with pytest.raises(OmniKeyRefused, match="set OMNI_API_KEY") as caught:
            await omni.send_text("c", "hi", instance=WA)

    assert len(server.asked) == 1
    assert not isinstance(caught.value, Reject)
    assert KEY not in str(caught.value)


async def test_a_redirect_is_not_followed(server: Server) -> None:
    async with serving() as other:
        server.answers = [answer(307, b"", location=f"{other.url}/api/v2/messages/send?k=secret")]

        async with client(server) as omni:
            with pytest.raises(
                NotOmni, match=r"redirect to 127\.0\.0\.1, .*: set OMNI_URL"
            ) as caught:
                await omni.send_text("c", "hi", instance=WA)

    assert (len(server.asked), other.asked) == (1, [])
    assert "secret" not in str(caught.value)


PACKED = gzip.compress(b'{"data": {}}' + b" " * 50_000_000, mtime=0)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (answer(200, b"<html>welcome", content_type="text/html; charset=x"), "answered text-html"),
        (answer(404, b"<html>no", content_type="text/html"), "answered text-html"),
        (answer(201, b"[1]"), "application-json in place of a JSON object"),
        (answer(201, b'{"data": '), "in place of a JSON object"),
        (answer(201, b"[" * 100_000), "in place of a JSON object"),
        (answer(201, b"\xff\xfe", content_type="\x1b[31m"), "answered bytes in place"),
        (answer(201, b"x" * 2_000_000), "answered more than 1 MiB"),
        (answer(201, PACKED, content_encoding="gzip"), "answered more than 1 MiB"),
    ],
)  # fmt: skip
async def test_what_is_not_omni_s_answer_is_said_to_be_so(
    server: Server, said: bytes, words: str
) -> None:
    server.answers = [said]

    async with client(server) as omni:
        with pytest.raises(NotOmni) as caught:
            await omni.send_text("c", "hi", instance=WA)

    assert words in str(caught.value).replace("/html", "-html").replace("/json", "-json")
    assert "set OMNI_URL" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "said",
    [answer(201, {"ok": True}), answer(200, {"data": None}), answer(204, b""), answer(201, b""),
     answer(201, {"data": {"messageId": 7}})],
)  # fmt: skip
async def test_success_of_another_shape_is_success_without_ids(server: Server, said: bytes) -> None:
    server.answers = [said]

    async with client(server) as omni:
        assert await omni.send_text("c", "hi", instance=WA) == Sent()

    assert len(server.asked) == 1


async def test_an_answer_that_comes_byte_by_byte_ends_with_the_timeout(server: Server) -> None:
    stopped = asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 201 X\r\ncontent-length: 999999\r\n\r\n")
        try:
            while True:  # each byte well within any limit of a single step
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            stopped.set()

    server.answers = [drip] * 3

    async with client(server, timeout=0.2) as omni, asyncio.timeout(15):
        with pytest.raises(OmniUnavailable, match=r"no answer .* within 0.2 s") as caught:
            await omni.send_text("c", "hi", instance=WA)

    assert caught.value.may_be_sent
    assert len(server.asked) == 3
    async with asyncio.timeout(5):
        await stopped.wait()


async def test_no_server_is_said_with_the_address_and_the_setting(server: Server) -> None:
    omni = client(server)
    async with omni:
        async with serving() as gone:
            pass
        away = Omni(gone.url, api_key=KEY, retry=omni._retry)
        async with away:
            with pytest.raises(OmniUnavailable) as caught:
                await away.send_text("c", "hi", instance=WA)

    assert str(caught.value) == (
        f"POST /messages/send: no connection to {gone.url}/api/v2: is Omni running there?"
        " OMNI_URL names it"
    )
    assert caught.value.__notes__ == ["tried 3 times"]
    assert (caught.value.status, caught.value.may_be_sent) == (None, False)
    assert type(caught.value.__cause__).__name__ == "ConnectError"


async def test_a_long_retry_after_ends_the_call_at_once(server: Server) -> None:
    server.answers = [answer(429, {"error": "slow down"}, retry_after="90")]

    async with client(server) as omni:
        with pytest.raises(OmniBusy, match="slow down; Omni asks to wait") as caught:
            await omni.send_text("c", "hi", instance=WA)

    assert len(server.asked) == 1
    assert caught.value.after is not None
    assert 90 <= caught.value.after <= 99


async def test_a_server_that_closes_idle_connections_is_asked_again(server: Server) -> None:
    async with client(server) as omni:
        await omni.send_text("c", "one", instance=WA)
        server.break_off()
        await omni.send_text("c", "two", instance=WA)

    assert server.asked[-1].body["text"] == "two"


async def test_cookies_of_an_answer_are_not_kept(server: Server) -> None:
    server.answers = [answer(201, {"data": {}}, set_cookie="session=1; Path=/")]

    async with client(server) as omni:
        await omni.send_text("c", "one", instance=WA)
        await omni.send_text("c", "two", instance=WA)

    assert "cookie" not in server.asked[1].headers


async def test_the_environment_s_proxy_gets_neither_message_nor_key(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with client(server) as omni:
            await omni.send_text("c", "one", instance=WA)

    assert (len(server.asked), len(proxy.asked)) == (1, 0)


async def test_nothing_is_logged_and_nothing_shows_the_key(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    omni = client(server)
    async with omni:
        await omni.send_text("c", "a private text", instance=WA)
        shown = repr(omni), repr(vars(omni)), repr(omni._sender and vars(omni._sender))

    assert caplog.text == ""
    assert KEY not in "".join(shown)


async def test_a_closed_client_says_how_to_open_it(server: Server) -> None:
    omni = client(server)

    with pytest.raises(NotConnected, match=r"app\.use\(Omni\(\)\)"):
        await omni.send_text("c", "hi", instance=WA)


async def test_outside_of_a_handler_each_call_sends_and_names_its_instance(server: Server) -> None:
    async with client(server) as omni:
        await omni.send_text("c", "hi", instance=WA)
        await omni.send_text("c", "hi", instance=WA)
        with pytest.raises(ConfigError, match="outside of a handler of one event name"):
            await omni.send_text("c", "hi")

    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda omni: omni.send_media("c", "image", instance=WA), "url= .* or data="),
        (lambda omni: omni.send_media("c", "image", url="u", data=b"", instance=WA), "not both"),
        (lambda omni: omni.send_presence("c", seconds=-1, instance=WA), "zero or more"),
        (lambda omni: omni.send_presence("c", seconds=float("nan"), instance=WA), "zero or more"),
        (lambda omni: omni.mark_read("c", "m-1", instance=WA), "a list of message ids"),
        (lambda omni: omni.send("//evil.example/x", {}, instance=WA), "expected a path"),
        (lambda omni: omni.send("/a/../b", {}, instance=WA), "expected a path"),
        (lambda omni: omni.send("/a", {"x": object()}, instance=WA), "the body is not JSON"),
        (lambda omni: omni.send("/a", {"x": float("nan")}, instance=WA), "the body is not JSON"),
    ],
)  # fmt: skip
async def test_a_wrong_argument_is_said_and_nothing_is_sent(
    server: Server, call: Any, words: str
) -> None:
    async with client(server) as omni:
        with pytest.raises(ConfigError, match=words):
            await call(omni)

    assert server.asked == []


async def test_a_second_opening_is_the_same_client_until_both_are_closed(server: Server) -> None:
    omni = client(server)
    async with omni:
        async with omni:
            pass
        await omni.send_text("c", "hi", instance=WA)

    assert not omni.is_open
    assert len(server.asked) == 1


def test_every_error_of_sending_is_one_of_ours() -> None:
    kinds = (OmniRefused, OmniKeyRefused, OmniUnavailable, NotOmni, OmniBusy)

    assert all(issubclass(one, OmniError) and issubclass(one, OmniWorkerError) for one in kinds)
    assert OK
