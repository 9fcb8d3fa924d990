"""Logs: every line of a handler names its event, none shows a secret or a payload."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker import App, Context, Event, Reject, Settings
from omni_worker.handlers import declare
from omni_worker.listeners.logs import (
    LOG,
    LOG_RUNS,
    JsonFormatter,
    PrettyFormatter,
    add_event,
    write,
)
from omni_worker.listeners.sentences import ALWAYS
from omni_worker.listeners.text import human_time
from omni_worker.signals import (
    ConsumerLost,
    ConsumerRecreated,
    ConsumerReset,
    DeadLetterDelayed,
    DeadLetterDropped,
    DeadLettered,
    HandlerSignal,
    RecreationFailed,
    Retried,
    RunFinished,
    Signal,
    StreamReplaced,
)
from omni_worker.transports.base import Delivery
from omni_worker.transports.memory import MemoryTransport

SECRET = "a very private word"
theirs = logging.getLogger("somebody.elses")
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What is logged, as JSON, from level debug on."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(add_event)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    """The lines so far."""
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


async def play(app: App, *ids: str, until: asyncio.Event) -> None:
    """Publish events to the app on a transport in memory, and wait for it to say it has enough."""
    async with app.running(
        transport=MemoryTransport(), settings=Settings(max_retries=1, retry_delay=0)
    ) as bus:
        for id in ids:
            await bus.publish(
                "custom.note",
                {"text": SECRET},
                id=id,
                channel="whatsapp",
                instance="wa-001",
                correlation_id="the-correlation",
                trace_id="the-trace",
            )
        await asyncio.wait_for(until.wait(), 5)


NAMED = {
    "event": "one",
    "type": "custom.note",
    "handler": "notes",
    "attempt": 1,
    "correlation": "the-correlation",
    "trace": "the-trace",
}


async def test_a_line_of_any_logger_inside_a_handler_names_its_event(lines: Lines) -> None:
    app, done = App("logs"), asyncio.Event()

    @app.on("custom.note", durable="notes")
    async def note(event: Event[Any], ctx: Any) -> None:
        theirs.info("mine", extra={"chats": 3})
        await asyncio.to_thread(theirs.info, "from a thread")
        ctx.log.info("from the context")
        done.set()

    await play(app, "one", until=done)

    said = {line["message"]: line for line in lines()}
    messages = ("mine", "from a thread", "from the context")
    for message in messages:
        assert NAMED.items() <= said[message].items()
    assert said["mine"]["chats"] == 3
    outside = [line for line in lines() if line["message"] not in messages]
    assert outside
    assert not any("event" in line for line in outside)


async def test_a_line_of_a_plain_def_handler_names_its_event(lines: Lines) -> None:
    app, done = App("logs"), asyncio.Event()
    loop = asyncio.get_running_loop()

    @app.on("custom.note", durable="notes")
    def note(event: Event[Any]) -> None:
        theirs.warning("in a thread")
        loop.call_soon_threadsafe(done.set)

    await play(app, "one", until=done)

    said = next(line for line in lines() if line["message"] == "in a thread")
    assert NAMED.items() <= said.items()


async def test_a_retry_and_a_dead_letter_name_their_event(lines: Lines) -> None:
    app, done = App("logs"), asyncio.Event()

    @app.on("custom.note", durable="notes")
    async def note(event: Event[Any]) -> None:
        raise ValueError("the phone is off")

    @app.on("system.dead_letter", durable="letters")
    async def letter(event: Event[Any]) -> None:
        done.set()

    await play(app, "one", until=done)

    said = {line["signal"]: line for line in lines() if "signal" in line}
    retry, letter_line = said["Retried"], said["DeadLettered"]
    named = {key: value for key, value in NAMED.items() if key != "attempt"}
    assert named.items() <= retry.items()
    assert named.items() <= letter_line.items()
    assert (retry["attempt"], letter_line["attempts"]) == (1, 2)


async def test_where_runs_are_logged_each_has_one_line_with_its_duration(lines: Lines) -> None:
    app, done = App("logs"), asyncio.Event()
    app.listeners.append(LOG_RUNS)

    @app.on("custom.note", durable="notes")
    async def note(event: Event[Any]) -> None:
        if event.id == "two":
            done.set()
            raise Reject("no")
        await asyncio.sleep(0.01)

    await play(app, "one", "two", until=done)

    said = [line for line in lines() if line["logger"] == "omni_worker.events"]
    found = {line["event"]: (line["message"].split()[2], line["seconds"] >= 0.009) for line in said}
    assert found == {"one": ("handled", True), "two": ("failed", False)}


async def test_a_listener_that_fails_changes_nothing(lines: Lines) -> None:
    app, done = App("logs"), asyncio.Event()

    @app.listen
    def broken(signal: Signal) -> None:
        raise RuntimeError("broken")

    app.listen(write, RunFinished)

    @app.on("custom.note", durable="notes")
    async def note(event: Event[Any]) -> None:
        done.set()

    await play(app, "one", until=done)

    assert [line for line in lines() if "a listener failed on RunFinished" in line["message"]]
    assert [line["event"] for line in lines() if "] handled in " in line["message"]] == ["one"]


async def test_no_event_makes_a_line_of_any_length(stream: io.StringIO) -> None:
    app, done = App("logs"), asyncio.Event()
    app.listeners.append(LOG_RUNS)
    long = "x" * 100_000

    @app.on("custom.note", durable="notes")
    async def note(event: Event[Any], ctx: Context) -> None:
        ctx.log.info("begun")
        theirs.info("as well")
        raise ValueError(event.payload)

    @app.on("system.dead_letter", durable="letters")
    async def letter(event: Event[Any]) -> None:
        done.set()

    async with app.running(
        transport=MemoryTransport(), settings=Settings(max_retries=1, retry_delay=0)
    ) as bus:
        await bus.publish("custom.note", {"text": long}, correlation_id=long, trace_id=long)
        await asyncio.wait_for(done.wait(), 5)

    said = stream.getvalue().splitlines()
    logged = [json.loads(one) for one in said]
    assert {"begun", "as well"} <= {one["message"] for one in logged}
    assert {"Retried", "DeadLettered"} <= {one.get("signal") for one in logged}
    assert max(map(len, said)) < 20_000


async def test_no_payload_gets_into_the_log(stream: io.StringIO) -> None:
    app, done = App("logs"), asyncio.Event()
    app.listeners.append(LOG_RUNS)

    class Number(BaseModel):
        text: int

    @app.on("custom.note", durable="unreadable", schema=Number)
    async def unreadable(event: Event[Any]) -> None: ...

    @app.on("custom.note", durable="notes")
    async def note(event: Event[Any]) -> None:
        try:
            Number.model_validate(event.payload)
        except ValueError:
            theirs.exception("it does not fit")
        if event.id == "two":
            done.set()
        Number.model_validate(event.payload)

    await play(app, "one", "two", until=done)

    assert "it does not fit" in stream.getvalue()
    assert "int_parsing" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def record(message: str, level: int = logging.INFO, /, **fields: Any) -> logging.LogRecord:
    """A log record of the framework's."""
    one = logging.LogRecord("omni_worker.worker", level, "", 0, message, None, None)
    vars(one).update(fields)
    return one


