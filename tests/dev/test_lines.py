"""Lines of `dev` about publishes, events no handler reads, and handlers that a save changed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from omni_worker import Event, EventBus
from omni_worker.cli.dev_events import near
from omni_worker.handlers import Handler, declare
from omni_worker.nats_server import NatsServer
from omni_worker.topology import ConsumerSpec, consumer_config

from ..cli.support import call
from .support import Project

APP = """
app = App("shop")


@app.on("custom.order.placed", durable={durable!r})
async def charge(event):
    await app.publish("custom.charged", {{}}, channel="whatsapp", instance="wa-1")
    effect("handled", id=event.id)
"""
LATER = """
app = App("shop")


@app.on("custom.order.placed", durable="pay")
async def remind(event):
    await app.publish("custom.reminder", {}, after=3600, id="r-1")
"""
MORE = """

@app.on("custom.charged", channel="whatsapp", durable="ship")
async def ship(event):
    effect("handled", id=event.id)
"""


async def test_a_save_that_needs_one_consumer_says_how_it_is_made_beside_dev(
    project: Project, nats_server: NatsServer
) -> None:
    url, folder = nats_server.url, project.stage.folder
    ordered = APP.format(durable="pay").replace("'pay'", "'pay', order_by=lambda event: 'k'")
    project.write(APP.format(durable="pay"))
    dev = await project.dev(url=url)

    project.write(ordered)
    await dev.until_said("order_by= needs one consumer, but charge (pay) has two on CUSTOM")
    await dev.until_said("omni-worker plan play --recreate pay (it loses nothing")
    await dev.until_said(f"with NATS_URL={url}, then save again")
    await dev.until_said("waiting for the next save")
    effects = {"EFFECTS": str(folder / "effects.jsonl"), "WORKER": "plan"}
    done = call(
        "plan", "play", "--recreate", "pay", "--yes", folder=folder, NATS_URL=url, **effects
    )
    project.write(ordered + "\n")

    await dev.until_said("reloaded in")
    assert done.code == 0


async def test_what_a_handler_publishes_and_what_no_handler_reads_is_shown(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(APP.format(durable="pay"))
    dev = await project.dev(url=nats_server.url)

    await bus.publish("custom.order.placed", {})
    await bus.publish("custom.order.placd", {}, channel="whatsapp", instance="wa-1")

    await dev.until_said("← custom.charged whatsapp/wa-1  CUSTOM #")
    await dev.until_said(", by charge")
    await dev.until_said("custom.charged.whatsapp.wa-1: no handler reads it")
    await dev.until_said(
        "custom.order.placd.whatsapp.wa-1: no handler reads it; did you mean custom.order.placed,"
        " which charge (pay) reads?"
    )
    assert "custom.order.placed: no handler" not in dev.said()


async def test_what_is_published_later_is_a_line_with_its_time(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(LATER)
    dev = await project.dev(url=nats_server.url)

    await bus.publish("custom.order.placed", {})
    await bus.publish("custom.order.placed", {})

    await dev.until_said("custom.reminder scheduled before")
    text = " ".join(dev.said().split())
    at = r"(20\d\d-\d\d-\d\d )?\d\d:\d\d:\d\d"
    assert re.search(rf"← custom.reminder scheduled for {at} by remind", text)
    assert "OMNI_WORKER #" not in text


@pytest.mark.parametrize("words", [("--only", "charge"), ("--except", "ship")])
async def test_a_part_of_an_app_is_run_and_the_rest_counts_as_read_elsewhere(
    project: Project, bus: EventBus, nats_server: NatsServer, words: tuple[str, ...]
) -> None:
    project.write(APP.format(durable="pay") + MORE)
    everything = await project.dev(url=nats_server.url)
    await everything.stop()
    dev = await project.dev(*words, url=nats_server.url)

    await bus.publish("custom.order.placed", {})
    await bus.publish("custom.nobody", {})

    await dev.until_said("custom.nobody: no handler reads it")
    assert "not run here: ship" in dev.said()
    assert "custom.charged.whatsapp.wa-1: no handler" not in dev.said()
    assert "consumers rm ship" not in dev.said()
    await project.stage.until_effects(1, "handled")


async def test_a_name_that_no_handler_has_is_refused(project: Project) -> None:
    project.write(APP.format(durable="pay") + MORE)
    dev = project.spawn("--only", "shipp", "--no-dashboard")

    await dev.until_said("shipp")
    await dev.until_said("charge (pay)")


async def test_many_events_that_no_handler_reads_are_a_few_lines(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(APP.format(durable="pay"))
    dev = await project.dev(url=nats_server.url)
    before = len(dev.said().splitlines())

    for number in range(300):
        await bus.publish("custom.tick", {}, channel="clock", instance=f"c-{number}")

    await dev.until_said("other subjects")
    assert len(dev.said().splitlines()) - before < 60


async def test_a_save_shows_the_handlers_that_are_new_changed_or_gone(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(APP.format(durable="pay"))
    dev = await project.dev(url=nats_server.url)

    project.write(APP.format(durable="pay") + MORE)
    await dev.until_said("new handler: ship")
    await dev.until_said("consumer  ship on CUSTOM")
    project.write(APP.format(durable="pay") + MORE.replace('"whatsapp"', '"telegram"'))
    await dev.until_said("changed handler: ship")
    project.write(APP.format(durable="pay"))

    await dev.until_said("handler gone: ship")
    await dev.until_said("no handler here reads the consumer ship on CUSTOM any longer")
    assert dev.said().count("reloaded in") == 3
    assert ": 1 handler" in dev.said()
    assert ": 2 handlers" in dev.said()
    assert "handler: charge" not in dev.said()


async def test_a_durable_that_was_renamed_is_reported_once_with_what_waits_there(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(APP.format(durable="pay"))
    dev = await project.dev(url=nats_server.url)

    project.write(APP.format(durable="pay-2"))
    await dev.until_said("omni-worker consumers rm pay")
    project.write(APP.format(durable="pay-2") + MORE)
    await dev.until_said("new handler: ship")
    await bus.publish("custom.order.placed", {})
    await project.stage.until_effects(2)
    again = await project.dev(url=nats_server.url)

    assert (
        "charge reads the new consumer pay-2, which began with new events; the old one, pay,"
        " stays on CUSTOM: no event waits there"
    ) in dev.said()
    assert dev.said().count("consumers rm pay") == 1
    await again.until_said("no handler here reads the consumer pay on CUSTOM any longer: 1 event")


async def test_what_the_app_reads_for_itself_is_no_consumer_left_behind(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    async with EventBus(nats_server.url, name="shop") as before:
        await before.publish("custom.order.placed", {}, after=3600)
        for name in ("shop-again", "old"):
            stream, subject = (
                ("OMNI_WORKER", "omni-worker.again.shop.>")
                if name == "shop-again"
                else ("CUSTOM", "custom.old")
            )
            spec = ConsumerSpec(
                stream=stream, name=name, app="shop", filters=(subject,), ack_wait=30.0
            )
            config = consumer_config(spec)
            await before.transport.operators.create_consumer(stream, config)
    project.write(APP.format(durable="pay"))

    dev = await project.dev(url=nats_server.url)
    await dev.until_said("no handler here reads the consumer old on CUSTOM any longer")

    assert "shop-due" not in dev.said()
    assert "shop-again" not in dev.said()


def handler(*types: str, **place: Any) -> Handler:
    """A handler called `charge`."""

    async def charge(event: Event[Any]) -> None:
        """A handler."""

    return declare(charge, app="shop", types=types, options={"durable": "pay"}, **place)


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("custom.order.whatsap.wa-1", "; charge (pay) reads custom.order.whatsapp.>"),
        ("custom.order", "; charge (pay) reads custom.order.whatsapp.>"),
        ("custom.oder.whatsapp.wa-1", "; did you mean custom.order, which charge (pay) reads?"),
        ("custom.invoice.whatsapp.wa-1", ""),
        ("x", ""),
    ],
)
def test_the_handler_that_was_perhaps_meant_is_named(subject: str, said: str) -> None:
    handlers = [handler("custom.order", channel="whatsapp")]

    assert near(subject, handlers) == said
