"""Hostile input and spoiled logins: the loop goes on, and no secret is ever shown."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from ..processes.support import Stage, letters
from ..transports.certificates import make_creds
from ..waiting import until
from .accounts import Row
from .scene import Scene
from .servers import configured

LIMIT = 0.1  # seconds the loop may stand still
TRIES = 8
SIZE = 1_000_000  # bytes; a server takes 1 MiB with the headers

WATCHED = """
from contextlib import asynccontextmanager
from typing import Any

class Received(BaseModel):
    externalId: str
    extra: Any = None

class Wanting(BaseModel):  # fields no hostile event has
    a: int
    b: int
    c: int
    d: int

@asynccontextmanager
async def watched(app):
    async def beat():
        while True:
            before = time.process_time()  # of our own: a busy machine is no stall
            await asyncio.sleep(0.005)
            effect("beat", id="", late=time.process_time() - before)
    beating = asyncio.create_task(beat())
    yield
    beating.cancel()

app = App("router", lifespan=watched)

@app.on("message.received", durable="r1", start_from="first"{schema})
async def route(event):
    effect("begun", id=event.id[:50])
    effect("handled", id=event.id[:50])
"""


def _event(extra: str, id: str) -> bytes:
    payload = f'{{"externalId":"x","extra":{extra}}}'
    rest = "" if id.endswith("bare") else ',"timestamp":1,"metadata":{}'
    return f'{{"id":"{id}","type":"message.received","payload":{payload}{rest}}}'.encode()


def _hostile() -> dict[str, bytes]:
    depth = SIZE // 2 - 200
    digits = "9" * (SIZE - 400)
    keys = ",".join(f'"{number:06}":0' for number in range(SIZE // 11 - 100))
    same = ",".join(['"k":1'] * (SIZE // 6 - 100))
    return {
        "nested-lists": _event("[" * depth + "]" * depth, "nested-lists"),
        "nested-objects": _event('{"a":' * (SIZE // 7) + "0" + "}" * (SIZE // 7), "nested-objects"),
        "nested-to-the-limit": _event("[" * 190 + "]" * 190, "nested-to-the-limit"),
        "huge-integer": _event(digits, "huge-integer"),
        "huge-float": _event(f"{digits}.5e-9", "huge-float"),
        "many-integers": _event("[" + ",".join(["9" * 4_000] * 245) + "]", "many-integers"),
        "90000-keys": _event("{" + keys + "}", "90000-keys"),
        "90000-keys-bare": _event("{" + keys + "}", "90000-keys-bare"),  # read by the lenient path
        "one-key-again": _event("{" + same + "}", "one-key-again"),
        "many-strings": _event("[" + ",".join(['"\\\\u0041"'] * 100_000) + "]", "many-strings"),
        "unclosed": _event("[" * (SIZE - 400), "unclosed")[: SIZE - 300],
        "long-type": b'{"id":"long-type","type":"' + b"a." * 490_000 + b'","payload":{}}',
        "long-id": b'{"id":"' + b"x" * 990_000 + b'","type":"message.received","payload":{}}',
        "headers-in-body": b"NATS/1.0 503\r\n\r\n" * 60_000,
    }


LONG_ID = "x" * 50  # as much of it as is kept; its payload lacks what the schema asks for
READABLE = {
    "nested-to-the-limit", "many-integers", "90000-keys", "90000-keys-bare", "one-key-again",
    "many-strings",
}  # fmt: skip


READABLE_AS = {  # which are handled, by the schema asked for
    "": READABLE | {LONG_ID},
    ", schema=Received": READABLE,
    ", schema=Wanting": set(),
}


@pytest.mark.parametrize("schema", READABLE_AS)
async def test_a_hostile_megabyte_does_not_stall_the_loop(scene: Scene, schema: str) -> None:
    worker = await scene.run(WATCHED.format(schema=schema))
    jetstream = scene.plain.jetstream()
    hostile = _hostile()
    stalls: dict[str, list[float]] = {}
    for name, body in hostile.items():
        tries = stalls.setdefault(name, [])
        # Even so the machine has its moments, in which everything takes twice as long.
        while len(tries) < TRIES and not any(late < LIMIT for late in tries):
            tries.append(await _stall(scene, jetstream, body))
    if READABLE_AS[schema]:
        await scene.publish(20)
        await scene.handled(20)
        await scene.settled()

    assert worker.is_running
    assert "connection lost" not in worker.said()
    assert "Traceback" not in worker.said()
    # Each ended at once: handled where it can be read, else a letter after one attempt.
    handled, found = Counter(scene.stage.ids("handled")), await letters(scene.plain)
    readable = READABLE_AS[schema]
    published = {LONG_ID if name == "long-id" else name: len(stalls[name]) for name in hostile}
    assert {id: handled[id] for id in published} == {
        id: count if id in readable else 0 for id, count in published.items()
    }
    assert len(found) == sum(published[id] for id in published.keys() - readable)
    assert {letter["payload"]["retryCount"] for letter in found} == {0}
    longest = max(len(line) for line in worker.said().splitlines())
    assert longest < 10_000, "a hostile text in the log"
    assert {name: tries for name, tries in stalls.items() if min(tries) >= LIMIT} == {}
    assert await worker.stop() == 0


async def _stall(scene: Scene, jetstream: object, body: bytes) -> float:
    """How late the loop's beat was at most while this was read."""
    before = len(scene.stage.effects("beat"))
    await jetstream.publish("message.received", body)  # type: ignore[attr-defined]
    await scene.settled()
    beats = scene.stage.effects("beat")
    await until(lambda: len(scene.stage.effects("beat")) > len(beats) + 2)
    return max(one["late"] for one in scene.stage.effects("beat")[before:])


