"""`omni-worker doctor`: what keeps a server from our promises is found, and what to do is said."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omni_worker import App, Event, EventBus, Settings
from omni_worker.nats_server import NatsServer
from omni_worker.operations.doctor.buckets import bucket_findings
from omni_worker.operations.doctor.consumers import consumer_findings
from omni_worker.operations.doctor.finding import Finding, Level
from omni_worker.operations.doctor.order import order_findings
from omni_worker.operations.doctor.rights import APPLYING, READING, RETRYING, missing_rights
from omni_worker.operations.doctor.server import account_use, features, payload, version
from omni_worker.operations.doctor.streams import full_streams
from omni_worker.transports.infos import read_account, read_permissions, read_stream_info
from tests.processes.support import api, make_stream, plain_client

from .support import operate


def findings(url: str, *arguments: str) -> dict[str, list[dict[str, Any]]]:
    """What the doctor found, by what it looked at."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(operate(url, "doctor", "--json", *arguments).out):
        found.setdefault(one["what"], []).append(one)
    return found


async def test_the_doctor_finds_what_strands_events(nats_server: NatsServer) -> None:
    url = nats_server.url
    client = await plain_client(url)
    async with EventBus(url, name="t") as bus:
        await bus.publish("custom.n", 1)
    config = {"name": "theirs", "durable_name": "theirs", "ack_policy": "explicit",
              "max_deliver": 4, "deliver_policy": "all"}  # fmt: skip
    await api(client, "CONSUMER.CREATE.CUSTOM.theirs", {"stream_name": "CUSTOM", "config": config})

    found = findings(url)
    said = operate(url, "doctor")

    assert found["max_deliver"][0]["says"].startswith("theirs on CUSTOM: after 4 deliveries")
    assert "1 event is waiting, and no worker reads it" in found["consumers"][0]["says"]
    assert found["rights"][0]["level"] == "ok"
    assert found["clock"][0]["level"] == "ok"
    assert said.code == 0
    assert "2 to look at." in said.out
    await client.close()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"retention": "interest"}, ["keeps no letter without a consumer"]),
        (
            {"max_bytes": 50_000, "max_msgs_per_subject": 1},
            ["keeps only the last letters", "max_bytes 50000"],
        ),
        ({"max_msg_size": 1_000}, ["max_msg_size 1000: larger letters are kept without"]),
    ],
)
async def test_the_doctor_sees_what_a_stream_may_lose_of_dead_letters(
    nats_server: NatsServer, config: dict[str, Any], says: list[str]
) -> None:
    client = await plain_client(nats_server.url)
    await make_stream(client, "SYSTEM", "system.>", **config)
    await client.close()

    found = findings(nats_server.url)["SYSTEM"]

    assert [one["level"] for one in found] == ["ok", *("warn" for _ in says)]
    assert [text in one["says"] for text, one in zip(says, found[1:], strict=True)] == [
        True for _ in says
    ]


async def test_the_doctor_sees_streams_that_lack_and_that_are_in_the_way(
    nats_server: NatsServer,
) -> None:
    client = await plain_client(nats_server.url)
    await make_stream(client, "MESSAGE", "message.received.>", "message.received")
    await make_stream(client, "MINE", "custom.mine.>")
    await client.close()

    found = findings(nats_server.url)

    assert found["MESSAGE"][0]["level"] == found["CUSTOM"][0]["level"] == "fail"
    assert "plan" in found["MESSAGE"][0]["advice"]
    assert "MINE" in found["CUSTOM"][0]["says"]
    assert found["MEDIA"][0]["level"] == "warn"
    assert operate(nats_server.url, "doctor").code == 1


def test_the_doctor_says_which_right_is_missing(restricted_server: NatsServer) -> None:
    said = operate(restricted_server.url, "doctor")

    assert said.code == 1
    assert "$JS.API.INFO" in said.out


def test_the_doctor_says_that_there_is_no_jetstream(server_without_jetstream: NatsServer) -> None:
    said = operate(server_without_jetstream.url, "doctor")

    assert said.code == 1
    assert "FAIL  JetStream" in said.out
    assert "--jetstream" in said.out


