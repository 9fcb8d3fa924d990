"""The wheel: what is in it, and the project of `init` in a fresh environment made from it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from email.parser import HeaderParser
from pathlib import Path

import pytest

from omni_worker.nats_server import NatsServer

from ..processes.support import clean_environment
from ..waiting import wait_until
from .support import PM2_MISSING, ROOT, Pm2, find_pm2, in_ci

DOCKERFILE = ROOT / "examples" / "deploy" / "Dockerfile"


def run(
    *command: str | Path, cwd: Path, bin: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a command to its end, with programs of ``bin`` first; returns what it printed."""
    environment = {**clean_environment(), "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(env or {})}
    if bin is not None:
        environment["PATH"] = f"{bin}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as `make wheel` builds it."""
    folder = tmp_path_factory.mktemp("wheels")
    recipe = re.search(r"^wheel:.*\n\t@\$\(RUN\)/(.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    build = recipe[1].replace("--wheel-dir dist", f"--wheel-dir {folder}").split()
    run(Path(sys.executable).with_name(build[0]), *build[1:], cwd=ROOT)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def image(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the Dockerfile's pip installs, in an environment of its own."""
    folder = tmp_path_factory.mktemp("image")
    wheels = folder / "wheels"
    shutil.copytree(wheel.parent, wheels)
    (wheels / "requirements.txt").write_text("omni-worker[server]\npytest\n")
    run(sys.executable, "-m", "venv", ".venv", cwd=folder)
    [install] = re.findall(r"^RUN (pip install .*)$", DOCKERFILE.read_text(), re.M)
    run(*install.replace("--no-cache-dir ", "").split(), cwd=folder, bin=folder / ".venv" / "bin")
    return folder


def test_the_wheel_has_the_package_its_template_and_a_short_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [name for name in names if name.endswith("METADATA")]
        headers = HeaderParser().parsestr(archive.read(metadata).decode())

    templates = {path.name for path in (ROOT / "omni_worker" / "cli" / "template").iterdir()}
    assert {f"omni_worker/cli/template/{name}" for name in templates} <= names
    assert {"omni_worker/py.typed", "omni_worker_program.py", "pytest_omni_worker.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "examples/", "docs/"))]
    assert headers["License-Expression"] == "MIT"
    assert headers["License"] is None  # its whole text, in every listing of what is installed
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_a_project_is_installed_by_its_own_dependency_line_and_passes_its_test(
    image: Path,
) -> None:
    run("omni-worker", "init", "my-bot", cwd=image, bin=image / ".venv" / "bin")
    project = image / "my-bot"
    run(sys.executable, "-m", "venv", ".venv", cwd=project)
    bin = project / ".venv" / "bin"
    # As pip notes a wheel that was given by its path; by a name it came from an index.
    [wheel] = (image / "wheels").glob("*.whl")
    run("pip", "install", "-q", wheel, cwd=project, bin=bin)
    run("omni-worker", "init", "second", cwd=project, bin=bin)

    run("pip", "install", "-q", "-e", "./second[dev]", cwd=project, bin=bin)
    tested = run("python", "-m", "pytest", "-q", cwd=project / "second", bin=bin)

    assert f"omni-worker @ {wheel.as_uri()}" in (project / "second/pyproject.toml").read_text()
    assert 'dependencies = ["omni-worker~=0.1' in (project / "pyproject.toml").read_text()
    assert "4 passed" in tested


def test_pm2_finds_omni_worker_in_an_environment_beside_the_project(
    image: Path, nats_server: NatsServer
) -> None:
    program = find_pm2()
    if program is None:
        if in_ci():
            pytest.fail(PM2_MISSING)
        pytest.skip(PM2_MISSING)
    bin = image / ".venv" / "bin"
    run("omni-worker", "init", "answers", cwd=image, bin=bin)
    project = image / "answers"
    there = {"NATS_URL": nats_server.url}
    readme = (project / "README.md").read_text()
    publish = re.search(r"^omni-worker (publish .* \\\n.*)$", readme, re.M)
    assert publish is not None

    with Pm2(program, **there) as pm2:
        pm2.run("start", str(project / "ecosystem.config.cjs"))
        run("omni-worker", *publish[1].replace("\\\n", "").split(), cwd=project, bin=bin, env=there)

        def answers() -> str:
            tail = ["omni-worker", "tail", "custom.reply.queued", "--since", "1h", "--payloads"]
            return run(*tail, cwd=project, bin=bin, env=there)

        wait_until(lambda: "Hello to you, too!" in answers())
        assert len(pm2.pids("answers")) == 2
