"""`omni-worker asyncapi`: the document is valid, and says what the app declares."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from omni_worker import App
from omni_worker.handler_consumers import planned_consumers
from omni_worker.operations.asyncapi import asyncapi
from omni_worker.settings import Settings
from omni_worker.topology import SEVEN
from tests.deploy.support import in_ci

from .support import call

ROOT = Path(__file__).parents[2]
PARSER = ROOT / ".venv" / "pm2" / "node_modules" / "@asyncapi" / "parser"
MISSING = "the official parser is not here: make pm2 installs it (needs node and npm)"
PARSE = """
const { Parser } = require(process.argv[1]);
const text = require("fs").readFileSync(0, "utf8");
new Parser().parse(text).then(({ document, diagnostics }) => {
  const wrong = diagnostics.filter((one) => one.severity < 2);
  console.log(JSON.stringify({ read: !!document, wrong: wrong.map((one) => one.message) }));
});
"""

SHOP = '''
from datetime import datetime
from typing import Annotated, Any, Callable, Literal
from pydantic import BaseModel, ConfigDict, Field
from omni_worker import App, Event

class Cat(BaseModel):
    kind: Literal["cat"]
    at: tuple[int, str]

class Dog(BaseModel):
    kind: Literal["dog"]
    row: tuple[int, ...] = ()
    puppies: list["Dog"] = []

class Push(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    discriminator: str = ""
    when: datetime = datetime(2026, 1, 1)
    call: Callable[[], None] | None = None

class Chat(BaseModel):
    chatId: str

app = App("shop")
app.registry.register("custom.github.push", Push, description="A push.")

@app.on("message.received", channel="whatsapp", durable="r1")
async def route(event: Event[Chat]) -> None:
    """Route it."""

@app.on("message.received", "message.sent", durable="r2")
async def both(event): ...

@app.on("message.*", durable="r3")
async def wild(event): ...

@app.on("custom.>", durable="r4")
async def rest(event: Event[Push]) -> None: ...

@app.on(subject="message.*.whatsapp.>", durable="r5")
async def raw(event): ...
'''


def document(app: App, *sends: str) -> dict[str, Any]:
    settings = Settings()
    planned = [planned_consumers(one, app.registry, settings, SEVEN) for one in app.handlers]
    return asyncapi(app.name, planned, app.registry, sends=sends)


def addresses(written: dict[str, Any], operation: str) -> str:
    key = written["operations"][operation]["channel"]["$ref"].rpartition("/")[2]
    return str(written["channels"][key]["address"])


@pytest.mark.skipif(not (PARSER.exists() and shutil.which("node")) and not in_ci(), reason=MISSING)
def test_the_official_parser_finds_nothing_wrong(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    written = call("asyncapi", "shop:app", "--sends", "message.sent", folder=tmp_path)

    parsed = subprocess.run(
        ["node", "-e", PARSE, str(PARSER)],
        input=written.out, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert (written.code, written.err) == (0, "")
    assert json.loads(parsed.stdout) == {"read": True, "wrong": []}


def test_a_handler_receives_from_the_addresses_of_its_events(tmp_path: Path) -> None:
    app = App("router")

    @app.on("message.received", channel="whatsapp", durable="r1", max_retries=7)
    async def route(event: Any) -> None:
        """Route it."""

    @app.on("custom.a", durable="r2")
    async def two(event: Any) -> None: ...

    written = document(app)

    assert addresses(written, "route") == "message.received.whatsapp.{instance}"
    assert addresses(written, "two") == "custom.a.{channel}.{instance}"
    assert addresses(written, "two-custom.a") == "custom.a"
    route_ = written["operations"]["route"]
    assert (route_["action"], route_["description"]) == ("receive", "Route it.")
    assert route_["x-omni-worker"]["consumers"] == [{"stream": "MESSAGE", "name": "r1"}]
    assert route_["x-omni-worker"]["options"]["max_retries"] == 7


def test_a_registered_type_and_a_named_one_are_sent() -> None:
    app = App("router")
    app.registry.register("custom.reply.queued")

    written = document(app, "message.sent")

    sent = {key for key, one in written["operations"].items() if one["action"] == "send"}
    assert sent == {
        "send-custom.reply.queued", "send-custom.reply.queued-bare",
        "send-message.sent", "send-message.sent-bare",
    }  # fmt: skip
    assert addresses(written, "send-message.sent") == "message.sent.{channel}.{instance}"
    assert "MessageSentPayload" in written["components"]["schemas"]


def test_two_models_of_one_type_are_two_messages(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)

    written = json.loads(call("asyncapi", "shop:app", folder=tmp_path).out)

    messages = written["components"]["messages"]
    payload = messages["message.received"]["payload"]["allOf"][1]["properties"]["payload"]
    assert payload == {"$ref": "#/components/schemas/Chat"}
    assert "message.received.MessageReceivedPayload" in messages
    assert str(tmp_path) not in json.dumps(written)


def test_a_file_is_written_as_yaml_by_its_name(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    (tmp_path / "shop.py").write_text(SHOP)

    said = call("asyncapi", "shop:app", "--output", "api.yaml", folder=tmp_path)

    assert (said.code, said.out, said.err) == (0, "", "")
    printed = call("asyncapi", "shop:app", folder=tmp_path).out
    assert yaml.safe_load((tmp_path / "api.yaml").read_text()) == json.loads(printed)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("--sends custom.nosuch", 2, "event type 'custom.nosuch' is not known to the app's reg"),
        ("--output no/such/folder.json", 1, "no/such/folder.json cannot be written: No such file"),
    ],
)
def test_what_cannot_be_written_is_reported(
    tmp_path: Path, arguments: str, code: int, said: str
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)

    ended = call("asyncapi", "shop:app", *arguments.split(), folder=tmp_path)

    assert ended.code == code
    assert ended.line.startswith(f"omni-worker: {said}")