def test_the_doctor_reads_how_often_the_server_flushes(tmp_path: Path) -> None:
    with NatsServer(arguments=["--http_port", "-1", "-a", "127.0.0.1"]) as server:
        log = server.log_file.read_text()
        port = log.partition("http monitor on ")[2].split()[0].rpartition(":")[2]

        found = findings(server.url, "--monitor", f"http://127.0.0.1:{port}")
        wrong = findings(server.url, "--monitor", "http://127.0.0.1:9")

    assert found["sync_interval"][0]["level"] == "warn"
    assert "120 s" in found["sync_interval"][0]["says"]
    assert "does not answer" in wrong["sync_interval"][0]["says"]


# --- the server ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "level", "said"),
    [
        ((2, 9, 25), Level.FAIL, "2.10 or newer is needed"),
        ((2, 10, 19), Level.OK, ""),
        ((2, 10, 20), Level.WARN, "2.10.23 or newer does not"),
        ((2, 10, 22), Level.WARN, "2.10.23 or newer does not"),
        ((2, 10, 23), Level.OK, ""),
        ((2, 15, 1), Level.OK, ""),
    ],
)
def test_a_server_is_judged_by_its_version(
    found: tuple[int, int, int], level: Level, said: str
) -> None:
    finding = version(found)

    assert (finding.level, finding.advice) == (level, said)
    assert finding.says.startswith(f"nats-server {'.'.join(map(str, found))}")


def test_its_features_are_those_that_matter_here() -> None:
    versions = ((2, 10, 25), (2, 11, 2), (2, 11, 3), (2, 12, 0))
    old, middle, newer, new = found = [features(one) for one in versions]

    assert [one.level for one in found] == [Level.WARN, Level.WARN, Level.NOTE, Level.OK]
    assert ["paused" in one.says for one in found] == [False, True, True, True]
    assert "2.11.3" in old.advice
    assert "order_by" in newer.says
    assert "order_by" not in middle.says + new.says


@pytest.mark.parametrize("found", [(2, 10, 26), (2, 11, 0), (2, 11, 1)])
def test_a_server_that_loses_events_of_overlapping_filters_is_named(
    found: tuple[int, int, int],
) -> None:
    finding = features(found)

    assert finding.level is Level.WARN
    assert "loses events" in finding.says
    assert finding.advice == "2.11.3 or newer loses none"


async def test_one_event_at_a_time_from_two_consumers_is_no_order(nats_server: NatsServer) -> None:
    app = App("t", settings=Settings(urls=nats_server.url))

    async def handle(event: Event[Any]) -> None: ...

    app.on("custom.n", durable="two", concurrency=1)(handle)
    app.on("custom.n", durable="channel", concurrency=1, channel="c")(handle)
    app.on("custom.n", durable="ordered", concurrency=1, order_by=lambda event: "k")(handle)
    app.on("custom.n", durable="many")(handle)
    async with app.running() as bus:
        found = await order_findings(bus.transport)

    assert [one.says for one in found] == [
        "handle (two) has concurrency=1 and two consumers on CUSTOM, with and without channel:"
        " its order is not the stream's"
    ]


def test_sizes_are_those_of_people() -> None:
    assert payload(1_048_576).says == "messages up to 1 MiB"
    assert payload(65_536) == Finding(
        Level.WARN, "max_payload", "messages up to 64 KiB",
        "larger events are refused; raise max_payload if yours are",
    )  # fmt: skip


def test_a_limit_that_is_near_is_told_with_its_name() -> None:
    account = {
        "streams": 8, "consumers": 3, "storage": 900 * 1024, "memory": 0,
        "limits": {"max_streams": 10, "max_consumers": -1, "max_storage": 1024 * 1024},
    }  # fmt: skip

    found = account_use(read_account(account))
    free = account_use(read_account({**account, "limits": {}}))

    assert found.level is Level.WARN
    assert found.says == "uses 8 of 10 streams, 3 consumers, 900 KiB of 1 MiB storage"
    assert found.advice == (
        "raise this account's max_streams (10) and max_storage (1 MiB) in the server's"
        " configuration, or delete what is not needed: when it is reached the server refuses new"
        " streams and new events"
    )
    assert free.level is Level.OK
    assert free.says == "uses 8 streams, 3 consumers, 900 KiB storage; no limit is set"


