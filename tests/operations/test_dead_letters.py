"""`omni-worker dead-letters`, in a terminal of 80 columns, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_worker import Event, EventBus
from omni_worker.nats_server import NatsServer
from tests.processes.support import (
    Stage,
    api,
    foreign_event,
    plain_client,
    until_letters,
    until_settled,
)

from .conftest import LETTERS_WANTED, MANY
from .support import least, lines_of, measure, operate, table_of, too_wide

COUNTING = """
from omni_worker import App, Event

app = App("t")


@app.on("custom.n", durable="n")
async def count(event: Event) -> None: ...
"""

APP = """
app = App("router")


@app.on("message.received", durable="r1", start_from="first", max_retries=0)
async def route(event: Event) -> None:
    effect("r1", id=event.id)
    if os.environ["WORKER"] == "w1":
        raise ValueError("no such chat: " + "and more " * 20)


@app.on("message.received", durable="r2", start_from="first")
async def other(event: Event) -> None:
    effect("r2", id=event.id)
"""


async def test_a_letter_of_a_failing_handler_is_found_shown_retried_and_gone(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    url = nats_server.url
    client = await plain_client(url)
    subject, body = foreign_event("message.received", channel="whatsapp", instance="wa.1", id="e-1")
    with Stage(tmp_path, url) as stage:
        target = stage.app(APP)
        worker = await stage.run(target)
        await client.jetstream().publish(subject, body)
        await until_letters(client, 1)
        await stage.until_effects(1, "r2")
        await worker.stop()

        listed = operate(url, "dead-letters", "list")
        shown = operate(url, "dead-letters", "show", "1")
        content = operate(url, "dead-letters", "show", "1", "--body")
        retried = operate(url, "dead-letters", "retry", "1")
        await stage.run(target)
        await stage.until_effects(2, "r1")
        await until_settled(client, "router-retry", "OMNI_WORKER")
        gone = operate(url, "dead-letters", "list")
        kept = operate(url, "dead-letters", "list", "--all", "--json")

        assert table_of(listed)[0][:3] == ["1", table_of(listed)[0][1], "message.received"]
        assert "route (r1)" in table_of(listed)[0]
        assert "no such chat: and more" in shown.out
        assert "Traceback" in shown.out
        assert content.out.encode() == body
        assert "on its way back to route (r1) of router" in retried.out
        assert stage.ids("r1") == ["e-1", "e-1"]
        assert stage.ids("r2") == ["e-1"]
        assert "No open dead letter" in gone.out
        assert [(one["number"], one["state"]) for one in lines_of(kept)] == [(1, "retried")]
    await client.close()


async def test_a_running_worker_takes_what_is_sent_back_without_a_restart(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    client = await plain_client(nats_server.url)
    subject, body = foreign_event("message.received", channel="whatsapp", instance="wa.1", id="e-1")
    with Stage(tmp_path, nats_server.url) as stage:
        await stage.run(stage.app(APP))
        await client.jetstream().publish(subject, body)
        await until_letters(client, 1)

        said = operate(nats_server.url, "dead-letters", "retry", "--handler", "r1", "--yes")
        await stage.until_effects(2, "r1")
        second = (await until_letters(client, 2))[1]["payload"]

        assert said.code == 0, said.err
        assert "within ten seconds" not in said.out  # it was told
        assert second["retryOf"] is not None
        assert (second["subject"], second["body"]) == (subject, body.decode())
    await client.close()


async def test_many_are_chosen_by_filters_asked_about_and_put_aside(
    nats_server: NatsServer,
) -> None:
    url = nats_server.url
    async with EventBus(url, name="t") as bus:

        async def fail(event: Event) -> None:
            raise ValueError("odd" if event.payload % 2 else "even")

        await bus.subscribe("custom.n", fail, durable="n", start_from="first", max_retries=0)
        for number in range(6):
            await bus.publish("custom.n", number)
        client = await plain_client(url)
        await until_letters(client, 6)

        asked = operate(url, "dead-letters", "discard", "--error", "odd")
        wrongly = operate(url, "dead-letters", "discard", "--error", "odd", "3")
        none = operate(url, "dead-letters", "retry", "--handler", "nobody")
        done = operate(url, "dead-letters", "discard", "--error", "odd", "--yes", "--json")
        left = operate(url, "dead-letters", "list", "--json", "--until", "2099-01-01")
        older = operate(url, "dead-letters", "list", "--until", "1h")
        last = operate(url, "dead-letters", "list", "--limit", "2")

        assert (asked.code, wrongly.code, none.code) == (2, 2, 0)
        assert "Discard 3 dead letters?" in asked.line
        assert "add --yes" in asked.line
        assert "There is no such open dead letter" in none.out
        assert [one["state"] for one in lines_of(done)] == ["discarded"] * 3
        assert [one["error"] for one in lines_of(left)] == ["even"] * 3
        assert "No such open dead letter" in older.out
        assert [row[0] for row in table_of(last)][:2] == ["3", "5"]
        assert "The last 2 of 3" in last.out
        await client.close()


@pytest.mark.parametrize("name", ["n", "count", "count (n)"])
async def test_with_its_app_a_handler_is_named_by_its_function_too(
    nats_server: NatsServer, tmp_path: Path, name: str
) -> None:
    url = nats_server.url
    (tmp_path / "shop.py").write_text(COUNTING)
    app = ("--app", "shop:app")
    async with EventBus(url, name="t") as bus:

        async def fail(event: Event) -> None:
            raise ValueError("odd")

        await bus.subscribe("custom.n", fail, durable="n", start_from="first", max_retries=0)
        await bus.publish("custom.n", 1)
        client = await plain_client(url)
        await until_letters(client, 1)

        listed = operate(url, "dead-letters", "list", *app, "--handler", name, folder=tmp_path)
        shown = operate(url, "dead-letters", "show", "1", *app, folder=tmp_path)
        unknown = operate(url, "dead-letters", "list", "--handler", "count")
        discarded = operate(
            url, "dead-letters", "discard", *app, "--handler", name, "--yes", folder=tmp_path
        )
        await client.close()

    assert [row[3].strip() for row in table_of(listed)][:1] == ["count (n)"]
    assert "handler      count (n)" in shown.out
    assert "is known with --app MODULE:APP" in " ".join(unknown.out.split())
    assert discarded.out == "#1  discarded\n"


async def test_no_error_of_a_letter_makes_lines_too_wide_for_a_terminal(
    nats_server: NatsServer,
) -> None:
    url = nats_server.url
    data = "{" + ",".join(f'"key{number}":{number}' for number in range(60)) + "}"
    other = "聊天" * 60
    async with EventBus(url, name="t") as bus:

        def broken(text: str, *more: str) -> None:
            raise ValueError(text)

        async def fail(event: Event) -> None:
            return broken(data if event.payload else other, "a long line of code", "and more")

        await bus.subscribe("custom.n", fail, durable="n", start_from="first", max_retries=0)
        for payload in (True, False):
            await bus.publish("custom.n", payload)
        client = await plain_client(url)
        await until_letters(client, 2)
        await client.close()

        shown = [operate(url, "dead-letters", "show", number) for number in ("1", "2")]

    assert [too_wide(one.out) for one in shown] == [[], []]
    assert any(data in "".join(one.out.split()) for one in shown)
    assert any(other in "".join(one.out.split()) for one in shown)
    code = "".join(shown[0].out.split())
    assert 'broken(dataifevent.payloadelseother,"alonglineofcode","andmore")' in code
    assert "^" not in code  # the line of code takes two here: marks under it would point nowhere


class NoSuchChat(Exception):
    """An exception of the user's."""