FAILING = (
    WATCHED.partition("@app.on")[0]
    + """
@app.on("message.received", durable="r1", max_retries=0)
async def fail(event, ctx):
    text = event.payload["text"]
    try:
        raise ValueError(f"bad text {text}")
    except ValueError:
        ctx.log.exception("cannot read %s", text, extra={"text": text, "rate": float("nan")})
    raise ConnectionError(f"cannot send {text}")
"""
)
PIECES = ("a", ", input_value=", "password='", "a://b:", "\n", "eyJ", "-----BEGIN KEY")


async def test_a_long_text_of_an_exception_does_not_stall_the_loop(scene: Scene) -> None:
    worker = await scene.run(FAILING)
    jetstream = scene.plain.jetstream()
    stalls: dict[str, list[float]] = {}
    for piece in PIECES:
        text = piece * (300_000 // len(piece))
        body = json.dumps(
            {"id": piece, "type": "message.received", "payload": {"text": text}}
        ).encode()
        tries = stalls.setdefault(piece, [])
        while len(tries) < TRIES and not any(late < LIMIT for late in tries):
            tries.append(await _stall(scene, jetstream, body))

    assert {piece: tries for piece, tries in stalls.items() if min(tries) >= LIMIT} == {}
    found = await letters(scene.plain)
    assert {letter["payload"]["errorType"] for letter in found} == {"builtins.ConnectionError"}
    assert len(found) == sum(map(len, stalls.values()))
    # Without constants that are no JSON, and none of them as long as the text.
    lines = [line for line in worker.said().splitlines() if "cannot" in line]
    assert all(json.loads(line, parse_constant=_refused) for line in lines)
    assert {json.loads(line).get("rate") for line in lines} == {"nan", None}
    assert max(map(len, lines)) < 100_000
    assert await worker.stop() == 0


def _refused(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


async def test_a_secret_in_an_exception_is_in_no_line_and_no_letter(scene: Scene) -> None:
    secrets = ["hunter2", "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"]
    text = f"postgres://app:{secrets[0]}@db/orders, api_key={secrets[0]}, {secrets[1]}"
    worker = await scene.run(FAILING_WITH.format(text=text))
    await scene.publish(1)
    await scene.settled()

    [letter] = await letters(scene.plain)

    assert "cannot reach postgres://***@db/orders" in letter["payload"]["error"]
    for secret in secrets:
        assert secret not in worker.said()
        assert secret not in json.dumps(letter)
    assert await worker.stop() == 0


FAILING_WITH = """
app = App("router")

@app.on("message.received", durable="r1", max_retries=1, retry_delay=0.05)
async def route(event, ctx):
    try:
        raise ConnectionError("cannot reach {text}")
    except ConnectionError as error:
        ctx.log.exception("no database: %s", error, extra={{"cause": repr(error)}})
        raise
"""


# --- logins -----------------------------------------------------------------------------------


async def test_creds_that_expire_under_a_worker_end_it_with_that_cause(tmp_path: Path) -> None:
    for seconds in (3, 9, 27):  # on a busy machine the first may be over before a worker runs
        if await _ends_with_its_creds(tmp_path / f"{seconds}", seconds):
            return
    raise AssertionError("no worker was ready within 27 s")


async def _ends_with_its_creds(folder: Path, seconds: int) -> bool:
    """Return True if a worker ran when its creds expired, and so could end as it should."""
    folder.mkdir()
    creds, config = make_creds(folder / "creds", expires_in=seconds)
    with configured(folder / "server", config) as server, Stage(folder, server.url) as stage:
        worker = stage.spawn(
            stage.app(_PLAIN), reconnect_max_retries=1, reconnect_delay=0.05, nats_creds=creds
        )

        assert await worker.exit(seconds + 20) == 1

        if "ready" not in worker.messages():
            return False

        said = worker.messages("error")[-1].lower()
        assert "expired" in said or "authorization" in said
        assert "NATS_CREDS" in worker.messages("error")[-1]
        _shows_nothing_of(creds, worker.said())
        return True


async def test_expired_creds_are_the_cause_at_the_start(tmp_path: Path) -> None:
    creds, config = make_creds(tmp_path / "creds", expires_in=-5)
    with configured(tmp_path / "server", config) as server, Stage(tmp_path, server.url) as stage:
        worker = stage.spawn(
            stage.app(_PLAIN), reconnect_max_retries=1, reconnect_delay=0.05, nats_creds=creds
        )

        assert await worker.exit(20) == 1

        assert "NATS_CREDS" in worker.messages("error")[-1]
        _shows_nothing_of(creds, worker.said())


async def test_a_user_removed_under_a_worker_ends_it_with_that_cause(
    tmp_path: Path, rows: list[Row]
) -> None:
    secret = "s3cr3t-of-the-worker"
    others = {"user": "operations", "password": "o"}
    users = [others, {"user": "worker", "password": secret}]
    server = configured(tmp_path / "server", json.dumps({"authorization": {"users": users}}))
    with server, Stage(tmp_path, server.url) as stage:
        worker = stage.spawn(
            stage.app(_PLAIN), reconnect_max_retries=2, reconnect_delay=0.05,
            nats_user="worker", nats_password=secret,
        )  # fmt: skip
        await worker.ready()

        configured(tmp_path / "server", json.dumps({"authorization": {"users": [others]}}))
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)  # read the configuration again
        assert await worker.exit(10) == 1

        last = worker.messages("error")[-1]
        assert "authorization violation" in last
        assert "NATS_USER" in last
        assert secret not in worker.said()


_PLAIN = """
app = App("router")

@app.on("message.received", durable="r1")
async def route(event):
    pass
"""


def _shows_nothing_of(creds: Path, said: str) -> None:
    for line in creds.read_text().splitlines():
        if line and not line.startswith("---"):
            assert line not in said


@pytest.mark.parametrize("login", ["url", "password", "token"])
async def test_a_secret_is_in_no_line_through_an_outage(
    tmp_path: Path, rows: list[Row], login: str
) -> None:
    secret = "s3cr3t-%2F-word"
    plain_text = "s3cr3t-/-word"
    config = {"token": plain_text} if login == "token" else {"user": "w", "password": plain_text}
    server = configured(tmp_path / "server", json.dumps({"authorization": config}))
    with server, Stage(tmp_path, server.url) as stage:
        url = server.url
        settings: dict[str, object] = {"reconnect_delay": 0.05, "reconnect_max_delay": 0.2}
        if login == "url":
            url = url.replace("nats://", f"nats://w:{secret}@")
        elif login == "password":
            settings |= {"nats_user": "w", "nats_password": plain_text}
        else:
            settings |= {"nats_token": plain_text}
        app = stage.app(_PLAIN)
        patient = stage.spawn(app, url=url, reconnect_max_retries="none", **settings)
        await patient.ready()
        server.kill()
        server.start()
        await patient.until_said("connected again")
        assert await patient.stop() == 0
        worker = stage.spawn(app, url=url, reconnect_max_retries=4, **settings)
        await worker.ready()
        server.kill()

        assert await worker.exit(20) == 1

        for one in (secret, plain_text):
            assert one not in patient.said() + worker.said()
