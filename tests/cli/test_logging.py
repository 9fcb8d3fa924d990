"""Logging of `run`: the app's own is left alone, ours is chosen by options and settings."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from nats.js import JetStreamContext
from nats.js.errors import NoStreamResponseError

from omni_worker import Settings
from omni_worker.listeners.configuration import configure, has_own_logging, set_up_logging
from omni_worker.nats_server import NatsServer
from tests.docs.blocks import assert_shown, shown
from tests.processes.support import Stage, Worker, foreign_event, plain_client
from tests.waiting import until

OWN = """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "formatters": {"mine": {"format": "mine|%(levelname)s|%(name)s|%(message)s"}},
    "handlers": {"mine": {"class": "logging.StreamHandler", "formatter": "mine"}},
    "root": {"handlers": ["mine"], "level": "INFO"},
})
"""
APP = """
app = App("router")

@app.on("custom.charged", durable="c1", start_from="first", max_retries=1, retry_delay=0.01)
async def charge(event):
    try:
        int(event.payload["secret"])
    except ValueError:
        raise KeyError("code")
"""
LETTER = " after attempt 2 of 2: KeyError"


@contextmanager
def new_process() -> Iterator[logging.Logger]:
    """The root logger as a new process has it; pytest gives it handlers for each test."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    root.setLevel(logging.WARNING)
    try:
        yield root
    finally:
        root.handlers = handlers
        root.setLevel(level)
        logging.getLogger("omni_worker").setLevel(logging.NOTSET)


@pytest.fixture
def stage(tmp_path: Path, nats_server: NatsServer) -> Iterator[Stage]:
    """Stage of this test's workers; those that still run at the end are killed."""
    with Stage(tmp_path, nats_server.url) as stage:
        yield stage


async def failed(server: NatsServer, worker: Worker, ready: str = "ready") -> str:
    """Let one event fail for good; returns the worker's log."""
    await until(lambda: ready in worker.said() or not worker.is_running, 20, seen=worker.said)
    client = await plain_client(server.url)
    payload = {"secret": "a very private word"}
    event = foreign_event("custom.charged", payload, id="1f7539f6-aaaa")
    js = client.jetstream()
    await until(partial(is_stored, js, event), 20)
    await until(lambda: LETTER in worker.said(), 20, seen=worker.said)
    await client.close()
    await worker.stop()
    return worker.said()


async def is_stored(js: JetStreamContext, event: tuple[str, bytes]) -> bool:
    """Publish the event; not stored while the worker has not made the stream."""
    with suppress(NoStreamResponseError):
        await js.publish(*event)
        return True
    return False


async def test_logging_that_the_app_has_configured_is_left_alone(
    stage: Stage, nats_server: NatsServer
) -> None:
    stage.app(OWN + APP)
    worker = stage.spawn("play:app", url=nats_server.url)

    said = await failed(nats_server, worker)

    assert "mine|INFO|omni_worker.worker|ready" in said
    assert "mine|ERROR|omni_worker.worker|[charge 1f7539f6] dead letter #" in said
    assert '"level"' not in said


async def test_a_format_that_is_asked_for_replaces_the_logging_of_the_app(
    stage: Stage, nats_server: NatsServer
) -> None:
    stage.app(OWN + APP)
    worker = stage.spawn("play:app", url=nats_server.url, log_format="json")

    said = await failed(nats_server, worker)

    assert "mine|" not in said
    assert [json.loads(line)["level"] for line in said.splitlines()].count("error") == 1


async def test_without_tracebacks_no_line_has_one(stage: Stage, nats_server: NatsServer) -> None:
    stage.app(APP)
    worker = stage.spawn("play:app", url=nats_server.url, log_tracebacks="off")

    said = await failed(nats_server, worker)

    assert "raceback" not in said
    assert "a very private word" not in said
    assert "play.py:" in said  # the place in the code is no secret


async def test_a_level_is_taken_from_the_setting_and_the_option_beats_it(
    stage: Stage, nats_server: NatsServer
) -> None:
    stage.app(APP)
    quiet = stage.spawn("play:app", "--log-level", "error", url=nats_server.url,
                        log_level="debug")  # fmt: skip

    said = await failed(nats_server, quiet, ready="")

    assert {json.loads(line)["level"] for line in said.splitlines()} == {"error"}


async def test_the_page_shows_lines_as_they_are_printed(
    stage: Stage, nats_server: NatsServer
) -> None:
    stage.app(APP)
    worker = stage.spawn("play:app", "--log-format", "pretty", url=nats_server.url,
                         log_tracebacks="off")  # fmt: skip

    said = await failed(nats_server, worker)

    assert_shown(shown("docs/logging.md", "12:00:01"), said)


def test_under_pm2_only_warnings_and_errors_are_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("pm_id", "0")

    with new_process():
        set_up_logging("json")
        for level in (logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger("omni_worker.worker").log(level, logging.getLevelName(level))

    out, err = capsys.readouterr()
    assert [json.loads(line)["message"] for line in out.splitlines()] == ["INFO"]
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["WARNING", "ERROR"]


def test_a_line_logged_by_the_root_logger_at_import_is_no_configuration() -> None:
    with new_process() as root:
        logging.warning("a library says hello")
        is_own, handlers = has_own_logging(), root.handlers

    assert handlers != []
    assert not is_own


def test_handlers_of_our_logger_alone_are_a_configuration() -> None:
    ours, handler = logging.getLogger("omni_worker"), logging.NullHandler()

    with new_process() as root:
        ours.addHandler(handler)
        written, handlers = configure(Settings()), root.handlers
        ours.removeHandler(handler)

    assert written is None
    assert handlers == []


def test_none_leaves_everything_alone_but_the_level_that_is_asked_for() -> None:
    with new_process() as root:
        written = configure(Settings(log_format="none", log_level="error"))
        handlers, level = root.handlers, logging.getLogger("omni_worker").level

    assert written is None
    assert handlers == []
    assert level == logging.ERROR


def test_loggers_that_dict_config_disabled_are_enabled() -> None:
    ours = logging.getLogger("omni_worker.transports.jetstream")
    ours.disabled = True

    with new_process():
        configure(Settings(log_format="none"))

    assert not ours.disabled
