"""Init: the project it writes passes its own test, and runs."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omni_worker import Event, EventBus
from omni_worker.cli.commands.init import programs
from omni_worker.cli.requirement import requirement
from omni_worker.nats_server import NatsServer

from ..processes.support import PROGRAM, Stage, clean_environment
from .test_reload import MESSAGE as HELLO


def init(folder: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`omni-worker init`."""
    return subprocess.run(
        [PROGRAM, "init", str(folder)], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_its_project_passes_its_own_test_and_every_file_is_used(tmp_path: Path) -> None:
    said = init(Path("my_bot"), tmp_path)

    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "my_bot",
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, tested.returncode) == (0, 0), tested.stdout
    assert "4 passed" in tested.stdout
    written = sorted(path.name for path in (tmp_path / "my_bot").iterdir() if path.is_file())
    assert written == [
        ".gitignore",
        "Procfile",
        "README.md",
        "app.py",
        "ecosystem.config.cjs",
        "hello.json",
        "pyproject.toml",
        "test_app.py",
    ]
    texts = [path.read_text() for path in (tmp_path / "my_bot").iterdir() if path.is_file()]
    assert not any("{{" in text for text in texts)


async def test_its_project_runs(tmp_path: Path, nats_server: NatsServer) -> None:
    init(Path(), tmp_path)
    command = (tmp_path / "Procfile").read_text()
    target = re.search(r"^worker: exec omni-worker run (\S+)$", command, re.M)
    assert target is not None

    with Stage(tmp_path, nats_server.url) as stage:
        worker = await stage.run(target[1])
        async with EventBus(nats_server.url) as bus:
            replies: asyncio.Queue[Event[Any]] = asyncio.Queue()
            await bus.subscribe("custom.reply.queued", replies.put)
            await bus.publish("message.received", HELLO, channel="whatsapp", instance="wa-001")
            reply = await asyncio.wait_for(replies.get(), 10)
        code = await worker.stop()

    assert reply.payload == {"chat_id": "chat-1", "text": "Hello to you, too!"}
    assert code == 0


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("precious")

    said = init(tmp_path, tmp_path)

    assert said.returncode == 2
    assert "app.py exists already; nothing was written" in " ".join(said.stderr.split())
    assert (tmp_path / "app.py").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["app.py"]


@pytest.mark.parametrize(
    ("folder", "name"), [("My Bot!", "my-bot"), ("…", "worker"), ("a.b", "a-b")]
)
def test_the_apps_name_is_one_the_server_takes(folder: str, name: str, tmp_path: Path) -> None:
    init(Path(folder), tmp_path)

    assert f'App("{name}")' in (tmp_path / folder / "app.py").read_text()


def test_omni_worker_beside_the_project_is_named_from_there_and_another_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "work" / "bot"
    beside, elsewhere = tmp_path / "work" / ".venv" / "bin", tmp_path / "tools" / "bin"

    monkeypatch.setattr("sysconfig.get_path", lambda name: str(beside))
    assert programs(project) == [".venv/bin/omni-worker", "../.venv/bin/omni-worker"]
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(elsewhere))
    assert programs(project) == [".venv/bin/omni-worker", f"{elsewhere}/omni-worker"]
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(project / ".venv" / "bin"))
    assert programs(project) == [".venv/bin/omni-worker"]


def test_a_requirement_leads_to_what_is_installed(tmp_path: Path) -> None:
    checkout = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    gone = {"url": (tmp_path / "gone.whl").as_uri(), "archive_info": {}}
    repository = {
        "url": "https://example.org/omni.git",
        "vcs_info": {"vcs": "git", "commit_id": "1a2b"},
        "subdirectory": "python",
    }

    assert requirement("0.1.0", None) == "omni-worker~=0.1.0"
    assert requirement("0.1.0", checkout, ("server",)) == (
        f"omni-worker[server] @ {tmp_path.as_uri()}"
    )
    assert requirement("0.1.0", gone) == "omni-worker~=0.1.0"
    assert requirement("0.1.0", repository) == (
        "omni-worker @ git+https://example.org/omni.git@1a2b#subdirectory=python"
    )
    assert requirement(None, None) == "omni-worker"
