"""What the docs show is what is printed: each output in them beside the real one."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import nats

from omni_worker import App, Event, EventBus, Reject
from omni_worker.nats_server import NatsServer, die_with_parent
from omni_worker.testing import TestWorker

from ..deploy.conftest import free_port
from ..processes.support import PROGRAM, clean_environment
from ..waiting import NotInTime, until
from .blocks import BLOCKS, assert_shown, is_shown, shown

__all__ = ["free_port"]

QUICKSTART = "docs/quickstart.md"
MESSAGE = {
    "externalId": "1",
    "chatId": "c1",
    "from": "ana",
    "content": {"type": "text", "text": "hello"},
}


async def test_the_quick_start_happens_as_written(tmp_path: Path) -> None:
    init, publish, retry, test = (
        one.code
        for one in BLOCKS
        if one.file == QUICKSTART and one.language == "sh" and not one.code.startswith("python3")
    )
    handler, broken = (
        one.code for one in BLOCKS if one.file == QUICKSTART and one.language == "python"
    )
    init, move, dev = init.splitlines()
    sh(init, tmp_path)
    folder = tmp_path / move.removeprefix("cd ")
    app = (folder / "app.py").read_text()
    assert app.endswith(handler)

    # Port 4222 may be another server's: dev reports that, and the page does not show it.
    with started(folder, *dev.split()[1:], "--port", "0") as said:
        await until_shown(shown("docs/quickstart.md", "12:00:00   dashboard on"), said)
        url = said().partition("nats-server of its own on ")[2].split()[0]

        sh(publish, folder, url)
        await until_shown(shown("docs/quickstart.md", "12:00:02 ← custom.reply.queued"), said)
        assert_printed(shown("docs/quickstart.md", "$ omni-worker tail"), folder, url)

        answer = re.compile(r"def answer.*?\n(?=\n\n@)", re.DOTALL)
        save(folder / "app.py", answer.sub(broken, app))
        await until(lambda: "reloaded in" in said())
        sh(publish, folder, url)
        await until_shown(shown("docs/quickstart.md", "12:00:03   changed: app.py"), said)
        await until_shown(shown("docs/dev.md", "12:00:00   dashboard on"), said)
        assert_printed(shown("docs/quickstart.md", "$ omni-worker dead-letters list"), folder, url)

        save(folder / "app.py", app)
        await until(lambda: said().count("reloaded in") == 2)
        sh(retry, folder, url)
        await until_shown(
            shown("docs/quickstart.md", "12:00:21 → message.received"),
            lambda: said().partition("dead letter #1 after")[2],
        )

    assert "4 passed" in sh(test, folder)


async def test_status_is_as_operations_shows_it(nats_server: NatsServer, tmp_path: Path) -> None:
    async with EventBus(nats_server.url, name="greeter") as bus:
        await bus.subscribe("message.received", failing("greeter"), durable="greeter")
        async with three_unanswered(nats_server.url):
            await until_printed(
                shown("docs/operations.md", "$ omni-worker status"), tmp_path, nats_server.url
            )


async def test_letters_are_as_operations_shows_them(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with EventBus(nats_server.url, name="chats") as bus:
        for _ in range(11):  # so that the letter is number 12
            await bus.publish("system.health.degraded", {})
        await bus.subscribe("message.received", failing("greet"), durable="r1", retry_delay=0.01)
        await bus.publish("message.received", MESSAGE)
        await until(lambda: has_letter(bus))

        assert_printed(
            shown("docs/operations.md", "$ omni-worker dead-letters list"),
            tmp_path,
            nats_server.url,
        )


async def test_a_blocked_loop_is_said_as_deploy_shows_it(
    nats_server: NatsServer, tmp_path: Path, free_port: int
) -> None:
    (tmp_path / "myapp.py").write_text(BLOCKING)
    said = shown("docs/deploy.md", "$ omni-worker check").replace("8080", str(free_port))

    with started(
        tmp_path, "run", "myapp:app", "--health-port", str(free_port), url=nats_server.url
    ) as log:
        await until(lambda: "ready" in log())
        async with EventBus(nats_server.url) as bus:
            await bus.publish("custom.image", {})
        await until(lambda: "event loop is blocked" in log())

        assert_printed(said, tmp_path, nats_server.url, exit_code=1)
        (tmp_path / "go-on").touch()


async def test_a_letter_has_what_the_docs_show() -> None:
    [block] = [one for one in BLOCKS if one.file == "docs/retries.md" and one.language == "json"]
    app = App("orders")

    @app.on("custom.order.placed", durable="orders")
    async def place(event: Event[Any]) -> None:
        raise Reject("nothing was ordered")

    async with TestWorker(app) as t:
        await t.publish("custom.order.placed", {"amount": 0})
        await t.settle()
        letter = t.dead_letters[0]

    example = json.loads(block.code)["payload"]
    assert list(letter.payload) == list(example)
    same = ("error", "errorType", "handler", "consumer", "subject", "stream", "originalEventType")
    assert [letter.payload[key] for key in same] == [example[key] for key in same]


# --- support ----------------------------------------------------------------------------------

# The sleep is in line 10, as the docs say.
BLOCKING = """
import time
from pathlib import Path

