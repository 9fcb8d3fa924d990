"""Fixtures every test may use, and what runs where: the sample, the order, tests in one group."""

from __future__ import annotations

import compileall
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from omni_worker.nats_server import NatsServer

from .sample import choose, describe, rank, rerun

# Before anybody imports it: its assertions explain themselves like a test file's.
pytest.register_assert_rewrite("tests.transports.suite")

# The first draw on a fresh machine makes tables of all of Unicode, which takes seconds.
# What else holds here, or in CI, stays as hypothesis has it.
settings.register_profile("patient", settings.default, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Started in the background of a script, a process ignores SIGINT, and under `nohup` SIGHUP; so do
# all it starts: the commands under test would hear neither Ctrl-C nor the terminal's end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Apps of tests are saved again within the second, and bytecode knows its source by second and size.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

LEFT = pytest.StashKey[str]()
# What takes seconds to make, is made once: tests that use it run in one process.
COSTLY_FIXTURES = ("browser", "large_server", "mypy", "wheel")
SERVER_FIXTURES = {"nats_server", "real_server"}


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A real nats-server of this test's own: nothing another test left behind is on it."""
    with NatsServer() as server:
        yield server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sample",
        action="store_true",
        help="as `make test`: leave some slow tests to `make check`",
    )
    parser.addoption(
        "--without-server",
        action="store_true",
        help="as `make newer`: leave tests on a real nats-server to `make check`",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        # Tests start hundreds of processes: compiling is a third of what it takes to start one.
        compileall.compile_dir(Path(__file__).parents[1] / "omni_worker", quiet=2)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the bytecode of test files, so that of many processes only the first rewrites them.

    What is collected stays to the end: the collector passes over it neither now nor in tests.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    gc.disable()
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = before
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--sample"):
        _leave_out(config, items)
    if config.getoption("--without-server"):
        config.hook.pytest_deselected(items=[item for item in items if _has_server(item)])
        items[:] = [item for item in items if not _has_server(item)]
    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))
    if hasattr(config, "workerinput"):  # one of several processes of pytest-xdist
        items.sort(
            key=lambda item: (item.get_closest_marker("xdist_group") is None, rank(item.nodeid))
        )


def _group(item: pytest.Item) -> str | None:
    """Return the name of those a test must run in one process with; None if it may run anywhere."""
    if item.get_closest_marker("alone"):
        return None if item.get_closest_marker("xdist_group") else "alone"
    fixtures = getattr(item, "fixturenames", ())
    return next((fixture for fixture in COSTLY_FIXTURES if fixture in fixtures), None)


def _has_server(item: pytest.Item) -> bool:
    """Return True for a test with a fixture that starts a server; `real_server` may be memory."""
    if SERVER_FIXTURES.isdisjoint(fixtures := getattr(item, "fixturenames", ())):
        return False
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return "real_server" not in fixtures or parameters.get("kind") != "memory"


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = choose(item.nodeid for item in items if not item.get_closest_marker("alone"))
    left = [item for item in items if item.nodeid not in chosen]
    if not left:
        return
    config.stash[LEFT] = describe((item.nodeid for item in left), len(items))
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item.nodeid in chosen]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = session.config.stash.get(LEFT, "")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    if left := getattr(node, "workeroutput", {}).get("left"):
        node.config.stash[LEFT] = left


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: below pytest's own summary
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Iterator[None]:
    yield
    stats = terminalreporter.stats
    failed = [one.nodeid for kind in ("failed", "error") for one in stats.get(kind, ())]
    left = config.stash.get(LEFT, "")
    for line in [left] * bool(left) + rerun(failed, _shortly(Path(sys.executable))):
        terminalreporter.write_line(line)


def _shortly(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
