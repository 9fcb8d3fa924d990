"""A setting that is misspelt in the environment is told by every command, and once."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_worker.nats_server import NatsServer
from tests.processes.support import Stage

from .support import call, too_wide

APP = """
app = App("router")

@app.on("custom.thing", durable="r1")
async def route(event): ...
"""
SAID = "OMNI_WORKER_GRACES is set but unknown; did you mean OMNI_WORKER_GRACE?"


@pytest.mark.parametrize("command", ["status", "publish custom.thing --data {}"])
def test_a_command_tells_it_and_goes_on(
    nats_server: NatsServer, tmp_path: Path, command: str
) -> None:
    said = call(*command.split(), folder=tmp_path, NATS_URL=nats_server.url, OMNI_WORKER_GRACES="5")

    assert said.code == 0
    assert " ".join(said.err.split()).count(SAID) == 1
    assert too_wide(said.err) == []


async def test_a_worker_tells_it_as_a_log_line(nats_server: NatsServer, tmp_path: Path) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        worker = await stage.run(stage.app(APP), graces=5)
        assert await worker.stop() == 0

    [warning] = [line for line in worker.lines() if line["message"] == SAID]
    assert (warning["level"], warning["logger"]) == ("warning", "omni_worker.settings")


async def test_of_several_workers_one_tells_it(nats_server: NatsServer, tmp_path: Path) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        worker = await stage.run(stage.app(APP), graces=5, workers=2)
        await worker.until_said("all 2 workers are ready")
        assert await worker.stop() == 0

    told = [line for line in worker.lines() if line["message"] == SAID]
    assert [line["worker"] for line in told] == ["1"]


def test_what_is_read_by_commands_and_between_our_processes_is_known(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    known = {
        "OMNI_WORKER_WORKERS": "2", "OMNI_WORKER_HEALTH_PORT": "0", "OMNI_WORKER_NUMBER": "1",
        "OMNI_WORKER_HEALTH_HOST": "127.0.0.1", "OMNI_WORKER_COUNT": "2", "OMNI_WORKER_GRACE": "5",
    }  # fmt: skip

    said = call("status", folder=tmp_path, NATS_URL=nats_server.url, **known)

    assert (said.code, said.err) == (0, "")
