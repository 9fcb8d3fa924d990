"""What fails is retried with growing gaps, what cannot be read is a dead letter at once."""

from __future__ import annotations

import base64
import itertools
import json
import time
import uuid
from typing import Any

import pytest
from nats.aio.client import Client

from omni_worker.nats_server import NatsServer

from ..waiting import until
from .support import (
    Stage,
    api,
    consumer,
    foreign_event,
    letters,
    make_stream,
    raw_publish,
    stream_config,
    to_bytes,
    until_letters,
    until_settled,
)


async def test_a_failing_handler_runs_four_times_with_growing_gaps_and_leaves_one_letter(
    stage: Stage, plain: Client
) -> None:
    await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="r1", retry_delay=0.2)
            async def route(event, ctx):
                effect("run", id=event.id, attempt=ctx.attempt)
                raise ConnectionError("the service is away: olá")
        """)
    )
    subject, body = foreign_event(
        "message.received",
        channel="whatsapp",
        instance="wa-001",
        metadata={"correlationId": "corr-1", "traceId": "trace-1", "personId": "p-1"},
    )
    headers = {"X-Shard": "7", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}

    before = time.time()
    stored = await plain.jetstream().publish(subject, body, headers=headers)
    [letter] = await until_letters(plain, 1)
    await until_settled(plain, "r1")

    runs = stage.effects("run")
    assert [one["attempt"] for one in runs] == [1, 2, 3, 4]
    gaps = [after["at"] - first["at"] for first, after in itertools.pairwise(runs)]
    # 0.2, 0.4 and 0.8 s, give or take a tenth and what the machine needs.
    for gap, delay in zip(gaps, (0.2, 0.4, 0.8), strict=True):
        assert delay * 0.9 - 0.02 <= gap <= delay * 1.1 + 0.15

    id = json.loads(body)["id"]
    payload = letter["payload"]
    assert payload["originalEventId"] == id
    assert payload["originalEventType"] == "message.received"
    assert payload["error"] == "the service is away: olá"
    assert payload["errorType"] == "builtins.ConnectionError"
    assert payload["retryCount"] == 3
    assert before * 1000 - 1 <= payload["timestamp"] <= time.time() * 1000
    assert payload["subject"] == subject
    assert (payload["stream"], payload["sequence"]) == ("MESSAGE", stored.seq)
    assert before * 1000 - 1 <= payload["storedAt"] <= payload["timestamp"]
    assert payload["consumer"] == payload["handler"] == "r1"
    assert "play.py" in payload["traceback"]
    assert {name: payload["headers"][name] for name in headers} == {
        name: [value] for name, value in headers.items()
    }
    assert payload["body"].encode() == body
    assert payload["retryOf"] is None
    metadata = letter["metadata"]
    assert metadata["correlationId"] == "corr-1"
    assert metadata["traceId"] == "trace-1"
    assert metadata["personId"] == "p-1"
    assert (metadata["channelType"], metadata["instanceId"]) == ("whatsapp", "wa-001")
    assert metadata["source"] == "router"
    assert uuid.UUID(letter["id"]).version == 5
    message = await plain.jetstream().get_msg("SYSTEM", 1)
    assert message.subject == "system.dead_letter"
    assert message.headers is not None
    assert message.headers["Nats-Msg-Id"] == letter["id"]


MAX_PAYLOAD = 1_048_576
PRIVATE = "meet-me-at-nine"  # chats are private: no log line may repeat one
GOOD = {"id": "x", "type": "message.received", "payload": {"chatId": "c"}, "timestamp": 1}


def _without(key: str) -> bytes:
    return to_bytes({name: value for name, value in GOOD.items() if name != key})


def _with(**keys: Any) -> bytes:
    return to_bytes({**GOOD, **keys})


UNREADABLE: dict[str, bytes] = {
    "invalid UTF-8": b'{"id":"x","type":"message.received","payload":{"chatId":"\xff\xfe"}}',
    "binary": bytes(range(256)),
    "an array": b"[1,2,3]",
    "a number": b"42",
    "null": b"null",
    "a text": to_bytes(PRIVATE),
    "no JSON": PRIVATE.encode(),
    "cut off": _with()[:-5],
    "two objects": _with() * 2,
    "deep nesting": _with(payload=0)[:-1] + b',"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep payload": b'{"id":"x","type":"message.received","payload":' + b'{"a":' * 100_000,
    "no id": _without("id"),
    "no type": _without("type"),
    "no payload": _without("payload"),
    "an empty id": _with(id=""),
    "a number for an id": _with(id=[PRIVATE]),
    "a list for a type": _with(type=["message.received"]),
    "another type": _with(type="message.sent"),
    "metadata that is a list": _with(metadata=[PRIVATE]),
    "a correlation that is an object": _with(metadata={"correlationId": {PRIVATE: PRIVATE}}),
    "NaN": b'{"id":"x","type":"message.received","payload":{"chatId":"c","x":NaN},"timestamp":1}',
    "infinity": b'{"id":"x","type":"message.received","payload":{"chatId":"c","x":-Infinity}}',
    "a payload that does not fit": _with(payload={"chatId": [PRIVATE], "text": PRIVATE}),
    "a payload that lacks a field": _with(payload={"text": PRIVATE}),
    "a payload that is null": _with(payload=None),
    "an empty body": b"",
    "white space": b"  \r\n ",
    "UTF-16": _with().decode().encode("utf-16"),
    "an integer of 5000 digits": _with(payload={"chatId": "?"}).replace(b'"?"', b"9" * 5_000),
}  # fmt: skip


async def test_every_unreadable_body_is_a_letter_at_once_and_the_good_ones_between_are_handled(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(
        stage.app("""
            app = App("router")

            class Received(BaseModel):
                chatId: str

            @app.on("message.received", durable="r1", schema=Received, retry_delay=30)
            async def route(event):
                effect("handled", id=event.id)
        """)
    )
    good = [f"good-{number}" for number in range(len(UNREADABLE) + 1)]
    sequences: dict[int, str] = {}

    for id, (name, body) in zip(good, UNREADABLE.items(), strict=False):
        await plain.jetstream().publish(*foreign_event("message.received", id=id))
        stored = await plain.jetstream().publish("message.received", body)
        sequences[stored.seq] = name
    await plain.jetstream().publish(*foreign_event("message.received", id=good[-1]))
    found = await until_letters(plain, len(UNREADABLE))
    await until_settled(plain, "r1")

    assert good == stage.ids()
    assert sorted(sequences) == sorted(one["payload"]["sequence"] for one in found)
    for letter in found:
        payload = letter["payload"]
        body = UNREADABLE[sequences[payload["sequence"]]]
        assert payload["retryCount"] == 0, sequences[payload["sequence"]]
        assert payload["originalEventId"] in ("x", f"MESSAGE:{payload['sequence']}")
        assert await original_bytes(plain, payload) == body
    assert PRIVATE not in worker.said()
    assert worker.is_running


async def test_a_byte_order_mark_and_half_an_emoji_are_read_and_the_original_is_kept(
    stage: Stage, plain: Client
) -> None:
    await stage.run(
        stage.app("""
            app = App("router")

            class Received(BaseModel):
                chatId: str

            @app.on("message.received", durable="r1", schema=Received)
            async def route(event):
                effect("handled", id=event.id, chat=event.payload.chatId)
                if event.id == "half":
                    raise Reject("kept")
        """)
    )
    marked = b"\xef\xbb\xbf" + _with(id="marked")
    half = _with(id="half", payload={"chatId": "?"}).replace(b"?", b"\\ud83d")

    await plain.jetstream().publish("message.received", marked)
    await plain.jetstream().publish("message.received", half)
    [letter] = await until_letters(plain, 1)
    await until_settled(plain, "r1")

    chats = {one["id"]: one["chat"] for one in stage.effects()}
    assert chats == {"marked": "c", "half": "\ufffd"}
    assert await original_bytes(plain, letter["payload"]) == half


async def original_bytes(client: Client, payload: dict[str, Any]) -> bytes:
    """The event a letter is about, wherever the letter keeps it."""
    if "body" in payload:
        body: str = payload["body"]
        return body.encode()
    if "bodyBase64" in payload:
        return base64.b64decode(payload["bodyBase64"])
    reference = payload["bodyRef"]
    message = await client.jetstream().get_msg(reference["stream"], reference["sequence"])
    assert message.data is not None
    return bytes(message.data)


@pytest.mark.parametrize("retention", ["limits", "interest"])
async def test_an_unreadable_body_at_the_largest_size_is_a_letter_that_points_at_it(
    stage: Stage, plain: Client, retention: str
) -> None:
    await api(
        plain,
        "STREAM.CREATE.MESSAGE",
        {"name": "MESSAGE", "subjects": ["message.>"], "retention": retention},
    )
    worker = await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="r1")
            async def route(event):
                effect("handled", id=event.id)
        """)
    )
    body = b"\xff" * MAX_PAYLOAD

    await plain.jetstream().publish("message.received", body)
    await plain.jetstream().publish(*foreign_event("message.received", id="next"))
    [letter] = await until_letters(plain, 1)
    await until_settled(plain, "r1")

    where = letter["payload"]["bodyRef"]["stream"]
    assert where == ("MESSAGE" if retention == "limits" else "OMNI_WORKER")
    assert await original_bytes(plain, letter["payload"]) == body
    assert stage.ids() == ["next"]
    assert "connection lost" not in worker.said()


