"""`omni-worker run`: its options, its settings, what it prints, and its log."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from omni_worker.nats_server import NatsServer
from tests.processes.support import PROGRAM, Stage, clean_environment, foreign_event, plain_client

from .support import call, too_wide

APP = """
app = App("router")

@app.on("message.received", queue="routers", durable="r1")
async def route(event, ctx):
    ctx.log.info("routed", extra={"chat": event.id})
    effect("handled", id=event.id)
    if event.id == "bad":
        raise Reject("not\\n wanted: olá")

@app.on("message.*", channel="whatsapp")
async def watch_everything_that_happens_on_this_channel(event):
    pass

@app.on("custom.>", "instance.>", "identity.>", "media.>", "access.>", "system.>", durable="all")
async def everything(event):
    pass
"""


@pytest.mark.parametrize("level", ["loud", "Level 3", "10", ""])
def test_an_unknown_log_level_names_those_there_are(tmp_path: Path, level: str) -> None:
    ended = call("run", "play:app", "--log-level", level, folder=tmp_path)

    assert ended.code == 2
    said = f"omni-worker: --log-level {level}: expected debug, info, warning or error"
    assert ended.line == " ".join(said.split())


def test_an_unknown_log_format_is_refused(tmp_path: Path) -> None:
    ended = call("run", "play:app", "--log-format", "xml", folder=tmp_path)

    assert ended.code == 2
    assert "'xml' is not one of 'auto', 'none', 'pretty', 'json'" in ended.line


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("OMNI_WORKER_GRACE", "soon", "OMNI_WORKER_GRACE"),
        ("OMNI_WORKER_GRACE", "-1", "OMNI_WORKER_GRACE"),
        ("OMNI_WORKER_CONCURRENCY", "0", "OMNI_WORKER_CONCURRENCY"),
        ("OMNI_WORKER_PROVISION", "maybe", "OMNI_WORKER_PROVISION"),
        ("OMNI_WORKER_RECONNECT_MAX_RETRIES", "many", "OMNI_WORKER_RECONNECT_MAX_RETRIES"),
        ("NATS_URL", "http://someone:geheim@host", "NATS_URL"),
        ("NATS_URL", "nats://someone:geheim@host:99999", "NATS_URL"),
        ("NATS_URL", " , ", "NATS_URL"),
        ("NATS_PASSWORD", "geheim", "NATS_PASSWORD"),
        ("NATS_CREDS", "/nosuch/file.creds", "NATS_CREDS"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_no_secret_is_shown(
    tmp_path: Path, variable: str, value: str, named: str
) -> None:
    Stage(tmp_path, "").app(APP)
    (tmp_path / "effects.jsonl").touch()

    ended = call(
        "run", "play:app", folder=tmp_path,
        **{"EFFECTS": str(tmp_path / "effects.jsonl"), "WORKER": "w", variable: value},
    )  # fmt: skip

    assert ended.code == 2
    assert named in ended.line
    assert "geheim" not in ended.err + ended.out
    assert "Traceback" not in ended.err
    assert too_wide(ended.err) == []


async def test_every_log_line_is_json_with_its_fields(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        worker = await stage.run(stage.app(APP))
        client = await plain_client(nats_server.url)
        for id in ("good", "bad"):
            await client.jetstream().publish(*foreign_event("message.received", {}, id=id))
        await worker.until_said("dead letter")
        await client.close()
        assert await worker.stop() == 0

    lines = worker.lines()  # each of them parses, or this raises
    for line in lines:
        assert set(line) >= {"time", "level", "logger", "message"}
    [ready] = [line for line in lines if line["message"] == "ready"]
    assert (ready["handlers"], ready["pid"]) == (3, worker.pid)
    consumers = {(one["stream"], one["consumer"]) for one in ready["consumers"]}
    assert {("MESSAGE", "r1"), ("CUSTOM", "all"), ("SYSTEM", "all")} < consumers
    ended = [line for line in lines if line.get("signal") in ("Stopping", "Stopped")]
    assert [line["reason"] for line in ended] == ["SIGTERM", "SIGTERM"]
    about = {(line["app"], line["server"]) for line in (ready, *ended)}
    assert about == {("router", nats_server.url)}
    routed = [line for line in lines if line["message"] == "routed"]
    assert [line["event"] for line in routed] == ["good", "bad"]
    assert {line["handler"] for line in routed} == {"r1"}
    [letter] = [line for line in lines if line.get("signal") == "DeadLettered"]
    assert letter["level"] == "error"
    assert letter["error"] == "Reject: not\n wanted: olá"


async def test_on_a_terminal_it_lists_what_it_listens_to_in_eighty_columns(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        target = stage.app(APP)
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [PROGRAM, "run", target],
            cwd=tmp_path,
            env=clean_environment()
            | {"NATS_URL": nats_server.url, "EFFECTS": str(tmp_path / "e"), "WORKER": "w"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        said = ""
        while "ready" not in said:
            said += os.read(master, 65_536).decode()
        process.terminate()
        process.wait(10)
        os.close(master)

    listing = [line for line in said.replace("\r", "").splitlines() if "\x1b" not in line]
    assert too_wide("\n".join(listing)) == []
    assert listing[0] == f"router on {nats_server.url}"
    assert "  route (r1)" in listing
    assert "    subjects  message.received, message.received.>" in listing
    assert "    consumer  r1 on MESSAGE" in listing
    text = " ".join(" ".join(listing).split())
    assert "without durable or queue each gets every event" in text
    assert process.returncode == 0


def test_an_unknown_command_or_a_missing_target_is_code_two(tmp_path: Path) -> None:
    for arguments in (["runn"], ["run"], ["publish"]):
        ended = call(*arguments, folder=tmp_path)

        assert ended.code == 2
        assert "Error:" in ended.err
        assert too_wide(ended.err) == []


# --- --only and --except ------------------------------------------------------------------------

PARTS = """
app = App("router")

