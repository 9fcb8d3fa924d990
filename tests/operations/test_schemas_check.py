"""`omni-worker schemas check`: stored events, or old schemas, against the models of now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer
from omni_worker.operations.schema_changes import refused_now
from omni_worker.transports.base import Message
from tests.processes.support import api, foreign_event, plain_client

from .conftest import MANY
from .support import call, least, measure, operate

SHOP = """
from pydantic import BaseModel
from omni_worker import App, Event

class Content(BaseModel):
    text: str

class Received(BaseModel):
    content: Content
    parts: list[int] = []

app = App("shop")

@app.on("message.received", durable="r1")
async def route(event: Event[Received]) -> None: raise SystemExit("it ran")

@app.on("message.received", "custom.thing", durable="r2")
async def anything(event) -> None: raise SystemExit("it ran")

@app.on("identity.created", durable="r3")
async def quiet(event: Event[Received]) -> None: ...
"""


async def fill(url: str) -> None:
    async with EventBus(url, name="filler") as bus:
        payloads: list[Any] = [
            {"content": {"text": "a secret"}},
            {"content": {}, "parts": ["a secret", "a secret"]},
            {"content": {"text": 7}},
            {"content": {}},
        ]
        address = {"channel": "whatsapp", "instance": "wa-1"}
        messages = [
            Message(*foreign_event("message.received", one, **address), f"e-{number}")
            for number, one in enumerate(payloads)
        ]
        messages.append(Message("message.received.whatsapp.wa-1", b"no json", "e-9"))
        await bus.transport.publish_many(messages, timeout=30)
        await bus.publish("custom.thing", {})


async def test_stored_events_that_a_model_refuses_are_counted_by_path(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with NatsServer() as server:
        await fill(server.url)

        said = operate(server.url, "schemas", "check", "shop:app", folder=tmp_path)
        json_ = operate(server.url, "schemas", "check", "shop:app", "--json", folder=tmp_path)
        client = await plain_client(server.url)
        consumers = await api(client, "CONSUMER.NAMES.MESSAGE")
        await client.close()

    assert said.code == json_.code == 3
    rows = [line.split() for line in said.out.splitlines()]
    assert ["route", "(r1)", "message.received", "1", "3"] in rows
    assert ["anything", "(r2)", "message.received", "4", "0"] in rows
    assert ["anything", "(r2)", "custom.thing", "1", "0"] in rows
    assert "route (r1), message.received: 3 of 4 events do not fit Received" in said.out
    assert "  payload.content.text: Field required\n    2 events, first MESSAGE #2," in said.out
    assert "  payload.parts[]: Input should be a valid integer" in said.out
    assert "quiet (r3): no event stored since" in said.out
    assert "secret" not in said.out + said.err + json_.out
    assert not consumers.get("consumers")
    found = json.loads(json_.out)["handlers"][0]["types"]
    assert [(one["type"], one["fail"]) for one in found] == [
        ("(unreadable)", 1), ("message.received", 3)
    ]  # fmt: skip


async def test_events_that_fit_are_no_reason_to_stop_a_deploy(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with NatsServer() as server:
        async with EventBus(server.url, name="filler") as bus:
            await bus.publish("custom.thing", {})

        said = operate(
            server.url, "schemas", "check", "shop:app", "--since", "1h", folder=tmp_path
        )  # fmt: skip

    assert (said.code, said.err) == (0, "")
    assert "anything (r2) takes any payload: no model to check" in said.out


def test_a_hundred_thousand_events_are_read_in_little_memory(
    tmp_path: Path, large_server: NatsServer
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)

    read = measure(
        large_server.url, "schemas", "check", "shop:app", "--json", folder=tmp_path
    )  # fmt: skip

    types = json.loads(read.said.out)["handlers"][1]["types"]
    assert types == [{"type": "message.received", "fit": MANY, "fail": 0, "failures": []}]
    assert read.peak - least(tmp_path) < 60


SCHEMA_A = {
    "type": "object",
    "required": ["a"],
    "properties": {
        "a": {"type": "string"},
        "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"required": ["a", "b"]}, [("payload.b", "required now")]),
        ({"required": []}, []),
        ({"properties": {"a": {"type": "integer"}}},
         [("payload.a", "string is refused now; expected integer")]),
        ({"properties": {"a": {"type": "string", "maxLength": 3}}},
         [("payload.a", "maxLength 3")]),
        ({"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}}, []),
        ({"properties": {"b": {"type": "integer"}}},
         [("payload.b", "null is refused now; expected integer")]),
        ({"properties": {"b": {"anyOf": [{"type": "number"}, {"type": "null"}]}}}, []),
        ({"properties": {"a": {"enum": ["x", "y"], "type": "string"}}},
         [("payload.a", "only 'x', 'y' is taken now")]),
        ({"additionalProperties": False, "properties": {"a": {"type": "string"}}},
         [("payload.b", "unknown now, and unknown keys are refused")]),
        ({"properties": {"a": {}, "c": {"type": "string"}}}, []),
    ],
)  # fmt: skip
def test_a_schema_that_refuses_more_is_seen_without_a_server(
    change: dict[str, Any], said: list[tuple[str, str]]
) -> None:
    assert refused_now(SCHEMA_A, SCHEMA_A | change) == said


def test_a_schema_that_holds_itself_comes_to_an_end() -> None:
    def tree(kind: str) -> dict[str, Any]:
        node = {
            "type": "object",
            "properties": {
                "value": {"type": kind},
                "below": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
        }
        return {"$ref": "#/$defs/Node", "$defs": {"Node": node}}

    assert refused_now(tree("string"), tree("string")) == []
    assert refused_now(tree("string"), tree("integer")) == [
        ("payload.value", "string is refused now; expected integer")
    ]


def test_a_dump_is_compared_with_the_models_of_now(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "old.json").write_text(call("schemas", "dump", "shop:app", folder=tmp_path).out)
    (tmp_path / "now.py").write_text(SHOP.replace("text: str", "text: str\n    lang: str"))

    same = call("schemas", "check", "shop:app", "--against", "old.json", folder=tmp_path)
    other = call("schemas", "check", "now:app", "--against", "old.json", folder=tmp_path)

    assert (same.code, same.out) == (
        0,
        "The models of shop accept everything that those of old.json did.\n",
    )
    assert other.code == 3
    assert other.out == (
        "r1\n  payload.content.lang: required now\nr3\n  payload.content.lang: required now\n"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "old.json: it is no file that `omni-worker schemas dump`"),
        ("x", "old.json: it is not"),
    ],
)
def test_a_file_that_is_no_dump_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "old.json").write_text(text)

    ended = call("schemas", "check", "shop:app", "--against", "old.json", folder=tmp_path)

    assert ended.code == 2
    assert ended.line.startswith(f"omni-worker: {said}")