async def test_odd_headers_and_subjects_cost_no_connection_and_no_event(
    stage: Stage, plain: Client, nats_server: NatsServer
) -> None:
    worker = await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="r1")
            async def route(event, ctx):
                effect("handled", id=event.id, instance=event.instance)
                if event.payload.get("fail"):
                    raise Reject("asked to")
        """)
    )
    blocks = {
        "a status": b"NATS/1.0 503 No Responders\r\n\r\n",
        "a conflict": b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
        "a heartbeat": b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        "a status header": b"NATS/1.0\r\nStatus: 408\r\nDescription: x\r\n\r\n",
        "no colon": b"NATS/1.0\r\nnonsense\r\n\r\n",
        "no value": b"NATS/1.0\r\nA:\r\n:\r\n\r\n",
        "no name": b"NATS/1.0\r\n: value\r\n\r\n",
        "invalid UTF-8": b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n",
        "no end": b"NATS/1.0\r\nA: b",
        "not even a version": b"garbage\r\n\r\n",
        "a folded line": b"NATS/1.0\r\nA: b\r\n c\r\n\r\n",
        "a bad traceparent": b"NATS/1.0\r\ntraceparent: \x00\x01\r\n\r\n",
    }  # fmt: skip
    frames = []
    sent: list[str] = []
    for fail in (False, True):
        for name, block in blocks.items():
            id = f"{name} {'fails' if fail else 'works'}"
            sent.append(id)
            _, body = foreign_event("message.received", {"fail": fail}, id=id)
            frames.append((b"message.received.whatsapp.wa-1", block, body))
        for instance in (b"\xff\xfe", b"a\x0bb", b"a\x0cb", b"caf\xc3\xa9", b"a\x00b", b"\x7f"):
            id = f"instance {instance!r} {'fails' if fail else 'works'}"
            sent.append(id)
            _, body = foreign_event("message.received", {"fail": fail}, id=id)
            frames.append((b"message.received.whatsapp." + instance, b"", body))

    await raw_publish(nats_server, frames)
    await stage.until_effects(len(sent))
    found = await until_letters(plain, len(sent) // 2)
    await until_settled(plain, "r1")

    assert sorted(sent) == sorted(stage.ids())
    failed = {one["payload"]["originalEventId"] for one in found}
    assert failed == {id for id in sent if id.endswith("fails")}
    assert "connection lost" not in worker.said()
    assert await worker.stop() == 0


async def test_a_dead_letter_that_cannot_be_handled_makes_no_further_one(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="r1", max_retries=0)
            async def route(event):
                raise ValueError("no")

            @app.on("system.dead_letter", durable="letters", max_retries=1, retry_delay=0.05)
            async def see(event):
                effect("letter", id=event.id)
                raise ValueError("no letters either")

            @app.on("system.>", durable="everything", max_retries=0)
            async def see_all(event):
                raise ValueError("nor anything")
        """)
    )

    await plain.jetstream().publish(*foreign_event("message.received"))
    await plain.jetstream().publish("system.dead_letter", b'{"type":"system.dead_letter"}')
    await until_letters(plain, 2)
    for name in ("letters", "everything"):
        await until_settled(plain, name, "SYSTEM")

    assert [stage.ids("letter")[0]] * 2 == stage.ids("letter")
    state = (await api(plain, "STREAM.INFO.SYSTEM"))["state"]
    assert state["messages"] == 2
    dropped = [one for one in worker.messages("error") if "is dropped here" in one]
    assert len(dropped) == 4
    assert await worker.stop() == 0


