"""Support for the process tests: a stage with workers, what they did, and a foreign publisher."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats
from nats.aio.client import Client

from omni_worker.nats_server import LOOPBACK, NatsServer, die_with_parent

from ..waiting import until

PROGRAM = os.path.join(sysconfig.get_path("scripts"), "omni-worker")

# What an app imports: one line per effect, whole and in order from any number of processes.
_EFFECTS = '''
"""One JSON line per effect, appended whole."""

import json, os, time

_file = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def effect(what, **facts):
    facts = {"what": what, "at": time.monotonic(), "worker": os.environ["WORKER"], **facts}
    os.write(_file, json.dumps(facts).encode() + b"\\n")
'''

_HEAD = """
import asyncio, os, signal, sys, threading, time
from effects import effect
from omni_worker import App, Event, Reject, Retry, RetryPolicy
from pydantic import BaseModel

"""


class Stage:
    """A folder with an app, the workers that run it, and the file of their effects."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.workers: list[Worker] = []
        (folder / "effects.py").write_text(_EFFECTS)
        self._effects = folder / "effects.jsonl"
        self._effects.touch()
        self._found: list[dict[str, Any]] = []  # the effects read so far,
        self._taken = 0  # and the bytes they took in the file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self.workers:
            worker.kill()
            # Shown by pytest when the test fails.
            sys.stdout.write(f"--- {worker.name} said:\n{worker.said()[-8_000:]}\n")

    def app(self, source: str, module: str = "play") -> str:
        """Write an app; returns the target `omni-worker run` takes."""
        (self.folder / f"{module}.py").write_text(_HEAD + textwrap.dedent(source))
        return f"{module}:app"

    def spawn(
        self, target: str, *arguments: str, url: str | None = None, **settings: object
    ) -> Worker:
        """Start a worker and do not wait for it; ``arguments`` are more of `run`.

        ``settings`` are OMNI_WORKER_… variables, or NATS_… and PYTHON… where they
        begin so.
        """
        name = f"w{len(self.workers) + 1}"
        environment = {
            **clean_environment(),
            "NATS_URL": url or self.url,
            "EFFECTS": str(self._effects),
            "WORKER": name,
            **{_variable(key): str(value) for key, value in settings.items()},
        }
        worker = Worker(name, self.folder, environment, target, *arguments)
        self.workers.append(worker)
        return worker

    async def run(self, target: str, **settings: Any) -> Worker:
        """Start a worker and wait until every handler runs."""
        worker = self.spawn(target, **settings)
        await worker.ready()
        return worker

    def effects(self, what: str | None = None) -> list[dict[str, Any]]:
        """What handlers did so far, in order; a line still being written does not count."""
        with self._effects.open("rb") as file:
            file.seek(self._taken)
            whole, end, _ = file.read().rpartition(b"\n")
        self._taken += len(whole) + len(end)
        # Each line is parsed once: a wait asks fifty times a second, for thousands of them.
        self._found += [json.loads(line) for line in whole.split(b"\n") if line]
        return [one for one in self._found if what is None or one["what"] == what]

    def ids(self, what: str = "handled") -> list[str]:
        """The events these effects were about."""
        return [one["id"] for one in self.effects(what)]

    async def until_effects(self, count: int, what: str | None = None, timeout: float = 30) -> None:
        """Wait for that many effects."""
        await until(
            lambda: len(self.effects(what)) >= count,
            timeout,
            what=f"{count} effects {what or ''}",
            seen=lambda: dict(Counter(one["what"] for one in self.effects())),
        )


