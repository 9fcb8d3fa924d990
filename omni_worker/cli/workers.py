"""`omni-worker run --workers N`: the parent of N workers. It never imports the code they run."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..listeners.logs import JsonFormatter, set_up_logging
from ..process.health import Report
from ..process.notify import Notify
from ..process.supervisor import COUNT, NUMBER, Supervisor
from ..process.worker import FAILED, STOPPED, Stop
from . import CALLED_WRONGLY, Probing, complain

if TYPE_CHECKING:
    from ..process.http import Probes

log = logging.getLogger("omni_worker.supervisor")

PARENT = "*"


def workers_command(
    target: str, log_format: str | None, log_level: str, count: int, probing: Probing | None
) -> int:
    """Returns the exit code."""
    if sys.platform == "win32":
        complain("--workers needs Linux or macOS; start several processes instead")
        return CALLED_WRONGLY
    set_up_logging(log_format, log_level)
    number_lines(PARENT)
    command = [sys.executable, "-m", "omni_worker", "run", target, "--log-level", log_level]
    if log_format is not None:
        command += ["--log-format", log_format]
    return asyncio.run(_supervise(command, count, probing))


async def _supervise(command: list[str], count: int, probing: Probing | None) -> int:
    stop = Stop()
    stop.listen()
    notify = Notify()  # before the children get their environment
    notify.listen(stop.ask)
    supervisor = Supervisor(
        command,
        count,
        environment=_for_children(),
        stop=stop,
        on_ready=lambda: _ready(notify, count),
        on_report=notify.alive,
    )
    try:
        probes = open_probes(probing, supervisor.report)
    except ConfigError as error:
        complain(str(error))
        return FAILED
    telling = asyncio.create_task(_tell_stopping(stop, notify))
    try:
        code = await supervisor.run()
    finally:
        telling.cancel()
        notify.close()
        if probes is not None:
            probes.close()
    if code == STOPPED:
        log.info("stopped")
    return code


def open_probes(probing: Probing | None, report: Callable[[], Report]) -> Probes | None:
    """Answer probes where that was asked for, and say where. Raises ConfigError."""
    if probing is None:
        return None
    from ..process.http import Probes  # the standard HTTP server; most workers do without

    probes = Probes(probing.host, probing.port, report)
    log.info("health on %s", probes.url)
    return probes


def own_number() -> str | None:
    """Which of several workers this process is, None when it is the only one."""
    return os.environ.get(NUMBER)


def siblings() -> int:
    """How many workers one parent runs, this one included."""
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


def _for_children() -> dict[str, str]:
    """Our environment without what is for the parent alone."""
    parents = ("OMNI_WORKER_WORKERS", "OMNI_WORKER_HEALTH_PORT", "OMNI_WORKER_HEALTH_HOST")
    return {name: value for name, value in os.environ.items() if name not in parents}


def _ready(notify: Notify, count: int) -> None:
    log.info("all %d workers are ready", count)
    notify.ready()


async def _tell_stopping(stop: Stop, notify: Notify) -> None:
    await stop.asked.wait()
    notify.stopping()
