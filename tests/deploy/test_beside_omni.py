"""The PM2 file for a worker beside Omni: it finds the virtual environment, and Omni's servers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .support import PM2_MISSING, ROOT, find_pm2, in_ci

if find_pm2() is None and not in_ci():
    pytest.skip(PM2_MISSING, allow_module_level=True)  # and node with it

FILE = ROOT / "examples" / "pm2" / "beside-omni.config.cjs"


def read(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Read the file as PM2 does, copied into a folder."""
    copied = folder / "ecosystem.config.cjs"
    copied.write_text(FILE.read_text())
    return subprocess.run(
        ["node", "-p", f"JSON.stringify(require({json.dumps(str(copied))}))"],
        env={"PATH": os.environ["PATH"], **variables}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def app_of(folder: Path, **variables: str) -> dict[str, Any]:
    """The one app that is in it."""
    done = read(folder, **variables)
    assert done.returncode == 0, done.stderr
    [app] = json.loads(done.stdout)["apps"]
    return dict(app)


def command_in(environment: Path) -> str:
    """A command in a virtual environment."""
    command = environment / "bin" / "omni-worker"
    command.parent.mkdir(parents=True)
    command.touch()
    return str(command)


def test_it_finds_the_command_in_the_environment_that_is_active_else_beside_it(
    tmp_path: Path,
) -> None:
    usual = command_in(tmp_path / "venv")
    found = [app_of(tmp_path)["script"]]
    better = command_in(tmp_path / ".venv")
    found.append(app_of(tmp_path)["script"])
    active = command_in(tmp_path / "elsewhere")
    found.append(app_of(tmp_path, VIRTUAL_ENV=str(tmp_path / "elsewhere"))["script"])

    assert found == [usual, better, active]


def test_it_says_where_it_looked_in_vain(tmp_path: Path) -> None:
    done = read(tmp_path)

    assert done.returncode != 0
    assert f"omni-worker is in none of {tmp_path}/.venv/bin/omni-worker" in done.stderr


def test_it_takes_omni_s_servers_and_holds_no_key(tmp_path: Path) -> None:
    command_in(tmp_path / ".venv")

    app = app_of(tmp_path, API_PORT="9000", OMNI_API_KEY="hunter2", APP="bot:app")

    assert (app["args"], app["cwd"]) == (["run", "bot:app"], str(tmp_path))
    assert app["env"]["NATS_URL"] == "nats://localhost:4222"
    assert app["env"]["OMNI_URL"] == "http://localhost:9000"
    assert app["kill_timeout"] >= (int(app["env"]["OMNI_WORKER_GRACE"]) + 5) * 1000
    assert "hunter2" not in json.dumps(app)
