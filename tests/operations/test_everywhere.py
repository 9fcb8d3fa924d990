"""Every operators' command on servers that are empty, closed, strange or not there at all."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omni_worker import Event, EventBus
from omni_worker.nats_server import LOOPBACK, NatsServer
from tests.ports import free_port
from tests.processes.support import api, plain_client, until_letters
from tests.transports.servers import oldest

from .support import Said, operate

APP = """
from omni_worker import App, Event

app = App("shop")


@app.on("custom.order", durable="r1", start_from="first", max_retries=0)
async def order(event: Event) -> None: ...
"""

COMMANDS = [
    "status",
    "status shop:app",
    "tail --since 1h",
    "trace e-1",
    "doctor",
    "plan shop:app",
    "plan shop:app --check",
    "plan shop:app --apply",
    "plan shop:app --recreate r1 --yes",
    "dead-letters list",
    "dead-letters show 1",
    "dead-letters retry 1",
    "dead-letters discard 1",
    "schemas check shop:app",
    "replay shop:app --handler r1 --since 1h --dry-run",
    "replay shop:app --handler r1 --since 1h --yes",
]
# On a server without a stream; the others end with 0.
ON_NOTHING = {
    "tail --since 1h": 1,  # no stream holds events
    "trace e-1": 1,
    "plan shop:app --check": 3,
    "plan shop:app --recreate r1 --yes": 1,
    "dead-letters show 1": 2,
    "dead-letters retry 1": 2,
    "dead-letters discard 1": 2,
}
CHANGING = ("plan shop:app --apply", "replay shop:app --handler r1 --since 1h --yes")

ON_THE_OLDEST = [
    "status", "tail --since 1h", "trace e-1", "doctor", "plan shop:app --apply",
    "dead-letters list", "dead-letters retry 1",
    "replay shop:app --handler r1 --since 1h --yes",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("shop")
    (found / "shop.py").write_text(APP)
    return found


@pytest.fixture(scope="module")
def empty_server() -> Iterator[NatsServer]:
    """One on which nothing was ever made; who makes something takes another."""
    with NatsServer() as server:
        yield server


def said_something_useful(said: Said) -> bool:
    """A sentence a person can act on, and no traceback."""
    return "Traceback" not in said.err and len((said.out + said.err).strip()) > 20


@pytest.mark.parametrize("command", [one for one in COMMANDS if one not in CHANGING])
async def test_an_empty_system_is_answered_and_stays_empty(
    empty_server: NatsServer, folder: Path, command: str
) -> None:
    said = operate(empty_server.url, *command.split(), folder=folder)
    client = await plain_client(empty_server.url)
    names = (await api(client, "STREAM.NAMES"))["streams"]
    await client.close()

    assert said.code == ON_NOTHING.get(command, 0)
    assert said_something_useful(said)
    assert not names


@pytest.mark.parametrize("command", COMMANDS)
def test_without_jetstream_that_is_said(
    server_without_jetstream: NatsServer, folder: Path, command: str
) -> None:
    said = operate(server_without_jetstream.url, *command.split(), folder=folder)

    assert said.code == 1
    assert "JetStream" in said.line + said.out
    assert command == "doctor" or "omni-worker doctor looks closer" in said.line
    assert said_something_useful(said)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_right_that_is_missing_is_named_once_with_where_they_are_listed(
    restricted_server: NatsServer, folder: Path, command: str
) -> None:
    said = operate(restricted_server.url, *command.split(), folder=folder)

    whole = said.line + " ".join(said.out.split())
    assert said.code == 1
    assert "Permissions Violation for Publish" in whole
    assert "docs/operations.md" in whole
    assert command == "doctor" or whole.count("Permissions Violation") == 1
    assert said_something_useful(said)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_server_that_is_not_there_is_told_with_what_to_do(folder: Path, command: str) -> None:
    url = f"nats://someone:geheim@{LOOPBACK}:{free_port()}"

    said = operate(url, *command.split(), folder=folder, OMNI_WORKER_RECONNECT_DELAY="0.05")

    assert said.code == 1
    assert "after 3 tries: connection refused: nothing listens there" in said.line
    assert "NATS_URL says where the server is" in said.line
    assert "geheim" not in said.err + said.out


@pytest.mark.parametrize("command", ["status", "publish custom.order --data {}"])
def test_nobody_waits_long_for_it(folder: Path, command: str) -> None:
    url = f"nats://{LOOPBACK}:{free_port()}"

    began = time.monotonic()
    said = operate(url, *command.split(), folder=folder)
    took = time.monotonic() - began

    assert said.code == 1
    assert "after 3 tries" in said.line
    assert took < 15  # a worker would go on for minutes


@pytest.mark.parametrize(
    ("retries", "tries"), [("0", "1 try"), ("1", "2 tries"), ("none", "3 tries")]
)
def test_who_asks_for_fewer_tries_gets_fewer(folder: Path, retries: str, tries: str) -> None:
    url = f"nats://{LOOPBACK}:{free_port()}"
    given = {"OMNI_WORKER_RECONNECT_MAX_RETRIES": retries, "OMNI_WORKER_RECONNECT_DELAY": "0.01"}

    said = operate(url, "status", folder=folder, **given)

    assert f"after {tries}: connection refused" in said.line


def test_a_login_that_is_refused_names_the_settings_and_no_secret(
    tmp_path: Path, folder: Path
) -> None:
    config = tmp_path / "login.conf"
    config.write_text("jetstream: enabled\nauthorization { user: a, password: b }\n")
    with NatsServer(arguments=["-c", str(config)]) as server:
        url = server.url.replace("nats://", "nats://someone:geheim@")

        said = operate(url, "status", folder=folder)
        token = operate(server.url, "status", folder=folder, NATS_TOKEN="geheim")

    for one in (said, token):
        assert one.code == 1
        assert "see the URL, NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CREDS" in one.line
        assert "NATS_URL says" not in one.line  # it is found: the login is what is wrong
        assert "geheim" not in one.err + one.out


@pytest.mark.parametrize("command", [*COMMANDS, "show shop:app"])
async def test_json_is_json_and_nothing_else(folder: Path, command: str) -> None:
    with NatsServer() as server:
        await _with_a_letter(server.url)

        said = operate(server.url, *command.split(), "--json", folder=folder)

    assert said.code in (0, 3)
    assert said.err == ""
    assert _objects(said.out)


async def test_published_as_json(nats_server: NatsServer, folder: Path) -> None:
    said = operate(
        nats_server.url, "publish", "custom.order", "--data", "{}", "--id", "e-1", "--json",
        folder=folder,
    )  # fmt: skip

    assert json.loads(said.out) == {
        "id": "e-1", "subject": "custom.order", "stream": "CUSTOM", "sequence": 1,
        "duplicate": False,
    }  # fmt: skip


async def _with_a_letter(url: str) -> None:
    """An event e-1, and the letter #1 about it."""
    async with EventBus(url, name="shop") as bus:

        async def fail(event: Event[Any]) -> None:
            raise ValueError("no such article")

        client = await plain_client(url)
        await bus.subscribe("custom.order", fail, durable="r1", start_from="first", max_retries=0)
        await bus.publish("custom.order", {}, id="e-1")
        await until_letters(client, 1)
        await client.close()