async def test_reject_is_a_letter_at_once_and_retry_replaces_only_the_delay(
    stage: Stage, plain: Client
) -> None:
    await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="r1", retry_delay=30, reject_on=LookupError)
            async def route(event, ctx):
                effect("run", id=event.id)
                match event.id:
                    case "rejected":
                        raise Reject("not wanted")
                    case "listed":
                        raise KeyError("listed")
                    case "asks again":
                        raise Retry(after=0.02)
        """)
    )

    for id in ("rejected", "listed", "asks again"):
        await plain.jetstream().publish(*foreign_event("message.received", id=id))
    found = await until_letters(plain, 3)

    counts = {one["payload"]["originalEventId"]: one["payload"]["retryCount"] for one in found}
    assert counts == {"rejected": 0, "listed": 0, "asks again": 3}
    assert stage.ids("run").count("asks again") == 4
    assert stage.ids("run").count("rejected") == stage.ids("run").count("listed") == 1


async def test_retries_that_wait_hold_up_nobody(stage: Stage, plain: Client) -> None:
    worker = await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="r1", concurrency=4, prefetch=8, retry_delay=50)
            async def route(event):
                if event.payload.get("fail"):
                    raise ValueError("not yet")
                effect("handled", id=event.id)
        """)
    )

    for number in range(100):  # many more that wait than may be held
        for id, payload in ((f"bad-{number}", {"fail": True}), (f"good-{number}", {})):
            await plain.jetstream().publish(*foreign_event("message.received", payload, id=id))
    await stage.until_effects(100, timeout=10)

    async def only_retries_wait() -> bool:
        info = await consumer(plain, "r1-bare")
        return bool(info["num_pending"] == 0 and info["num_ack_pending"] == 100)

    await until(only_retries_wait)
    assert sorted(stage.ids()) == sorted(f"good-{number}" for number in range(100))
    assert await worker.stop() == 0


