"""`omni-worker publish`: one event from the terminal, and every reason why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nats.aio.client import Client

from omni_worker.nats_server import LOOPBACK, NatsServer
from tests.ports import free_port
from tests.processes.support import api, message_payload, plain_client, stored

from .support import Said, call, too_wide

PAYLOAD = json.dumps(message_payload("1"), ensure_ascii=False)
UNREAD = 'no consumer reads it; a new one does with start_from="first"'
WHATSAPP = ("--channel", "whatsapp", "--instance", "wa-001")


def publish(server: NatsServer, folder: Path, *arguments: str, typed: str = "") -> Said:
    return call("publish", *arguments, folder=folder, typed=typed, NATS_URL=server.url)


async def events(server: NatsServer, stream: str = "MESSAGE") -> list[dict[str, object]]:
    client: Client = await plain_client(server.url)
    found = [json.loads(one.data) for one in await stored(client, stream)]
    await client.close()
    return found


async def test_an_event_is_stored_and_the_answer_says_where(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    ended = publish(
        nats_server, tmp_path, "message.received", *WHATSAPP, "--data", PAYLOAD, "--id", "order-1"
    )

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        f"message.received.whatsapp.wa-001 stored: MESSAGE #1\nid order-1\non {nats_server.url}\n"
        f"{UNREAD}\n"
    )
    [event] = await events(nats_server)
    assert event["id"] == "order-1"
    assert event["payload"] == message_payload("1")
    assert event["metadata"] == {
        "correlationId": "order-1",
        "traceId": "order-1",
        "source": "omni-worker-cli",
        "instanceId": "wa-001",
        "channelType": "whatsapp",
    }


async def test_of_an_event_that_a_consumer_reads_nothing_more_is_said(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    publish(nats_server, tmp_path, "custom.thing")
    client = await plain_client(nats_server.url)
    config = {"durable_name": "r1", "ack_policy": "explicit", "filter_subject": "custom.thing.>"}
    request = {"stream_name": "CUSTOM", "config": config}
    await api(client, "CONSUMER.DURABLE.CREATE.CUSTOM.r1", request)
    await client.close()

    addressed = publish(nats_server, tmp_path, "custom.thing", *WHATSAPP)
    bare = publish(nats_server, tmp_path, "custom.thing")

    assert UNREAD not in addressed.out
    assert bare.out.endswith(f"{UNREAD}\n")


async def test_the_payload_may_come_from_a_file_or_from_standard_input(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    (tmp_path / "event.json").write_text(PAYLOAD, encoding="utf-8")

    from_file = publish(nats_server, tmp_path, "message.received", "--data", "@event.json")
    typed = publish(nats_server, tmp_path, "message.received", "--data", "-", typed=PAYLOAD)

    assert (from_file.code, typed.code) == (0, 0)
    assert too_wide(from_file.out + typed.out) == []
    assert [event["payload"] for event in await events(nats_server)] == [message_payload("1")] * 2


async def test_the_same_id_is_stored_once_and_said_so(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    arguments = ("custom.thing", "--data", "{}", "--id", "once")
    first = publish(nats_server, tmp_path, *arguments)
    again = publish(nats_server, tmp_path, *arguments)

    on = f"on {nats_server.url}"
    assert first.out == f"custom.thing stored: CUSTOM #1\nid once\n{on}\n{UNREAD}\n"
    assert again.out == f"custom.thing was stored before: CUSTOM #1\nid once\n{on}\n{UNREAD}\n"
    assert len(await events(nats_server, "CUSTOM")) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("message.received", "--data", "{oops"), "--data is not JSON: Expecting property name"),
        (("message.received", "--data", ""), "--data is not JSON: Expecting value"),
        (("message.received", "--data", "-"), "standard input is not JSON: Expecting value"),
        (("message.received", "--data", "@nosuch.json"), "there is no file nosuch.json in /"),
        (("message.received", "--data", "@binary"), "binary is not UTF-8"),
        (("custom.thing", "--data", '{"a": NaN}'), "JSON has neither"),
        (("message.recieved", "--data", "{}"), "message.recieved"),
        (("system.unheard_of", "--data", "{}"), "system.unheard_of"),
        (("order.placed", "--data", "{}"), "here: --app MODULE:APP, whose registry knows it"),
        (("Message.Received", "--data", "{}"), "expected lowercase"),
        (("message", "--data", "{}"), "expected domain.action"),
        (("message..received", "--data", "{}"), "empty token"),
        (
            ("message.received", "--channel", "whatsapp", "--data", PAYLOAD),
            "--channel without --instance",
        ),
        (
            ("message.received", "--channel", "what sapp", "--instance", "x", "--data", PAYLOAD),
            "white space",
        ),
        (("message.received", *WHATSAPP[:3], "wa.*", "--data", PAYLOAD), "'*'"),
        (("message.received", *WHATSAPP, "--data", "{}"), "does not fit its schema: externalId"),
        (("custom.thing", "--data", "{}", "--id", "a\nb"), "printable characters"),
        (("custom.thing", "--data", "{}", "--id", ""), "printable characters"),
    ],
)
async def test_what_cannot_be_an_event_is_refused_with_code_two(
    nats_server: NatsServer, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    ended = publish(nats_server, tmp_path, *arguments)

    assert ended.code == 2
    assert said in ended.line
    assert "Traceback" not in ended.err
    assert too_wide(ended.err) == []
    assert ended.out == ""


async def test_without_data_the_payload_is_null(nats_server: NatsServer, tmp_path: Path) -> None:
    ended = publish(nats_server, tmp_path, "custom.thing")

    assert ended.code == 0
    assert [event["payload"] for event in await events(nats_server, "CUSTOM")] == [None]


async def test_with_an_app_its_own_types_are_known_and_checked(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    (tmp_path / "play.py").write_text(
        "from omni_worker import App\nfrom pydantic import BaseModel\n"
        "class Push(BaseModel):\n    ref: str\n"
        "app = App('shop')\napp.registry.register('custom.push', Push)\n"
    )

    unfit = publish(nats_server, tmp_path, "custom.push", "--data", "{}", "--app", "play")
    fits = publish(nats_server, tmp_path, "custom.push", "--data", '{"ref": "r"}', "--app", "play")
    no_app = publish(nats_server, tmp_path, "custom.push", "--app", "play:nosuch")

    assert (unfit.code, fits.code, no_app.code) == (2, 0, 2)
    assert "custom.push: the payload does not fit its schema: ref: Field required" in unfit.line
    assert "no App called 'nosuch'" in no_app.line
    assert len(await events(nats_server, "CUSTOM")) == 1


async def test_an_event_too_large_for_the_server_is_refused(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    ended = publish(
        nats_server, tmp_path, "custom.thing", "--data", "-", typed=json.dumps("x" * 1_100_000)
    )

    assert ended.code == 2
    assert "the server takes 1048576" in ended.line


async def test_without_a_server_the_cause_is_said_and_the_code_is_one(tmp_path: Path) -> None:
    ended = call(
        "publish", "custom.thing", "--data", "{}", folder=tmp_path,
        NATS_URL=f"nats://someone:geheim@{LOOPBACK}:{free_port()}",
        OMNI_WORKER_RECONNECT_MAX_RETRIES="1", OMNI_WORKER_RECONNECT_DELAY="0.05",
    )  # fmt: skip

    assert ended.code == 1
    assert "after 2 tries: connection refused: nothing listens there" in ended.line
    assert "geheim" not in ended.err
    assert ended.out == ""


async def test_an_event_no_stream_takes_is_said_with_code_one(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    client = await plain_client(nats_server.url)
    await api(client, "STREAM.CREATE.CUSTOM", {"name": "CUSTOM", "subjects": ["custom.x"]})
    await client.close()

    ended = publish(nats_server, tmp_path, "custom.thing", "--data", "{}")

    assert ended.code == 1
    assert "custom.thing" in ended.line
    assert "Traceback" not in ended.err