@pytest.mark.parametrize("formatter", [JsonFormatter(), PrettyFormatter()])
def test_user_and_password_of_a_url_are_hidden(formatter: logging.Formatter) -> None:
    said = formatter.format(record("no answer from nats://ana:hunter2@example.org:4222"))

    assert "hunter2" not in said
    assert "nats://***@example.org:4222" in said


@pytest.mark.parametrize("formatter", [JsonFormatter(), PrettyFormatter()])
def test_no_field_shows_a_secret(formatter: logging.Formatter) -> None:
    said = formatter.format(
        record("login", token="hunter2", urls=["nats://a:hunter2@b"], of={"db_password": "hunter2"})
    )

    assert "hunter2" not in said
    assert "nats://***@b" in said


def test_a_line_is_json_whatever_its_fields_are() -> None:
    class Leaving:
        def __str__(self) -> str:
            raise SystemExit(3)

    itself: list[Any] = []
    itself.append(itself)
    fields = {
        "nan": float("nan"), "list": [float("inf")], "huge": 10**5_000, "itself": itself,
        "keys": {(1, 2): 3, float("nan"): 4}, "leaving": Leaving(), "good": [1, 2.5, None, True],
    }  # fmt: skip

    def refused(constant: str) -> None:
        raise AssertionError(constant)

    said = json.loads(JsonFormatter().format(record("x", **fields)), parse_constant=refused)

    assert (said["nan"], said["list"], said["good"]) == ("nan", ["inf"], [1, 2.5, None, True])
    assert said["keys"] == {"(1, 2)": 3, "nan": 4}
    assert said["leaving"] == "its text cannot be read: SystemExit"


