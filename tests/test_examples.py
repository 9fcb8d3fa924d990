"""The examples and the README: each runs as written, and prints exactly what it says it prints.

The single blocks of code are tests/docs' business.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from examples.echo_bot import app as echo_bot
from examples.echo_bot import omni
from omni_worker import EventBus
from omni_worker.nats_server import NatsServer, die_with_parent
from omni_worker.omni import FakeOmni
from omni_worker.testing import TestWorker

from .docs.blocks import BLOCKS, normalised, shown
from .omni.support import CUT, KEY, answer, serving
from .processes.support import PROGRAM, clean_environment
from .waiting import until

ROOT = Path(__file__).parents[1]


# --- the examples -----------------------------------------------------------------------------


def test_the_custom_events_example_prints_what_it_says(nats_server: NatsServer) -> None:
    said = python("-m", "examples.custom_events", url=nats_server.url)

    assert said == promised_output("custom_events.py")


async def test_the_router_example_prints_what_it_says(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        running("examples.router:app", ROOT, nats_server.url, tmp_path) as worker,
        EventBus(nats_server.url) as bus,
    ):
        # One after the other: the handlers run side by side.
        await send(bus, "message.received", message("m-1", "chat-1"), "whatsapp", "wa-001")
        await worker.printed(2)
        await send(bus, "message.received", message("m-2", "chat-2"), "discord", "dc-001")
        await worker.printed(3)
        await send(bus, "message.failed", failed("chat-3"), "whatsapp", "wa-001")
        await worker.printed(4)

    assert worker.output() == promised_output("router.py")


async def test_the_echo_bot_answers_over_http_and_prints_what_it_says(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        serving() as api,
        running(
            "examples.echo_bot:app", ROOT, nats_server.url, tmp_path,
            more={"OMNI_URL": api.url, "OMNI_API_KEY": KEY},
        ) as worker,
        EventBus(nats_server.url) as bus,
    ):  # fmt: skip
        api.answers = [answer(503), CUT]  # it is just starting
        await send(bus, "message.received", message("m-1", "chat-1"), "whatsapp-cloud", "wa-001")
        picture = message("m-2", "chat-1") | {"content": {"type": "image", "text": "a cat"}}
        await send(bus, "message.received", picture, "whatsapp-cloud", "wa-001")
        await send(bus, "message.received", message("m-3", "chat-1"), "whatsapp-cloud", "wa-001")
        await worker.printed(2)

    assert worker.output() == promised_output("echo_bot.py")
    calls = [(one.path.removeprefix("/api/v2/messages/"), one.body) for one in api.asked]
    assert [path for path, _ in calls] == ["read"] * 3 + ["send/presence", "send"] + [
        "read", "send/presence", "send",
    ]  # fmt: skip
    assert [(body["instanceId"], body["text"]) for path, body in calls if path == "send"] == [
        ("wa-001", "Hello!")
    ] * 2
    assert {one.headers["x-api-key"] for one in api.asked} == {KEY}
    assert KEY not in (tmp_path / "log").read_text()


async def test_the_echo_bot_quotes_each_text() -> None:
    with FakeOmni(omni) as fake:
        async with TestWorker(echo_bot) as t:
            for number, kind in enumerate(("text", "sticker", "text"), 1):
                said = message(f"m-{number}", "chat-1") | {"content": {"type": kind, "text": "Hi"}}
                await t.publish(
                    "message.received", said, channel="whatsapp-baileys", instance="wa-001"
                )
            await t.settle()

    replies = [one.body for one in fake.sent if one.path == "/messages/send"]
    assert replies == [
        {"instanceId": "wa-001", "to": "chat-1", "text": "Hi", "replyTo": id}
        for id in ("m-1", "m-3")
    ]


def test_the_metrics_listener_example_prints_what_it_says() -> None:
    said = python("-m", "examples.metrics_listener")

    assert said == promised_output("metrics_listener.py")


def test_the_demo_ends_well_and_fits_a_terminal(tmp_path: Path) -> None:
    said = python("-m", "examples.demo")

    assert "20 events: 18 handled, 2 dead letters, 0 lost." in said
    assert [line for line in said.splitlines() if len(line) > 80 or line.endswith("…")] == []
    assert "\x1b" not in said
    lines = said.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("  start ")]
    after = [next(one for one in lines[start:] if one.startswith("  worker ")) for start in starts]
    assert after == ["  worker  ready, with 5 handlers"] * 2


# --- the README -------------------------------------------------------------------------------


async def test_the_readme_worker_prints_what_the_readme_shows(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    readme = [block for block in BLOCKS if block.file == "README.md"]
    worker_code, *_ = [block.code for block in readme if block.language == "python"]
    (tmp_path / "myapp.py").write_text(worker_code)
    [publish] = [one.code for one in readme if one.code.startswith("omni-worker publish")]

    async with running(
        "myapp:app", tmp_path, nats_server.url, tmp_path, "--log-format", "pretty", merged=True
    ) as worker:
        shell(publish, nats_server.url)
        await worker.until("wrote 'hello'")

    promised = shown("README.md", "12:00:00   stream MESSAGE created")
    assert normalised(worker.output()).startswith(normalised(promised))


# --- support ----------------------------------------------------------------------------------


def promised_output(file: str) -> str:
    """The comment at an example's end, after the line that begins with `# Output`."""
    _, _, tail = (ROOT / "examples" / file).read_text().rpartition("\n# Output")
    lines = tail.splitlines()[2:]  # the heading's rest, and an empty comment line
    return "".join(line.removeprefix("#").removeprefix(" ") + "\n" for line in lines)


