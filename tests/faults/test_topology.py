"""What operations do underneath: pause, purge, delete, alter. The log says it, work goes on."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta

from omni_worker.notes.settled import block_key, read_block
from omni_worker.topology import NOTES_BUCKET, origin_of

from ..processes.support import api, consumer, make_stream, stream_config
from ..waiting import until
from .scene import Scene, load, stored_ids


async def test_a_paused_consumer_is_waited_for(scene: Scene) -> None:
    worker = await scene.run(load())
    await scene.publish(100)
    await scene.handled(100)
    until_then = datetime.now(UTC) + timedelta(minutes=5)
    await api(scene.plain, "CONSUMER.PAUSE.MESSAGE.r1", {"pause_until": until_then.isoformat()})
    await scene.publish(100)

    # The fault itself: longer than it takes to call a silent pull lost (11 s).
    await asyncio.sleep(13)
    waiting = await scene.account()
    assert len(waiting.waiting) == 100
    assert "connection lost" not in worker.said()
    await api(scene.plain, "CONSUMER.PAUSE.MESSAGE.r1", {})
    await scene.handled(200, timeout=10)
    await scene.settled()

    account = await scene.ends("consumer paused 13 s with 100 waiting, resumed")
    assert account.run_twice == 0
    assert worker.messages("error") == []
    assert await worker.stop() == 0


async def test_a_purged_stream_goes_on_with_what_comes(scene: Scene) -> None:
    worker = await scene.run(load(work=0.02, concurrency=4, prefetch=10))
    await scene.publish(500)
    await scene.handled(50)

    scene.destroyed |= set((await stored_ids(scene.plain, "MESSAGE")).values())
    await api(scene.plain, "STREAM.PURGE.MESSAGE")
    await scene.publish(100)
    after = {f"event-{number:06}" for number in range(500, 600)}
    await until(lambda: after <= set(scene.stage.ids("handled")), timeout=20)
    await scene.settled()

    account = await scene.ends("stream purged with hundreds waiting")
    assert account.run_twice == 0
    assert worker.messages("error") == []
    assert await worker.stop() == 0


async def is_there(scene: Scene, durable: str = "r1") -> bool:
    consumers = await api(scene.plain, "CONSUMER.NAMES.MESSAGE")
    return durable in consumers["consumers"]


async def test_a_deleted_consumer_of_two_workers(scene: Scene) -> None:
    workers = [await scene.run(load(work=0.01)), await scene.run()]
    feed = asyncio.create_task(scene.publish(2_000, every=0.05))
    for deletions in range(3):
        await scene.handled(300 * (deletions + 1))
        # The events handled may be from before the last deletion: it has to be there again.
        await until(lambda: is_there(scene), timeout=20)
        await scene.plain.jetstream().delete_consumer("MESSAGE", "r1")
    await feed
    await scene.handled(2_000)
    await scene.settled()

    await scene.ends(
        "consumer deleted 3 × under two workers",
        "doubles: what the other worker had settled since the floor was read",
    )
    said = [said for worker in workers for said in worker.messages("error")]
    assert sum("making it again" in one for one in said) >= 3
    for worker in workers:
        assert await worker.stop() == 0


ONE_WAITS = """
app = App("router")

@app.on("message.received", durable="r1", start_from="first", concurrency=8)
async def route(event, ctx):
    effect("begun", id=event.id, attempt=ctx.attempt)
    if event.id == "event-000000":
        raise Retry(after=50)
    effect("handled", id=event.id)
