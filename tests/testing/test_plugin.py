"""The pytest plugin, in test runs of its own: pytest-asyncio strict and auto, and anyio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

APP = """
from omni_worker import App, Event

app = App("greeter")

@app.on("custom.hello", durable="greeter")
async def greet(event: Event[dict]) -> None:
    if event.payload["name"] == "":
        raise ValueError("who?")
    await app.publish("custom.greeting", {"text": "Hello " + event.payload["name"]})
"""
TEST = """
async def test_a_greeting(worker) -> None:
    await worker.publish("custom.hello", {"name": "Ana"})
    await worker.settle()
    assert worker.published("custom.greeting")[0].payload == {"text": "Hello Ana"}
    assert worker.attempts("greet") == 1
"""
IMPORTS = "import asyncio\nimport pytest\nfrom myapp import app\n"
STRICT = "asyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
AUTO = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


# Hypothesis takes two thirds of the start of a pytest that does not use it.
SPARED = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")


class Project:
    """A user's project: an app, an ini file and tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "myapp.py").write_text(APP)

    def run(self, test: str, ini: str, *arguments: str) -> str:
        """Run its tests; what pytest said."""
        (self.folder / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{ini}")
        (self.folder / "test_it.py").write_text(IMPORTS + test)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *SPARED, *arguments],
            cwd=self.folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_in_auto_mode_the_app_comes_from_the_ini_file(project: Project) -> None:
    said = project.run(TEST, AUTO + "omni_worker_app = myapp:app\n")

    assert "1 passed" in said


def test_in_strict_mode_the_app_comes_from_the_marker(project: Project) -> None:
    marked = "\n@pytest.mark.asyncio\n@pytest.mark.omni_worker(app)" + TEST

    said = project.run(marked, STRICT + "addopts = --strict-markers\n")

    assert "1 passed" in said


def test_with_anyios_plugin(project: Project) -> None:
    marked = (
        "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n\n@pytest.mark.anyio" + TEST
    )

    said = project.run(marked, "omni_worker_app = myapp:app\n", "-p", "no:asyncio")

    assert "1 passed" in said


def test_in_a_class_with_other_fixtures_and_parameters(project: Project) -> None:
    test = """
class TestGreeting:
    @pytest.fixture
    async def prepared(self, memory_server):
        return memory_server

    @pytest.mark.parametrize("name", ["Ana", "Bo"])
    async def test_it(self, worker, prepared, name) -> None:
        assert worker.server is prepared
        await worker.publish("custom.hello", {"name": name})
        await worker.settle()
        assert len(worker.published()) == 1
"""

    said = project.run(test, AUTO + "omni_worker_app = myapp:app\n")

    assert "2 passed" in said


def test_options_of_the_marker_are_the_kits(project: Project) -> None:
    test = """
@pytest.mark.omni_worker(raise_errors=True)
async def test_it(worker) -> None:
    await worker.publish("custom.hello", {"name": ""})
    await worker.settle()
"""

    said = project.run(test, AUTO + "omni_worker_app = myapp:app\n")

    assert "myapp.py:9: ValueError" in said
    assert "1 failed" in said


def test_an_app_is_found_as_our_commands_find_it(project: Project) -> None:
    said = project.run(TEST, AUTO + "omni_worker_app = myapp\n")
    wrong = project.run(TEST, AUTO + "omni_worker_app = myapp:nosuch\n")

    assert "1 passed" in said
    assert "no App called 'nosuch' in module 'myapp'; it has app" in wrong


def test_without_an_app_it_says_where_to_name_one(project: Project) -> None:
    said = project.run(TEST, AUTO)

    assert "the fixture `worker` needs an app: omni_worker_app = myapp:app" in said


def test_a_plain_test_is_told_to_be_async(project: Project) -> None:
    test = "\ndef test_it(worker) -> None:\n    pass\n"

    said = project.run(test, AUTO + "omni_worker_app = myapp:app\n")

    assert "test_it asks for `worker`: make it an async def test" in said


def test_the_real_server_is_one_for_the_whole_run(project: Project) -> None:
    test = """
import omni_worker
ports = set()

@pytest.mark.parametrize("number", [1, 2])
async def test_it(nats_server, number) -> None:
    ports.add(nats_server.port)
    async with omni_worker.EventBus(nats_server.url) as bus:
        await bus.publish("custom.hello", {"name": "Ana"})
    assert len(ports) == 1
"""

    said = project.run(test, AUTO)

    assert "2 passed" in said


def test_who_uses_none_of_it_imports_none_of_it(project: Project) -> None:
    test = """
import sys
def test_it() -> None:
    assert "pytest_omni_worker" in sys.modules
    assert "omni_worker" not in sys.modules
    assert "pydantic" not in sys.modules
"""
    (project.folder / "myapp.py").write_text("app = None")

    said = project.run(test, AUTO)

    assert "1 passed" in said
