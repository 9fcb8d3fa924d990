"""What other programs write is shown by a terminal, and never obeyed by it."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omni_worker import EventBus
from omni_worker.listeners.logs import JsonFormatter, PrettyFormatter
from omni_worker.listeners.text import visible, visible_json
from omni_worker.nats_server import NatsServer
from tests.processes.support import PROGRAM, api, clean_environment, plain_client

from .support import on_a_terminal

# Clears the screen, names the window, colours by a C1 code, turns the text around, hides it.
EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2066\u200b\ufeff\x7f\b"
SHOWN = "\\x1b[2J"

APP = """
from omni_worker import App, Event, Reject

app = App("shop")


@app.on("message.received", durable="r1", start_from="first")
async def route(event: Event) -> None:
    await app.publish("custom.seen", {"text": event.payload["text"]})
    raise Reject(f"no such chat: {event.payload['text']}")
"""


@pytest.fixture(scope="module")
def hostile_server() -> Iterator[NatsServer]:
    """Ids, subjects, sources, errors, headers, names of streams and consumers: all of them evil."""
    with NatsServer() as server:
        asyncio.run(_fill(server.url))
        yield server


async def _fill(url: str) -> None:
    async with EventBus(url, name="t"):
        pass  # makes the streams
    client = await plain_client(url)
    stream = client.jetstream()
    event = {
        "id": f"h-1{EVIL}", "type": "message.received", "payload": {"text": EVIL},
        "metadata": {"source": EVIL, "correlationId": "h-2", "channelType": EVIL},
    }  # fmt: skip
    await stream.publish("message.received.what\x1bsapp.wa\x9b1", json.dumps(event).encode())
    event |= {"id": "h-2"}
    body = json.dumps(event).encode()
    await stream.publish("message.received.whatsapp.wa-1", body, headers={"X-Evil": f"a{EVIL}"})
    await stream.publish("message.received.whatsapp.wa-1", b"\xff\x1b[2J no event")
    lone = b'{"id":"h-3\\ud800","type":"custom.x","payload":{},"metadata":{"correlationId":"h-2"}}'
    await stream.publish("custom.x", lone)
    letter = {
        "originalEventId": "h-2", "originalEventType": f"message.received{EVIL}",
        "error": f"err{EVIL}\nsecond", "errorType": EVIL, "traceback": f"Traceback\n  {EVIL}\n",
        "retryCount": 3, "subject": f"message.received{EVIL}", "stream": f"MESSAGE{EVIL}",
        "sequence": 1, "handler": f"hand{EVIL}", "body": f"{{}}{EVIL}", "retryOf": EVIL,
        "headers": {f"X{EVIL}": [EVIL]},
    }  # fmt: skip
    for source, payload in (
        (f"app{EVIL}", letter),
        (f"prog{EVIL}", {"originalEventId": "h-2", "error": EVIL}),
        ("shop", {**letter, "handler": "h\r\nNats-Msg-Id: x"}),
        ("a.*", {**letter, "handler": "r1"}),
    ):
        envelope = {
            "id": f"l{EVIL}", "type": "system.dead_letter", "payload": payload,
            "metadata": {"source": source, "correlationId": "h-2", "traceId": EVIL},
        }  # fmt: skip
        await stream.publish("system.dead_letter", json.dumps(envelope).encode())
    config: dict[str, Any] = {"name": "EVIL\x1b[2J", "subjects": ["evil.>"], "storage": "file"}
    assert "error" not in await api(client, "STREAM.CREATE.EVIL\x1b[2J", config)
    name = "evil\x1b[2J\x9b"
    config = {
        "name": name, "durable_name": name, "ack_policy": "explicit", "deliver_policy": "all",
        "max_deliver": 3, "metadata": {"omni-worker.app": EVIL},
    }  # fmt: skip
    body = {"stream_name": "MESSAGE", "config": config}
    assert "error" not in await api(client, f"CONSUMER.CREATE.MESSAGE.{name}", body)
    await client.close()


ENDS_WITH_1 = dict.fromkeys(
    (
        "dead-letters show 2 --body",  # nobody kept its bytes
        "dead-letters retry 1 2 3 4", "dead-letters retry 1 2 3 4 --json",
        # The handler rejects them.
        "replay shop:app --handler r1 --since 1h --dry-run",
        "replay shop:app --handler r1 --since 1h --dry-run --json --payloads",
    ),
    1,
)  # fmt: skip


def dangerous(text: str) -> list[str]:
    """The characters a terminal would obey, or that hide or turn what stands around them."""
    own = text.replace("\r\x1b[K", "")  # our progress
    return sorted({one for one in own if unicodedata.category(one) in ("Cc", "Cf", "Cs")} - {"\n"})


@pytest.mark.parametrize(
    "command",
    [
        "status", "status --json", "status shop:app",
        "tail --since 1h", "tail --since 1h --payloads", "tail --since 1h --json --payloads",
        "trace h-2", "trace h-2 --json",
        "doctor", "doctor --json", "plan shop:app", "plan shop:app --json",
        "dead-letters list", "dead-letters list --json --limit 0",
        "dead-letters show 1", "dead-letters show 1 --json --body", "dead-letters show 1 --body",
        "dead-letters show 2", "dead-letters show 2 --body",
        "dead-letters retry 1 2 3 4", "dead-letters retry 1 2 3 4 --json",
        "replay shop:app --handler r1 --since 1h --dry-run",
        "replay shop:app --handler r1 --since 1h --dry-run --json --payloads",
    ],
)  # fmt: skip
def test_nothing_that_others_wrote_is_obeyed_by_the_terminal(
    hostile_server: NatsServer, tmp_path: Path, command: str
) -> None:
    (tmp_path / "shop.py").write_text(APP)

    code, shown = on_a_terminal(hostile_server.url, tmp_path, *command.split())

    assert dangerous(shown) == []
    assert "Traceback (most recent call last)" not in shown
    assert code == ENDS_WITH_1.get(command, 0)  # an evil name blinds nobody
    # `plan` and an app's `status` show nothing that others wrote, and are not blinded by it.
    is_ours = command.startswith(("plan", "status shop"))
    assert is_ours or SHOWN in shown or "\\u001b[2J" in shown


@pytest.mark.parametrize(
    ("number", "why"),
    [
        ("1", "names no app that could take it back"),
        ("2", "another program"),
        ("3", "names no handler and subject that a header can hold"),
        ("4", "names no app that could take it back"),
    ],
)
def test_a_letter_that_would_break_the_protocol_is_not_sent_back(
    hostile_server: NatsServer, tmp_path: Path, number: str, why: str
) -> None:
    code, shown = on_a_terminal(hostile_server.url, tmp_path, "dead-letters", "retry", number)

    assert code == 1
    assert why in " ".join(shown.split())


def test_a_file_gets_the_event_byte_by_byte(hostile_server: NatsServer, tmp_path: Path) -> None:
    body = subprocess.run(
        [PROGRAM, "dead-letters", "show", "1", "--body"], capture_output=True, check=True,
        env=clean_environment() | {"NATS_URL": hostile_server.url}, timeout=30,
    )  # fmt: skip

    assert body.stdout.decode() == f"{{}}{EVIL}"


def test_what_is_typed_comes_back_harmless_as_well(
    hostile_server: NatsServer, tmp_path: Path
) -> None:
    for arguments in (("trace", EVIL), ("dead-letters", "show", EVIL), ("status", f"a{EVIL}:app"),
                      ("tail", f"custom.{EVIL}"), ("tail", "--since", EVIL)):  # fmt: skip
        code, shown = on_a_terminal(hostile_server.url, tmp_path, *arguments)

        assert dangerous(shown) == []
        assert code in (1, 2)


@pytest.mark.parametrize("formatter", [JsonFormatter(), PrettyFormatter()])
def test_a_log_line_obeys_nobody_either(formatter: logging.Formatter) -> None:
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        record = logging.getLogger("omni_worker.worker").makeRecord(
            "omni_worker.worker", logging.ERROR, "", 0, "dead letter", (),
            (type(error), error, error.__traceback__),
            extra={"event": f"e{EVIL}", "error": EVIL, "subject": f"a.b.{EVIL}", "x": "\ud800"},
        )  # fmt: skip

    line = formatter.format(record)

    assert dangerous(line) == []
    assert line.encode()  # a lone surrogate cannot be written


def test_letters_signs_and_line_breaks_of_people_stay_as_they_are() -> None:
    text = "olá, 漢字 😀 👨‍👩‍👧\n\tzweite Zeile\xa0…"

    assert visible(text) == text
    assert json.loads(visible_json({"a": text + EVIL})) == {"a": text + EVIL}