"""


async def test_a_consumer_deleted_while_a_retry_waits_runs_nothing_twice_in_two_workers(
    scene: Scene,
) -> None:
    """The notes have what both settled above the floor, however long the retry keeps it down."""
    workers = [await scene.run(ONE_WAITS), await scene.run()]
    await scene.publish(3_000)
    await scene.handled(2_999)
    assert len({one["worker"] for one in scene.stage.effects("handled")}) == 2
    await until(lambda: noted(scene, 2_999), timeout=30)

    await scene.plain.jetstream().delete_consumer("MESSAGE", "r1")
    for worker in workers:
        await worker.until_said("consumer r1 is recreated from sequence 1")
    await until(lambda: only_one_waits(scene), timeout=30)

    account = await scene.ends(
        "consumer deleted under two workers, one retry waits since before",
        "the one that waits runs again; the rest is in the notes",
    )
    assert account.waiting == {"event-000000"}
    assert {id for id, count in account.begun.items() if count > 1} <= account.waiting
    for worker in workers:
        assert await worker.stop() == 0


async def noted(scene: Scene, count: int) -> bool:
    """Tell whether so many settled events of `r1` are in the notes of its workers."""
    operators = scene.bus.transport.operators
    stream = await operators.stream_info("MESSAGE")
    assert stream is not None
    info = await operators.consumer_info("MESSAGE", "r1")
    assert info is not None
    key = block_key("r1", "MESSAGE", f"{stream.created}.r1.{origin_of(info)}", 0)
    said = await operators.last_message(f"KV_{NOTES_BUCKET}", f"$KV.{NOTES_BUCKET}.{key}")
    block = None if said is None else read_block(said.body)
    return block is not None and block.bits.bit_count() >= count


async def only_one_waits(scene: Scene) -> bool:
    """Tell whether the consumer has delivered everything again, and one event is unanswered."""
    info = await consumer(scene.plain, "r1")
    return (info.get("num_pending"), info.get("num_ack_pending")) == (0, 1)


async def test_a_deleted_stream_of_two_workers(scene: Scene) -> None:
    workers = [await scene.run(load(work=0.01, prefetch=10)), await scene.run()]
    await scene.publish(500)
    await scene.handled(100)

    scene.destroyed |= set((await stored_ids(scene.plain, "MESSAGE")).values())
    await scene.plain.jetstream().delete_stream("MESSAGE")
    # Who comes second finds the stream and the consumer made again already.
    await until(
        lambda: any("stream MESSAGE is new" in worker.said() for worker in workers), timeout=20
    )
    await scene.publish(300)
    after = {f"event-{number:06}" for number in range(500, 800)}
    await until(lambda: after <= set(scene.stage.ids("handled")), timeout=20)
    await scene.settled()

    account = await scene.ends("stream deleted under two workers", "its events went with it")
    assert {id for id, count in account.begun.items() if count > 1} & after == set()
    for worker in workers:
        assert await worker.stop() == 0


async def test_a_stream_made_anew_by_operations_is_used_as_they_made_it(scene: Scene) -> None:
    worker = await scene.run(load(work=0.01, prefetch=10))
    await scene.publish(400, every=1.0)  # so long that its ack floor is read meanwhile
    await scene.handled(400)
    await scene.settled()

    worker.signal(signal.SIGSTOP)  # or it would be faster
    scene.destroyed |= set((await stored_ids(scene.plain, "MESSAGE")).values())
    await scene.plain.jetstream().delete_stream("MESSAGE")
    theirs = await make_stream(
        scene.plain, "MESSAGE", "message.>", "chat.>", max_age=86_400 * 10**9, storage="memory"
    )
    worker.signal(signal.SIGCONT)
    await scene.publish(200)  # of sequences below that floor
    await scene.handled(600)
    await scene.settled()

    account = await scene.ends("stream made anew by operations, with another configuration")
    assert account.run_twice == 0
    assert theirs == await stream_config(scene.plain, "MESSAGE")
    [said] = [one for one in worker.messages() if one.startswith("stream MESSAGE exists")]
    for difference in ("chat.>", "1 d where we keep 30 d", "memory"):
        assert difference in said
    assert await worker.stop() == 0


async def test_a_consumer_that_cannot_be_made_again_is_said_and_burns_nothing(
    scene: Scene,
) -> None:
    """Its stream came back without the subjects we need: tried again, and said once."""
    worker = await scene.run(load(work=0.01, prefetch=10))
    await scene.publish(100)
    await scene.handled(100)
    await scene.settled()

    worker.signal(signal.SIGSTOP)
    scene.destroyed |= set((await stored_ids(scene.plain, "MESSAGE")).values())
    await scene.plain.jetstream().delete_stream("MESSAGE")
    config = await make_stream(scene.plain, "MESSAGE", "message.sent", "message.sent.>")
    worker.signal(signal.SIGCONT)
    await worker.until_said("cannot be recreated yet", timeout=15)
    before = worker.processor_time()
    await asyncio.sleep(5)  # the fault itself: nothing to read, nothing to make

    assert worker.processor_time() - before < 0.5
    # Once for each of the handler's two consumers, also if the server lost the notice for one.
    said = [one for one in worker.messages() if "cannot be recreated yet" in one]
    assert len(said) == 2
    assert all("message.received" in one for one in said)
    assert sum("-bare" in one for one in said) == 1
    config["subjects"] = ["message.>"]
    assert "error" not in await api(scene.plain, "STREAM.UPDATE.MESSAGE", config)
    await scene.publish(100)
    await scene.handled(200)
    await scene.settled()
    account = await scene.ends("stream back without our subjects for 5 s, then with them")
    assert account.run_twice == 0
    assert await worker.stop() == 0


async def test_streams_altered_by_operations(scene: Scene) -> None:
    worker = await scene.run(load(work=0.01))
    feed = asyncio.create_task(scene.publish(1_500, every=0.05))
    await scene.handled(200)
    config = (await api(scene.plain, "STREAM.INFO.MESSAGE"))["config"]
    alterations = (
        {"max_age": 3_600 * 10**9},
        {"subjects": ["message.>", "letters.>"]},
        {"discard": "new", "max_msgs": 10_000},
        {"description": "ours now", "duplicate_window": 60 * 10**9},
    )
    for altered in alterations:
        config |= altered
        assert "error" not in await api(scene.plain, "STREAM.UPDATE.MESSAGE", config)
        await scene.handled(len(set(scene.stage.ids())) + 100)
    await feed
    await scene.handled(1_500)
    await scene.settled()
    second = await scene.run()

    account = await scene.ends("stream altered by operations 4 ×: age, subjects, limits, window")
    assert account.run_twice == 0
    standing = (await api(scene.plain, "STREAM.INFO.MESSAGE"))["config"]
    assert {key: standing[key] for key in config} == config
    assert await worker.stop() == await second.stop() == 0


async def test_max_ack_pending_below_our_concurrency_slows_and_loses_nothing(
    scene: Scene,
) -> None:
    worker = await scene.run(load(work=0.02, concurrency=20))
    config = (await consumer(scene.plain, "r1"))["config"]
    said = await api(
        scene.plain, "CONSUMER.CREATE.MESSAGE.r1",
        {"stream_name": "MESSAGE", "config": config | {"max_ack_pending": 3}, "action": "update"},
    )  # fmt: skip
    assert "error" not in said
    await scene.publish(200)
    most = 0

    async def all_handled() -> bool:
        nonlocal most
        begun, ended = len(scene.stage.ids("begun")), len(scene.stage.ids("handled"))
        most = max(most, begun - ended)
        return ended >= 200

    await until(all_handled, 30)
    await scene.settled()

    account = await scene.ends("max_ack_pending 3, concurrency 20", f"{most} ran at once at most")
    assert account.run_twice == 0
    assert most <= 3
    assert await worker.stop() == 0


async def test_two_versions_with_other_filters_and_options_at_once(scene: Scene) -> None:
    old = await scene.run(load(work=0.01, ack_wait=1, prefetch=10), "old")
    feed = asyncio.create_task(scene.publish(600, every=0.1))
    await scene.handled(50)
    new = await scene.run(
        load(work=0.01, ack_wait=2, prefetch=10).replace(
            '"message.received",', '"message.received", "message.sent",'
        ),
        "new",
    )
    sent = await scene.publish(
        60, type="message.sent",
        payload=lambda n: {"externalId": f"x{n}", "chatId": "c", "to": "u", "content": {
            "type": "text", "text": "hi"}},
    )  # fmt: skip
    await feed
    assert await old.stop() == 0
    await scene.handled(660)
    await scene.settled()

    account = await scene.ends(
        "rolling deploy: two versions, other filters and ack_wait, one durable"
    )
    by_worker = {one["id"]: one["worker"] for one in scene.stage.effects("handled")}
    assert {by_worker[id] for id in sent} == {new.name}
    assert account.run_twice == 0
    assert not account.lettered
    assert (await consumer(scene.plain, "r1"))["config"]["ack_wait"] == 2 * 10**9
    assert await new.stop() == 0


async def test_what_is_of_another_type_is_skipped_and_counted(scene: Scene) -> None:
    worker = await scene.run(
        load().replace('"message.received",', '"custom.webhook.github",')
        .replace('durable="r1"', 'durable="hooks"')
    )  # fmt: skip
    await scene.publish(50, type="custom.webhook.github", payload=lambda n: {"n": n})
    # On subjects below our own type's: our filter takes them, the type says they are not ours.
    await scene.publish(
        50, type="custom.webhook.github.push", payload=lambda n: {"n": n}, skipped=True
    )
    await scene.handled(50)

    async def at_rest() -> bool:
        info = await consumer(scene.plain, "hooks", "CUSTOM")
        return bool(info["num_pending"] == 0 and info["num_ack_pending"] == 0)

    await until(at_rest)
    account = await scene.ends("another type on our subjects", durable="hooks", stream="CUSTOM")
    assert len(account.skipped) == 50
    assert await worker.stop() == 0
