"""Rights: an account that may do only what a worker needs, and each of its rights taken away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from omni_worker.nats_server import NatsServer

from ..processes.support import Worker, foreign_event, plain_client
from ..waiting import until
from .accounts import Row
from .scene import Scene
from .servers import configured

SECRET = "s3cr3t-of-the-worker"

# What docs/guarantees.md lists for an app that reads MESSAGE as r1 and publishes custom.reply.
RIGHTS = {
    "streams": "$JS.API.STREAM.LIST",
    "stream": "$JS.API.STREAM.INFO.MESSAGE",
    "consumer": "$JS.API.CONSUMER.INFO.MESSAGE.r1",
    "pull": "$JS.API.CONSUMER.MSG.NEXT.MESSAGE.r1",
    "ack": "$JS.ACK.MESSAGE.r1.>",
    "letters": "system.dead_letter",
    "notes": "$KV.omni-worker-notes.>",
    "recall": "$JS.API.STREAM.MSG.GET.KV_omni-worker-notes",
    "orders": "$JS.API.STREAM.INFO.KV_omni-worker-orders",
    "events": "custom.reply",
}
HEARS = "omni-worker-steering.router"  # subscribed: a pause is heard of at once

APP = """
app = App("router")

@app.on("message.received", durable="r1", start_from="first", max_retries=1, retry_delay=0.05)
async def route(event, ctx):
    effect("begun", id=event.id, attempt=ctx.attempt)
    if event.payload.get("fail"):
        raise ValueError("always")
    await ctx.publish("custom.reply", {"to": event.id})
    effect("handled", id=event.id)
"""


@asynccontextmanager
async def least(tmp_path: Path, rows: list[Row], *without: str) -> AsyncIterator[Scene]:
    """A server where operations made everything, and `worker` has its rights, some left out."""
    allowed = [subject for name, subject in RIGHTS.items() if name not in without]
    # The handler's second consumer, of the bare subject, needs what the first one needs.
    allowed += [one.replace(".r1", ".r1-bare") for one in allowed if ".r1" in one]
    users = [
        {"user": "operations", "password": "o"},
        {
            "user": "worker",
            "password": SECRET,
            "permissions": {
                "publish": {"allow": allowed},
                "subscribe": {"allow": ["_INBOX.>", *({HEARS} - set(without))]},
            },
        },
    ]
    if "inbox" in without:
        users[1]["permissions"]["subscribe"] = {"deny": ["_INBOX.>"]}  # type: ignore[index]
    server = configured(tmp_path / "server", json.dumps({"authorization": {"users": users}}))
    with server:
        async with Scene(tmp_path, _As(server, "operations:o"), rows) as scene:
            maker = await scene.run(APP)  # makes streams and the consumer, with its own rights
            assert await maker.stop() == 0
            await scene.bus.transport.bucket("omni-worker-notes", ttl=3_600.0)
            yield scene


class _As:
    """A server's url with a login."""

    def __init__(self, server: NatsServer, login: str) -> None:
        self.url = server.url.replace("nats://", f"nats://{login}@")


def _spawn(scene: Scene) -> Worker:
    url = scene.server.url.replace("operations:o", f"worker:{SECRET}")
    return scene.spawn(url=url, provision="off", reconnect_max_retries=0)


def _letters(worker: Worker) -> list[dict[str, Any]]:
    """Log lines of dead letters."""
    return [one for one in worker.lines("error") if one.get("signal") == "DeadLettered"]


async def _publish(scene: Scene) -> None:
    await scene.publish(20)
    client = await plain_client(scene.server.url)
    await client.jetstream().publish(*foreign_event("message.received", {"fail": 1}, id="bad"))
    scene.confirmed.add("bad")
    await client.close()


