"""Handlers that send: in the real engine, by the fake, in a time that only the test moves."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest

from omni_worker import (
    App,
    ConfigError,
    Context,
    Depends,
    Event,
    Failed,
    MessageReceivedPayload,
    Rejected,
    RetryPolicy,
)
from omni_worker.omni import FakeOmni, Omni, OmniBusy, OmniKeyRefused, OmniRefused, OmniUnavailable
from omni_worker.testing import TestWorker

from .support import MESSAGE, app_with, client, serving

Received = Event[MessageReceivedPayload]
PLACE = {"channel": "whatsapp-baileys", "instance": "wa-001"}


async def test_an_answer_goes_by_the_event_s_instance_with_its_correlation() -> None:
    omni = Omni()

    async def echo(event: Received) -> None:
        await omni.send_presence(event.payload.chat_id)
        sent = await omni.send_text(event.payload.chat_id, event.payload.content.text or "")
        assert (sent.message_id, sent.repeated) == ("m-2", False)

    with FakeOmni(omni) as fake:
        async with TestWorker(app_with(omni, echo), raise_errors=True) as t:
            await t.publish("message.received", MESSAGE, **PLACE, correlation_id="evt-1")
            await t.settle()

    assert [one.path for one in fake.sent] == ["/messages/send/presence", "/messages/send"]
    assert fake.sent[1].body == {"instanceId": "wa-001", "to": "chat-1", "text": "hello"}
    assert {one.correlation_id for one in fake.sent} == {"evt-1"}
    assert fake.texts == ["hello"]


async def test_a_correlation_id_that_is_no_header_is_left_out() -> None:
    omni = Omni()

    async def echo(event: Received) -> None:
        await omni.send_text("c", "hi")

    with FakeOmni(omni) as fake:
        async with TestWorker(app_with(omni, echo)) as t:
            for id in ("a\r\nx-api-key: b", "é", " ", "x" * 300, "fine-1"):
                await t.publish("message.received", MESSAGE, **PLACE, correlation_id=id)
            await t.settle()

    found = [one.correlation_id for one in fake.sent]
    assert sorted(found, key=str) == [None, None, None, None, "fine-1"]


async def test_a_second_run_sends_nothing_twice() -> None:
    omni = Omni()
    seen: list[tuple[int, bool]] = []

    async def answer(event: Received, ctx: Context) -> None:
        for text in ("one", "two", "two"):
            sent = await omni.send_text("c", text)
            seen.append((ctx.attempt, sent.repeated))
        await omni.send_reaction("c", "x-1", "👍")
        if ctx.attempt < 3:
            raise RuntimeError("after the messages")
        await omni.send_text("c", "three")

    with FakeOmni(omni) as fake:
        async with TestWorker(app_with(omni, answer)) as t:
            await t.publish("message.received", MESSAGE, **PLACE)
            await t.settle()
            assert (t.attempts(answer), t.dead_letters) == (3, [])

    assert fake.texts == ["one", "two", "two", "three"]
    assert [one.path for one in fake.sent].count("/messages/send/reaction") == 1
    assert seen == [(1, False)] * 3 + [(2, True)] * 3 + [(3, True)] * 3


async def test_another_message_in_the_second_run_is_sent_unless_it_is_a_named_step() -> None:
    omni = Omni()

    async def answer(event: Received, ctx: Context) -> None:
        await omni.send_text("c", f"written {ctx.attempt}")
        await omni.send_text("c", f"named {ctx.attempt}", once="answer")
        if ctx.attempt == 1:
            raise RuntimeError("again")

    with FakeOmni(omni) as fake:
        async with TestWorker(app_with(omni, answer)) as t:
            await t.publish("message.received", MESSAGE, **PLACE)
            await t.settle()

    assert fake.texts == ["written 1", "named 1", "written 2"]


async def test_other_events_and_other_handlers_send_their_own() -> None:
    omni = Omni()

    async def answer(event: Received) -> None:
        await omni.send_text("c", "hi", once="answer")

    async def other(event: Received) -> None:
        await omni.send_text("c", "hi", once="answer")

    app = app_with(omni, answer)
    app.on("message.received", durable="other")(other)
    with FakeOmni(omni) as fake:
        async with TestWorker(app) as t:
            await t.publish("message.received", MESSAGE, **PLACE, id="same")
            await t.publish("message.received", MESSAGE, **PLACE)
            # As a foreign program that numbers its events from 1 at each start.
            await t.advance(minutes=3)
            changed = {**MESSAGE, "externalId": "x-2"}
            await t.publish("message.received", changed, **PLACE, id="same")
            await t.settle()

    assert len(fake.texts) == 6


async def test_a_process_that_dies_sends_again_as_the_docs_say() -> None:
    omni = Omni()

    async def answer(event: Received) -> None:
        await omni.send_text("c", "hi")

    with FakeOmni(omni) as fake:
        async with TestWorker(app_with(omni, answer)) as t:
            t.crash(answer)
            await t.publish("message.received", MESSAGE, **PLACE)
            await t.settle()

    assert fake.texts == ["hi", "hi"]


async def test_a_handler_that_timed_out_joins_the_message_that_is_still_on_its_way() -> None:
    gate = asyncio.Event()
    async with serving() as server:

        async def slow(writer: asyncio.StreamWriter) -> None:
            await gate.wait()
            body = b'{"data": {"messageId": "m-7"}}'
            writer.write(b"HTTP/1.1 201 X\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

        server.answers = [slow]
        omni = client(server)
        seen: list[Any] = []

        async def answer(event: Received, ctx: Context) -> None:
            if ctx.attempt == 2:
                gate.set()
            async with asyncio.timeout(0.1 if ctx.attempt == 1 else None):
                seen.append(await omni.send_text("c", "hi"))

        app = app_with(omni, answer, retry_delay=0)
        async with app.running(transport=_memory()):
            await app.publish("message.received", MESSAGE, **PLACE)
            async with asyncio.timeout(10):
                while not seen:
                    await asyncio.sleep(0.005)

    assert [(one.message_id, one.repeated) for one in seen] == [("m-7", True)]
    assert len(server.asked) == 1


async def test_a_short_retry_after_is_waited_for_within_the_run() -> None:
    omni = Omni()
    began: list[float] = []

    async def answer(event: Received) -> None:
        now = asyncio.get_running_loop().time
        start = now()
        await omni.send_text("c", "hi")
        began.append(now() - start)

    with FakeOmni(omni) as fake:
        fake.fail(429, retry_after=3)
        fake.fail(503, retry_after=4)
        async with TestWorker(app_with(omni, answer)) as t:
            await t.publish("message.received", MESSAGE, **PLACE)
            await t.settle()
            assert t.attempts(answer) == 1

    assert 7.0 <= began[0] <= 7.0 * 1.1
    assert (len(fake.posted), fake.texts) == (3, ["hi"])


async def test_failures_grow_their_delays_within_the_run() -> None:
    omni = Omni(retry=RetryPolicy(retries=3, delay=1, factor=2, cap=10, jitter=0))
    began: list[float] = []

    async def answer(event: Received) -> None:
        start = asyncio.get_running_loop().time()
        await omni.send_text("c", "hi")
        began.append(asyncio.get_running_loop().time() - start)

    with FakeOmni(omni) as fake:
        fake.fail(500)
        fake.be_away(times=2)
        async with TestWorker(app_with(omni, answer)) as t:
            await t.publish("message.received", MESSAGE, **PLACE)
            await t.settle()

    assert began == [pytest.approx(7.0)]
    assert fake.texts == ["hi"]


async def test_a_long_retry_after_frees_the_slot_and_the_event_comes_again_then() -> None:
    omni = Omni()
    times: list[float] = []

    async def answer(event: Received) -> None:
        times.append(asyncio.get_running_loop().time())
        await omni.send_text("c", "hi")

    with FakeOmni(omni) as fake:
        fake.fail(429, retry_after=60)
        async with TestWorker(app_with(omni, answer)) as t:
            await t.publish("message.received", MESSAGE, **PLACE)
            await t.settle()
            first, _ = t.outcomes(answer)

    assert isinstance(first, Failed)
    assert isinstance(first.error, OmniBusy)
    assert 60 <= times[1] - times[0] <= 67
    assert fake.texts == ["hi"]


@pytest.mark.parametrize(
    ("status", "kind", "runs"),
    [(400, OmniRefused, 1), (404, OmniRefused, 1), (401, OmniKeyRefused, 4),
     (500, OmniUnavailable, 4)],
)  # fmt: skip
async def test_the_error_decides_how_the_run_ends(
    status: int, kind: type[Exception], runs: int
) -> None:
    omni = Omni()

    async def answer(event: Received) -> None:
        await omni.send_text("c", "hi")

    with FakeOmni(omni) as fake:
        fake.fail(status, times=100, code="NOPE")
        async with TestWorker(app_with(omni, answer)) as t:
            await t.publish("message.received", MESSAGE, **PLACE)
            await t.settle()
            outcomes = t.outcomes(answer)
            [letter] = t.dead_letters

    assert len(outcomes) == runs
    last = outcomes[-1]
    assert isinstance(last, Rejected if runs == 1 else Failed)
    assert isinstance(last.error, kind)
    assert letter.payload["errorType"].endswith(f".{kind.__name__}")
    assert f"POST /messages/send: {status} NOPE" in letter.payload["error"]


@pytest.mark.parametrize("how", ["away", "busy"])
async def test_while_omni_is_down_the_breaker_keeps_events_from_spending_their_attempts(
    how: str,
) -> None:
    omni = Omni(retry=RetryPolicy(retries=0))
    down = True

    async def answer(event: Received) -> None:
        if down and how == "away":
            fake.be_away()
        elif down:
            fake.fail(503, retry_after=1)
        await omni.send_text("c", "hi")

    with FakeOmni(omni) as fake:
        async with TestWorker(app_with(omni, answer, breaker=3, concurrency=1)) as t:
            for _ in range(30):
                await t.publish("message.received", MESSAGE, **PLACE)
            await t.advance(minutes=1)
            down = False
            await t.settle()
            letters = t.dead_letters

    # Without the breaker all thirty are given up: four attempts take seconds.
    assert len(letters) <= 10
    assert len(fake.texts) == 30 - len(letters)


async def test_a_lost_answer_is_asked_for_again_twice_rather_than_never() -> None:
    omni = Omni()

    async def answer(event: Received) -> None:
        await omni.send_text("c", "hi")

    with FakeOmni(omni) as fake:
        fake.lose_answer()
        async with TestWorker(app_with(omni, answer)) as t:
            await t.publish("message.received", MESSAGE, **PLACE)
            await t.settle()

    assert fake.texts == ["hi", "hi"]


async def test_a_plain_def_sends_by_wait() -> None:
    omni = Omni()

    def answer(event: Received, ctx: Context) -> None:
        ctx.wait(omni.send_text("c", "hi"))
        if ctx.attempt == 1:
            raise RuntimeError("again")

    with FakeOmni(omni) as fake:
        async with TestWorker(app_with(omni, answer)) as t:
            await t.publish("message.received", MESSAGE, **PLACE, correlation_id="evt-1")
            await t.settle()
            assert t.attempts(answer) == 2

    assert (fake.texts, fake.sent[0].correlation_id) == (["hi"], "evt-1")


async def test_a_dependency_hands_it_to_handlers_and_an_included_app_brings_it() -> None:
    omni = Omni()

    def sender() -> Omni:
        return omni

    part = App("part")
    part.use(omni)

    @part.on("message.received", durable="echo")
    async def answer(event: Received, by: Annotated[Omni, Depends(sender)]) -> None:
        await by.send_text("c", "hi")

    app = App("whole")
    app.include(part)
    app.use(omni)
    with FakeOmni(omni) as fake:
        async with TestWorker(app) as t:
            await t.publish("message.received", MESSAGE, **PLACE)
            await t.settle()

    assert fake.texts == ["hi"]
    assert not omni.is_open


@pytest.mark.parametrize(
    ("place", "metadata", "instance"),
    [
        ({}, {}, None),
        ({}, {"instanceId": "wa-9"}, "wa-9"),
        ({"channel": "internal", "instance": "global"}, {"instanceId": None}, None),
        ({"channel": "whatsapp-baileys", "instance": "wa.eu.1"}, {}, "wa.eu.1"),
    ],
)  # fmt: skip
async def test_the_instance_is_the_event_s_or_is_asked_for(
    place: dict[str, str], metadata: dict[str, Any], instance: str | None
) -> None:
    omni = Omni()

    async def answer(event: Received) -> None:
        await omni.send_text("c", "hi")

    with FakeOmni(omni) as fake:
        async with TestWorker(app_with(omni, answer, max_retries=0)) as t:
            subject = ".".join(["message.received", *place.values()])
            t.server.store(subject, _event(metadata))
            await t.settle()
            letters = [one.payload["error"] for one in t.dead_letters]

    if instance is None:
        [said] = letters
        assert "came from no instance: name one, instance=…" in said
        assert fake.posted == []
    else:
        assert [one.body["instanceId"] for one in fake.sent] == [instance]


async def test_an_app_without_a_key_ends_at_the_start_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMNI_API_KEY", raising=False)

    async def answer(event: Received) -> None:
        """Never runs."""

    with pytest.raises(ConfigError, match="OMNI_API_KEY is not set"):
        async with TestWorker(app_with(Omni(), answer)):
            pass


async def test_a_fake_is_entered_before_the_app_runs() -> None:
    omni = Omni()
    with FakeOmni(omni):
        with pytest.raises(ConfigError, match="enter it before the app runs"), FakeOmni(omni):
            pass
        async with omni:
            pass

    assert omni.stand_in is None


def _event(metadata: dict[str, Any]) -> bytes:
    import json

    event = {
        "id": "e-1", "type": "message.received", "timestamp": 1, "payload": MESSAGE,
        "metadata": metadata,
    }  # fmt: skip
    return json.dumps(event).encode()


def _memory() -> Any:
    from omni_worker.testing import MemoryServer
    from omni_worker.transports.memory import MemoryTransport

    return MemoryTransport(MemoryServer())
