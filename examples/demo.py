"""The demo: a real server, a worker as a real process, some traffic, and what became of it.

Run it with `make demo`. It ends by itself, with exit code 0 if the account is as it should be.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import nats

from omni_worker import EventBus, OmniWorkerError
from omni_worker.nats_server import NatsServer, die_with_parent

COMMAND = str(Path(sys.executable).with_name("omni-worker"))
APP = "examples.router:app"
WIDTH = 80
PATIENCE = 30.0  # seconds until something that should happen counts as missing

# What a run must end with, by consumer: handled, retried, dead letters.
EXPECTED = {
    "whatsapp-router": (7, 0, 1),
    "discord-router": (2, 4, 0),
    "replies": (7, 0, 0),
    "failures": (0, 0, 1),
    "letters": (2, 0, 0),
}
STORED = {"MESSAGE": 11, "CUSTOM": 7, "SYSTEM": 2}


async def main() -> int:
    """The whole story, in the order it is told."""
    title("omni-worker: WhatsApp and Discord messages through one small worker")
    with NatsServer() as server:
        async with EventBus(server.url, name="demo") as bus:
            step("A server, and a worker beside it")
            version = ".".join(map(str, bus.transport.server_version))
            tell("server", f"nats-server {version} on {server.url}, for this demo only")
            tell("start", f"omni-worker run {APP}")
            account = Account()

            async with worker(server.url, account):
                step("Three WhatsApp numbers and two Discord bots get messages")
                await send_traffic(bus, server.url)
                await settled(bus, messages=9, account=account)

            step("The worker is stopped; events wait for the next one")
            await send(bus, "whatsapp", "wa-001", "m-9")
            await send(bus, "whatsapp", "wa-003", "m-10")
            tell("start", f"omni-worker run {APP}")
            async with worker(server.url, account):
                await settled(bus, messages=11, account=account)

            return await give_account(bus, account)


async def send_traffic(bus: EventBus, url: str) -> None:
    """Nine events: seven as they should be, one of them foreign, and two nobody can handle."""
    await send(bus, "whatsapp", "wa-001", "m-1")
    await send(bus, "whatsapp", "wa-002", "m-2")
    await send(bus, "discord", "dc-001", "m-3")
    await send(bus, "whatsapp", "wa-003", "m-4")
    await send(bus, "discord", "dc-002", "m-5")
    await send(bus, "whatsapp", "wa-001", "m-6", id="the-same-id")
    await send(bus, "whatsapp", "wa-001", "m-6", id="the-same-id")

    foreign = await nats.connect(url)
    try:
        subject = "message.received.whatsapp.wa-002"
        event = {"id": "f-1", "type": "message.received", "payload": received("m-7")}
        await foreign.request(subject, json.dumps(event).encode())
        tell("sent", f"{subject}: m-7, by another program")
        await foreign.request("message.received.whatsapp.wa-003", b"\xff this is no event")
        tell("sent", "message.received.whatsapp.wa-003: bytes that are no event")
    finally:
        await foreign.close()

    await bus.publish(
        "message.failed",
        {"chatId": "chat-8", "error": "blocked", "retryable": False},
        channel="whatsapp",
        instance="wa-002",
    )
    tell("sent", "message.failed.whatsapp.wa-002")


async def send(
    bus: EventBus, channel: str, instance: str, message: str, *, id: str | None = None
) -> None:
    """Publish one message and say what the server made of it."""
    published = await bus.publish(
        "message.received", received(message), channel=channel, instance=instance, id=id
    )
    again = " again, same id: kept once" if published.duplicate else ""
    tell("sent", f"message.received.{channel}.{instance}: {message}{again}")


def received(message: str) -> dict[str, Any]:
    """The payload of a `message.received`."""
    return {
        "externalId": message,
        "chatId": message.replace("m-", "chat-"),
        "from": "ana",
        "content": {"type": "text", "text": "Hello!"},
    }


# --- the worker ---------------------------------------------------------------------------------


@dataclass
class Account:
    """What the workers said that the server does not know."""

    introduced: bool = False
    retried: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@asynccontextmanager
async def worker(url: str, account: Account) -> AsyncIterator[None]:
    """`omni-worker run`, from ready to stopped, everything it says passed on."""
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "run", APP, "--log-format", "json"),
        env=os.environ | {"NATS_URL": url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        # A Ctrl-C in the terminal is for the demo, which then stops its worker.
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
    ready = asyncio.Event()
    reading = asyncio.gather(pass_on(process, ready), read_log(process, ready, account))
    try:
        await in_time(first(ready.wait(), process.wait()), "the worker is ready")
        if not ready.is_set():
            raise NotSo("The worker ended before it was ready.")
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        code = await process.wait()
        await reading
        tell("stop", f"SIGTERM; the worker finished what it held, exit code {code}")
        if code != 0:
            account.failures.append(f"a worker ended with exit code {code}, not 0")


async def pass_on(process: Process, ready: asyncio.Event) -> None:
    """Lines that the handlers print; one begins before the last is ready, and is shown after it."""
    assert process.stdout is not None
    async for line in process.stdout:
        await first(ready.wait(), process.wait())
        tell("worker", line.decode().rstrip())


async def read_log(process: Process, ready: asyncio.Event, account: Account) -> None:
    """What the worker itself says: one JSON object a line."""
    assert process.stderr is not None
    async for line in process.stderr:
        try:
            entry = json.loads(line)
        except ValueError:  # not of ours: a traceback, a warning of the interpreter
            tell("worker", line.decode().rstrip())
            continue
        match entry.get("signal") or entry["message"]:
            case "ready" | "Ready":
                tell("worker", f"ready, with {entry['handlers']} handlers")
                if not account.introduced:
                    for one in entry["consumers"]:
                        tell("", f"{one['handler']:16} {one['subjects'][0]}")
                account.introduced = True
                ready.set()
            case "Retried":
                account.retried[entry["handler"]] += 1
                channel = entry["subject"].removeprefix("message.received.").replace(".", " ", 1)
                cause = entry["error"].partition(": ")[2]
                after = f"attempt {entry['attempt'] + 1} in {entry['after']:.1f} s"
                tell("retry", f"{channel}: {cause}; {after}")
            case "DeadLettered":
                tell("letter", f"{entry['handler']} gives up on {entry['subject']}")
            case _ if entry["level"] in ("warning", "error"):
                tell("worker", entry["message"])


# --- the account --------------------------------------------------------------------------------


async def settled(bus: EventBus, *, messages: int, account: Account) -> None:
    """Wait until every event is stored that shall be, and none of them waits any more."""

    async def quiet() -> None:
        while not await is_quiet(bus, messages):  # noqa: ASYNC110 - the server does not call back
            await asyncio.sleep(0.05)

    await in_time(quiet(), "every event is settled")


async def is_quiet(bus: EventBus, messages: int) -> bool:
    """Whether the streams are full enough and every consumer is at their end."""
    operators = bus.transport.operators
    found = await stored(bus, ["MESSAGE", "SYSTEM"])
    if found != {"MESSAGE": messages, "SYSTEM": STORED["SYSTEM"]}:
        return False
    for stream in ("MESSAGE", "CUSTOM", "SYSTEM"):  # causes before their effects
        for consumer in await operators.consumers(stream):
            if consumer.num_pending or consumer.num_ack_pending:
                return False
    return True


async def give_account(bus: EventBus, account: Account) -> int:
    """Say what became of every event; returns the exit code."""
    step("What became of them")
    letters = await read_letters(bus)
    found: dict[str, tuple[int, int, int]] = {}
    tell("", f"{'consumer':16} {'handled':>8} {'retried':>8} {'dead letters':>13}", "bold")
    for stream in STORED:
        # A handler may have two consumers, the second one for events without an instance.
        deliveries: Counter[str] = Counter()
        for consumer in sorted(
            await bus.transport.operators.consumers(stream), key=attrgetter("created")
        ):
            deliveries[consumer.name.removesuffix("-bare")] += consumer.deliveries
        for name, runs in deliveries.items():
            retried = account.retried[name]
            dead = sum(letter["handler"] == name for letter in letters)
            found[name] = (runs - retried - dead, retried, dead)
            tell("", f"{name:16} {found[name][0]:8} {retried:8} {dead:13}")

    print()
    tell("", "Dead letters keep the original, and say why", "bold")
    for letter in letters:
        tell("", f"{letter['subject']}, for {letter['handler']}")
        tell("", f"  {letter['error']}")

    print()
    counts = await stored(bus, STORED)
    tell("", "Streams", "bold")
    tell("", ", ".join(f"{stream} {count} events" for stream, count in counts.items()))

    if found != EXPECTED:
        account.failures.append(f"handled, retried, dead letters: expected {EXPECTED}")
    if counts != STORED:
        account.failures.append(f"stored: expected {STORED}")
    print()
    for failure in account.failures:
        print(paint(f"Not as it should be: {failure}", "red"))
    if not account.failures:
        handled = sum(numbers[0] for numbers in found.values())
        total = sum(counts.values())
        lost = total - handled - len(letters)
        text = f"{total} events: {handled} handled, {len(letters)} dead letters, {lost} lost."
        print(paint(text, "green"))
        print("The worker is examples/router.py; README.md says how to write yours.")
    return 1 if account.failures else 0


async def read_letters(bus: EventBus) -> list[dict[str, Any]]:
    """The payload of every dead letter."""
    letters = []
    for sequence in range(1, (await stored(bus, ["SYSTEM"]))["SYSTEM"] + 1):
        message = await bus.transport.operators.message("SYSTEM", sequence)
        assert message is not None
        letters.append(json.loads(message.body)["payload"])
    return letters


async def stored(bus: EventBus, streams: Iterable[str]) -> dict[str, int]:
    """How many events each stream holds."""
    found = {}
    for stream in streams:
        info = await bus.transport.operators.stream_info(stream)
        found[stream] = info.state.messages if info is not None else 0
    return found


async def first(*awaitables: Coroutine[Any, Any, object]) -> None:
    """Wait for whichever comes first."""
    tasks = [asyncio.ensure_future(one) for one in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


class NotSo(Exception):
    """Something that should happen did not."""


async def in_time(awaitable: Awaitable[object], what: str) -> None:
    """Wait for it, but not for ever. Raises NotSo."""
    try:
        await asyncio.wait_for(awaitable, PATIENCE)
    except TimeoutError:
        raise NotSo(f"After {PATIENCE:g} s still not so: {what}.") from None


# --- the page -----------------------------------------------------------------------------------

COLOURS = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2"}
TAGS = {"sent": "blue", "retry": "yellow", "letter": "red", "worker": "green"}
colourful = sys.stdout.isatty() and "NO_COLOR" not in os.environ
steps = iter(range(1, 10))


def title(text: str) -> None:
    """The first line."""
    print(paint(text, "bold"))


def step(text: str) -> None:
    """A new part of the story."""
    print(f"\n{paint(f'{next(steps)}. {text}', 'bold')}", flush=True)


def tell(tag: str, text: str, colour: str | None = None) -> None:
    """One line: who says it, and what."""
    room = WIDTH - 10
    if len(text) > room:
        text = text[: room - 1] + "…"
    text = paint(text, colour) if colour else text
    print(f"  {paint(f'{tag:7}', TAGS.get(tag, 'dim'))} {text}".rstrip(), flush=True)


def paint(text: str, colour: str) -> str:
    """In colour, on a terminal."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if colourful else text


def run(story: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run it so that Ctrl-C and SIGTERM stop what was started; returns the exit code."""

    async def stoppable() -> int:
        task = asyncio.create_task(story())
        for one in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(one, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            print("\nStopped; nothing is left running.")
            return 130
        except (NotSo, OmniWorkerError) as error:
            print(paint(f"\n{error}", "red"))
            return 1

    return asyncio.run(stoppable())


if __name__ == "__main__":
    sys.exit(run(main))
