"""Reloading: the code is replaced under traffic, and no event notices."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from pathlib import Path

import pytest

from omni_worker import EventBus
from omni_worker.cli.dev import brake
from omni_worker.nats_server import NatsServer

from ..ports import free_port
from ..processor import Stopwatch
from ..waiting import until
from .support import Project

APP = """
app = App("router")
effect("imported", pid=os.getpid(), version={version!r})


@app.on("message.received", durable={durable!r})
async def route(event):
    await asyncio.sleep(0.02)
    effect("handled", id=event.id, version={version!r})
"""

SLOW = """
app = App("router")


@app.on("message.received")
async def route(event):
    effect("begun", id=event.id)
    await asyncio.sleep({seconds})
    effect("handled", id=event.id)
"""


def app(version: int, durable: str | None = None) -> str:
    """The app in its nth version."""
    return APP.format(version=version, durable=durable)


class Traffic:
    """Publishes an event every few milliseconds, and knows their ids."""

    def __init__(self, bus: EventBus, pause: float = 0.005) -> None:
        self._bus = bus
        self._pause = pause
        self.ids: list[str] = []

    async def __aenter__(self) -> Traffic:
        self._task = asyncio.create_task(self._flow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _flow(self) -> None:
        while True:
            id = f"event-{len(self.ids):05}"
            await self._bus.publish("message.received", MESSAGE, id=id)
            self.ids.append(id)
            await asyncio.sleep(self._pause)


MESSAGE = {
    "externalId": "m-1",
    "chatId": "chat-1",
    "from": "ana",
    "content": {"type": "text", "text": "hello"},
}


@pytest.mark.parametrize("durable", [None, "r1"])
async def test_nothing_is_lost_over_20_reloads_and_a_broken_save(
    project: Project, bus: EventBus, nats_server: NatsServer, durable: str | None
) -> None:
    project.write(app(0, durable))
    dev = await project.dev(url=nats_server.url)
    stage = project.stage

    async with Traffic(bus) as traffic:
        for version in range(1, 21):
            if version == 10:
                project.write("def broken(:")
                await dev.until_said("waiting for the next save")
                seen = len(traffic.ids)
                await until(lambda: len(traffic.ids) > seen + 10)  # noqa: B023
            project.write(app(version, durable))
            await until(lambda now=version: newest(project) == now)
    await until(lambda: set(traffic.ids) <= set(stage.ids()), 15.0)

    assert set(traffic.ids) - set(stage.ids()) == set()
    assert dev.said().count("reloaded in") == 20
    assert "SyntaxError" in dev.said()


@pytest.mark.alone
async def test_new_code_handles_events_within_a_second_of_its_save(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(app(0))
    dev = await project.dev(url=nats_server.url)
    took, passed = [], []

    async with Traffic(bus) as traffic:
        await until(lambda: traffic.ids and newest(project) == 0)
        for version in range(1, 6):
            saved, watch = time.monotonic(), Stopwatch(dev.process.pid)
            project.write(app(version))
            await until(lambda now=version: newest(project) == now)
            handled = project.stage.effects("handled")[-1]["at"]
            took.append(watch.seconds(handled))
            passed.append(handled - saved)

    assert max(passed) < 10.0  # an event that waits for its ack_wait takes 30
    assert [seconds for seconds in took if seconds > 1.0] == []


async def test_an_unfinished_event_goes_to_the_new_code_at_once(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(SLOW.format(seconds=60))
    await project.dev(url=nats_server.url)
    published = await bus.publish("message.received", MESSAGE)
    await project.stage.until_effects(1, "begun")

    project.write(SLOW.format(seconds=0))

    await project.stage.until_effects(1, "handled", timeout=5)
    assert [published.id] * 2 == project.stage.ids("begun")
    assert [published.id] == project.stage.ids()


async def test_what_comes_while_the_code_is_broken_waits_for_the_next_save(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(app(0))
    dev = await project.dev(url=nats_server.url)
    project.write("import nothing_of_that_name")
    await dev.until_said("waiting for the next save")
    published = await bus.publish("message.received", MESSAGE)

    project.write(app(1))

    await project.stage.until_effects(1, "handled")
    assert [published.id] == project.stage.ids()
    assert "No module named 'nothing_of_that_name'" in dev.said()


async def test_code_that_cannot_be_loaded_at_the_start_waits_as_well(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write("1 / 0")
    dev = project.spawn(url=nats_server.url)
    await dev.until_said("waiting for the next save")

    project.write(app(1))

    await dev.until_said("reloaded in")
    assert "ZeroDivisionError" in dev.said()


async def test_a_child_that_crashes_is_said_and_the_next_save_goes_on(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    crash = "\n\n@app.on('custom.other', durable='c')\nasync def crash(event):\n"
    project.write(app(0) + crash + "    asyncio.get_running_loop().call_later(0.1, os._exit, 3)\n")
    dev = await project.dev(url=nats_server.url)
    await bus.publish("custom.other", {})
    await dev.until_said("ended by itself (exit code 3)")
    published = await bus.publish("message.received", MESSAGE)

    project.write(app(1))

    await project.stage.until_effects(1, "handled")
    assert [published.id] == project.stage.ids()


async def test_only_the_child_imports_the_app(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(app(0))
    dev = await project.dev(url=nats_server.url)
    project.write(app(1))
    await dev.until_said("reloaded in")

    imports = project.stage.effects("imported")
    assert [one["version"] for one in imports] == [0, 1]
    assert len({dev.process.pid, *(one["pid"] for one in imports)}) == 3


async def test_what_git_ignores_and_data_files_change_nothing(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    (project.folder / ".gitignore").write_text("generated/\n")
    (project.folder / "generated").mkdir()
    project.write(app(0))
    dev = await project.dev(url=nats_server.url)

    (project.folder / "generated" / "code.py").write_text("x = 1")
    (project.folder / "data.json").write_text("{}")
    project.write(app(1))

    await dev.until_said("reloaded in")
    assert "changed: play.py\n" in dev.said()
    assert [one["version"] for one in project.stage.effects("imported")] == [0, 1]


async def test_only_the_watched_folders_count(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    (project.folder / "lib").mkdir()
    project.write(app(0))
    dev = await project.dev("--watch", "lib", url=nats_server.url)

    project.write(app(1))
    (project.folder / "lib" / "code.py").write_text("x = 1")

    await dev.until_said("reloaded in")
    assert "changed: lib/code.py\n" in dev.said()
    assert "play.py" not in dev.said()


async def test_a_file_elsewhere_is_run_and_watched(
    project: Project,
    bus: EventBus,
    nats_server: NatsServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("bots") / "echo.py"
    project.write(app(0, "r1"), file)
    dev = await project.dev(url=nats_server.url, target=str(file))

    project.write(app(1, "r1"), file)

    await dev.until_said("reloaded in")
    await bus.publish("message.received", MESSAGE)
    await until(lambda: newest(project) == 1)
    assert f"watching ., {file.parent} for changes" in dev.said()


async def test_a_file_that_is_not_there_yet_is_run_once_it_is(
    project: Project, nats_server: NatsServer
) -> None:
    dev = project.spawn(url=nats_server.url, target="echo.py:app")
    await dev.until_said("no such file: echo.py; give its path from the current directory")

    project.write(app(1, "r1"), project.folder / "echo.py")

    await dev.until_said("reloaded in")


async def test_a_function_declared_twice_has_two_consumers(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    twice = app(0).replace("@app.on(", "@app.on('custom.other')\n@app.on(")
    project.write(twice.replace("durable=None", ""))
    await project.dev(url=nats_server.url)

    await bus.publish("message.received", MESSAGE, id="one")
    await bus.publish("custom.other", {}, id="two")

    await project.stage.until_effects(2, "handled")
    assert {"one", "two"} == set(project.stage.ids())


def newest(project: Project) -> int | None:
    """The version that handled the last event."""
    handled = project.stage.effects("handled")
    version: int | None = handled[-1]["version"] if handled else None
    return version


ROUTE = """
from omni_worker import Answer, Extension, Settings