def python(*arguments: str, url: str | None = None) -> str:
    """Run a program to its end; returns what it printed. It must not fail."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(url),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def shell(command: str, url: str) -> None:
    """Run a command of the README as a shell does."""
    subprocess.run(command, shell=True, check=True, env=environment(url), timeout=30)


def environment(url: str | None) -> Mapping[str, str]:
    """As in a shell with the virtual environment active."""
    clean = clean_environment()
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    return clean | {"PATH": path} | ({"NATS_URL": url} if url else {})


class Running:
    """A worker, and what its handlers printed."""

    def __init__(self, process: subprocess.Popen[bytes], file: Path) -> None:
        self.process = process
        self._file = file

    def output(self) -> str:
        """What was printed so far."""
        return self._file.read_text()

    async def printed(self, lines: int) -> None:
        """Wait for that many lines."""
        await until(lambda: self.output().count("\n") >= lines)

    async def until(self, text: str) -> None:
        """Wait for this text and the end of its line."""
        await until(lambda: "\n" in self.output().partition(text)[2])


@asynccontextmanager
async def running(
    target: str,
    folder: Path,
    url: str,
    logs: Path,
    *options: str,
    merged: bool = False,
    more: Mapping[str, str] | None = None,
) -> AsyncIterator[Running]:
    """`omni-worker run`, ready; with `merged` its log counts as printed too, `more` is added
    to its environment."""
    output, log = logs / "output", logs / "log"
    with output.open("wb") as out, log.open("wb") as err:
        process = subprocess.Popen(
            [PROGRAM, "run", target, *options],
            cwd=folder,
            env={**environment(url), **(more or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out if merged else err,
            preexec_fn=die_with_parent(),
        )
    said = output if merged else log
    try:
        await until(lambda: "ready" in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        yield Running(process, output)
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, 20) == 0


async def send(
    bus: EventBus, type: str, payload: Mapping[str, Any], channel: str, instance: str
) -> None:
    """Publish one event."""
    await bus.publish(type, payload, channel=channel, instance=instance)


def message(id: str, chat: str) -> dict[str, Any]:
    """A `message.received`."""
    content = {"type": "text", "text": "Hello!"}
    return {"externalId": id, "chatId": chat, "from": "ana", "content": content}


def failed(chat: str) -> dict[str, Any]:
    """A `message.failed`."""
    return {"chatId": chat, "error": "blocked", "retryable": False}