from omni_worker import App, Event


def resize() -> None:
    while not Path("go-on").exists():
        time.sleep(0.05)


app = App("images")


@app.on("custom.image", durable="r1")
async def shrink(event: Event) -> None:
    resize()
"""


def failing(name: str) -> Callable[[Event[Any]], Awaitable[None]]:
    """A handler of this name, of a chat that is not there."""

    async def handle(event: Event[Any]) -> None:
        raise RuntimeError("no such chat")

    handle.__name__ = handle.__qualname__ = name
    return handle


async def has_letter(bus: EventBus) -> bool:
    """Whether a dead letter is there."""
    return bool([letter async for letter in bus.dead_letters.list()])


@asynccontextmanager
async def three_unanswered(url: str) -> AsyncIterator[None]:
    """Ten events for a consumer nobody reads, three of them delivered and not answered."""
    async with EventBus(url, name="customs") as bus:
        subscription = await bus.subscribe("custom.>", failing("charge"), durable="r1")
        await subscription.unsubscribe()
        for number in range(10):
            await bus.publish("custom.row", {"number": number})
    connection = await nats.connect(url)
    try:
        pull = await connection.jetstream().pull_subscribe_bind("r1", stream="CUSTOM")
        assert len(await pull.fetch(3)) == 3
        yield
    finally:
        await connection.close()


def save(file: Path, text: str) -> None:
    """Save a file as an editor does: whole, under another name first."""
    beside = file.with_name(f"{file.name}~")
    beside.write_text(text)
    beside.replace(file)


async def until_shown(block: str, said: Callable[[], str]) -> None:
    """Wait until a program that goes on has said what a block shows."""
    with suppress(NotInTime):  # what differs is shown instead
        await until(lambda: is_shown(block, said()), 60)
    assert_shown(block, said())


@contextmanager
def started(folder: Path, *words: str, url: str | None = None) -> Iterator[Callable[[], str]]:
    """A command of ours that goes on until it is stopped; gives what it said so far."""
    log = folder / "said.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [PROGRAM, *words], cwd=folder, env=environment(url), stdin=subprocess.DEVNULL,
            stdout=out, stderr=out, start_new_session=True, preexec_fn=die_with_parent(),
        )  # fmt: skip
    try:
        yield log.read_text
    finally:
        process.terminate()
        process.wait(20)


async def until_printed(console: str, folder: Path, url: str) -> None:
    """The same, where the program it is about is in this process and a moment behind."""
    command, _, output = console.partition("\n")
    said = ""

    async def is_printed() -> bool:
        nonlocal said
        said = await asyncio.to_thread(sh, command.removeprefix("$ "), folder, url)
        return is_shown(output, said)

    with suppress(NotInTime):
        await until(is_printed)
    assert_shown(output, said)


def assert_printed(console: str, folder: Path, url: str, exit_code: int = 0) -> None:
    """The command of a `console` block prints what stands under it."""
    command, _, output = console.partition("\n")
    assert_shown(output, sh(command.removeprefix("$ "), folder, url, exit_code))


def sh(command: str, folder: Path, url: str | None = None, exit_code: int = 0) -> str:
    """Type a command; returns what it printed."""
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment(url), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == exit_code, done.stdout
    return done.stdout


def environment(url: str | None) -> dict[str, str]:
    """As in a shell with the virtual environment active."""
    clean = clean_environment()
    path = f"{Path(PROGRAM).parent}:{clean['PATH']}"
    return clean | {"PATH": path} | ({"NATS_URL": url} if url else {})