@app.on("custom.order", durable="orders")
async def order(event):
    effect("handled", handler="order", id=event.id)

@app.on("custom.order", durable="mail")
async def send_mail(event):
    effect("handled", handler="send_mail", id=event.id)

@app.on("custom.order", durable="gpu")
async def transcribe(event):
    effect("handled", handler="transcribe", id=event.id)
"""


@pytest.mark.parametrize("workers", [1, 2])
async def test_processes_share_the_handlers_of_one_app(
    tmp_path: Path, nats_server: NatsServer, workers: int
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        target = stage.app(PARTS)
        spread = ["--workers", str(workers)] if workers > 1 else []
        ready = "all 2 workers are ready" if workers > 1 else "ready"
        graphics = stage.spawn(target, "--only", "transcribe", *spread)
        rest = stage.spawn(target, "--except", "gpu", *spread)
        await graphics.until_said(ready)
        await rest.until_said(ready)

        call(
            *("publish", "custom.order", "--data", "1", "--server", nats_server.url),
            folder=tmp_path,
        )

        await stage.until_effects(3, "handled")
        ran = {(one["worker"], one["handler"]) for one in stage.effects()}
        assert ran == {("w1", "transcribe"), ("w2", "order"), ("w2", "send_mail")}
        assert "not run here: order (orders), send_mail (mail)" in graphics.said()
        assert "not run here: transcribe (gpu)" in rest.said()


@pytest.mark.parametrize("spread", [(), ("--workers", "2")])
async def test_a_file_is_run_as_its_module_is(
    tmp_path: Path, nats_server: NatsServer, spread: tuple[str, ...]
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        file = f"{stage.app(PARTS).partition(':')[0]}.py"
        worker = stage.spawn(f"./{file}", *spread)
        await worker.until_said("all 2 workers are ready" if spread else "ready")

        call(
            *("publish", "custom.order", "--data", "1", "--app", file, "--server", nats_server.url),
            folder=tmp_path, EFFECTS=str(tmp_path / "e"), WORKER="publisher",
        )  # fmt: skip

        await stage.until_effects(3, "handled")
        assert {one["handler"] for one in stage.effects()} == {"order", "send_mail", "transcribe"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--only transcripe", "no handler is called transcripe; did you mean transcribe (gpu)? The"
         " handlers are order (orders), send_mail (mail), transcribe (gpu)"),
        ("--only gpu --except nosuch", "no handler is called nosuch; the handlers are order"),
        ("--only gpu --except transcribe", "no handler is left to run"),
    ],
)  # fmt: skip
def test_a_handler_that_is_not_declared_is_refused_with_those_that_are(
    tmp_path: Path, arguments: str, said: str
) -> None:
    with Stage(tmp_path, "") as stage:
        target = stage.app(PARTS)

        ended = call(
            *("run", target, *arguments.split()), folder=tmp_path, EFFECTS=str(tmp_path / "e"),
            WORKER="w1",
        )  # fmt: skip

    assert ended.code == 2
    assert said in ended.line