FULL = {"max_bytes": 100, "discard": "new"}


@pytest.mark.parametrize("how", ["too small", "full", "missing"])
async def test_an_event_whose_letter_cannot_be_stored_waits_and_its_handler_is_not_run_again(
    stage: Stage, plain: Client, how: str
) -> None:
    limits = {"too small": {"max_msg_size": 10}, "full": FULL, "missing": {}}[how]
    await make_stream(plain, "SYSTEM", "system.>", **limits)
    worker = await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="r1", max_retries=0)
            async def route(event):
                effect("run", id=event.id)
                raise ValueError("no")
        """)
    )

    if how == "missing":
        await plain.jetstream().delete_stream("SYSTEM")
    await plain.jetstream().publish(*foreign_event("message.received", id="one"))
    await worker.until_said("dead letter not stored; the event waits")
    assert (await consumer(plain, "r1-bare"))["num_ack_pending"] == 1
    if how == "missing":
        await make_stream(plain, "SYSTEM", "system.>")
    else:
        wider = {**await stream_config(plain, "SYSTEM"), "max_msg_size": -1, "max_bytes": -1}
        await api(plain, "STREAM.UPDATE.SYSTEM", wider)
    await until_letters(plain, 1)
    await until_settled(plain, "r1")

    assert [one["payload"]["originalEventId"] for one in await letters(plain)] == ["one"]
    assert stage.ids("run") == ["one"]
    await until(lambda: "DeadLettered" in [one.get("signal") for one in worker.lines("error")])