async def test_the_class_of_an_error_is_shown_as_it_is_listed(nats_server: NatsServer) -> None:
    url = nats_server.url
    async with EventBus(url, name="t") as bus:

        async def fail(event: Event) -> None:
            raise NoSuchChat("chat 7") if event.payload else KeyError("amount")

        await bus.subscribe("custom.n", fail, durable="n", start_from="first", max_retries=0)
        for payload in (True, False):
            await bus.publish("custom.n", payload)
        client = await plain_client(url)
        await until_letters(client, 2)
        await client.close()

    listed = operate(url, "dead-letters", "list").out
    shown = {operate(url, "dead-letters", "show", number).out for number in ("1", "2")}
    [mine] = [one for one in shown if "NoSuchChat: chat 7" in one]
    [theirs] = [one for one in shown if "KeyError: 'amount'" in one]

    assert "NoSuchChat: chat 7" in listed
    assert "KeyError: 'amount'" in listed
    assert "error        NoSuchChat: chat 7\n" in mine
    assert f"error class  {NoSuchChat.__module__}.NoSuchChat\n" in mine
    assert "error        KeyError: 'amount'\n" in theirs
    assert "error class" not in theirs


async def test_a_letter_of_another_program_says_why_it_stays(nats_server: NatsServer) -> None:
    url = nats_server.url
    async with EventBus(url) as bus:
        payload = {
            "originalEventId": "e-1", "originalEventType": "message.received",
            "error": "boom \x1b[2J and more", "retryCount": 3, "timestamp": 1,
        }  # fmt: skip
        await bus.publish("system.dead_letter", payload, metadata={"source": "omni"})

        listed = operate(url, "dead-letters", "list")
        shown = operate(url, "dead-letters", "show", "1")
        retried = operate(url, "dead-letters", "retry", "1")
        body = operate(url, "dead-letters", "show", "1", "--body")

        assert "\x1b" not in listed.out + shown.out
        assert "It cannot be retried: another program (omni) wrote" in " ".join(shown.out.split())
        assert (retried.code, body.code) == (1, 1)
        assert "another program (omni) wrote this dead letter" in " ".join(retried.out.split())
        # Nothing was made for a retry that cannot be.
        client = await plain_client(url)
        names = (await api(client, "STREAM.NAMES"))["streams"]
        assert "OMNI_WORKER" not in names
        assert "KV_omni-worker-letters" not in names
        await client.close()