class Worker:
    """One `omni-worker run` process."""

    def __init__(
        self, name: str, folder: Path, environment: dict[str, str], *arguments: str
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "run", *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        self.pid = self._process.pid

    def said(self) -> str:
        """Everything it wrote so far."""
        return self._log.read_text()

    def lines(self, level: str | None = None) -> list[dict[str, Any]]:
        """Its log; each line must be JSON. Of one level only, if asked."""
        found = [json.loads(line) for line in self.said().split("\n")[:-1]]
        return [one for one in found if level is None or one["level"] == level]

    def messages(self, level: str | None = None) -> list[str]:
        """What its log lines say, without their fields."""
        return [one["message"] for one in self.lines(level)]

    async def ready(self, timeout: float = 15.0) -> None:
        """Wait until every handler runs."""
        await self.until_said("ready", timeout)

    async def until_said(self, message: str, timeout: float = 15.0) -> None:
        """Wait for a log line that contains this."""

        def seen() -> bool:
            return any(message in said for said in self.messages())

        await until(
            lambda: seen() or not self.is_running,
            timeout,
            what=f"{self.name} says {message!r}",
            seen=self.said,
        )
        if not seen():
            raise AssertionError(f"{self.name} ended before it said {message!r}:\n{self.said()}")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def signal(self, one: signal.Signals) -> None:
        """Send it a signal, by its own pid."""
        self._process.send_signal(one)

    async def exit(self, timeout: float = 20.0) -> int:
        """Wait for its end; returns the exit code."""
        await until(
            lambda: not self.is_running, timeout, what=f"the end of {self.name}", seen=self.said
        )
        assert self._process.returncode is not None
        return self._process.returncode

    async def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return await self.exit(timeout)

    def kill(self) -> None:
        """End it like a crash, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def takes_signals(self) -> bool:
        """Whether it has taken over SIGTERM, so that one does not simply end it."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return False
        return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1)

    def memory(self) -> int:
        """Its resident set in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def processor_time(self) -> float:
        """The seconds of a processor it has used so far, threads included."""
        _, _, fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _variable(setting: str) -> str:
    prefix = "" if setting.startswith(("nats_", "python")) else "OMNI_WORKER_"
    return prefix + setting.upper()


def clean_environment() -> dict[str, str]:
    """Ours without what somebody exported in the shell the tests run in, NO_COLOR as well."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OMNI_WORKER_", "NATS_")) and key != "NO_COLOR"
    } | {"PYTHONUNBUFFERED": "1"}


# --- a foreign program --------------------------------------------------------------------------


async def plain_client(url: str) -> Client:
    """A nats-py client as any program has one; silent when its server goes away."""
    return await nats.connect(url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.05,
                              error_cb=_ignore)  # fmt: skip


async def _ignore(error: Exception) -> None:
    pass


def foreign_event(
    type: str,
    payload: Any = None,
    *,
    channel: str | None = None,
    instance: str | None = None,
    id: str | None = None,
    **envelope: Any,
) -> tuple[str, bytes]:
    """Subject and body of an event as the TypeScript bus writes it, byte for byte.

    ``envelope`` replaces or adds keys.
    """
    id = id or str(uuid.uuid4())
    metadata = {
        "correlationId": id,
        **({"instanceId": instance} if instance else {}),
        **({"channelType": channel} if channel else {}),
        "traceId": id,
        "source": "omni",
    }
    event = {
        "id": id,
        "type": type,
        "payload": message_payload(id) if payload is None else payload,
        "timestamp": time.time_ns() // 1_000_000,
        "metadata": metadata,
        **envelope,
    }
    subject = f"{type}.{channel}.{instance}" if channel and instance else type
    return subject, to_bytes(event)


def to_bytes(event: Any) -> bytes:
    """JSON as JavaScript writes it: compact, and nothing but quotes and controls escaped."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def message_payload(id: str) -> dict[str, Any]:
    """The payload of a `message.received`."""
    return {
        "externalId": f"ext-{id}",
        "chatId": "chat-1",
        "from": "user-1",
        "content": {"type": "text", "text": 'olá ✅ "quoted" \\ 日本'},
    }


async def publish_foreign(client: Client, count: int, type: str = "message.received") -> list[str]:
    """Store events as a foreign program does, spread over instances; returns their ids."""
    jetstream = client.jetstream(publish_async_max_pending=4_000)
    ids = [f"event-{number:05}" for number in range(count)]
    for number, id in enumerate(ids):
        subject, body = foreign_event(type, channel="whatsapp", instance=f"wa-{number % 50}", id=id)
        await jetstream.publish_async(subject, body)
    await jetstream.publish_async_completed()
    return ids


def repeated(ids: Iterable[str]) -> dict[str, int]:
    """Which of them are there more than once, and how often."""
    return {id: count for id, count in Counter(ids).items() if count > 1}


async def api(client: Client, request: str, body: Any = None) -> dict[str, Any]:
    """Ask JetStream's API; returns the server's own JSON, whatever any client makes of it."""
    data = b"" if body is None else json.dumps(body).encode()
    async with asyncio.timeout(15):
        while True:
            try:
                answer = await client.request(f"$JS.API.{request}", data, timeout=1)
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
                continue  # a server that was killed, and its client has not noticed yet
            said: dict[str, Any] = json.loads(answer.data)
            return said


async def make_stream(client: Client, name: str, *subjects: str, **config: Any) -> dict[str, Any]:
    """A stream of another program; returns its configuration as the server has it."""
    said = await api(
        client, f"STREAM.CREATE.{name}", {"name": name, "subjects": list(subjects), **config}
    )
    standing: dict[str, Any] = said["config"]
    return standing


async def stream_config(client: Client, name: str) -> dict[str, Any]:
    """A stream's configuration as the server has it."""
    config: dict[str, Any] = (await api(client, f"STREAM.INFO.{name}"))["config"]
    return config