@pytest.mark.parametrize(
    ("config", "state", "said"),
    [
        ({"max_bytes": 1000}, {"bytes": 800, "messages": 1}, "800 bytes of 1000 bytes used"),
        ({"max_msgs": 10}, {"bytes": 1, "messages": 9}, "9 of 10 events used"),
    ],
)
def test_a_stream_near_its_limit_says_what_becomes_of_events(
    config: dict[str, Any], state: dict[str, int], said: str
) -> None:
    stream = {"name": "MESSAGE", "subjects": ["message.>"], **config}

    [found] = full_streams([read_stream_info({"config": stream, "state": state})])
    [refusing] = full_streams(
        [read_stream_info({"config": {**stream, "discard": "new"}, "state": state})]
    )
    less = full_streams(
        [read_stream_info({"config": stream, "state": {"bytes": 1, "messages": 1}})]
    )

    assert found.says == f"{said}; when full, it drops its oldest events"
    assert refusing.says == f"{said}; when full, it refuses new events"
    assert less == []


# --- the rights of a login ----------------------------------------------------------------------


def test_without_a_list_everything_is_granted() -> None:
    assert missing_rights(read_permissions({}), READING) == []


@pytest.mark.parametrize(
    ("publish", "missing"),
    [
        ({"allow": ["$JS.API.>"]}, []),
        ({"allow": [">"], "deny": ["$JS.API.STREAM.DELETE.>"]}, []),
        ({"allow": [">"], "deny": ["$JS.API.STREAM.UPDATE.MESSAGE"]}, ["$JS.API.STREAM.UPDATE.*"]),
        ({"allow": ["$JS.API.STREAM.CREATE.*", "$JS.API.CONSUMER.>"]}, ["$JS.API.STREAM.UPDATE.*"]),
        ({"allow": ["$JS.API.STREAM.*.MESSAGE", "$JS.API.CONSUMER.>"]},
         ["$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*"]),
        ({"deny": ["$JS.API.CONSUMER.CREATE.>"]}, ["$JS.API.CONSUMER.CREATE.>"]),
    ],
)  # fmt: skip
def test_a_right_counts_where_the_whole_of_it_is_granted(
    publish: dict[str, list[str]], missing: list[str]
) -> None:
    assert missing_rights(read_permissions({"publish": publish}), APPLYING) == missing


def test_a_domain_has_an_api_of_its_own() -> None:
    permissions = read_permissions({"publish": {"allow": ["$JS.hub.API.>"]}})

    assert missing_rights(permissions, APPLYING, domain="hub") == []
    assert missing_rights(permissions, APPLYING) != []


def test_a_domain_precedes_the_subjects_of_buckets() -> None:
    allowed = ["omni-worker.retry.>", "$JS.hub.API.$KV.omni-worker-letters.>"]
    permissions = read_permissions({"publish": {"allow": allowed}})

    assert missing_rights(permissions, RETRYING, domain="hub") == []
    assert missing_rights(permissions, RETRYING) == ["$KV.omni-worker-letters.>"]


def test_a_bucket_s_rights_are_named_as_they_are_granted() -> None:
    assert missing_rights(read_permissions({"publish": {"allow": ["a"]}}), RETRYING) == [
        "omni-worker.retry.>", "$KV.omni-worker-letters.>",
    ]  # fmt: skip


@contextmanager
def a_login(folder: Path, publish: str) -> Iterator[NatsServer]:
    """A server with streams on which who does not log in has these rights only."""
    config = folder / "rights.conf"
    config.write_text(
        f"""
        jetstream: enabled
        accounts {{ A {{ jetstream: enabled, users: [
            {{user: admin, password: admin}}
            {{user: one, password: one, permissions: {{
                publish: {publish}, subscribe: "_INBOX.>"
            }}}}
        ]}}}}
        no_auth_user: one
        """
    )
    with NatsServer(arguments=["-c", str(config)]) as server:
        asyncio.run(_streams(server.url.replace("nats://", "nats://admin:admin@")))
        yield server


async def _streams(url: str) -> None:
    async with EventBus(url, name="admin"):
        pass


