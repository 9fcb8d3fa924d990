"""However a handler ends, the worker lives on and the event ends as promised."""

from __future__ import annotations

from nats.aio.client import Client

from .support import Stage, foreign_event, until_letters, until_settled

ENDINGS = (
    "ValueError('x')", "SystemExit(3)", "SystemExit()", "KeyboardInterrupt()",
    "asyncio.CancelledError()", "GeneratorExit()", "StopIteration('x')", "StopAsyncIteration()",
    "TimeoutError()", "BaseException('x')", "BaseExceptionGroup('g', [SystemExit()])",
    "ExceptionGroup('g', [ValueError()])", "MemoryError()", "Exception('\\ud800')", "Unprintable()",
)  # fmt: skip

RAISING = """
app = App("router")

class Unprintable(Exception):
    def __str__(self):
        raise ZeroDivisionError

def recurse():
    return recurse()

def end(event):
    effect("run", id=event.id)
    if event.payload["ending"] == "recursion":
        recurse()
    elif event.payload["ending"] == "exit":
        sys.exit(9)
    elif event.payload["ending"] != "return":
        raise eval(event.payload["ending"])
    return object()  # which nobody looks at

@app.on("message.received", durable="coroutines", max_retries=1, retry_delay=0.02)
async def coroutine(event):
    return end(event)

@app.on("message.sent", durable="threads", max_retries=1, retry_delay=0.02)
def function(event):
    return end(event)

@app.on("message.read", durable="tasks", max_retries=1, retry_delay=0.02)
async def cancelled_task(event):
    effect("run", id=event.id)
    ending = event.payload["ending"]
    asyncio.current_task().cancel()
    if ending == "wait":
        await asyncio.sleep(60)
    elif ending == "raise":
        raise ValueError("after it cancelled itself")
"""


async def test_whatever_a_handler_raises_is_a_failure_like_any_other(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(RAISING), breaker=0)  # nothing but failures, on purpose
    endings = [*ENDINGS, "recursion", "exit"]
    bad: list[str] = []

    for type in ("message.received", "message.sent"):
        for ending in endings:
            bad.append(f"{type} {ending}")
            event = foreign_event(type, {"ending": ending}, id=bad[-1])
            await plain.jetstream().publish(*event)
        await plain.jetstream().publish(
            *foreign_event(type, {"ending": "return"}, id=f"{type} good")
        )
    found = await until_letters(plain, len(bad))
    for name in ("coroutines", "threads"):
        await until_settled(plain, name)

    assert sorted(bad) == sorted(one["payload"]["originalEventId"] for one in found)
    assert {one["payload"]["retryCount"] for one in found} == {1}
    assert sorted(bad * 2 + ["message.received good", "message.sent good"]) == sorted(
        stage.ids("run")
    )
    assert await worker.stop() == 0


async def test_a_handler_that_cancels_its_own_task_ends_as_it_ends(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(RAISING), concurrency=1)

    for ending in ("return", "wait", "raise", "return again"):
        event = foreign_event("message.read", {"ending": ending}, id=ending)
        await plain.jetstream().publish(*event)
    found = await until_letters(plain, 2)
    await until_settled(plain, "tasks")

    assert sorted(one["payload"]["originalEventId"] for one in found) == ["raise", "wait"]
    assert sorted(stage.ids("run")) == ["raise", "raise", "return", "return again", "wait", "wait"]
    assert await worker.stop() == 0


HANGING = """
app = App("router")

@app.on("message.received", durable="polite", timeout=0.2, max_retries=1, retry_delay=0.02)
async def polite(event):
    effect("run", id=event.id)
    if event.payload.get("hang"):
        await asyncio.sleep(3600)

@app.on("message.sent", durable="stubborn", timeout=0.2, max_retries=1, retry_delay=0.02)
async def stubborn(event):
    effect("run", id=event.id)
    if event.payload.get("hang"):
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

@app.on("message.read", durable="hardened", timeout=0.2, max_retries=0)
async def hardened(event):
    effect("run", id=event.id)
    while event.payload.get("hang"):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            effect("swallowed")

@app.on("message.failed", durable="threads", timeout=0.2, max_retries=1, retry_delay=0.02)
def thread(event):
    effect("run", id=event.id)
    if event.payload.get("hang"):
        time.sleep(0.6)
        effect("slept", id=event.id)

@app.on("message.delivered", durable="blocked", timeout=0.2)
def blocked(event):
    effect("run", id=event.id)
    if event.payload.get("hang"):
        threading.Event().wait()
"""


async def test_a_handler_that_hangs_is_ended_by_its_timeout_and_retried(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(HANGING))

    await plain.jetstream().publish(*foreign_event("message.received", {"hang": True}, id="hangs"))
    await plain.jetstream().publish(*foreign_event("message.received", {}, id="returns"))
    [letter] = await until_letters(plain, 1)
    await until_settled(plain, "polite")

    assert letter["payload"]["originalEventId"] == "hangs"
    assert letter["payload"]["errorType"] == "omni_worker.dispatch.TimedOut"
    assert letter["payload"]["retryCount"] == 1
    assert sorted(stage.ids("run")) == ["hangs", "hangs", "returns"]
    runs = [one["at"] for one in stage.effects("run") if one["id"] == "hangs"]
    assert 0.2 <= runs[1] - runs[0] < 10
    assert await worker.stop() == 0


async def test_a_handler_that_swallows_its_cancellation_is_told_again_and_counts_when_it_ends(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(HANGING))

    await plain.jetstream().publish(*foreign_event("message.sent", {"hang": True}, id="stubborn"))
    await plain.jetstream().publish(*foreign_event("message.sent", {}, id="returns"))
    await until_settled(plain, "stubborn")

    # It returned in the end: what is done is done, however late.
    assert sorted(stage.ids("run")) == ["returns", "stubborn"]
    assert await worker.stop() == 0


async def test_a_timed_out_thread_is_said_and_keeps_its_event_until_it_ends(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(HANGING), ack_wait=0.3)

    await plain.jetstream().publish(*foreign_event("message.failed", {"hang": True}, id="slow"))
    await plain.jetstream().publish(*foreign_event("message.failed", {}, id="returns"))
    await stage.until_effects(1, "slept")
    await until_settled(plain, "threads")

    assert sorted(stage.ids("run")) == ["returns", "slow"]
    assert any("a thread cannot be stopped" in one for one in worker.messages("warning"))
    assert await worker.stop() == 0


async def test_what_never_ends_does_not_hold_the_process_at_the_end_of_grace(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(HANGING), grace=0.3)
    for type in ("message.delivered", "message.read"):
        await plain.jetstream().publish(*foreign_event(type, {"hang": True}, id=type))
    await stage.until_effects(2, "run")
    await stage.until_effects(1, "swallowed")

    code = await worker.stop(timeout=5)

    assert code == 0
    for name in ("blocked", "hardened"):
        subscription = await plain.jetstream().pull_subscribe_bind(f"{name}-bare", "MESSAGE")
        [handed_back] = await subscription.fetch(10, timeout=2)
        assert handed_back.metadata.num_delivered == 2
    said = "still running at the end of grace; handed back"
    assert len([one for one in worker.messages("warning") if said in one]) == 2
