"""`omni-worker run`: load the app, run it in this process, say what happens."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import click

from ...bus import EventBus
from ...errors import ConfigError
from ...handler_consumers import is_shared
from ...listeners.logs import LOG_RUNS, set_up_logging
from ...process.collector import calm_collector
from ...process.exit_codes import CALLED_WRONGLY, FAILED
from ...process.health import Health, health_routes
from ...process.notify import Notify
from ...process.router import Router
from ...process.worker import run_worker, warn_of_short_kill
from ...settings import Settings
from ...signals import Ready
from .. import Probing, complain
from ..app_loader import CannotLoad, load_app
from ..environment import warn_of_unknown_variables
from ..handler_list import listing
from ..workers import number_lines, open_http, own_number, siblings, workers_command

log = logging.getLogger("omni_worker.worker")

LAST_WAIT = 1.0  # seconds for what was cancelled to end


def run_command(
    target: str,
    log_format: str | None,
    log_level: str,
    workers: int = 1,
    probing: Probing | None = None,
) -> int:
    """Returns the exit code."""
    if not isinstance(logging.getLevelName(log_level.upper()), int):
        complain(f"--log-level {log_level}: expected debug, info, warning or error")
        return CALLED_WRONGLY
    if workers > 1:
        return workers_command(target, log_format, log_level, workers, probing)
    notify = Notify()  # before any code of the user's may start processes
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
    if logging.getLogger("omni_worker.events").isEnabledFor(logging.DEBUG):
        app.listeners.append(LOG_RUNS)
    as_json = log_format == "json" or (log_format is None and not sys.stderr.isatty())

    def ready(bus: EventBus) -> None:
        _say_ready(bus, as_json)

    number = own_number()
    if number is not None:
        number_lines(number)
    if number in (None, "1"):  # the others would say the same
        warn_of_unknown_variables()
        warn_of_short_kill(os.environ, settings.grace)
    calm_collector()
    health = Health(notify.alive)
    router = Router(health_routes(health.report))
    try:
        server = open_http(probing, router)
    except ConfigError as error:
        complain(str(error))
        return FAILED
    try:
        code = run_loop(
            lambda: run_worker(
                app,
                settings=settings,
                on_ready=ready,
                health=health,
                notify=notify,
                router=router,
            )
        )
    finally:
        if server is not None:
            server.close()
    leave(code)
    return code


def run_loop(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run on uvloop where there is one."""
    # Now: on the loop it would take so long on a slow machine that the watchdog had to say so.
    from ...transports import jetstream  # noqa: F401

    factory = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_to_its_end(main))


async def _to_its_end(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """A handler that swallows its cancellation must not keep the process: a loop waits for it."""
    code = await main()
    if hasattr(signal, "pthread_sigmask"):
        # The handlers go with the loop: a late second signal would end us with a code of its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left and (await asyncio.wait(left, timeout=LAST_WAIT))[1]:
        _exit_now(code)
    return code


def _say_ready(bus: EventBus, as_json: bool) -> None:
    number = own_number()
    if not as_json and number in (None, "1"):
        click.echo(listing(bus), err=True)
    for subscription in bus.subscriptions:
        for source in subscription.sources:
            log.debug("bound", extra={"consumer": source.consumer, "stream": source.stream})
    bus.signals.emit(
        Ready(handlers=len(bus.subscriptions), pid=os.getpid(), consumers=_consumers(bus))
    )
    lonely = [one.handler.function for one in bus.subscriptions if not is_shared(one.handler)]
    if lonely and as_json and number == "1":  # the listing has said it to people
        log.warning(
            "each of the %d workers sees every event of %s: no durable, no queue",
            siblings(), ", ".join(lonely),
        )  # fmt: skip


def _consumers(bus: EventBus) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "handler": subscription.handler.name,
            "function": subscription.handler.function,
            "stream": source.stream,
            "consumer": source.consumer,
            "subjects": list(subscription.handler.filters),
        }
        for subscription in bus.subscriptions
        for source in subscription.sources
    )


def leave(code: int) -> None:
    """A handler's stuck thread must not keep the process after its grace."""
    others = [one for one in threading.enumerate() if one is not threading.main_thread()]
    if any(not one.daemon for one in others):
        _exit_now(code)


def _exit_now(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