def test_many_letters_are_listed_in_little_memory(large_server: NatsServer, tmp_path: Path) -> None:
    measured = measure(
        large_server.url, "dead-letters", "list", "--handler", "wanted", "--json", "--limit", "0",
        folder=tmp_path,
    )  # fmt: skip
    every = measure(large_server.url, "dead-letters", "list", folder=tmp_path)

    found = lines_of(measured.said)
    assert len(found) == LETTERS_WANTED
    assert {one["handler"] for one in found} == {"wanted"}
    assert f"The last 50 of {MANY // 1000} 000" in every.said.out
    assert every.said.err == ""  # progress is for terminals
    assert measured.peak < least(tmp_path, "dead-letters", "list") + 8
    assert every.peak < least(tmp_path, "dead-letters", "list") + 8


MODELLED = """
from pydantic import BaseModel

class Order(BaseModel):
    amount: int


app = App("shop")


@app.on("custom.order", durable="orders", start_from="first")
async def place(event: Event[Order]) -> None: ...
"""


async def test_a_letter_of_what_cannot_be_read_does_not_offer_a_plain_retry(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    url = nats_server.url
    client = await plain_client(url)
    subject, misfit = foreign_event("custom.order", payload={"amount": "one"})
    with Stage(tmp_path, url) as stage:
        await stage.run(stage.app(MODELLED))
        await client.jetstream().publish(subject, misfit)
        await until_letters(client, 1)
        await client.jetstream().publish(subject, b'{"amount": 1}')
        await until_letters(client, 2)

        fits_not, no_event = (
            " ".join(operate(url, "dead-letters", "show", number).out.split())
            for number in ("1", "2")
        )

    assert "fails again if it is sent back now" in fits_not
    assert fits_not.index("deploy a model") < fits_not.index("dead-letters retry 1")
    assert "Unreadable: no event: expected an envelope" in no_event
    assert "id, type, payload missing" in no_event
    assert "sending it back does not help" in no_event
    assert "dead-letters discard 2" in no_event
    assert "dead-letters retry" not in no_event
    await client.close()