def _objects(text: str) -> list[Any]:
    """One JSON text, or one a line. Raises ValueError for anything else."""
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


async def test_an_app_s_own_server_is_asked_whatever_the_environment_says(
    nats_server: NatsServer, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "from omni_worker import App, Event, Settings\n"
        f"app = App('own', settings=Settings(urls='{nats_server.url}'))\n\n"
        "@app.on('custom.order', durable='r1')\n"
        "async def order(event: Event): ...\n"
    )
    nowhere = f"nats://{LOOPBACK}:{free_port()}"

    said = await asyncio.to_thread(operate, nowhere, "plan", "own:app", folder=tmp_path)

    assert said.code == 0
    assert "Do it:" in said.out


@pytest.mark.parametrize(
    "command", ["status nosuch:app", "plan nosuch:app", "replay nosuch:app --handler x --since 1h"]
)
def test_a_module_that_is_not_there_is_told_before_anybody_is_asked(
    tmp_path: Path, command: str
) -> None:
    said = operate(f"nats://{LOOPBACK}:{free_port()}", *command.split(), folder=tmp_path)

    assert said.code == 2
    assert "no such module: 'nosuch'" in said.line
    assert "cannot connect" not in said.line


async def test_the_oldest_server_we_promise_is_served_as_well(folder: Path) -> None:
    with oldest() as server:
        await _with_a_letter(server.url)

        said = {one: operate(server.url, *one.split(), folder=folder) for one in ON_THE_OLDEST}

    bad = {one: found.code for one, found in said.items() if found.code not in (0, 3)}
    assert bad == {}
    assert "loses events" in said["doctor"].out
    assert said["status"].err == ""  # the doctor says it, not every command
