"""Typing: a user's file checks under strict mypy, and a wrong option in it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

GOOD = """
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Unpack

from omni_worker import (
    App, Context, Draft, Event, EventBus, HandlerOptions, Invalid, MessageReceivedEvent,
    MessageReceivedHandler, MessageReceivedPayload, Published, ReceivedContent, Reject, Retry,
    RetryPolicy, Settings, StartFrom, Valid, build_subject,
)
from pydantic import BaseModel


class Received(BaseModel):
    chatId: str


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[dict[str, int]]:
    yield {"a": 1}


app = App("router", lifespan=lifespan, settings=Settings(grace=1.0))


@app.on("message.received", channel="whatsapp", queue="routers", durable="r1", schema=Received)
async def route(event: Event[Received]) -> None:
    published: Published = await app.publish(
        "custom.reply.queued", {"chat": event.payload.chatId},
        channel=event.channel, instance=event.instance,
    )
    reveal_type(event.payload.chatId)
    reveal_type(published.duplicate)


@app.on("message.*", channel=["a", "b"], start_from=datetime.now(UTC), timeout=5)
@app.on(subject="custom.>", retry=RetryPolicy(retries=1), reject_on=(ValueError,))
async def both(event: MessageReceivedEvent, ctx: Context) -> None:
    if ctx.attempt > 3:
        raise Reject("no")
    await ctx.publish("custom.x", event.payload)
    reveal_type(event.payload.content.media_url)
    raise Retry(after=30)


@app.on("custom.plain", reject_on=ValueError)
def plain(event: Event[Received], ctx: Context) -> None:
    ctx.wait(ctx.publish("custom.y"))





async def received(event: Event[MessageReceivedPayload]) -> None:
    sent = MessageReceivedPayload(
        external_id="1", chat_id="c", from_="ana", content=ReceivedContent(type="text", text="hi")
    )
    by_key = MessageReceivedPayload.model_validate({"from": "ana"})
    reveal_type(sent.from_)
    await app.publish("message.received", by_key)


def start(replayed: bool) -> StartFrom:
    return "first" if replayed else "new"


def declared(**options: Unpack[HandlerOptions]) -> None:
    app.on("message.received", **options)(received)


declared(durable="r2", start_from=start(True), breaker=3)


handler: MessageReceivedHandler = received


async def main() -> None:
    async with EventBus("nats://localhost:4222", name="x") as bus:
        await bus.subscribe("message.received", received, durable="d", concurrency=3)
        await bus.publish_many([Draft(type="custom.x", payload={"a": 1})])
        match bus.registry.validate("custom.x", {}):
            case Valid(value=value):
                print(value)
            case Invalid(error=error):
                reveal_type(error)
        later = await bus.publish("custom.x", after=60, key="k", channel="a", instance="b")
        reveal_type(later)
        reveal_type(await bus.cancel(later))
    route_again = route
    reveal_type(route_again)
    reveal_type(build_subject("message.received", "whatsapp", "wa-001"))
"""
EXTENSION = """
from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from omni_worker import (
    Answer, App, CallNext, Context, Done, Draft, Event, EventBus, Extension, Failed, Gate, GivenUp,
    Go, HandBack, Handler, Kept, Middleware, Outcome, Published, PublishMiddleware, PublishNext,
    Rejected, Request,
    Routes, Run, Signal, Skip, signals,
)


class Open(Gate):
    async def through(self, run: Run, go: Go) -> Outcome:
        return await go(run)


class Traced(Extension):
    kinds = (signals.RunFinished, signals.PublishConfirmed)

    def __init__(self, name: str) -> None:
        self.name = name

    def signal(self, fact: Signal) -> None:
        if isinstance(fact, signals.RunFinished):
            self.see(fact.outcome)

    def see(self, outcome: Outcome) -> str:
        match outcome:
            case Done():
                return "done"
            case Skip() | HandBack() | Kept() | GivenUp():
                return "not run"
            case Failed(error=error) | Rejected(error=error):
                return str(error)

    def gates(self, handler: Handler) -> Sequence[Gate]:
        return [Open()]

    def stamp(self, draft: Draft, headers: dict[str, str]) -> None:
        headers["x-name"] = draft.id or self.name

    async def around(self, ctx: Context, event: Event[Any], call_next: CallNext) -> None:
        await call_next(ctx, event)

    def routes(self) -> Routes:
        async def answer(request: Request) -> Answer:
            return Answer(body=request.path.encode())

        return {"/traced": answer}

    @asynccontextmanager
    async def running(self, bus: EventBus) -> AsyncIterator[None]:
        yield