async def consumer(client: Client, name: str, stream: str = "MESSAGE") -> dict[str, Any]:
    """The server's word on a consumer."""
    return await api(client, f"CONSUMER.INFO.{stream}.{name}")


async def both(client: Client, name: str, stream: str = "MESSAGE") -> list[str]:
    """The names of a handler's one or two consumers; that of the bare subjects may be missing."""
    answer = await api(client, f"CONSUMER.NAMES.{stream}")
    return [one for one in answer["consumers"] if one in (name, f"{name}-bare")]


async def until_settled(client: Client, name: str, stream: str = "MESSAGE") -> None:
    """Wait until a consumer has nothing pending, neither to deliver nor to be answered."""

    info: dict[str, Any] = {}

    async def settled() -> bool:
        nonlocal info
        found = [await consumer(client, one, stream) for one in await both(client, name, stream)]
        info = {key: sum(one[key] for one in found) for key in ("num_pending", "num_ack_pending")}
        return bool(found) and not any(info.values())

    await until(settled, 30.0, what=f"nothing pending at {name}", seen=lambda: info)


async def stored_at(client: Client, id: str) -> int:
    """When the server stored an event of MESSAGE, in epoch milliseconds."""
    state = (await api(client, "STREAM.INFO.MESSAGE"))["state"]
    for sequence in range(state["first_seq"], state["last_seq"] + 1):
        message = (await api(client, "STREAM.MSG.GET.MESSAGE", {"seq": sequence}))["message"]
        if json.loads(base64.b64decode(message["data"]))["id"] == id:
            # Truncated, not rounded: milliseconds of a nanosecond count.
            whole, _, fraction = message["time"].rstrip("Z").partition(".")
            seconds = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
            return int(seconds) * 1000 + int(f"{fraction:0<3}"[:3])
    raise AssertionError(f"{id} is not stored")


async def stored(client: Client, stream: str) -> list[Any]:
    """Every message of a stream, in order."""
    state = (await api(client, f"STREAM.INFO.{stream}"))["state"]
    found = []
    jetstream = client.jetstream()
    for sequence in range(state["first_seq"], state["last_seq"] + 1):
        found.append(await jetstream.get_msg(stream, sequence))
    return found


async def until_stored(client: Client, stream: str, count: int) -> None:
    """Wait until a stream holds that many messages."""

    async def there() -> bool:
        state = (await api(client, f"STREAM.INFO.{stream}"))["state"]
        return int(state["messages"]) >= count

    await until(there, what=f"{count} messages in {stream}")


async def letters(client: Client) -> list[dict[str, Any]]:
    """Every dead letter's event, in order."""
    events = [json.loads(one.data) for one in await stored(client, "SYSTEM")]
    return [one for one in events if one["type"] == "system.dead_letter"]


async def until_letters(client: Client, count: int, timeout: float = 30.0) -> list[dict[str, Any]]:
    """Wait for that many dead letters; returns them all."""

    state: dict[str, Any] = {}

    async def there() -> bool:
        nonlocal state
        state = (await api(client, "STREAM.INFO.SYSTEM"))["state"]
        return int(state["messages"]) >= count

    await until(there, timeout, what=f"{count} dead letters", seen=lambda: state)
    return await letters(client)


async def raw_publish(server: NatsServer, frames: Iterable[tuple[bytes, bytes, bytes]]) -> None:
    """Publish subjects, header blocks and bodies no client would write."""
    reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    for subject, headers, body in frames:
        if headers:
            sizes = b"%d %d" % (len(headers), len(headers) + len(body))
            writer.write(b"HPUB %b %b\r\n%b%b\r\n" % (subject, sizes, headers, body))
        else:
            writer.write(b"PUB %b %d\r\n%b\r\n" % (subject, len(body), body))
    writer.write(b"PING\r\n")
    said = await reader.readuntil(b"PONG\r\n")
    assert b"-ERR" not in said
    writer.close()
    await writer.wait_closed()