async def test_a_worker_with_least_rights_works(tmp_path: Path, rows: list[Row]) -> None:
    async with least(tmp_path, rows) as scene:
        worker = _spawn(scene)
        await worker.ready()
        await _publish(scene)
        await scene.handled(20)
        await scene.settled()

        account = await scene.ends("least privilege, PROVISION=off")
        assert account.lettered == {"bad"}
        assert "denied" not in worker.said()
        others = [one for one in worker.lines("error") if one not in _letters(worker)]
        assert others == []
        assert await worker.stop() == 0
        assert SECRET not in worker.said()


@pytest.mark.parametrize("right", ["streams", "stream", "consumer", "pull", "inbox"])
async def test_without_a_right_it_cannot_work_without_a_worker_says_which_and_ends(
    tmp_path: Path, rows: list[Row], right: str
) -> None:
    async with least(tmp_path, rows, right) as scene:
        worker = _spawn(scene)

        assert await worker.exit(10) == 1

        subject = RIGHTS.get(right, "_INBOX.").removesuffix(">")
        last = worker.messages("error")[-1]
        assert "denies us a right" in last
        assert subject in last
        assert SECRET not in worker.said()
        assert "Traceback" not in worker.said()


async def test_without_the_right_to_ack_a_worker_says_so_once_and_ends(
    tmp_path: Path, rows: list[Row]
) -> None:
    async with least(tmp_path, rows, "ack") as scene:
        worker = _spawn(scene)
        await scene.publish(20)

        assert await worker.exit(10) == 1

        assert "$JS.ACK.MESSAGE.r1" in worker.messages("error")[-1]
        assert len(worker.messages("error")) <= 2, worker.said()


async def test_without_the_right_to_publish_letters_the_event_waits(
    tmp_path: Path, rows: list[Row]
) -> None:
    async with least(tmp_path, rows, "letters") as scene:
        worker = _spawn(scene)
        await worker.ready()
        await _publish(scene)
        await scene.handled(20)
        await worker.until_said("dead letter not stored; the event waits")

        account = await scene.ends("the right to publish dead letters missing")
        assert account.waiting == {"bad"}
        delayed = [one for one in worker.lines("error") if one.get("signal") == "DeadLetterDelayed"]
        assert '"system.dead_letter"' in delayed[0]["cause"]
        assert await worker.stop() == 0


@pytest.mark.parametrize("right", ["notes", "recall"])
async def test_without_notes_a_worker_says_so_once_and_works(
    tmp_path: Path, rows: list[Row], right: str
) -> None:
    async with least(tmp_path, rows, right) as scene:
        worker = _spawn(scene)
        await worker.ready()
        await _publish(scene)
        await scene.handled(20)
        await scene.settled()

        account = await scene.ends(f"the right to {right} missing")
        assert account.lettered == {"bad"}
        said = [one for one in worker.lines("warning") if "cannot be noted" in one["message"]]
        assert len(said) == 1
        assert RIGHTS[right].removesuffix(">") in said[0]["message"]
        assert await worker.stop() == 0


@pytest.mark.parametrize("right", ["orders", HEARS])
async def test_without_the_rights_to_hear_of_a_pause_a_worker_says_so_once_and_works(
    tmp_path: Path, rows: list[Row], right: str
) -> None:
    async with least(tmp_path, rows, right) as scene:
        worker = _spawn(scene)
        await worker.ready()
        await scene.publish(20)
        await scene.handled(20)
        await scene.settled()

        subject = f'"{RIGHTS.get(right, right)}"'
        said = [one for one in worker.lines("info") if subject in one["message"]]
        assert [one["logger"] for one in said] == ["omni_worker.bus"]
        assert await worker.stop() == 0


async def test_without_the_right_to_publish_its_events_they_fail_by_name(
    tmp_path: Path, rows: list[Row]
) -> None:
    async with least(tmp_path, rows, "events") as scene:
        worker = _spawn(scene)
        await worker.ready()
        await scene.publish(3)
        await until(lambda: len(_letters(worker)) == 3)
        await scene.settled()

        account = await scene.ends("the right to publish custom.reply missing")
        assert len(account.lettered) == 3
        assert all('"custom.reply"' in one["error"] for one in _letters(worker))
        assert await worker.stop() == 0