app.settings = Settings(health_port={port})


class Version(Extension):
    def routes(self):
        return {{"/version": lambda request: Answer(body=b"{version}")}}


app.use(Version())
"""


async def test_routes_are_answered_at_the_port_by_the_code_as_it_is_now(
    project: Project, nats_server: NatsServer
) -> None:
    port = free_port()
    project.write(app(1, "routes") + ROUTE.format(version=1, port=port))

    def answer() -> bytes:
        try:
            return bytes(urllib.request.urlopen(f"http://127.0.0.1:{port}/version").read())
        except OSError:  # one process has ended, the next has not begun
            return b""

    await project.dev(url=nats_server.url)
    first = await asyncio.to_thread(answer)
    project.write(app(2, "routes") + ROUTE.format(version=2, port=port))

    assert first == b"1"
    await until(lambda: answer() == b"2")


async def test_a_file_that_the_code_writes_when_it_is_loaded_does_not_reload_it_without_end(
    project: Project, nats_server: NatsServer
) -> None:
    project.write('open("state.yaml", "w").write(str(time.time()))\n' + app(0))
    dev = project.spawn(url=nats_server.url)

    await dev.until_said("state.yaml changes at every reload: does your code", timeout=60)
    project.write(app(1))
    await until(lambda: project.stage.effects("imported")[-1]["version"] == 1, 60)

    before = dev.said().partition("changes at every reload")[0]
    assert before.count("changed: state.yaml") == brake.FREE


def test_reloads_pause_only_for_files_that_are_written_while_the_code_is_loaded() -> None:
    one, other = frozenset({Path("one.py")}), frozenset({Path("other.py")})
    reloads = brake.Brake()

    written = [reloads.pause(one, while_loading=True) for _ in range(9)]
    another = reloads.pause(other, while_loading=True)
    saved = [reloads.pause(one, while_loading=False) for _ in range(9)]

    assert written == [0, 0, 0, 0, 1, 2, 4, 5, 5]
    assert another == 0
    assert saved == [0] * 9
