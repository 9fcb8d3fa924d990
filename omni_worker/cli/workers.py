"""`omni-worker run --workers N`: the parent of N workers. It never imports the code they run."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from ..errors import ConfigError
from ..listeners.configuration import Format, chosen, set_up_logging
from ..listeners.logs import JsonFormatter
from ..process.exit_codes import CALLED_WRONGLY, DONE, FAILED
from ..process.health import health_routes
from ..process.notify import Notify
from ..process.parent_metrics import ParentMetrics
from ..process.parent_routes import parent_routes
from ..process.ports import Ports, serving, wants_metrics
from ..process.router import Router
from ..process.supervisor import Supervisor
from ..process.worker import Stop, ignore_late_signals
from ..settings import COUNT, NUMBER, Settings
from . import complain
from .common_options import given

log = logging.getLogger("omni_worker.supervisor")

PARENT = "*"


def workers_command(
    arguments: Sequence[str],
    log_format: Format | None,
    log_level: str | None,
    count: int,
    ports: Ports,
) -> int:
    """Run N workers until a signal, with these arguments of `run`. Return the exit code."""
    if sys.platform == "win32":
        complain("--workers needs Linux or macOS; start several processes instead")
        return CALLED_WRONGLY
    settings = _settings()
    # The parent has no app, so no logging of the app's own: its few lines are ours.
    shown = log_format or settings.log_format
    set_up_logging(chosen("auto" if shown == "none" else shown), log_level or settings.log_level)
    number_lines(PARENT)
    command = [sys.executable, "-m", "omni_worker_program", "run", *arguments]
    if log_level is not None:
        command += ["--log-level", log_level]
    if log_format is not None:
        command += ["--log-format", log_format]
    command += given().arguments()
    return asyncio.run(_supervise(command, count, ports))


async def _supervise(command: list[str], count: int, ports: Ports) -> int:
    stop = Stop()
    stop.listen()
    notify = Notify()  # before the children get their environment
    notify.listen(stop.ask)
    settings = _settings()
    stop.about = {"server": settings.shown_urls}
    try:
        has_metrics = ports.is_any and wants_metrics(settings.metrics, ports, {})
    except ConfigError as error:
        complain(str(error))
        return CALLED_WRONGLY
    supervisor = Supervisor(
        command,
        count,
        environment=_for_children(has_metrics=has_metrics),
        grace=settings.grace,
        stop=stop,
        on_ready=lambda: _ready(notify, count),
        on_report=notify.alive,
    )
    router = Router(health_routes(supervisor.report), parent_routes(supervisor))
    alone = Router()
    if has_metrics:
        metrics = ParentMetrics(supervisor).routes()
        (router if ports.metrics is None else alone).add(metrics)
    try:
        with serving(ports, router, alone):
            return await _run(supervisor, stop, notify, (router, alone))
    except ConfigError as error:
        complain(str(error))
        return FAILED


async def _run(
    supervisor: Supervisor, stop: Stop, notify: Notify, routers: tuple[Router, ...]
) -> int:
    for router in routers:
        router.open()
    telling = asyncio.create_task(_tell_stopping(stop, notify))
    try:
        code = await supervisor.run()
    finally:
        ignore_late_signals()  # every worker has ended
        telling.cancel()
        notify.close()
        for router in routers:
            router.close()
    if code == DONE:
        stop.ended(log)
    return code


def _settings() -> Settings:
    """Return the settings of the environment; the app's own are known to the workers alone."""
    try:
        return Settings()
    except ConfigError:  # each worker says what is wrong
        return Settings.model_construct()


def own_number() -> str | None:
    """Number of this worker among several; None if it is the only one."""
    return os.environ.get(NUMBER)


def siblings() -> int:
    """Count the workers of our parent, this one included."""
    return int(os.environ.get(COUNT, "1"))


def number_lines(number: str) -> None:
    """Begin each log line with the worker's number, or give it as a field where lines are JSON."""
    for handler in logging.getLogger().handlers:
        inner = handler.formatter
        if inner is None or isinstance(inner, JsonFormatter):
            handler.addFilter(_Numbering(number))
        else:
            handler.setFormatter(_Numbered(number, inner))


class _Numbering(logging.Filter):
    def __init__(self, number: str) -> None:
        super().__init__()
        self._number = number

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker = self._number
        return True


class _Numbered(logging.Formatter):
    def __init__(self, number: str, inner: logging.Formatter) -> None:
        super().__init__()
        self._mark = f"[{number}] "
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return self._mark + self._inner.format(record).replace("\n", "\n" + " " * len(self._mark))


def _for_children(*, has_metrics: bool) -> dict[str, str]:
    """Copy our environment without the variables of the parent alone."""
    parents = (
        "OMNI_WORKER_WORKERS", "OMNI_WORKER_HEALTH_PORT", "OMNI_WORKER_HEALTH_HOST",
        "OMNI_WORKER_METRICS_PORT",
    )  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name not in parents}
    # Without anyone to ask for them, they would be counted in vain.
    return kept if has_metrics else {"OMNI_WORKER_METRICS": "off", **kept}


def _ready(notify: Notify, count: int) -> None:
    log.info("all %d workers are ready", count)
    notify.ready()


async def _tell_stopping(stop: Stop, notify: Notify) -> None:
    await stop.asked.wait()
    notify.stopping()