def test_what_cannot_be_tried_is_read_from_the_server_s_list(tmp_path: Path) -> None:
    with a_login(tmp_path, '{deny: ["$JS.API.STREAM.CREATE.>", "omni-worker.>"]}') as server:
        found = findings(server.url)
        code = operate(server.url, "doctor").code

    said = {one["says"].partition(":")[0]: one for one in found["rights"]}
    assert said["plan --apply"]["level"] == "warn"
    assert "$JS.API.STREAM.CREATE.*" in said["plan --apply"]["says"]
    assert "omni-worker.retry.>" in said["dead-letters retry and discard"]["says"]
    assert code == 0


def test_a_login_that_may_all_is_told_so(nats_server: NatsServer) -> None:
    asyncio.run(_streams(nats_server.url))

    rights = findings(nats_server.url)["rights"]

    assert [one["level"] for one in rights] == ["ok", "ok"]


def test_a_right_that_is_missing_hides_nothing_else(tmp_path: Path) -> None:
    allowed = '["$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.LIST.*"]'
    with a_login(tmp_path, allowed) as server:
        found = findings(server.url)

    assert found["account"][0]["level"] == "fail"
    assert "$JS.API.INFO" in found["account"][0]["says"]
    assert found["MESSAGE"][0]["level"] == "ok"
    assert found["clock"][0]["level"] == "ok"
    denied = " ".join(one["says"] for one in found["rights"] if one["level"] == "fail")
    assert "$JS.API.CONSUMER.CREATE.SYSTEM" in denied
    assert "$JS.API.CONSUMER.LIST" not in denied
    notes = [one["says"] for one in found["rights"] if one["level"] == "note"]
    assert "$SYS.REQ.USER.INFO" in notes[0]


# --- consumers ----------------------------------------------------------------------------------


async def test_consumers_that_let_events_wait_are_told_with_the_reason(
    nats_server: NatsServer,
) -> None:
    client = await plain_client(nats_server.url)
    async with EventBus(nats_server.url, name="t") as bus:
        for number in range(3):
            await bus.publish("custom.n", number)
        await consumer_of(client, "paused", pause_until="2099-01-01T00:00:00Z")
        await consumer_of(client, "full", max_ack_pending=1)
        await consumer_of(client, "read")
        pulled = await client.jetstream().pull_subscribe_bind("full", "CUSTOM")
        await pulled.fetch(1)
        waiting = await client.subscribe("_INBOX.read")
        await client.publish("$JS.API.CONSUMER.MSG.NEXT.CUSTOM.read", b"100", reply="_INBOX.read")
        for _ in range(3):
            await waiting.next_msg(10)

        found = {
            one["says"].split()[0]: one["says"] for one in findings(nats_server.url)["consumers"]
        }

        await client.close()

    assert "paused, so nothing is delivered" in found["paused"]
    assert "1 event is not acknowledged, as many as its max_ack_pending allows" in found["full"]
    assert "read" not in found


async def test_a_handler_whose_workers_are_stopped_is_named_once_and_never_to_be_removed(
    nats_server: NatsServer,
) -> None:
    async def place(event: Event) -> None: ...

    async with EventBus(nats_server.url, name="shop") as bus:
        await bus.subscribe("custom.n", place, durable="orders")
    async with EventBus(nats_server.url, name="t") as bus:
        await bus.publish("custom.n", 1)
        await bus.publish("custom.n", 2, channel="wa", instance="wa-1")

    found = findings(nats_server.url)["consumers"]
    said = operate(nats_server.url, "doctor")

    assert [(one["says"], one["advice"]) for one in found] == [
        (
            "place (orders) on CUSTOM: 2 events are waiting, and no worker reads it",
            "start a worker of shop; whether it still has this handler says: omni-worker"
            " consumers list MODULE:APP",
        )
    ]
    assert "consumers rm" not in said.out


async def consumer_of(client: Any, name: str, **options: Any) -> None:
    config = {"name": name, "durable_name": name, "ack_policy": "explicit",
              "deliver_policy": "all", **options}  # fmt: skip
    body = {"stream_name": "CUSTOM", "config": config}
    assert "error" not in await api(client, f"CONSUMER.CREATE.CUSTOM.{name}", body)


