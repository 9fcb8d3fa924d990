"""`omni-worker run`: load the app, run it in this process, say what happens."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import click

from ..bus import EventBus
from ..errors import ConfigError
from ..logs import LogObserver, set_up_logging
from ..settings import Settings
from ..worker import run_worker
from . import CALLED_WRONGLY, complain
from .listing import listing
from .loading import CannotLoad, load_app

log = logging.getLogger("omni_worker.worker")

LAST_WAIT = 1.0  # seconds for what was cancelled to end


def run_command(target: str, log_format: str | None, log_level: str) -> int:
    """Returns the exit code."""
    if not isinstance(logging.getLevelName(log_level.upper()), int):
        complain(f"--log-level {log_level}: expected debug, info, warning or error")
        return CALLED_WRONGLY
    try:
        app = load_app(target)
        settings = app.settings or Settings()
    except (CannotLoad, ConfigError) as error:
        complain(str(error))
        return CALLED_WRONGLY
    if not app.handlers:
        complain(f"{target} has no handlers: declare one with @app.on(...)")
        return CALLED_WRONGLY
    set_up_logging(log_format, log_level)
    if app.observer is None and logging.getLogger("omni_worker.events").isEnabledFor(logging.DEBUG):
        app.observer = LogObserver()
    as_json = log_format == "json" or (log_format is None and not sys.stderr.isatty())

    def ready(bus: EventBus) -> None:
        _say_ready(bus, as_json)

    code = run_loop(lambda: run_worker(app, settings=settings, on_ready=ready))
    _leave(code)
    return code


def run_loop(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run on uvloop where there is one."""
    factory = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_to_its_end(main))


async def _to_its_end(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """A handler that swallows its cancellation must not keep the process: a loop waits for it."""
    code = await main()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left and (await asyncio.wait(left, timeout=LAST_WAIT))[1]:
        _exit_now(code)
    return code


def _say_ready(bus: EventBus, as_json: bool) -> None:
    if not as_json:
        click.echo(listing(bus), err=True)
    for subscription in bus.subscriptions:
        for source in subscription.sources:
            log.debug("bound", extra={"consumer": source.consumer, "stream": source.stream})
    log.info(
        "ready",
        extra={"handlers": len(bus.subscriptions), "pid": os.getpid()}
        | ({"consumers": _consumers(bus)} if as_json else {}),
    )


def _consumers(bus: EventBus) -> list[dict[str, Any]]:
    return [
        {
            "handler": subscription.handler.name,
            "function": subscription.handler.function,
            "stream": source.stream,
            "consumer": source.consumer,
            "subjects": list(subscription.handler.filters),
        }
        for subscription in bus.subscriptions
        for source in subscription.sources
    ]


def _leave(code: int) -> None:
    """A handler's stuck thread must not keep the process after its grace."""
    others = [one for one in threading.enumerate() if one is not threading.main_thread()]
    if any(not one.daemon for one in others):
        _exit_now(code)


def _exit_now(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
