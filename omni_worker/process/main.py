"""Main: an app as the whole of a process, on a loop of its own, to its end."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from ..app import App
from ..bus import EventBus
from ..errors import ConfigError
from ..handler_consumers import shown_consumers
from ..listeners.configuration import configure
from ..metrics import PATH
from ..settings import Settings
from ..signals import Ready
from .collector import calm_collector
from .exit_codes import FAILED
from .health import Health, Report, health_routes
from .notify import Notify
from .ports import Ports, serving, use_metrics
from .router import Router
from .worker import ignore_late_signals, run_worker, warn_of_short_kill

log = logging.getLogger("omni_worker.worker")

LAST_WAIT = 1.0  # seconds for cancelled tasks to end


def run_app(app: App) -> int:
    """Run an app until it is asked to stop or cannot go on; returns the exit code.

    Raises ConfigError on a loop that runs already.
    """
    if asyncio._get_running_loop() is not None:
        raise ConfigError(
            "app.run() has a loop of its own; in a coroutine: async with app.running()"
        )
    settings = app.settings or Settings()
    configure(settings)
    warn_of_short_kill(os.environ, settings.grace)
    calm_collector()
    notify = Notify()
    try:
        code = run_with_ports(
            app,
            settings,
            Ports.of(settings),
            lambda health, router: run_worker(
                app, settings=settings, on_ready=emit_ready, health=health, notify=notify,
                router=router,
            ),
            on_look=notify.alive,
        )  # fmt: skip
    except ConfigError as error:
        log.error("%s", error)
        return FAILED
    _take_signals_again()
    return code


def run_with_ports(
    app: App,
    settings: Settings,
    ports: Ports,
    main: Callable[[Health, Router], Coroutine[Any, Any, int]],
    *,
    on_look: Callable[[Report], None] | None = None,
) -> int:
    """Run ``main`` on a loop of its own and answer at the app's ports; returns its exit code.

    Raises ConfigError, before anything runs, for a port that is taken and for a wrong route.
    """
    health = Health(on_look)
    metrics = use_metrics(app, settings, ports)
    router = Router(health_routes(health.report), app.routes())
    alone = Router({PATH: metrics.answer} if metrics is not None else {})
    with serving(ports, router, alone):
        return run_loop(lambda: main(health, router))


def emit_ready(bus: EventBus) -> None:
    """Emit that every handler runs, and from which consumers."""
    handlers, consumers = len(bus.subscriptions), _consumers(bus)
    bus.signals.emit(
        Ready(
            handlers=handlers, pid=os.getpid(), consumers=consumers,
            app=bus.name, server=bus.settings.shown_urls,
        )
    )  # fmt: skip


def _consumers(bus: EventBus) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "handler": subscription.handler.name,
            "function": subscription.handler.function,
            "stream": stream,
            "consumer": consumer,
            "subjects": list(subscription.handler.filters),
        }
        for subscription in bus.subscriptions
        for stream, consumer in shown_consumers(
            subscription.handler, [(one.stream, one.consumer) for one in subscription.sources]
        )
    )


def run_loop(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run ``main`` on an event loop, uvloop where it exists. Return its exit code."""
    # Before the loop runs: on a slow machine this import would block it until the watchdog warns.
    from ..transports import jetstream  # noqa: F401

    factory = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_to_its_end(main))


async def _to_its_end(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run ``main``; then exit even if a handler swallows its cancellation: a loop waits for it."""
    code = await main()
    ignore_late_signals()  # their handlers go with the loop
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left and (await asyncio.wait(left, timeout=LAST_WAIT))[1]:
        _exit_now(code)
    return code


def _take_signals_again() -> None:
    """Drop late repeats of the request to stop: the program goes on, and may be stopped itself."""
    if hasattr(signal, "pthread_sigmask"):
        ours = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        for _ in signal.sigpending() & ours:
            signal.sigwait(ours)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)


def leave(code: int) -> None:
    """Let the interpreter end and run ``atexit``; exit anyway if a handler's thread is stuck.

    Idle pools end at once. A stuck thread must not keep the process after its grace.
    """
    others = [one for one in threading.enumerate() if one is not threading.main_thread()]
    if all(one.daemon for one in others):
        return
    limit = threading.Timer(LAST_WAIT, _exit_now, (code,))
    limit.daemon = True
    # Registered last, so called first: threads are joined by then, a flush may take its time.
    atexit.register(limit.cancel)
    limit.start()


def _exit_now(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