@pytest.mark.parametrize("formatter", [JsonFormatter(), PrettyFormatter()])
@pytest.mark.parametrize("piece", [", input_value=", "a://b:", "password='", " ", "\n", "\x1b"])
def test_a_hostile_text_keeps_no_formatter_for_long(
    formatter: logging.Formatter, piece: str
) -> None:
    text = piece * (300_000 // len(piece))
    try:
        raise ValueError(text)
    except ValueError as error:
        line = record(text, logging.ERROR, error=text)
        line.exc_info = (type(error), error, error.__traceback__)

    began = time.process_time()
    said = formatter.format(line)

    assert time.process_time() - began < 1.0  # it took 12 s and more
    assert len(said) < 500_000


def test_a_large_field_makes_no_large_line() -> None:
    wide: list[Any] = ["x"]
    for _ in range(9):
        wide = [wide] * 100

    said = JsonFormatter().format(
        record("x", wide=wide, many={str(n): "x" * 99 for n in range(9_999)})
    )

    assert len(said) < 200_000


def test_a_field_of_somebodys_does_not_replace_what_every_line_has() -> None:
    said = json.loads(JsonFormatter().format(record("hello", level="mine", time=1, other=2)))

    assert (said["message"], said["level"], said["other"]) == ("hello", "info", 2)


def retried() -> Retried:
    """A retry of an event of a phone's."""

    async def route(event: Event[Any]) -> None: ...

    body = {"id": "3f1d2c4b-0000-4000-8000-000000000000", "type": "message.received", "payload": {}}
    delivery = Delivery(
        SimpleNamespace(stream="MESSAGE", consumer="router"),  # type: ignore[arg-type]
        "message.received.whatsapp.wa-001",
        json.dumps(body).encode(),
        None,
        b"",
        sequence=12,
        stored_at=0,
        count=2,
    )
    return Retried(
        handler=declare(route, app="app", types=["message.received"], options={}),
        delivery=delivery,
        attempt=2,
        of=4,
        after=2.04,
        error=ValueError("the phone is off and nobody knows when it will be on again, if at all"),
    )


def test_a_retry_reads_well_in_80_columns(caplog: pytest.LogCaptureFixture) -> None:
    write(retried())

    said = PrettyFormatter().format(caplog.records[0]).splitlines()
    assert said[0][8:] == " ↻ [route 3f1d2c4b] attempt 2 of 4 failed, retry in 2.0 s: ValueError:"
    assert [line.strip() for line in said[1:]] == [
        "the phone is off and nobody knows when it will be on again, if at all",
        "message.received whatsapp/wa-001 · route · MESSAGE #12",
    ]
    assert [line for line in said if len(line) > 80] == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.0002, "<1 ms"),
        (0.0031, "3 ms"),
        (0.42, "420 ms"),
        (2.04, "2.0 s"),
        (42.0, "42 s"),
        (240.0, "4 min"),
        (7200.0, "2 h"),
    ],
)
def test_times_are_human(seconds: float, text: str) -> None:
    assert human_time(seconds) == text


FACTS: dict[str, Any] = {
    "app": "shop",
    "after": 2.0,
    "again": 30.0,
    "attempt": 1,
    "attempts": 2,
    "failure": None,
    "cause": ValueError("the cause"),
    "changes": "max_deliver 1, wanted -1",
    "by_sequence": 7,
    "by_stream": "SYSTEM",
    "concurrency": 20,
    "consequence": "the event comes again",
    "consumer": "r1",
    "consumers": (),
    "declared": 10,
    "error_type": "ValueError",
    "event_id": "one",
    "events": 3,
    "failures": 3,
    "handlers": 1,
    "id": "one",
    "is_over": False,
    "letter": "a-letter",
    "name": "r9",
    "number": 7,
    "of": 4,
    "outcome": None,
    "pid": 1,
    "reason": "the reason",
    "server": "nats://127.0.0.1:4222",
    "recreate": True,
    "recreated": False,
    "seconds": 0.1,
    "sequence": 12,
    "stream": "MESSAGE",
    "subject": "custom.reminder",
    "timeout": 3.0,
    "adapts": False,
    "option": "limit=5",
}


@pytest.mark.parametrize("kind", ALWAYS, ids=lambda kind: kind.__name__)
def test_every_kind_that_is_always_logged_has_a_line_with_fields_of_its_own(
    kind: type[Signal], stream: io.StringIO, lines: Lines
) -> None:
    one = retried()
    facts = {"handler": one.handler, "delivery": one.delivery, **FACTS}
    facts |= {"deliveries": (one.delivery,) * 2, "then": "halves", "error": ValueError("one more")}
    if kind in (DeadLettered, DeadLetterDelayed, DeadLetterDropped):
        facts["error"] = "the error"
    signal = kind(**{field.name: facts[field.name] for field in dataclasses.fields(kind)})

    LOG.hear(signal)

    [line] = lines()
    assert line["logger"] == "omni_worker.worker"
    assert line["message"]
    assert line["signal"] == kind.__name__
    if isinstance(signal, HandlerSignal) and not isinstance(
        signal,
        ConsumerLost | ConsumerRecreated | ConsumerReset | RecreationFailed | StreamReplaced,
    ):
        assert line["handler"] == one.handler.name


def test_a_logged_signal_is_no_attribute_of_its_record(caplog: pytest.LogCaptureFixture) -> None:
    write(retried())

    [record] = caplog.records
    assert not [one for one in vars(record).values() if type(one) is Retried]
    assert record.getMessage().startswith("[route 3f1d2c4b] attempt 2 of 4 failed")
    assert type(copy.deepcopy(record).msg) is str
