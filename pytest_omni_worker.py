"""The pytest plugin: fixtures for testing apps. It is outside of the package, which pytest would
otherwise import at every start; each fixture imports what it needs on first use.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from omni_worker.nats_server import NatsServer
    from omni_worker.testing import MemoryServer, TestWorker

INI = "omni_worker_app"
MARKER = "omni_worker"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini option of the app."""
    parser.addini(INI, "The app of the `worker` fixture, as `myapp:app`.", default="")


def pytest_configure(config: pytest.Config) -> None:
    """The marker of the app, for --strict-markers and --markers."""
    config.addinivalue_line(
        "markers", f"{MARKER}(app, **options): the app of the `worker` fixture, or 'myapp:app'."
    )


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """A real nats-server for the whole run: a random port, data that goes with it, `url`."""
    from omni_worker.nats_server import NatsServer

    with NatsServer() as server:
        yield server


@pytest.fixture
def memory_server() -> MemoryServer:
    """A JetStream in memory, empty at the start of each test."""
    from omni_worker.testing import MemoryServer

    return MemoryServer()


@pytest.fixture
def worker(request: pytest.FixtureRequest, memory_server: MemoryServer) -> TestWorker:
    """The app of the marker or of the ini option, running while the test runs.

    Further arguments of the marker are TestWorker's: ``omni_worker(app, raise_errors=True)``.
    """
    from omni_worker.testing import TestWorker

    app, options = _wanted(request)
    return TestWorker(_loaded(app, request.config), server=memory_server, **options)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Enter the `worker` fixture inside the test's own task, whichever plugin runs that."""
    arguments = getattr(item, "funcargs", {})
    if "worker" not in arguments or not _is_ours(arguments["worker"]):
        return (yield)
    assert isinstance(item, pytest.Function)
    test = item.obj
    if not inspect.iscoroutinefunction(test):
        pytest.fail(f"{item.name} asks for `worker`: make it an async def test", pytrace=False)
    item.obj = _inside(arguments["worker"], test)
    try:
        return (yield)
    finally:
        item.obj = test


def _inside(worker: TestWorker, test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def run(*positional: Any, **named: Any) -> None:
        async with worker:
            await test(*positional, **named)

    return run


def _is_ours(worker: object) -> bool:
    kit = sys.modules.get("omni_worker.testing")
    return kit is not None and isinstance(worker, kit.TestWorker)


def _wanted(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    marker = request.node.get_closest_marker(MARKER)
    if marker is None:
        app, options = request.config.getini(INI), {}
    else:
        app, options = (
            (marker.args[0] if marker.args else request.config.getini(INI)),
            marker.kwargs,
        )
    if not app:
        pytest.fail(
            f"the fixture `worker` needs an app: {INI} = myapp:app in the pytest configuration,"
            f" or @pytest.mark.{MARKER}(app) at the test",
            pytrace=False,
        )
    return app, dict(options)


def _loaded(app: Any, config: pytest.Config) -> Any:
    """The app itself, or the one that `module:name` or a package leads to, as for our commands."""
    from omni_worker import App

    if isinstance(app, App):
        return app
    from omni_worker.cli.app_loader import CannotLoad, load_app

    try:
        return load_app(str(app), config.rootpath)
    except CannotLoad as error:
        pytest.fail(str(error), pytrace=False)
