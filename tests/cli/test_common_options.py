"""`--server`, `--app-dir`, `--env-file`: on every command that has a use for them."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from omni_worker.nats_server import NatsServer
from tests.processes.support import Stage

from .support import Said, call
from .test_help import EVERY

NOWHERE = "nats://127.0.0.1:1"
OFFLINE = {
    "init", "server", "check", "show", "asyncapi", "schemas dump", "completion", "version",
}  # fmt: skip
APP = "from omni_worker import App\napp = App('shop')\n"


def options(command: click.Command) -> set[str]:
    return {name for one in command.params for name in one.opts if name.startswith("--")}


@pytest.mark.parametrize(
    "name", [name for name, one in EVERY.items() if not isinstance(one, click.Group)]
)
def test_a_command_that_talks_to_a_server_takes_its_url(name: str) -> None:
    taken = options(EVERY[name])

    assert ("--server" in taken) == (name not in OFFLINE)
    loads = any(one.name == "target" for one in EVERY[name].params)
    assert ("--app-dir" in taken) == loads
    assert ("--env-file" in taken) == (loads or name not in OFFLINE)
    assert len([one.name for one in EVERY[name].params]) == len(
        {one.name for one in EVERY[name].params}
    )


# --- --server -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", ["status", "status play:app", "plan play:app", "dead-letters list --app play:app"]
)
def test_the_server_of_the_command_line_wins_over_the_environment_and_the_app_s_own(
    tmp_path: Path, nats_server: NatsServer, words: str
) -> None:
    (tmp_path / "play.py").write_text(
        "from omni_worker import App, Settings\n"
        f"app = App('shop', settings=Settings(urls='{NOWHERE}'))\n"
    )

    ended = call(*words.split(), "--server", nats_server.url, folder=tmp_path, NATS_URL=NOWHERE)

    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize(
    "words", [["--server={}", "status"], ["dead-letters", "--server", "{}", "list"]]
)
def test_the_server_may_stand_ahead_of_the_command(
    tmp_path: Path, nats_server: NatsServer, words: list[str]
) -> None:
    words = [one.format(nats_server.url) for one in words]

    ended = call(*words, folder=tmp_path, NATS_URL=NOWHERE)

    assert (ended.code, ended.err) == (0, "")


def test_publish_takes_it_as_well(tmp_path: Path, nats_server: NatsServer) -> None:
    words = ["publish", "custom.order", "--data", "1", "--server", nats_server.url]

    ended = call(*words, folder=tmp_path, NATS_URL=NOWHERE)

    assert ended.code == 0
    assert ended.out.startswith("custom.order stored: CUSTOM #1")


@pytest.mark.parametrize("workers", [1, 2])
async def test_run_works_on_it_and_so_does_each_of_several_workers(
    tmp_path: Path, nats_server: NatsServer, workers: int
) -> None:
    with Stage(tmp_path, NOWHERE) as stage:
        target = stage.app(
            f"""
            from omni_worker import Settings
            app = App("shop", settings=Settings(urls="{NOWHERE}"))

            @app.on("custom.order", durable="orders")
            async def order(event):
                effect("handled", id=event.id)
            """
        )
        spread = ["--workers", str(workers)] if workers > 1 else []
        worker = stage.spawn(target, "--server", nats_server.url, *spread)
        await worker.until_said("all 2 workers are ready" if workers > 1 else "ready")
        words = ["publish", "custom.order", "--data", "1", "--server", nats_server.url]

        call(*words, folder=tmp_path)

        await stage.until_effects(1, "handled")


@pytest.mark.parametrize("url", ["http://shop:s3cret@localhost", "nats://", "nats://a:b:c", ""])
def test_what_is_no_url_of_a_server_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    ended = call("status", "--server", url, folder=tmp_path)

    assert ended.code == 2
    assert "'--server': expected nats://, tls://, ws:// or wss://host:port" in ended.line
    assert "s3cret" not in ended.err


# --- --app-dir ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("services/play.py", ["play:app", "--app-dir", "services"]),
        ("services/src/play.py", ["play:app", "--app-dir", "services"]),
        ("src/play.py", ["play:app"]),
        ("src/play/__init__.py", ["play:app"]),
        ("src/play/workers.py", ["play.workers:app"]),
    ],
)
def test_an_app_in_another_directory_or_in_src_is_found(
    tmp_path: Path, file: str, arguments: list[str]
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(APP)

    ended = call("show", *arguments, folder=tmp_path)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("shop (play")


def test_the_current_directory_goes_before_its_src(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/play.py").write_text("raise ValueError('the other one')")
    (tmp_path / "play.py").write_text(APP)

    ended = call("show", "play:app", folder=tmp_path)

    assert ended.code == 0


def test_a_module_that_is_not_in_the_directory_is_reported_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "play.py").write_text(APP)

    ended = call("show", "play:app", "--app-dir", "services", folder=tmp_path)

    assert ended.code == 2
    assert "no such module: 'play' (looked in services and on the Python path)" in ended.line


# --- --env-file ---------------------------------------------------------------------------------


def shown_retries(ended: Said) -> int:
    """The setting OMNI_WORKER_MAX_RETRIES, as a handler's variables had it on import."""
    found: int = json.loads(ended.out)["handlers"][0]["options"]["max_retries"]
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An app whose code reads a variable when it is imported."""
    (tmp_path / "play.py").write_text(
        "import os\nfrom omni_worker import App\napp = App('shop')\n"
        "@app.on('custom.order', durable='r1', max_retries=int(os.environ.get('TRIES', 7)))\n"
        "async def order(event): ...\n"
    )
    return tmp_path


def test_variables_come_from_a_file_and_the_environment_wins(project: Path) -> None:
    (project / "staging.env").write_text("# for staging\nexport TRIES='2'\nEMPTY\n")

    from_file = call("show", "play:app", "--json", "--env-file", "staging.env", folder=project)
    from_both = call(
        "show", "play:app", "--json", "--env-file", "staging.env", folder=project, TRIES="3"
    )

    assert shown_retries(from_file) == 2
    assert shown_retries(from_both) == 3


def test_a_file_sets_what_is_an_option_too(tmp_path: Path, nats_server: NatsServer) -> None:
    (tmp_path / "my.env").write_text(f"NATS_URL={nats_server.url}\n")

    ended = call("status", "--env-file", "my.env", folder=tmp_path)

    assert (ended.code, ended.err) == (0, "")


def test_only_dev_reads_dot_env_unasked(project: Path) -> None:
    (project / ".env").write_text("TRIES=2\n")

    ended = call("show", "play:app", "--json", folder=project)

    assert shown_retries(ended) == 7


def test_a_file_that_does_not_exist_or_is_not_text_is_refused(project: Path) -> None:
    (project / "bytes.env").write_bytes(b"A=\xff\xfe")

    missing = call("show", "play:app", "--env-file", "nosuch.env", folder=project)
    binary = call("show", "play:app", "--env-file", "bytes.env", folder=project)

    assert (missing.code, binary.code) == (2, 2)
    assert "'nosuch.env' does not exist" in missing.line
    assert "bytes.env cannot be read: it is not UTF-8" in binary.line
