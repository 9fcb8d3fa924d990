"""`omni-worker run`: load the app and run it in this process, or in several."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import click

from ...app import App
from ...bus import EventBus
from ...errors import ConfigError
from ...handler_consumers import is_shared
from ...listeners.configuration import FORMATS, Format, configure, information
from ...listeners.logs import LOG_RUNS
from ...parts import chosen
from ...process.collector import calm_collector
from ...process.exit_codes import CALLED_WRONGLY, FAILED
from ...process.main import emit_ready, leave, run_with_ports
from ...process.notify import Notify
from ...process.ports import LOOPBACK, Ports
from ...process.worker import run_worker, warn_of_short_kill
from ...settings import Settings
from .. import complain
from ..app_loader import CannotLoad, load_app
from ..common_options import given
from ..environment import warn_of_unknown_variables
from ..handler_list import handler_list
from ..named_target import named
from ..session import settings_of
from ..workers import number_lines, own_number, siblings, workers_command

log = logging.getLogger("omni_worker.worker")


@click.command("run")
@click.argument("target", metavar="MODULE[:APP]")
@click.option(
    "--log-format", type=click.Choice(FORMATS),
    help="auto (default): what the app has set up, else pretty on a terminal, else json.",
)  # fmt: skip
@click.option("--log-level", metavar="LEVEL", help="debug, info (default), warning …")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 256), metavar="N",
    envvar="OMNI_WORKER_WORKERS",
    help="Number of processes, under a parent that restarts those that die.",
)  # fmt: skip
@click.option(
    "--health-port", type=click.IntRange(0, 65_535), metavar="PORT",
    envvar="OMNI_WORKER_HEALTH_PORT",
    help="Answer /healthz, /readyz and /metrics on this port; 0 takes a free one.",
)  # fmt: skip
@click.option(
    "--health-host", envvar="OMNI_WORKER_HEALTH_HOST", metavar="HOST",
    help="Answer on this address (127.0.0.1); 0.0.0.0 for other machines.",
)  # fmt: skip
@click.option(
    "--metrics-port", type=click.IntRange(0, 65_535), metavar="PORT",
    envvar="OMNI_WORKER_METRICS_PORT",
    help="Answer /metrics on a port of its own, not on the health port.",
)  # fmt: skip
@click.option(
    "--only", multiple=True, metavar="HANDLER",
    help="Run this handler, by durable or function; may be repeated.",
)  # fmt: skip
@click.option(
    "--except", "without", multiple=True, metavar="HANDLER",
    help="Run every handler but this one; may be repeated.",
)  # fmt: skip
def command(
    target: str, log_format: Format | None, log_level: str | None,
    workers: int, health_port: int | None, health_host: str | None, metrics_port: int | None,
    only: tuple[str, ...], without: tuple[str, ...],
) -> int:  # fmt: skip
    """Run the handlers of an app until SIGTERM, SIGHUP or Ctrl-C.

    MODULE:APP is where the App object lives: `myapp:app`, `shop.workers:app`; without APP it is
    looked for in MODULE, MODULE.app and MODULE.worker. MODULE may be a file: `bots/echo.py`,
    `bots/echo.py:app`. When asked to stop, running handlers may finish within OMNI_WORKER_GRACE
    (30 s); events that have not started are handed back at once. A second signal stops at once, and
    so does the grace plus 5 s if a handler blocks the loop.

    Exit codes: 0 stopped, 1 failed, 2 called wrongly, 130 stopped at once.
    """
    if log_level is not None and not isinstance(logging.getLevelName(log_level.upper()), int):
        complain(f"--log-level {log_level}: expected debug, info, warning or error")
        return CALLED_WRONGLY
    if workers > 1:
        ports = Ports(host=health_host or LOOPBACK, health=health_port, metrics=metrics_port)
        words = [target, *_repeated("--only", only), *_repeated("--except", without)]
        return workers_command(words, log_format, log_level, workers, ports)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what a handler prints shows, killed or not
    others = tuple(logging.getLogger().handlers)
    notify = Notify()  # before any code of the user's may start processes
    try:
        app = load_app(target, given().app_dir)
        settings = settings_of(app, given().server)
        aside = chosen(app.declarations, only, without)[1]
    except (CannotLoad, ConfigError) as error:
        complain(str(error))
        return CALLED_WRONGLY
    if not app.handlers:
        complain(f"{target} has no handlers: declare one with @app.on(...)")
        return CALLED_WRONGLY
    written = configure(settings, format=log_format, level=log_level, others=others)
    if logging.getLogger("omni_worker.events").isEnabledFor(logging.DEBUG):
        app.listeners.append(LOG_RUNS)
    as_json = written != "pretty"
    number = own_number()
    if number is not None and written is not None:
        number_lines(number)
    if number in (None, "1"):  # the others would log the same
        warn_of_unknown_variables()
        warn_of_short_kill(os.environ, settings.grace)
    ports = _ports(settings, number, health_host, health_port, metrics_port)
    if aside:
        log.info("not run here: %s", ", ".join(one.shown for one in aside))
    worker = partial(
        run_worker, app, settings=settings, on_ready=lambda bus: _say_ready(bus, as_json),
        notify=notify, only=only, without=without, explain=lambda error: named(error, target),
    )  # fmt: skip
    return _run(app, settings, notify, ports, worker)


def _ports(
    settings: Settings, number: str | None, host: str | None, health: int | None,
    metrics: int | None,
) -> Ports:  # fmt: skip
    """Return the ports of the command line, else of the settings; a parent has them for all."""
    said = Ports.of(settings)
    if number is not None:
        return Ports(host=said.host, health=None, metrics=None, at_parent=True)
    return Ports(
        host=host or said.host,
        health=said.health if health is None else health,
        metrics=said.metrics if metrics is None else metrics,
    )


def _repeated(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _run(
    app: App,
    settings: Settings,
    notify: Notify,
    ports: Ports,
    worker: Callable[..., Coroutine[Any, Any, int]],
) -> int:
    calm_collector()
    try:
        code = run_with_ports(
            app,
            settings,
            ports,
            lambda health, router: worker(health=health, router=router),
            on_look=notify.alive,
        )
    except ConfigError as error:
        complain(str(error))
        return FAILED
    leave(code)
    return code


def _say_ready(bus: EventBus, as_json: bool) -> None:
    number = own_number()
    if not as_json and number in (None, "1"):
        click.echo(handler_list(bus), file=information())
    for subscription in bus.subscriptions:
        for source in subscription.sources:
            fields = {"omni_consumer": source.consumer, "omni_stream": source.stream}
            log.debug("bound", extra=fields)
    emit_ready(bus)
    lonely = [one.handler.function for one in bus.subscriptions if not is_shared(one.handler)]
    if lonely and as_json and number == "1":  # for people the list of handlers has it
        log.warning(
            "each of the %d workers sees every event of %s: no durable, no queue",
            siblings(), ", ".join(lonely),
        )  # fmt: skip
