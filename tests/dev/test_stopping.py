"""Stopping dev: once in good order, twice at once, and nothing stays behind."""

from __future__ import annotations

from pathlib import Path

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer

from ..operations.support import Terminal
from ..waiting import until
from .support import Project
from .test_reload import MESSAGE, SLOW

BLOCKED = """
app = App("router")


@app.on("message.received")
async def route(event):
    effect("begun", id=event.id, pid=os.getpid())
    {block}
"""


async def test_one_ctrl_c_lets_a_running_handler_finish(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(SLOW.format(seconds=1))
    dev = await project.dev(url=nats_server.url)
    await bus.publish("message.received", MESSAGE)
    await project.stage.until_effects(1, "begun")

    code = await dev.stop()

    assert code == 0
    assert len(project.stage.ids()) == 1


async def test_a_second_ctrl_c_stops_now(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(SLOW.format(seconds=60))
    dev = await project.dev(url=nats_server.url)
    await bus.publish("message.received", MESSAGE)
    await project.stage.until_effects(1, "begun")
    dev.interrupt()
    await dev.until_said("stopping")

    dev.interrupt()

    assert await dev.exit(5.0) == 130
    assert project.stage.ids() == []


DEBUGGED = """
app = App("router")


@app.on("message.received")
async def route(event):
    breakpoint()
    print("went", "on")
"""


async def test_ctrl_c_after_a_breakpoint_stops_dev_and_opens_no_debugger(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(DEBUGGED)
    effects = str(project.folder / "effects.jsonl")
    with Terminal(
        nats_server.url, project.folder, "dev", "play", EFFECTS=effects, WORKER="dev"
    ) as terminal:
        terminal.until("ready: ")
        await bus.publish("message.received", MESSAGE)
        terminal.until("(Pdb) ")
        terminal.type("continue\n")
        terminal.until("went on")

        terminal.type("\x03")

        assert terminal.ended() == 0
        assert terminal.shown.count("(Pdb)") == 1


async def test_a_blocked_loop_is_killed_when_the_code_changes(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(BLOCKED.format(block="time.sleep(60)"))
    dev = await project.dev(url=nats_server.url)
    await bus.publish("message.received", MESSAGE)
    await project.stage.until_effects(1, "begun")
    blocked = project.stage.effects("begun")[0]["pid"]

    project.write(BLOCKED.format(block="pass"))

    await dev.until_said("It is killed")
    await dev.until_said("reloaded in")
    assert not is_alive(blocked)


async def test_nothing_stays_behind_when_dev_is_killed(project: Project) -> None:
    project.write(BLOCKED.format(block="pass"))
    dev = await project.dev("--ephemeral", "--port", "0")
    below = children(dev.process.pid)
    # The server, and the template with its child.
    below |= {one for pid in below for one in children(pid)}

    dev.process.kill()

    await until(lambda: not any(is_alive(pid) for pid in below))
    assert len(below) == 3


def children(pid: int) -> set[int]:
    """The processes it started."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(one) for file in found for one in file.read_text().split()}


def is_alive(pid: int) -> bool:
    """Whether it still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
