"""app.run(): a program of its own, `python main.py`, that stops and fails like a worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from omni_worker import App, ConfigError
from omni_worker.nats_server import NatsServer, die_with_parent

from .ports import free_port
from .processes.support import clean_environment

MAIN = """
import signal
from contextlib import asynccontextmanager

from omni_worker import App, Event


@asynccontextmanager
async def lifespan(app):
    yield
    print("lifespan left", flush=True)


app = App("shop", lifespan=lifespan)


@app.on("custom.ordered", durable="app-run")
async def handle(event: Event) -> None:
    pass


app.run()
print("run returned", flush=True)
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())  # whatever follows can be stopped
"""


ROUTE = """
from omni_worker import Answer, Extension


class Hello(Extension):
    def routes(self):
        return {"/hello": lambda request: Answer(body=b"hello")}


app.use(Hello())
"""


def start(folder: Path, source: str = MAIN, **environment: str) -> subprocess.Popen[str]:
    """Start `python main.py`."""
    (folder / "main.py").write_text(source)
    return subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=folder,
        env=clean_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(),
    )


def wait_until_ready(program: subprocess.Popen[str]) -> None:
    """Read its log, a JSON object a line, as far as the line `ready`."""
    assert program.stderr is not None
    for line in program.stderr:
        if json.loads(line)["message"] == "ready":
            return
    pytest.fail("it ended before it was ready")


@pytest.mark.parametrize("one", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_runs_its_app_stops_in_good_order_and_goes_on(
    one: signal.Signals, tmp_path: Path, nats_server: NatsServer
) -> None:
    with start(tmp_path, NATS_URL=nats_server.url) as program:
        wait_until_ready(program)

        program.send_signal(one)

        said, _ = program.communicate(timeout=20)
    assert said.splitlines() == ["lifespan left", "run returned"]
    assert program.returncode == 0


def test_a_program_whose_app_cannot_go_on_exits_with_its_code(tmp_path: Path) -> None:
    url = "nats://127.0.0.1:1"  # refused

    with start(tmp_path, NATS_URL=url, OMNI_WORKER_RECONNECT_MAX_RETRIES="0") as program:
        said, log = program.communicate(timeout=20)

    assert said == ""
    assert program.returncode == 1
    assert json.loads(log.splitlines()[-1])["level"] == "error"


def test_a_program_answers_at_its_port_if_the_settings_name_one(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    source = MAIN.replace("\napp.run()", ROUTE + "\napp.run()")
    port = free_port()
    environment = {"NATS_URL": nats_server.url, "OMNI_WORKER_HEALTH_PORT": str(port)}

    with start(tmp_path, source, **environment) as program:
        wait_until_ready(program)
        answers = [
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10).read()
            for path in ("/hello", "/healthz", "/metrics")
        ]
        program.terminate()
        program.communicate(timeout=20)

    assert answers[0] == b"hello"
    assert json.loads(answers[1])["status"] == "ok"
    assert b'omni_worker_events_total{app="shop",handler="app-run"' in answers[2]
    assert program.returncode == 0


def test_a_program_whose_port_is_taken_ends_and_names_it(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    environment = {"NATS_URL": nats_server.url, "OMNI_WORKER_HEALTH_PORT": str(nats_server.port)}

    with start(tmp_path, **environment) as program:
        _, log = program.communicate(timeout=20)

    assert program.returncode == 1
    assert f"--health-port {nats_server.port}" in json.loads(log.splitlines()[-1])["message"]


async def test_a_coroutine_that_runs_an_app_is_told_how() -> None:
    with pytest.raises(ConfigError, match=r"in a coroutine: async with app\.running\(\)"):
        App("shop").run()


async def test_async_with_an_app_is_refused_with_what_to_write() -> None:
    with pytest.raises(ConfigError) as refused:
        async with App("shop"):
            pass

    assert "async with app.running()" in str(refused.value)
    assert "async with EventBus() as bus" in str(refused.value)