app = App("router")


async def published(event: Event[Any], call_next: PublishNext) -> Published:
    return await call_next(event)


async def handled(ctx: Context, event: Event[Any], call_next: CallNext) -> None:
    await call_next(ctx, event)


one: PublishMiddleware = app.publish_middleware(published)
two: Middleware = app.middleware(handled)
reveal_type(app.use(Traced("x")).name)
app.run()
"""
INJECTED = """
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from omni_worker import App, Context, Depends, Event
from omni_worker.testing import TestWorker


@dataclass
class State:
    url: str


class Session:
    pass


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[State]:
    yield State("x")


app = App("router", lifespan=lifespan)


async def session(ctx: Context[State]) -> AsyncIterator[Session]:
    reveal_type(ctx.state.url)
    ctx.state.ulr
    yield Session()


@app.on("custom.x")
async def handle(event: Event[Any], ctx: Context, db: Annotated[Session, Depends(session)]) -> None:
    reveal_type(db)
    ctx.state.anything
    ctx.local["tenant"] = 5


worker = TestWorker(app, overrides={session: Session()}, state=State("y"))
"""
BAD = {
    "unknown option": '@app.on("message.received", durabel="r1")',
    "number as text": '@app.on("message.received", concurrency="10")',
    "unknown start": '@app.on("message.received", start_from="now")',
    "schema no model": '@app.on("message.received", schema=dict)',
    "type no text": "@app.on(5)",
    "exception no class": '@app.on("message.received", reject_on=ValueError())',
}
HEAD = """
from omni_worker import App, Event
from typing import Any

app = App("router")

"""
BODY = "\nasync def handle_{}(event: Event[Any]) -> None: ...\n\n"
MORE_BAD = {
    "app name": "App(5)",
    "payload field": "async def f(e: Event[int]) -> str: return e.payload",
    "publish channel": 'async def g() -> None: await app.publish("custom.x", channel=5)',
}


@pytest.fixture(scope="module")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """Check one file as a user does; returns what mypy says, a line each."""
    folder = tmp_path_factory.mktemp("typing")

    def check(source: str) -> list[str]:
        file = folder / "user.py"
        file.write_text(source)
        ended = subprocess.run(
            [
                sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=",
                "--cache-dir", str(folder / "cache"), str(file),
            ],
            cwd=folder, env={"MYPYPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        return [line for line in ended.stdout.splitlines() if "user.py" in line]

    return check


def test_a_users_file_checks_and_every_type_is_known(mypy: Callable[[str], list[str]]) -> None:
    said = mypy(GOOD)

    assert [line for line in said if "error:" in line] == []
    revealed = [re.findall(r'is "(.*)"', line)[0] for line in said if "Revealed" in line]
    assert revealed == [
        "str", "bool", "str | None", "str", "str",
        "omni_worker.schedules.messages.Scheduled", "bool",
        "def (event: omni_worker.events.Event[user.Received]) -> typing.Coroutine[Any, Any, None]",
        "str",
    ]  # fmt: skip


def test_every_wrong_option_is_an_error_of_its_own_line(mypy: Callable[[str], list[str]]) -> None:
    handlers = [line + BODY.format(number) for number, line in enumerate(BAD.values())]
    source = HEAD + "".join(handlers) + "\n".join(MORE_BAD.values())
    lines = source.splitlines()

    said = [line for line in mypy(source) if "error:" in line]

    wrong = {lines[int(line.split(":")[1]) - 1] for line in said}
    assert wrong == {*BAD.values(), *MORE_BAD.values()}


def test_whatever_an_extension_is_annotated_with_is_public(
    mypy: Callable[[str], list[str]],
) -> None:
    lines = mypy(EXTENSION)

    assert [line for line in lines if "error" in line] == []
    assert [line for line in lines if "Revealed type" in line and "str" in line]


def test_a_misspelt_attribute_of_the_state_is_an_error(mypy: Callable[[str], list[str]]) -> None:
    lines = mypy(INJECTED)

    assert [re.sub(".*error: ", "", line) for line in lines if "error" in line] == [
        '"State" has no attribute "ulr"  [attr-defined]'
    ]
    revealed = [re.findall(r'is "(.*)"', line)[0] for line in lines if "Revealed" in line]
    assert revealed == ["str", "user.Session"]
