"""Dev's variables: those of `.env` where they are not set, and again after each of its saves."""

from __future__ import annotations

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer

from .support import Project

APP = """
from omni_worker import Settings

app = App("shop", settings=Settings(urls={url!r}) if {url!r} else None)

@app.on("custom.order", durable="orders")
async def order(event):
    effect("handled", colour=os.environ.get("COLOUR"), size=os.environ.get("SIZE"))
"""


async def seen(project: Project, bus: EventBus, count: int) -> tuple[str | None, str | None]:
    """Return what the handler sees in its nth run, after an event was published."""
    await bus.publish("custom.order")
    await project.stage.until_effects(count, "handled")
    last = project.stage.effects("handled")[-1]
    return last["colour"], last["size"]


async def test_variables_are_those_of_dot_env_after_every_save_of_it(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    (project.folder / ".gitignore").write_text(".env\n")
    (project.folder / ".env").write_text(f"COLOUR=red\nNATS_URL={nats_server.url}\n")
    project.write(APP.format(url=None))
    dev = await project.dev("--no-dashboard")

    first = await seen(project, bus, 1)
    (project.folder / ".env").write_text(f"SIZE=8\nNATS_URL={nats_server.url}\n")
    await dev.until_said("reloaded in")
    second = await seen(project, bus, 2)

    assert (first, second) == (("red", None), (None, "8"))
    assert f"using {nats_server.url} (NATS_URL in .env)" in dev.said()
    assert "changed: .env" in dev.said()
    assert await dev.stop() == 0


async def test_a_file_outside_of_what_is_watched_counts_and_what_is_set_wins(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    inside = project.folder / "inside"
    inside.mkdir()
    (project.folder / "my.env").write_text("COLOUR=red\nWORKER=overwritten\n")
    project.write(APP.format(url=None))
    arguments = ("--no-dashboard", "--env-file", "my.env", "--watch", "inside")
    dev = await project.dev(*arguments, url=nats_server.url)

    first = await seen(project, bus, 1)
    (project.folder / "my.env").write_text("COLOUR=blue\n")
    await dev.until_said("reloaded in")
    second = await seen(project, bus, 2)

    assert (first, second) == (("red", None), ("blue", None))
    assert {one["worker"] for one in project.stage.effects()} == {"dev-1"}
    assert await dev.stop() == 0


async def test_the_server_of_the_command_line_wins_over_the_app_s_own(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(APP.format(url="nats://127.0.0.1:1"))
    dev = await project.dev("--no-dashboard", "--server", nats_server.url)

    await seen(project, bus, 1)

    assert f"using {nats_server.url} (--server)" in dev.said()
    assert await dev.stop() == 0


async def test_an_app_in_another_directory_is_watched_there(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    elsewhere = project.folder.with_name(f"{project.folder.name}-elsewhere")
    elsewhere.mkdir()
    project.write(APP.format(url=None))
    (elsewhere / "play.py").write_text((project.folder / "play.py").read_text())
    (elsewhere / "effects.py").write_text((project.folder / "effects.py").read_text())
    (project.folder / "play.py").unlink()
    dev = await project.dev("--no-dashboard", "--app-dir", str(elsewhere), url=nats_server.url)

    (elsewhere / "more.py").write_text("")

    await dev.until_said("reloaded in")
    await seen(project, bus, 1)
    assert await dev.stop() == 0