async def test_events_that_die_unread_and_a_stream_that_lost_its_end_are_seen(
    nats_server: NatsServer,
) -> None:
    client = await plain_client(nats_server.url)
    async with EventBus(nats_server.url, name="t") as bus:
        for number in range(3):
            await bus.publish("custom.n", number)
        await consumer_of(client, "slow")
        await consumer_of(client, "done", deliver_policy="new")
        operators = bus.transport.operators
        stream = await operators.stream_info("CUSTOM")
        assert stream is not None

        as_it_is = await consumer_findings(operators, [stream])
        short = replace(stream.config, max_age=0.001)  # what waits is older
        dying = await consumer_findings(operators, [replace(stream, config=short)])
        lost = replace(stream.state, last_sequence=2)  # `done` begins behind the third
        cut = await consumer_findings(operators, [replace(stream, state=lost)])
        await client.close()

    assert [one.says for one in as_it_is] == [
        "slow on CUSTOM: 3 events are waiting, and no worker reads it"
    ]
    assert any(one.says.startswith("slow on CUSTOM: its oldest event waits") for one in dying)
    assert [one.says for one in cut if one.level is Level.FAIL] == [
        "done on CUSTOM: settled up to #3, and the stream ends at #2: the events between would"
        " never be delivered"
    ]


# --- the monitoring port ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["localhost:8222", "someone:geheim@localhost:8222", "http://someone:geheim@localhost:8222",
     "ftp://geheim@x", "http://[geheim", "http://x:geheim", ""],
)  # fmt: skip
def test_a_monitoring_url_that_cannot_be_meant_is_not_repeated(
    nats_server: NatsServer, url: str
) -> None:
    said = operate(nats_server.url, "doctor", "--monitor", url)

    assert said.code == 2
    assert said.line.startswith("omni-worker: --monitor: ")
    assert "geheim" not in said.out + said.err


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff", b""])
def test_what_answers_there_may_be_anything(nats_server: NatsServer, body: bytes) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.handle_request)
        thread.start()
        found = findings(nats_server.url, "--monitor", f"http://127.0.0.1:{web.server_port}")
        thread.join()

    assert found["sync_interval"][0]["level"] == "warn"
    assert "not that of a nats-server's monitoring" in found["sync_interval"][0]["says"]


async def test_several_filters_over_many_subjects_are_told(nats_server: NatsServer) -> None:
    client = await plain_client(nats_server.url)
    async with EventBus(nats_server.url, name="t") as bus:
        await consumer_of(client, "one", filter_subject="custom.>")
        await consumer_of(client, "both", filter_subjects=["custom.n", "custom.n.>"])
        await consumer_of(client, "channels", filter_subjects=["custom.n.a.>", "custom.n.b.>"])
        stream = await bus.transport.operators.stream_info("CUSTOM")
        assert stream is not None
        found = {
            count: await consumer_findings(
                bus.transport.operators,
                [replace(stream, state=replace(stream.state, subjects=count))],
            )
            for count in (1_999, 2_000)
        }
        await client.close()

    assert [one.what for one in found[1_999]] == ["consumers"]
    price = "2 filters over 2000 subjects take the server up to 0.5 ms for each event"
    assert [(one.says, one.advice.partition(":")[0]) for one in found[2_000]] == [
        (f"both on CUSTOM: {price}", "name the channel"),
        (f"channels on CUSTOM: {price}",
         "one @app.on for each type or channel, each with its own durable"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "account", "says"),
    [
        ({"sealed": True}, {}, "sealed: handlers with exactly_once take no events"),
        ({"max_bytes": 1_000}, {}, "950 bytes of 1000 bytes used; when full, handlers with"),
        (None, {"max_bytes_required": True}, "creates no stream without max_bytes: handlers with"),
    ],
)
def test_a_bucket_that_takes_no_writes_is_found_with_what_stops(
    config: dict[str, Any] | None, account: dict[str, Any], says: str
) -> None:
    name = "KV_omni-worker-guards"
    streams = [] if config is None else [{"config": {"name": name, **config}}]
    infos = [read_stream_info({**one, "state": {"bytes": 950}}) for one in streams]

    found = bucket_findings(infos, read_account({"limits": account}))

    about = [one for one in found if one.what == "omni-worker-guards"]
    assert len(about) == 1
    assert says in about[0].says
    assert about[0].advice


def test_a_bucket_that_works_or_that_is_not_needed_yet_is_not_mentioned() -> None:
    info = read_stream_info({"config": {"name": "KV_omni-worker-notes", "max_bytes": -1}})

    assert bucket_findings([info], read_account({})) == []
